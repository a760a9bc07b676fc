//! The truth about rooms, behind one trait.
//!
//! Two stores hold to the same contract, and one suite (`tests/store_contract.rs`) runs over both: [`memory`], for one
//! process with nothing to install, and [`redis`], for any number of gateways.
//!
//! # Contract
//!
//! - **A batch is one atomic step** ([`Store::apply`]): its operations happen in their order, with nothing of another
//!   batch between them. Each gets its own [`Reply`]; one that is refused changes nothing and hinders no other.
//! - **Order.** A room has one sequence: `seq` from 1, without holes, within an `epoch` that names the room's life. An
//!   operation that changes durable state takes the next `seq`; presence changes that come together in one batch share
//!   one. All times are the store's clock, Unix ms.
//! - **Once.** An operation with a [`CommandKey`] whose user and id are remembered changes nothing: its reply is what the
//!   first one brought ([`Done::Again`]), or `id_conflict` where the fingerprints differ. What was refused is not
//!   remembered. Ids are remembered for [`StoreLimits::dedupe`] at least, and forgotten before twice that has passed.
//! - **Truth about loss.** When the store comes back with less than it had told, the room gets another epoch before
//!   anything else happens in it. An event up to the last one that was kept is the same in both epochs, so whoever stands
//!   there goes on ([`Joined::recovered`]); whoever stands behind it is told that its past has ended (`epoch_changed`).
//! - **State, log and publication agree**: an event is in the log and published exactly if its change was made.
//! - **Publication.** Durable events of one batch come as one [`payload`] to the [`EventSink`] of every node whose
//!   subscription to the room is confirmed, the node that applied the batch included; the payloads of a room arrive in the
//!   order of their `seq`. Delivery is at most once: where the path breaks, [`EventSink::interrupted`] is called, and
//!   whoever listens asks for the tail ([`Op::Tail`]).
//! - **Pictures.** All [`Op::Join`] of a batch see the room as it is at the end of the batch, and say so by their `seq`.
//! - **Life.** A room is made by a join (`create`), and every key of it lives for `active_ttl` from its last change, but
//!   never shorter than the retention of the messages it holds. An [`Op::Tail`] counts as a change here: nodes with
//!   members ask for it from time to time.

pub mod memory;
pub mod payload;
pub mod redis;

use std::{borrow::Cow, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use roomgate_shared::{
    ids::{CommandId, ConnectionId, NodeId, RoomId, UserId},
    protocol::{
        codes::ErrorCode,
        command::{Fields, Since},
    },
};

/// A boxed future: the trait is used as an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Bounds that a store keeps to.
#[derive(Debug, Clone)]
pub struct StoreLimits {
    /// Most events in a room's log.
    pub log_events: u64,
    /// Age at which events leave the log.
    pub log_age: Duration,
    /// Most bytes of event text in a room's log.
    pub log_bytes: u64,
    /// Life of a room from its last change.
    pub active_ttl: Duration,
    /// How long messages are kept.
    pub retention: Duration,
    /// How long command ids are remembered.
    pub dedupe: Duration,
    /// Most bytes of a page of messages: a page ends before the message that would pass it, but has one message at least.
    pub page_bytes: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            log_events: 10_000,
            log_age: Duration::from_secs(600),
            log_bytes: 8 * 1024 * 1024,
            active_ttl: Duration::from_secs(3600),
            retention: Duration::from_secs(24 * 3600),
            dedupe: Duration::from_secs(600),
            page_bytes: 1024 * 1024,
        }
    }
}

/// What makes a command happen once, however often it is sent. The user is the operation's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandKey {
    /// The client's id for it.
    pub id: CommandId,
    /// A hash of the command's type and data: another one under the same id is another command.
    pub fingerprint: u64,
}

