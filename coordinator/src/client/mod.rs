//! The service's side: where half messages go, and how check-backs come back.

pub mod endpoint;
