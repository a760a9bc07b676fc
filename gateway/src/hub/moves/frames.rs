//! The frames that tell members what has moved: put together once, each without its receiver.

use std::collections::HashMap;

use bytes::Bytes;
use roomgate_shared::{
    ids::RoomId,
    protocol::event::{moves_head, push_move},
};

use crate::hub::{
    frame::{text_frame, text_head},
    outbox::Outbox,
};

/// Up to this size a member's own copy of a frame costs less than handing out its parts.
pub(super) const COPIED: usize = 4 * 1024;
/// What has moved, for several members.
pub(in crate::hub) struct Moved<'a> {
    /// What stands before the positions.
    head: String,
    positions: String,
    /// Where each user's stands, the comma before it included.
    pub(super) ranges: HashMap<&'a str, (usize, usize)>,
    whole: Option<Bytes>,
    /// `positions`, to be shared.
    shared: Option<Bytes>,
}

/// A frame for one member.
pub(in crate::hub) enum Frame {
    /// In one piece.
    Whole(Bytes),
    /// In parts that it shares with others.
    Parts([Bytes; 3]),
}

impl Frame {
    /// Queues it: it is there as a whole, or not at all.
    pub(super) fn push(self, outbox: &Outbox) {
        match self {
            Frame::Whole(frame) => outbox.push(frame),
            Frame::Parts(parts) => outbox.push_parts(parts),
        }
    }
}

impl<'a> Moved<'a> {
    pub(super) fn new(room: &RoomId) -> Self {
        Self {
            head: moves_head(room),
            positions: String::new(),
            ranges: HashMap::new(),
            whole: None,
            shared: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    pub(super) fn push(&mut self, user: &'a str, position: &str) {
        let start = self.positions.len();
        if start > 0 {
            self.positions.push(',');
        }
        push_move(&mut self.positions, user, position);
        self.ranges.insert(user, (start, self.positions.len()));
    }

    /// The frame for a member of this user; `None` if nobody else has moved.
    pub(super) fn frame(&mut self, user: &str) -> Option<Frame> {
        let Some(&(start, end)) = self.ranges.get(user) else {
            if self.ranges.is_empty() {
                return None;
            }
            let whole = self
                .whole
                .get_or_insert_with(|| text_frame(&format!("{}{}}}}}", self.head, self.positions)));
            return Some(Frame::Whole(whole.clone()));
        };
        if self.ranges.len() == 1 {
            return None;
        }
        // The first one has no comma before it, so the one behind it must lose its own.
        let end = if start == 0 { end + 1 } else { end };
        let len = self.head.len() + self.positions.len() - (end - start) + 2;
        if len <= COPIED {
            let (before, after) = (&self.positions[..start], &self.positions[end..]);
            return Some(Frame::Whole(text_frame(&format!(
                "{}{before}{after}}}}}",
                self.head
            ))));
        }
        // With its end, so that none of the parts is empty.
        let shared = self
            .shared
            .get_or_insert_with(|| Bytes::from(format!("{}}}}}", self.positions)));
        let mut head = text_head(len);
        head.extend_from_slice(self.head.as_bytes());
        if start == 0 {
            return Some(Frame::Parts([
                head.into(),
                shared.slice(end..end + 1),
                shared.slice(end + 1..),
            ]));
        }
        Some(Frame::Parts([
            head.into(),
            shared.slice(..start),
            shared.slice(end..),
        ]))
    }
}

/// Positions of a room's members, for one that comes back: all but its own.
pub fn positions_frame(room: &RoomId, positions: &[(String, Bytes)], user: &str) -> Option<Bytes> {
    let mut moved = Moved::new(room);
    for (id, position) in positions.iter().filter(|(id, _)| id != user) {
        moved.push(id, std::str::from_utf8(position).unwrap_or("null"));
    }
    moved.frame(user).and_then(|frame| match frame {
        Frame::Whole(frame) => Some(frame),
        // It is nobody's own.
        Frame::Parts(_) => None,
    })
}
