//! What the tests of the whole system share.
//!
//! | module | owns |
//! |---|---|
//! | [`checker`] | whether a log, its database and the users' databases tell one story; shares no code with the product |
//! | [`cluster`] | a nameserver and brokers as processes of their own |
//! | [`fuzz`] | readers of foreign bytes, and a driver that tries to make one panic |
//! | [`instance`] | an instance of a service as a process at a server, for tests that kill it or cut it off |
//! | [`mod@line`] | a line between clients and a server that a test can cut |
//! | [`power`] | a disk whose power a test can cut |
//! | [`process`] | a program as a process of its own, killed where the test says |
//! | [`raw`] | frames of RocketMQ's protocol by hand; shares no code with the product |
//! | [`server`] | the server that clients talk to: `halfmoon server` on free ports, or one that runs elsewhere |
//! | [`service`] | a whole service in one process, for tests that kill it |
//! | [`stock`] | the original RocketMQ server for one test |

pub mod checker;
pub mod cluster;
pub mod fuzz;
pub mod instance;
pub mod line;
pub mod power;
pub mod process;
pub mod raw;
pub mod server;
pub mod service;
pub mod stock;
