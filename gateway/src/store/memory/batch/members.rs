//! Members in a batch: who comes, goes, is lost and comes back, and what is told of it.

use std::collections::BTreeMap;

use roomgate_shared::{
    ids::{ConnectionId, UserId},
    protocol::{
        ErrorCode, Lane, MAX_PRESENCE_BYTES,
        command::{Fields, RoomStatus, Since},
        event::EventType,
        json::quoted,
    },
};

use super::{Batch, Picture, ack_seq, seq_ack};
use crate::store::{
    CommandKey, Done, Join, PresenceMode, Refusal, Reply, Returning, Swept,
    memory::{commands::First, pages, room::User},
};

/// A `presence` event to be.
#[derive(Default)]
pub(super) struct Presence {
    pub(super) joined: Vec<String>,
    pub(super) updated: Vec<String>,
    pub(super) away: Vec<String>,
    pub(super) back: Vec<String>,
    pub(super) left: Vec<(String, &'static str)>,
    /// Replies that tell the event's `seq`.
    pub(super) acks: Vec<PresenceAck>,
}

pub(super) struct PresenceAck {
    /// The reply's place.
    pub(super) at: usize,
    /// The command to be remembered, and its user.
    pub(super) key: Option<(String, CommandKey)>,
}

impl Presence {
    pub(super) fn ids(&self) -> impl Iterator<Item = &String> {
        let lists = [&self.joined, &self.updated, &self.away, &self.back];
        let left = self.left.iter().map(|(id, _)| id);
        lists.into_iter().flatten().chain(left)
    }

    pub(super) fn names(&self, user: &str) -> bool {
        self.ids().any(|id| id == user)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids().next().is_none()
    }
}

#[derive(Clone, Copy)]
pub(super) enum Change {
    Joined,
    Updated,
    Away,
    Back,
    /// For this reason.
    Left(&'static str),
}

impl Batch<'_> {
    /// Turns the room to counts if it has become too large to tell who is there, or back. What it was turned to.
    pub(super) fn settle(&mut self) -> Option<PresenceMode> {
        let (members, most) = (self.room.users.len() as u64, self.limits.full_members);
        if self.room.wish(self.limits) != PresenceMode::Full || self.turned.is_some() {
            return self.turned;
        }
        if self.telling == PresenceMode::Full && members > most {
            self.telling = PresenceMode::Count;
            self.room.counting = true;
            return Some(self.telling);
        }
        if self.telling == PresenceMode::Count && members * 5 < most * 4 {
            self.telling = PresenceMode::Full;
            self.room.counting = false;
            self.tell_all();
            return Some(self.telling);
        }
        None
    }

    /// Everybody is named: the room tells again who is there.
    pub(super) fn tell_all(&mut self) {
        self.event(EventType::Presence, None, |_, room| {
            format!(
                r#"{{"all":true,"joined":[{}]}}"#,
                pages::all_users(room).join(",")
            )
        });
    }

    pub(super) fn sweep(&mut self) -> Swept {
        if self.room.is_kept()
            && !self.room.rules.is_completed()
            && self.room.end(self.limits) <= self.now
            && self.events.is_empty()
        {
            self.set_status(RoomStatus::Completed, None);
        }
        if self.room.rules.is_completed() {
            self.room.swept = self.now;
            return Swept {
                left: 0,
                purged: 0,
                now: self.now,
                next: self.room.due(self.now, self.limits),
                completed: self.room.paused <= self.now,
            };
        }
        let grace = self.limits.grace.as_millis() as u64;
        let mut left = 0;
        while let Some((since, id)) = self.room.aways.first().cloned()
            && since + grace <= self.now
        {
            self.change(&id, Change::Left("timeout"));
            self.room.remove(&id, since);
            left += 1;
        }
        self.room.swept = self.now;
        Swept {
            left,
            purged: self.purged,
            now: self.now,
            next: self.room.due(self.now, self.limits),
            completed: false,
        }
    }

    pub(super) fn come_back(&mut self, member: Returning) {
        let id = member.user.as_str();
        match self.room.users.get(id) {
            // Whoever was put out meanwhile has yet to be told so by its gateway.
            None if self.room.rules.shut_out(id, self.now).is_err() => {}
            None => {
                self.change(id, Change::Joined);
                self.arrive(id, member.name, BTreeMap::new(), member.connection);
            }
            Some(user) if user.connections.contains(&member.connection) => {}
            Some(user) => {
                if user.away.is_some() {
                    self.change(id, Change::Back);
                }
                self.connect(id, member.connection);
            }
        }
        self.room.active = self.now;
    }

