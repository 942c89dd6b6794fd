//! The one binary `halfmoon`.
