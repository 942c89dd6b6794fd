//! Half messages with check-back: one decision per transaction, ever, audited in SQL.
//!
//! | module | owns |
//! |---|---|
//! | [`transaction`] | ids, states, resolutions, and the one table of legal moves |
//! | [`store`] | the SQL side as promises, the in-memory model, SQLite, and the suite all of them pass |
//! | [`audit`] | the history and the seals over it |
//! | [`check_back`] | asking producers how their local transactions ended |
//! | [`engine`] | the coordinator: feed, SQL writer, publisher, recovery |
//! | [`client`] | the service's side: producers, local transactions, markers, inbox |

pub mod audit;
pub mod check_back;
pub mod client;
pub mod engine;
pub mod steps;
pub mod store;
pub mod transaction;
