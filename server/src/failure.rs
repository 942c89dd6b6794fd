//! How a command ends when it cannot do what it was asked: one line and an exit status.

use std::io;

use coordinator::store::StoreError;
use coordinator::verify::VerifyError;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The answer is no, or there is no such thing. Exit status 1.
    Negative(String),
    /// Wrong usage, or something around the program does not fit. Exit status 2.
    Environment(String),
    /// Whoever read the output has gone, as `head` does: nothing to complain about. Exit status 0.
    NobodyReads,
}

impl Failure {
    /// The line for stderr, if there is something to say.
    #[must_use]
    pub fn line(&self) -> Option<&str> {
        match self {
            Self::Negative(line) | Self::Environment(line) => Some(line),
            Self::NobodyReads => None,
        }
    }

    /// The process's exit status.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::NobodyReads => 0,
            Self::Negative(_) => 1,
            Self::Environment(_) => 2,
        }
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        Self::Environment(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Environment(error.to_string())
    }
}

/// An error of writing the output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::NobodyReads
        } else {
            Self::Environment(format!("the output cannot be written: {error}"))
        }
    }
}
