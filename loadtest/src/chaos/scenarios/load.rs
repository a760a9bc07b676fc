//! Clients that read nothing, and clients that come all at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::Stage;
use crate::{
    chaos::{checker::STOPPED_READING, cluster::Side, journal::Act},
    cpu,
    failure::Failure,
    process::pause,
};

/// What a gateway may grow by for each reader that has stopped: its outbox and as much again.
const BYTES_PER_STOPPED: f64 = 2.0 * 262_144.0;
/// How long it takes, at least, until the kernel's buffers and the outboxes of those who do not read are full.
const FILLING: Duration = Duration::from_secs(20);
/// What it may grow by besides, bytes.
const BYTES_BESIDES: f64 = 32.0 * 1_048_576.0;

pub(super) fn stopped_readers(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let mut stopped: Vec<usize> = (0..stage.crowd.len()).collect();
    stage.rng.shuffle(&mut stopped);
    stopped.truncate((stage.crowd.len() / 10).max(1));
    let numbers = stopped.iter().filter_map(|&client| u32::try_from(client).ok());
    stage.journal.write(Act::Apart {
        clients: numbers.collect(),
        why: "they stop reading; their times do not count".to_owned(),
    })?;
    stage.journal.phase("before")?;
    stage.rest(stage.seconds / 2)?;
    let before = resident(stage);
    stage.journal.fault(STOPPED_READING, None)?;
    for &client in &stopped {
        stage.crowd.order(client, |orders| orders.reading = false);
    }
    stage.journal.phase("during")?;
    let until = Instant::now() + FILLING.max(stage.seconds / 2);
    let mut most = before;
    while Instant::now() < until {
        stage.rest(Duration::from_millis(500))?;
        most = most.max(resident(stage));
    }
    stage.journal.phase("after")?;
    let bound = stopped.len() as f64 * BYTES_PER_STOPPED + BYTES_BESIDES;
    let mib = |bytes: f64| bytes / 1_048_576.0;
    let grown = most as f64 - before as f64;
    stage
        .journal
        .measure("gateways' memory, before", mib(before as f64), "MiB", None)?;
    stage
        .journal
        .measure("gateways' memory, growth", mib(grown), "MiB", Some(mib(bound)))?;
    for &client in &stopped {
        stage.crowd.order(client, |orders| orders.reading = true);
    }
    Ok(())
}

/// Of all gateways together, bytes.
fn resident(stage: &Stage<'_>) -> u64 {
    let pids = (0..stage.cluster.len()).filter_map(|gateway| stage.cluster.pid(gateway));
    pids.filter_map(|pid| cpu::resident_bytes(pid).ok()).sum()
}

pub(super) fn reconnect_crowd(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.repeat(Duration::from_secs(15), |stage| {
        let redis = Side::connect(stage.cluster.redis_port())?;
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let watching = std::thread::spawn(move || ping_times(redis, &told));
        stage.journal.fault("all connections dropped at once", None)?;
        let before: Vec<u64> = (0..stage.crowd.len())
            .map(|client| stage.crowd.view(client).losses)
            .collect();
        let started = Instant::now();
        stage.crowd.order_all(|orders| orders.drops += 1);
        let back = stage.crowd.wait_for(Duration::from_secs(60), |client, view| {
            view.losses > before[client] && view.rooms.iter().all(|(_, _, joined)| *joined)
        });
        over.store(true, Ordering::Relaxed);
        let mut times = watching
            .join()
            .map_err(|_| Failure::Wrong("the thread that asks Redis panicked".to_owned()))??;
        back?;
        let all = started.elapsed().as_secs_f64() * 1_000.0;
        stage
            .journal
            .measure("all clients in their rooms again", all, "ms", Some(10_000.0))?;
        times.sort_unstable();
        let p99 = times.get((times.len() * 99 / 100).min(times.len().saturating_sub(1)));
        let p99 = p99.map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0);
        stage
            .journal
            .measure("Redis PING meanwhile, p99", p99, "ms", Some(50.0))?;
        Ok(())
    })
}

/// How long Redis takes to answer while others keep it busy, asked every few ms.
fn ping_times(mut redis: Side, over: &AtomicBool) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let started = Instant::now();
        redis.ask(&["PING"])?;
        times.push(started.elapsed());
        pause(Duration::from_millis(5));
    }
    Ok(times)
}
