//! Rooms in the memory of one process: nothing to install, nothing kept over a restart, the same contract.

mod batch;
mod commands;
mod pages;
mod room;
mod rules;
mod users;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::Mutex;
use roomgate_shared::{ids::RoomId, protocol::command::Since};
use tokio::time::Instant;

use self::{
    batch::Batch,
    commands::Commands,
    room::{Messages, Room},
};
use super::{
    Applied, Beat, BoxFuture, Done, EventSink, Head, Op, Readiness, Refusal, Reply, Store, StoreError,
    StoreLimits, Users,
};

/// See the module.
pub struct MemoryStore {
    limits: StoreLimits,
    sink: Arc<dyn EventSink>,
    rooms: Mutex<Rooms>,
    users: users::KnownUsers,
    /// Messages of rooms that are being put back.
    restoring: Mutex<HashMap<RoomId, Messages>>,
    /// What the last commands of rooms that were removed did, and when that was: should one be opened again, whoever sends
    /// one of them again is to get its answer.
    ended: Mutex<HashMap<RoomId, (u64, Commands)>>,
    /// When the store was made, Unix ms and by the runtime's clock, which tests may pause.
    made: (u64, Instant),
}

#[derive(Default)]
struct Rooms {
    by_id: HashMap<RoomId, Entry>,
    /// Rooms by when something is due in them, or by the end of a claim that is later.
    due: BTreeSet<(u64, RoomId)>,
}

struct Entry {
    room: Arc<Mutex<Room>>,
    /// As it stands in `due`.
    due: u64,
    /// Until when nobody else is to sweep it.
    claimed: u64,
}

impl Rooms {
    fn remove(&mut self, id: &RoomId) {
        if let Some(entry) = self.by_id.remove(id) {
            self.due.remove(&(entry.due, id.clone()));
        }
    }

    /// Something is due in the room at `due`; `swept` ends a claim.
    fn schedule(&mut self, id: &RoomId, due: u64, swept: bool) {
        if let Some(entry) = self.by_id.get_mut(id) {
            if swept {
                entry.claimed = 0;
            }
            let due = due.max(entry.claimed);
            if entry.due != due {
                self.due.remove(&(entry.due, id.clone()));
                self.due.insert((due, id.clone()));
                entry.due = due;
            }
        }
    }
}

impl MemoryStore {
    /// An empty store that hands events to `sink`, within [`Store::apply`].
    pub fn new(limits: StoreLimits, sink: Arc<dyn EventSink>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            sink,
            rooms: Mutex::default(),
            restoring: Mutex::default(),
            ended: Mutex::default(),
            users: users::KnownUsers::default(),
            made: (unix_ms(), Instant::now()),
        })
    }

    /// The room, made if it is not there and `create`.
    fn room(&self, id: &RoomId, now: u64, create: bool) -> Option<Arc<Mutex<Room>>> {
        let mut rooms = self.rooms.lock();
        if let Some(entry) = rooms.by_id.get(id) {
            if !entry.room.lock().is_over(now, &self.limits) {
                return Some(entry.room.clone());
            }
            rooms.remove(id);
        }
        create.then(|| {
            let room = Arc::new(Mutex::new(Room::new(id.clone(), crate::random::epoch(), now)));
            let entry = Entry {
                room: room.clone(),
                due: u64::MAX,
                claimed: 0,
            };
            rooms.by_id.insert(id.clone(), entry);
            room
        })
    }

    fn head(&self, id: &RoomId) -> Option<Head> {
        let now = self.now_ms();
        let room = self.room(id, now, false)?;
        let room = room.lock();
        Some(Head {
            at: Since {
                epoch: room.epoch.clone(),
                seq: room.seq,
            },
            is_due: room.end(&self.limits).saturating_sub(now)
                < self.limits.active_ttl.as_millis() as u64 / 2,
        })
    }

    fn apply_now(&self, id: &RoomId, ops: Vec<Op>) -> Applied {
        let now = self.now_ms();
        // Only what stands behind a join that makes the room finds it.
        let creating = ops
            .iter()
            .position(|op| matches!(op, Op::Join(join) if join.create));
        let restoring = ops
            .iter()
            .any(|op| matches!(op, Op::RestoreMessages { .. } | Op::Restore(_)));
        if restoring {
            return self.restore(id, ops, now);
        }
        let (room, gone) = match self.room(id, now, false) {
            Some(room) => (room, 0),
            None => match creating.and_then(|at| Some((self.room(id, now, true)?, at))) {
                Some(found) => found,
                None => {
                    return Applied {
                        replies: ops.iter().map(|_| Err(Refusal::no_room())).collect(),
                        epoch: Bytes::new(),
                        seq: 0,
                    };
                }
            },
        };
        let swept = ops.contains(&Op::Sweep);
        let mut room = room.lock();
        // A room's clock does not fall; one that was restored may have been ahead.
        let now = now.max(room.active);
        let mut replies: Vec<Reply> = (0..gone).map(|_| Err(Refusal::no_room())).collect();
        let mut batch = Batch::new(&mut room, &self.limits, now);
        for op in ops.into_iter().skip(gone) {
            batch.op(op);
        }
        let (published, answers) = batch.finish();
        for payload in published {
            self.sink.payload(id.as_str(), payload);
        }
        replies.extend(answers);
        let applied = Applied {
            replies,
            epoch: Bytes::copy_from_slice(room.epoch.as_bytes()),
            seq: room.seq,
        };
        let due = room.due(now, &self.limits);
        if std::mem::take(&mut room.removed) {
            let commands = std::mem::take(&mut room.commands);
            drop(room);
            self.rooms.lock().remove(id);
            let oldest = now.saturating_sub(self.limits.dedupe.as_millis() as u64);
            let mut ended = self.ended.lock();
            ended.retain(|_, (at, _)| *at >= oldest);
            ended.insert(id.clone(), (now, commands));
            return applied;
        }
        // The other lock is taken before a room's elsewhere.
        drop(room);
        self.rooms.lock().schedule(id, due, swept);
        applied
    }
}

