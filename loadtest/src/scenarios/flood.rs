//! A room that is flooded beside one that is not: what the quiet one's members notice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_tungstenite::{connect_async, tungstenite::Message};

use super::{BODY_BYTES, Cluster, Family, Figure, Outcome, Scenario, Setup, StoreKind, fanout::OPEN_LIMIT};
use crate::{
    bars,
    client::{Histogram, Load, Member, Template},
    failure::Failure,
};

const SECRET: &str = "a secret of at least thirty-two bytes";
const MEMBERS: usize = 50;
const MESSAGES_A_SECOND: u32 = 100;
/// The rate of the room that is flooded, and the connections that do it: each stays below the refusals that would end it.
const RATE: u32 = 100;
const FLOODERS: u32 = 50;
/// Windows of each kind, in turn.
const ROUNDS: usize = 3;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(Family::Flood, "flood", run)]
}

fn token() -> Result<String, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = json!({"sub": "bench", "exp": now.as_secs() + 3600, "rooms": {"*": ["*"]}});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::default(), &claims, &key).map_err(|error| Failure::Wrong(error.to_string()))
}

/// Those who flood: a thread of its own, told how many messages a second to send.
struct Flood {
    rate: Arc<AtomicU32>,
    acked: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    /// Connections that ended, or what else went wrong.
    broken: Arc<AtomicU64>,
    ready: Arc<AtomicU32>,
}

