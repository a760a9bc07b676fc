//! Where users are, on its way to a room's members here: merged by user and tick, the latest wins.
//!
//! What has moved goes out with the next tick: to each member one `moves` frame without its own user, to the other nodes
//! one payload. A member that has not yet taken what waits for it is passed over, and later given all that it missed in
//! one frame. The places themselves are written to the store, seldom; what was written is published once more, for
//! those who came in between and were shown the place before. Whatever has not been there for [`KEPT`] is let go, and
//! while nothing is left nothing of this exists.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use roomgate_shared::{
    ids::{RoomId, UserId},
    protocol::{
        JsonText,
        event::{moves_head, push_move},
    },
};
use tokio::time::Instant;

use super::{
    frame::{text_frame, text_head},
    outbox::Outbox,
    room::Member,
};
use crate::{metrics::metrics, store::payload};

/// Members up to which the tick has its usual length; with more it grows as they do, so that what a member is sent in a
/// second stays about the same.
const USUAL_MEMBERS: u64 = 100;
/// Bytes of a frame up to which the tick has its usual length; with more it grows as they do. 100 members with positions
/// of 50 bytes and ids of 20 come to about that.
const USUAL_BYTES: usize = 8 * 1024;
/// Most bytes of the positions in a frame. What does not fit goes with a later one, in turn.
const MAX_BYTES: usize = 64 * 1024;
/// Up to this size a member's own copy of a frame costs less than handing out its parts.
const COPIED: usize = 4 * 1024;
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

/// What has moved, for several members.
pub(super) struct Moved<'a> {
    /// What stands before the positions.
    head: String,
    positions: String,
    /// Where each user's stands, the comma before it included.
    ranges: HashMap<&'a str, (usize, usize)>,
    whole: Option<Bytes>,
    /// `positions`, to be shared.
    shared: Option<Bytes>,
}

/// A frame for one member.
pub(super) enum Frame {
    /// In one piece.
    Whole(Bytes),
    /// In parts that it shares with others.
    Parts([Bytes; 3]),
}

impl Frame {
    /// Queues it: it is there as a whole, or not at all.
    fn push(self, outbox: &Outbox) {
        match self {
            Frame::Whole(frame) => outbox.push(frame),
            Frame::Parts(parts) => outbox.push_parts(parts),
        }
    }
}

impl<'a> Moved<'a> {
    fn new(room: &RoomId) -> Self {
        Self {
            head: moves_head(room),
            positions: String::new(),
            ranges: HashMap::new(),
            whole: None,
            shared: None,
        }
    }

    fn len(&self) -> usize {
        self.positions.len()
    }

    fn push(&mut self, user: &'a str, position: &str) {
        let start = self.positions.len();
        if start > 0 {
            self.positions.push(',');
        }
        push_move(&mut self.positions, user, position);
        self.ranges.insert(user, (start, self.positions.len()));
    }

    /// The frame for a member of this user; `None` if nobody else has moved.
    pub(super) fn frame(&mut self, user: &str) -> Option<Frame> {
        let Some(&(start, end)) = self.ranges.get(user) else {
            if self.ranges.is_empty() {
                return None;
            }
            let whole = self
                .whole
                .get_or_insert_with(|| text_frame(&format!("{}{}}}}}", self.head, self.positions)));
            return Some(Frame::Whole(whole.clone()));
        };
        if self.ranges.len() == 1 {
            return None;
        }
        // The first one has no comma before it, so the one behind it must lose its own.
        let end = if start == 0 { end + 1 } else { end };
        let len = self.head.len() + self.positions.len() - (end - start) + 2;
        if len <= COPIED {
            let (before, after) = (&self.positions[..start], &self.positions[end..]);
            return Some(Frame::Whole(text_frame(&format!(
                "{}{before}{after}}}}}",
                self.head
            ))));
        }
        // With its end, so that none of the parts is empty.
        let shared = self
            .shared
            .get_or_insert_with(|| Bytes::from(format!("{}}}}}", self.positions)));
        let mut head = text_head(len);
        head.extend_from_slice(self.head.as_bytes());
        if start == 0 {
            return Some(Frame::Parts([
                head.into(),
                shared.slice(end..end + 1),
                shared.slice(end + 1..),
            ]));
        }
        Some(Frame::Parts([
            head.into(),
            shared.slice(..start),
            shared.slice(end..),
        ]))
    }
}

