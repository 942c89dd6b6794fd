//! RocketMQ's bytes and reserved names: pure codecs, no I/O. The only module that names what a transaction adds to a message.

pub mod codes;
pub mod delays;
pub mod ids;
pub mod properties;
pub mod record;
pub mod reserved;
pub mod system;
