//! Durable commands acknowledged.

use super::{
    BODY_BYTES, Cluster, Family, Figure, Outcome, Scenario, Setup, StoreKind,
    fanout::{OPEN_LIMIT, plural},
    measure,
};
use crate::{
    bars,
    client::{Load, Member, Template},
    failure::Failure,
};

pub(super) const CLIENTS: usize = 50;

#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    command: &'static str,
    rooms: usize,
    patch: bool,
}

const SHAPES: [Shape; 3] = [
    Shape {
        name: "commands",
        command: "message.send",
        rooms: CLIENTS,
        patch: false,
    },
    Shape {
        name: "commands-5-rooms",
        command: "message.send",
        rooms: 5,
        patch: false,
    },
    Shape {
        name: "commands-patch",
        command: "state.patch",
        rooms: CLIENTS,
        patch: true,
    },
];

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for shape in SHAPES {
        for store in [StoreKind::Redis, StoreKind::Memory] {
            let name = format!("{}-{}", shape.name, store.as_str());
            scenarios.push(Scenario::new(Family::Commands, name.clone(), move |setup| {
                run(setup, &name, shape, store)
            }));
        }
    }
    scenarios
}

fn run(setup: &Setup, name: &str, shape: Shape, store: StoreKind) -> Result<Outcome, Failure> {
    let cluster = Cluster::start(setup, store, 1)?;
    let mut fleet = cluster.fleet(shape.rooms)?;
    let template = if shape.patch {
        Template::patch
    } else {
        Template::message
    };
    let members = (0..CLIENTS).map(|client| {
        let room = client % shape.rooms;
        Member::writer(0, room, template(fleet.room(room), BODY_BYTES))
    });
    let members = members.collect();
    fleet.open(members, OPEN_LIMIT)?;
    let window = measure(setup, name, &cluster, &mut fleet, Load::Closed)?;
    let label = format!(
        "`{}`, {CLIENTS} clients in {}, {}",
        shape.command,
        plural(shape.rooms, "room"),
        store.as_str()
    );
    // The bars are for commands whose own delivery is all that follows from them.
    let with_bar = store == StoreKind::Redis && shape.rooms == CLIENTS;
    let bar = |bar| with_bar.then_some(bar);
    let cpu = window.gateway_cpu();
    let mut figures = vec![Figure::rate(
        label,
        window.acked,
        cpu,
        window.wall,
        bar(bars::COMMANDS),
    )];
    if store == StoreKind::Redis {
        let both = cpu + window.redis;
        let rooms = plural(shape.rooms, "room");
        let label = format!("— with Redis's CPU, `{}` in {rooms}", shape.command);
        let bar = bar(bars::COMMANDS_WITH_REDIS);
        figures.push(Figure::rate(label, window.acked, both, window.wall, bar));
    }
    Ok(Outcome {
        figures,
        problems: fleet.problems(),
        client_share: Some(window.client_share()),
        ..Outcome::default()
    })
}
