//! Rooms as the sessions see them: policy first, then the store, then the answer.
//!
//! [`Rooms::submit`] takes a command that has passed its checks; the room's [`queue`] sends it to the store, together with
//! what came meanwhile, and answers. What a room's members must be told beyond events (a hole, another epoch) is
//! [`repair`]'s; what moves goes by [`moves`], beside the queue; [`presence`] sees to those who do not come back;
//! [`lifecycle`] to a room's end, and its return.

mod answers;
mod failure;
mod held;
mod lifecycle;
mod moves;
pub mod presence;
mod queue;
mod repair;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use roomgate_shared::{
    ids::{CommandId, RoomId, UserId},
    protocol::{CommandType, JsonText},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

use self::queue::RoomQueue;
use crate::{
    archive::Archive,
    hub::{Client, Connections, Hub, Kept, LocalRoom, Membership, Request},
    store::{Op, Refusal, SharedStore, Tail},
};

const SHARDS: usize = 16;

/// An operation on its way to the store.
pub struct Work {
    /// What the store is to do.
    pub op: Op,
    /// Where it came from, and so where the answer goes.
    pub origin: Origin,
}

/// Where an operation came from.
pub enum Origin {
    /// A client's command: answered under its id; without id only errors are told.
    Command {
        /// Whose.
        client: Arc<Client>,
        /// The connection's place in the room.
        membership: Arc<Membership>,
        /// The id to answer under.
        id: Option<CommandId>,
        /// The command's type.
        kind: CommandType,
        /// What the queue knows of a join without the store.
        join: Known,
        /// When the command was read.
        received: Instant,
        /// What it takes of the connection's allowance ([`Client::begin`]) until it is answered.
        weight: usize,
    },
    /// A connection that is gone. Tried again until the store has taken it.
    Gone {
        /// The connection.
        client: Arc<Client>,
        /// Its place in the room.
        membership: Arc<Membership>,
    },
    /// A connection that may be in although its join was answered by an error, or although it was put out. Passed over if
    /// it tries again.
    Unconfirmed {
        /// The connection.
        client: Arc<Client>,
        /// Its place in the room.
        membership: Arc<Membership>,
        /// Keeps the room open: the store is not to hear that nobody of this node is in before this is settled.
        open: Arc<()>,
    },
    /// A fresh picture for a member, told as `resync`.
    Resync {
        /// The connection.
        client: Arc<Client>,
        /// Its place in the room.
        membership: Arc<Membership>,
    },
    /// The tail of the room, for all its members here.
    Repair(Tail),
    /// Members that are to be told to be here, as far as they still are. Tried again until the store has taken it.
    Return {
        /// The connections.
        members: Connections,
        /// One of so many that are under way at first.
        turn: Option<OwnedSemaphorePermit>,
    },
    /// Places of members; how it went is told to `local`.
    Positions {
        /// Whose members.
        local: Arc<LocalRoom>,
        /// Who is where.
        positions: Vec<(UserId, JsonText)>,
    },
}

/// What is known of a join before the store has answered.
#[derive(Default)]
pub enum Known {
    /// Nothing.
    #[default]
    Nothing,
    /// The connection is in the room, and has what this node has.
    In,
    /// This node has kept what the connection missed.
    Kept(Box<Kept>),
}

impl Origin {
    /// Whether a client waits for the answer.
    fn is_command(&self) -> bool {
        matches!(self, Origin::Command { .. })
    }
}

/// The rooms of this node.
pub struct Rooms {
    shards: [Mutex<HashMap<RoomId, Arc<RoomQueue>>>; SHARDS],
    hasher: RandomState,
    hub: Arc<Hub>,
    store: SharedStore,
    /// The usual length of a tick.
    move_tick: Duration,
    /// Where completed rooms go; `None`: nowhere.
    archive: Option<Archive>,
    /// Rooms that are being archived here, or wait for their turn.
    ending: Mutex<HashSet<RoomId>>,
    /// One for each that is.
    ending_turns: Semaphore,
    /// Archives are read one after the other: each may be large.
    reading: tokio::sync::Mutex<()>,
}

impl Rooms {
    /// Rooms over `store`; `requests` are the hub's. Spawns the task that carries them out. `move_tick`: how long moves are
    /// gathered; `archive`: where completed rooms go before they are removed.
    pub fn new(
        hub: Arc<Hub>,
        store: SharedStore,
        move_tick: Duration,
        archive: Option<Archive>,
        requests: mpsc::UnboundedReceiver<Request>,
    ) -> Arc<Self> {
        let rooms = Arc::new(Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            hub,
            store,
            move_tick,
            archive,
            ending: Mutex::default(),
            ending_turns: Semaphore::new(lifecycle::ENDING_AT_ONCE),
            reading: tokio::sync::Mutex::default(),
        });
        tokio::spawn(repair::run(rooms.clone(), requests));
        rooms
    }

