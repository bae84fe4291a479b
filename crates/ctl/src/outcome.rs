//! How a call ends: exit codes and error lines that scripts know.

use milepost_client::Error;

/// etcdctl's exit codes.
pub mod exit {
    /// A server's refusal, a timeout, a mistake on the command line.
    pub const ERROR: u8 = 1;
    /// No client could be made: no endpoint, a wrong password.
    pub const BAD_CONNECTION: u8 = 2;
    /// What was read from standard input makes no sense, or ended too early.
    pub const INVALID_INPUT: u8 = 3;
    /// A value that the flag does not have, or a format that the command does not have.
    pub const BAD_FEATURE: u8 = 4;
    /// The server ended what was to go on.
    pub const INTERRUPTED: u8 = 5;
    /// Arguments that the command cannot take.
    pub const BAD_ARGS: u8 = 128;
}

/// Why a call did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub code: u8,
    /// What stands behind `Error: `; `None` when everything has been said.
    pub text: Option<String>,
}

/// A call's end.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure that is still to be told.
    pub fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: Some(text.into()) }
    }

    /// A failure that has been told.
    pub fn silent(code: u8) -> Failure {
        Failure { code, text: None }
    }

    /// Arguments that the command cannot take.
    pub fn args(text: impl Into<String>) -> Failure {
        Failure::new(exit::BAD_ARGS, text)
    }

    /// A request that was refused or not answered.
    pub fn rpc(error: Error) -> Failure {
        Failure::new(exit::ERROR, error.to_string())
    }
}
