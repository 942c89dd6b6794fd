//! Half messages with check-back: one decision per transaction, ever, audited in SQL.
//!
//! | module | owns |
//! |---|---|
//! | [`transaction`] | ids, states, resolutions, and the one table of legal moves |
//! | [`store`] | the SQL side as promises, the in-memory model, SQLite, Postgres, and the suite all of them pass |
//! | [`audit`] | the history and the seals over it |
//! | [`verify`] | reading the whole history and having it judged: was anything touched? |
//! | [`check_back`] | asking producers how their local transactions ended |
//! | [`embedded`] | all of it in one process over one data folder |
//! | [`engine`] | the coordinator: feed, SQL writer, publisher, recovery |
//! | [`client`] | the service's side: producers, local transactions, check-backs |
//! | [`marker`] | the row by which anybody can tell whether a local transaction committed |
//! | [`inbox`] | the row by which a consumer knows what it has applied |
//!
//! Feature `client` has what a service needs, `engine` the coordinator itself; `sqlite` and `postgres` are the databases either
//! can use. All are on by default. A service that keeps its orders in Postgres takes `client` and `postgres`, and compiles no
//! SQLite and no engine; `tls` is for a Postgres that is reached over a network.

#[cfg(feature = "engine")]
pub mod audit;
#[cfg(feature = "engine")]
pub mod check_back;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "engine")]
pub mod embedded;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "client")]
pub mod inbox;
#[cfg(feature = "client")]
pub mod marker;
pub mod steps;
#[cfg(feature = "engine")]
pub mod store;
pub mod transaction;
#[cfg(feature = "engine")]
pub mod verify;
