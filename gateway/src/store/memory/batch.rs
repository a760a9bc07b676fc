//! One batch of operations on a room.

mod governance;
mod members;

use bytes::Bytes;
use roomgate_shared::{
    ids::UserId,
    protocol::{
        ErrorCode, Lane, MAX_STATE_BYTES,
        command::{Fields, Since},
        event::{self, EventType, event_text},
        json::{push_str, quoted},
    },
};

use self::members::{Presence, PresenceAck};
use super::{
    commands::First,
    pages,
    room::{Room, push_object},
};
use crate::store::{
    Buried, CommandKey, Done, Joined, Op, Positions, PresenceMode, Refusal, Reply, StoreLimits,
    export::Exported,
    payload::{self, Payload},
};

/// Most messages of one part of an export.
const PART: usize = 256;

/// Largest magnitude below which every integer is a double.
const EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// Operations of a batch, one after the other. What concerns presence is gathered into one event, which is made when
/// another event is, or at the end.
pub(super) struct Batch<'a> {
    room: &'a mut Room,
    limits: &'a StoreLimits,
    now: u64,
    first: u64,
    events: Vec<Bytes>,
    signals: Vec<Bytes>,
    presence: Presence,
    /// What members are told of each other, and how many there were.
    telling: PresenceMode,
    were: usize,
    /// What they are told has changed within the batch to this.
    turned: Option<PresenceMode>,
    /// Messages past retention that went.
    purged: u64,
    /// Replies, `None` where the end of the batch decides.
    replies: Vec<Option<Reply>>,
    /// Joins and tails, answered at the end: their place among the replies.
    pictures: Vec<(usize, Picture)>,
}

enum Picture {
    Join {
        user: UserId,
        since: Option<Since>,
        messages: usize,
    },
    Tail(Since),
}

impl<'a> Batch<'a> {
    pub(super) fn new(room: &'a mut Room, limits: &'a StoreLimits, now: u64) -> Self {
        let purged = room.purge(now, limits);
        let first = room.seq + 1;
        Self {
            telling: room.telling(limits),
            were: room.users.len(),
            purged,
            room,
            limits,
            now,
            first,
            events: Vec::new(),
            signals: Vec::new(),
            presence: Presence::default(),
            turned: None,
            replies: Vec::new(),
            pictures: Vec::new(),
        }
    }

