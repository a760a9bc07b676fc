use std::collections::VecDeque;

use proptest::prelude::*;
use roomgate_shared::ids::{ConnectionId, UserId};

use super::*;
use crate::hub::frame::frame_len;

const EPOCH: &str = "e1";

fn client(number: u64) -> Arc<Client> {
    let user = UserId::new(format!("u{number}")).unwrap();
    Arc::new(Client::new(
        ConnectionId::new(7, number),
        user,
        "n".into(),
        usize::MAX / 4,
    ))
}

fn room() -> LocalRoom {
    LocalRoom::new(RoomId::new("r").unwrap(), Arc::default())
}

fn payload(epoch: &str, seqs: std::ops::RangeInclusive<u64>) -> Bytes {
    let events: Vec<String> = seqs.clone().map(|seq| seq.to_string()).collect();
    payload::durable(epoch, *seqs.start(), events.iter().map(String::as_bytes))
}

fn texts(seqs: std::ops::RangeInclusive<u64>) -> Vec<Bytes> {
    seqs.map(|seq| Bytes::from(seq.to_string())).collect()
}

/// What a client has been given, frame by frame.
fn given(client: &Client) -> Vec<String> {
    let mut pieces = VecDeque::new();
    client.outbox.take(&mut pieces, None);
    let mut frames = Vec::new();
    for piece in pieces {
        let mut rest = &piece.frames[..];
        while !rest.is_empty() {
            let len = frame_len(rest);
            frames.push(String::from_utf8(rest[2..len].to_vec()).unwrap());
            rest = &rest[len..];
        }
    }
    frames
}

fn numbers(seqs: std::ops::RangeInclusive<u64>) -> Vec<String> {
    seqs.map(|seq| seq.to_string()).collect()
}

fn enter(room: &LocalRoom, client: &Arc<Client>, seq: u64) -> Repair {
    enter_with(room, client, EPOCH, seq, "", &[])
}

fn enter_with(
    room: &LocalRoom,
    client: &Arc<Client>,
    epoch: &str,
    seq: u64,
    answer: &str,
    missed: &[Bytes],
) -> Repair {
    let answer = if answer.is_empty() {
        Bytes::new()
    } else {
        text_frames([answer.as_bytes()].into_iter())
    };
    let entry = Entry {
        epoch,
        seq,
        answer,
        missed,
        ..Entry::default()
    };
    room.enter(client.clone(), room.membership(client.id), entry)
}

impl LocalRoom {
    /// A connection's place in the room, or a new one.
    fn membership(&self, connection: ConnectionId) -> Arc<Membership> {
        let inner = self.inner.lock();
        let member = inner.members.iter().find(|member| member.client.id == connection);
        member.map_or_else(Arc::default, |member| member.membership.clone())
    }
}

fn leave(room: &LocalRoom, client: &Client) -> bool {
    room.leave(&room.membership(client.id))
}

#[test]
fn a_member_gets_each_event_once_in_order() {
    let (room, a) = (room(), client(1));
    enter(&room, &a, 3);
    for seqs in [2..=3, 4..=5, 4..=5, 5..=7, 8..=8] {
        assert_eq!(room.deliver(&payload(EPOCH, seqs)), Repair::NotNeeded);
    }
    assert_eq!(given(&a), numbers(4..=8));
}

#[test]
fn what_arrives_while_the_picture_is_made_follows_the_answer() {
    let (room, a, b) = (room(), client(1), client(2));
    enter(&room, &a, 0);
    room.hold();
    room.deliver(&payload(EPOCH, 1..=2));
    room.deliver(&payload(EPOCH, 3..=4));
    enter_with(&room, &b, EPOCH, 3, "ack", &[]);
    assert_eq!(room.release(), Repair::NotNeeded);
    room.deliver(&payload(EPOCH, 5..=5));
    assert_eq!(given(&b), ["ack", "4", "5"]);
    assert_eq!(given(&a), numbers(1..=5));
}

