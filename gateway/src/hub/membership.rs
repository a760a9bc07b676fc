//! A connection's place in a room.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Shared by the connection's session, the room and the work under way.
#[derive(Debug, Default)]
pub struct Membership {
    joined: AtomicBool,
    joining: AtomicUsize,
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

    /// A join is queued.
    pub fn begin_join(&self) {
        self.joining.fetch_add(1, Ordering::AcqRel);
    }

    /// It is answered.
    pub fn end_join(&self) {
        self.joining.fetch_sub(1, Ordering::AcqRel);
    }

    /// The connection is in the room from now on, or out of it.
    pub fn set(&self, joined: bool) {
        self.joined.store(joined, Ordering::Release);
    }
}