    pub(super) fn op(&mut self, op: Op) {
        if self.room.rules.is_completed() && is_shut_out(&op) {
            return self.replies.push(Some(Err(closed())));
        }
        let reply = match op {
            Op::Join(join) => self.join(join),
            Op::Part {
                user,
                connection,
                leaving,
            } => Some(self.part(&user, connection, leaving)),
            Op::PresenceUpdate {
                user,
                key,
                set,
                remove,
            } => self.presence_update(&user, key, set, &remove),
            Op::StateGet { fields } => Some(Ok(Done::Ack(format!(
                r#"{{"version":{},"state":{},"seq":{}}}"#,
                self.room.version,
                self.room.state_text(fields.as_deref()),
                self.room.seq
            )))),
            Op::StatePatch {
                by,
                key,
                set,
                remove,
                increment,
                if_version,
            } => Some(self.once(&by, key, again_patched, |batch| {
                batch.room.rules.hindered(Lane::State, by.as_str(), batch.now)?;
                batch.state_patch(&by, set, remove, increment, if_version)
            })),
            Op::MessageSend { by, key, tail } => {
                let again = |room: &Room, first: First| {
                    let epoch = room.epoch_of(first.seq);
                    message_ack(&event::message_text(epoch, first.seq, first.ts, &tail))
                };
                Some(self.once(&by, key, again, |batch| {
                    if batch.room.rules.is_strict() {
                        let parts = event::MessageParts::read(&event::message_text("e", 0, 0, &tail));
                        if let Some(parts) = parts {
                            batch.room.rules.fits(&parts.kind, parts.body_len())?;
                        }
                    }
                    batch
                        .room
                        .rules
                        .hindered(Lane::Messages, by.as_str(), batch.now)?;
                    Ok(batch.message_send(&by, &tail))
                }))
            }
            Op::MessageHistory { before, after, limit } => Some(pages::history(
                self.room,
                before.as_deref(),
                after.as_deref(),
                limit,
                self.limits,
            )),
            Op::Broadcast { by, key, data } => Some(self.once(
                &by,
                key,
                |_, first| seq_ack(first.seq),
                |batch| {
                    batch
                        .room
                        .rules
                        .hindered(Lane::Broadcasts, by.as_str(), batch.now)?;
                    let seq = batch.event(EventType::Broadcast, Some(by.as_str()), |_, _| data);
                    Ok((0, seq_ack(seq)))
                },
            )),
            Op::Signal { payload } => Some(self.signal(payload)),
            Op::MessageEdit {
                by,
                key,
                message_id,
                body,
                if_version,
                moderates,
            } => Some(self.message_edit(&by, key, &message_id, &body, if_version, moderates)),
            Op::MessageDelete {
                by,
                key,
                message_id,
                moderates,
            } => Some(self.message_delete(&by, key, &message_id, moderates)),
            Op::MessageMissing { from, to, ids } => Some(self.message_missing(from, to, &ids)),
            Op::Moderate {
                by,
                key,
                action,
                about,
            } => Some(self.moderate(&by, key, action, &about)),
            Op::Configure { by, key, change } => Some(self.configure(&by, key, change)),
            Op::Status { by, key, status } => Some(self.status(&by, key, status)),
            Op::Export { from } => Some(self.export(from)),
            Op::Remove { at } => Some(self.remove(&at)),
            Op::Trouble { pause, .. } => Some(self.completed().map(|()| {
                self.room.paused = self.now + pause.as_millis() as u64;
                Done::Ack("{}".to_owned())
            })),
            // The store does these without a room.
            Op::RestoreMessages { .. } | Op::Restore(_) => Some(Ok(Done::Ack("{}".to_owned()))),
            Op::UsersList { cursor, limit } => Some(pages::users(self.room, cursor.as_deref(), limit)),
            Op::Tail(tail) => {
                self.pictures
                    .push((self.replies.len(), Picture::Tail(tail.since)));
                self.room.active = self.now;
                None
            }
            Op::Positions { positions } => {
                for (user, position) in positions {
                    if self.room.users.contains_key(user.as_str()) {
                        let position = position.as_str().to_owned();
                        self.room.positions.insert(user.to_string(), position);
                    }
                }
                self.room.active = self.now;
                Some(Ok(Done::Ack("{}".to_owned())))
            }
            Op::Active { users } => {
                for user in users {
                    if let Some(user) = self.room.users.get_mut(user.as_str()) {
                        user.last_seen = self.now;
                    }
                }
                self.room.active = self.now;
                Some(Ok(Done::Ack("{}".to_owned())))
            }
            Op::Sweep => Some(Ok(Done::Swept(self.sweep()))),
            // There is but one node, and its end is that of the store.
            Op::Bury { .. } => Some(Ok(Done::Buried(Buried {
                away: 0,
                cursor: String::new(),
            }))),
            Op::Return { members } => {
                for member in members {
                    self.come_back(member);
                }
                Some(Ok(Done::Ack("{}".to_owned())))
            }
        };
        self.replies.push(reply);
    }

