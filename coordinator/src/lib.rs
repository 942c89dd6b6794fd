//! Half messages with check-back: one decision per transaction, ever, audited in SQL.
//!
//! | module | owns |
//! |---|---|
//! | [`transaction`] | ids, states, resolutions, and the one table of legal moves |
//! | [`store`] | the SQL side as promises, the in-memory model, SQLite, and the suite all of them pass |
//! | [`audit`] | the history and the seals over it |
//! | [`client`] | the service's side: producers, local transactions, markers, inbox |

pub mod audit;
pub mod client;
pub mod steps;
pub mod store;
pub mod transaction;
