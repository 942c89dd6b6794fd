//! Half messages with check-back: one decision per transaction, ever, audited in SQL.
//!
//! | module | owns |
//! |---|---|
//! | [`transaction`] | ids, states, resolutions, and the one table of legal moves |
//! | [`store`] | the SQL side as promises, the in-memory model, SQLite, and the suite all of them pass |
//! | [`audit`] | the history and the seals over it |
//! | [`verify`] | reading the whole history and having it judged: was anything touched? |
//! | [`check_back`] | asking producers how their local transactions ended |
//! | [`embedded`] | all of it in one process over one data folder |
//! | [`engine`] | the coordinator: feed, SQL writer, publisher, recovery |
//! | [`client`] | the service's side: producers, local transactions, check-backs |
//! | [`marker`] | the row by which anybody can tell whether a local transaction committed |
//! | [`inbox`] | the row by which a consumer knows what it has applied |

pub mod audit;
pub mod check_back;
pub mod client;
pub mod embedded;
pub mod engine;
pub mod inbox;
pub mod marker;
pub mod steps;
pub mod store;
pub mod transaction;
pub mod verify;