    /// A user becomes a member.
    pub(super) fn arrive(
        &mut self,
        id: &str,
        name: String,
        presence: BTreeMap<String, String>,
        connection: ConnectionId,
    ) {
        let user = User {
            name,
            presence,
            joined_at: self.now,
            last_seen: self.now,
            connections: [connection].into(),
            away: None,
        };
        self.room.users.insert(id.to_owned(), user);
        let members = self.room.users.len();
        let activity = &mut self.room.activity;
        activity.joins += 1;
        activity.peak = activity.peak.max(members);
    }

    /// A member has one more connection.
    pub(super) fn connect(&mut self, id: &str, connection: ConnectionId) {
        if let Some(user) = self.room.users.get_mut(id) {
            user.last_seen = self.now;
            user.connections.insert(connection);
            let away = user.away.take();
            self.room.set_away(id, away, None);
        }
    }

    /// Gathers a change of one user for the presence event; nothing in a room that does not tell who is there.
    pub(super) fn change(&mut self, user: &str, change: Change) {
        if self.telling != PresenceMode::Full {
            return;
        }
        if self.presence.names(user) {
            self.flush_presence();
        }
        let list = match change {
            Change::Joined => &mut self.presence.joined,
            Change::Updated => &mut self.presence.updated,
            Change::Away => &mut self.presence.away,
            Change::Back => &mut self.presence.back,
            Change::Left(reason) => return self.presence.left.push((user.to_owned(), reason)),
        };
        list.push(user.to_owned());
    }

