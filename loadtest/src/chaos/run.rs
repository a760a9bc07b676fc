//! One run: servers and clients started, faults done, all brought to rest, and the rooms read once more.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use super::{
    audit,
    checker::RunInfo,
    cluster::{Cluster, Parts},
    crowd::{Crowd, Habits},
    history::{History, Plant},
    journal::Journal,
    scenarios::{Scenario, Stage},
};
use crate::{
    failure::{Failure, check_interrupt},
    process::pause,
};

/// What is the same for all runs.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The gateway's binary.
    pub gateway: PathBuf,
    /// The redis-server binary.
    pub redis: PathBuf,
    /// How many gateways.
    pub gateways: usize,
    /// Bars on times are multiplied by this.
    pub slack: f64,
    /// Settings of the gateways that take the place of the scenario's.
    pub settings: Vec<(String, String)>,
    /// What is recorded wrongly, once in so many deliveries.
    pub plant: Option<(Plant, u64)>,
}

/// Until all clients are in their rooms at the beginning.
const ARRIVAL: Duration = Duration::from_secs(60);
/// Until all are at rest after the faults, times the slack.
const SETTLING: Duration = Duration::from_secs(60);
/// How long a run goes on for the first planted fault.
const PLANTING: Duration = Duration::from_secs(60);
/// How often a line tells how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// Runs `scenario` once, leaving everything that is to be judged in `folder`.
///
/// # Errors
/// It could not be run to its end. What clients suffer is no error: it is in their histories.
pub fn run(scenario: &Scenario, seed: u64, setup: &Setup, folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    let info = RunInfo {
        scenario: scenario.name.to_owned(),
        seed,
        clients: scenario.clients,
        gateways: setup.gateways,
        seconds: scenario.seconds,
        promise: scenario.promise,
        slack: setup.slack,
    };
    let text = serde_json::to_vec_pretty(&info).map_err(std::io::Error::from)?;
    fs::write(folder.join(RunInfo::FILE), text)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let parts = Parts {
        gateway: setup.gateway.clone(),
        redis: setup.redis.clone(),
        gateways: setup.gateways,
        append: scenario.append,
        replica: scenario.replica,
        settings: settings(scenario, setup),
    };
    let mut cluster = Cluster::start(&parts, folder, runtime.handle())?;
    let history = History::create(folder, Instant::now(), setup.plant)?;
    let journal = Journal::create(folder, history.clone())?;
    let habits = Habits {
        rate: scenario.rate,
        rooms_each: 3.min(scenario.rooms),
        padding: scenario.padding,
        receive_buffer: scenario.receive_buffer,
        silence: Duration::from_secs(8),
        unanswered: Duration::from_secs(15),
    };
    let crowd = Crowd::new(cluster.addresses(), habits, history.clone(), scenario.clients);
    let rooms: Vec<String> = (0..scenario.rooms).map(|number| format!("r{number}")).collect();

    if let Some(begins_on) = scenario.begins_on {
        for client in 0..crowd.len() {
            let on = begins_on(client, crowd.len(), cluster.len());
            crowd.order(client, |orders| orders.on = Some(on));
        }
    }
    let progress = Progress::start(scenario.name, crowd.clone());
    let clients = crowd.start(runtime.handle(), seed, &rooms);
    let late = crowd.wait_for(ARRIVAL.mul_f64(setup.slack), |_, view| view.at_rest())?;
    if late > 0 {
        return Err(Failure::Slow(format!(
            "{late} clients are not in their rooms after {ARRIVAL:?}"
        )));
    }
    crowd.send(true);
    // Some load before the first fault.
    pause(Duration::from_secs(1));
    let mut stage = Stage {
        cluster: &mut cluster,
        crowd: &crowd,
        journal: &journal,
        rng: fastrand::Rng::with_seed(seed),
        seconds: Duration::from_secs(scenario.seconds),
        rooms: &rooms,
    };
    (scenario.run)(&mut stage)?;
    // A plant shows nothing before there is one.
    let started = Instant::now();
    while setup.plant.is_some() && history.planted() == 0 && started.elapsed() < PLANTING {
        check_interrupt()?;
        pause(Duration::from_millis(50));
    }
    crowd.send(false);
    settle(&runtime, &crowd, &journal, folder, &rooms, setup.slack)?;

    crowd.order_all(|orders| orders.over = true);
    runtime.block_on(async {
        for client in clients {
            // A client that panicked has an incomplete history.
            client
                .await
                .map_err(|error| Failure::Wrong(format!("a client: {error}")))?;
        }
        Ok::<(), Failure>(())
    })?;
    progress.stop();
    if let Some((plant, _)) = setup.plant {
        journal.note(format!(
            "{} deliveries recorded wrongly on purpose ({plant:?})",
            history.planted()
        ))?;
    }
    history.finish()?;
    runtime.shutdown_timeout(Duration::from_secs(5));
    drop(cluster);
    // What Redis kept is of no use any more, and large.
    for kept in ["redis/appendonlydir", "replica"] {
        let _ = fs::remove_dir_all(folder.join(kept));
    }
    Ok(())
}

