//! What is done to the servers, by name, and what is promised then.

mod gateways;
mod load;
mod node_dies;
mod redis;
mod rooms;

use std::time::{Duration, Instant};

use super::{
    checker::Promise,
    cluster::Cluster,
    crowd::Crowd,
    journal::{Act, Journal},
};
use crate::{
    failure::{Failure, check_interrupt},
    process::{Append, pause},
};

/// A run under way, as a scenario has it. It begins with all clients in their rooms and sending, and when the scenario
/// is done all faults must have ended.
pub struct Stage<'a> {
    /// The servers.
    pub cluster: &'a mut Cluster,
    /// The clients.
    pub crowd: &'a Crowd,
    /// What was done.
    pub journal: &'a Journal,
    /// Decides what is left to chance.
    pub rng: fastrand::Rng,
    /// How long faults go on.
    pub seconds: Duration,
    /// The rooms.
    pub rooms: &'a [String],
}

impl Stage<'_> {
    /// Does `fault` again and again, one every `pace` from now, until the time is up.
    fn repeat(
        &mut self,
        pace: Duration,
        mut fault: impl FnMut(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let mut next = started;
        while started.elapsed() < self.seconds {
            fault(self)?;
            next += pace;
            self.rest(next.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }

    fn rest(&self, duration: Duration) -> Result<(), Failure> {
        let until = Instant::now() + duration;
        loop {
            check_interrupt()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            pause(left.min(Duration::from_millis(50)));
        }
    }

    fn any_gateway(&mut self) -> usize {
        self.rng.usize(0..self.cluster.len())
    }

    /// Milliseconds into the journal; what did not come within `patience` is a violation.
    fn measure(
        &self,
        what: &str,
        took: Option<Duration>,
        patience: Duration,
        at_most: f64,
    ) -> Result<(), Failure> {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        match took {
            Some(took) => self.journal.measure(what, ms(took), "ms", Some(at_most))?,
            None => self.journal.write(Act::Never {
                what: what.to_owned(),
                waited_ms: ms(patience),
            })?,
        }
        Ok(())
    }
}

/// A scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What is done, in a line.
    pub about: &'static str,
    /// What is promised.
    pub promise: Promise,
    /// What Redis keeps.
    pub append: Append,
    /// Whether it has a replica.
    pub replica: bool,
    /// Clients, rooms, seconds and commands a second and client, unless told otherwise.
    pub clients: usize,
    /// See `clients`.
    pub rooms: usize,
    /// See `clients`.
    pub seconds: u64,
    /// See `clients`.
    pub rate: f64,
    /// Bytes added to messages.
    pub padding: usize,
    /// The clients' receive buffer, bytes.
    pub receive_buffer: Option<u32>,
    /// Which gateway a client begins on, given its number, and how many clients and gateways there are; any, without.
    pub begins_on: Option<fn(usize, usize, usize) -> usize>,
    /// Settings of the gateways.
    pub settings: &'static [(&'static str, &'static str)],
    /// What is done.
    pub run: fn(&mut Stage<'_>) -> Result<(), Failure>,
}

const USUAL: Scenario = Scenario {
    name: "",
    about: "",
    promise: Promise {
        loss: false,
        discontinuity: false,
        resume_p99_ms: None,
        resume_max_ms: None,
        elsewhere_ms: None,
        repair_p99_ms: None,
        others_times: None,
        away_ms: None,
        away_events: None,
    },
    append: Append::No,
    replica: false,
    clients: 500,
    rooms: 20,
    seconds: 60,
    rate: 0.5,
    padding: 0,
    receive_buffer: None,
    begins_on: None,
    settings: &[],
    run: gateways::calm,
};

/// Where writes may be lost if it is told.
const LOSSY: Promise = Promise {
    loss: true,
    discontinuity: true,
    ..USUAL.promise
};

/// All scenarios.
pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "calm",
            about: "no fault: what the others are compared with, and what plants are found in",
            seconds: 20,
            ..USUAL
        },
        Scenario {
            name: "kill-gateways",
            about: "kill -9 of one of the gateways every 5 s, started again",
            promise: Promise {
                resume_p99_ms: Some(2_000.0),
                ..USUAL.promise
            },
            run: gateways::kill,
            ..USUAL
        },
        Scenario {
            name: "rolling-sigterm",
            about: "SIGTERM for each gateway in turn, started again; each out within 10 s",
            run: gateways::rolling_sigterm,
            ..USUAL
        },
        Scenario {
            name: "freeze-gateway",
            about: "SIGSTOP of a gateway for 20 s, then SIGCONT; its clients elsewhere within 15 s",
            promise: Promise {
                elsewhere_ms: Some(15_000.0),
                ..USUAL.promise
            },
            run: gateways::freeze,
            ..USUAL
        },
        Scenario {
            name: "subscriber-killed",
            about: "the connection with the subscriptions cut every 2 s; repaired within 500 ms",
            promise: Promise {
                repair_p99_ms: Some(500.0),
                ..USUAL.promise
            },
            run: redis::subscriber_killed,
            ..USUAL
        },
        Scenario {
            name: "half-open",
            about: "a gateway's links to Redis swallow everything; found within 5 s, and healed",
            run: redis::half_open,
            ..USUAL
        },
        Scenario {
            name: "deaf-subscriber",
            about: "nothing comes down a gateway's subscription any more; found within 5 s, and healed",
            run: redis::deaf_subscriber,
            ..USUAL
        },
        Scenario {
            name: "redis-restart-always",
            about: "kill -9 of Redis, restarted with its append-only file, appendfsync always: nothing lost",
            append: Append::Always,
            seconds: 40,
            run: redis::restart,
            ..USUAL
        },
        Scenario {
            name: "redis-restart-everysec",
            about: "the same as after a power cut with appendfsync everysec: the last second is cut off; never silent",
            promise: LOSSY,
            append: Append::EverySecond,
            seconds: 40,
            run: redis::restart_behind,
            ..USUAL
        },
        Scenario {
            name: "replica-promoted",
            about: "a replica without the last writes is promoted; some clients come back when its seq has passed theirs",
            promise: LOSSY,
            replica: true,
            seconds: 20,
            run: redis::promote,
            ..USUAL
        },
        Scenario {
            name: "reply-cut",
            about: "Redis has done a call, and the link is cut before the reply: nothing done twice",
            seconds: 120,
            rate: 1.0,
            settings: &[("REDIS_RETRY_DELAY_MS", "10")],
            run: redis::reply_cut,
            ..USUAL
        },
        Scenario {
            name: "stopped-readers",
            about: "a tenth of the clients stops reading; the others' delivery p99 and the gateways' memory",
            promise: Promise {
                others_times: Some(1.2),
                ..USUAL.promise
            },
            clients: 100,
            rooms: 5,
            seconds: 40,
            rate: 1.0,
            padding: 16 * 1024,
            receive_buffer: Some(4 * 1024),
            // A reader that has stopped answers no ping either; it is to be closed for what it does not take.
            settings: &[("OUTBOX_BYTES", "262144"), ("HEARTBEAT_MS", "60000")],
            run: load::stopped_readers,
            ..USUAL
        },
        Scenario {
            name: "damaged-room",
            about: "one room's keys hold junk: it says so, the others do not notice, and repaired it goes on",
            promise: Promise {
                others_times: Some(2.0),
                ..USUAL.promise
            },
            seconds: 30,
            run: rooms::damaged,
            ..USUAL
        },
        Scenario {
            name: "node-dies",
            about: "kill -9 of a gateway with 1,000 members of a room, for good; half come back elsewhere: away, then left",
            promise: Promise {
                away_ms: Some(15_000.0),
                away_events: Some(20.0),
                ..USUAL.promise
            },
            clients: 1_020,
            rooms: 1,
            seconds: 5,
            rate: 0.02,
            begins_on: Some(node_dies::begins_on),
            // A room of so many would count only.
            settings: &[
                ("PRESENCE_GRACE_SECONDS", "5"),
                ("SWEEP_INTERVAL_SECONDS", "2"),
                ("PRESENCE_FULL_MEMBERS", "5000"),
            ],
            run: node_dies::run,
            ..USUAL
        },
        Scenario {
            name: "reconnect-crowd",
            about: "all clients lose their connections at once; resumed within 10 s, Redis answers within 50 ms",
            promise: Promise {
                resume_max_ms: Some(10_000.0),
                ..USUAL.promise
            },
            clients: 5_000,
            rooms: 500,
            seconds: 30,
            rate: 0.1,
            run: load::reconnect_crowd,
            ..USUAL
        },
    ]
}

/// Scenarios by name; `all` is every one but `calm`.
///
/// # Errors
/// There is none of that name.
pub fn named(name: &str) -> Result<Vec<Scenario>, Failure> {
    let mut chosen = all();
    match name {
        "all" => chosen.retain(|scenario| scenario.name != "calm"),
        _ => chosen.retain(|scenario| scenario.name == name),
    }
    if chosen.is_empty() {
        let text = format!("no scenario `{name}`; --list names them");
        return Err(Failure::Usage(text));
    }
    Ok(chosen)
}
