//! Topics, message queues, consumer groups and one commit log.
//!
//! `mq-core` is a message broker engine that uses RocketMQ's words and its stored record layout, so that the bytes a
//! consumer pulls are the bytes on disk. It can be linked into a process or stand behind a socket.
//!
//! It knows topics and bytes, and no database. Whatever needs more is an [`extension`]: it claims hidden topics, send flags
//! and request codes, and appends marked records to the log.
//!
//! | module | owns |
//! |---|---|
//! | [`names`] | topic and group names and the rules they obey |
//! | [`message`] | a message before it is stored, and its limits |
//! | [`wire`] | RocketMQ's bytes: records, properties, ids, reserved names |
//! | [`log`] | the commit log: append, read, find, scan, recovery |
//! | [`broker`] | topics, groups, offsets, retry and delay over one log |
//! | [`client`] | producers and consumers, beside a broker or over the network |
//! | [`extension`] | the one way to add a protocol on top |
//! | [`remoting`] | commands over TCP: listeners, peers, services |
//! | [`serving`] | a broker behind a socket: what it answers to each request code |
//! | [`nameserver`] | which brokers there are, and which of them has which topic |
//! | [`exchange`], [`membership`], [`filter`], [`places`] | what clients and brokers say to each other, as values |
//! | [`clock`], [`random`] | the only sources of time and chance |

#[cfg(feature = "engine")]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;
pub mod clock;
pub mod exchange;
#[cfg(feature = "engine")]
pub mod extension;
pub mod filter;
#[cfg(feature = "engine")]
pub mod log;
pub mod membership;
pub mod message;
pub mod names;
#[cfg(feature = "engine")]
pub mod nameserver;
pub mod places;
pub mod random;
#[cfg(feature = "client")]
pub mod remoting;
#[cfg(feature = "engine")]
pub mod serving;
pub mod wire;
