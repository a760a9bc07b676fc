//! Where users are, on its way to a room's members here: merged by user and tick, the latest wins.
//!
//! What has moved goes out with the next tick: to each member one `moves` frame without its own user, to the other nodes
//! one payload. A member that has not yet taken what waits for it is passed over, and later given all that it missed in
//! one frame. The places themselves are written to the store, seldom; what was written is published once more, for
//! those who came in between and were shown the place before. Whatever has not been there for [`KEPT`] is let go, and
//! while nothing is left nothing of this exists.

mod frames;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use roomgate_shared::{
    ids::{RoomId, UserId},
    protocol::JsonText,
};
use tokio::time::Instant;

use self::frames::Moved;
pub use self::frames::positions_frame;
use super::room::Member;
use crate::{metrics::metrics, store::payload};

/// Members up to which the tick has its usual length; with more it grows as they do, so that what a member is sent in a
/// second stays about the same.
const USUAL_MEMBERS: u64 = 100;
/// Bytes of a frame up to which the tick has its usual length; with more it grows as they do. 100 members with positions
/// of 50 bytes and ids of 20 come to about that.
const USUAL_BYTES: usize = 8 * 1024;
/// Most bytes of the positions in a frame. What does not fit goes with a later one, in turn.
const MAX_BYTES: usize = 64 * 1024;
/// The longest tick.
const LONGEST: Duration = Duration::from_secs(1);
/// Least time between two writes of a room's places by this node.
const WRITE: Duration = Duration::from_millis(500);
/// How long a place is kept after it has changed: until it stands in every picture that is made from now on.
const KEPT: Duration = Duration::from_millis(1_500);
/// How long another node's number of members counts after it was last told.
const HEARD: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Moves {
    places: HashMap<UserId, Place>,
    written: Option<Instant>,
    /// Members on other nodes, as those have told.
    others: Vec<(Arc<str>, u64, Instant)>,
}

/// What a node has published of moves; see [`payload::Payload::Moves`].
pub(super) struct Published<'a> {
    pub(super) instance: &'a str,
    pub(super) members: u64,
    pub(super) moves: Vec<(&'a str, &'a [u8])>,
    pub(super) again: Vec<(&'a str, &'a [u8])>,
}

/// Where a user is.
struct Place {
    position: JsonText,
    /// With which tick it goes to the members.
    tick: u64,
    /// With which tick the user's place last went to them; 0 for none.
    sent: u64,
    changed: Instant,
    source: Source,
}

/// Where it was told.
enum Source {
    /// Here, so it is this node that tells others and the store.
    Here { tell: Tell, write: Writing },
    /// On the node of this instance.
    Node(Arc<str>),
}

/// What other nodes have yet to be told.
#[derive(PartialEq, Eq)]
enum Tell {
    Moved,
    Again,
    Nothing,
}

#[derive(PartialEq, Eq)]
enum Writing {
    Due,
    UnderWay,
    Done,
}

/// What is to be done after a tick.
#[derive(Default)]
pub struct Ticked {
    /// For the other nodes.
    pub publish: Option<Bytes>,
    /// For the store; [`LocalRoom::written`](super::LocalRoom::written) tells how it went. Empty for nothing.
    pub write: Vec<(UserId, JsonText)>,
    /// When to tick again; `None` if nothing is left.
    pub wait: Option<Duration>,
}

impl Moves {
    pub(super) fn new() -> Self {
        Self {
            places: HashMap::new(),
            written: None,
            others: Vec::new(),
        }
    }

    /// A user here has moved; `tick` is the next one.
    pub(super) fn own(&mut self, user: &UserId, position: JsonText, tick: u64) {
        let source = Source::Here {
            tell: Tell::Moved,
            write: Writing::Due,
        };
        self.put(user.clone(), position, tick, source);
    }

    fn put(&mut self, user: UserId, position: JsonText, tick: u64, source: Source) {
        let place = Place {
            position,
            tick,
            sent: self.places.get(&user).map_or(0, |place| place.sent),
            changed: Instant::now(),
            source,
        };
        self.places.insert(user, place);
    }

