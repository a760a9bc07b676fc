//! Each rule on a small history written by hand: one that keeps it, one that breaks it.

mod presence;

use super::{Promise, Reading, Report, Rule, RunInfo};
use crate::chaos::{
    audit::Audited,
    history::{Event, Line, Since, What},
    journal::{Act, Entry},
};

const ROOM: &str = "r";

/// A run of two clients, 1 and 2, in one room, and its audit.
struct Run {
    info: RunInfo,
    lines: Vec<Line>,
    audit: Vec<Audited>,
    entries: Vec<Entry>,
    clock: u64,
}

fn digest(token: &str) -> u64 {
    token
        .bytes()
        .map(u64::from)
        .fold(7, |digest, byte| digest * 31 + byte)
}

impl Run {
    fn new() -> Self {
        let info = RunInfo {
            scenario: "by hand".to_owned(),
            seed: 0,
            clients: 2,
            gateways: 2,
            seconds: 1,
            promise: Promise::default(),
            slack: 1.0,
        };
        Self {
            info,
            lines: Vec::new(),
            audit: Vec::new(),
            entries: Vec::new(),
            clock: 0,
        }
    }

    fn lossy() -> Self {
        let mut run = Self::new();
        run.info.promise.loss = true;
        run.info.promise.discontinuity = true;
        run
    }

    fn tell(&mut self, client: u32, what: What) -> &mut Self {
        self.clock += 1_000;
        let at = self.clock;
        self.lines.push(Line {
            at,
            client,
            conn: 1,
            what,
        });
        self
    }

    fn connect(&mut self, client: u32) -> &mut Self {
        self.tell(client, What::Connect { gateway: 0 })
    }

    /// Connects and joins for the first time at `seq`.
    fn enter(&mut self, client: u32, epoch: &str, seq: u64) -> &mut Self {
        self.connect(client)
            .ask(client, None)
            .begin(client, epoch, seq, "new")
    }

    fn ask(&mut self, client: u32, since: Option<(&str, u64)>) -> &mut Self {
        let since = since.map(|(epoch, seq)| Since {
            epoch: epoch.to_owned(),
            seq,
        });
        let room = ROOM.to_owned();
        self.tell(client, What::Join { room, since })
    }

    fn begin(&mut self, client: u32, epoch: &str, seq: u64, reason: &str) -> &mut Self {
        self.tell(
            client,
            What::Joined {
                room: ROOM.to_owned(),
                epoch: epoch.to_owned(),
                seq,
                recovered: false,
                missed: None,
                reason: Some(reason.to_owned()),
            },
        )
    }

    /// Loses the connection and resumes.
    fn resume(&mut self, client: u32, epoch: &str, since: u64, missed: u64) -> &mut Self {
        let why = "cut".to_owned();
        self.tell(client, What::Lost { why }).connect(client);
        self.ask(client, Some((epoch, since))).tell(
            client,
            What::Joined {
                room: ROOM.to_owned(),
                epoch: epoch.to_owned(),
                seq: since + missed,
                recovered: true,
                missed: Some(missed),
                reason: None,
            },
        )
    }

    fn resync(&mut self, client: u32, epoch: &str, seq: u64) -> &mut Self {
        self.tell(
            client,
            What::Resync {
                room: ROOM.to_owned(),
                epoch: epoch.to_owned(),
                seq,
                reason: Some("epoch_changed".to_owned()),
            },
        )
    }

    fn goes_on(&mut self, client: u32, epoch: &str) -> &mut Self {
        self.tell(
            client,
            What::Status {
                room: Some(ROOM.to_owned()),
                redis: Some("ok".to_owned()),
                epoch: Some(epoch.to_owned()),
            },
        )
    }

    fn send(&mut self, client: u32, token: &str) -> &mut Self {
        self.send_as(client, token, "message.send")
    }