/// One operation on a room.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A connection enters. Adds the connection to the user's; a user without any before is announced in `joined`, one
    /// that was `away` in `back`, and one whose presence this changes in `updated`. The same connection again changes
    /// nothing but presence.
    Join(Join),
    /// A connection is gone. With the user's last one: `left` if `leaving`, else the user stays, `away`. Unknown
    /// connections are passed over: [`Done::Ack`] with `{}`.
    Part {
        /// Whose.
        user: UserId,
        /// Which.
        connection: ConnectionId,
        /// The user means to go, as against a lost connection.
        leaving: bool,
    },
    /// Merges into the user's presence; `updated` unless nothing changes. Refused as `too_large` where the presence would
    /// pass 4 KiB (names and values), as `not_joined` for a user that is no member. Ack: `{"seq":n}`.
    PresenceUpdate {
        /// Whose.
        user: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// Fields to set.
        set: Fields,
        /// Fields to remove.
        remove: Vec<String>,
    },
    /// Ack: `{"version":n,"state":{…},"seq":n}`.
    StateGet {
        /// `None` for all; absent ones are left out.
        fields: Option<Vec<String>>,
    },
    /// Changes fields, all or none. `conflict` (details `"version":n,"fields":{…}` with the current values of the fields
    /// named) where `if_version` is not the current one; `bad_request` for an increment of what is no number or past
    /// what a double holds; `state_too_large` past 1 MiB. Ack: `{"version":n,"seq":n}`.
    StatePatch {
        /// Author.
        by: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// Fields to set.
        set: Fields,
        /// Fields to remove.
        remove: Vec<String>,
        /// Numbers to add; an absent field counts as 0. An integral result within ±2^53 is written as an integer.
        increment: Vec<(String, f64)>,
        /// Condition.
        if_version: Option<u64>,
    },
    /// Adds a message. Ack: `{"message":{…}}`.
    MessageSend {
        /// Author.
        by: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// [`message_tail`](roomgate_shared::protocol::event::message_tail) of the message.
        tail: String,
    },
    /// A page of messages, oldest first, none past retention. A cursor is a message's id and need not exist any more.
    /// `bad_request` for a text that cannot be one. Ack: `{"messages":[…],"before":…,"after":…}`, where `before` is there if
    /// older ones exist and `after` if newer ones do.
    MessageHistory {
        /// Messages older than this one.
        before: Option<String>,
        /// Messages newer than this one.
        after: Option<String>,
        /// Most messages.
        limit: usize,
    },
    /// A custom event. Ack: `{"seq":n}`.
    Broadcast {
        /// Author.
        by: UserId,
        /// The command, if it is to happen once.
        key: Option<CommandKey>,
        /// The event's `data`, JSON text.
        data: String,
    },
    /// Passes an ephemeral frame to all nodes of the room. Not in the log, no `seq`. Ack: `{}`.
    Signal {
        /// A [`payload`] of the signal kind.
        payload: Bytes,
    },
    /// A page of members ordered by user id (bytewise). The cursor is the last user id of the page before. Ack:
    /// `{"users":[…],"total":n,"cursor":…}`, `cursor` only if more follow.
    UsersList {
        /// Where to go on.
        cursor: Option<String>,
        /// Most members.
        limit: usize,
    },
    /// What a node missed: every event after `since`, or a snapshot where the log does not reach. [`Done::Joined`], whose
    /// `data` lacks `you` and whose `reason` is as in a join. Comes first in its batch. What it says is taken for true: a
    /// tail that knows of an event which the room does not have gives the room another epoch.
    Tail(Tail),
}

/// [`Op::Tail`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The last event that the node has.
    pub since: Since,
    /// `ts` of that event, where it is known: two events with one `seq` differ in it.
    pub ts: Option<u64>,
    /// The last event that the node has acknowledged or delivered: `since.seq` or later.
    pub known: u64,
}

impl Op {
    /// The tail after `since`, of a node that knows nothing more.
    pub fn tail(since: Since) -> Self {
        let known = since.seq;
        Op::Tail(Tail {
            since,
            ts: None,
            known,
        })
    }

    /// Whether the answer may be long: a page or a picture.
    pub fn answers_at_length(&self) -> bool {
        match self {
            Op::Join(_)
            | Op::StateGet { .. }
            | Op::MessageHistory { .. }
            | Op::UsersList { .. }
            | Op::Tail(_) => true,
            Op::Part { .. }
            | Op::PresenceUpdate { .. }
            | Op::StatePatch { .. }
            | Op::MessageSend { .. }
            | Op::Broadcast { .. }
            | Op::Signal { .. } => false,
        }
    }
}

/// [`Op::Join`].
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// Who.
    pub user: UserId,
    /// Display name; the newest join's stands.
    pub name: String,
    /// The connection that enters.
    pub connection: ConnectionId,
    /// The node that serves it.
    pub node: NodeId,
    /// Presence to merge.
    pub presence: Fields,
    /// Resume after this.
    pub since: Option<Since>,
    /// Newest messages in the snapshot.
    pub messages: usize,
    /// Make the room if it is not there; else `not_found`.
    pub create: bool,
}

/// What an operation did.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// `data` of the `ack`, JSON text.
    Ack(String),
    /// `data` of the `ack` of a command that has happened before.
    Again(String),
    /// A join or a tail.
    Joined(Joined),
}

/// The answer to a join or a tail.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// The room's epoch.
    pub epoch: String,
    /// The point of which `data` and `missed` are the picture.
    pub seq: u64,
    /// `data` of the `ack`, JSON text, as *Joining* in `docs/PROTOCOL.md` says.
    pub data: String,
    /// Resumed: the events after `since.seq` up to `seq`, in order. Else empty.
    pub missed: Vec<Bytes>,
    /// Whether every event after `since` is in `missed`.
    pub recovered: bool,
}

/// Why an operation was refused. It has changed nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The code for the client.
    pub code: ErrorCode,
    /// The message for the client.
    pub message: Cow<'static, str>,
    /// More members of the error's `data`: JSON text without braces.
    pub details: Option<String>,
}

