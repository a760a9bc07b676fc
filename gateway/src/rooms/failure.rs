//! When a batch fails: who is told what, what is tried again, and when the room's data is asked for again at all.
//!
//! A room whose data the store cannot work with has a circuit breaker: while it is open the room's commands are refused
//! without asking the store, and other rooms do not notice. A store that is away concerns all rooms alike and opens none
//! of them.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use roomgate_shared::{
    ids::RoomId,
    protocol::{CommandType, ErrorCode},
};
use tokio::time::Instant;

use super::{Origin, Rooms, Work, queue::RoomQueue};
use crate::{
    breaker::{Breaker, State},
    hub::LocalRoom,
    metrics::metrics,
    store::{Op, Refusal, StoreError},
};

/// Least pause before what must reach the store is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Pause before what has met damage is tried again, at least: each time may make the room unavailable to all.
const DAMAGE_PAUSE: Duration = Duration::from_secs(10);
/// How long a room's breaker opens at first, and at most. One that has been due for as long as that is forgotten with its
/// room, if nobody is in.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// A room's breaker: nothing but an empty place while the room is well.
#[derive(Default)]
pub(super) struct RoomBreaker(Mutex<Option<Box<Opened>>>);

struct Opened {
    breaker: Breaker,
    /// A timer runs that looks whether the room can be forgotten.
    watched: bool,
}

impl RoomBreaker {
    /// Whether the store may be asked at `now`; while it may not, how long to wait. See [`Breaker::admit`].
    pub(super) fn admit(&self, now: Instant) -> Result<(), Duration> {
        match self.0.lock().as_mut() {
            Some(opened) => opened.breaker.admit(now),
            None => Ok(()),
        }
    }

    /// Whether it is not closed.
    pub(super) fn is_open(&self) -> bool {
        self.0.lock().is_some()
    }

    /// The store has taken a batch of the room.
    pub(super) fn succeeded(&self, room: &RoomId) {
        if self.0.lock().take().is_some() {
            metrics().rooms_unavailable.decrement(1.0);
            tracing::info!(%room, "the room is available again");
        }
    }

    /// A batch has shown that the room's data is damaged. Logged once for each opening.
    fn failed(&self, room: &RoomId, error: &StoreError, now: Instant) -> Option<Duration> {
        let mut place = self.0.lock();
        let opened = place.get_or_insert_with(|| {
            Box::new(Opened {
                breaker: Breaker::new(FIRST, LONGEST),
                watched: false,
            })
        });
        if opened.breaker.failed(now) {
            metrics().rooms_unavailable.increment(1.0);
            metrics().room_openings.increment(1);
            tracing::error!(%room, %error, "the room is unavailable; it is tried again from time to time");
        }
        opened.breaker.retry_after(now)
    }

    /// The trial has shown nothing about the room.
    pub(super) fn gave_up(&self, now: Instant) {
        if let Some(opened) = self.0.lock().as_mut() {
            opened.breaker.gave_up(now);
        }
    }

    /// Whether nothing would be lost with it at `now`.
    pub(super) fn may_be_forgotten(&self, now: Instant) -> bool {
        match self.0.lock().as_ref().map(|opened| opened.breaker.state()) {
            None | Some(State::Closed) => true,
            Some(State::Open(until)) => now >= until + LONGEST,
            Some(State::HalfOpen) => false,
        }
    }

    /// For a room that nobody is in: after how long somebody is to look whether it can be forgotten, if nobody does yet.
    pub(super) fn look_after(&self, now: Instant) -> Option<Duration> {
        let mut place = self.0.lock();
        let opened = place.as_mut()?;
        if std::mem::replace(&mut opened.watched, true) {
            return None;
        }
        let due = opened.breaker.retry_after(now).unwrap_or_default();
        Some(due + LONGEST)
    }

    /// Somebody looks.
    pub(super) fn looked(&self) {
        if let Some(opened) = self.0.lock().as_mut() {
            opened.watched = false;
        }
    }
}

impl Drop for RoomBreaker {
    fn drop(&mut self) {
        if self.0.get_mut().is_some() {
            metrics().rooms_unavailable.decrement(1.0);
        }
    }
}

/// What of a batch is kept for the case that it fails: what is tried again (clients send theirs again themselves), and
/// signals, which can reach the members here without the store.
pub(super) fn kept(ops: &[Op], origins: &[Origin]) -> Vec<Option<Op>> {
    let each = ops.iter().zip(origins).map(|(op, origin)| {
        let keep = !origin.is_command() || matches!(op, Op::Signal { .. });
        keep.then(|| op.clone())
    });
    each.collect()
}

