//! One room's data.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use roomgate_shared::{
    ids::{ConnectionId, RoomId},
    protocol::{
        command::Since,
        json::{push_str, push_u64},
    },
};

use super::commands::Commands;
use crate::store::{PresenceMode, StoreLimits};

/// How often messages past retention are looked for in a room where nothing happens: so many times while they are kept.
const PURGES: u64 = 24;

/// A room. JSON values are kept as the text that clients get.
pub(super) struct Room {
    pub(super) id: RoomId,
    pub(super) epoch: String,
    pub(super) seq: u64,
    /// The state's version.
    pub(super) version: u64,
    pub(super) state: BTreeMap<String, String>,
    /// Names and values of the state, bytes.
    pub(super) state_bytes: usize,
    pub(super) users: BTreeMap<String, User>,
    /// Those without a connection, by since when.
    pub(super) aways: BTreeSet<(u64, String)>,
    /// Where members are: JSON text by user id.
    pub(super) positions: BTreeMap<String, String>,
    /// When it was last swept, or made, Unix ms.
    pub(super) swept: u64,
    /// It has had too many members to tell who is there.
    pub(super) counting: bool,
    /// Most members at once, arrivals, and the ms from arrival to departure of all who have left.
    pub(super) activity: Activity,
    /// By message id, which sorts as the messages do: when it was sent, and its text.
    pub(super) messages: BTreeMap<String, (u64, String)>,
    pub(super) commands: Commands,
    log: VecDeque<Logged>,
    log_bytes: u64,
    /// When the room was last used, Unix ms.
    pub(super) active: u64,
}

/// What is counted of a room for statistics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Activity {
    pub(super) peak: usize,
    pub(super) joins: u64,
    pub(super) session_ms: u64,
}

pub(super) struct User {
    pub(super) name: String,
    pub(super) presence: BTreeMap<String, String>,
    pub(super) joined_at: u64,
    pub(super) last_seen: u64,
    pub(super) connections: BTreeSet<ConnectionId>,
    /// Since when it has none, Unix ms.
    pub(super) away: Option<u64>,
}

struct Logged {
    seq: u64,
    ts: u64,
    text: Bytes,
}

impl Room {
    pub(super) fn new(id: RoomId, epoch: String, now: u64) -> Self {
        Self {
            id,
            epoch,
            seq: 0,
            version: 0,
            state: BTreeMap::new(),
            state_bytes: 0,
            users: BTreeMap::new(),
            aways: BTreeSet::new(),
            positions: BTreeMap::new(),
            swept: now,
            counting: false,
            activity: Activity::default(),
            messages: BTreeMap::new(),
            commands: Commands::default(),
            log: VecDeque::new(),
            log_bytes: 0,
            active: now,
        }
    }

    /// What its members are told of each other.
    pub(super) fn telling(&self, limits: &StoreLimits) -> PresenceMode {
        if self.counting && limits.presence == PresenceMode::Full {
            PresenceMode::Count
        } else {
            limits.presence
        }
    }

    /// When something is due in it, Unix ms.
    pub(super) fn due(&self, now: u64, limits: &StoreLimits) -> u64 {
        let ms = |duration: Duration| duration.as_millis() as u64;
        let (grace, kept) = (ms(limits.grace), ms(limits.retention));
        let mut due = self.end(limits) + 1;
        if let Some((_, (ts, _))) = self.messages.first_key_value() {
            due = due.min((ts + kept).max(now + grace.max(kept / PURGES)));
        }
        if let Some((since, _)) = self.aways.first() {
            due = due.min(since + grace);
        }
        if !self.users.is_empty() {
            due = due.min(self.swept + grace);
        }
        due
    }

    /// A user is no member any more, and was not here since `at`.
    pub(super) fn remove(&mut self, id: &str, at: u64) {
        if let Some(user) = self.users.remove(id) {
            self.set_away(id, user.away, None);
            self.activity.session_ms += at.saturating_sub(user.joined_at);
        }
        self.positions.remove(id);
    }

    /// A user that was away since `before` is so since `after`. The record is the caller's to change.
    pub(super) fn set_away(&mut self, id: &str, before: Option<u64>, after: Option<u64>) {
        if let Some(before) = before {
            self.aways.remove(&(before, id.to_owned()));
        }
        if let Some(after) = after {
            self.aways.insert((after, id.to_owned()));
        }
    }