/// Positions of a room's members, for one that comes back: all but its own.
pub fn positions_frame(room: &RoomId, positions: &[(String, Bytes)], user: &str) -> Option<Bytes> {
    let mut moved = Moved::new(room);
    for (id, position) in positions.iter().filter(|(id, _)| id != user) {
        moved.push(id, std::str::from_utf8(position).unwrap_or("null"));
    }
    moved.frame(user).and_then(|frame| match frame {
        Frame::Whole(frame) => Some(frame),
        // It is nobody's own.
        Frame::Parts(_) => None,
    })
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
                (moved.frame(member.client.user.as_str()), *up_to)
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
mod tests {
    use super::*;
    use crate::hub::frame::frame_len;

    fn user(id: &str) -> UserId {
        UserId::new(id).unwrap()
    }

    fn place(text: &str) -> JsonText {
        JsonText::from_trusted(text)
    }

    fn text(frame: Option<Bytes>) -> String {
        frame.map_or_else(String::new, |frame| {
            let head = frame.len() - frame_payload(&frame);
            String::from_utf8(frame[head..].to_vec()).unwrap()
        })
    }

    /// Length of the payload of the one frame that `bytes` are.
    fn frame_payload(bytes: &[u8]) -> usize {
        assert_eq!(frame_len(bytes), bytes.len(), "one whole frame");
        let head = match bytes[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        bytes.len() - head
    }

    fn in_one(frame: Option<Frame>) -> Option<Bytes> {
        frame.map(|frame| match frame {
            Frame::Whole(frame) => frame,
            Frame::Parts(parts) => parts.concat().into(),
        })
    }

    #[test]
    fn a_frame_leaves_out_its_receiver_wherever_it_stands() {
        let room = RoomId::new("r").unwrap();
        let positions = ["a", "b", "c"].map(|id| (id.to_owned(), Bytes::from(format!("{{\"{id}\":1}}"))));
        for (receiver, left) in [
            ("a", r#""b":{"b":1},"c":{"c":1}"#),
            ("b", r#""a":{"a":1},"c":{"c":1}"#),
            ("c", r#""a":{"a":1},"b":{"b":1}"#),
            ("d", r#""a":{"a":1},"b":{"b":1},"c":{"c":1}"#),
        ] {
            let expected = format!(r#"{{"type":"moves","room":"r","data":{{{left}}}}}"#);
            assert_eq!(text(positions_frame(&room, &positions, receiver)), expected);
            let mut moved = Moved::new(&room);
            for (id, position) in &positions {
                moved.push(id, std::str::from_utf8(position).unwrap());
            }
            assert_eq!(text(in_one(moved.frame(receiver))), expected);
        }
        // Too large to be copied for each.
        let large: Vec<(String, String)> = ["a", "b", "c"]
            .map(|id| (id.to_owned(), format!("{{\"{id}\":\"{}\"}}", "x".repeat(COPIED))))
            .into();
        for receiver in ["a", "b", "c", "d"] {
            let mut moved = Moved::new(&room);
            large.iter().for_each(|(id, position)| moved.push(id, position));
            let left = large.iter().filter(|(id, _)| id != receiver);
            let left: Vec<String> = left
                .map(|(id, position)| format!("\"{id}\":{position}"))
                .collect();
            let expected = format!(r#"{{"type":"moves","room":"r","data":{{{}}}}}"#, left.join(","));
            let frame = moved.frame(receiver);
            assert_eq!(matches!(frame, Some(Frame::Whole(_))), receiver == "d");
            assert_eq!(text(in_one(frame)), expected);
        }
        assert_eq!(positions_frame(&room, &positions[..1], "a"), None);
        assert_eq!(positions_frame(&room, &[], "a"), None);
    }

    fn heard<'a>(instance: &'a str, members: u64, moves: &[(&'a str, &'a str)]) -> Published<'a> {
        Published {
            instance,
            members,
            moves: moves
                .iter()
                .map(|(user, text)| (*user, text.as_bytes()))
                .collect(),
            again: Vec::new(),
        }
    }

    fn told_again<'a>(instance: &'a str, user: &'a str, text: &'a str) -> Published<'a> {
        Published {
            again: vec![(user, text.as_bytes())],
            ..heard(instance, 1, &[])
        }
    }

    fn at<'a>(moves: &'a Moves, id: &str) -> (&'a str, u64) {
        let place = &moves.places[&user(id)];
        (place.position.as_str(), place.tick)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_better_is_not_undone() {
        let mut moves = Moves::new();
        // Yet to be told by this node: it comes later on the channel than what is heard now.
        moves.own(&user("a"), place("2"), 1);
        moves.published(&heard("gw-2", 1, &[("a", "1")]), false, 1);
        moves.published(&told_again("gw-2", "a", "1"), false, 1);
        assert_eq!(at(&moves, "a"), ("2", 1));
        moves.publish("gw-1", 1);
        // What comes back of it, also late, is nothing new.
        moves.published(&heard("gw-1", 1, &[("a", "0")]), true, 2);
        assert_eq!(at(&moves, "a"), ("2", 1));
        // Told behind it by another node: that holds, whatever of this node's comes before it...
        moves.published(&heard("gw-2", 1, &[("a", "3")]), false, 2);
        assert_eq!(at(&moves, "a"), ("3", 2));
        assert!(
            moves.write(Instant::now()).is_empty(),
            "it is the other's to write"
        );
        // ...and what this node told behind that holds again.
        moves.published(&heard("gw-1", 1, &[("a", "2")]), true, 3);
        assert_eq!(at(&moves, "a"), ("2", 3));
        assert_eq!(moves.write(Instant::now()).len(), 1, "it is this node's to write");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_again_is_for_those_who_do_not_know() {
        let mut moves = Moves::new();
        moves.published(&told_again("gw-2", "a", "1"), false, 1);
        assert_eq!(at(&moves, "a"), ("1", 1));
        moves.published(&told_again("gw-2", "a", "1"), false, 2);
        assert_eq!(at(&moves, "a"), ("1", 1));
        // The move itself was lost on the way.
        moves.published(&told_again("gw-2", "a", "2"), false, 3);
        assert_eq!(at(&moves, "a"), ("2", 3));
        moves.published(&heard("gw-3", 1, &[("a", "3")]), false, 4);
        moves.published(&told_again("gw-2", "a", "2"), false, 5);
        assert_eq!(at(&moves, "a"), ("3", 4));
    }

    #[tokio::test(start_paused = true)]
    async fn the_tick_grows_with_the_members_of_all_nodes() {
        let (mut moves, usual) = (Moves::new(), Duration::from_millis(50));
        assert_eq!(moves.width(usual, 100, 0), usual);
        assert_eq!(moves.width(usual, 400, 0), usual * 4);
        assert_eq!(moves.width(usual, 100, 3 * USUAL_BYTES), usual * 3);
        moves.published(&heard("gw-2", 60, &[]), false, 1);
        moves.published(&heard("gw-3", 140, &[]), false, 1);
        moves.published(&heard("gw-3", 150, &[]), false, 2);
        assert_eq!(moves.width(usual, 90, 0), usual * 3);
        tokio::time::advance(HEARD).await;
        assert_eq!(moves.width(usual, 90, 0), usual);
        assert_eq!(moves.width(usual, 100_000, 0), LONGEST);
        assert_eq!(moves.width(LONGEST * 2, 1, 0), LONGEST * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_is_bounded_and_everyone_has_a_turn() {
        let (room, mut moves) = (RoomId::new("r").unwrap(), Moves::new());
        let large = place(&format!("{{\"p\":\"{}\"}}", "x".repeat(500)));
        let users: Vec<UserId> = (0..400).map(|n| user(&format!("u{n}"))).collect();
        let mut sent: HashMap<String, u64> = HashMap::new();
        for now in 1..=20 {
            users.iter().for_each(|user| moves.own(user, large.clone(), now));
            assert!(moves.settle(now) > 3 * MAX_BYTES);
            let (moved, up_to) = moves.since(&room, now - 1, now);
            assert_eq!(up_to, now);
            assert!(moved.len() <= MAX_BYTES, "{}", moved.len());
            for user in moved.ranges.keys() {
                *sent.entry((*user).to_owned()).or_default() += 1;
            }
        }
        assert_eq!(sent.len(), 400);
        let (least, most) = (sent.values().min().unwrap(), sent.values().max().unwrap());
        assert!(most - least <= 2, "{least} to {most}");
        // One that has missed all that gets it in frames of the same size.
        let (mut served, mut frames, mut got) = (0, 0, HashMap::new());
        while served < 20 {
            let (moved, up_to) = moves.since(&room, served, 20);
            assert!(moved.len() <= 2 * MAX_BYTES && up_to > served);
            moved
                .ranges
                .keys()
                .for_each(|user| *got.entry((*user).to_owned()).or_insert(0) += 1);
            (served, frames) = (up_to, frames + 1);
        }
        assert!(frames <= 5 && got.values().all(|times| *times == 1), "{frames}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_behind_a_crowd_that_does_not_rest_catches_up() {
        let (room, mut moves) = (RoomId::new("r").unwrap(), Moves::new());
        let large = place(&format!("{{\"p\":\"{}\"}}", "x".repeat(500)));
        let users: Vec<UserId> = (0..120).map(|n| user(&format!("u{n}"))).collect();
        let (mut served, mut behind) = (0, Vec::new());
        for now in 1..=12 {
            // They fill each tick, and somebody moves once and rests.
            users.iter().for_each(|user| moves.own(user, large.clone(), now));
            moves.own(&user(&format!("rests{now}")), large.clone(), now);
            moves.settle(now);
            // One that has missed six ticks.
            if now > 6 {
                served = moves.since(&room, served, now).1;
                behind.push(now - served);
            }
        }
        assert_eq!(behind.last(), Some(&0), "{behind:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_written_seldom_and_published_once_more() {
        let mut moves = Moves::new();
        moves.own(&user("a"), place("1"), 1);
        assert!(moves.publish("i", 1).is_some());
        assert!(moves.publish("i", 1).is_none());
        let first = moves.write(Instant::now());
        assert_eq!(first.len(), 1);
        // Moved again while the first is being written.
        moves.own(&user("a"), place("2"), 2);
        moves.wrote(&first, true);
        assert!(moves.write(Instant::now()).is_empty());
        assert!(moves.publish("i", 1).is_some());
        tokio::time::advance(WRITE).await;
        let second = moves.write(Instant::now());
        assert_eq!(second, [(user("a"), place("2"))]);
        moves.wrote(&second, false);
        tokio::time::advance(WRITE).await;
        assert_eq!(moves.write(Instant::now()), second, "what failed is due again");
        moves.wrote(&second, true);
        let once_more = moves.publish("i", 1).unwrap();
        assert!(matches!(
            payload::parse(&once_more),
            Some(payload::Payload::Moves { moves, again, .. }) if moves.is_empty() && again.len() == 1
        ));
        // A write that took longer than the pause between two: what it says is not said of the later one.
        moves.own(&user("a"), place("3"), 2);
        tokio::time::advance(WRITE).await;
        let slow = moves.write(Instant::now());
        moves.own(&user("a"), place("4"), 2);
        tokio::time::advance(WRITE).await;
        let later = moves.write(Instant::now());
        moves.wrote(&slow, true);
        moves.wrote(&later, false);
        tokio::time::advance(WRITE).await;
        assert_eq!(moves.write(Instant::now()), later);
        moves.wrote(&later, true);
        moves.publish("i", 1).unwrap();
        tokio::time::advance(KEPT).await;
        moves.let_go(1, Instant::now());
        assert!(!moves.is_empty(), "somebody has not got it yet");
        moves.let_go(2, Instant::now());
        assert!(moves.is_empty());
    }
}