    pub(super) fn flush_presence(&mut self) {
        let mut presence = std::mem::take(&mut self.presence);
        if presence.is_empty() {
            return;
        }
        let acks = std::mem::take(&mut presence.acks);
        let seq = self.write_event(EventType::Presence, None, |_, room| {
            let users = |list: &[String]| {
                list.iter()
                    .map(|id| room.user_text(id))
                    .collect::<Vec<_>>()
                    .join(",")
            };
            let ids = |list: &[String]| list.iter().map(|id| quoted(id)).collect::<Vec<_>>().join(",");
            let left =
                |(id, reason): &(String, &str)| format!(r#"{{"user":{},"reason":"{reason}"}}"#, quoted(id));
            let parts = [
                ("joined", users(&presence.joined)),
                ("updated", users(&presence.updated)),
                ("away", ids(&presence.away)),
                ("back", ids(&presence.back)),
                (
                    "left",
                    presence.left.iter().map(left).collect::<Vec<_>>().join(","),
                ),
            ];
            let parts = parts.iter().filter(|(_, list)| !list.is_empty());
            let lists: Vec<String> = parts.map(|(name, list)| format!("\"{name}\":[{list}]")).collect();
            format!("{{{}}}", lists.join(","))
        });
        for PresenceAck { at, key } in acks {
            self.replies[at] = Some(ack_seq(seq));
            if let Some((user, key)) = key {
                let first = First {
                    seq,
                    ts: self.now,
                    version: 0,
                };
                self.room.commands.remember(&user, &key, first);
            }
        }
    }

    pub(super) fn join(&mut self, join: Join) -> Option<Reply> {
        let Join {
            user: id,
            name,
            connection,
            presence,
            since,
            messages,
            ..
        } = join;
        if let Err(refusal) = self.may_enter(id.as_str()) {
            return Some(Err(refusal));
        }
        let known = self.room.users.get(id.as_str());
        let merged = match merge(known, presence, &[]) {
            Ok(merged) => merged,
            Err(refusal) => return Some(Err(refusal)),
        };
        // One that is back says so by its id alone; what else has changed comes with it.
        let (away, differs) = match known {
            None => {
                self.change(id.as_str(), Change::Joined);
                self.arrive(id.as_str(), name, merged, connection);
                return self.ask_for_picture(id, since, messages);
            }
            Some(user) => (
                user.connections.is_empty(),
                user.presence != merged || user.name != name,
            ),
        };
        if away {
            self.change(id.as_str(), Change::Back);
        }
        if away && differs && self.telling == PresenceMode::Full {
            self.presence.updated.push(id.to_string());
        } else if differs {
            self.change(id.as_str(), Change::Updated);
        }
        if let Some(user) = self.room.users.get_mut(id.as_str()) {
            user.name = name;
            user.presence = merged;
        }
        self.connect(id.as_str(), connection);
        self.ask_for_picture(id, since, messages)
    }

    /// Bans, rates and the capacity; the latter two for who is no member yet.
    fn may_enter(&mut self, id: &str) -> Result<(), Refusal> {
        self.room.rules.shut_out(id, self.now)?;
        if self.room.users.contains_key(id) {
            return Ok(());
        }
        self.room.rules.paced(Lane::Joins, id, self.now)?;
        match self.room.rules.config.capacity.filter(|&most| most > 0) {
            Some(most) if self.room.users.len() as u64 >= most => Err(Refusal {
                retry_ms: Some(1000),
                ..Refusal::new(
                    ErrorCode::RoomFull,
                    format!("the room has as many members as it may: {most}"),
                )
            }),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn ask_for_picture(
        &mut self,
        user: UserId,
        since: Option<Since>,
        messages: usize,
    ) -> Option<Reply> {
        self.room.active = self.now;
        self.pictures.push((
            self.replies.len(),
            Picture::Join {
                user,
                since,
                messages,
            },
        ));
        None
    }

    pub(super) fn part(&mut self, id: &UserId, connection: ConnectionId, leaving: bool) -> Reply {
        let done = Ok(Done::Ack("{}".to_owned()));
        if self.room.rules.is_completed() {
            // What is to be archived stays as it was.
            return done;
        }
        let Some(user) = self.room.users.get_mut(id.as_str()) else {
            return done;
        };
        if !user.connections.contains(&connection) {
            return done;
        }
        if user.connections.len() > 1 {
            user.connections.remove(&connection);
            user.last_seen = self.now;
            return done;
        }
        let change = if leaving {
            Change::Left("left")
        } else {
            Change::Away
        };
        self.change(id.as_str(), change);
        if leaving {
            self.room.remove(id.as_str(), self.now);
        } else if let Some(user) = self.room.users.get_mut(id.as_str()) {
            user.connections.remove(&connection);
            user.last_seen = self.now;
            user.away = Some(self.now);
            self.room.set_away(id.as_str(), None, Some(self.now));
        }
        self.room.active = self.now;
        done
    }

    pub(super) fn presence_update(
        &mut self,
        id: &UserId,
        key: Option<CommandKey>,
        set: Fields,
        remove: &[String],
    ) -> Option<Reply> {
        if let Some(key) = &key {
            self.make(id.as_str(), key);
            match self.room.commands.first(id.as_str(), key) {
                Ok(None) => {}
                Ok(Some(first)) => return Some(Ok(Done::Again(seq_ack(first.seq)))),
                Err(refusal) => return Some(Err(refusal)),
            }
        }
        if let Err(refusal) = self.room.rules.hindered(Lane::State, id.as_str(), self.now) {
            return Some(Err(refusal));
        }
        let Some(user) = self.room.users.get(id.as_str()) else {
            return Some(Err(Refusal::new(ErrorCode::NotJoined, "join the room first")));
        };
        let merged = match merge(Some(user), set, remove) {
            Ok(merged) => merged,
            Err(refusal) => return Some(Err(refusal)),
        };
        if merged == user.presence {
            if self.presence.is_empty() {
                return Some(self.changed_silently(id, key));
            }
            // What the user sees is told by the event that is yet to be made.
            self.presence.acks.push(PresenceAck {
                at: self.replies.len(),
                key: key.map(|key| (id.to_string(), key)),
            });
            return None;
        }
        self.change(id.as_str(), Change::Updated);
        if let Some(user) = self.room.users.get_mut(id.as_str()) {
            user.presence = merged;
            user.last_seen = self.now;
        }
        self.room.active = self.now;
        if self.telling != PresenceMode::Full {
            return Some(self.changed_silently(id, key));
        }
        self.presence.acks.push(PresenceAck {
            at: self.replies.len(),
            key: key.map(|key| (id.to_string(), key)),
        });
        None
    }

    /// The answer to a change of presence that makes no event.
    pub(super) fn changed_silently(&mut self, id: &UserId, key: Option<CommandKey>) -> Reply {
        let seq = self.room.seq;
        if let Some(key) = &key {
            let first = First {
                seq,
                ts: self.now,
                version: 0,
            };
            self.room.commands.remember(id.as_str(), key, first);
        }
        ack_seq(seq)
    }
}

/// A user's presence with fields set and removed.
fn merge(user: Option<&User>, set: Fields, remove: &[String]) -> Result<BTreeMap<String, String>, Refusal> {
    let mut merged = user.map(|user| user.presence.clone()).unwrap_or_default();
    for name in remove {
        merged.remove(name);
    }
    merged.extend(
        set.into_iter()
            .map(|(name, value)| (name, value.as_str().to_owned())),
    );
    let bytes: usize = merged.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_PRESENCE_BYTES {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("the presence would have {bytes} bytes; {MAX_PRESENCE_BYTES} are allowed"),
        ));
    }
    Ok(merged)
}
