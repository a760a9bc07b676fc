//! Identifiers, checked once at the edge: a value of one of these types is safe in a Redis key, a log line
//! and (user ids aside, which need escaping) in JSON text.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest room or user id, in characters.
pub const MAX_ID_CHARS: usize = 128;
/// Longest command id, in characters.
pub const MAX_COMMAND_ID_CHARS: usize = 64;

/// Why a text is not an identifier. The message is fit for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a room id.
    #[error("a room id has 1 to 128 characters of A-Z a-z 0-9 . _ ~ : -")]
    Room,
    /// Not a user id.
    #[error("a user id has 1 to 128 printable characters")]
    User,
    /// Not a command id.
    #[error("a command id has 1 to 64 characters of A-Z a-z 0-9 . _ ~ : -")]
    Command,
    /// Not a node id.
    #[error("a node id has 1 to 128 characters of A-Z a-z 0-9 . _ ~ : -")]
    Node,
}

fn is_plain(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b':' | b'-'))
}

/// Printable: no control or format character, no line or paragraph separator. Bidirectional overrides are format
/// characters that would let one user's name rewrite the look of a log line, so they are out too.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $error:ident, |$text:ident| $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and keeps `text`; the error says what is accepted.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let $text = text.as_ref();
                if $check { Ok(Self(Arc::from($text))) } else { Err(IdError::$error) }
            }

            /// The identifier's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
    };
}

id! {
    /// A room: 1–128 characters of `A-Z a-z 0-9 . _ ~ : -`, so it can stand between the braces of a cluster hash tag.
    RoomId, Room, |text| is_plain(text, MAX_ID_CHARS)
}
id! {
    /// A user: 1–128 printable characters. JSON text needs it escaped.
    UserId, User, |text| {
        // A character is at most four bytes: the length test keeps the count from walking a megabyte.
        !text.is_empty()
            && text.len() <= 4 * MAX_ID_CHARS
            && text.chars().count() <= MAX_ID_CHARS
            && text.chars().all(is_printable)
    }
}
id! {
    /// A client's name for one command, echoed in its answer: 1–64 characters of `A-Z a-z 0-9 . _ ~ : -`.
    CommandId, Command, |text| is_plain(text, MAX_COMMAND_ID_CHARS)
}
id! {
    /// A gateway process: same alphabet as a room.
    NodeId, Node, |text| is_plain(text, MAX_ID_CHARS)
}

/// One WebSocket, unique over all nodes and restarts: `c`, 40 bits of the node's start nonce and a counter, in
/// lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    nonce: u64,
    counter: u64,
}

impl ConnectionId {
    /// `nonce` is random for each start of a node (its low 40 bits count), `counter` rises within it.
    pub fn new(nonce: u64, counter: u64) -> Self {
        Self {
            nonce: nonce & 0xff_ffff_ffff,
            counter,
        }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{:010x}{:x}", self.nonce, self.counter)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_ids_take_the_alphabet_and_nothing_else() {
        for good in ["a", "A-Z.0_9~:x", &"r".repeat(128)] {
            assert_eq!(RoomId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a/b", "{a}", "a}", "é", "a\n", "a\0", &"r".repeat(129)] {
            assert_eq!(RoomId::new(bad), Err(IdError::Room), "{bad:?}");
        }
    }

    #[test]
    fn user_ids_are_counted_in_characters_and_hold_no_controls() {
        for good in [
            "u-7",
            "Zoë 7",
            "\"quoted\"",
            &"é".repeat(128),
            &"\u{10348}".repeat(128),
        ] {
            assert!(UserId::new(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "a\tb",
            "a\u{7f}",
            "a\u{85}",
            "a\u{2028}b",
            "a\u{202e}b",
            &"é".repeat(129),
        ] {
            assert_eq!(UserId::new(bad), Err(IdError::User), "{bad:?}");
        }
    }

    #[test]
    fn command_ids_end_at_64() {
        assert!(CommandId::new("k".repeat(64)).is_ok());
        assert_eq!(CommandId::new("k".repeat(65)), Err(IdError::Command));
    }

    #[test]
    fn connection_ids_are_distinct_and_plain() {
        let (a, b) = (ConnectionId::new(u64::MAX, 1), ConnectionId::new(u64::MAX, 2));
        assert_eq!(a.to_string(), "cffffffffff1");
        assert_ne!(a.to_string(), b.to_string());
    }
}
