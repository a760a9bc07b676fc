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

use super::{frame::text_frame, room::Member};
use crate::{metrics::metrics, store::payload};

/// Members up to which the tick has its usual length; with more it grows as they do, so that what a member is sent in a
/// second stays about the same.
const USUAL_MEMBERS: u64 = 100;
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
    changed: Instant,
    from: From,
}

/// Where it was told.
enum From {
    /// Here, so it is this node that tells others and the store.
    Here { tell: Tell, write: Write },
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
enum Write {
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
        let from = From::Here {
            tell: Tell::Moved,
            write: Write::Due,
        };
        self.put(user.clone(), position, tick, from);
    }

    fn put(&mut self, user: UserId, position: JsonText, tick: u64, from: From) {
        let place = Place {
            position,
            tick,
            changed: Instant::now(),
            from,
        };
        self.places.insert(user, place);
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
                Some(place) => match &place.from {
                    // What this node has yet to tell comes later on the channel; what it has told has been told there.
                    From::Here { tell, .. } => own || again || *tell == Tell::Moved,
                    From::Node(from) => again && *from != instance,
                },
            };
            if !passed_over {
                self.put(
                    user,
                    JsonText::from_trusted(position),
                    tick,
                    From::Node(instance.clone()),
                );
            }
        }
    }

    /// What others have not been told of those who moved on this node.
    pub(super) fn publish(&mut self, instance: &str, members: usize) -> Option<Bytes> {
        let mut moved = Vec::new();
        for (user, place) in &mut self.places {
            if let From::Here { tell, .. } = &mut place.from
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
            if let From::Here { write, .. } = &mut place.from
                && *write == Write::Due
            {
                *write = Write::UnderWay;
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
        for (user, _) in users {
            let Some(From::Here { tell, write }) = self.places.get_mut(user).map(|place| &mut place.from)
            else {
                continue;
            };
            // Else it has moved again meanwhile.
            if *write == Write::UnderWay {
                *write = if taken { Write::Done } else { Write::Due };
                if taken && *tell == Tell::Nothing {
                    *tell = Tell::Again;
                }
            }
        }
    }

    /// Lets go of what nobody needs any more: `served` is the last tick that every member has got.
    pub(super) fn let_go(&mut self, served: u64, now: Instant) {
        self.places.retain(|_, place| {
            let told = match &place.from {
                From::Here { tell, write } => *tell == Tell::Nothing && *write == Write::Done,
                From::Node(_) => true,
            };
            !(told && place.tick <= served && now - place.changed >= KEPT)
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The length of a tick in a room with `members` connections here.
    pub(super) fn width(&self, usual: Duration, members: usize) -> Duration {
        let now = Instant::now();
        let others = self.others.iter().filter(|(_, _, at)| now - *at < HEARD);
        let members = members as u64 + others.map(|(_, members, _)| members).sum::<u64>();
        let wide = usual.mul_f64(members as f64 / USUAL_MEMBERS as f64);
        // One that is longer than the longest was asked for.
        wide.min(LONGEST).max(usual)
    }

    /// What has moved after the tick `served`, as a frame that leaves out any one user.
    pub(super) fn since<'a>(&'a self, room: &RoomId, served: u64) -> Moved<'a> {
        let mut moved = Moved {
            text: moves_head(room),
            head: 0,
            ranges: HashMap::new(),
            whole: None,
        };
        moved.head = moved.text.len();
        for (user, place) in self.places.iter().filter(|(_, place)| place.tick > served) {
            moved.push(user.as_str(), place.position.as_str());
        }
        moved
    }
}

/// What has moved, for several members.
pub(super) struct Moved<'a> {
    /// The frame's text without its end.
    text: String,
    /// Where the first position begins.
    head: usize,
    /// Where each user's stands, the comma before it included.
    ranges: HashMap<&'a str, (usize, usize)>,
    whole: Option<Bytes>,
}

impl<'a> Moved<'a> {
    fn push(&mut self, user: &'a str, position: &str) {
        let start = self.text.len();
        if start > self.head {
            self.text.push(',');
        }
        push_move(&mut self.text, user, position);
        self.ranges.insert(user, (start, self.text.len()));
    }

    /// The frame for a member of this user; `None` if nobody else has moved.
    pub(super) fn frame(&mut self, user: &str) -> Option<Bytes> {
        match self.ranges.get(user) {
            None if self.ranges.is_empty() => None,
            None => {
                let whole = self
                    .whole
                    .get_or_insert_with(|| text_frame(&format!("{}}}}}", self.text)));
                Some(whole.clone())
            }
            Some(_) if self.ranges.len() == 1 => None,
            Some(&(start, end)) => {
                let mut text = String::with_capacity(self.text.len() + 2);
                text.push_str(&self.text[..start]);
                // The first one has no comma before it, so the one behind it must lose its own.
                let rest = &self.text[end..];
                text.push_str(if start == self.head {
                    rest.strip_prefix(',').unwrap_or(rest)
                } else {
                    rest
                });
                text.push_str("}}");
                Some(text_frame(&text))
            }
        }
    }
}

/// Positions of a room's members, for one that comes back: all but its own.
pub fn positions_frame(room: &RoomId, positions: &[(String, Bytes)], user: &str) -> Option<Bytes> {
    let mut moved = Moved {
        text: moves_head(room),
        head: 0,
        ranges: HashMap::new(),
        whole: None,
    };
    moved.head = moved.text.len();
    for (id, position) in positions.iter().filter(|(id, _)| id != user) {
        moved.push(id, std::str::from_utf8(position).unwrap_or("null"));
    }
    moved.frame(user)
}

/// Gives each member what has moved since it was last served, up to the tick `now`. The last tick that all have got.
pub(super) fn serve(
    moves: Option<&Moves>,
    occupancy: Option<&Told>,
    room: &RoomId,
    members: &mut [Member],
    now: u64,
) -> u64 {
    // Most are served up to the tick before.
    let mut usual = moves.map(|moves| moves.since(room, now - 1));
    let (mut all, mut sent) = (now, 0);
    for member in members.iter_mut().filter(|member| !member.awaits) {
        if member.served == now {
            continue;
        }
        let outbox = &member.client.outbox;
        if outbox.lags() {
            all = all.min(member.served);
            continue;
        }
        let user = member.client.user.as_str();
        let frame = if member.served + 1 == now {
            usual.as_mut().and_then(|usual| usual.frame(user))
        } else {
            moves.and_then(|moves| moves.since(room, member.served).frame(user))
        };
        if let Some(frame) = frame {
            outbox.push_ephemeral(frame);
            sent += 1;
        }
        if let Some(told) = occupancy.filter(|told| told.tick > member.served) {
            outbox.push_ephemeral(told.frame.clone());
            sent += 1;
        }
        member.served = now;
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

    fn user(id: &str) -> UserId {
        UserId::new(id).unwrap()
    }

    fn place(text: &str) -> JsonText {
        JsonText::from_trusted(text)
    }

    fn text(frame: Option<Bytes>) -> String {
        frame.map_or_else(String::new, |frame| {
            String::from_utf8(frame[2..].to_vec()).unwrap()
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
            let mut moved = Moved {
                text: moves_head(&room),
                head: moves_head(&room).len(),
                ranges: HashMap::new(),
                whole: None,
            };
            for (id, position) in &positions {
                moved.push(id, std::str::from_utf8(position).unwrap());
            }
            assert_eq!(text(moved.frame(receiver)), expected);
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
        assert_eq!(moves.width(usual, 100), usual);
        assert_eq!(moves.width(usual, 400), usual * 4);
        moves.published(&heard("gw-2", 60, &[]), false, 1);
        moves.published(&heard("gw-3", 140, &[]), false, 1);
        moves.published(&heard("gw-3", 150, &[]), false, 2);
        assert_eq!(moves.width(usual, 90), usual * 3);
        tokio::time::advance(HEARD).await;
        assert_eq!(moves.width(usual, 90), usual);
        assert_eq!(moves.width(usual, 100_000), LONGEST);
        assert_eq!(moves.width(LONGEST * 2, 1), LONGEST * 2);
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
        tokio::time::advance(KEPT).await;
        moves.let_go(1, Instant::now());
        assert!(!moves.is_empty(), "somebody has not got it yet");
        moves.let_go(2, Instant::now());
        assert!(moves.is_empty());
    }
}
