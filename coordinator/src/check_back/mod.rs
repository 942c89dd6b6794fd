//! Check-back: asking the producer group how a local transaction ended.
//!
//! [`plan`] decides whom to ask and when, as a pure function; [`sweep`] reads rows, asks, and remembers what is outstanding;
//! [`unanswered`] bounds that for each connection; [`alarm`] is the clock that wakes it.

pub mod alarm;
pub mod plan;
pub mod sweep;
pub mod unanswered;

#[cfg(test)]
mod tests;
