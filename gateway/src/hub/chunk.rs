//! Consecutive events of a room, encoded once for all who get them.

use bytes::Bytes;

use super::frame::{frame_len, text_frames};

/// Consecutive events as frames in one piece of memory.
#[derive(Clone)]
pub(super) struct Chunk {
    /// `seq` of the first event.
    first: u64,
    count: u64,
    frames: Bytes,
}

impl Chunk {
    /// Encodes events, the first of which has `seq` `first`.
    pub(super) fn new<'a>(first: u64, events: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> Self {
        Self {
            first,
            count: events.len() as u64,
            frames: text_frames(events),
        }
    }

    /// `seq` of the first event.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// `seq` of the last event, or of the one before `first` where there is none.
    pub(super) fn last(&self) -> u64 {
        self.first + self.count - 1
    }

    /// All frames.
    pub(super) fn frames(&self) -> &Bytes {
        &self.frames
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The events after `seq`, if there are any.
    pub(super) fn rest(&self, seq: u64) -> Option<Self> {
        let frames = self.after(seq)?;
        let first = self.first.max(seq + 1);
        Some(Self {
            first,
            count: self.last() + 1 - first,
            frames,
        })
    }

    /// The frames of the events after `seq`, if there are any.
    pub(super) fn after(&self, seq: u64) -> Option<Bytes> {
        if self.count == 0 || seq >= self.last() {
            return None;
        }
        let mut start = 0;
        for _ in self.first..=seq.max(self.first - 1) {
            start += frame_len(&self.frames[start..]);
        }
        Some(self.frames.slice(start..))
    }
}
