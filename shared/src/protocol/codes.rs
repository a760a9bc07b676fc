//! Error codes and close codes, each with what a client should do.

use std::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, retryable: $retryable:literal;)*) => {
        /// The `code` of an `error` frame.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the protocol's page.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The code on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $text),* }
            }

            /// Whether the same command, sent again later with the same id, may succeed.
            pub fn retryable(self) -> bool {
                match self { $(ErrorCode::$variant => $retryable),* }
            }
        }
    };
}

error_codes! {
    /// The frame or the command's data is not of the protocol's form.
    BadRequest = "bad_request", retryable: false;
    /// The protocol has no such command.
    UnknownType = "unknown_type", retryable: false;
    /// A command before `auth`, or a token that is not accepted.
    Unauthenticated = "unauthenticated", retryable: false;
    /// The token does not allow this in this room.
    Forbidden = "forbidden", retryable: false;
    /// The command needs the room to be joined on this connection.
    NotJoined = "not_joined", retryable: false;
    /// The room, message or user named does not exist.
    NotFound = "not_found", retryable: false;
    /// The room has as many members as its capacity.
    RoomFull = "room_full", retryable: true;
    /// The room is completed.
    RoomClosed = "room_closed", retryable: false;
    /// A version asked for is not the current one.
    Conflict = "conflict", retryable: false;
    /// A command id was used before with another type or data.
    IdConflict = "id_conflict", retryable: false;
    /// A part of the command is above its limit.
    TooLarge = "too_large", retryable: false;
    /// The patch would take the room's state above 1 MiB.
    StateTooLarge = "state_too_large", retryable: false;
    /// The connection is in as many rooms as it may.
    TooManyRooms = "too_many_rooms", retryable: false;
    /// A rate limit; `retryAfterMs` tells when.
    RateLimited = "rate_limited", retryable: true;
    /// Slow mode; `retryAfterMs` tells when.
    Cooldown = "cooldown", retryable: true;
    /// The user is muted in the room.
    Muted = "muted", retryable: false;
    /// The user is banned from the room.
    Banned = "banned", retryable: false;
    /// The user was put out of the room.
    Kicked = "kicked", retryable: false;
    /// This room's data is damaged or its breaker is open; other rooms are well.
    RoomUnavailable = "room_unavailable", retryable: true;
    /// Redis cannot be reached.
    Unavailable = "unavailable", retryable: true;
    /// No answer in time; it may or may not have happened: retry with the same id.
    Timeout = "timeout", retryable: true;
    /// A fault of the server.
    Internal = "internal", retryable: true;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a close code tells a client to do. The range decides, also for a code that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterClose {
    /// Do not reconnect.
    Stop,
    /// Reconnect with back-off and resume.
    BackOff,
    /// Reconnect after the delay that the reason carries, in ms, and resume.
    AfterDelay,
    /// Get a token first, then resume.
    NewToken,
    /// Reconnect at once and resume.
    AtOnce,
}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $reason:literal;)*) => {
        /// A close code that a gateway sends.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $($(#[$doc])* $variant,)*
        }

        impl CloseCode {
            /// Every code a gateway sends.
            pub const ALL: &'static [CloseCode] = &[$(CloseCode::$variant),*];

            /// The number on the wire.
            pub fn code(self) -> u16 {
                match self { $(CloseCode::$variant => $code),* }
            }

            /// The reason sent when nothing more exact is known.
            pub fn reason(self) -> &'static str {
                match self { $(CloseCode::$variant => $reason),* }
            }
        }
    };
}

close_codes! {
    /// The client left; the answer to its own close.
    Normal = 1000, "";
    /// A breach of RFC 6455.
    Protocol = 1002, "protocol error";
    /// A binary message.
    Unsupported = 1003, "text frames only";
    /// A text message that is not UTF-8.
    BadUtf8 = 1007, "text is not UTF-8";
    /// Too many refused frames.
    Policy = 1008, "too many refused frames";
    /// A message above `MAX_FRAME_BYTES`.
    TooBig = 1009, "message too big";
    /// A fault of the server.
    ServerError = 1011, "server error";
    /// The gateway drains; the reason carries the delay in ms.
    Draining = 1012, "0";
    /// The gateway has as many connections as it may.
    Overloaded = 1013, "overloaded";
    /// Ten frames within a minute that are no commands.
    BadProtocol = 4000, "too many malformed frames";
    /// No token in time, or a bad one.
    NotAuthenticated = 4002, "not authenticated";
    /// Blocked by the operator.
    Blocked = 4003, "blocked";
    /// The user or address has as many connections as it may.
    TooManyConnections = 4005, "too many connections";
    /// The token has expired.
    TokenExpired = 4100, "token expired";
    /// The token was revoked.
    TokenRevoked = 4101, "token revoked";
    /// The queue of frames for this reader is full.
    SlowConsumer = 4200, "slow consumer";
    /// The last ping found no answer.
    NoPong = 4201, "no pong";
}

/// What a client does after a close with `code`; 1005 and 1006 stand for none received.
pub fn after_close(code: u16) -> AfterClose {
    match code {
        1012 => AfterClose::AfterDelay,
        1001 | 1005 | 1006 | 1011 | 1013..=1015 => AfterClose::BackOff,
        1000 | 1002..=1010 => AfterClose::Stop,
        4000..=4099 => AfterClose::Stop,
        4100..=4199 => AfterClose::NewToken,
        4200..=4299 => AfterClose::AtOnce,
        _ => AfterClose::BackOff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_each_close_code_says_what_to_do() {
        for &code in CloseCode::ALL {
            let expected = match code {
                CloseCode::Normal
                | CloseCode::Protocol
                | CloseCode::Unsupported
                | CloseCode::BadUtf8
                | CloseCode::Policy
                | CloseCode::TooBig
                | CloseCode::BadProtocol
                | CloseCode::NotAuthenticated
                | CloseCode::Blocked
                | CloseCode::TooManyConnections => AfterClose::Stop,
                CloseCode::ServerError | CloseCode::Overloaded => AfterClose::BackOff,
                CloseCode::Draining => AfterClose::AfterDelay,
                CloseCode::TokenExpired | CloseCode::TokenRevoked => AfterClose::NewToken,
                CloseCode::SlowConsumer | CloseCode::NoPong => AfterClose::AtOnce,
            };
            assert_eq!(after_close(code.code()), expected, "{code:?}");
        }
        assert_eq!(after_close(4099), AfterClose::Stop);
        assert_eq!(after_close(4299), AfterClose::AtOnce);
        assert_eq!(after_close(1006), AfterClose::BackOff);
    }

    #[test]
    fn error_codes_are_distinct() {
        let texts: std::collections::HashSet<_> = ErrorCode::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
    }
}
