//! One room on this node: its members here, and the order of what they are given.
//!
//! Events reach members in the order of `seq`, each once. What would break that (a hole, another epoch) stops the flow
//! until the room has been compared with the store: see [`LocalRoom::repair`]. Joins hold a copy of what arrives while
//! the store makes their picture, and get the rest of it behind the picture.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use roomgate_shared::{
    ids::{ConnectionId, RoomId},
    protocol::command::Since,
};

use super::{
    client::Client,
    frame::{frame_len, text_frames},
    membership::Membership,
};
use crate::{
    metrics::metrics,
    store::payload::{self, Payload},
};

/// Most bytes of events kept while a room is repaired: the store's log has them, too.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// Whether a payload shows that events were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// All is in order.
    NotNeeded,
    /// The room must be compared with the store.
    Needed,
}

/// See the module.
pub struct LocalRoom {
    id: RoomId,
    inner: Mutex<Inner>,
}

struct Inner {
    members: Vec<Member>,
    /// The epoch and the last `seq` that the members have, empty and 0 before the first member.
    epoch: Box<str>,
    last: u64,
    /// A comparison with the store is asked for or under way: events are held, not given.
    repairing: bool,
    /// Joins or a repair wait for the store: what arrives is kept for them.
    holding: bool,
    held: Vec<Held>,
    /// Bytes of `held`; past [`MAX_HELD_BYTES`] a repair holds no more and is followed by another one.
    held_bytes: usize,
    spilt: bool,
}

struct Member {
    client: Arc<Client>,
    membership: Arc<Membership>,
    /// Its past has ended: it gets nothing before its picture.
    awaits: bool,
    /// The member has everything up to this, whatever is still on its way to this node.
    from: u64,
}

/// Events that arrived while a picture was being made.
struct Held {
    epoch: Box<str>,
    events: Chunk,
}

/// Consecutive events as frames in one piece of memory.
#[derive(Clone)]
struct Chunk {
    first: u64,
    count: u64,
    frames: Bytes,
}

impl Chunk {
    fn new<'a>(first: u64, events: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> Self {
        Self {
            first,
            count: events.len() as u64,
            frames: text_frames(events),
        }
    }

    /// `seq` of the last event, or of the one before `first` where there is none.
    fn last(&self) -> u64 {
        self.first + self.count - 1
    }

    /// The frames of the events after `seq`, if there are any.
    fn after(&self, seq: u64) -> Option<Bytes> {
        if self.count == 0 || seq >= self.last() {
            return None;
        }
        let mut start = 0;
        for _ in self.first..=seq.max(self.first - 1) {
            start += frame_len(&self.frames[start..]);
        }
        Some(self.frames.slice(start..))
    }
}

impl LocalRoom {
    /// A room without members.
    pub fn new(id: RoomId) -> Self {
        let inner = Inner {
            members: Vec::new(),
            epoch: Box::default(),
            last: 0,
            repairing: false,
            holding: false,
            held: Vec::new(),
            held_bytes: 0,
            spilt: false,
        };
        Self {
            id,
            inner: Mutex::new(inner),
        }
    }

    /// The room's id.
    pub fn id(&self) -> &RoomId {
        &self.id
    }

    /// Whether nobody here is in the room.
    pub fn is_empty(&self) -> bool {
        self.inner.lock().members.is_empty()
    }

    /// Where the members stand; `None` before the first.
    pub fn since(&self) -> Option<Since> {
        let inner = self.inner.lock();
        (!inner.epoch.is_empty()).then(|| Since {
            epoch: inner.epoch.to_string(),
            seq: inner.last,
        })
    }

    /// Whether a connection is in the room.
    pub fn has(&self, connection: ConnectionId) -> bool {
        self.inner
            .lock()
            .members
            .iter()
            .any(|member| member.client.id == connection)
    }

    /// `seq` of the last event that a connection in the room has been given.
    pub fn position(&self, connection: ConnectionId) -> Option<u64> {
        let inner = self.inner.lock();
        let member = inner
            .members
            .iter()
            .find(|member| member.client.id == connection)?;
        Some(member.from.max(inner.last))
    }

    /// Every member's past has ended: none gets anything before its picture, by [`LocalRoom::enter`]. Those that are to
    /// have one.
    pub fn begin_resync(&self) -> Vec<(Arc<Client>, Arc<Membership>)> {
        let mut inner = self.inner.lock();
        inner.repairing = true;
        let each = inner.members.iter_mut().map(|member| {
            member.awaits = true;
            (member.client.clone(), member.membership.clone())
        });
        each.collect()
    }