#[test]
fn a_picture_ahead_of_the_channel_is_not_followed_by_what_it_holds() {
    let (room, a, b) = (room(), client(1), client(2));
    enter(&room, &a, 0);
    room.hold();
    enter(&room, &b, 3);
    room.release();
    room.deliver(&payload(EPOCH, 1..=2));
    room.deliver(&payload(EPOCH, 3..=4));
    assert_eq!(given(&b), ["4"]);
    assert_eq!(given(&a), numbers(1..=4));
}

#[test]
fn the_first_member_gets_what_was_held() {
    let (room, a) = (room(), client(1));
    room.hold();
    room.deliver(&payload(EPOCH, 5..=6));
    enter(&room, &a, 5);
    assert_eq!(room.release(), Repair::NotNeeded);
    assert_eq!(given(&a), ["6"]);
}

#[test]
fn resumed_events_come_between_the_answer_and_live_ones() {
    let (room, a) = (room(), client(1));
    room.hold();
    room.deliver(&payload(EPOCH, 8..=9));
    enter_with(&room, &a, EPOCH, 8, "ack", &texts(6..=8));
    room.release();
    assert_eq!(given(&a), ["ack", "6", "7", "8", "9"]);
}

#[test]
fn a_hole_stops_the_flow_until_it_is_filled() {
    let (room, a) = (room(), client(1));
    enter(&room, &a, 0);
    room.deliver(&payload(EPOCH, 1..=1));
    assert_eq!(room.deliver(&payload(EPOCH, 3..=3)), Repair::Needed);
    assert!(room.begin_repair() && !room.begin_repair());
    room.deliver(&payload(EPOCH, 4..=4));
    assert_eq!(given(&a), ["1"]);
    let since = room.since().unwrap();
    assert_eq!(since.seq, 1);
    assert_eq!(room.repair(&since, EPOCH, &texts(2..=3)), Repair::NotNeeded);
    room.deliver(&payload(EPOCH, 5..=5));
    assert_eq!(given(&a), numbers(2..=5));
}

#[test]
fn a_repair_that_brings_too_little_is_asked_for_again() {
    let (room, a) = (room(), client(1));
    enter(&room, &a, 0);
    room.deliver(&payload(EPOCH, 4..=4));
    room.begin_repair();
    let since = room.since().unwrap();
    assert_eq!(room.repair(&since, EPOCH, &texts(1..=2)), Repair::Needed);
    room.begin_repair();
    let since = room.since().unwrap();
    assert_eq!(room.repair(&since, EPOCH, &texts(3..=3)), Repair::NotNeeded);
    assert_eq!(given(&a), numbers(1..=4));
}

#[test]
fn another_epoch_is_never_mixed_in() {
    let (room, a, b) = (room(), client(1), client(2));
    enter(&room, &a, 5);
    assert_eq!(room.deliver(&payload("e2", 6..=6)), Repair::Needed);
    assert_eq!(enter_with(&room, &b, "e2", 6, "", &[]), Repair::Needed);
    assert_eq!(given(&a), Vec::<String>::new());
    assert_eq!(room.begin_resync().len(), 2);
    room.hold();
    room.deliver(&payload("e2", 8..=8));
    for member in [&a, &b] {
        enter_with(&room, member, "e2", 7, "resync", &[]);
    }
    assert_eq!(room.release(), Repair::NotNeeded);
    assert_eq!(given(&a), ["resync", "8"]);
    assert_eq!(given(&b), ["resync", "8"]);
}

#[test]
fn an_epoch_that_takes_the_place_of_another_is_told_and_gone_on_with() {
    let (room, a, b) = (room(), client(1), client(2));
    enter(&room, &a, 5);
    room.deliver(&payload(EPOCH, 6..=6));
    // b joins under the new name, whose first event comes while it does.
    room.hold();
    assert_eq!(room.deliver(&payload("e2", 8..=8)), Repair::Needed);
    assert_eq!(enter_with(&room, &b, "e2", 8, "ack", &[]), Repair::Needed);
    room.release();
    assert!(room.begin_repair());
    room.deliver(&payload("e2", 9..=9));
    let since = room.since().unwrap();
    assert_eq!((since.epoch.as_str(), since.seq), (EPOCH, 6));
    assert_eq!(room.repair(&since, "e2", &texts(7..=8)), Repair::NotNeeded);
    assert_eq!(room.since().unwrap().epoch, "e2");
    let status = r#"{"type":"status","room":"r","data":{"redis":"ok","epoch":"e2"}}"#;
    assert_eq!(given(&a), ["6", status, "7", "8", "9"]);
    assert_eq!(given(&b), ["ack", status, "9"]);
}