    fn send_as(&mut self, client: u32, token: &str, of: &str) -> &mut Self {
        self.tell(
            client,
            What::Sent {
                room: ROOM.to_owned(),
                id: format!("id-{token}"),
                of: of.to_owned(),
                token: token.to_owned(),
                again: false,
            },
        )
    }

    fn ack(&mut self, client: u32, token: &str, seq: u64) -> &mut Self {
        self.tell(
            client,
            What::Acked {
                room: ROOM.to_owned(),
                id: format!("id-{token}"),
                seq,
                duplicate: false,
            },
        )
    }

    fn see_in(&mut self, client: u32, room: &str, seq: u64, token: &str) -> &mut Self {
        self.tell(
            client,
            What::Event(Event {
                room: room.to_owned(),
                epoch: String::new(),
                seq,
                of: "message.sent".to_owned(),
                token: Some(token.to_owned()),
                by: None,
                digest: digest(token),
            }),
        )
    }

    fn see(&mut self, client: u32, seq: u64, token: &str) -> &mut Self {
        self.see_in(client, ROOM, seq, token)
    }

    /// What stands in the room at the end, from seq 1.
    fn stands(&mut self, epoch: &str, tokens: &[&str]) -> &mut Self {
        self.counted(epoch, 0, tokens)
    }

    fn counted(&mut self, epoch: &str, counter: u64, tokens: &[&str]) -> &mut Self {
        let room = ROOM.to_owned();
        self.audit.push(Audited::Room {
            room: room.clone(),
            epoch: epoch.to_owned(),
            head: tokens.len() as u64,
            from: 0,
            counter,
        });
        for (at, token) in tokens.iter().enumerate() {
            self.audit.push(Audited::Event {
                room: room.clone(),
                seq: at as u64 + 1,
                token: Some((*token).to_owned()),
                digest: digest(token),
                presence: None,
            });
        }
        self
    }

    fn act(&mut self, what: Act) -> &mut Self {
        let at = self.clock;
        self.entries.push(Entry { at, what });
        self
    }

    /// In the order of the files: by client, though the clients' lines were told in one order of time.
    fn report(&self) -> Report {
        let mut reading = Reading::new(self.info.clone());
        self.entries.iter().for_each(|entry| reading.entry(entry.clone()));
        self.audit.iter().for_each(|line| reading.audited(line.clone()));
        for client in [2, 1] {
            let own = self.lines.iter().filter(|line| line.client == client);
            own.for_each(|line| reading.line(line.clone()));
        }
        reading.report()
    }

    fn broken(&self) -> Vec<Rule> {
        self.report().violations.into_keys().collect()
    }
}

/// Both clients see `a` and `b` of client 1, client 2 over a resume.
fn sound() -> Run {
    let mut run = Run::new();
    run.enter(1, "E", 0).enter(2, "E", 0);
    run.send(1, "a").see(1, 1, "a").see(2, 1, "a").ack(1, "a", 1);
    run.send(1, "b").see(1, 2, "b").ack(1, "b", 2);
    run.resume(2, "E", 1, 1).see(2, 2, "b");
    run.stands("E", &["a", "b"]);
    run
}

#[test]
fn a_sound_run_breaks_nothing() {
    let report = sound().report();
    assert_eq!(report.violations, Default::default(), "{:?}", report.described);
    assert_eq!((report.acked, report.deliveries, report.recovered), (2, 4, 1));
    assert_eq!(report.resumes.count, 1);
    assert_eq!(
        report.resumes.max, 3.0,
        "lost, connected, asked, joined: a ms apart"
    );
}

#[test]
fn a_hole_is_found() {
    let mut run = sound();
    run.lines
        .retain(|line| !(line.client == 1 && matches!(&line.what, What::Event(event) if event.seq == 1)));
    assert_eq!(run.broken(), [Rule::Hole]);
}

#[test]
fn a_hole_before_a_resume_is_found() {
    let mut run = sound();
    run.lines
        .retain(|line| !(line.client == 2 && matches!(&line.what, What::Event(event) if event.seq == 1)));
    assert_eq!(run.broken(), [Rule::Hole]);
}

