//! Members that move all the time: what it costs to merge their positions into one frame a tick, and what the same costs
//! without, each position passed on as a signal of its own.

use super::{
    Cluster, Family, Figure, Outcome, Scenario, Setup, StoreKind, Window, fanout::OPEN_LIMIT, keys::KeyWatch,
    measure,
};
use crate::{
    bars,
    client::{Load, Member, Positions, Template},
    failure::Failure,
};

const GATEWAYS: usize = 2;
const MEMBERS: usize = 100;
/// Positions of a member a second.
const RATE: u32 = 20;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(Family::Moves, "moves-redis", run)]
}

/// How positions are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Merged,
    Signals,
}

fn run(setup: &Setup) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let mut costs = Vec::new();
    for how in [How::Merged, How::Signals] {
        costs.push(measured(setup, how, &mut outcome)?);
    }
    if let [merged, signals] = costs[..] {
        let mut ratio = |label, value| outcome.figures.push(Figure::plain(label, "×", value, None));
        ratio(
            "gateways' CPU a position told, signals : merged",
            signals.each / merged.each,
        );
        ratio(
            "gateways' CPU a second, signals : merged",
            signals.share / merged.share,
        );
    }
    Ok(outcome)
}

/// What one way cost.
#[derive(Clone, Copy)]
struct Cost {
    /// Gateways' CPU of a position told, seconds.
    each: f64,
    /// Gateways' CPU a second, seconds.
    share: f64,
}

fn measured(setup: &Setup, how: How, outcome: &mut Outcome) -> Result<Cost, Failure> {
    let mut cluster = Cluster::start(setup, StoreKind::Redis, GATEWAYS)?;
    let mut fleet = cluster.fleet(1)?;
    if let Some(redis) = cluster.redis.as_ref().filter(|_| how == How::Merged) {
        let key = format!("room:{{{}}}:positions", fleet.room(0).as_str());
        cluster.writes = Some(KeyWatch::start(redis, &key)?);
    }
    let template = |room| match how {
        How::Merged => Template::moving(room),
        How::Signals => Template::signalling(room),
    };
    let members = (0..MEMBERS).map(|n| Member::writer(n % GATEWAYS, 0, template(fleet.room(0))));
    let members: Vec<Member> = members.collect();
    fleet.open(members, OPEN_LIMIT)?;
    fleet.positions = Some(Positions::new(MEMBERS, how == How::Merged));
    let (name, label) = match how {
        How::Merged => ("moves-merged", "merged"),
        How::Signals => ("moves-signals", "signals"),
    };
    let window = measure(
        setup,
        name,
        &cluster,
        &mut fleet,
        Load::Paced(rate(setup) * MEMBERS as u32),
    )?;
    outcome.problems.extend(fleet.problems());
    outcome.client_share = Some(window.client_share().max(outcome.client_share.unwrap_or(0.0)));
    figures(&window, how, label, rate(setup), outcome);
    if let Some(positions) = &fleet.positions {
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            outcome.figures.push(Figure::plain(
                format!("— {name} from sending a position to its coming, {label}"),
                "ms",
                positions.latency.quantile(share).as_secs_f64() * 1e3,
                None,
            ));
        }
    }
    Ok(Cost {
        each: window.gateway_cpu() / window.deliveries().max(1) as f64,
        share: window.gateway_cpu() / window.wall,
    })
}

/// Positions of a member a second.
fn rate(setup: &Setup) -> u32 {
    if setup.quick { RATE / 4 } else { RATE }
}

fn figures(window: &Window, how: How, label: &str, rate: u32, outcome: &mut Outcome) {
    let mut add =
        |label: String, unit, value, bar| outcome.figures.push(Figure::plain(label, unit, value, bar));
    let frames = window.positions.iter().map(|&(frames, _)| frames);
    let most = frames.clone().max().unwrap_or(0);
    let mean = frames.sum::<u64>() as f64 / MEMBERS as f64;
    let wall = window.wall;
    // A window of n ticks may see the frames of both its ends: what is judged are the times between them.
    add(
        format!("frames a member and second, the member with most, {label}"),
        "/s",
        most.saturating_sub(1) as f64 / wall,
        Some(bars::MOVES_FRAMES).filter(|_| how == How::Merged),
    );
    add(format!("— the mean, {label}"), "/s", mean / wall, None);
    let told = window.deliveries() as f64;
    add(format!("positions told, {label}"), "/s", told / wall, None);
    add(
        format!("gateways' CPU, both, {label}"),
        "% of a core",
        100.0 * window.gateway_cpu() / wall,
        None,
    );
    add(
        format!("— of a position told, {label}"),
        "µs",
        window.gateway_cpu() * 1e6 / told.max(1.0),
        None,
    );
    add(
        format!("Redis's CPU, {label}"),
        "% of a core",
        100.0 * window.redis / wall,
        None,
    );
    if how == How::Merged {
        let writes = window.writes as f64 / GATEWAYS as f64;
        add(
            "writes of positions, room and gateway".to_owned(),
            "/s",
            (writes - 1.0).max(0.0) / wall,
            Some(bars::POSITION_WRITES),
        );
        add(
            "— all that fell into the window".to_owned(),
            "/s",
            writes / wall,
            None,
        );
        return;
    }
    let sent = wall * f64::from(rate) * MEMBERS as f64 * (MEMBERS - 1) as f64;
    if told < 0.98 * sent {
        outcome.notes.push(format!(
            "{:.0} % of the signals' positions came; the rest was dropped or late, as the machine did no more",
            100.0 * told / sent
        ));
    }
}
