//! A room of the bare server: its members here, and the commands that wait for the next call of the store.
//!
//! A batch is text, one command a line: `connection id kind user` and the command's JSON, parted by spaces.

use roomgate_shared::{
    ids::{CommandId, RoomId},
    protocol::{
        JsonText,
        command::Fields,
        event::{EventType, event_text, message_tail, message_text},
    },
};

pub(super) struct Room {
    pub(super) name: RoomId,
    pub(super) members: Vec<usize>,
    /// The last event's place; kept only without Redis.
    pub(super) last: u64,
    /// Whether events of the room are heard.
    pub(super) subscribed: bool,
    busy: bool,
    batch: Batch,
}

#[derive(Default)]
pub(super) struct Batch {
    pub(super) count: u64,
    pub(super) text: String,
}

pub(super) enum Op {
    Join,
    Message(JsonText),
    Patch(Fields),
}

impl Room {
    pub(super) fn new(name: RoomId, subscribed: bool) -> Self {
        Self {
            name,
            members: Vec::new(),
            last: 0,
            subscribed,
            busy: false,
            batch: Batch::default(),
        }
    }

    pub(super) fn add(&mut self, conn: usize, id: &CommandId, user: &str, op: Op) {
        use std::fmt::Write as _;
        let text = &mut self.batch.text;
        if self.batch.count > 0 {
            text.push('\n');
        }
        self.batch.count += 1;
        // Writing to a string does not fail.
        let _ = match op {
            Op::Join => write!(text, "{conn} {id} j {user} {{}}"),
            Op::Message(body) => write!(text, "{conn} {id} m {user} {}", body.as_str()),
            Op::Patch(set) => {
                let set = set
                    .iter()
                    .map(|(name, value)| format!("\"{name}\":{}", value.as_str()));
                write!(text, "{conn} {id} s {user} {}", set.collect::<Vec<_>>().join(","))
            }
        };
    }

    /// Whether a call may be made for what waits.
    pub(super) fn ready(&self) -> bool {
        self.subscribed && !self.busy && self.batch.count > 0
    }

    /// What waits, for one call; nothing while one is under way.
    pub(super) fn take(&mut self) -> Option<Batch> {
        if !self.ready() {
            return None;
        }
        self.busy = true;
        Some(std::mem::take(&mut self.batch))
    }

    /// The call is answered.
    pub(super) fn done(&mut self) {
        self.busy = false;
    }
}

/// A line of a batch.
pub(super) struct Line<'a> {
    pub(super) conn: usize,
    pub(super) id: CommandId,
    kind: &'a str,
    user: &'a str,
    json: &'a str,
}

impl<'a> Line<'a> {
    pub(super) fn read(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(5, ' ');
        Some(Self {
            conn: parts.next()?.parse().ok()?,
            id: CommandId::new(parts.next()?).ok()?,
            kind: parts.next()?,
            user: parts.next()?,
            json: parts.next()?,
        })
    }

    pub(super) fn joins(&self) -> bool {
        self.kind == "j"
    }

    /// The event, and the data of the answer.
    pub(super) fn texts(&self, room: &RoomId, seq: u64, ts: u64) -> (String, String) {
        let event = |kind, data: &str| event_text(kind, room.as_str(), seq, ts, Some(self.user), data);
        match self.kind {
            "j" => (
                event(EventType::Presence, "{}"),
                format!("{{\"epoch\":\"bare\",\"seq\":{seq}}}"),
            ),
            "s" => {
                let data = format!("{{\"version\":{seq},\"set\":{{{}}},\"remove\":[]}}", self.json);
                (
                    event(EventType::StatePatched, &data),
                    format!("{{\"version\":{seq},\"seq\":{seq}}}"),
                )
            }
            _ => {
                let message = message_text("bare", seq, ts, &message_tail(self.user, "text", self.json));
                (
                    event(EventType::MessageSent, &message),
                    format!("{{\"message\":{message}}}"),
                )
            }
        }
    }
}
