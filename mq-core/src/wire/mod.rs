//! RocketMQ's bytes and reserved names: pure codecs, no I/O. The only module that names what a transaction adds to a message.

pub mod batch;
pub mod binary_header;
pub mod codes;
pub mod command;
pub mod compression;
pub mod delays;
pub mod encoded;
pub mod frame;
pub mod heartbeat;
pub mod ids;
pub mod json_header;
pub mod json_keys;
mod json_text;
pub mod properties;
pub mod questions;
pub mod queue_table;
pub mod record;
pub mod registration;
pub mod reserved;
pub mod route;
pub mod sending;
pub mod system;