    /// Ends the batch: payloads to publish, and the replies.
    pub(super) fn finish(mut self) -> (Vec<Bytes>, Vec<Reply>) {
        self.flush_presence();
        let turned = self.settle();
        for (at, picture) in std::mem::take(&mut self.pictures) {
            self.replies[at] = Some(Ok(Done::Joined(self.picture(picture))));
        }
        let mut published = Vec::new();
        if turned == Some(PresenceMode::Full) {
            // Before the event that says who is there: no number is to come behind it.
            published.push(payload::occupancy(None));
        }
        if !self.events.is_empty() {
            published.push(payload::durable(
                &self.room.epoch,
                self.first,
                self.events.iter().map(Bytes::as_ref),
            ));
        }
        let members = self.room.users.len();
        if self.telling == PresenceMode::Count && (turned.is_some() || members != self.were) {
            published.push(payload::occupancy(Some(members as u64)));
        }
        published.append(&mut self.signals);
        let replies = self
            .replies
            .into_iter()
            .map(|reply| reply.unwrap_or_else(|| Err(Refusal::no_room())))
            .collect();
        (published, replies)
    }

    /// Carries out a command that makes one event, unless it has happened before. `act` gives the state's version, if
    /// that has changed, and the ack.
    fn once(
        &mut self,
        user: &UserId,
        key: Option<CommandKey>,
        again: impl FnOnce(&Room, First) -> String,
        act: impl FnOnce(&mut Self) -> Result<(u64, String), Refusal>,
    ) -> Reply {
        let Some(key) = key else {
            return act(self).map(|(_, ack)| Done::Ack(ack));
        };
        self.make(user.as_str(), &key);
        if let Some(first) = self.room.commands.first(user.as_str(), &key)? {
            return Ok(Done::Again(again(self.room, first)));
        }
        let (version, ack) = act(self)?;
        let first = First {
            seq: self.room.seq,
            ts: self.now,
            version,
        };
        self.room.commands.remember(user.as_str(), &key, first);
        Ok(Done::Ack(ack))
    }

    /// Makes the presence event if it is that of this command.
    fn make(&mut self, user: &str, key: &CommandKey) {
        let waits = |ack: &PresenceAck| {
            ack.key
                .as_ref()
                .is_some_and(|(by, waiting)| by == user && waiting.id == key.id)
        };
        if self.presence.acks.iter().any(waits) {
            self.flush_presence();
        }
    }

    /// Makes a durable event, after what presence has to say. `data` is given its `seq` and the room.
    fn event(&mut self, kind: EventType, by: Option<&str>, data: impl FnOnce(u64, &Room) -> String) -> u64 {
        self.flush_presence();
        self.write_event(kind, by, data)
    }

    fn write_event(
        &mut self,
        kind: EventType,
        by: Option<&str>,
        data: impl FnOnce(u64, &Room) -> String,
    ) -> u64 {
        let room = &mut *self.room;
        room.seq += 1;
        room.active = self.now;
        room.others += u64::from(kind != EventType::MessageSent);
        let data = data(room.seq, room);
        let text = Bytes::from(event_text(kind, room.id.as_str(), room.seq, self.now, by, &data));
        room.log(self.now, text.clone(), self.limits);
        self.events.push(text);
        room.seq
    }

    fn message_send(&mut self, by: &UserId, tail: &str) -> (u64, String) {
        let now = self.now;
        let mut text = String::new();
        self.event(EventType::MessageSent, Some(by.as_str()), |seq, room| {
            text = event::message_text(&room.epoch, seq, now, tail);
            text.clone()
        });
        let id = event::message_id(&self.room.epoch, self.room.seq);
        let ack = message_ack(&text);
        self.room.messages.insert(id, (now, text));
        (0, ack)
    }

    fn signal(&mut self, payload: Bytes) -> Reply {
        if let Some(Payload::Signal { from, .. }) = payload::parse(&payload) {
            self.room.rules.hindered(Lane::Broadcasts, from, self.now)?;
        }
        self.signals.push(payload);
        Ok(Done::Ack("{}".to_owned()))
    }

    fn completed(&self) -> Result<(), Refusal> {
        if self.room.rules.is_completed() {
            Ok(())
        } else {
            Err(Refusal::new(ErrorCode::Conflict, "the room is not completed"))
        }
    }

