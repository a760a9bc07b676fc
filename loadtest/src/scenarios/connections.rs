//! Many connections that say nothing: how fast they come, what they cost in memory, and what keeping them costs.

use std::time::Duration;

use super::{Cluster, Family, Figure, Outcome, Scenario, Setup, StoreKind, Window, fanout::OPEN_LIMIT};
use crate::{
    bars,
    client::{Fleet, Load, Member},
    cpu,
    failure::Failure,
    process::{pause, raise_descriptor_limit},
};

const ROOM_OF: usize = 10;
const HEARTBEAT_MS: u64 = 25_000;
/// What a process needs besides its connections.
const SPARE_DESCRIPTORS: u64 = 200;
/// The first part of the connections, on which the slope of memory begins.
const FIRST: (usize, usize) = (10, 19);

pub(super) fn scenarios() -> Vec<Scenario> {
    [StoreKind::Redis, StoreKind::Memory]
        .into_iter()
        .map(|store| {
            let name = format!("connections-{}", store.as_str());
            Scenario::new(Family::Connections, name, move |setup| run(setup, store))
        })
        .collect()
}

fn run(setup: &Setup, store: StoreKind) -> Result<Outcome, Failure> {
    let limit =
        usize::try_from(raise_descriptor_limit().saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(usize::MAX);
    let total = setup.connections.min(limit) / ROOM_OF * ROOM_OF;
    let first = total * FIRST.0 / FIRST.1 / ROOM_OF * ROOM_OF;
    let exact = !setup.quick && total == 19_000;

    let cluster = Cluster::with_heartbeat(setup, store, 1, HEARTBEAT_MS)?;
    let gateway = cluster.gateways[0].pid();
    let mut fleet = cluster.fleet(total / ROOM_OF)?;
    let members = |from: usize, to: usize| {
        let member = |n: usize| Member::reader(0, n / ROOM_OF..n / ROOM_OF + 1);
        (from..to).map(member).collect::<Vec<_>>()
    };
    let before = cluster.usage(&fleet)?;
    let opened = fleet.open(members(0, first), OPEN_LIMIT)?;
    let opening = Window::between(&before, &cluster.usage(&fleet)?);
    fleet.settle(Duration::from_millis(500), Duration::from_secs(10))?;
    let memory_first = cpu::resident_bytes(gateway)?;
    fleet.open(members(first, total), OPEN_LIMIT)?;
    fleet.settle(Duration::from_millis(500), Duration::from_secs(10))?;
    let memory_all = cpu::resident_bytes(gateway)?;

    // The bare server has no heartbeats.
    let idle = if setup.is_bare() {
        None
    } else {
        Some(idle(setup, &cluster, &mut fleet, total)?)
    };
    fleet.drain()?;

    let mut outcome = Outcome {
        problems: fleet.problems(),
        ..Outcome::default()
    };
    if fleet.joined() != total {
        outcome
            .problems
            .push(format!("{} of {total} connections held", fleet.joined()));
    }
    if total < setup.connections {
        outcome.notes.push(format!(
            "a process may have too few descriptors here: {total} connections instead of {}",
            setup.connections
        ));
    }
    let bar = |bar| exact.then_some(bar);
    let of = store.as_str();
    let mut add = |label, unit, value, bar| outcome.figures.push(Figure::plain(label, unit, value, bar));
    let opened = opened.as_secs_f64();
    add(
        format!("{first} connections opened and joined, {of}"),
        "s",
        opened,
        bar(bars::OPEN_10_000),
    );
    add(
        format!("— gateway's CPU for {first}, {of}"),
        "s",
        opening.gateway_cpu(),
        None,
    );
    if store == StoreKind::Redis {
        add(format!("— Redis's CPU for {first}"), "s", opening.redis, None);
    }
    let slope = (memory_all as f64 - memory_first as f64) / (total - first) as f64;
    let label = format!("memory of a connection: slope from {first} to {total}, {of}");
    add(
        label,
        "bytes",
        slope,
        bar(bars::CONNECTION_BYTES).filter(|_| store == StoreKind::Redis),
    );
    add(
        format!("resident memory with {total}, {of}"),
        "MiB",
        memory_all as f64 / 1_048_576.0,
        None,
    );
    if let Some(share) = idle {
        let seconds = setup.idle.as_secs_f64();
        let label = format!("{total} idle for {seconds:.0} s, heartbeats every 25 s, {of}");
        add(label, "% of a core", 100.0 * share, bar(bars::IDLE_CORE_PERCENT));
    }
    // The ports of this many connections take a moment to come free.
    drop((fleet, cluster));
    pause(Duration::from_millis(200));
    Ok(outcome)
}

/// The share of a core that the gateway needs to keep connections that say nothing.
fn idle(setup: &Setup, cluster: &Cluster, fleet: &mut Fleet, total: usize) -> Result<f64, Failure> {
    let before = cluster.usage(fleet)?;
    fleet.run(Load::Idle, setup.idle)?;
    let after = cluster.usage(fleet)?;
    let pings = fleet.tally().pings;
    if setup.idle > 2 * Duration::from_millis(HEARTBEAT_MS) && pings < total as u64 {
        return Err(Failure::Wrong(format!(
            "{pings} pings for {total} connections in {:?}",
            setup.idle
        )));
    }
    Ok((after.gateways[0] - before.gateways[0]) / (after.at - before.at).as_secs_f64())
}