#[test]
fn a_delivery_that_comes_twice_is_found() {
    let mut run = sound();
    run.see(1, 2, "b");
    assert_eq!(run.broken(), [Rule::Twice]);
}

#[test]
fn two_deliveries_that_changed_places_are_found() {
    let mut run = sound();
    let at = |run: &Run, of| {
        run.lines
            .iter()
            .position(|line| line.client == 1 && matches!(&line.what, What::Event(event) if event.seq == of))
            .unwrap()
    };
    let (first, second) = (at(&run, 1), at(&run, 2));
    run.lines.swap(first, second);
    assert_eq!(run.broken(), [Rule::Hole, Rule::Twice]);
}

#[test]
fn an_event_of_a_room_that_was_not_joined_is_found() {
    let mut run = sound();
    run.see_in(1, "elsewhere", 1, "a");
    assert_eq!(run.broken(), [Rule::WrongRoom]);
    let mut run = sound();
    let why = "cut".to_owned();
    // A new connection has joined nothing yet.
    run.tell(2, What::Lost { why }).connect(2).see(2, 3, "b");
    assert!(run.broken().contains(&Rule::WrongRoom));
}

#[test]
fn one_place_with_two_events_is_found() {
    let mut run = sound();
    run.enter(2, "E", 1).see(2, 2, "a");
    assert!(run.broken().contains(&Rule::Disagreement));
}

#[test]
fn what_was_seen_must_be_what_stands() {
    let mut run = Run::lossy();
    run.enter(1, "E", 0)
        .send(1, "a")
        .see(1, 1, "a")
        .send(1, "b")
        .ack(1, "b", 1);
    run.stands("E", &["b"]);
    let broken = [Rule::Disagreement, Rule::Unanswered];
    assert_eq!(run.broken(), broken, "told by nobody that `a` is gone");
}

#[test]
fn a_command_done_twice_is_found() {
    let mut run = sound();
    run.see(1, 3, "a").see(2, 3, "a");
    run.audit.clear();
    run.stands("E", &["a", "b", "a"]);
    assert_eq!(run.broken(), [Rule::DoneTwice, Rule::WrongAck]);
}

#[test]
fn what_is_acknowledged_must_stand() {
    let mut run = sound();
    run.send(2, "c").ack(2, "c", 3);
    assert_eq!(run.broken(), [Rule::Lost]);
}

#[test]
fn an_ack_tells_the_place_of_the_event() {
    let mut run = sound();
    run.send(1, "c").see(1, 3, "c").see(2, 3, "c").ack(1, "c", 4);
    run.audit.clear();
    run.stands("E", &["a", "b", "c"]);
    assert_eq!(run.broken(), [Rule::WrongAck]);
}

#[test]
fn two_answers_to_one_command_are_the_same() {
    let mut run = sound();
    run.ack(1, "b", 2);
    assert_eq!(run.broken(), []);
    run.ack(1, "b", 3);
    assert_eq!(run.broken(), [Rule::WrongAck]);
}

/// `lost` is acknowledged and seen by client 2 under E; Redis comes back without it under F.
fn set_back() -> Run {
    let mut run = Run::lossy();
    run.enter(1, "E", 0).enter(2, "E", 0);
    run.send(1, "lost").ack(1, "lost", 1).see(2, 1, "lost");
    run
}

#[test]
fn a_loss_that_is_told_may_be_where_the_scenario_may_lose() {
    let mut run = set_back();
    run.resync(1, "F", 0)
        .resync(2, "F", 0)
        .send(2, "new")
        .ack(2, "new", 1);
    run.see(1, 1, "new").see(2, 1, "new").stands("F", &["new"]);
    let report = run.report();
    assert_eq!(report.violations, Default::default(), "{:?}", report.described);
    assert_eq!(report.told_losses, 1);
    assert_eq!(report.discontinuities["resync: epoch_changed"], 2);
    run.info.promise.loss = false;
    assert_eq!(run.broken(), [Rule::Lost]);
    run.info.promise = Promise::default();
    assert_eq!(run.broken(), [Rule::Lost, Rule::Discontinuity]);
}

