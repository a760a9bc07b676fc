use super::{
    frames::{COPIED, Frame},
    *,
};
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