/// Answers a batch that the store refused as a whole, and has tried again later what must reach the store.
pub(super) fn fail(
    rooms: &Arc<Rooms>,
    queue: &RoomQueue,
    kept: Vec<Option<Op>>,
    origins: Vec<Origin>,
    error: &StoreError,
) {
    metrics().store_errors.increment(1);
    let (local, now) = (queue.local(), Instant::now());
    report(local, origins.len(), error);
    let retry = match error {
        StoreError::Damaged(_) => queue.breaker().failed(local.id(), error, now),
        StoreError::Unavailable(away) => {
            queue.breaker().gave_up(now);
            away.retry_after
        }
        StoreError::Timeout(_) | StoreError::Internal(_) => {
            queue.breaker().gave_up(now);
            None
        }
    };
    let again = answer(queue, kept, origins, error, retry);
    let pause = match error {
        StoreError::Damaged(_) => retry.unwrap_or_default().max(DAMAGE_PAUSE),
        StoreError::Unavailable(_) | StoreError::Timeout(_) | StoreError::Internal(_) => {
            retry.unwrap_or_default().max(RETRY_PAUSE)
        }
    };
    submit_later(rooms, local.id(), again, pause);
}

/// Refuses what is queued for a room whose breaker is open for `wait`. What must reach the store is kept.
pub(super) fn refuse_all(rooms: &Arc<Rooms>, queue: &RoomQueue, wait: Duration) {
    let mut again = Vec::new();
    for work in queue.take_all() {
        if work.origin.is_command() {
            let refusal = Refusal::new(ErrorCode::RoomUnavailable, "the room's data is damaged");
            queue.refuse_for(work.origin, refusal, Some(wait));
        } else if let Some(work) = not_now(work) {
            again.push(work);
        }
    }
    submit_later(rooms, queue.local().id(), again, wait.max(RETRY_PAUSE));
}

/// What of a work that cannot be done now is to be tried again.
fn not_now(work: Work) -> Option<Work> {
    match work.origin {
        Origin::Positions { local, positions } => {
            local.written(&positions, false);
            None
        }
        Origin::Command { .. }
        | Origin::Gone { .. }
        | Origin::Unconfirmed { .. }
        | Origin::Resync { .. }
        | Origin::Repair(_) => Some(work),
        // Others do not wait for it.
        Origin::Return { members, .. } => Some(Work {
            op: work.op,
            origin: Origin::Return { members, turn: None },
        }),
    }
}

fn report(local: &LocalRoom, operations: usize, error: &StoreError) {
    match error {
        // Told once for all rooms: by the gateway when the store is away and when it is back, by the store when replicas do
        // not follow, by the breaker when a room is damaged.
        StoreError::Unavailable(_) | StoreError::Timeout(_) | StoreError::Damaged(_) => {
            tracing::debug!(room = %local.id(), operations, %error, "a batch failed")
        }
        StoreError::Internal(_) => {
            tracing::error!(room = %local.id(), operations, %error, "a batch failed");
        }
    }
}

/// Queues works again after a pause. Commands that come meanwhile do not wait for them.
fn submit_later(rooms: &Arc<Rooms>, room: &RoomId, works: Vec<Work>, pause: Duration) {
    if works.is_empty() {
        return;
    }
    let (rooms, room) = (rooms.clone(), room.clone());
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        for work in works {
            rooms.submit(&room, work);
        }
    });
}

/// Answers the clients. What must reach the store is given back, to be tried again.
fn answer(
    queue: &RoomQueue,
    kept: Vec<Option<Op>>,
    origins: Vec<Origin>,
    error: &StoreError,
    retry: Option<Duration>,
) -> Vec<Work> {
    let mut again = Vec::new();
    for (op, origin) in kept.into_iter().zip(origins) {
        match origin {
            Origin::Command {
                ref client,
                ref membership,
                kind,
                ..
            } => {
                if kind == CommandType::Join && error.may_have_happened() && !membership.is_joined() {
                    // The store may count a member that was told it did not get in.
                    let (client, membership) = (client.clone(), membership.clone());
                    let op = Op::Part {
                        user: client.user().clone(),
                        connection: client.id,
                        leaving: true,
                    };
                    again.push(Work {
                        op,
                        origin: Origin::Unconfirmed {
                            client,
                            membership,
                            open: queue.keep_open(),
                        },
                    });
                }
                match (op, error) {
                    // Not sent, so nobody has it yet. After a timeout it may have gone out, and it goes at most once.
                    (Some(Op::Signal { payload }), StoreError::Unavailable(_)) => {
                        queue.local().deliver(&payload);
                        queue.acknowledge(origin, "{}");
                    }
                    _ => queue.refuse_for(origin, error.refusal(), retry),
                }
            }
            Origin::Gone { .. }
            | Origin::Unconfirmed { .. }
            | Origin::Resync { .. }
            | Origin::Repair(_)
            | Origin::Return { .. }
            | Origin::Positions { .. } => {
                again.extend(op.and_then(|op| not_now(Work { op, origin })));
            }
        }
    }
    again
}

/// When a client may try again after a failure of ours, ms, where nothing better is known; it adds jitter of its own.
pub(super) fn retry_after_ms(code: ErrorCode) -> Option<u64> {
    if matches!(code, ErrorCode::Unavailable | ErrorCode::RoomUnavailable) {
        Some(1_000)
    } else if matches!(code, ErrorCode::Timeout | ErrorCode::Internal) {
        Some(250)
    } else {
        None
    }
}
