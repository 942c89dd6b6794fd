//! What every [`super::Log`] must do, as tests that an implementation calls.
