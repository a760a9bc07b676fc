//! Costs that must not grow: a delivery's with the members of the room, a command's with the rooms there are.

use std::time::Duration;

use super::{
    BODY_BYTES, Cluster, Family, Figure, Outcome, Scenario, Setup, StoreKind, Window, commands::CLIENTS,
    measure,
};
use crate::{
    client::{Fleet, Load, Member, Template},
    failure::Failure,
};

const OPEN_LIMIT: Duration = Duration::from_secs(90);
/// Rooms that one connection may be in.
const ROOMS_A_CONNECTION: usize = 100;

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for members in [10, 100, 1_000, 10_000] {
        let name = format!("growth-members-{members}");
        scenarios.push(Scenario::new(Family::Growth, name.clone(), move |setup| {
            members_in_a_room(setup, &name, members)
        }));
    }
    for rooms in [0, 1_000, 10_000, 100_000] {
        let name = format!("growth-rooms-{rooms}");
        scenarios.push(Scenario::new(Family::Growth, name.clone(), move |setup| {
            rooms_besides(setup, &name, rooms)
        }));
    }
    scenarios
}

fn members_in_a_room(setup: &Setup, name: &str, members: usize) -> Result<Outcome, Failure> {
    let cluster = Cluster::start(setup, StoreKind::Redis, 1)?;
    let mut fleet = cluster.fleet(1)?;
    let mut all = vec![Member::writer(0, 0, Template::message(fleet.room(0), BODY_BYTES))];
    all.extend((1..members).map(|_| Member::reader(0, 0..1)));
    if let Err(note) = opened(&mut fleet, all)? {
        return Ok(Outcome {
            notes: vec![format!("{name}: {note}")],
            ..Outcome::default()
        });
    }
    let window = measure(setup, name, &cluster, &mut fleet, Load::Closed)?;
    let each = nanos(window.gateway_cpu(), window.deliveries());
    Ok(outcome(
        &fleet,
        &window,
        format!("a delivery in a room of {members}"),
        each,
    ))
}

fn rooms_besides(setup: &Setup, name: &str, besides: usize) -> Result<Outcome, Failure> {
    let cluster = Cluster::start(setup, StoreKind::Redis, 1)?;
    let mut fleet = cluster.fleet(CLIENTS + besides)?;
    let writer = |room| Member::writer(0, room, Template::message(fleet.room(room), BODY_BYTES));
    let mut members: Vec<Member> = (0..CLIENTS).map(writer).collect();
    let all = CLIENTS + besides;
    let firsts = (CLIENTS..all).step_by(ROOMS_A_CONNECTION);
    members.extend(firsts.map(|first| Member::reader(0, first..(first + ROOMS_A_CONNECTION).min(all))));
    if let Err(note) = opened(&mut fleet, members)? {
        return Ok(Outcome {
            notes: vec![format!("{name}: {note}")],
            ..Outcome::default()
        });
    }
    let window = measure(setup, name, &cluster, &mut fleet, Load::Closed)?;
    let mut outcome = outcome(
        &fleet,
        &window,
        format!("a command, {besides} other rooms"),
        nanos(window.gateway_cpu(), window.acked),
    );
    outcome.figures.push(Figure::plain(
        format!("— Redis's share, {besides} other rooms"),
        "ns",
        nanos(window.redis, window.acked),
        None,
    ));
    Ok(outcome)
}

/// Opens what can be opened in time; the inner error says why it was not.
fn opened(fleet: &mut Fleet, members: Vec<Member>) -> Result<Result<(), String>, Failure> {
    match fleet.open(members, OPEN_LIMIT) {
        Ok(_) => Ok(Ok(())),
        Err(Failure::Slow(why)) => Ok(Err(why)),
        Err(other) => Err(other),
    }
}

fn outcome(fleet: &Fleet, window: &Window, label: String, value: f64) -> Outcome {
    Outcome {
        figures: vec![Figure::plain(label, "ns", value, None)],
        problems: fleet.problems(),
        client_share: Some(window.client_share()),
        ..Outcome::default()
    }
}

fn nanos(cpu: f64, count: u64) -> f64 {
    cpu * 1e9 / count.max(1) as f64
}
