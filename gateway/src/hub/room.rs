//! One room on this node: its members here, and the order of what they are given.
//!
//! Events reach members in the order of `seq`, each once. What would break that (a hole, another epoch) stops the flow
//! until the room has been compared with the store: see [`LocalRoom::repair`]. Joins hold a copy of what arrives while
//! the store makes their picture, and get the rest of it behind the picture.

mod ephemeral;
mod put_out;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use roomgate_shared::{
    ids::{RoomId, UserId},
    protocol::{JsonText, command::Since, event::epoch_text},
};
use tokio::time::Instant;

use self::ephemeral::Ephemeral;
use super::{
    chunk::Chunk,
    client::Client,
    frame::text_frames,
    membership::Membership,
    moves::{Published, Ticked},
    recent::{Recent, RecentBytes},
    rules::Rules,
};
use crate::{
    metrics::metrics,
    store::{
        Refusal, Tail,
        payload::{self, Payload},
    },
};

/// Most bytes of events kept while a room is repaired: the store's log has them, too.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// Connections of a room, each with its place in it.
pub type Connections = Vec<(Arc<Client>, Arc<Membership>)>;

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
    /// The last `seq` that somebody here was told by an answer: its event may still be on its way.
    acknowledged: u64,
    recent: Recent,
    /// A comparison with the store is asked for or under way: events are held, not given.
    repairing: bool,
    /// Every member awaits its picture. The room starts over with the first connection that has one, be it one of them
    /// or another that comes in.
    resyncing: bool,
    /// Joins or a repair wait for the store: what arrives is kept for them.
    holding: bool,
    held: Vec<Held>,
    /// Bytes of `held`; past [`MAX_HELD_BYTES`] a repair holds no more and is followed by another one.
    held_bytes: usize,
    spilt: bool,
    ephemeral: Option<Box<Ephemeral>>,
    /// What the room demands of its members' moves, if anything.
    rules: Option<Box<Rules>>,
    /// The last member has been put out, and nobody has looked yet.
    emptied: bool,
    /// Connections that were put out, until the store is told.
    out: Connections,
    /// Ticks so far.
    tick: u64,
}

pub(super) struct Member {
    pub(super) client: Arc<Client>,
    membership: Arc<Membership>,
    /// Its past has ended: it gets nothing before its picture.
    pub(super) awaits: bool,
    /// The last tick whose places it has.
    pub(super) served: u64,
    /// The tick of the last occupancy that it has.
    pub(super) told: u64,
    /// The member has everything up to this, whatever is still on its way to this node.
    from: u64,
    /// Its join stands in the order here: what puts its user out before that does not concern it.
    entered: u64,
}

/// Events that arrived while a picture was being made.
struct Held {
    epoch: Box<str>,
    events: Chunk,
}

/// What a connection that enters is given; see [`LocalRoom::enter`].
#[derive(Default)]
pub struct Entry<'a> {
    /// The room's epoch.
    pub epoch: &'a str,
    /// The point of the picture.
    pub seq: u64,
    /// The answer's frame, or nothing.
    pub answer: Bytes,
    /// Frames of events that this node had kept, in order.
    pub kept: &'a [Bytes],
    /// Texts of the events that follow, up to `seq`.
    pub missed: &'a [Bytes],
    /// What the room demands; see [`Joined::rules`](crate::store::Joined::rules).
    pub rules: Option<&'a [u8]>,
}

/// What this node has kept of a connection's past; see [`LocalRoom::kept`].
pub struct Kept {
    /// Up to here it has what this node has.
    pub at: Since,
    /// Frames of the events up to there.
    pub frames: Vec<Bytes>,
    /// How many events they are.
    pub count: u64,
}

