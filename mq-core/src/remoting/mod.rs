//! Commands over TCP: listeners, the peers that connected to them, and what stands behind.
//!
//! | file | owns |
//! |---|---|
//! | `client` | connections that we open: calls in flight, matched by number; requests from the other side |
//! | `listener` | accepting, the frame loop of one connection, limits |
//! | `peer` | the way back to one connected peer: a bounded outbox, written once per wake-up |
//! | `service` | the trait of whatever answers, and where its answers go |

pub mod client;
pub mod listener;
pub mod peer;
pub mod service;