    /// Settles what goes out with the tick `now`: no more than a frame holds, those first whose turn was longest ago. How
    /// many bytes there would have been.
    pub(super) fn settle(&mut self, now: u64) -> usize {
        let mut due: Vec<(usize, &mut Place)> = Vec::new();
        for (user, place) in &mut self.places {
            if place.tick == now {
                due.push((bytes_of(user, &place.position), place));
            }
        }
        let all = due.iter().map(|(bytes, _)| bytes).sum();
        if all > MAX_BYTES {
            due.sort_unstable_by_key(|(_, place)| place.sent);
        }
        let mut left = MAX_BYTES;
        for (bytes, place) in due {
            if bytes <= left {
                left -= bytes;
                place.sent = now;
            } else {
                left = 0;
                place.tick = now + 1;
            }
        }
        all
    }

    /// What a node has published, this one included (`own`), in the order of the channel. A user may move on two nodes at
    /// once: whatever is last on the channel holds in the end, on every node.
    pub(super) fn published(&mut self, payload: &Published<'_>, own: bool, tick: u64) {
        let now = Instant::now();
        let instance: Arc<str> = payload.instance.into();
        if !own {
            self.others
                .retain(|(name, _, at)| *name != instance && now - *at < HEARD);
            self.others.push((instance.clone(), payload.members, now));
        }
        let moved = payload.moves.iter().map(|each| (each, false));
        for (&(user, position), again) in moved.chain(payload.again.iter().map(|each| (each, true))) {
            let (Ok(user), Ok(position)) = (UserId::new(user), std::str::from_utf8(position)) else {
                continue;
            };
            let passed_over = match self.places.get(&user) {
                None => own,
                Some(place) if place.position.as_str() == position => true,
                Some(place) => match &place.source {
                    // What this node has yet to tell comes later on the channel; what it has told has been told there.
                    Source::Here { tell, .. } => own || again || *tell == Tell::Moved,
                    Source::Node(from) => again && *from != instance,
                },
            };
            if !passed_over {
                let source = if own {
                    // Another node's came in between, and is not the last one: this node's is, and is to be written.
                    Source::Here {
                        tell: Tell::Nothing,
                        write: Writing::Due,
                    }
                } else {
                    Source::Node(instance.clone())
                };
                self.put(user, JsonText::from_trusted(position), tick, source);
            }
        }
    }

    /// A user has left the room.
    pub(super) fn left(&mut self, user: &str) {
        self.places.retain(|known, _| known.as_str() != user);
    }

    /// What others have not been told of those who moved on this node.
    pub(super) fn publish(&mut self, instance: &str, members: usize) -> Option<Bytes> {
        let mut moved = Vec::new();
        for (user, place) in &mut self.places {
            if let Source::Here { tell, .. } = &mut place.source
                && *tell != Tell::Nothing
            {
                let again = std::mem::replace(tell, Tell::Nothing) == Tell::Again;
                moved.push((user.as_str(), place.position.as_str().as_bytes(), again));
            }
        }
        (!moved.is_empty()).then(|| payload::moves(instance, members, moved))
    }

