//! Check-back: asking the producer group how a local transaction ended.
//!
//! [`plan`] decides whom to ask and when, as a pure function; [`sweep`] reads rows, asks, and remembers what is outstanding;
//! [`alarm`] is the clock that wakes it.

pub mod alarm;
pub mod plan;
pub mod sweep;

#[cfg(test)]
mod tests;
