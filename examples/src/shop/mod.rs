//! A shop of three services with a database each, or several: orders, stock and payments agree through messages alone.
//!
//! ```text
//!  order service                stock service                 payment service
//!  4 databases                  1 database                    2 databases
//!
//!  place ──── orders/placed ───► reserve all lines or none
//!                                │
//!  cancel ◄── stock/refused ─────┤
//!                                └── stock/reserved ─────────► capture or refuse
//!  accept ◄───────────────────────── payments/captured ───────┤
//!  cancel ◄───────────────────────── payments/refused ────────┘
//!    └─────── orders/cancelled ─► release
//! ```
//!
//! Every arrow is a message that a local transaction hangs on: sent exactly when the rows beside it are committed. Every
//! arrow's end is an inbox row in the same local transaction as what the message causes.
//!
//! | module | owns |
//! |---|---|
//! | [`catalog`] | the Northwind data: products, and the order book |
//! | [`rules`] | the shop's rules, pure |
//! | [`events`] | topics, tags and bodies of the messages |
//! | [`kinds`] | what differs between SQLite and Postgres |
//! | [`databases`] | the services' databases: how many, and the pools that lead to them |
//! | [`stay`] | the folder and database where a shop stays, kept or temporary |
//! | [`serving`] | a service's loop: take deliveries, a few at a time, and settle them |
//! | [`orders`], [`stock`], [`payments`] | the three services |
//! | [`till`] | an instance of the order service that dies before its word about a transaction reaches the coordinator |
//! | [`progress`] | how far the orders are, and when all is quiet |
//! | [`reconcile`] | the books: every database and the audit, compared in plain SQL |
//! | [`report`] | what people are told of the books |
//! | [`seven_steps`] | the story of one transaction, from the audit |

pub mod catalog;
pub mod databases;
pub mod events;
pub mod kinds;
pub mod orders;
pub mod payments;
pub mod progress;
pub mod reconcile;
pub mod report;
pub mod rules;
pub mod serving;
pub mod seven_steps;
pub mod stay;
pub mod stock;
pub mod till;