#[test]
fn what_was_given_is_kept_for_those_who_come_back() {
    let (room, a, b) = (room(), client(1), client(2));
    enter(&room, &a, 3);
    room.deliver(&payload(EPOCH, 4..=6));
    room.deliver(&payload(EPOCH, 7..=8));
    let since = |epoch: &str, seq| Since {
        epoch: epoch.to_owned(),
        seq,
    };
    for (epoch, seq) in [(EPOCH, 2), (EPOCH, 9), ("e2", 5)] {
        assert!(room.kept(&since(epoch, seq)).is_none(), "{epoch} {seq}");
    }
    let kept = room.kept(&since(EPOCH, 4)).unwrap();
    assert_eq!((kept.at, kept.count), (since(EPOCH, 8), 4));
    // The store had one more by then, which has come here meanwhile, too.
    room.hold();
    room.deliver(&payload(EPOCH, 9..=10));
    let (frames, missed) = (kept.frames, texts(9..=9));
    let entry = Entry {
        epoch: EPOCH,
        seq: 9,
        kept: &frames,
        missed: &missed,
        ..Entry::default()
    };
    room.enter(b.clone(), room.membership(b.id), entry);
    room.release();
    assert_eq!(given(&b), numbers(5..=10));
    assert_eq!(given(&a), numbers(4..=10));
    room.begin_repair();
    assert!(room.kept(&since(EPOCH, 10)).is_none());
}

#[test]
fn a_tail_says_what_is_known() {
    let (room, a) = (room(), client(1));
    assert!(room.tail().is_none());
    enter(&room, &a, 3);
    room.acknowledged(b"e2", 9);
    let tail = room.tail().unwrap();
    assert_eq!((tail.since.seq, tail.ts, tail.known), (3, None, 3));
    let event = br#"{"type":"broadcast","room":"r","seq":4,"ts":1760000000000,"by":"u","data":{"ts":5}}"#;
    room.deliver(&payload::durable(EPOCH, 4, [&event[..]]));
    room.acknowledged(EPOCH.as_bytes(), 6);
    let tail = room.tail().unwrap();
    assert_eq!(
        (tail.since.seq, tail.ts, tail.known),
        (4, Some(1_760_000_000_000), 6)
    );
}

#[test]
fn who_enters_while_others_await_their_picture_is_not_left_deaf() {
    let (room, a, b) = (room(), client(1), client(2));
    enter(&room, &a, 5);
    assert_eq!(room.begin_resync().len(), 1);
    // The room is new by the time b joins; a's picture follows.
    enter_with(&room, &b, "e2", 2, "ack", &[]);
    enter_with(&room, &a, "e2", 3, "resync", &[]);
    room.deliver(&payload("e2", 3..=3));
    room.deliver(&payload("e2", 4..=4));
    assert_eq!(given(&a), ["resync", "4"]);
    assert_eq!(given(&b), ["ack", "3", "4"]);
}

#[test]
fn who_enters_a_resync_is_heard_though_those_who_awaited_theirs_have_left() {
    let (room, a, b) = (room(), client(1), client(2));
    enter(&room, &a, 5);
    assert_eq!(room.begin_resync().len(), 1);
    room.hold();
    enter_with(&room, &b, "e2", 2, "ack", &[]);
    leave(&room, &a);
    room.release();
    room.deliver(&payload("e2", 3..=3));
    assert_eq!(given(&b), ["ack", "3"]);
    assert!(!room.is_repairing());
}

