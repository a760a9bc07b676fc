//! From a room's channel to the connections that have joined it here.
//!
//! [`Hub`] finds the room of a payload, [`LocalRoom`] keeps its order and hands each event to every member, and each
//! member's [`Outbox`] holds what its socket has yet to take. An event is encoded once for all of them.

mod chunk;
mod client;
mod frame;
mod membership;
mod moves;
mod notice;
mod outbox;
mod recent;
mod room;
mod rules;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use roomgate_shared::ids::RoomId;
use tokio::sync::mpsc;

pub(crate) use self::outbox::Piece;
pub use self::{
    client::{Client, MIN_WEIGHT, READ_WEIGHT},
    frame::{close_frame, message_frame, ping_frame, pong_frame, text_frame},
    membership::Membership,
    moves::{Ticked, positions_frame},
    outbox::{Closing, Outbox},
    recent::RecentBytes,
    room::{Connections, Entry, Kept, LocalRoom, Repair},
};
use crate::{metrics::metrics, store::EventSink};

/// Locks of the registry: enough that rooms seldom wait for each other, few enough to cost nothing.
const SHARDS: usize = 16;

/// The rooms that have members on this node.
pub struct Hub {
    shards: [Mutex<HashMap<RoomId, Arc<LocalRoom>>>; SHARDS],
    hasher: RandomState,
    requests: mpsc::UnboundedSender<Request>,
    recent: Arc<RecentBytes>,
    /// Interruptions told so far, and up to which of them all rooms have been compared since.
    interruptions: AtomicU64,
    compared: AtomicU64,
}

/// What the hub asks of the layer above.
pub enum Request {
    /// This room lacks events: give its members what it missed.
    Repair(Arc<LocalRoom>),
    /// Any room may lack events: see which do.
    CompareAll,
    /// Something ephemeral has come for this room: see [`LocalRoom::tick`].
    Tick(Arc<LocalRoom>),
    /// This room has put these connections out: the store is to know.
    Out(Arc<LocalRoom>, Connections),
    /// The last members of this room have been put out: it can be forgotten.
    Emptied(Arc<LocalRoom>),
}

impl Hub {
    /// A hub, and the channel of its requests: each room comes once until [`LocalRoom::repair`] has been called for it, and
    /// once until nobody ticks for it, so the channel holds at most twice as many entries as there are rooms here, and
    /// those of interruptions.
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Request>) {
        let (sender, requests) = mpsc::unbounded_channel();
        let hub = Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            requests: sender,
            recent: Arc::default(),
            interruptions: AtomicU64::new(0),
            compared: AtomicU64::new(0),
        };
        (Arc::new(hub), requests)
    }

    fn shard(&self, room: &str) -> &Mutex<HashMap<RoomId, Arc<LocalRoom>>> {
        &self.shards[self.hasher.hash_one(room) as usize % SHARDS]
    }

    /// Adds a room without members. Called before the room's queue subscribes.
    pub fn open(&self, id: RoomId) -> Arc<LocalRoom> {
        let room = Arc::new(LocalRoom::new(id.clone(), self.recent.clone()));
        self.shard(id.as_str()).lock().insert(id, room.clone());
        metrics().rooms.increment(1.0);
        room
    }

    /// Removes a room. Called by the room's queue, when nobody is in it and nothing is under way.
    pub fn close(&self, room: &RoomId) {
        if self.shard(room.as_str()).lock().remove(room).is_some() {
            metrics().rooms.decrement(1.0);
        }
    }

    /// Every room of this node.
    pub fn rooms(&self) -> Vec<Arc<LocalRoom>> {
        self.shards
            .iter()
            .flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// How many interruptions have been told. Asked by whoever begins to compare all rooms, to say so at the end.
    pub fn interruptions(&self) -> u64 {
        self.interruptions.load(Ordering::Relaxed)
    }

    /// All rooms have been compared since so many interruptions, and those that differ are in repair.
    pub fn compared(&self, interruptions: u64) {
        self.compared.fetch_max(interruptions, Ordering::Relaxed);
    }

    /// Whether some room is in repair, or not compared yet since the last interruption.
    pub fn is_repairing(&self) -> bool {
        if self.compared.load(Ordering::Relaxed) < self.interruptions() {
            return true;
        }
        let repairing =
            |shard: &HashMap<RoomId, Arc<LocalRoom>>| shard.values().any(|room| room.is_repairing());
        self.shards.iter().any(|shard| repairing(&shard.lock()))
    }

    /// Asks for a room to be compared with the store, unless that is asked for already.
    pub fn request_repair(&self, room: &Arc<LocalRoom>) {
        if room.begin_repair() {
            // The receiver lives as long as the gateway; after it nobody needs a repair.
            let _ = self.requests.send(Request::Repair(room.clone()));
        }
    }

    /// Passes on whom a room has put out, and whether that was its last member.
    pub fn follow_up(&self, room: &Arc<LocalRoom>) {
        let (out, emptied) = room.take_out();
        if !out.is_empty() {
            let _ = self.requests.send(Request::Out(room.clone(), out));
        }
        if emptied {
            let _ = self.requests.send(Request::Emptied(room.clone()));
        }
    }
}

impl EventSink for Hub {
    fn payload(&self, room: &str, payload: Bytes) {
        let Some(local) = self.shard(room).lock().get(room).cloned() else {
            return;
        };
        #[cfg(debug_assertions)]
        if crate::plant::leaks()
            && let Some(other) = self.rooms().into_iter().find(|other| other.id() != local.id())
        {
            other.leak(&payload);
        }
        if local.deliver(&payload) == Repair::Needed {
            metrics().gaps.increment(1);
            self.request_repair(&local);
        }
        self.follow_up(&local);
        if local.claim_ticking() {
            let _ = self.requests.send(Request::Tick(local));
        }
    }

    fn interrupted(&self) {
        self.interruptions.fetch_add(1, Ordering::Relaxed);
        let _ = self.requests.send(Request::CompareAll);
    }
}
