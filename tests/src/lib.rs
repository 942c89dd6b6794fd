//! What the tests of the whole system share.
//!
//! | module | owns |
//! |---|---|
//! | [`checker`] | whether a log, its database and the users' databases tell one story; shares no code with the product |

pub mod checker;