impl Refusal {
    /// A refusal without details.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            details: None,
        }
    }
}

/// The answer to one operation.
pub type Reply = Result<Done, Refusal>;

/// The answer to a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// In the order of the operations.
    pub replies: Vec<Reply>,
    /// Epoch and `seq` of the room after the batch; empty and 0 without a room.
    pub epoch: Bytes,
    /// See `epoch`.
    pub seq: u64,
}

/// Where a room stands; see [`Store::heads`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Where the room's events end.
    pub at: Since,
    /// Less than half of the room's life is left: a node with members renews it by [`Op::Tail`].
    pub is_due: bool,
}

/// Why a whole batch failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Not sent, or refused by a server that cannot take writes now: nothing has happened.
    #[error("the store cannot be reached: {0}")]
    Unavailable(Unreachable),
    /// No answer in time, or the connection broke with the call under way: it may have happened.
    #[error("no answer of the store in time: {0}")]
    Timeout(String),
    /// This room's data is not what it must be; other rooms are well.
    #[error("the room's data is damaged: {0}")]
    Damaged(String),
    /// A fault of ours.
    #[error("internal fault of the store: {0}")]
    Internal(String),
}

/// [`StoreError::Unavailable`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unreachable {
    /// Why, for the log.
    pub reason: Cow<'static, str>,
    /// When the store is tried again, from the moment of the error; `None` where that is not known.
    pub retry_after: Option<Duration>,
}

impl StoreError {
    /// [`StoreError::Unavailable`] where it is not known when it will be tried again.
    pub fn unavailable(reason: impl Into<Cow<'static, str>>) -> Self {
        StoreError::Unavailable(Unreachable {
            reason: reason.into(),
            retry_after: None,
        })
    }

    /// Whether the batch may have been applied all the same.
    pub fn may_have_happened(&self) -> bool {
        match self {
            StoreError::Timeout(_) | StoreError::Internal(_) => true,
            StoreError::Unavailable(_) | StoreError::Damaged(_) => false,
        }
    }

    /// What the clients whose commands were in the batch are told.
    pub fn refusal(&self) -> Refusal {
        match self {
            StoreError::Unavailable(_) => Refusal::new(ErrorCode::Unavailable, "the store cannot be reached"),
            StoreError::Timeout(_) => Refusal::new(
                ErrorCode::Timeout,
                "no answer of the store in time: it may or may not have happened",
            ),
            StoreError::Damaged(_) => Refusal::new(ErrorCode::RoomUnavailable, "the room's data is damaged"),
            StoreError::Internal(_) => Refusal::new(ErrorCode::Internal, "internal error"),
        }
    }
}

/// Where a store hands what it hears. Called from the store's own task; must not block.
pub trait EventSink: Send + Sync {
    /// A payload of a room's channel; see [`payload`]. Rooms that nobody here is in any more are passed over.
    fn payload(&self, room: &str, payload: Bytes);
    /// Payloads may have been lost on all rooms: the subscriber's connection broke and every subscription is confirmed
    /// anew by now.
    fn interrupted(&self);
}

/// Whether a store can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Commands and subscriptions work.
    Ready,
    /// Not yet, or not any more, for this reason.
    NotReady(String),
}

/// The truth about rooms. See the module's contract.
pub trait Store: Send + Sync + 'static {
    /// Applies `ops` to `room` as one atomic step; the replies are in their order.
    ///
    /// # Errors
    /// The whole batch failed; [`StoreError`] says whether it may have happened.
    fn apply<'a>(&'a self, room: &'a RoomId, ops: Vec<Op>) -> BoxFuture<'a, Result<Applied, StoreError>>;

    /// Where rooms stand, read in one go, in the order of `rooms`; `None` for a room that is not there. Reads only: a
    /// room that was rolled back may still have its old epoch, and is given the new one by the next [`Store::apply`].
    ///
    /// # Errors
    /// Of a room whose data is damaged, or of all.
    fn heads<'a>(&'a self, rooms: &'a [RoomId]) -> BoxFuture<'a, Vec<Result<Option<Head>, StoreError>>>;

    /// Subscribes this node to a room's channel. When the future is done with `Ok`, the store has confirmed it: every
    /// payload published from then on comes to the sink.
    ///
    /// # Errors
    /// Not subscribed; nothing needs to be undone.
    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Ends a subscription. Takes its place in the order of the calls of `subscribe`, so that a later `subscribe` of the
    /// same room stands.
    fn unsubscribe(&self, room: &RoomId);

    /// Whether the store can serve now.
    fn readiness(&self) -> Readiness;

    /// Unix ms by the best clock at hand; for `serverTime`, never for the data of a room.
    fn now_ms(&self) -> u64;
}

/// A store that all of a gateway shares.
pub type SharedStore = Arc<dyn Store>;
