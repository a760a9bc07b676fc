//! Rooms in the memory of one process: nothing to install, nothing kept over a restart, the same contract.

mod batch;
mod commands;
mod pages;
mod room;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::Mutex;
use roomgate_shared::{
    ids::RoomId,
    protocol::{ErrorCode, command::Since},
};

use self::{batch::Batch, room::Room};
use super::{
    Applied, BoxFuture, EventSink, Head, Op, Readiness, Refusal, Reply, Store, StoreError, StoreLimits,
};

/// Rooms that were not used for so many calls of the store are looked at for their life's end.
const SWEEP_EVERY: u64 = 4096;

/// See the module.
pub struct MemoryStore {
    limits: StoreLimits,
    sink: Arc<dyn EventSink>,
    rooms: Mutex<Rooms>,
}

#[derive(Default)]
struct Rooms {
    by_id: HashMap<RoomId, Arc<Mutex<Room>>>,
    calls: u64,
}

impl MemoryStore {
    /// An empty store that hands events to `sink`, within [`Store::apply`].
    pub fn new(limits: StoreLimits, sink: Arc<dyn EventSink>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            sink,
            rooms: Mutex::default(),
        })
    }

    /// The room, made if it is not there and `create`.
    fn room(&self, id: &RoomId, now: u64, create: bool) -> Option<Arc<Mutex<Room>>> {
        let mut rooms = self.rooms.lock();
        rooms.calls += 1;
        if rooms.calls.is_multiple_of(SWEEP_EVERY) {
            rooms.by_id.retain(|_, room| {
                room.try_lock()
                    .is_none_or(|room| !room.is_over(now, &self.limits))
            });
        }
        if let Some(room) = rooms.by_id.get(id) {
            if !room.lock().is_over(now, &self.limits) {
                return Some(room.clone());
            }
            rooms.by_id.remove(id);
        }
        create.then(|| {
            let room = Arc::new(Mutex::new(Room::new(id.clone(), crate::random::epoch(), now)));
            rooms.by_id.insert(id.clone(), room.clone());
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
        let (room, gone) = match self.room(id, now, false) {
            Some(room) => (room, 0),
            None => match creating.and_then(|at| Some((self.room(id, now, true)?, at))) {
                Some(found) => found,
                None => {
                    return Applied {
                        replies: ops.iter().map(|_| Err(no_room())).collect(),
                        epoch: Bytes::new(),
                        seq: 0,
                    };
                }
            },
        };
        let mut room = room.lock();
        let mut replies: Vec<Reply> = (0..gone).map(|_| Err(no_room())).collect();
        let mut batch = Batch::new(&mut room, &self.limits, now);
        for op in ops.into_iter().skip(gone) {
            batch.op(op);
        }
        let (published, answers) = batch.finish();
        for payload in published {
            self.sink.payload(id.as_str(), payload);
        }
        replies.extend(answers);
        Applied {
            replies,
            epoch: Bytes::copy_from_slice(room.epoch.as_bytes()),
            seq: room.seq,
        }
    }
}

fn no_room() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "the room does not exist")
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

    fn readiness(&self) -> Readiness {
        Readiness::Ready
    }

    fn now_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }
}
