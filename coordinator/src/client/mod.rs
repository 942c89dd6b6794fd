//! The service's side: where half messages go, and how check-backs come back.
//!
//! | module | owns |
//! |---|---|
//! | [`producer`] | a producer group's member: begins local transactions, sends half messages |
//! | [`local`] | a local transaction that a half message hangs on, and how it ends |
//! | [`half`] | a half message for services that run their local transaction without sqlx |
//! | [`check_back`] | being asked what became of a half message, and answering |
//! | [`live`] | the local transactions that run in this process |
//! | `pruning` | deleting markers that nobody can ask for any more |
//! | `left_behind` | the same for markers that earlier processes left behind |
//! | [`embedded`] | a producer beside its coordinator, in one process |
//! | [`remote`] | a producer whose coordinator is a server, ours or a stock broker |
//! | [`endpoint`] | the coordinator, near or far, as a trait |

pub mod check_back;
#[cfg(feature = "engine")]
pub mod embedded;
pub mod endpoint;
pub mod half;
mod left_behind;
pub mod live;
pub mod local;
pub mod producer;
mod pruning;
pub mod remote;
mod requests;
#[cfg(test)]
pub(crate) mod tests;

pub use local::Transaction;
pub use producer::Producer;
