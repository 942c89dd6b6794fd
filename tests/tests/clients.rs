//! Clients that others wrote drive the server: stock Java, Go and Node programs send, consume and settle transactions.
//!
//! With `HALFMOON_TEST_NAMESERVER=host:port` the same programs and the same judging look at a RocketMQ server that already
//! runs there.

pub(crate) mod facts;
mod go;
mod java;
mod node;
mod play;
mod split;
pub(crate) mod stock;
mod together;
