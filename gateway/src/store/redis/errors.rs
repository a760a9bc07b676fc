//! What errors of fred and of Redis say about a command: whether it may have been carried out, and whose fault it is.

use std::borrow::Cow;

use fred::{
    error::{Error, ErrorKind},
    types::Resp3Frame as Frame,
};

use crate::store::StoreError;

/// A command's reply that is no answer: an error of fred, or one that Redis sent.
#[derive(Debug)]
pub(super) enum CommandError {
    /// See [`StoreError`].
    Store(StoreError),
    /// The library is not there; the call has done nothing.
    NoFunction,
}

impl From<CommandError> for StoreError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Store(error) => error,
            CommandError::NoFunction => StoreError::unavailable("the function library has just been lost"),
        }
    }
}

/// What an error of fred says about a command.
pub(super) fn of_fred(error: &Error) -> StoreError {
    let text = error.to_string();
    match error.kind() {
        // Refused before it was written, or by a server that could not run it.
        ErrorKind::Backpressure
        | ErrorKind::Canceled
        | ErrorKind::Routing
        | ErrorKind::Config
        | ErrorKind::Auth
        | ErrorKind::Cluster
        | ErrorKind::Sentinel => StoreError::unavailable(text),
        ErrorKind::Unknown if NOT_SENT.contains(&error.details()) => StoreError::unavailable(text),
        ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Unknown => StoreError::Timeout(text),
        ErrorKind::InvalidCommand
        | ErrorKind::InvalidArgument
        | ErrorKind::Url
        | ErrorKind::Protocol
        | ErrorKind::Parse
        | ErrorKind::NotFound => StoreError::Internal(text),
    }
}

/// What fred says of commands that it has not written.
const NOT_SENT: [&str; 3] = [
    "Failed to route command.",
    "Client is not initialized.",
    "Failed to send command to router.",
];

/// First words of the errors of a server that cannot take writes now.
const CANNOT_NOW: [&str; 12] = [
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "OOM",
    "NOREPLICAS",
    "BUSY",
    "CLUSTERDOWN",
    "MISCONF",
    "TRYAGAIN",
    "MOVED",
    "ASK",
    "NOAUTH",
];

/// The text of a reply that is an error.
pub(super) fn error_text(frame: &Frame) -> Option<Cow<'_, str>> {
    if let Frame::SimpleError { data, .. } = frame {
        return Some(Cow::Borrowed(data));
    }
    if let Frame::BlobError { data, .. } = frame {
        return Some(String::from_utf8_lossy(data));
    }
    None
}

/// Stands in every error that a function raises, or that a command raises within it.
const IN_FUNCTION: &str = " on @user_function:";
/// Such an error that is not the room's: the Redis user lacks a permission.
pub(super) const NOT_ALLOWED: &str = "The user executing the script";

/// What an error that Redis sent says about a command. What the room function stumbles over is taken for damage of its
/// room's data: others go on, and this one is not asked for a while.
pub(super) fn of_redis(text: &str) -> CommandError {
    let word = text.split(' ').next().unwrap_or_default();
    let text_of = || text.to_owned();
    if word == "ROOMDAMAGED" || word == "WRONGTYPE" {
        CommandError::Store(StoreError::Damaged(text_of()))
    } else if CANNOT_NOW.contains(&word) {
        CommandError::Store(StoreError::unavailable(text_of()))
    } else if text.contains(IN_FUNCTION) && !text.contains(NOT_ALLOWED) {
        CommandError::Store(StoreError::Damaged(text_of()))
    } else if text.starts_with("ERR Function not found") {
        CommandError::NoFunction
    } else {
        CommandError::Store(StoreError::Internal(text_of()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_redis() {
        let of = |text| StoreError::from(of_redis(text));
        assert!(matches!(
            of("ROOMDAMAGED room:{r}:meta: x"),
            StoreError::Damaged(_)
        ));
        assert!(matches!(
            of("LOADING Redis is loading"),
            StoreError::Unavailable(_)
        ));
        assert!(matches!(
            of("OOM command not allowed"),
            StoreError::Unavailable(_)
        ));
        assert!(matches!(of("ERR something"), StoreError::Internal(_)));
        // As Redis 7.0 writes them.
        for text in [
            "ERR user_function:2: attempt to index local 'a' (a nil value) script: f, on @user_function:2.",
            "ERR user_function:6: Expected object key string but found T_END at character 2 script: f, on @user_function:6.",
            "WRONGTYPE Operation against a key holding the wrong kind of value script: f, on @user_function:3.",
        ] {
            assert!(matches!(of(text), StoreError::Damaged(_)), "{text}");
        }
        let full = "OOM command not allowed when used memory > 'maxmemory'. script: f, on @user_function:3.";
        assert!(matches!(of(full), StoreError::Unavailable(_)));
        let denied = "ERR The user executing the script can't run this command or subcommand script: f, on @user_function:3.";
        assert!(matches!(of(denied), StoreError::Internal(_)));
        assert!(matches!(
            of_redis("ERR Function not found"),
            CommandError::NoFunction
        ));
    }

    #[test]
    fn errors_of_fred() {
        let of = |kind, text: &'static str| of_fred(&Error::new(kind, text));
        assert!(matches!(of(ErrorKind::Timeout, "x"), StoreError::Timeout(_)));
        assert!(matches!(
            of(ErrorKind::IO, "Connection closed."),
            StoreError::Timeout(_)
        ));
        assert!(matches!(
            of(ErrorKind::Unknown, "channel closed"),
            StoreError::Timeout(_)
        ));
        assert!(matches!(
            of(ErrorKind::Unknown, "Failed to route command."),
            StoreError::Unavailable(_)
        ));
        assert!(matches!(
            of(ErrorKind::Backpressure, "x"),
            StoreError::Unavailable(_)
        ));
    }
}