#[test]
fn a_silent_loss_is_found() {
    let mut run = set_back();
    // The author goes on as if nothing had happened.
    run.goes_on(1, "F")
        .resync(2, "F", 0)
        .send(2, "new")
        .ack(2, "new", 1);
    run.see(1, 1, "new").see(2, 1, "new").stands("F", &["new"]);
    assert_eq!(run.broken(), [Rule::SilentLoss]);
}

#[test]
fn to_be_told_before_the_ack_is_not_to_be_told() {
    let mut run = Run::lossy();
    run.enter(1, "E", 0)
        .send(1, "lost")
        .resync(1, "F", 0)
        .ack(1, "lost", 1);
    run.send(1, "new")
        .ack(1, "new", 1)
        .see(1, 1, "new")
        .stands("F", &["new"]);
    assert_eq!(run.broken(), [Rule::SilentLoss]);
}

#[test]
fn an_order_may_go_on_under_another_epoch() {
    let mut run = Run::new();
    run.enter(1, "E", 0).enter(2, "E", 0).send(1, "a").ack(1, "a", 1);
    run.see(1, 1, "a").goes_on(1, "F");
    // Client 2 resumes over the change: the same event under the other epoch.
    run.goes_on(2, "F").see(2, 1, "a");
    run.send(1, "b").ack(1, "b", 2).see(1, 2, "b").see(2, 2, "b");
    run.stands("F", &["a", "b"]);
    let report = run.report();
    assert_eq!(report.violations, Default::default(), "{:?}", report.described);
    // But not with another past.
    let mut run = Run::lossy();
    run.enter(1, "E", 0)
        .send(1, "a")
        .send(1, "b")
        .see(1, 1, "a")
        .goes_on(1, "F");
    run.enter(2, "F", 0)
        .see(2, 1, "b")
        .ack(1, "b", 1)
        .stands("F", &["b"]);
    assert_eq!(run.broken(), [Rule::Disagreement, Rule::Unanswered]);
}

#[test]
fn missed_is_counted() {
    let mut run = sound();
    run.tell(1, What::Lost { why: String::new() })
        .connect(1)
        .ask(1, Some(("E", 2)));
    run.tell(
        1,
        What::Joined {
            room: ROOM.to_owned(),
            epoch: "E".to_owned(),
            seq: 2,
            recovered: true,
            missed: Some(1),
            reason: None,
        },
    );
    assert_eq!(run.broken(), [Rule::Miscounted]);
}

#[test]
fn everyone_comes_back_and_is_answered() {
    let mut run = sound();
    run.tell(2, What::Lost { why: String::new() });
    assert_eq!(run.broken(), [Rule::DidNotComeBack]);
    let mut run = sound();
    run.audit.clear();
    run.stands("E", &["a", "b", "c"])
        .send(1, "c")
        .ack(1, "c", 3)
        .see(1, 3, "c");
    assert_eq!(run.broken(), [Rule::DidNotComeBack], "client 2 lacks the last");
    let mut run = sound();
    run.send(1, "c");
    assert_eq!(run.broken(), [Rule::Unanswered]);
    let mut run = sound();
    run.send(1, "c").tell(
        1,
        What::GaveUp {
            id: Some("id-c".to_owned()),
            code: "id_conflict".to_owned(),
        },
    );
    assert_eq!(run.broken(), [Rule::Refused]);
}