    /// From now on until [`LocalRoom::release`], events that arrive are kept for those who join.
    pub fn hold(&self) {
        self.inner.lock().holding = true;
    }

    /// Ends [`LocalRoom::hold`], once all joins of a batch are in: what arrived meanwhile goes to whoever lacks it.
    pub fn release(&self) -> Repair {
        let mut inner = self.inner.lock();
        inner.holding = false;
        if inner.repairing {
            Repair::NotNeeded
        } else {
            inner.give_held()
        }
    }

    /// Enters `client`, whose picture of the room is at `seq` of `epoch`, or renews its place. It gets `answer`, then
    /// `missed`, then what has arrived since the picture. Called between `hold` and `release`.
    pub fn enter(
        &self,
        client: Arc<Client>,
        membership: Arc<Membership>,
        epoch: &str,
        seq: u64,
        answer: Bytes,
        missed: &[Bytes],
    ) -> Repair {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let outbox = &client.outbox;
        if !answer.is_empty() {
            outbox.push_answer(answer);
        }
        if !missed.is_empty() {
            outbox.push_answer(text_frames(missed.iter().map(Bytes::as_ref)));
        }
        let mut repair = Repair::NotNeeded;
        let mut from = seq;
        if inner.members.is_empty() {
            inner.epoch = epoch.into();
            inner.last = seq;
            inner.repairing = false;
        } else if *inner.epoch != *epoch {
            // The members here live in another past: each is to be told by a picture of its own.
            repair = Repair::Needed;
        } else {
            // What the others got after the picture was made they got while it was held, too.
            for held in inner
                .held
                .iter()
                .filter(|held| *held.epoch == *epoch && held.events.last() <= inner.last)
            {
                if let Some(frames) = held.events.after(from) {
                    outbox.push_answer(frames);
                    from = held.events.last();
                }
            }
        }
        membership.set(true);
        let connection = client.id;
        match inner
            .members
            .iter_mut()
            .find(|member| member.client.id == connection)
        {
            Some(member) => {
                member.from = from;
                member.awaits = false;
            }
            None => {
                metrics().members.increment(1.0);
                inner.members.push(Member {
                    client,
                    membership,
                    awaits: false,
                    from,
                });
            }
        }
        repair
    }

    /// Removes a connection; no frame of the room reaches it afterwards. Whether it was in.
    pub fn leave(&self, connection: ConnectionId) -> bool {
        let mut inner = self.inner.lock();
        match inner
            .members
            .iter()
            .position(|member| member.client.id == connection)
        {
            Some(at) => {
                inner.members.swap_remove(at).membership.set(false);
                metrics().members.decrement(1.0);
                true
            }
            None => false,
        }
    }

    /// Gives a payload of the room's channel to the members.
    pub fn deliver(&self, payload: &[u8]) -> Repair {
        match payload::parse(payload) {
            Some(Payload::Durable { epoch, first, events }) => {
                let chunk = Chunk::new(first, events.iter().copied());
                self.inner.lock().durable(epoch, chunk)
            }
            Some(Payload::Signal { from, to, frame }) => {
                self.signal(from, &to, frame);
                Repair::NotNeeded
            }
            None => {
                metrics().bad_payloads.increment(1);
                tracing::error!(room = %self.id, "a payload that no gateway of this version writes");
                Repair::NotNeeded
            }
        }
    }

    fn signal(&self, from: &str, to: &[&str], frame: &[u8]) {
        let inner = self.inner.lock();
        let frames = text_frames(std::iter::once(frame));
        for member in &inner.members {
            let user = member.client.user.as_str();
            if user != from && (to.is_empty() || to.contains(&user)) {
                member.client.outbox.push_ephemeral(frames.clone());
            }
        }
    }

    /// Gives a payload to members whatever room it is of: a planted fault.
    #[cfg(debug_assertions)]
    pub(super) fn leak(&self, payload: &[u8]) {
        if let Some(Payload::Durable { first, events, .. }) = payload::parse(payload) {
            let chunk = Chunk::new(first, events.iter().copied());
            for member in &self.inner.lock().members {
                member.client.outbox.push(chunk.frames.clone());
            }
        }
    }

    /// Whether the room is being compared with the store, or is to be.
    pub fn is_repairing(&self) -> bool {
        self.inner.lock().repairing
    }

    /// Marks the room as being compared with the store; `false` where it is already.
    pub fn begin_repair(&self) -> bool {
        let mut inner = self.inner.lock();
        !std::mem::replace(&mut inner.repairing, true)
    }