impl LocalRoom {
    /// A room without members. `recent` counts what all rooms of the node keep.
    pub fn new(id: RoomId, recent: Arc<RecentBytes>) -> Self {
        let inner = Inner {
            members: Vec::new(),
            epoch: Box::default(),
            last: 0,
            acknowledged: 0,
            recent: Recent::new(recent),
            repairing: false,
            resyncing: false,
            holding: false,
            held: Vec::new(),
            held_bytes: 0,
            spilt: false,
            ephemeral: None,
            rules: None,
            emptied: false,
            out: Vec::new(),
            tick: 0,
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

    /// What to ask the store: where the members stand, and what is known of the room; `None` before the first member.
    pub fn tail(&self) -> Option<Tail> {
        let inner = self.inner.lock();
        (!inner.epoch.is_empty()).then(|| Tail {
            since: Since {
                epoch: inner.epoch.to_string(),
                seq: inner.last,
            },
            ts: inner.recent.ts(inner.last),
            known: inner.last.max(inner.acknowledged),
        })
    }

    /// Somebody here was told of the event `seq` by an answer.
    pub fn acknowledged(&self, epoch: &[u8], seq: u64) {
        let mut inner = self.inner.lock();
        if inner.epoch.as_bytes() == epoch {
            inner.acknowledged = inner.acknowledged.max(seq);
        }
    }

    /// What this node has kept for a connection that comes back and has everything up to `since`; `None` where that
    /// does not reach to where the members here stand.
    pub fn kept(&self, since: &Since) -> Option<Kept> {
        let inner = self.inner.lock();
        if inner.repairing || inner.members.is_empty() || *inner.epoch != *since.epoch {
            return None;
        }
        let frames = inner.recent.after(since.seq, inner.last)?;
        Some(Kept {
            at: Since {
                epoch: since.epoch.clone(),
                seq: inner.last,
            },
            frames,
            count: inner.last - since.seq,
        })
    }

    /// Lets go of events that are too old to be of use to a crowd.
    pub fn let_go(&self) {
        self.inner.lock().recent.let_go(Instant::now());
    }

    /// `seq` of the last event that a connection in the room has been given.
    pub fn position(&self, membership: &Membership) -> Option<u64> {
        let inner = self.inner.lock();
        let member = inner.members.get(membership.place()?)?;
        Some(member.from.max(inner.last))
    }

    /// A connection that is in has joined once more, and was answered at `seq`.
    pub fn reentered(&self, membership: &Membership, seq: u64) {
        let mut inner = self.inner.lock();
        if let Some(member) = membership.place().and_then(|place| inner.members.get_mut(place)) {
            member.entered = member.entered.max(seq);
        }
    }

    /// The connections that are in the room.
    pub fn connections(&self) -> Connections {
        let inner = self.inner.lock();
        let each = inner.members.iter();
        each.map(|member| (member.client.clone(), member.membership.clone()))
            .collect()
    }

    /// Users that have done something here since this was last asked.
    pub fn active(&self) -> Vec<UserId> {
        let inner = self.inner.lock();
        let active = inner
            .members
            .iter()
            .filter(|member| member.membership.has_acted());
        let mut users: Vec<UserId> = active.map(|member| member.client.user().clone()).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// The user of a connection that is in the room here has moved. `now_ms` is the store's clock.
    ///
    /// # Errors
    /// The room does not let it: `muted`, `cooldown` or `rate_limited`.
    pub fn moved(&self, client: &Arc<Client>, position: JsonText, now_ms: u64) -> Result<(), Refusal> {
        let mut inner = self.inner.lock();
        if let Some(rules) = inner.rules.as_mut() {
            rules.may_move(client.user(), now_ms, Instant::now())?;
        }
        let tick = inner.tick + 1;
        inner.moves().own(client.user(), position, tick);
        client.begin_move();
        inner
            .ephemeral
            .get_or_insert_default()
            .movers
            .push(client.clone());
        Ok(())
    }

    /// Whether there is something for [`LocalRoom::tick`] and nobody who calls it: the caller is to, at once, and then as
    /// each answer says.
    pub fn claim_ticking(&self) -> bool {
        let mut inner = self.inner.lock();
        inner
            .ephemeral
            .as_mut()
            .is_some_and(|ephemeral| !std::mem::replace(&mut ephemeral.ticking, true))
    }

    /// Gives the members what has moved, and how many they are. `usual` is the tick's usual length, `instance` the name
    /// under which this node publishes.
    pub fn tick(&self, usual: Duration, instance: &Arc<str>) -> Ticked {
        let mut inner = self.inner.lock();
        let usual = inner.rules.as_ref().and_then(|rules| rules.tick).unwrap_or(usual);
        inner.tick(&self.id, usual, instance)
    }

    /// How the writing that [`LocalRoom::tick`] asked for went. What was written is published once more, with the next
    /// tick.
    pub fn written(&self, positions: &[(UserId, JsonText)], taken: bool) {
        let mut inner = self.inner.lock();
        if let Some(moves) = inner
            .ephemeral
            .as_mut()
            .and_then(|ephemeral| ephemeral.moves.as_mut())
        {
            moves.wrote(positions, taken);
        }
    }

    /// Every member's past has ended: none gets anything before its picture, by [`LocalRoom::enter`]. Those that are to
    /// have one; nobody where that is under way already.
    pub fn begin_resync(&self) -> Connections {
        let mut inner = self.inner.lock();
        if inner.members.is_empty() || std::mem::replace(&mut inner.resyncing, true) {
            return Vec::new();
        }
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
            inner.give_held(&self.id)
        }
    }

    /// Enters `client`, whose picture of the room is at `seq` of `epoch`, or renews its place. It gets the answer, then
    /// what it missed, then what has arrived since the picture. Called between `hold` and `release`.
    pub fn enter(&self, client: Arc<Client>, membership: Arc<Membership>, entry: Entry<'_>) -> Repair {
        let Entry {
            epoch,
            seq,
            answer,
            kept,
            missed,
            rules,
        } = entry;
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let outbox = &client.outbox;
        if !answer.is_empty() {
            outbox.push_answer(answer);
        }
        for frames in kept {
            outbox.push_answer(frames.clone());
        }
        let missed = Chunk::new(
            seq + 1 - (missed.len() as u64).min(seq),
            missed.iter().map(Bytes::as_ref),
        );
        if let Some(frames) = missed.after(0) {
            outbox.push_answer(frames);
        }
        let mut repair = Repair::NotNeeded;
        let mut from = seq;
        if inner.members.is_empty() || inner.resyncing {
            inner.start(epoch, seq);
            inner.rules = rules.map(|rules| Box::new(Rules::read(rules)));
            if !missed.is_empty() {
                inner.recent.push(missed, Instant::now());
            }
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
        // Its picture may be older than what is on its way to the others: all of that comes with the next tick.
        let served = if inner.ephemeral.is_some() { 0 } else { inner.tick };
        match membership.place() {
            Some(place) => {
                let member = &mut inner.members[place];
                member.from = from;
                member.entered = seq;
                member.awaits = false;
                member.served = served;
            }
            None => {
                metrics().members.increment(1.0);
                membership.put(inner.members.len());
                inner.members.push(Member {
                    client,
                    membership,
                    awaits: false,
                    served,
                    told: 0,
                    from,
                    entered: seq,
                });
            }
        }
        repair
    }

    /// Removes a connection; no frame of the room reaches it afterwards. Whether it was in.
    pub fn leave(&self, membership: &Membership) -> bool {
        self.inner.lock().remove(membership)
    }

    /// Connections that were put out since this was last asked, and whether the last member was among them.
    pub fn take_out(&self) -> (Connections, bool) {
        let mut inner = self.inner.lock();
        (std::mem::take(&mut inner.out), std::mem::take(&mut inner.emptied))
    }

    /// Gives a payload of the room's channel to the members.
    pub fn deliver(&self, payload: &[u8]) -> Repair {
        match payload::parse(payload) {
            Some(Payload::Durable { epoch, first, events }) => {
                let chunk = Chunk::new(first, events.iter().copied());
                let mut inner = self.inner.lock();
                inner.forget_departed(&events);
                inner.durable(&self.id, epoch, chunk)
            }
            Some(Payload::Signal { from, to, frame }) => {
                self.signal(from, &to, frame);
                Repair::NotNeeded
            }
            Some(Payload::Moves {
                instance,
                members,
                moves,
                again,
            }) => {
                let published = Published {
                    instance,
                    members,
                    moves,
                    again,
                };
                self.inner.lock().published(&published);
                Repair::NotNeeded
            }
            Some(Payload::Occupancy { members }) => {
                self.inner.lock().counted(members);
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
            let user = member.client.user().as_str();
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
                member.client.outbox.push(chunk.frames().clone());
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

    /// Ends a repair: `missed` are the events after `since`, in `epoch`, which may have taken the place of that of `since`:
    /// the members are told so, and go on. Then what arrived meanwhile follows. [`Repair::Needed`] where
    /// a hole remains. What was held and still does not fit although the store has nothing more (another epoch's, or
    /// nobody's) is dropped: were it the room's after all, the next event would show a hole again.
    pub fn repair(&self, since: &Since, epoch: &str, missed: &[Bytes]) -> Repair {
        let mut inner = self.inner.lock();
        inner.repairing = false;
        let before = inner.last;
        if *inner.epoch == *since.epoch && *since.epoch != *epoch {
            inner.go_on(&self.id, epoch);
        }
        let chunk = Chunk::new(since.seq + 1, missed.iter().map(Bytes::as_ref));
        if inner.give(&self.id, epoch, &chunk) == Repair::Needed {
            return Repair::Needed;
        }
        let epoch = inner.epoch.clone();
        inner.held.retain(|held| held.epoch == epoch);
        let spilt = std::mem::take(&mut inner.spilt);
        if inner.give_held(&self.id) == Repair::NotNeeded {
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
}

impl Inner {
    /// The room is at `seq` of `epoch`, whatever was before.
    fn start(&mut self, epoch: &str, seq: u64) {
        let before = std::mem::replace(&mut self.epoch, epoch.into());
        if *before != *epoch {
            self.held.retain(|held| held.epoch != before);
        }
        self.last = seq;
        self.acknowledged = seq;
        self.repairing = false;
        self.resyncing = false;
        self.spilt = false;
        self.recent.clear();
    }

    /// The room has another epoch, in which all that the members have stands as it was.
    fn go_on(&mut self, room: &RoomId, epoch: &str) {
        self.epoch = epoch.into();
        let text = epoch_text(room, epoch);
        let frame = text_frames(std::iter::once(text.as_bytes()));
        for member in self.members.iter().filter(|member| !member.awaits) {
            member.client.outbox.push(frame.clone());
        }
    }

    fn durable(&mut self, room: &RoomId, epoch: &str, chunk: Chunk) -> Repair {
        let repair = if self.repairing {
            Repair::NotNeeded
        } else {
            self.give(room, epoch, &chunk)
        };
        if self.holding || self.repairing || repair == Repair::Needed {
            if self.held_bytes > MAX_HELD_BYTES && !self.holding {
                self.drop_held();
                self.spilt = true;
            }
            self.held_bytes += chunk.frames().len();
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
    fn give_held(&mut self, room: &RoomId) -> Repair {
        let held = std::mem::take(&mut self.held);
        let needed = held
            .iter()
            .any(|held| self.give(room, &held.epoch, &held.events) == Repair::Needed);
        if needed || self.holding {
            self.held = held;
        } else {
            self.held_bytes = 0;
        }
        if needed { Repair::Needed } else { Repair::NotNeeded }
    }

    /// Gives events to the members, each what it lacks of them, and acts on those that are for gateways, too.
    fn give(&mut self, room: &RoomId, epoch: &str, chunk: &Chunk) -> Repair {
        if self.members.is_empty() {
            return Repair::NotNeeded;
        }
        if *self.epoch != *epoch || chunk.first() > self.last + 1 {
            return Repair::Needed;
        }
        let Some(mut given) = chunk.rest(self.last) else {
            return Repair::NotNeeded;
        };
        while let Some((before, notice)) = given.split() {
            let seq = before.last();
            self.hand_out(before);
            self.act(room, seq, notice);
        }
        if !given.is_empty() {
            self.hand_out(given);
        }
        Repair::NotNeeded
    }

    /// Gives events that follow on the last to the members.
    fn hand_out(&mut self, chunk: Chunk) {
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
                member.client.outbox.push(chunk.frames().clone());
            }
            deliveries += chunk.last() - known;
        }
        self.recent.push(chunk, Instant::now());
        metrics().deliveries.increment(deliveries);
    }
}

#[cfg(test)]
mod tests;