    /// When the room's life ends unless it is used again, Unix ms.
    pub(super) fn end(&self, limits: &StoreLimits) -> u64 {
        let idle = self.active.saturating_add(limits.active_ttl.as_millis() as u64);
        let newest = self.messages.last_key_value().map(|(_, (ts, _))| *ts);
        let retained = newest.map_or(0, |ts| ts.saturating_add(limits.retention.as_millis() as u64));
        idle.max(retained)
    }

    /// Whether the room's life has ended.
    pub(super) fn is_over(&self, now: u64, limits: &StoreLimits) -> bool {
        now > self.end(limits)
    }

    /// Adds an event to the log and drops what is past its bounds; the newest stays.
    pub(super) fn log(&mut self, ts: u64, text: Bytes, limits: &StoreLimits) {
        self.log_bytes += text.len() as u64;
        self.log.push_back(Logged {
            seq: self.seq,
            ts,
            text,
        });
        let age = limits.log_age.as_millis() as u64;
        while self.log.len() > 1
            && (self.log.len() as u64 > limits.log_events
                || self.log_bytes > limits.log_bytes
                || self
                    .log
                    .front()
                    .is_some_and(|oldest| ts.saturating_sub(oldest.ts) > age))
        {
            if let Some(oldest) = self.log.pop_front() {
                self.log_bytes -= oldest.text.len() as u64;
            }
        }
    }

    /// The events after `since`, or why they cannot all be told.
    pub(super) fn after(&self, since: &Since) -> Result<Vec<Bytes>, &'static str> {
        if since.epoch != self.epoch {
            return Err("epoch_changed");
        }
        if since.seq > self.seq {
            return Err("ahead");
        }
        let missed = (self.seq - since.seq) as usize;
        if missed > self.log.len() {
            return Err("too_old");
        }
        Ok(self
            .log
            .iter()
            .skip(self.log.len() - missed)
            .map(|logged| {
                debug_assert!(logged.seq > since.seq);
                logged.text.clone()
            })
            .collect())
    }

    /// Drops messages past retention, and commands that are remembered no more. How many messages.
    pub(super) fn purge(&mut self, now: u64, limits: &StoreLimits) -> u64 {
        self.commands
            .forget(now.saturating_sub(limits.dedupe.as_millis() as u64));
        let retention = limits.retention.as_millis() as u64;
        let mut dropped = 0;
        while let Some(oldest) = self.messages.first_entry() {
            if now.saturating_sub(oldest.get().0) <= retention {
                break;
            }
            oldest.remove();
            dropped += 1;
        }
        dropped
    }

    /// A member as clients see it; nothing for a user that is none.
    pub(super) fn user_text(&self, id: &str) -> String {
        let Some(user) = self.users.get(id) else {
            return "null".to_owned();
        };
        let mut out = String::with_capacity(160);
        out.push_str("{\"id\":");
        push_str(&mut out, id);
        out.push_str(",\"name\":");
        push_str(&mut out, &user.name);
        out.push_str(",\"presence\":");
        push_object(&mut out, user.presence.iter());
        if let Some(position) = self.positions.get(id) {
            out.push_str(",\"position\":");
            out.push_str(position);
        }
        let here = !user.connections.is_empty();
        out.push_str(if here {
            ",\"status\":\"here\",\"joinedAt\":"
        } else {
            ",\"status\":\"away\",\"joinedAt\":"
        });
        push_u64(&mut out, user.joined_at);
        out.push_str(",\"lastSeen\":");
        push_u64(&mut out, user.last_seen);
        out.push_str(",\"connections\":");
        push_u64(&mut out, user.connections.len() as u64);
        out.push('}');
        out
    }

    /// The state as a JSON object, or the named fields of it.
    pub(super) fn state_text(&self, fields: Option<&[String]>) -> String {
        let mut out = String::new();
        match fields {
            None => push_object(&mut out, self.state.iter()),
            Some(fields) => push_object(
                &mut out,
                fields.iter().filter_map(|field| self.state.get_key_value(field)),
            ),
        }
        out
    }
}

/// Appends a JSON object whose values are JSON text.
pub(super) fn push_object<'a>(out: &mut String, members: impl Iterator<Item = (&'a String, &'a String)>) {
    out.push('{');
    for (i, (name, value)) in members.enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_str(out, name);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
}