    /// Ends a repair: `missed` are the events after `since`; then what arrived meanwhile follows. [`Repair::Needed`] where
    /// a hole remains. What was held and still does not fit although the store has nothing more (another epoch's, or
    /// nobody's) is dropped: were it the room's after all, the next event would show a hole again.
    pub fn repair(&self, since: &Since, missed: &[Bytes]) -> Repair {
        let mut inner = self.inner.lock();
        inner.repairing = false;
        let before = inner.last;
        let chunk = Chunk::new(since.seq + 1, missed.iter().map(Bytes::as_ref));
        if inner.give(&since.epoch, &chunk) == Repair::Needed {
            return Repair::Needed;
        }
        let epoch = inner.epoch.clone();
        inner.held.retain(|held| held.epoch == epoch);
        let spilt = std::mem::take(&mut inner.spilt);
        if inner.give_held() == Repair::NotNeeded {
            return if spilt { Repair::Needed } else { Repair::NotNeeded };
        }
        if inner.last > before || spilt {
            return Repair::Needed;
        }
        metrics().bad_payloads.increment(inner.held.len() as u64);
        tracing::error!(room = %self.id, "events on the channel that the store does not know");
        inner.drop_held();
        Repair::NotNeeded
    }

    /// Ends a repair that could not be made, or that is not needed any more.
    pub fn abandon_repair(&self) {
        let mut inner = self.inner.lock();
        inner.repairing = false;
        inner.spilt = false;
        if !inner.holding {
            inner.drop_held();
        }
    }

    /// Starts anew at `seq` of `epoch`, unless that has been done.
    pub fn restart(&self, epoch: &str, seq: u64) {
        let mut inner = self.inner.lock();
        if inner.repairing || *inner.epoch != *epoch {
            inner.epoch = epoch.into();
            // Who has come in since is there already, perhaps from an earlier point on.
            let here = inner
                .members
                .iter()
                .filter(|member| !member.awaits)
                .map(|member| member.from)
                .min();
            inner.last = here.map_or(seq, |from| from.min(seq));
            inner.repairing = false;
            inner.held.retain(|held| *held.epoch == *epoch);
        }
    }
}

impl Inner {
    fn durable(&mut self, epoch: &str, chunk: Chunk) -> Repair {
        let repair = if self.repairing {
            Repair::NotNeeded
        } else {
            self.give(epoch, &chunk)
        };
        if self.holding || self.repairing || repair == Repair::Needed {
            if self.held_bytes > MAX_HELD_BYTES && !self.holding {
                self.drop_held();
                self.spilt = true;
            }
            self.held_bytes += chunk.frames.len();
            self.held.push(Held {
                epoch: epoch.into(),
                events: chunk,
            });
        }
        repair
    }

    fn drop_held(&mut self) {
        self.held = Vec::new();
        self.held_bytes = 0;
    }

    /// Gives what is held to whoever lacks it, and keeps it only where that shows a hole or joins are under way.
    fn give_held(&mut self) -> Repair {
        let held = std::mem::take(&mut self.held);
        let needed = held
            .iter()
            .any(|held| self.give(&held.epoch, &held.events) == Repair::Needed);
        if needed || self.holding {
            self.held = held;
        } else {
            self.held_bytes = 0;
        }
        if needed { Repair::Needed } else { Repair::NotNeeded }
    }

    /// Gives events to the members, each what it lacks of them.
    fn give(&mut self, epoch: &str, chunk: &Chunk) -> Repair {
        if self.members.is_empty() {
            return Repair::NotNeeded;
        }
        if *self.epoch != *epoch || chunk.first > self.last + 1 {
            return Repair::Needed;
        }
        let Some(frames) = chunk.after(self.last) else {
            return Repair::NotNeeded;
        };
        let last = std::mem::replace(&mut self.last, chunk.last());
        let mut deliveries = 0;
        for member in self.members.iter().filter(|member| !member.awaits) {
            // A picture may have come from beyond what this node had heard.
            let known = member.from.max(last).min(chunk.last());
            if known > last {
                chunk
                    .after(known)
                    .into_iter()
                    .for_each(|frames| member.client.outbox.push(frames));
            } else {
                member.client.outbox.push(frames.clone());
            }
            deliveries += chunk.last() - known;
        }
        metrics().deliveries.increment(deliveries);
        Repair::NotNeeded
    }
}

#[cfg(test)]
mod tests;