    fn export(&self, from: u64) -> Reply {
        self.completed()?;
        let (mut messages, mut bytes, mut next) = (Vec::new(), 0, None);
        for (rank, (_, text)) in self.room.messages.values().enumerate().skip(from as usize) {
            if !messages.is_empty() && (bytes + text.len() > self.limits.page_bytes || messages.len() == PART)
            {
                next = Some(rank as u64);
                break;
            }
            bytes += text.len();
            messages.push(Bytes::copy_from_slice(text.as_bytes()));
        }
        let data = (from == 0).then(|| Box::new(self.room.data()));
        Ok(Done::Exported(Exported { data, next, messages }))
    }

    fn remove(&mut self, at: &Since) -> Reply {
        self.completed()?;
        if (&self.room.epoch, self.room.seq) != (&at.epoch, at.seq) {
            return Err(Refusal::new(
                ErrorCode::Conflict,
                "the room is not what was archived",
            ));
        }
        self.room.removed = true;
        Ok(Done::Ack("{}".to_owned()))
    }

    fn state_patch(
        &mut self,
        by: &UserId,
        mut set: Fields,
        remove: Vec<String>,
        increment: Vec<(String, f64)>,
        if_version: Option<u64>,
    ) -> Result<(u64, String), Refusal> {
        let room = &*self.room;
        if if_version.is_some_and(|version| version != room.version) {
            let named = set
                .iter()
                .map(|(name, _)| name)
                .chain(&remove)
                .chain(increment.iter().map(|(name, _)| name));
            let named: Vec<String> = named.cloned().collect();
            return Err(Refusal {
                details: Some(format!(
                    r#""version":{},"fields":{}"#,
                    room.version,
                    room.state_text(Some(&named))
                )),
                ..Refusal::new(ErrorCode::Conflict, "the state has another version")
            });
        }
        for (name, by) in increment {
            let current = match room.state.get(&name) {
                None => 0.0,
                Some(text) => text
                    .parse()
                    .ok()
                    .filter(|_| text.starts_with(|c: char| c == '-' || c.is_ascii_digit()))
                    .ok_or_else(|| bad_increment(&name, "is not a number"))?,
            };
            let sum: f64 = current + by;
            if !sum.is_finite() {
                return Err(bad_increment(&name, "would pass what a number holds"));
            }
            set.push((
                name,
                roomgate_shared::protocol::JsonText::from_trusted(number_text(sum)),
            ));
        }
        let size = |name: &String| room.state.get(name).map_or(0, |value| name.len() + value.len());
        let gone: usize = set
            .iter()
            .map(|(name, _)| size(name))
            .chain(remove.iter().map(size))
            .sum();
        let added: usize = set.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = room.state_bytes - gone + added;
        if bytes > MAX_STATE_BYTES {
            return Err(Refusal::new(
                ErrorCode::StateTooLarge,
                format!("the state would have {bytes} bytes; {MAX_STATE_BYTES} are allowed"),
            ));
        }
        let room = &mut *self.room;
        room.state_bytes = bytes;
        room.version += 1;
        for name in &remove {
            room.state.remove(name);
        }
        for (name, value) in &set {
            room.state.insert(name.clone(), value.as_str().to_owned());
        }
        let version = room.version;
        let seq = self.event(EventType::StatePatched, Some(by.as_str()), |_, _| {
            let mut data = format!(r#"{{"version":{version},"set":"#);
            let set: Vec<(String, String)> =
                set.into_iter().map(|(n, v)| (n, v.as_str().to_owned())).collect();
            push_object(&mut data, set.iter().map(|(name, value)| (name, value)));
            data.push_str(",\"remove\":[");
            for (i, name) in remove.iter().enumerate() {
                if i > 0 {
                    data.push(',');
                }
                push_str(&mut data, name);
            }
            data.push_str("]}");
            data
        });
        Ok((version, patch_ack(version, seq)))
    }

    fn picture(&self, picture: Picture) -> Joined {
        let room = &*self.room;
        let who = self.telling == PresenceMode::Full;
        let (since, you, messages) = match &picture {
            Picture::Join {
                user,
                since,
                messages,
            } => (since.as_ref(), Some(room.user_text(user.as_str())), *messages),
            Picture::Tail(since) => (Some(since), None, 0),
        };
        let you = you.map(|you| format!(r#","you":{you}"#)).unwrap_or_default();
        let (epoch, seq) = (room.epoch.clone(), room.seq);
        let rules = room.rules.text(self.now).map(Bytes::from);
        let reason = match since.map(|since| room.after(since)) {
            Some(Ok(missed)) => {
                let count = missed.len();
                let data =
                    format!(r#"{{"epoch":"{epoch}","seq":{seq},"recovered":true,"missed":{count}{you}}}"#);
                return Joined {
                    epoch,
                    seq,
                    data,
                    missed,
                    recovered: true,
                    positions: if who {
                        positions(room)
                    } else {
                        Positions::default()
                    },
                    occupancy: (self.telling == PresenceMode::Count).then_some(room.users.len() as u64),
                    rules,
                };
            }
            Some(Err(reason)) => reason,
            None => "new",
        };
        let data = format!(
            r#"{{"epoch":"{epoch}","seq":{seq},"recovered":false,"reason":"{reason}",{},"messages":[{}]{you}}}"#,
            pages::picture(room, who),
            pages::newest(room, messages, self.limits),
        );
        Joined {
            epoch,
            seq,
            data,
            missed: Vec::new(),
            recovered: false,
            positions: Positions::default(),
            occupancy: None,
            rules,
        }
    }
}

/// What a completed room does not take any more.
fn is_shut_out(op: &Op) -> bool {
    match op {
        Op::Join(_)
        | Op::PresenceUpdate { .. }
        | Op::StateGet { .. }
        | Op::StatePatch { .. }
        | Op::MessageSend { .. }
        | Op::MessageEdit { .. }
        | Op::MessageDelete { .. }
        | Op::MessageMissing { .. }
        | Op::MessageHistory { .. }
        | Op::Moderate { .. }
        | Op::Configure { .. }
        | Op::Broadcast { .. }
        | Op::Signal { .. }
        | Op::UsersList { .. }
        | Op::Positions { .. }
        | Op::Active { .. }
        | Op::Return { .. } => true,
        Op::Part { .. }
        | Op::Status { .. }
        | Op::Tail(_)
        | Op::Sweep
        | Op::Bury { .. }
        | Op::Export { .. }
        | Op::Remove { .. }
        | Op::Trouble { .. }
        | Op::RestoreMessages { .. }
        | Op::Restore(_) => false,
    }
}

fn closed() -> Refusal {
    Refusal::new(ErrorCode::RoomClosed, "the room is completed")
}

fn positions(room: &Room) -> Positions {
    let each = room.positions.iter();
    each.map(|(id, position)| (id.clone(), Bytes::from(position.clone())))
        .collect()
}

fn ack_seq(seq: u64) -> Reply {
    Ok(Done::Ack(seq_ack(seq)))
}

fn seq_ack(seq: u64) -> String {
    format!(r#"{{"seq":{seq}}}"#)
}

fn patch_ack(version: u64, seq: u64) -> String {
    format!(r#"{{"version":{version},"seq":{seq}}}"#)
}

fn again_patched(_: &Room, first: First) -> String {
    patch_ack(first.version, first.seq)
}

fn message_ack(message: &str) -> String {
    format!(r#"{{"message":{message}}}"#)
}

fn bad_increment(name: &str, why: &str) -> Refusal {
    Refusal::new(
        ErrorCode::BadRequest,
        format!("increment: field {} {why}", quoted(name)),
    )
}

/// An integer where it is one that a double holds exactly, else the shortest text that reads back the same.
fn number_text(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() <= EXACT_INTEGER {
        format!("{}", number as i64)
    } else {
        serde_json::to_string(&number).unwrap_or_default()
    }
}
