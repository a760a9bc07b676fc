//! One room's data.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use roomgate_shared::{
    ids::{ConnectionId, RoomId},
    protocol::{
        JsonText,
        command::{RoomStatus, Since},
        json::{push_str, push_u64},
    },
};

use super::{
    commands::Commands,
    rules::{EVER, Rules},
};
use crate::store::{
    PresenceMode, StoreLimits,
    export::{MemberData, RoomData},
};

/// Characters of an epoch that name the room's life.
const LIFE: usize = 10;

/// Most epochs of the past that are kept.
const PAST: usize = 16;

/// How often messages past retention are looked for in a room where nothing happens: so many times while they are kept.
const PURGES: u64 = 24;

/// By message id, which sorts as the messages do: when it was sent, and its text.
pub(super) type Messages = BTreeMap<String, (u64, String)>;

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
    /// When it was last swept, or made, Unix ms; 0: not since it was completed.
    pub(super) swept: u64,
    /// It has had too many members to tell who is there.
    pub(super) counting: bool,
    /// Most members at once, arrivals, and the ms from arrival to departure of all who have left.
    pub(super) activity: Activity,
    pub(super) messages: Messages,
    pub(super) commands: Commands,
    log: VecDeque<Logged>,
    log_bytes: u64,
    /// When the room was last used, Unix ms.
    pub(super) active: u64,
    /// When it was made, Unix ms.
    pub(super) created: u64,
    /// When it was completed, Unix ms; 0 while it is not.
    pub(super) completed: u64,
    /// Before when it is not to be archived, Unix ms.
    pub(super) paused: u64,
    /// Events that are no messages.
    pub(super) others: u64,
    /// What it demands of commands.
    pub(super) rules: Rules,
    /// Epochs before this one, each with its last event, oldest first.
    past: Vec<(String, u64)>,
    /// It has been archived and is to go.
    pub(super) removed: bool,
}

