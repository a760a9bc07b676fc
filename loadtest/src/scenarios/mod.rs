//! What is measured: one file a family, each scenario with servers of its own.

mod cluster;
mod commands;
mod connections;
mod fanout;
mod flood;
mod growth;
mod keys;
mod large_room;
mod latency;
mod moves;

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

use self::cluster::{Cluster, Window, measure};
use crate::{bars::Bar, failure::Failure, process::Program};

/// Bytes of JSON of a message's body or of a patched value.
pub const BODY_BYTES: usize = 100;

/// How to measure.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What is started as a gateway.
    pub gateway: Program,
    /// The `redis-server` binary.
    pub redis: PathBuf,
    /// Length of a measured window.
    pub window: Duration,
    /// Load before it.
    pub warmup: Duration,
    /// How long idle connections are watched.
    pub idle: Duration,
    /// Idle connections to hold on one gateway, at most.
    pub connections: usize,
    /// Small numbers and no claim to exactness.
    pub quick: bool,
    /// Where the servers' logs go.
    pub logs: PathBuf,
    /// Where `perf record` of each measured window goes.
    pub profile: Option<PathBuf>,
}

impl Setup {
    /// Whether it is the bare server that is measured.
    pub fn is_bare(&self) -> bool {
        !self.gateway.args.is_empty()
    }
}

/// Which store the gateways run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    /// A Redis of its own for the run.
    Redis,
    /// In the gateway's memory.
    Memory,
}

impl StoreKind {
    /// As it stands in names and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            StoreKind::Redis => "redis",
            StoreKind::Memory => "memory",
        }
    }
}

/// What belongs together in the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Events to many members.
    Fanout,
    /// Time from publish to delivery.
    Latency,
    /// Durable commands.
    Commands,
    /// Many idle connections.
    Connections,
    /// A quiet room beside one that is flooded.
    Flood,
    /// Members that move.
    Moves,
    /// A room of very many.
    LargeRoom,
    /// Costs as members and rooms grow in number.
    Growth,
}

impl Family {
    /// Every family, in the order of the report.
    pub const ALL: &'static [Family] = &[
        Family::Fanout,
        Family::Latency,
        Family::Commands,
        Family::Connections,
        Family::Flood,
        Family::Moves,
        Family::LargeRoom,
        Family::Growth,
    ];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::Fanout => "fanout",
            Family::Latency => "latency",
            Family::Commands => "commands",
            Family::Connections => "connections",
            Family::Flood => "flood",
            Family::Moves => "moves",
            Family::LargeRoom => "large-room",
            Family::Growth => "growth",
        }
    }

    /// Whether the bare server is measured beside the gateway.
    pub fn has_bare(self) -> bool {
        matches!(
            self,
            Family::Fanout | Family::Latency | Family::Commands | Family::Connections
        )
    }

    /// The report's heading and what its figures are.
    pub fn about(self) -> (&'static str, &'static str) {
        match self {
            Family::Fanout => (
                "Fan-out",
                "Deliveries per gateway CPU second. Each writer has one `message.send` with a body of 100 bytes in \
                 flight and sends the next when it is acknowledged; every member, the writers too, gets every message. \
                 Where readers and writers are on two gateways, the CPU is that of both, and a message is in flight \
                 until a reader has it.",
            ),
            Family::Latency => (
                "Latency",
                "1,000 messages a second, evenly spaced, into 20 rooms of 50 members: 50,000 deliveries a second. The \
                 time from just before the writer's `write` to the reader's handling of the event, all clients on one \
                 thread of this machine.",
            ),
            Family::Commands => (
                "Durable commands",
                "Commands acknowledged per CPU second, of the gateway alone and of gateway and Redis together. 50 \
                 clients, each with one command in flight.",
            ),
            Family::Connections => (
                "Connections",
                "Idle connections in rooms of 10, opened a hundred at a time by one client process. Memory is the \
                 gateway's resident set by the operating system.",
            ),
            Family::Flood => (
                "A flooded room",
                "A quiet room of 50 connections, 100 messages a second, on one gateway over Redis, beside another room of 50 \
                 whose configuration allows 100 messages a second: alone, while those 50 together send at that rate, and at \
                 ten times that. Medians of three windows of each in turn; all clients are on this machine, too.",
            ),
            Family::Moves => (
                "Moves",
                "100 members of one room, 50 on each of two gateways over Redis, each telling a new position 20 times a \
                 second, evenly spread: by `move`, which the gateways merge into one frame a tick, and, as it would be \
                 without merging, by a `signal` with the same payload. A position told is one that came to one member. \
                 The first is checked: everyone has been told the last position of everyone else, none older than one \
                 told before, and nobody its own. Writes are counted by Redis's own notifications for the room's key.",
            ),
            Family::LargeRoom => (
                "A large room",
                "Joins one after the other into rooms of 10 members and into one of 10,000, all rooms spread over two \
                 gateways with 10,000 connections and more. Medians of 200 joins; the CPU of a join is what both \
                 gateways, or Redis, used from before it was sent until nothing more came for 10 ms, so that the counts \
                 told once a second fall into a few joins and not into the median. They are in the figure beside it. What \
                 the servers use in a second without joins is taken off.",
            ),
            Family::Growth => (
                "Growth",
                "Gateway CPU time of one delivery as a room's members grow in number (1 room, 1 writer), and of one \
                 acknowledged command (50 clients, each in its own room) as other rooms exist.",
            ),
        }
    }
}