/// The gateways' settings: the whole log is kept, so that the audit can read it from the beginning.
fn settings(scenario: &Scenario, setup: &Setup) -> Vec<(String, String)> {
    let usual = [
        ("LOG_SECONDS", "86400"),
        ("LOG_EVENTS", "100000"),
        ("LOG_BYTES", "268435456"),
        ("HEARTBEAT_MS", "10000"),
        ("DRAIN_SECONDS", "10"),
    ];
    let all = usual.iter().chain(scenario.settings);
    let all = all.map(|&(name, value)| (name.to_owned(), value.to_owned()));
    // Of two of a name the last counts.
    all.chain(setup.settings.iter().cloned()).collect()
}

/// Waits until all clients are at rest, reads the rooms, and waits until all have come to the heads read.
fn settle(
    runtime: &Runtime,
    crowd: &Crowd,
    journal: &Journal,
    folder: &Path,
    rooms: &[String],
    slack: f64,
) -> Result<(), Failure> {
    journal.phase("settling")?;
    let started = Instant::now();
    let patience = SETTLING.mul_f64(slack);
    let unsettled = crowd.wait_for(patience, |_, view| view.at_rest() || view.stopped)?;
    if unsettled > 0 {
        journal.note(format!(
            "{unsettled} clients are not at rest {patience:?} after the last fault"
        ))?;
    }
    let heads = runtime.block_on(audit::audit(folder, &crowd.gateways, rooms))?;
    let heads: HashMap<_, _> = heads.into_iter().collect();
    let behind = crowd.wait_for(patience, |_, view| {
        view.stopped
            || view
                .rooms
                .iter()
                .all(|(room, since, _)| match (heads.get(room), since) {
                    (Some(head), Some(since)) => since.epoch == head.epoch && since.seq >= head.seq,
                    (Some(_), None) => false,
                    (None, _) => true,
                })
    })?;
    if behind > 0 {
        journal.note(format!(
            "{behind} clients are not at the heads of their rooms {patience:?} after the audit"
        ))?;
    }
    let took = started.elapsed().as_secs_f64() * 1_000.0;
    journal.measure("from the last fault to rest, audit included", took, "ms", None)?;
    Ok(())
}

/// Tells every few seconds how far a run is.
struct Progress(Arc<AtomicBool>);

impl Progress {
    fn start(name: &'static str, crowd: Arc<Crowd>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        std::thread::spawn(move || {
            let started = Instant::now();
            let mut next = PROGRESS;
            while !told.load(Ordering::Relaxed) {
                pause(Duration::from_millis(100));
                if started.elapsed() < next {
                    continue;
                }
                next += PROGRESS;
                let (connected, at_rest) = crowd.standing();
                eprintln!(
                    "  {name} {:3.0} s: {connected} of {} clients connected, {at_rest} at rest; {} acked, {} deliveries, \
                     {} connections lost",
                    started.elapsed().as_secs_f64(),
                    crowd.len(),
                    crowd.counts.acked.load(Ordering::Relaxed),
                    crowd.history.deliveries(),
                    crowd.counts.lost.load(Ordering::Relaxed),
                );
            }
        });
        Self(over)
    }

    fn stop(self) {}
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
