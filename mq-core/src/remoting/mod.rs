//! Commands over TCP: listeners, the peers that connected to them, and what stands behind.
//!
//! | file | owns |
//! |---|---|
//! | `listener` | accepting, the frame loop of one connection, stopping |
//! | `client` | connections that we open: calls in flight, matched by number; requests from the other side |
//! | `service` | the trait of whatever answers, and where its answers go |
//! | `peer` | the way back to one connected peer: one writer at a time, once per wake-up |
//! | `postman` | the one task that writes what was answered from elsewhere |
//! | `outbox` | what waits to be written to one peer |
//! | `frames` | what one connection says, all whole frames of a wake-up at once |
//! | `limits` | what connections may cost, together and each |

pub mod client;
mod frames;
pub mod limits;
pub mod listener;
mod outbox;
pub mod peer;
mod postman;
pub mod service;
