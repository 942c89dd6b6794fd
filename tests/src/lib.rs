//! What the tests of the whole system share.
//!
//! | module | owns |
//! |---|---|
//! | [`checker`] | whether a log, its database and the users' databases tell one story; shares no code with the product |
//! | [`process`] | a program as a process of its own, killed where the test says |
//! | [`raw`] | frames of RocketMQ's protocol by hand; shares no code with the product |
//! | [`service`] | a whole service in one process, for tests that kill it |

pub mod checker;
pub mod process;
pub mod raw;
pub mod service;
