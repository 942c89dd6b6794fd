//! Response codes of RocketMQ (`ResponseCode`).

/// Overloaded, try again.
pub const SYSTEM_BUSY: i32 = 2;
/// Nobody here answers this request.
pub const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
