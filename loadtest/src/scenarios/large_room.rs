//! What it costs to join a room of 10,000, beside what it costs to join a room of 10, and what the 10,000 are told.

use std::time::Duration;

use super::{Cluster, Family, Figure, Outcome, Scenario, Setup, StoreKind, fanout::OPEN_LIMIT};
use crate::{
    bars,
    client::{Fleet, Load, Member, Template},
    failure::Failure,
    process::raise_descriptor_limit,
    report::median,
};

const GATEWAYS: usize = 2;
const SMALL: usize = 10;
const LARGE: usize = 10_000;
/// Joins measured of each kind.
const JOINS: usize = 200;
/// Rooms of 10 that one connection is in; it may be in so many.
const ROOMS_A_CONNECTION: usize = 100;
/// After a join nothing more must come for so long before what it used is read.
const QUIET: Duration = Duration::from_millis(10);
/// How long that may take, where other things go on.
const QUIET_LIMIT: Duration = Duration::from_millis(20);
/// Until what happened has been counted and told.
const LAST_COUNT: Duration = Duration::from_millis(1_500);
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// The large room's number; the small ones follow.
const LARGE_ROOM: usize = 0;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(Family::LargeRoom, "large-room-redis", run)]
}

/// Members of the large room and joins of each kind; what makes it a room that counts.
fn sizes(setup: &Setup) -> (usize, usize, Vec<(&'static str, String)>) {
    if setup.quick {
        return (150, 20, vec![("PRESENCE_FULL_MEMBERS", "100".to_owned())]);
    }
    (LARGE, JOINS, Vec::new())
}

fn run(setup: &Setup) -> Result<Outcome, Failure> {
    raise_descriptor_limit();
    let (large, joins, settings) = sizes(setup);
    let cluster = Cluster::with_settings(setup, StoreKind::Redis, GATEWAYS, settings)?;
    let mut fleet = cluster.fleet(1 + joins)?;
    // Readers of the rooms of 10: each connection is in a hundred of them.
    let mut members = Vec::new();
    for first in (1..=joins).step_by(ROOMS_A_CONNECTION) {
        let rooms = first..(first + ROOMS_A_CONNECTION).min(joins + 1);
        members.extend((0..SMALL).map(|n| Member::reader(n % GATEWAYS, rooms.clone())));
    }
    fleet.open(members, OPEN_LIMIT)?;
    // The one that writes at the end, so that everybody has something to be told.
    let first = fleet.len();
    let template = Template::message(fleet.room(LARGE_ROOM), 100);
    let mut members = vec![Member::writer(0, LARGE_ROOM, template)];
    members.extend((1..large).map(|n| Member::reader(n % GATEWAYS, LARGE_ROOM..LARGE_ROOM + 1)));
    let before = cluster.fine_usage()?.gateways;
    let opened = fleet.open(members, OPEN_LIMIT)?;
    let opening = cluster.fine_usage()?.gateways.saturating_sub(before);
    let joiner = |n: usize, room: usize| Member::reader(n % GATEWAYS, room..room + 1).waiting();
    let to_small = fleet.len();
    fleet.open((0..joins).map(|n| joiner(n, 1 + n)).collect(), OPEN_LIMIT)?;
    let to_large = fleet.len();
    fleet.open((0..joins).map(|n| joiner(n, LARGE_ROOM)).collect(), OPEN_LIMIT)?;
    fleet.settle(Duration::from_millis(1_500), Duration::from_secs(20))?;

    let small = Joins::measure(&cluster, &mut fleet, to_small, joins)?;
    fleet.settle(Duration::from_millis(100), Duration::from_secs(5))?;
    let before: Vec<_> = (first..first + large).map(|n| fleet.presence(n)).collect();
    let big = Joins::measure(&cluster, &mut fleet, to_large, joins)?;
    // The last count comes up to a second after the last join.
    fleet.run(Load::Idle, LAST_COUNT)?;
    let told: Vec<_> = (first..first + large)
        .zip(before)
        .map(|(n, before)| {
            let now = fleet.presence(n);
            (
                now.events - before.events,
                now.counts - before.counts,
                now.members,
            )
        })
        .collect();
    // One message reaches every member, at the place behind the last that each has seen.
    fleet.run(Load::Paced(1), Duration::from_millis(100))?;
    fleet.drain()?;

    let mut outcome = Outcome {
        problems: fleet.problems(),
        ..Outcome::default()
    };
    small.figures(SMALL, &mut outcome);
    big.figures(large, &mut outcome);
    ratios(&small, &big, &mut outcome);
    storm(&told, big.wall, large, joins, &mut outcome);
    outcome.figures.push(Figure::plain(
        format!("{large} members opened and joined, a hundred at a time"),
        "s",
        opened.as_secs_f64(),
        None,
    ));
    outcome.figures.push(Figure::plain(
        format!("— gateways' CPU of each, all that was told meanwhile included, of {large}"),
        "µs",
        opening.as_secs_f64() * 1e6 / large as f64,
        None,
    ));
    Ok(outcome)
}

/// What joins took and used, one value each.
struct Joins {
    /// From sending the join to its answer, ms.
    times: Vec<f64>,
    /// CPU of all gateways, µs.
    gateways: Vec<f64>,
    /// CPU of Redis, µs.
    redis: Vec<f64>,
    /// All of it together, seconds by the clock.
    wall: f64,
    /// CPU of all gateways over all of it, what came between the joins included: µs a join.
    all_in: f64,
}

/// What servers use that have nothing to do: CPU seconds a second, of all gateways and of Redis.
struct Idle {
    gateways: f64,
    redis: f64,
}

impl Idle {
    fn measure(cluster: &Cluster, fleet: &mut Fleet) -> Result<Self, Failure> {
        let before = cluster.fine_usage()?;
        fleet.run(Load::Idle, Duration::from_secs(1))?;
        let after = cluster.fine_usage()?;
        let wall = (after.at - before.at).as_secs_f64();
        Ok(Self {
            gateways: after.gateways.saturating_sub(before.gateways).as_secs_f64() / wall,
            redis: after.redis.saturating_sub(before.redis).as_secs_f64() / wall,
        })
    }
}

impl Joins {
    /// One join after the other, of the connections from `first` on; what each used is read when nothing more comes, and
    /// what would have been used without it is not counted.
    fn measure(cluster: &Cluster, fleet: &mut Fleet, first: usize, count: usize) -> Result<Self, Failure> {
        let idle = Idle::measure(cluster, fleet)?;
        let used = |before: Duration, now: Duration, idle: f64, wall: Duration| {
            let used = now.saturating_sub(before).as_secs_f64() - idle * wall.as_secs_f64();
            used.max(0.0) * 1e6
        };
        let mut joins = Self {
            times: Vec::new(),
            gateways: Vec::new(),
            redis: Vec::new(),
            wall: 0.0,
            all_in: 0.0,
        };
        let started = cluster.fine_usage()?;
        let mut last = started;
        for connection in first..first + count {
            let took = fleet.enter(connection, JOIN_LIMIT)?;
            fleet.settle(QUIET, QUIET_LIMIT)?;
            let now = cluster.fine_usage()?;
            joins.times.push(took.as_secs_f64() * 1e3);
            let wall = now.at - last.at;
            joins
                .gateways
                .push(used(last.gateways, now.gateways, idle.gateways, wall));
            joins.redis.push(used(last.redis, now.redis, idle.redis, wall));
            last = now;
        }
        let wall = last.at - started.at;
        joins.wall = wall.as_secs_f64();
        joins.all_in = used(started.gateways, last.gateways, idle.gateways, wall) / count as f64;
        Ok(joins)
    }

    fn figures(&self, members: usize, outcome: &mut Outcome) {
        let mut add =
            |label: String, unit, value| outcome.figures.push(Figure::plain(label, unit, value, None));
        add(
            format!("a join of a room of {members}, until its answer"),
            "ms",
            median(&self.times),
        );
        add(
            format!("— gateways' CPU, of {members}"),
            "µs",
            median(&self.gateways),
        );
        add(format!("— Redis's CPU, of {members}"), "µs", median(&self.redis));
        add(
            format!("— gateways' CPU a join, all that was told meanwhile included, of {members}"),
            "µs",
            self.all_in,
        );
        let rate = self.times.len() as f64 / self.wall;
        add(format!("— at so many joins, of {members}"), "/s", rate);
    }
}

fn ratios(small: &Joins, large: &Joins, outcome: &mut Outcome) {
    let pairs = [
        ("time until the answer", &small.times, &large.times),
        ("gateways' CPU", &small.gateways, &large.gateways),
        ("Redis's CPU", &small.redis, &large.redis),
    ];
    for (what, small, large) in pairs {
        outcome.figures.push(Figure::plain(
            format!("a join, large : small, {what}"),
            "×",
            median(large) / median(small),
            Some(bars::LARGE_JOIN),
        ));
    }
}

/// What each member of the large room was told while others joined: events, counts, and what the last count was.
fn storm(told: &[(u64, u64, u64)], wall: f64, large: usize, joins: usize, outcome: &mut Outcome) {
    let events: u64 = told.iter().map(|&(events, ..)| events).sum();
    let most = told.iter().map(|&(_, counts, _)| counts).max().unwrap_or(0);
    let members = (large + joins) as u64;
    let wrong = told.iter().filter(|&&(_, _, last)| last != members).count();
    if events > 0 {
        outcome.problems.push(format!(
            "{events} presence events came to members of a room that counts"
        ));
    }
    if wrong > 0 {
        outcome.problems.push(format!(
            "{wrong} members were not told at last that there are {members}"
        ));
    }
    let mut add =
        |label: String, unit, value, bar| outcome.figures.push(Figure::plain(label, unit, value, bar));
    // Of n frames, n - 1 times lie between them.
    add(
        format!("`occupancy` frames a member and second while {joins} more join, the member with most"),
        "/s",
        most.saturating_sub(1) as f64 / (wall + LAST_COUNT.as_secs_f64()),
        Some(bars::OCCUPANCY_FRAMES),
    );
    add(
        "— `presence` events meanwhile, all members together".to_owned(),
        "",
        events as f64,
        None,
    );
}
