//! Consecutive events of a room, encoded once for all who get them.

use bytes::Bytes;

use super::{
    frame::{frame_len, text_frames},
    notice::Notice,
};

/// Consecutive events as frames in one piece of memory.
#[derive(Clone)]
pub(super) struct Chunk {
    /// `seq` of the first event.
    first: u64,
    count: u64,
    frames: Bytes,
    /// Those that this gateway acts on: `seq` and what it says, in order. Hardly ever any.
    notices: Vec<(u64, Notice)>,
}

impl Chunk {
    /// Encodes events, the first of which has `seq` `first`.
    pub(super) fn new<'a>(first: u64, events: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> Self {
        let notices = (first..)
            .zip(events.clone())
            .filter_map(|(seq, text)| Some((seq, Notice::read(text)?)));
        Self {
            first,
            count: events.len() as u64,
            notices: notices.collect(),
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
        let notices = self.notices.iter().filter(|(at, _)| *at >= first);
        Some(Self {
            first,
            count: self.last() + 1 - first,
            notices: notices.cloned().collect(),
            frames,
        })
    }

    /// Takes the events up to the first that this gateway acts on, and what it says; what is left stays. `None` where
    /// there is no such event.
    pub(super) fn split(&mut self) -> Option<(Self, Notice)> {
        if self.notices.is_empty() {
            return None;
        }
        let (seq, notice) = self.notices.remove(0);
        let mut end = 0;
        for _ in self.first..=seq {
            end += frame_len(&self.frames[end..]);
        }
        let before = Self {
            first: self.first,
            count: seq + 1 - self.first,
            frames: self.frames.split_to(end),
            notices: Vec::new(),
        };
        self.count -= before.count;
        self.first = seq + 1;
        Some((before, notice))
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