/// One measured value.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub label: String,
    /// What the value counts.
    pub unit: &'static str,
    /// The value.
    pub value: f64,
    /// What it should be.
    pub bar: Option<Bar>,
    /// The same by the clock on the wall, a second; where it is a rate.
    pub wall: Option<f64>,
    /// Whether it is a rate per CPU second, to be compared with bare writes.
    pub per_cpu: bool,
}

impl Figure {
    /// A value that is no rate.
    pub fn plain(label: impl Into<String>, unit: &'static str, value: f64, bar: Option<Bar>) -> Self {
        Self {
            label: label.into(),
            unit,
            value,
            bar,
            wall: None,
            per_cpu: false,
        }
    }

    /// A rate per CPU second.
    pub fn rate(label: impl Into<String>, count: u64, cpu: f64, wall: f64, bar: Option<Bar>) -> Self {
        Self {
            label: label.into(),
            unit: "/CPU s",
            value: count as f64 / cpu.max(f64::EPSILON),
            bar,
            wall: Some(count as f64 / wall),
            per_cpu: true,
        }
    }
}

/// What one run of a scenario gave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The values.
    pub figures: Vec<Figure>,
    /// What was wrong: losses, refusals. A run with any has failed.
    pub problems: Vec<String>,
    /// What the reader of the figures should know.
    pub notes: Vec<String>,
    /// Share of a core that the clients used in the measured window.
    pub client_share: Option<f64>,
}

/// What a scenario does.
type Run = Box<dyn Fn(&Setup) -> Result<Outcome, Failure>>;

/// One scenario.
pub struct Scenario {
    /// Where it belongs.
    pub family: Family,
    /// The name on the command line.
    pub name: String,
    /// Measures once.
    pub run: Run,
}

impl Scenario {
    fn new(
        family: Family,
        name: impl Into<String>,
        run: impl Fn(&Setup) -> Result<Outcome, Failure> + 'static,
    ) -> Self {
        Self {
            family,
            name: name.into(),
            run: Box::new(run),
        }
    }
}

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    let mut scenarios = fanout::scenarios();
    scenarios.extend(latency::scenarios());
    scenarios.extend(commands::scenarios());
    scenarios.extend(connections::scenarios());
    scenarios.extend(flood::scenarios());
    scenarios.extend(moves::scenarios());
    scenarios.extend(large_room::scenarios());
    scenarios.extend(growth::scenarios());
    scenarios
}