#[test]
fn a_picture_that_comes_late_takes_nothing_back() {
    let (room, a, b) = (room(), client(1), client(2));
    enter(&room, &a, 5);
    enter(&room, &b, 5);
    assert_eq!(room.begin_resync().len(), 2);
    // So many are here that their pictures come in two batches; a hole shows between them.
    room.hold();
    enter_with(&room, &a, "e2", 7, "resync", &[]);
    room.release();
    room.deliver(&payload("e2", 8..=8));
    assert_eq!(room.deliver(&payload("e2", 10..=10)), Repair::Needed);
    assert!(room.begin_repair());
    room.hold();
    enter_with(&room, &b, "e2", 10, "resync", &[]);
    room.release();
    let since = room.since().unwrap();
    room.repair(&since, "e2", &texts(since.seq + 1..=10));
    room.deliver(&payload("e2", 11..=11));
    assert_eq!(given(&a), ["resync", "8", "9", "10", "11"]);
    assert_eq!(given(&b), ["resync", "11"]);
}

#[test]
fn a_repair_that_takes_long_holds_so_much_and_is_followed_by_another() {
    let (room, a) = (room(), client(1));
    enter(&room, &a, 0);
    room.begin_repair();
    let text = "x".repeat(1024 * 1024);
    for seq in 1..=10 {
        room.deliver(&payload::durable(EPOCH, seq, [text.as_bytes()]));
    }
    assert!(room.inner.lock().held_bytes < 2 * MAX_HELD_BYTES);
    let since = room.since().unwrap();
    assert_eq!(room.repair(&since, EPOCH, &texts(1..=2)), Repair::Needed);
}

#[test]
fn nothing_follows_a_leave() {
    let (room, a) = (room(), client(1));
    enter(&room, &a, 0);
    assert!(leave(&room, &a) && !leave(&room, &a));
    room.deliver(&payload(EPOCH, 1..=1));
    room.deliver(&payload::signal("x", [], "s"));
    assert_eq!(given(&a), Vec::<String>::new());
}

#[test]
fn a_signal_goes_to_whom_it_names_and_never_to_its_sender() {
    let (room, a, b, c) = (room(), client(1), client(2), client(3));
    for member in [&a, &b, &c] {
        enter(&room, member, 0);
    }
    room.deliver(&payload::signal("u1", [], "all"));
    room.deliver(&payload::signal("u1", ["u1", "u3"], "some"));
    assert_eq!(
        (given(&a), given(&b), given(&c)),
        (vec![], vec!["all".into()], vec!["all".into(), "some".into()])
    );
}

#[test]
fn what_the_store_does_not_know_is_dropped_after_one_look() {
    for stray in [payload("e2", 9..=9), payload(EPOCH, 900..=900)] {
        let (room, a) = (room(), client(1));
        enter(&room, &a, 5);
        assert_eq!(room.deliver(&stray), Repair::Needed);
        room.begin_repair();
        let since = room.since().unwrap();
        assert_eq!(room.repair(&since, EPOCH, &[]), Repair::NotNeeded);
        assert_eq!(room.deliver(&payload(EPOCH, 6..=6)), Repair::NotNeeded);
        assert_eq!(given(&a), ["6"]);
    }
}

proptest! {
    /// Whatever is cut, doubled, lost or repaired on the way: each member has every event from its picture on, once.
    #[test]
    fn members_have_every_event_once(
        steps in prop::collection::vec((1u64..4, 0u8..6, 0u64..3), 1..40),
    ) {
        let room = room();
        let mut members = vec![(client(0), 0)];
        enter(&room, &members[0].0, 0);
        let mut head = 0;
        for (index, (count, fate, lag)) in steps.into_iter().enumerate() {
            let seqs = head + 1..=head + count;
            head += count;
            let repair = match fate {
                0 => Repair::NotNeeded, // lost
                1 => {
                    room.deliver(&payload(EPOCH, seqs.clone()));
                    room.deliver(&payload(EPOCH, seqs))
                }
                2 => {
                    // A join whose picture is `lag` behind or at the head when its answer comes.
                    let joiner = client(index as u64 + 1);
                    room.hold();
                    let picture = head - count + lag.min(count);
                    let repair = room.deliver(&payload(EPOCH, seqs));
                    enter(&room, &joiner, picture);
                    members.push((joiner, picture));
                    if room.release() == Repair::Needed { Repair::Needed } else { repair }
                }
                _ => room.deliver(&payload(EPOCH, seqs)),
            };
            if repair == Repair::Needed && room.begin_repair() && fate != 5 {
                let since = room.since().unwrap();
                prop_assert_eq!(room.repair(&since, EPOCH, &texts(since.seq + 1..=head)), Repair::NotNeeded);
            }
        }
        room.begin_repair();
        let since = room.since().unwrap();
        room.repair(&since, EPOCH, &texts(since.seq + 1..=head));
        for (member, picture) in members {
            prop_assert_eq!(given(&member), numbers(picture + 1..=head));
        }
    }
}