    /// Rooms that are open here, whether or not somebody is in them yet; but not those that the store cannot serve.
    pub fn open_rooms(&self) -> usize {
        let open = |shard: &HashMap<RoomId, Arc<RoomQueue>>| {
            let well = shard.values().filter(|queue| !queue.breaker().is_open());
            well.count()
        };
        self.shards.iter().map(|shard| open(&shard.lock())).sum()
    }

    fn shard(&self, room: &RoomId) -> &Mutex<HashMap<RoomId, Arc<RoomQueue>>> {
        &self.shards[self.hasher.hash_one(room) as usize % SHARDS]
    }

    /// Queues work for a room. The works of one room happen in the order in which they were queued; those that come
    /// while a call for the room is under way go together in the next one.
    pub fn submit(self: &Arc<Self>, room: &RoomId, work: Work) {
        let mut shard = self.shard(room).lock();
        let queue = shard
            .entry(room.clone())
            .or_insert_with(|| Arc::new(RoomQueue::new(self.hub.open(room.clone()))));
        if queue.push(work) {
            tokio::spawn(queue::run(self.clone(), queue.clone()));
        }
    }

    /// Queues work for a room only if it is open here.
    fn submit_if_open(self: &Arc<Self>, room: &RoomId, work: Work) {
        let shard = self.shard(room).lock();
        if let Some(queue) = shard.get(room)
            && queue.push(work)
        {
            tokio::spawn(queue::run(self.clone(), queue.clone()));
        }
    }

    /// A user that is in the room here has moved. Passed over if the room is not open.
    ///
    /// # Errors
    /// The room does not let it: `muted`, `cooldown` or `rate_limited`.
    pub fn moved(
        self: &Arc<Self>,
        room: &RoomId,
        client: &Arc<Client>,
        position: JsonText,
    ) -> Result<(), Refusal> {
        let local = self
            .shard(room)
            .lock()
            .get(room)
            .map(|queue| queue.local().clone());
        match local {
            Some(local) => moves::moved(self, &local, client, position),
            None => Ok(()),
        }
    }

    /// Connections that the room has put out are out of the store, too: one that it had put in again unasked, after an
    /// outage, would stay there as a ghost. Passed over for one that joins again.
    fn part(self: &Arc<Self>, room: &RoomId, out: Connections) {
        let shard = self.shard(room).lock();
        let Some(queue) = shard.get(room) else { return };
        for (client, membership) in out {
            let op = Op::Part {
                user: client.user().clone(),
                connection: client.id,
                leaving: true,
            };
            let origin = Origin::Unconfirmed {
                client,
                membership,
                open: queue.keep_open(),
            };
            if queue.push(Work { op, origin }) {
                tokio::spawn(queue::run(self.clone(), queue.clone()));
            }
        }
    }

    /// Looks whether a room can be forgotten: one whose last member has been put out, or that was damaged when its last
    /// work was done.
    fn look(self: &Arc<Self>, room: &RoomId) {
        let shard = self.shard(room).lock();
        if let Some(queue) = shard.get(room) {
            queue.breaker().looked();
            if queue.claim() {
                tokio::spawn(queue::run(self.clone(), queue.clone()));
            }
        }
    }

    /// Forgets a room with nobody in it and nothing queued; `false` where that is not so.
    fn retire(&self, queue: &RoomQueue) -> bool {
        let room = queue.local().id();
        let mut shard = self.shard(room).lock();
        if !queue.is_empty() || !queue.rest() {
            return false;
        }
        shard.remove(room);
        if queue.is_subscribed() {
            // Within the lock, so that it comes before the subscription of whoever opens the room next.
            self.store.unsubscribe(room);
        }
        self.hub.close(room);
        true
    }
}
