//! What is known of a user, or of an address, over all rooms and nodes.
//!
//! # Contract
//!
//! - A **budget** is a token bucket of a user and lane: however many nodes spend from it, no more is granted than `burst` and
//!   `per_second` allow, by the store's clock.
//! - **Connections** are counted over all nodes. Each says how many it has, as a number that stands for itself; it says so
//!   again when it has another name ([`Store::instance`]), after an interruption, and before seven days have passed. What a
//!   node that has died leaves behind stops counting when its lease has ended and nothing of it has changed for as long.
//! - **Revocation and blocks** hold when the call has answered, and are told to every node ([`EventSink::control`]) at most
//!   once; [`Users::standing`] says what holds.
//!
//! [`EventSink::control`]: super::EventSink::control
//! [`Store::instance`]: super::Store::instance

use std::time::Duration;

use roomgate_shared::{
    ids::UserId,
    protocol::{Lane, config::Rate},
};

use super::{BoxFuture, StoreError};

/// How long it is known that a user's tokens, or one token, are revoked: longer than any token should live.
pub const REVOKED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whose connections are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A user.
    User(UserId),
    /// An address, or a range of addresses that stands for one; of the alphabet of room ids.
    Address(Box<str>),
}

/// What [`Users::spend`] has granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Tokens, perhaps fewer than wanted.
    pub granted: u64,
    /// If none: when the next one comes, ms.
    pub retry_ms: u64,
}

/// Whether a user may be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Its tokens that were made before this time are revoked, Unix ms; 0: none are.
    pub revoked_before: u64,
    /// The token that was asked about is revoked.
    pub token_is_revoked: bool,
    /// The operator has blocked it.
    pub is_blocked: bool,
}

/// What an operator has said, to every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Tokens of a user that were made before a time, Unix ms, are revoked.
    Revoked {
        /// Whose.
        user: UserId,
        /// Before when.
        before: u64,
    },
    /// The token of this id is revoked.
    TokenRevoked(Box<str>),
    /// A user is blocked.
    Blocked(UserId),
    /// A user's connections are to end; it may come again.
    Disconnect(UserId),
}

const RS: char = '\u{1e}';

impl Control {
    /// The text on the channel of all nodes.
    pub fn text(&self) -> String {
        match self {
            Control::Revoked { user, before } => format!("R{before}{RS}{user}"),
            Control::TokenRevoked(id) => format!("T{id}"),
            Control::Blocked(user) => format!("B{user}"),
            Control::Disconnect(user) => format!("D{user}"),
        }
    }

    /// Reads it back; `None` for what no gateway of this version writes.
    pub fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let rest = text.get(1..)?;
        match text.as_bytes().first()? {
            b'R' => {
                let (before, user) = rest.split_once(RS)?;
                Some(Control::Revoked {
                    user: UserId::new(user).ok()?,
                    before: before.parse().ok()?,
                })
            }
            b'T' if !rest.is_empty() => Some(Control::TokenRevoked(rest.into())),
            b'B' => UserId::new(rest).ok().map(Control::Blocked),
            b'D' => UserId::new(rest).ok().map(Control::Disconnect),
            _ => None,
        }
    }
}

/// See the module.
pub trait Users: Send + Sync {
    /// Takes up to `want` tokens out of a user's budget.
    ///
    /// # Errors
    /// As [`Store::apply`](super::Store::apply); nothing is granted.
    fn spend<'a>(
        &'a self,
        user: &'a UserId,
        lane: Lane,
        want: u64,
        rate: Rate,
    ) -> BoxFuture<'a, Result<Spent, StoreError>>;

    /// This node has `here` connections of a holder, and as many of `more` in addition as leave it with `most` on all nodes:
    /// so many are counted from now on, whatever was before. How many of `more`. Those that are here count even past
    /// `most`. A call for a holder is to follow when the one before has ended: the later one is to stand.
    ///
    /// # Errors
    /// As [`Store::apply`](super::Store::apply); it may have been counted.
    fn count<'a>(
        &'a self,
        holder: &'a Holder,
        here: u64,
        more: u64,
        most: u64,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Whether a user may be here, and a token of it.
    ///
    /// # Errors
    /// As [`Store::apply`](super::Store::apply).
    fn standing<'a>(
        &'a self,
        user: &'a UserId,
        token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Standing, StoreError>>;

    /// Writes down what an operator says, for as long as it is to hold, and tells every node. `lasting`: of a block, for how
    /// long; `None` for ever.
    ///
    /// # Errors
    /// As [`Store::apply`](super::Store::apply); it may hold, and may not have been told.
    fn command<'a>(
        &'a self,
        what: OperatorCommand,
        lasting: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// What an operator can say of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperatorCommand {
    /// All its tokens that were made before now are not good any more.
    Revoke(UserId),
    /// The token of this id is not.
    RevokeToken(Box<str>),
    /// It may not connect.
    Block(UserId),
    /// It may again.
    Unblock(UserId),
    /// Its connections end.
    Disconnect(UserId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_to_all_nodes_reads_back() {
        let user = UserId::new("u{7} \"é\"").unwrap();
        for control in [
            Control::Revoked {
                user: user.clone(),
                before: 7,
            },
            Control::TokenRevoked("t 1".into()),
            Control::Blocked(user.clone()),
            Control::Disconnect(user),
        ] {
            assert_eq!(Control::read(control.text().as_bytes()), Some(control));
        }
        for junk in [&b""[..], b"R", b"Rx\x1eu", b"R1", b"T", b"B", b"D\xff", b"Xu"] {
            assert_eq!(Control::read(junk), None, "{junk:?}");
        }
    }
}
