//! Presence: what events may say one after the other, and how a gateway that dies is told.

use super::*;
use crate::chaos::wire::Presence;

fn names(users: &[&str]) -> Vec<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

fn joined(users: &[&str]) -> Presence {
    Presence {
        joined: names(users).into_iter().map(|user| (user, false)).collect(),
        ..Presence::default()
    }
}

fn away(users: &[&str]) -> Presence {
    Presence {
        away: names(users),
        ..Presence::default()
    }
}

fn back(users: &[&str]) -> Presence {
    Presence {
        back: names(users),
        ..Presence::default()
    }
}

fn left(users: &[&str], reason: &str) -> Presence {
    Presence {
        left: names(users)
            .into_iter()
            .map(|user| (user, reason.to_owned()))
            .collect(),
        ..Presence::default()
    }
}

/// A room whose log has these presence events and then message `m`, and that lists `users` at the end.
fn log(presence: &[Presence], users: &[(&str, bool)]) -> Run {
    let mut run = Run::new();
    let seq = presence.len() as u64 + 1;
    run.enter(1, "E", seq - 1)
        .send(1, "m")
        .see(1, seq, "m")
        .ack(1, "m", seq);
    told(&mut run, presence, users);
    run
}

/// The audit: presence events from seq 1, then message `m`.
fn told(run: &mut Run, presence: &[Presence], users: &[(&str, bool)]) {
    let room = ROOM.to_owned();
    let message = presence.len() as u64 + 1;
    run.audit.push(Audited::Room {
        room: room.clone(),
        epoch: "E".to_owned(),
        head: message,
        from: 0,
        counter: 0,
    });
    for (seq, presence) in (1..).zip(presence) {
        run.audit.push(Audited::Event {
            room: room.clone(),
            seq,
            token: None,
            digest: seq,
            presence: Some(presence.clone()),
        });
    }
    run.audit.push(Audited::Event {
        room: room.clone(),
        seq: message,
        token: Some("m".to_owned()),
        digest: digest("m"),
        presence: None,
    });
    let users = users.iter().map(|(user, away)| ((*user).to_owned(), *away));
    run.audit.push(Audited::Users {
        room,
        users: users.collect(),
    });
}

#[test]
fn presence_that_fits_together_breaks_nothing() {
    let events = [
        joined(&["a", "b", "auditor"]),
        away(&["a", "b"]),
        back(&["a"]),
        left(&["b"], "timeout"),
        joined(&["b"]),
        left(&["a"], "left"),
    ];
    // The one that reads is in the list as it is at that moment.
    assert_eq!(log(&events, &[("b", false), ("auditor", true)]).broken(), []);
    let all = Presence {
        all: true,
        joined: vec![("c".to_owned(), true)],
        ..Presence::default()
    };
    // Told of all anew, whatever was told before.
    assert_eq!(
        log(&[joined(&["a"]), all, back(&["c"])], &[("c", false)]).broken(),
        []
    );
}

#[test]
fn presence_that_contradicts_itself_is_found() {
    type Case<'a> = (&'a [Presence], &'a [(&'a str, bool)]);
    let cases: [Case<'_>; 7] = [
        (&[joined(&["a"]), joined(&["a"])], &[("a", false)]),
        (&[away(&["a"])], &[]),
        (&[joined(&["a"]), away(&["a"]), away(&["a"])], &[("a", true)]),
        (&[joined(&["a"]), back(&["a"])], &[("a", false)]),
        (&[joined(&["a"]), left(&["a"], "left"), left(&["a"], "left")], &[]),
        (&[joined(&["a"])], &[]),
        (&[joined(&["a"]), away(&["a"])], &[("a", false)]),
    ];
    for (events, users) in cases {
        assert_eq!(
            log(events, users).broken(),
            [Rule::Presence],
            "{events:?}, {users:?}"
        );
    }
    let ghost = log(&[joined(&["a"]), left(&["a"], "left")], &[("a", true)]);
    assert_eq!(
        ghost.broken(),
        [Rule::Presence],
        "gone by the events, and still in the list"
    );
}