impl MemoryStore {
    /// What puts a room back comes alone in its batch. Messages wait outside of any room until it is made.
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else comes with them")]
    fn restore(&self, id: &RoomId, ops: Vec<Op>, now: u64) -> Applied {
        let there = self.room(id, now, false);
        let mut applied = Applied {
            replies: Vec::new(),
            epoch: Bytes::new(),
            seq: 0,
        };
        for op in ops {
            applied.replies.push(Ok(Done::Ack("{}".to_owned())));
            if there.is_some() {
                continue;
            }
            match op {
                Op::RestoreMessages { messages } => {
                    let mut restoring = self.restoring.lock();
                    let waiting = restoring.entry(id.clone()).or_default();
                    waiting.extend(
                        messages
                            .into_iter()
                            .map(|message| (message.id, (message.ts, message.text))),
                    );
                }
                Op::Restore(data) => {
                    let messages = self.restoring.lock().remove(id).unwrap_or_default();
                    let commands = self.ended.lock().remove(id);
                    let commands = commands.map(|(_, commands)| commands).unwrap_or_default();
                    let room = Room::restored(id.clone(), *data, messages, commands, now);
                    applied.epoch = Bytes::copy_from_slice(room.epoch.as_bytes());
                    applied.seq = room.seq;
                    let due = room.due(now, &self.limits);
                    let entry = Entry {
                        room: Arc::new(Mutex::new(room)),
                        due: u64::MAX,
                        claimed: 0,
                    };
                    let mut rooms = self.rooms.lock();
                    rooms.by_id.insert(id.clone(), entry);
                    rooms.schedule(id, due, false);
                }
                _ => {}
            }
        }
        applied
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

impl Store for MemoryStore {
    fn apply<'a>(&'a self, room: &'a RoomId, ops: Vec<Op>) -> BoxFuture<'a, Result<Applied, StoreError>> {
        Box::pin(async move { Ok(self.apply_now(room, ops)) })
    }

    fn heads<'a>(&'a self, rooms: &'a [RoomId]) -> BoxFuture<'a, Vec<Result<Option<Head>, StoreError>>> {
        Box::pin(async move { rooms.iter().map(|room| Ok(self.head(room))).collect() })
    }

    fn subscribe<'a>(&'a self, _: &'a RoomId) -> BoxFuture<'a, Result<(), StoreError>> {
        // The sink is given every room's events and knows which it has members for.
        Box::pin(async { Ok(()) })
    }

    fn unsubscribe(&self, _: &RoomId) {}

    fn publish(&self, _: &RoomId, _: Bytes) {
        // There is no other node.
    }

    fn claim_due(&self, most: usize, claim: Duration) -> BoxFuture<'_, Result<Vec<RoomId>, StoreError>> {
        let now = self.now_ms();
        let until = now + claim.as_millis() as u64;
        let mut rooms = self.rooms.lock();
        let due = rooms.due.iter().take_while(|(at, _)| *at <= now).take(most);
        let ids: Vec<RoomId> = due.map(|(_, id)| id.clone()).collect();
        for id in &ids {
            if let Some(entry) = rooms.by_id.get_mut(id) {
                entry.claimed = until;
            }
            rooms.schedule(id, until, false);
        }
        Box::pin(async { Ok(ids) })
    }

    // One node, whose end is that of its rooms: there is no lease to keep, and nobody to take it over.

    fn beat(&self) -> BoxFuture<'_, Result<Beat, StoreError>> {
        Box::pin(async { Ok(Beat::default()) })
    }

    fn rooms_of<'a>(&'a self, _: &'a str, _: usize) -> BoxFuture<'a, Result<Vec<RoomId>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn buried<'a>(&'a self, _: &'a str, _: Vec<RoomId>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn look_after(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn users(&self) -> &dyn Users {
        self
    }

    fn resign(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn instance(&self) -> Arc<str> {
        "memory".into()
    }

    fn readiness(&self) -> Readiness {
        Readiness::Ready
    }

    fn now_ms(&self) -> u64 {
        self.made.0 + self.made.1.elapsed().as_millis() as u64
    }
}
