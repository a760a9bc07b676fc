//! A connection as the layers below the session know it.

use std::sync::{
    LazyLock, OnceLock,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use roomgate_shared::{
    ids::{ConnectionId, UserId},
    protocol::{CloseCode, CommandType, ErrorCode, config::Rate},
};
use tokio::time::Instant;

use super::Outbox;
use crate::{limits::bucket::Bucket, metrics::metrics};

/// Weight of the commands of one connection that may wait for the store at once. Past it the connection is not read
/// until answers have come.
const MAX_IN_FLIGHT: usize = 1024 * 1024;

/// Moves of a connection that may wait for the next tick. Past it the connection is not read until then: only the last of
/// them counts.
const MAX_MOVES: usize = 256;

/// What a command weighs at least, in bytes (else its frame's size), so that at most 256 are under way.
pub const MIN_WEIGHT: usize = 4096;

/// What a command weighs whose answer may be large, so that at most 4 are under way.
pub const READ_WEIGHT: usize = 256 * 1024;

/// Refusals of a connection: so many at once, and so many a second. A client that obeys `retryAfterMs` stays far below.
const REFUSALS: Rate = Rate {
    per_second: 20.0,
    burst: 200.0,
};

/// Whether a refusal is for what the client does, as against the state of things. `kind`: of the command, where what is
/// refused is not the connection itself.
fn is_own_fault(kind: Option<CommandType>, code: ErrorCode) -> bool {
    match code {
        // Moves follow a hand, many a second and mostly without an id: nobody waits for what becomes of one.
        ErrorCode::RateLimited | ErrorCode::Cooldown | ErrorCode::Muted => kind != Some(CommandType::Move),
        ErrorCode::Unauthenticated
        | ErrorCode::Forbidden
        | ErrorCode::BadRequest
        | ErrorCode::UnknownType
        | ErrorCode::Banned
        | ErrorCode::Kicked => true,
        ErrorCode::NotJoined
        | ErrorCode::NotFound
        | ErrorCode::RoomFull
        | ErrorCode::RoomClosed
        | ErrorCode::Conflict
        | ErrorCode::IdConflict
        | ErrorCode::TooLarge
        | ErrorCode::StateTooLarge
        | ErrorCode::TooManyRooms
        | ErrorCode::RoomUnavailable
        | ErrorCode::Unavailable
        | ErrorCode::Timeout
        | ErrorCode::Internal => false,
    }
}

/// One connection and its user. Shared by its task, the rooms it is in and the work under way for it.
pub struct Client {
    /// The connection.
    pub id: ConnectionId,
    who: OnceLock<(UserId, Box<str>)>,
    token: TokenMark,
    /// Where its frames go.
    pub outbox: Outbox,
    in_flight: AtomicUsize,
    moves: AtomicUsize,
    /// Answers about the client itself that are awaited.
    held: AtomicUsize,
    paused: AtomicBool,
    /// What is left of the commands that may be refused, once one was.
    refusals: Mutex<Option<Box<Bucket>>>,
}

/// What a revocation looks at: that of the connection's present token.
#[derive(Default)]
struct TokenMark {
    /// When it was made, Unix ms; 0 where it does not say, or there is none.
    issued: AtomicU64,
    /// Its id.
    id: Mutex<Option<Box<str>>>,
}

impl Client {
    /// A connection with `outbox_bytes` of room for frames.
    pub fn new(id: ConnectionId, user: UserId, name: Box<str>, outbox_bytes: usize) -> Self {
        let client = Self::unknown(id, outbox_bytes);
        client.identify(user, name);
        client
    }

    /// A connection that has yet to say who it is.
    pub fn unknown(id: ConnectionId, outbox_bytes: usize) -> Self {
        Self {
            id,
            who: OnceLock::new(),
            token: TokenMark::default(),
            outbox: Outbox::new(outbox_bytes),
            in_flight: AtomicUsize::new(0),
            moves: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            refusals: Mutex::new(None),
            paused: AtomicBool::new(false),
        }
    }

    /// Says who it is; the first time counts.
    pub fn identify(&self, user: UserId, name: Box<str>) {
        let _ = self.who.set((user, name));
    }

    /// Its user. Nobody's commands get to where this is asked before it is known.
    pub fn user(&self) -> &UserId {
        static NOBODY: LazyLock<UserId> =
            LazyLock::new(|| UserId::new("nobody").expect("printable characters are a user id"));
        self.who.get().map_or(&NOBODY, |(user, _)| user)
    }

    /// Whether it is this user's; nobody's before it has said who it is.
    pub fn is_of(&self, user: &UserId) -> bool {
        self.who.get().is_some_and(|(of, _)| of == user)
    }

    /// Whether it has said who it is.
    pub fn is_known(&self) -> bool {
        self.who.get().is_some()
    }

    /// The name to show.
    pub fn name(&self) -> &str {
        self.who.get().map_or("", |(_, name)| name)
    }

    /// It goes by this token from now on: when that was made, Unix ms (0: it does not say), and its id.
    pub fn hold_token(&self, issued: u64, id: Option<Box<str>>) {
        self.token.issued.store(issued, Ordering::Relaxed);
        *self.token.id.lock() = id;
    }

    /// Whether its token was made before a time, Unix ms. One that does not say was.
    pub fn token_is_before(&self, time: u64) -> bool {
        self.token.issued.load(Ordering::Relaxed) < time
    }

    /// Whether its token has this id.
    pub fn token_is(&self, id: &str) -> bool {
        self.token.id.lock().as_deref() == Some(id)
    }

    /// The id of its token, if that has one.
    pub fn token_id(&self) -> Option<Box<str>> {
        self.token.id.lock().clone()
    }

    /// It is not read before [`Client::release`]: something is asked about it.
    pub fn hold(&self) {
        self.held.fetch_add(1, Ordering::AcqRel);
    }

    /// That is answered.
    pub fn release(&self) {
        if self.held.fetch_sub(1, Ordering::AcqRel) == 1 && self.paused.swap(false, Ordering::AcqRel) {
            self.outbox.wake();
        }
    }

    /// A command was refused so. Who goes on and on with what is refused is closed with 1008; faults of ours do not count.
    pub fn refused(&self, kind: Option<CommandType>, code: ErrorCode) {
        if !is_own_fault(kind, code) {
            return;
        }
        let now = Instant::now();
        let mut refusals = self.refusals.lock();
        let bucket = refusals.get_or_insert_with(|| Box::new(Bucket::new(REFUSALS, now)));
        if bucket.take(REFUSALS, now).is_err() && self.outbox.close(CloseCode::Policy.into()) {
            metrics().floods.increment(1);
        }
    }

    /// A command of `weight` is under way.
    pub fn begin(&self, weight: usize) {
        self.in_flight.fetch_add(weight, Ordering::Relaxed);
    }

    /// It is answered.
    pub fn end(&self, weight: usize) {
        let before = self.in_flight.fetch_sub(weight, Ordering::Relaxed);
        if before - weight < MAX_IN_FLIGHT && self.paused.swap(false, Ordering::AcqRel) {
            self.outbox.wake();
        }
    }

    /// A move waits for the next tick.
    pub(super) fn begin_move(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// The tick has come.
    pub(super) fn end_move(&self) {
        let before = self.moves.fetch_sub(1, Ordering::Relaxed);
        if before == MAX_MOVES && self.paused.swap(false, Ordering::AcqRel) {
            self.outbox.wake();
        }
    }

    /// Whether the connection may be read now. If not, its task is woken when the store has answered, or knows itself
    /// that what it writes is taken.
    pub fn may_read(&self) -> bool {
        !self.outbox.is_behind() && !self.waits()
    }

    /// Whether an answer is awaited.
    pub fn asks(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Whether as much as may be is under way for the connection.
    pub fn waits(&self) -> bool {
        let waits = || {
            self.in_flight.load(Ordering::Relaxed) >= MAX_IN_FLIGHT
                || self.moves.load(Ordering::Relaxed) >= MAX_MOVES
                || self.held.load(Ordering::Acquire) > 0
        };
        if !waits() {
            return false;
        }
        self.paused.store(true, Ordering::Release);
        // An answer may have come between the two steps.
        waits()
    }
}