#[test]
fn the_counter_is_the_number_of_patches() {
    let mut run = Run::new();
    run.enter(1, "E", 0)
        .send_as(1, "p", "state.patch")
        .see(1, 1, "p")
        .ack(1, "p", 1);
    run.counted("E", 1, &["p"]);
    assert_eq!(run.broken(), []);
    run.audit.clear();
    run.counted("E", 2, &["p"]);
    assert_eq!(run.broken(), [Rule::WrongCounter]);
    run.audit.clear();
    run.counted("E", 0, &["p"]);
    assert_eq!(run.broken(), [Rule::WrongCounter]);
}

#[test]
fn a_damaged_room_says_so_and_no_other() {
    let mut run = sound();
    let damage = |room: &str| Act::Fault {
        what: "damage".to_owned(),
        gateway: None,
        room: Some(room.to_owned()),
    };
    let error = |room: &str| What::Failed {
        room: Some(room.to_owned()),
        id: None,
        code: "room_unavailable".to_owned(),
    };
    run.act(damage(ROOM));
    assert_eq!(run.broken(), [Rule::Idle], "nobody was told");
    run.tell(1, error(ROOM));
    assert_eq!(run.broken(), []);
    run.tell(2, error("other"));
    assert_eq!(run.broken(), [Rule::Spread]);
}

#[test]
fn bars_are_held_against_figures() {
    let mut run = sound();
    run.info.promise.resume_p99_ms = Some(3.0);
    assert_eq!(run.broken(), []);
    run.info.promise.resume_p99_ms = Some(2.9);
    assert_eq!(run.broken(), [Rule::Bar]);
    run.info.slack = 2.0;
    assert_eq!(run.broken(), []);
    let measure = |value| Act::Measure {
        what: "a time".to_owned(),
        value,
        unit: "ms".to_owned(),
        at_most: Some(10.0),
    };
    run.act(measure(19.0));
    assert_eq!(run.broken(), []);
    run.act(measure(21.0));
    assert_eq!(run.broken(), [Rule::Bar]);
    let mut run = sound();
    run.act(Act::Never {
        what: "a thing".to_owned(),
        waited_ms: 1.0,
    });
    assert_eq!(run.broken(), [Rule::Bar], "whatever the slack");
}

#[test]
fn clients_of_a_frozen_gateway_must_be_elsewhere_in_time() {
    let mut run = sound();
    run.info.promise.elsewhere_ms = Some(4.0);
    let at = run.clock;
    run.entries.push(Entry {
        at,
        what: Act::Fault {
            what: super::FROZEN.to_owned(),
            gateway: Some(0),
            room: None,
        },
    });
    assert_eq!(run.broken(), [Rule::Bar], "nobody left");
    let leave = |run: &mut Run, client| {
        run.tell(client, What::Lost { why: String::new() });
        run.tell(client, What::Connect { gateway: 1 })
            .ask(client, Some(("E", 2)));
        run.tell(
            client,
            What::Joined {
                room: ROOM.to_owned(),
                epoch: "E".to_owned(),
                seq: 2,
                recovered: true,
                missed: Some(0),
                reason: None,
            },
        );
    };
    leave(&mut run, 1);
    assert_eq!(run.broken(), [Rule::Bar], "client 2 is still there");
    leave(&mut run, 2);
    assert_eq!(run.broken(), [Rule::Bar], "client 2 took 8 ms");
    run.info.promise.elsewhere_ms = Some(8.0);
    assert_eq!(run.broken(), []);
}

#[test]
fn readers_that_stop_must_have_been_a_burden() {
    let mut run = sound();
    run.act(Act::Apart {
        clients: vec![1],
        why: "it stops".to_owned(),
    });
    run.act(Act::Fault {
        what: super::STOPPED_READING.to_owned(),
        gateway: None,
        room: None,
    });
    assert_eq!(run.broken(), [Rule::Idle]);
    run.resume(1, "E", 2, 0);
    assert_eq!(run.broken(), []);
}

#[test]
fn a_run_in_which_nothing_happened_shows_nothing() {
    let mut run = Run::new();
    run.enter(1, "E", 0).stands("E", &[]);
    assert_eq!(run.broken(), [Rule::Idle]);
}
