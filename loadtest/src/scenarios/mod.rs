//! What is measured: one file a family, each scenario with servers of its own.

mod commands;
mod connections;
mod fanout;
mod growth;
mod latency;

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    bars::Bar,
    client::{Fleet, Load},
    cpu,
    failure::Failure,
    process::{Gateway, Program, Redis},
};

/// Bytes of JSON of a message's body or of a patched value.
pub const BODY_BYTES: usize = 100;
/// Long enough that no ping falls into a short measurement.
const QUIET_HEARTBEAT_MS: u64 = 600_000;

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
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Events to many members.
    Fanout,
    /// Time from publish to delivery.
    Latency,
    /// Durable commands.
    Commands,
    /// Many idle connections.
    Connections,
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
        Family::Growth,
    ];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::Fanout => "fanout",
            Family::Latency => "latency",
            Family::Commands => "commands",
            Family::Connections => "connections",
            Family::Growth => "growth",
        }
    }

    /// Whether the bare server is measured beside the gateway.
    pub fn has_bare(self) -> bool {
        matches!(self, Family::Fanout | Family::Latency | Family::Commands)
    }

    /// The report's heading and what its figures are.
    pub fn about(self) -> (&'static str, &'static str) {
        match self {
            Family::Fanout => (
                "Fan-out",
                "Deliveries per gateway CPU second. Each writer has one `message.send` with a body of 100 bytes in \
                 flight and sends the next when it is acknowledged; every member, the writers too, gets every message.",
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
                "Idle connections in rooms of 10, opened a few hundred at a time by one client process. Memory is the \
                 gateway's resident set by the operating system.",
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
    scenarios.extend(growth::scenarios());
    scenarios
}

/// The servers of one scenario.
struct Cluster {
    // Dropped in this order: gateways before the Redis they are on.
    gateways: Vec<Gateway>,
    redis: Option<Redis>,
}

impl Cluster {
    fn start(setup: &Setup, store: StoreKind, gateways: usize) -> Result<Self, Failure> {
        Self::with_heartbeat(setup, store, gateways, QUIET_HEARTBEAT_MS)
    }

    fn with_heartbeat(
        setup: &Setup,
        store: StoreKind,
        gateways: usize,
        heartbeat_ms: u64,
    ) -> Result<Self, Failure> {
        let redis = match store {
            StoreKind::Redis => Some(Redis::start(&setup.redis, &setup.logs)?),
            StoreKind::Memory => None,
        };
        let gateways = (0..gateways)
            .map(|number| Gateway::start(&setup.gateway, &setup.logs, number, redis.as_ref(), heartbeat_ms))
            .collect::<Result<_, _>>()?;
        Ok(Self { gateways, redis })
    }

    fn fleet(&self, rooms: usize) -> Result<Fleet, Failure> {
        Fleet::new(
            self.gateways.iter().map(|gateway| gateway.address).collect(),
            rooms,
        )
    }

    fn usage(&self, fleet: &Fleet) -> Result<Usage, Failure> {
        let mut gateways = Vec::new();
        for gateway in &self.gateways {
            gateways.push(cpu::cpu_time(gateway.pid())?.as_secs_f64());
        }
        let redis = self
            .redis
            .as_ref()
            .map(|redis| cpu::cpu_time(redis.pid()))
            .transpose()?;
        Ok(Usage {
            at: Instant::now(),
            gateways,
            redis: redis.unwrap_or_default().as_secs_f64(),
            clients: cpu::own_time().as_secs_f64(),
            delivered: fleet.tally().delivered.clone(),
            acked: fleet.tally().acked,
        })
    }
}

struct Usage {
    at: Instant,
    gateways: Vec<f64>,
    redis: f64,
    clients: f64,
    delivered: Vec<u64>,
    acked: u64,
}

/// What was done and used in a measured window.
struct Window {
    /// Seconds by the clock.
    wall: f64,
    /// CPU seconds of each gateway.
    gateways: Vec<f64>,
    /// CPU seconds of Redis.
    redis: f64,
    /// CPU seconds of the clients.
    clients: f64,
    /// Events received from each gateway.
    delivered: Vec<u64>,
    /// Commands acknowledged.
    acked: u64,
}

impl Window {
    fn between(before: &Usage, after: &Usage) -> Self {
        let pairs = |a: &[u64], b: &[u64]| a.iter().zip(b).map(|(a, b)| b - a).collect();
        Self {
            wall: (after.at - before.at).as_secs_f64(),
            gateways: before
                .gateways
                .iter()
                .zip(&after.gateways)
                .map(|(a, b)| b - a)
                .collect(),
            redis: after.redis - before.redis,
            clients: after.clients - before.clients,
            delivered: pairs(&before.delivered, &after.delivered),
            acked: after.acked - before.acked,
        }
    }

    fn gateway_cpu(&self) -> f64 {
        self.gateways.iter().sum()
    }

    fn deliveries(&self) -> u64 {
        self.delivered.iter().sum()
    }

    fn client_share(&self) -> f64 {
        self.clients / self.wall
    }
}

/// Warms up, measures a window of `load`, then ends the writing and checks that nothing is missing.
fn measure(
    setup: &Setup,
    name: &str,
    cluster: &Cluster,
    fleet: &mut Fleet,
    load: Load,
) -> Result<Window, Failure> {
    fleet.settle(Duration::from_millis(100), Duration::from_secs(10))?;
    fleet.run(load, setup.warmup)?;
    let profile = setup
        .profile
        .as_ref()
        .map(|into| Profile::start(into, name, cluster, setup.window));
    if let Some(latency) = &mut fleet.latency {
        latency.clear();
    }
    let before = cluster.usage(fleet)?;
    fleet.run(load, setup.window)?;
    let after = cluster.usage(fleet)?;
    drop(profile);
    fleet.drain()?;
    Ok(Window::between(&before, &after))
}

/// `perf record` of the gateways for the length of a window; waits for it when dropped.
struct Profile(Vec<Child>);

impl Profile {
    fn start(into: &std::path::Path, name: &str, cluster: &Cluster, window: Duration) -> Self {
        let children = cluster.gateways.iter().enumerate().map(|(number, gateway)| {
            Command::new("perf")
                .args([
                    "record",
                    "-q",
                    "-F",
                    "1999",
                    "-g",
                    "-p",
                    &gateway.pid().to_string(),
                    "-o",
                ])
                .arg(into.join(format!("{name}-{number}.perf.data")))
                .args(["--", "sleep", &window.as_secs_f64().to_string()])
                .stdin(Stdio::null())
                .spawn()
        });
        Self(children.filter_map(Result::ok).collect())
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}