/// Clients 1 and 2 on a gateway that dies after `m`; 1 comes back elsewhere, 2 never; then `after` is told.
fn death(after: &[Presence]) -> Run {
    let mut run = Run::new();
    let before = [joined(&["u1", "u2"])];
    let all: Vec<Presence> = before.iter().chain(after).cloned().collect();
    let users: &[(&str, bool)] = &[("u1", false)];
    run.info.promise.away_ms = Some(100.0);
    run.info.promise.away_events = Some(1.0);
    // `m` stands behind the last of all in the log of these tests, and is sent by 1 when it is back.
    run.enter(1, "E", 1).enter(2, "E", 1);
    run.act(Act::Gone { clients: vec![2] }).act(Act::Fault {
        what: super::super::NODE_DIED.to_owned(),
        gateway: Some(0),
        room: None,
    });
    run.tell(2, What::Lost { why: String::new() });
    run.resume(1, "E", 1, 0);
    for (seq, _) in (2..).zip(after) {
        run.tell(1, What::Event(presence_at(seq)));
    }
    let message = all.len() as u64 + 1;
    run.send(1, "m").see(1, message, "m").ack(1, "m", message);
    told(&mut run, &all, users);
    run
}

fn presence_at(seq: u64) -> Event {
    Event {
        room: ROOM.to_owned(),
        epoch: "E".to_owned(),
        seq,
        of: "presence".to_owned(),
        token: None,
        by: None,
        digest: seq,
    }
}

#[test]
fn a_death_that_is_told_once_breaks_nothing() {
    let run = death(&[away(&["u2"]), left(&["u2"], "timeout")]);
    let report = run.report();
    assert_eq!(report.violations, Default::default(), "{:?}", report.described);
    let figure = |name: &str| {
        let found = report.figures.iter().find(|figure| figure.what == name);
        found.map(|figure| figure.worst)
    };
    assert_eq!(figure("presence events with their `away`"), Some(1.0));
    assert_eq!(
        figure("kill to the last `away`"),
        Some(6.0),
        "both lost, one connected, asked, joined, told: a ms apart"
    );
}

#[test]
fn a_missing_away_is_found() {
    let broken = death(&[left(&["u2"], "timeout")]).broken();
    assert_eq!(broken, [Rule::NoGoodbye, Rule::Bar]);
    // Nor is anything told: the one who never came back still is a member.
    assert_eq!(death(&[]).broken(), [Rule::Presence, Rule::NoGoodbye, Rule::Bar]);
}

#[test]
fn a_left_that_is_missing_or_comes_twice_is_found() {
    let broken = death(&[away(&["u2"])]).broken();
    assert!(broken.contains(&Rule::NoGoodbye), "{broken:?}");
    let twice = [away(&["u2"]), left(&["u2"], "timeout"), left(&["u2"], "timeout")];
    assert_eq!(death(&twice).broken(), [Rule::Presence, Rule::NoGoodbye]);
    let otherwise = [away(&["u2"]), left(&["u2"], "left")];
    assert_eq!(death(&otherwise).broken(), [Rule::NoGoodbye], "the wrong reason");
}

#[test]
fn a_goodbye_to_one_who_came_back_is_found() {
    let events = [away(&["u1", "u2"]), back(&["u1"]), left(&["u2"], "timeout")];
    assert_eq!(death(&events).broken(), [Rule::FalseGoodbye]);
    let events = [away(&["u1", "u2"]), left(&["u1", "u2"], "timeout")];
    let broken = death(&events).broken();
    assert!(broken.contains(&Rule::FalseGoodbye), "{broken:?}");
}

#[test]
fn a_death_told_late_or_bit_by_bit_is_found() {
    let mut run = death(&[away(&["u2"]), left(&["u2"], "timeout")]);
    run.info.promise.away_ms = Some(4.0);
    assert_eq!(run.broken(), [Rule::Bar]);
    run.info.slack = 2.0;
    assert_eq!(run.broken(), []);
    run.info.promise.away_events = Some(0.0);
    assert_eq!(run.broken(), [Rule::Bar], "whatever the slack");
}

#[test]
fn what_was_acknowledged_before_a_death_must_be_there_after_it() {
    let goodbye = [away(&["u2"]), left(&["u2"], "timeout")];
    let mut run = death(&goodbye);
    run.send(1, "lost").ack(1, "lost", 1);
    assert_eq!(run.broken(), [Rule::Lost]);
    // A newcomer that is given a picture in place of the past shows nothing of it.
    let mut run = death(&goodbye);
    for line in &mut run.audit {
        if let Audited::Room { from, head, .. } = line {
            *from = *head;
        }
    }
    assert!(run.broken().contains(&Rule::Lost));
}

#[test]
fn a_death_with_nobody_on_it_shows_nothing() {
    let mut run = death(&[away(&["u2"]), left(&["u2"], "timeout")]);
    run.entries
        .retain(|entry| !matches!(entry.what, Act::Gone { .. }));
    assert!(run.broken().contains(&Rule::Idle));
}