mod ticks {
    use super::*;

    const TICK: Duration = Duration::from_millis(50);

    fn tick(room: &LocalRoom) -> Ticked {
        room.tick(TICK, &Arc::from("gw-1~a"))
    }

    fn go(room: &LocalRoom, client: &Arc<Client>, position: &str) {
        room.moved(client, JsonText::from_trusted(position), 0).unwrap();
    }

    fn from_elsewhere(room: &LocalRoom, moves: &[(&str, &str)]) {
        let moves = moves
            .iter()
            .map(|(user, position)| (*user, position.as_bytes(), false));
        room.deliver(&payload::moves("gw-2~b", 1, moves));
    }

    /// The positions in the `moves` frames that a client has been given: of each frame, sorted.
    fn moves(client: &Client) -> Vec<Vec<String>> {
        let each = given(client).into_iter().map(|frame| {
            let data = frame
                .strip_prefix(r#"{"type":"moves","room":"r","data":{"#)
                .expect("a moves frame");
            let mut places: Vec<String> = data
                .trim_end_matches("}}")
                .split(',')
                .map(str::to_owned)
                .collect();
            places.sort();
            places
        });
        each.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_of_each_user_goes_to_all_others_in_one_frame() {
        let (room, a, b, c) = (room(), client(1), client(2), client(3));
        for member in [&a, &b, &c] {
            enter(&room, member, 0);
        }
        assert!(!room.claim_ticking(), "nothing has moved");
        go(&room, &a, "1");
        go(&room, &a, "2");
        go(&room, &b, "3");
        from_elsewhere(&room, &[("w", "4"), ("w", "5")]);
        assert!(room.claim_ticking() && !room.claim_ticking());
        let ticked = tick(&room);
        assert_eq!(moves(&a), [["\"u2\":3", "\"w\":5"]]);
        assert_eq!(moves(&b), [["\"u1\":2", "\"w\":5"]]);
        assert_eq!(moves(&c), [["\"u1\":2", "\"u2\":3", "\"w\":5"]]);
        let Some(Payload::Moves {
            members,
            moves: published,
            ..
        }) = ticked.publish.as_deref().and_then(payload::parse)
        else {
            panic!("{:?}", ticked.publish)
        };
        assert_eq!((members, published.len()), (3, 2), "only what has moved here");
        assert_eq!(ticked.write.len(), 2);
        assert_eq!(ticked.wait, Some(TICK));
        // What this node published comes back and is nothing new.
        room.deliver(&ticked.publish.unwrap());
        tick(&room);
        for member in [&a, &b, &c] {
            assert!(given(member).is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_moves_too_often_is_not_read_until_the_tick() {
        let (room, a) = (room(), client(1));
        enter(&room, &a, 0);
        for step in 0..300 {
            assert_eq!(a.may_read(), step < 256);
            go(&room, &a, &step.to_string());
        }
        tick(&room);
        assert!(a.may_read() && !a.asks());
    }

    #[tokio::test(start_paused = true)]
    async fn ticking_ends_when_everything_is_told_and_written() {
        let (room, a) = (room(), client(1));
        enter(&room, &a, 0);
        go(&room, &a, "1");
        assert!(room.claim_ticking());
        let ticked = tick(&room);
        room.written(&ticked.write, true);
        tokio::time::advance(TICK).await;
        let again = tick(&room);
        assert!(again.publish.is_some(), "what was written is published once more");
        assert!(again.write.is_empty());
        let mut ticks = 0;
        while tick(&room).wait.is_some() {
            tokio::time::advance(TICK).await;
            ticks += 1;
            assert!(ticks < 100);
        }
        assert!(!room.claim_ticking());
        // The last member goes before its place is written.
        go(&room, &a, "2");
        assert!(room.claim_ticking());
        leave(&room, &a);
        let last = tick(&room);
        assert_eq!(last.write.len(), 1);
        room.written(&last.write, true);
        tick(&room);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(tick(&room).wait, None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_lags_is_passed_over_and_then_given_all_at_once() {
        let (room, a, slow) = (room(), client(1), {
            let user = UserId::new("slow").unwrap();
            Arc::new(Client::new(ConnectionId::new(7, 9), user, "n".into(), 64 * 64))
        });
        enter(&room, &a, 0);
        enter(&room, &slow, 0);
        slow.outbox.push(Bytes::from(vec![0; 100]));
        assert!(slow.outbox.lags());
        for step in 0..5 {
            go(&room, &a, &step.to_string());
            from_elsewhere(&room, &[(&format!("w{step}"), "7")]);
            tick(&room);
        }
        let mut pieces = VecDeque::new();
        slow.outbox.take(&mut pieces, None);
        assert_eq!(pieces.len(), 1, "nothing stale is queued");
        slow.outbox.written(false, 100, true);
        tick(&room);
        let all = [
            "\"u1\":4", "\"w0\":7", "\"w1\":7", "\"w2\":7", "\"w3\":7", "\"w4\":7",
        ];
        assert_eq!(moves(&slow), [all]);
        tick(&room);
        assert!(given(&slow).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_in_is_given_what_its_picture_may_lack() {
        let (room, a, b) = (room(), client(1), client(2));
        enter(&room, &a, 0);
        go(&room, &a, "1");
        let written = tick(&room).write;
        enter(&room, &b, 0);
        room.written(&written, true);
        tokio::time::advance(TICK).await;
        tick(&room);
        assert_eq!(moves(&b), [["\"u1\":1"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn occupancy_is_told_at_most_once_a_second_and_the_last_one_always() {
        let (room, a) = (room(), client(1));
        enter(&room, &a, 0);
        let counted =
            |members: u64| format!(r#"{{"type":"occupancy","room":"r","data":{{"members":{members}}}}}"#);
        room.deliver(&payload::occupancy(Some(11)));
        assert!(room.claim_ticking());
        tick(&room);
        assert_eq!(given(&a), [counted(11)]);
        for members in 12..30 {
            room.deliver(&payload::occupancy(Some(members)));
            tokio::time::advance(TICK).await;
            assert!(tick(&room).wait.is_some());
        }
        assert!(given(&a).is_empty());
        tokio::time::advance(TICK * 2).await;
        tick(&room);
        assert_eq!(given(&a), [counted(29)]);
        // What waits when the room tells who is there again is not told any more.
        room.deliver(&payload::occupancy(Some(8)));
        room.deliver(&payload::occupancy(None));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(tick(&room).wait, None);
        assert!(given(&a).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_left_moves_no_more() {
        let (room, a, b) = (room(), client(1), client(2));
        enter(&room, &a, 0);
        enter(&room, &b, 0);
        go(&room, &a, "1");
        from_elsewhere(&room, &[("w", "2"), ("v", "3")]);
        let text = r#"{"type":"presence","room":"r","seq":1,"ts":1,"data":{"away":["v"],"left":[{"user":"w","reason":"left"},{"user":"u1","reason":"left"}]}}"#;
        room.deliver(&payload::durable(EPOCH, 1, [text.as_bytes()]));
        b.outbox.take(&mut VecDeque::new(), None);
        let ticked = tick(&room);
        assert_eq!(moves(&b), [["\"v\":3"]], "who is away stays where it was");
        assert!(ticked.publish.is_none() && ticked.write.is_empty());
    }
}
