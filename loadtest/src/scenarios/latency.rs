//! From publish to delivery, at a rate that a gateway holds easily.

use super::{
    BODY_BYTES, Cluster, Family, Figure, Outcome, Scenario, Setup, StoreKind, fanout::OPEN_LIMIT, measure,
};
use crate::{
    bars,
    client::{Histogram, Load, Member, Template},
    failure::Failure,
};

const ROOMS: usize = 20;
const MEMBERS: usize = 50;
const MESSAGES_A_SECOND: u32 = 1_000;

pub(super) fn scenarios() -> Vec<Scenario> {
    [StoreKind::Redis, StoreKind::Memory]
        .into_iter()
        .map(|store| {
            let name = format!("latency-{}", store.as_str());
            Scenario::new(Family::Latency, name.clone(), move |setup| {
                run(setup, &name, store)
            })
        })
        .collect()
}

fn run(setup: &Setup, name: &str, store: StoreKind) -> Result<Outcome, Failure> {
    let cluster = Cluster::start(setup, store, 1)?;
    let mut fleet = cluster.fleet(ROOMS)?;
    let mut members = Vec::new();
    for room in 0..ROOMS {
        members.push(Member::writer(
            0,
            room,
            Template::message(fleet.room(room), BODY_BYTES),
        ));
        members.extend((1..MEMBERS).map(|_| Member::reader(0, room..room + 1)));
    }
    fleet.open(members, OPEN_LIMIT)?;
    fleet.latency = Some(Histogram::default());
    let window = measure(setup, name, &cluster, &mut fleet, Load::Paced(MESSAGES_A_SECOND))?;
    let latency = fleet.latency.take().unwrap_or_default();
    let mut outcome = Outcome {
        problems: fleet.problems(),
        client_share: Some(window.client_share()),
        ..Outcome::default()
    };
    if latency.count() == 0 {
        outcome
            .problems
            .push("no delivery carried a time stamp".to_owned());
    }
    let redis = store == StoreKind::Redis;
    for (name, share, bar) in [
        ("p50", 0.5, Some(bars::LATENCY_P50)),
        ("p99", 0.99, Some(bars::LATENCY_P99)),
        ("p99.9", 0.999, None),
    ] {
        outcome.figures.push(Figure::plain(
            format!("{name}, {}", store.as_str()),
            "ms",
            latency.quantile(share).as_secs_f64() * 1e3,
            bar.filter(|_| redis),
        ));
    }
    outcome.figures.push(Figure::plain(
        format!("gateway's CPU, {}", store.as_str()),
        "% of a core",
        100.0 * window.gateway_cpu() / window.wall,
        None,
    ));
    Ok(outcome)
}
