//! How long things took, and whether that is within what the scenario promises.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Figure, Rule, presence,
    streams::Reading,
    tables::{Client, Command},
};
use crate::chaos::journal::Act;

/// How many there are, and how they are spread; milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// The middle one.
    pub p50: f64,
    /// What 99 of 100 do not pass.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of microseconds, which are sorted.
    pub(super) fn of_micros(micros: &mut [u64]) -> Self {
        micros.sort_unstable();
        let at = |share: f64| {
            let place = (micros.len() as f64 * share).ceil() as usize;
            micros
                .get(place.max(1) - 1)
                .map_or(0.0, |&micros| micros as f64 / 1_000.0)
        };
        Self {
            count: micros.len(),
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// From first sending a command to its event at each client.
pub(super) fn delays<'a>(
    deliveries: impl IntoIterator<Item = &'a (u32, u64, u32)>,
    commands: &[Command],
) -> Vec<u64> {
    let delays = deliveries.into_iter().filter_map(|&(command, at, _)| {
        let sent = commands[command as usize].sent?;
        Some(at.saturating_sub(sent))
    });
    delays.collect()
}

/// A phase of the run by its name: from, to.
fn phase(reading: &Reading, wanted: &str) -> Option<(u64, u64)> {
    let mut phases = reading.entries.iter().filter_map(|entry| match &entry.what {
        Act::Phase { name } => Some((entry.at, name.as_str())),
        Act::Fault { .. }
        | Act::Measure { .. }
        | Act::Never { .. }
        | Act::Note { .. }
        | Act::Gone { .. }
        | Act::Apart { .. } => None,
    });
    let from = phases.by_ref().find(|(_, name)| *name == wanted)?.0;
    Some((from, phases.next().map_or(u64::MAX, |(at, _)| at)))
}

/// When something was done to a gateway: when, what, which.
fn faults(reading: &Reading) -> Vec<(u64, String, usize)> {
    let faults = reading.entries.iter().filter_map(|entry| match &entry.what {
        Act::Fault {
            what,
            gateway: Some(gateway),
            ..
        } => Some((entry.at, what.clone(), *gateway)),
        Act::Fault { .. }
        | Act::Measure { .. }
        | Act::Never { .. }
        | Act::Phase { .. }
        | Act::Note { .. }
        | Act::Gone { .. }
        | Act::Apart { .. } => None,
    });
    faults.collect()
}

/// What `SIGSTOP` is called in the journal.
pub const FROZEN: &str = "gateway frozen (SIGSTOP)";
/// What it is called in the journal that clients stop reading.
pub const STOPPED_READING: &str = "clients stop reading";
/// What a cut of the subscriptions is called in the journal.
pub const SUBSCRIPTION_CUT: &str = "subscription cut";

impl Client {
    fn gateway_at(&self, at: u64) -> Option<usize> {
        let stay = self.stays.iter().rev().find(|stay| stay.from <= at)?;
        (at <= stay.to).then_some(stay.gateway)
    }
}

/// The figures of the run; those above their bars are violations.
pub(super) fn judge(reading: &mut Reading) -> Vec<Figure> {
    let promise = reading.info.promise;
    let slack = reading.info.slack;
    let mut figures: BTreeMap<String, Figure> = BTreeMap::new();
    let mut add = |what: &str, value: f64, unit: &str, at_most: Option<f64>| {
        let figure = figures.entry(what.to_owned()).or_insert_with(|| Figure {
            what: what.to_owned(),
            times: 0,
            worst: f64::NEG_INFINITY,
            unit: unit.to_owned(),
            at_most: at_most.map(|bar| bar * slack),
        });
        figure.times += 1;
        // What is no number was not measured, and is no good figure.
        let value = if value.is_nan() { f64::INFINITY } else { value };
        figure.worst = figure.worst.max(value);
    };
    let mut never = Vec::new();
    for entry in &reading.entries {
        if let Act::Never { what, waited_ms } = &entry.what {
            never.push(format!("{what}: not within {waited_ms:.0} ms"));
        }
        if let Act::Measure {
            what,
            value,
            unit,
            at_most,
        } = &entry.what
        {
            add(what, *value, unit, *at_most);
        }
    }
    let resumes = Spread::of_micros(&mut reading.sums.resumes.clone());
    if let Some(bar) = promise.resume_p99_ms {
        add("resume, p99", resumes.p99, "ms", Some(bar));
    }
    if let Some(bar) = promise.resume_max_ms {
        add("resume, slowest", resumes.max, "ms", Some(bar));
    }
    if let Some(bar) = promise.elsewhere_ms {
        for slowest in elsewhere(reading) {
            add("in their rooms on another gateway", slowest, "ms", Some(bar));
        }
    }
    if let Some(bar) = promise.repair_p99_ms {
        let spread = Spread::of_micros(&mut repairs(reading));
        if spread.count > 0 {
            add(
                "the slowest delivery after a cut, p99 of cuts",
                spread.p99,
                "ms",
                Some(bar),
            );
        }
    }
    if let Some(bar) = promise.others_times {
        let damaged = reading.damaged();
        let of_phase = |name| {
            let (from, to) = phase(reading, name)?;
            let within = |&&(command, at, client): &&(u32, u64, u32)| {
                let room = reading.commands[command as usize].room;
                let apart = reading.apart.contains(&client) || damaged.contains(reading.rooms.name(room));
                (from..to).contains(&at) && !apart
            };
            let chosen = reading.deliveries.iter().filter(within);
            Some(Spread::of_micros(&mut delays(chosen, &reading.commands)))
        };
        if let (Some(before), Some(during)) = (of_phase("before"), of_phase("during")) {
            add("others' delivery p99, before", before.p99, "ms", None);
            add("others' delivery p99, during", during.p99, "ms", None);
            add(
                "others' delivery p99, during over before",
                during.p99 / before.p99,
                "×",
                Some(bar),
            );
        }
    }
    for (what, value, unit, bar) in presence::deaths(reading) {
        add(&what, value, unit, bar);
    }
    let figures: Vec<Figure> = figures.into_values().collect();
    for text in never {
        reading.violations.add(Rule::Bar, || text);
    }
    for figure in &figures {
        if let Some(bar) = figure.at_most.filter(|&bar| figure.worst > bar) {
            reading.violations.add(Rule::Bar, || {
                format!(
                    "{}: {:.1} {}, at most {bar:.1}",
                    figure.what, figure.worst, figure.unit
                )
            });
        }
    }
    figures
}

/// For each freeze, how long the slowest of the gateway's clients took to be in its rooms elsewhere; milliseconds.
fn elsewhere(reading: &Reading) -> Vec<f64> {
    let mut slowest = Vec::new();
    for (at, _, gateway) in faults(reading).into_iter().filter(|(_, what, _)| what == FROZEN) {
        let there = reading
            .clients
            .values()
            .filter(|client| client.gateway_at(at) == Some(gateway));
        let times = there.map(|client| {
            let other = client
                .stays
                .iter()
                .filter(|stay| stay.gateway != gateway)
                .find_map(|stay| stay.joined.filter(|&joined| joined > at));
            other.map_or(f64::INFINITY, |joined| (joined - at) as f64 / 1_000.0)
        });
        slowest.extend(times.fold(None, |worst: Option<f64>, time| {
            Some(worst.map_or(time, |worst| worst.max(time)))
        }));
    }
    slowest
}

/// For each cut of a gateway's subscription, the slowest delivery to its clients within the next two seconds;
/// microseconds.
fn repairs(reading: &Reading) -> Vec<u64> {
    let mut by_time = reading.deliveries.clone();
    by_time.sort_unstable_by_key(|&(_, at, _)| at);
    let mut slowest = Vec::new();
    for (cut, _, gateway) in faults(reading)
        .into_iter()
        .filter(|(_, what, _)| what == SUBSCRIPTION_CUT)
    {
        let from = by_time.partition_point(|&(_, at, _)| at < cut);
        let to = by_time.partition_point(|&(_, at, _)| at < cut + 1_900_000);
        let delays = by_time[from..to].iter().filter_map(|&(command, at, client)| {
            let there = reading.clients.get(&client)?.gateway_at(at) == Some(gateway);
            let sent = reading.commands[command as usize].sent?;
            there.then(|| at.saturating_sub(sent))
        });
        slowest.extend(delays.max());
    }
    slowest
}
