//! A connection's place in a room.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use roomgate_shared::protocol::CommandType;

/// Shared by the connection's session, the room and the work under way.
#[derive(Debug)]
pub struct Membership {
    joined: AtomicBool,
    joining: AtomicUsize,
    leaving: AtomicBool,
    ended: AtomicBool,
    /// The connection has done something in the room since this was last looked at.
    active: AtomicBool,
    /// The room was completed while the connection was in.
    closed: AtomicBool,
    /// Where it stands among the room's members; [`NOWHERE`] outside. The room's, under its lock.
    place: AtomicUsize,
}

const NOWHERE: usize = usize::MAX;

impl Default for Membership {
    fn default() -> Self {
        Self {
            joined: AtomicBool::new(false),
            joining: AtomicUsize::new(0),
            leaving: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            active: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            place: AtomicUsize::new(NOWHERE),
        }
    }
}

impl Membership {
    /// Whether the connection is in the room now.
    pub fn is_joined(&self) -> bool {
        self.joined.load(Ordering::Acquire)
    }

    /// Whether the connection is in the room or on its way in.
    pub fn counts(&self) -> bool {
        self.is_joined() || self.joining.load(Ordering::Acquire) > 0
    }

    /// Whether what the connection does in the room now is done in it: it is in, and not on its way out.
    pub fn may_act(&self) -> bool {
        self.is_joined() && !self.leaving.load(Ordering::Relaxed)
    }

    /// The room was completed while the connection was in.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The room is completed.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// The connection is gone from the room; the store has yet to hear of it.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether the connection is in the room, and not gone.
    pub fn is_alive(&self) -> bool {
        self.is_joined() && !self.ended.load(Ordering::Relaxed)
    }

    /// A command is queued.
    pub fn queued(&self, kind: CommandType) {
        if kind == CommandType::Join {
            self.joining.fetch_add(1, Ordering::AcqRel);
            // A room that was left because the token did not cover it may be covered by the next one.
            self.ended.store(false, Ordering::Relaxed);
        } else if kind == CommandType::Leave {
            self.leaving.store(true, Ordering::Relaxed);
        }
    }

    /// It is answered.
    pub fn answered(&self, kind: CommandType) {
        if kind == CommandType::Join {
            self.joining.fetch_sub(1, Ordering::AcqRel);
        } else if kind == CommandType::Leave {
            self.leaving.store(false, Ordering::Relaxed);
        }
    }

    /// The connection does something in the room.
    pub fn act(&self) {
        self.active.store(true, Ordering::Relaxed);
    }

    /// Whether it has done something since this was last asked.
    pub(super) fn has_acted(&self) -> bool {
        self.active.swap(false, Ordering::Relaxed)
    }

    /// Where the connection stands among the room's members.
    pub(super) fn place(&self) -> Option<usize> {
        Some(self.place.load(Ordering::Relaxed)).filter(|&place| place != NOWHERE)
    }

    /// The connection is in the room from now on, or stands elsewhere in it.
    pub(super) fn put(&self, place: usize) {
        self.place.store(place, Ordering::Relaxed);
        self.closed.store(false, Ordering::Relaxed);
        self.joined.store(true, Ordering::Release);
    }

    /// The connection is out of the room from now on.
    pub(super) fn take_out(&self) {
        self.joined.store(false, Ordering::Release);
        self.place.store(NOWHERE, Ordering::Relaxed);
    }
}
