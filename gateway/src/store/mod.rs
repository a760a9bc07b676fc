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
//! - **Who is told what.** In a room that counts (see [`PresenceMode`], [`StoreLimits::full_members`]) joins, departures
//!   and presence make no events and take no `seq`; pictures have no users; the number of members is published as a
//!   [`payload`] of its own whenever it has changed ([`PresenceMode::Off`]: it is not). A room that counts because of its
//!   size does so until it has less than four fifths of that many members; then one presence event with `all` names
//!   everybody.
//! - **Rules.** What the room's configuration, its mutes and bans demand is asked in the same step, after *once* and before
//!   anything else: `muted`, `cooldown`, `rate_limited` (with [`Refusal::retry_ms`]), `banned`, `kicked`, `room_full`,
//!   `room_closed`. A room that is completed changes no more until it is removed.
//! - **Due.** A room with members, or with messages, is handed out by [`Store::claim_due`] when something in it is due,
//!   and at the latest a grace time after it was last swept. Once it is handed out to one node, no other gets it before
//!   the claim is over or the room has been swept ([`Op::Sweep`]).
//! - **Life.** A room is made by a join (`create`), and every key of it lives for `active_ttl` from its last change, but
//!   never shorter than the retention of the messages it holds (`waiting_ttl` where its status is `waiting`). One that is
//!   completed, or is to be archived when it ends, is kept for a day more until it is ([`Swept::completed`]). An [`Op::Tail`] counts as a change here: nodes with
//!   members ask for it from time to time.

pub mod export;
pub mod memory;
mod op;
pub mod payload;
pub mod redis;
mod users;

use std::{borrow::Cow, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use roomgate_shared::{
    ids::RoomId,
    protocol::{codes::ErrorCode, command::Since},
};

pub use self::op::{
    Action, Applied, Buried, CommandKey, Done, Join, Joined, Op, Positions, Refusal, Reply, Returning, Swept,
    Tail,
};

pub use self::users::{Control, Holder, OperatorCommand, REVOKED_FOR, Spent, Standing, Users};

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
    /// Life of a room that waits, from its last change.
    pub waiting_ttl: Duration,
    /// When a completed room that is still there is handed out again, from its last sweep.
    pub again: Duration,
    /// How long messages are kept, in a room that does not say.
    pub retention: Duration,
    /// How long command ids are remembered.
    pub dedupe: Duration,
    /// Most bytes of a page of messages: a page ends before the message that would pass it, but has one message at least.
    pub page_bytes: usize,
    /// How long a user stays `away` before it leaves. The same on all nodes.
    pub grace: Duration,
    /// What members of a room are told of each other, where the room's configuration (`presence`) does not say.
    pub presence: PresenceMode,
    /// A room with more members than this turns to counts by itself, with [`PresenceMode::Full`].
    pub full_members: u64,
}

/// What members of a room are told of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceMode {
    /// Who is there, until there are too many.
    Full,
    /// How many there are.
    Count,
    /// Neither.
    Off,
}

impl PresenceMode {
    /// As the room's configuration names it.
    pub fn as_str(self) -> &'static str {
        match self {
            PresenceMode::Full => "full",
            PresenceMode::Count => "count",
            PresenceMode::Off => "off",
        }
    }
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            log_events: 10_000,
            log_age: Duration::from_secs(600),
            log_bytes: 8 * 1024 * 1024,
            active_ttl: Duration::from_secs(3600),
            waiting_ttl: Duration::from_secs(1800),
            again: Duration::from_secs(30),
            retention: Duration::from_secs(24 * 3600),
            dedupe: Duration::from_secs(600),
            page_bytes: 1024 * 1024,
            grace: Duration::from_secs(300),
            presence: PresenceMode::Full,
            full_members: 1_000,
        }
    }
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
    /// An operator has said something to every node. It may be missed: after [`EventSink::interrupted`] whoever cares asks
    /// [`Users::standing`].
    fn control(&self, _control: Control) {}
}

/// What [`Store::beat`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beat {
    /// This node was without a lease: others may have taken its connections for gone. It has another one now, and says
    /// who is here by [`Op::Return`].
    pub lost: bool,
    /// Nodes that have come to their end, and whose connections this node is to take out of their rooms
    /// ([`Store::rooms_of`], [`Op::Bury`], [`Store::buried`]). Claimed for a while.
    pub dead: Vec<String>,
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

    /// Hands an ephemeral payload to all nodes of a room, this one included or not. At most once; dropped where the store
    /// is away. Not for durable events.
    fn publish(&self, room: &RoomId, payload: Bytes);

    /// Rooms in which something is due by now, `most` at most, each claimed for `claim`. What comes of them is told by
    /// [`Op::Sweep`]. Called by whoever sweeps; an empty answer says that there is nothing for the caller now.
    ///
    /// # Errors
    /// Nothing is claimed, or it is for `claim`.
    fn claim_due(&self, most: usize, claim: Duration) -> BoxFuture<'_, Result<Vec<RoomId>, StoreError>>;

    /// Renews this node's lease, and looks for nodes whose lease has ended. Called every fifth of a lease.
    ///
    /// # Errors
    /// Perhaps not renewed.
    fn beat(&self) -> BoxFuture<'_, Result<Beat, StoreError>>;

    /// Rooms, `most` at most, in which connections of a dead node may be left; none: its end is complete, and forgotten.
    /// Renews the claim on the node.
    ///
    /// # Errors
    /// As [`Store::apply`].
    fn rooms_of<'a>(&'a self, node: &'a str, most: usize) -> BoxFuture<'a, Result<Vec<RoomId>, StoreError>>;

    /// Nothing of a dead node is left in these rooms.
    ///
    /// # Errors
    /// As [`Store::apply`]; they may be named by [`Store::rooms_of`] again.
    fn buried<'a>(&'a self, node: &'a str, rooms: Vec<RoomId>) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Looks after what the store keeps beside its rooms, and puts together again what of it is lost. Called with each
    /// look for what is due.
    ///
    /// # Errors
    /// It may be done in part; the next call goes on.
    fn look_after(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What is known of users over all rooms and nodes.
    fn users(&self) -> &dyn Users;

    /// Gives this node's lease back: its connections are gone by now. Called last.
    fn resign(&self) -> BoxFuture<'_, ()>;

    /// The name under which this node's payloads are published; another one after each lost lease.
    fn instance(&self) -> Arc<str>;

    /// Whether the store can serve now.
    fn readiness(&self) -> Readiness;

    /// Unix ms by the best clock at hand; for `serverTime`, never for the data of a room.
    fn now_ms(&self) -> u64;
}

/// A store that all of a gateway shares.
pub type SharedStore = Arc<dyn Store>;
