//! The servers of a scenario, and what they and the clients use in a measured window.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{Setup, StoreKind, keys::KeyWatch};
use crate::{
    client::{Fleet, Load, Positions},
    cpu,
    failure::Failure,
    process::{Gateway, Redis},
};

/// Long enough that no ping falls into a short measurement.
const QUIET_HEARTBEAT_MS: u64 = 600_000;

/// The servers of one scenario.
pub(super) struct Cluster {
    // Dropped in this order: gateways before the Redis they are on.
    pub(super) gateways: Vec<Gateway>,
    pub(super) redis: Option<Redis>,
    /// Writes to a key that are counted.
    pub(super) writes: Option<KeyWatch>,
}

impl Cluster {
    pub(super) fn start(setup: &Setup, store: StoreKind, gateways: usize) -> Result<Self, Failure> {
        Self::with_heartbeat(setup, store, gateways, QUIET_HEARTBEAT_MS)
    }

    pub(super) fn with_heartbeat(
        setup: &Setup,
        store: StoreKind,
        gateways: usize,
        heartbeat_ms: u64,
    ) -> Result<Self, Failure> {
        Self::with(
            setup,
            store,
            gateways,
            &[("HEARTBEAT_MS", heartbeat_ms.to_string())],
        )
    }

    /// With these settings, and no heartbeat that falls into a short measurement.
    pub(super) fn with_settings(
        setup: &Setup,
        store: StoreKind,
        gateways: usize,
        mut settings: Vec<(&'static str, String)>,
    ) -> Result<Self, Failure> {
        settings.push(("HEARTBEAT_MS", QUIET_HEARTBEAT_MS.to_string()));
        Self::with(setup, store, gateways, &settings)
    }

    fn with(
        setup: &Setup,
        store: StoreKind,
        gateways: usize,
        settings: &[(&'static str, String)],
    ) -> Result<Self, Failure> {
        let redis = match store {
            StoreKind::Redis => Some(Redis::start(&setup.redis, &setup.logs)?),
            StoreKind::Memory => None,
        };
        let gateways = (0..gateways)
            .map(|number| Gateway::start(&setup.gateway, &setup.logs, number, redis.as_ref(), settings))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            gateways,
            redis,
            writes: None,
        })
    }

    pub(super) fn fleet(&self, rooms: usize) -> Result<Fleet, Failure> {
        Fleet::new(
            self.gateways.iter().map(|gateway| gateway.address).collect(),
            rooms,
        )
    }

    pub(super) fn usage(&self, fleet: &Fleet) -> Result<Usage, Failure> {
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
            positions: fleet.positions.as_ref().map_or_else(Vec::new, Positions::counts),
            writes: self.writes.as_ref().map_or(Ok(0), KeyWatch::count)?,
        })
    }

    /// What the servers have used, to the nanosecond.
    pub(super) fn fine_usage(&self) -> Result<FineUsage, Failure> {
        let mut gateways = Duration::ZERO;
        for gateway in &self.gateways {
            gateways += cpu::fine_cpu_time(gateway.pid())?;
        }
        let redis = self.redis.as_ref().map(|redis| cpu::fine_cpu_time(redis.pid()));
        Ok(FineUsage {
            at: Instant::now(),
            gateways,
            redis: redis.transpose()?.unwrap_or_default(),
        })
    }
}

/// CPU time of all gateways together and of Redis.
#[derive(Clone, Copy)]
pub(super) struct FineUsage {
    pub(super) at: Instant,
    pub(super) gateways: Duration,
    pub(super) redis: Duration,
}

pub(super) struct Usage {
    pub(super) at: Instant,
    pub(super) gateways: Vec<f64>,
    pub(super) redis: f64,
    pub(super) clients: f64,
    pub(super) delivered: Vec<u64>,
    pub(super) acked: u64,
    pub(super) positions: Vec<(u64, u64)>,
    pub(super) writes: u64,
}

/// What was done and used in a measured window.
pub(super) struct Window {
    /// Seconds by the clock.
    pub(super) wall: f64,
    /// CPU seconds of each gateway.
    pub(super) gateways: Vec<f64>,
    /// CPU seconds of Redis.
    pub(super) redis: f64,
    /// CPU seconds of the clients.
    pub(super) clients: f64,
    /// Events received from each gateway.
    pub(super) delivered: Vec<u64>,
    /// Commands acknowledged.
    pub(super) acked: u64,
    /// Frames with positions and positions that came, by connection.
    pub(super) positions: Vec<(u64, u64)>,
    /// Writes to the key that is watched.
    pub(super) writes: u64,
}

impl Window {
    pub(super) fn between(before: &Usage, after: &Usage) -> Self {
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
            positions: before
                .positions
                .iter()
                .zip(&after.positions)
                .map(|(a, b)| (b.0 - a.0, b.1 - a.1))
                .collect(),
            writes: after.writes - before.writes,
        }
    }

    pub(super) fn gateway_cpu(&self) -> f64 {
        self.gateways.iter().sum()
    }

    pub(super) fn deliveries(&self) -> u64 {
        self.delivered.iter().sum()
    }

    pub(super) fn client_share(&self) -> f64 {
        self.clients / self.wall
    }
}

/// Warms up, measures a window of `load`, then ends the writing and checks that nothing is missing.
pub(super) fn measure(
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
    if let Some(positions) = &mut fleet.positions {
        positions.latency.clear();
    }
    let before = cluster.usage(fleet)?;
    fleet.run(load, setup.window)?;
    let after = cluster.usage(fleet)?;
    drop(profile);
    fleet.drain()?;
    Ok(Window::between(&before, &after))
}

/// `perf record` of the servers for the length of a window; waits for it when dropped.
struct Profile(Vec<Child>);

impl Profile {
    fn start(into: &Path, name: &str, cluster: &Cluster, window: Duration) -> Self {
        let gateways = cluster.gateways.iter().enumerate();
        let named = gateways.map(|(number, gateway)| (format!("gateway-{number}"), gateway.pid()));
        let redis = cluster
            .redis
            .iter()
            .map(|redis| ("redis".to_owned(), redis.pid()));
        let children = named.chain(redis).map(|(whose, pid)| {
            Command::new("perf")
                .args(["record", "-q", "-F", "1999", "-g", "-p", &pid.to_string(), "-o"])
                .arg(into.join(format!("{name}-{whose}.perf.data")))
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
