//! Events to many members, on one gateway and across two.

use std::time::Duration;

use super::{BODY_BYTES, Cluster, Family, Figure, Outcome, Scenario, Setup, StoreKind, measure};
use crate::{
    bars::{self, Bar},
    client::{Fleet, Load, Member, Template},
    failure::Failure,
};

/// How long all members may take to be in.
pub(super) const OPEN_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    label: &'static str,
    rooms: usize,
    /// Readers and writers together; where they are apart, the readers.
    members: usize,
    writers: usize,
    /// Writers on one gateway, the members on another.
    apart: bool,
    bar: Bar,
}

const SHAPES: [Shape; 5] = [
    Shape {
        name: "fanout-10w",
        label: "20 rooms × 50 members, 10 writers a room",
        rooms: 20,
        members: 50,
        writers: 10,
        apart: false,
        bar: bars::FANOUT_10_WRITERS,
    },
    Shape {
        name: "fanout-1w",
        label: "20 rooms × 50 members, 1 writer a room",
        rooms: 20,
        members: 50,
        writers: 1,
        apart: false,
        bar: bars::FANOUT_1_WRITER,
    },
    Shape {
        name: "fanout-small",
        label: "100 rooms × 10 members, 1 writer a room",
        rooms: 100,
        members: 10,
        writers: 1,
        apart: false,
        bar: bars::FANOUT_SMALL_ROOMS,
    },
    Shape {
        name: "across-10w",
        label: "two gateways, 20 rooms × 50 readers on one, 10 writers a room on the other",
        rooms: 20,
        members: 50,
        writers: 10,
        apart: true,
        bar: bars::ACROSS_10_WRITERS,
    },
    Shape {
        name: "across-1w",
        label: "two gateways, 20 rooms × 50 readers on one, 1 writer a room on the other",
        rooms: 20,
        members: 50,
        writers: 1,
        apart: true,
        bar: bars::ACROSS_1_WRITER,
    },
];

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for shape in SHAPES {
        let stores: &[StoreKind] = if shape.apart {
            &[StoreKind::Redis]
        } else {
            &[StoreKind::Redis, StoreKind::Memory]
        };
        for &store in stores {
            let name = format!("{}-{}", shape.name, store.as_str());
            scenarios.push(Scenario::new(Family::Fanout, name.clone(), move |setup| {
                run(setup, &name, shape, store)
            }));
        }
    }
    scenarios
}

fn run(setup: &Setup, name: &str, shape: Shape, store: StoreKind) -> Result<Outcome, Failure> {
    let cluster = Cluster::start(setup, store, if shape.apart { 2 } else { 1 })?;
    let mut fleet = cluster.fleet(shape.rooms)?;
    let mut members = Vec::new();
    for room in 0..shape.rooms {
        let write = |gateway, fleet: &Fleet| {
            Member::writer(gateway, room, Template::message(fleet.room(room), BODY_BYTES))
        };
        let read = |gateway| Member::reader(gateway, room..room + 1);
        if shape.apart {
            members.extend((1..shape.members).map(|_| read(1)));
            members.push(read(1).watching());
            members.extend((0..shape.writers).map(|_| write(0, &fleet)));
        } else {
            members.extend((0..shape.writers).map(|_| write(0, &fleet)));
            members.extend((shape.writers..shape.members).map(|_| read(0)));
        }
    }
    fleet.open(members, OPEN_LIMIT)?;
    let window = measure(setup, name, &cluster, &mut fleet, Load::Closed)?;
    let label = format!("{}, {}", shape.label, store.as_str());
    let bar = (store == StoreKind::Redis).then_some(shape.bar);
    let mut outcome = Outcome {
        figures: vec![Figure::rate(
            label,
            window.deliveries(),
            window.gateway_cpu(),
            window.wall,
            bar,
        )],
        problems: fleet.problems(),
        client_share: Some(window.client_share()),
        ..Outcome::default()
    };
    if let ([_, readers], [_, delivered]) = (&window.gateways[..], &window.delivered[..]) {
        let label = format!(
            "— the readers' gateway alone ({} a room)",
            plural(shape.writers, "writer")
        );
        outcome
            .figures
            .push(Figure::rate(label, *delivered, *readers, window.wall, None));
    }
    Ok(outcome)
}

pub(super) fn plural(count: usize, what: &str) -> String {
    if count == 1 {
        format!("{count} {what}")
    } else {
        format!("{count} {what}s")
    }
}