impl Flood {
    fn start(url: String) -> Self {
        let flood = Self {
            rate: Arc::default(),
            acked: Arc::default(),
            refused: Arc::default(),
            broken: Arc::default(),
            ready: Arc::default(),
        };
        let shared = flood.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let all = (0..FLOODERS).map(|number| shared.clone().client(url.clone(), number));
                futures_util::future::join_all(all).await;
            });
        });
        flood
    }

    async fn client(self, url: String, number: u32) {
        let broken = || self.broken.fetch_add(1, Ordering::Relaxed);
        let Ok((socket, _)) = connect_async(url).await else {
            broken();
            return;
        };
        let (mut sink, mut stream) = socket.split();
        let frame = |id: &str, kind: &str, data: Value| {
            Message::text(json!({"id": id, "type": kind, "room": "flooded", "data": data}).to_string())
        };
        let mut sent = sink.send(frame("join", "join", json!({"messages": 0}))).await;
        if number == 0 {
            let rate =
                json!({"rate": {"messages": {"perSecond": RATE, "burst": RATE / 10}}, "presence": "off"});
            sent = sent.and(sink.send(frame("config", "room.configure", rate)).await);
        }
        if sent.is_err() {
            broken();
            return;
        }
        let reader = async {
            while let Some(Ok(message)) = stream.next().await {
                let Message::Text(text) = message else { continue };
                let id = |id: &str| text.contains(&format!("\"id\":\"{id}\""));
                if text.starts_with("{\"type\":\"ack\"") {
                    if id("join") {
                        self.ready.fetch_add(1, Ordering::Relaxed);
                    } else if !id("config") {
                        self.acked.fetch_add(1, Ordering::Relaxed);
                    }
                } else if text.starts_with("{\"type\":\"error\"") {
                    let limited = text.contains("\"code\":\"rate_limited\"");
                    let count = if limited { &self.refused } else { &self.broken };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            broken();
        };
        let writer = async {
            let mut count = 0_u64;
            loop {
                let rate = self.rate.load(Ordering::Relaxed);
                if rate == 0 {
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
                // Spread, so that it is a stream and no volley.
                let mean = Duration::from_secs(1) * FLOODERS / rate;
                sleep(mean.mul_f64(0.5 + fastrand::f64())).await;
                count += 1;
                let message = frame(
                    &format!("m{number}-{count}"),
                    "message.send",
                    json!({"body": "flood"}),
                );
                if sink.send(message).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(reader, writer);
    }
}

impl Clone for Flood {
    fn clone(&self) -> Self {
        Self {
            rate: self.rate.clone(),
            acked: self.acked.clone(),
            refused: self.refused.clone(),
            broken: self.broken.clone(),
            ready: self.ready.clone(),
        }
    }
}

fn run(setup: &Setup) -> Result<Outcome, Failure> {
    let settings = vec![("JWT_SECRET", SECRET.to_owned()), ("AUTH_MODE", "jwt".to_owned())];
    let cluster = Cluster::with_settings(setup, StoreKind::Redis, 1, settings)?;
    let mut fleet = cluster.fleet(1)?;
    let token = token()?;
    fleet.query = format!("token={token}");
    let mut members = vec![Member::writer(0, 0, Template::message(fleet.room(0), BODY_BYTES))];
    members.extend((1..MEMBERS).map(|_| Member::reader(0, 0..1)));
    fleet.open(members, OPEN_LIMIT)?;
    let address = cluster.gateways[0].address;
    let flood = Flood::start(format!("ws://{address}/ws?token={token}"));
    let quiet = Load::Paced(MESSAGES_A_SECOND);
    let mut waited = Duration::ZERO;
    while flood.ready.load(Ordering::Relaxed) < FLOODERS {
        if waited > OPEN_LIMIT {
            return Err(Failure::Slow("those who flood have not joined".to_owned()));
        }
        fleet.run(quiet, Duration::from_millis(100))?;
        waited += Duration::from_millis(100);
    }
    fleet.latency = Some(Histogram::default());
    let kinds = [
        ("alone", 0),
        ("another at its rate", RATE),
        ("another at ten times its rate", 10 * RATE),
    ];
    let mut quantiles = vec![Vec::new(); kinds.len()];
    let mut outcome = Outcome::default();
    let mut cpu = vec![0.0; kinds.len()];
    for _ in 0..ROUNDS {
        for (at, (_, rate)) in kinds.iter().enumerate() {
            flood.rate.store(*rate, Ordering::Relaxed);
            fleet.run(quiet, setup.warmup)?;
            if let Some(latency) = &mut fleet.latency {
                latency.clear();
            }
            let before = cluster.usage(&fleet)?;
            fleet.run(quiet, setup.window)?;
            let after = cluster.usage(&fleet)?;
            let window = super::Window::between(&before, &after);
            cpu[at] += 100.0 * window.redis / window.wall / ROUNDS as f64;
            if let Some(latency) = &fleet.latency {
                quantiles[at].push([0.5, 0.99].map(|share| latency.quantile(share).as_secs_f64() * 1e3));
            }
        }
    }
    flood.rate.store(0, Ordering::Relaxed);
    fleet.drain()?;
    let median = |at: usize, which: usize| {
        let mut all: Vec<f64> = quantiles[at].iter().map(|both| both[which]).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    for (at, (name, _)) in kinds.iter().enumerate() {
        for (which, quantile) in ["p50", "p99"].iter().enumerate() {
            let figure = Figure::plain(format!("{quantile}, {name}"), "ms", median(at, which), None);
            outcome.figures.push(figure);
        }
        let figure = Figure::plain(format!("Redis's CPU, {name}"), "% of a core", cpu[at], None);
        outcome.figures.push(figure);
    }
    let [alone, at_its_rate, flooded] = [0, 1, 2].map(|at| median(at, 1));
    for (name, value, bar) in [
        (
            "p99 beside the flood, to that beside the room at its rate",
            flooded / at_its_rate,
            Some(bars::FLOOD_P99),
        ),
        ("p99 beside the flood, to p99 alone", flooded / alone, None),
    ] {
        outcome.figures.push(Figure::plain(name, "×", value, bar));
    }
    let [acked, refused, broken] =
        [&flood.acked, &flood.refused, &flood.broken].map(|count| count.load(Ordering::Relaxed));
    outcome.notes.push(format!(
        "Those who flood had {acked} messages acknowledged and {refused} refused"
    ));
    if refused == 0 {
        outcome.problems.push("nothing was refused".to_owned());
    }
    if broken > 0 {
        outcome
            .problems
            .push(format!("{broken} of those who flood broke off"));
    }
    outcome.problems.extend(fleet.problems());
    Ok(outcome)
}