/// A room that is archived when its life ends is kept for so long until it is, and one that is completed, ms.
const SPARE: u64 = 24 * 3600 * 1000;

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
            created: now,
            completed: 0,
            paused: 0,
            others: 0,
            rules: Rules::default(),
            past: Vec::new(),
            removed: false,
        }
    }

    /// The room that was archived. Its life goes on under another epoch.
    pub(super) fn restored(
        id: RoomId,
        data: RoomData,
        messages: Messages,
        commands: Commands,
        now: u64,
    ) -> Self {
        // A room's clock does not fall.
        let now = now.max(data.completed);
        let texts = |map: BTreeMap<String, JsonText>| -> BTreeMap<String, String> {
            map.into_iter()
                .map(|(name, value)| (name, value.as_str().to_owned()))
                .collect()
        };
        let life: String = data.epoch.chars().take(LIFE).collect();
        let number = data
            .epoch
            .get(LIFE..LIFE + 4)
            .and_then(|number| number.parse().ok());
        let number: u32 = number.unwrap_or(0) + 1;
        let epoch = format!("{life}{:04}{:08x}", number % 10_000, crate::random::bits() as u32);
        let mut room = Self::new(id, epoch, now);
        let mut past = data.past.split(' ');
        while let (Some(epoch), Some(seq)) = (past.next(), past.next()) {
            room.past.push((epoch.to_owned(), seq.parse().unwrap_or(0)));
        }
        room.past.push((data.epoch, data.seq));
        room.past.drain(..room.past.len().saturating_sub(PAST));
        room.commands = commands;
        room.seq = data.seq;
        room.version = data.version;
        room.created = data.created;
        room.others = data.others;
        room.activity = Activity {
            peak: data.peak as usize,
            joins: data.joins,
            session_ms: data.session_ms,
        };
        room.state = texts(data.state);
        room.state_bytes = room
            .state
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        room.messages = messages;
        room.rules.again = true;
        room.rules.set(texts(data.settings));
        let ends = |list: Vec<(String, Option<u64>)>| -> BTreeMap<String, u64> {
            list.into_iter()
                .map(|(user, until)| (user, until.unwrap_or(EVER)))
                .collect()
        };
        (room.rules.bans, room.rules.mutes) = (ends(data.bans), ends(data.mutes));
        room.rules.forget(now);
        for member in data.members {
            if let Some(position) = member.position {
                room.positions
                    .insert(member.id.clone(), position.as_str().to_owned());
            }
            room.set_away(&member.id, None, Some(now));
            let user = User {
                name: member.name,
                presence: texts(member.presence),
                joined_at: member.joined_at,
                last_seen: now,
                connections: BTreeSet::new(),
                away: Some(now),
            };
            room.users.insert(member.id, user);
        }
        room
    }

    /// All of the room but its messages.
    pub(super) fn data(&self) -> RoomData {
        let texts = |map: &BTreeMap<String, String>| -> BTreeMap<String, JsonText> {
            map.iter()
                .map(|(name, value)| (name.clone(), JsonText::from_trusted(value.as_str())))
                .collect()
        };
        let ends = |map: &BTreeMap<String, u64>| -> Vec<(String, Option<u64>)> {
            map.iter()
                .map(|(user, ends)| (user.clone(), Some(*ends).filter(|&ends| ends != EVER)))
                .collect()
        };
        let member = |(id, user): (&String, &User)| MemberData {
            id: id.clone(),
            name: user.name.clone(),
            presence: texts(&user.presence),
            position: self
                .positions
                .get(id)
                .map(|position| JsonText::from_trusted(position.as_str())),
            joined_at: user.joined_at,
            last_seen: user.last_seen,
        };
        RoomData {
            epoch: self.epoch.clone(),
            past: self
                .past
                .iter()
                .map(|(epoch, seq)| format!("{epoch} {seq} "))
                .collect(),
            seq: self.seq,
            version: self.version,
            created: self.created,
            active: self.active,
            completed: self.completed,
            peak: self.activity.peak as u64,
            joins: self.activity.joins,
            session_ms: self.activity.session_ms,
            others: self.others,
            settings: texts(&self.rules.settings),
            state: texts(&self.state),
            members: self.users.iter().map(member).collect(),
            bans: ends(&self.rules.bans),
            mutes: ends(&self.rules.mutes),
        }
    }

    /// The text of the event `seq`, as far as the log reaches.
    pub(super) fn logged(&self, seq: u64) -> Option<&[u8]> {
        let back = (self.seq.checked_sub(seq)? as usize).checked_add(1)?;
        let at = self.log.len().checked_sub(back)?;
        self.log.get(at).map(|logged| &logged.text[..])
    }

    /// The epoch in which an event was made.
    pub(super) fn epoch_of(&self, seq: u64) -> &str {
        let past = self.past.iter().find(|(_, last)| seq <= *last);
        past.map_or(&self.epoch, |(epoch, _)| epoch)
    }

    /// How long it keeps its messages, ms.
    pub(super) fn retention(&self, limits: &StoreLimits) -> u64 {
        match self.rules.config.retention_hours {
            Some(hours) => ((hours * 3_600_000.0) as u64).max(1),
            None => limits.retention.as_millis() as u64,
        }
    }

    /// What it is to tell while it is not too large for it.
    pub(super) fn wish(&self, limits: &StoreLimits) -> PresenceMode {
        match self.rules.config.presence.as_deref() {
            Some("full") => PresenceMode::Full,
            Some("count") => PresenceMode::Count,
            Some("off") => PresenceMode::Off,
            Some(_) | None => limits.presence,
        }
    }

    /// It is archived when its life ends.
    pub(super) fn is_kept(&self) -> bool {
        self.rules.again || self.rules.config.archive_idle == Some(true)
    }

    /// What its members are told of each other.
    pub(super) fn telling(&self, limits: &StoreLimits) -> PresenceMode {
        let wish = self.wish(limits);
        if self.counting && wish == PresenceMode::Full {
            PresenceMode::Count
        } else {
            wish
        }
    }

    /// When something is due in it, Unix ms.
    pub(super) fn due(&self, now: u64, limits: &StoreLimits) -> u64 {
        let ms = |duration: Duration| duration.as_millis() as u64;
        if self.rules.is_completed() {
            return if self.swept == 0 {
                self.completed
            } else {
                self.paused.max(self.swept + limits.again.as_millis() as u64)
            };
        }
        let (grace, kept) = (ms(limits.grace), self.retention(limits));
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
        let ttl = match self.rules.status {
            RoomStatus::Waiting => limits.waiting_ttl,
            RoomStatus::Active | RoomStatus::Completed => limits.active_ttl,
        };
        let idle = self.active.saturating_add(ttl.as_millis() as u64);
        let newest = self.messages.last_key_value().map(|(_, (ts, _))| *ts);
        let retained = newest.map_or(0, |ts| ts.saturating_add(self.retention(limits)));
        idle.max(retained)
    }

    /// Whether the room's life has ended.
    pub(super) fn is_over(&self, now: u64, limits: &StoreLimits) -> bool {
        let spare = if self.is_kept() || self.rules.is_completed() {
            SPARE
        } else {
            0
        };
        now > self.end(limits).saturating_add(spare)
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
        self.rules.forget(now);
        let retention = self.retention(limits);
        let mut dropped = 0;
        if self.rules.is_completed() {
            return dropped;
        }
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