    /// What is to be written to the store, if it is time.
    pub(super) fn write(&mut self, now: Instant) -> Vec<(UserId, JsonText)> {
        if self.written.is_some_and(|at| now - at < WRITE) {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (user, place) in &mut self.places {
            if let Source::Here { write, .. } = &mut place.source
                && *write == Writing::Due
            {
                *write = Writing::UnderWay;
                due.push((user.clone(), place.position.clone()));
            }
        }
        if !due.is_empty() {
            self.written = Some(now);
        }
        due
    }

    /// The store has taken these, or not.
    pub(super) fn wrote(&mut self, users: &[(UserId, JsonText)], taken: bool) {
        for (user, position) in users {
            let Some(place) = self.places.get_mut(user) else {
                continue;
            };
            // Else it has moved again meanwhile, and the next write is what counts.
            if let Source::Here { tell, write } = &mut place.source
                && *write == Writing::UnderWay
                && place.position == *position
            {
                *write = if taken { Writing::Done } else { Writing::Due };
                if taken && *tell == Tell::Nothing {
                    *tell = Tell::Again;
                }
            }
        }
    }

    /// Lets go of what nobody needs any more: `served` is the last tick that every member has got.
    pub(super) fn let_go(&mut self, served: u64, now: Instant) {
        self.places.retain(|_, place| {
            let told = match &place.source {
                Source::Here { tell, write } => *tell == Tell::Nothing && *write == Writing::Done,
                Source::Node(_) => true,
            };
            !(told && place.tick <= served && now - place.changed >= KEPT)
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The length of a tick in a room with `members` connections here, of whose places `bytes` had to go out.
    pub(super) fn width(&self, usual: Duration, members: usize, bytes: usize) -> Duration {
        let now = Instant::now();
        let others = self.others.iter().filter(|(_, _, at)| now - *at < HEARD);
        let members = members as u64 + others.map(|(_, members, _)| members).sum::<u64>();
        let (by_members, by_bytes) = (
            members as f64 / USUAL_MEMBERS as f64,
            bytes as f64 / USUAL_BYTES as f64,
        );
        let wide = usual.mul_f64(by_members.max(by_bytes));
        // One that is longer than the longest was asked for.
        wide.min(LONGEST).max(usual)
    }

    /// What has moved after the tick `served`, and up to which tick: `now`, or as many before it as fit into a frame.
    pub(super) fn since<'a>(&'a self, room: &RoomId, served: u64, now: u64) -> (Moved<'a>, u64) {
        let ticks = served + 1..=now;
        let mut places: Vec<(&UserId, &Place)> = self
            .places
            .iter()
            .filter(|(_, place)| ticks.contains(&place.tick))
            .collect();
        places.sort_unstable_by_key(|(_, place)| place.tick);
        let (mut moved, mut up_to) = (Moved::new(room), now);
        for (at, (user, place)) in places.iter().enumerate() {
            // Two ticks always fit, so that whoever is behind gains one with each.
            let bytes_of_tick = || -> usize {
                let tick = places[at..]
                    .iter()
                    .take_while(|(_, other)| other.tick == place.tick);
                tick.map(|(user, other)| bytes_of(user, &other.position)).sum()
            };
            let begins = at > 0 && places[at - 1].1.tick < place.tick;
            if begins && moved.len() + bytes_of_tick() > 2 * MAX_BYTES {
                up_to = places[at - 1].1.tick;
                break;
            }
            moved.push(user.as_str(), place.position.as_str());
        }
        (moved, up_to)
    }
}

/// What a user's place takes of a frame, about.
fn bytes_of(user: &UserId, position: &JsonText) -> usize {
    user.as_str().len() + position.len() + 4
}

/// How far all members have got.
pub(super) struct Served {
    /// The last tick whose places all have.
    pub(super) tick: u64,
    /// All have the occupancy that was told last.
    pub(super) told: bool,
}

/// Gives each member what has moved since it was last served, up to the tick `now`.
pub(super) fn serve(
    moves: Option<&Moves>,
    occupancy: Option<&Told>,
    room: &RoomId,
    members: &mut [Member],
    now: u64,
) -> Served {
    // By the tick up to which members are served: nearly all are up to the same.
    let mut built: HashMap<u64, (Moved<'_>, u64)> = HashMap::new();
    let mut all = Served {
        tick: now,
        told: true,
    };
    let mut sent = 0;
    for member in members.iter_mut().filter(|member| !member.awaits) {
        if member.served == now {
            continue;
        }
        let outbox = &member.client.outbox;
        if outbox.lags() {
            all.tick = all.tick.min(member.served);
            all.told &= occupancy.is_none_or(|told| told.tick <= member.told);
            continue;
        }
        let (frame, up_to) = match moves {
            Some(moves) => {
                let (moved, up_to) = built
                    .entry(member.served)
                    .or_insert_with(|| moves.since(room, member.served, now));
                (moved.frame(member.client.user().as_str()), *up_to)
            }
            None => (None, now),
        };
        // Not to be dropped: it counts as served. The outbox has just been found to have room.
        if let Some(frame) = frame {
            frame.push(outbox);
            sent += 1;
        }
        if let Some(told) = occupancy.filter(|told| told.tick > member.told) {
            outbox.push(told.frame.clone());
            member.told = told.tick;
            sent += 1;
        }
        member.served = up_to;
        all.tick = all.tick.min(up_to);
    }
    metrics().moves_frames.increment(sent);
    all
}

/// How many members a room that counts has, as its members here are told.
pub(super) struct Told {
    /// With which tick.
    pub(super) tick: u64,
    pub(super) frame: Bytes,
}

#[cfg(test)]
mod tests;
