//! A gateway without sockets, over memory, on a clock that stands still: who is away for how long, and when it leaves, with
//! the usual times.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use roomgate::{
    auth::{Authenticator, Identity, grants::Grants},
    hub::Hub,
    limits::{
        budget::{Budgets, Rates},
        connections::{Connections, MostConnections},
    },
    rooms::{
        Rooms,
        presence::{self, Pace},
    },
    session::{Session, SessionContext},
    store::{
        EventSink, SharedStore, StoreLimits,
        memory::MemoryStore,
        payload::{self, Payload},
    },
};
use roomgate_shared::{
    ids::{ConnectionId, NodeId, UserId},
    protocol::event::Limits,
};
use serde_json::{Value, json};
use tokio::time::sleep;

const ROOM: &str = "r";
/// PRESENCE_GRACE_SECONDS and SWEEP_INTERVAL_SECONDS as they are if nobody says otherwise.
const GRACE: u64 = 300;
const SWEEP: u64 = 30;

/// Passes on to the hub what the store publishes, and keeps the events.
struct Heard {
    hub: Arc<Hub>,
    events: Mutex<Vec<Value>>,
}

impl EventSink for Heard {
    fn payload(&self, room: &str, payload: Bytes) {
        if let Some(Payload::Durable { events, .. }) = payload::parse(&payload) {
            let events = events.iter().map(|event| serde_json::from_slice(event).unwrap());
            self.events.lock().extend(events);
        }
        self.hub.payload(room, payload);
    }

    fn interrupted(&self) {
        self.hub.interrupted();
    }
}

struct Gateway {
    context: Arc<SessionContext>,
    heard: Arc<Heard>,
    connections: u64,
    started: u64,
}

impl Gateway {
    fn start() -> Self {
        let (hub, requests) = Hub::new();
        let heard = Arc::new(Heard {
            hub: Arc::clone(&hub),
            events: Mutex::default(),
        });
        let limits = StoreLimits {
            grace: Duration::from_secs(GRACE),
            ..StoreLimits::default()
        };
        let store: SharedStore = MemoryStore::new(limits, Arc::clone(&heard) as Arc<dyn EventSink>);
        let rooms = Rooms::new(hub, Arc::clone(&store), Duration::from_millis(50), None, requests);
        let pace = Pace {
            lease: Duration::from_secs(10),
            sweep: Duration::from_secs(SWEEP),
        };
        tokio::spawn(presence::run(Arc::clone(&rooms), pace));
        let started = store.now_ms();
        let budgets = Budgets::new(Rates::new(), Arc::clone(&store));
        let connections = Connections::new(MostConnections::default(), Arc::clone(&store));
        let context = SessionContext {
            rooms,
            store,
            node: NodeId::new("gw-1").unwrap(),
            limits: Limits {
                max_frame_bytes: 1 << 20,
                max_message_bytes: 1 << 20,
                max_rooms: 100,
                max_batch: 64,
            },
            outbox_bytes: 1 << 20,
            heartbeat_ms: 25_000,
            auto_create: true,
            auth: Authenticator::Anonymous,
            is_operated: false,
            connections,
            commands: None,
            budgets,
        };
        Self {
            context: Arc::new(context),
            heard,
            connections: 0,
            started,
        }
    }

    /// A connection that has joined the room.
    async fn join(&mut self, user: &str, data: Value) -> Session {
        self.connections += 1;
        let identity = Identity {
            user: UserId::new(user).unwrap(),
            name: user.to_owned(),
            grants: Grants::Anonymous,
            token: None,
        };
        let id = ConnectionId::new(1, self.connections);
        let mut session = Session::open(Arc::clone(&self.context), id, Some(identity), None, None);
        say(&mut session, "join", data).await;
        session
    }

    /// What has been told: the second, counted from the start, and what was said.
    fn told(&self) -> Vec<(u64, Value)> {
        let events = self.heard.events.lock();
        let second = |event: &Value| (event["ts"].as_u64().unwrap() - self.started) / 1_000;
        events.iter().map(|event| (second(event), said(event))).collect()
    }
}

/// What a presence event says, with users as their ids; the type of any other.
fn said(event: &Value) -> Value {
    if event["type"] != "presence" {
        return event["type"].clone();
    }
    let mut data = event["data"].clone();
    for part in ["joined", "updated"] {
        for user in data
            .get_mut(part)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            *user = user["id"].clone();
        }
    }
    data
}

async fn say(session: &mut Session, kind: &str, data: Value) {
    let command = json!({"type": kind, "room": ROOM, "data": data});
    session.frame(&mut command.to_string().into_bytes()).unwrap();
    settle().await;
}

/// The connection is lost.
async fn lose(mut session: Session) {
    session.close(false);
    settle().await;
}

/// Time stands still until there is nothing else to do.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

fn left(user: &str) -> Value {
    json!({"left": [{"user": user, "reason": "timeout"}]})
}

#[tokio::test(start_paused = true)]
async fn a_drop_and_a_return_within_grace() {
    let mut gateway = Gateway::start();
    let _stays = gateway.join("w", json!({})).await;
    let user = gateway.join("u", json!({})).await;
    seconds(100).await;
    lose(user).await;
    seconds(GRACE - 1).await;
    let epoch = {
        let head = gateway
            .context
            .store
            .heads(&[roomgate_shared::ids::RoomId::new(ROOM).unwrap()])
            .await;
        head[0].clone().unwrap().unwrap().at.epoch
    };
    let _back = gateway
        .join("u", json!({"since": {"epoch": epoch, "seq": 2}}))
        .await;
    seconds(10 * GRACE).await;
    let expected = [
        (0, json!({"joined": ["w"]})),
        (0, json!({"joined": ["u"]})),
        (100, json!({"away": ["u"]})),
        (399, json!({"back": ["u"]})),
    ];
    assert_eq!(gateway.told(), expected);
}

#[tokio::test(start_paused = true)]
async fn two_of_three_drop_at_different_times() {
    let mut gateway = Gateway::start();
    let mut users = Vec::new();
    for user in ["a", "b", "c"] {
        users.push(gateway.join(user, json!({})).await);
    }
    seconds(50).await;
    lose(users.remove(0)).await;
    seconds(150).await;
    lose(users.remove(0)).await;
    seconds(5 * GRACE).await;
    let told = gateway.told();
    let all: Vec<_> = told.iter().map(|(_, said)| said.clone()).collect();
    let expected = [
        json!({"joined": ["a"]}),
        json!({"joined": ["b"]}),
        json!({"joined": ["c"]}),
        json!({"away": ["a"]}),
        json!({"away": ["b"]}),
        left("a"),
        left("b"),
    ];
    assert_eq!(all, expected);
    assert_eq!((told[3].0, told[4].0), (50, 200));
    // Found by the sweep after it.
    assert!((350..=350 + SWEEP).contains(&told[5].0), "{told:?}");
    assert!((500..=500 + SWEEP).contains(&told[6].0), "{told:?}");
    // The one that stays is not told again after hours.
    seconds(3 * 3_600).await;
    say(&mut users[0], "message.send", json!({"body": "still here"})).await;
    assert_eq!(
        gateway.told()[7..],
        [(50 + 150 + 5 * GRACE + 3 * 3_600, json!("message.sent"))]
    );
}

#[tokio::test(start_paused = true)]
async fn a_user_that_never_returns() {
    let mut gateway = Gateway::start();
    let _stays = gateway.join("w", json!({})).await;
    let user = gateway.join("u", json!({"presence": {"a": 1}})).await;
    lose(user).await;
    seconds(GRACE - 1).await;
    assert_eq!(gateway.told().len(), 3, "not before its time");
    seconds(24 * 3_600).await;
    let told = gateway.told();
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!((&told[2].1, &told[3].1), (&json!({"away": ["u"]}), &left("u")));
    assert!((GRACE..=GRACE + SWEEP).contains(&told[3].0), "{told:?}");
    // Much later it is another member.
    let _again = gateway.join("u", json!({})).await;
    assert_eq!(gateway.told()[4].1, json!({"joined": ["u"]}));
}

#[tokio::test(start_paused = true)]
async fn a_user_with_two_connections_is_away_with_the_last() {
    let mut gateway = Gateway::start();
    let mut watcher = gateway.join("w", json!({})).await;
    let first = gateway.join("u", json!({})).await;
    let mut second = gateway.join("u", json!({})).await;
    lose(first).await;
    seconds(2 * GRACE).await;
    say(&mut second, "presence.update", json!({"set": {"a": 1}})).await;
    lose(second).await;
    let third = gateway.join("u", json!({})).await;
    let mut fourth = gateway.join("u", json!({})).await;
    lose(third).await;
    seconds(2 * GRACE).await;
    say(&mut fourth, "leave", json!({})).await;
    say(&mut watcher, "leave", json!({})).await;
    seconds(2 * GRACE).await;
    let all: Vec<_> = gateway.told().into_iter().map(|(_, said)| said).collect();
    let expected = [
        json!({"joined": ["w"]}),
        json!({"joined": ["u"]}),
        json!({"updated": ["u"]}),
        json!({"away": ["u"]}),
        json!({"back": ["u"]}),
        json!({"left": [{"user": "u", "reason": "left"}]}),
        json!({"left": [{"user": "w", "reason": "left"}]}),
    ];
    assert_eq!(all, expected);
}

/// Those that go together are told together, however many they are.
#[tokio::test(start_paused = true)]
async fn a_crowd_that_drops_at_once_leaves_at_once() {
    const CROWD: usize = 500;
    let mut gateway = Gateway::start();
    let _stays = gateway.join("w", json!({})).await;
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        crowd.push(gateway.join(&format!("u{number}"), json!({"messages": 0})).await);
    }
    gateway.heard.events.lock().clear();
    for session in &mut crowd {
        session.close(false);
    }
    seconds(3 * GRACE).await;
    let told = gateway.told();
    assert!(told.len() <= 4, "{} events", told.len());
    let count = |part: &str| -> usize {
        let lists = told.iter().filter_map(|(_, said)| said[part].as_array());
        lists.map(Vec::len).sum()
    };
    assert_eq!((count("away"), count("left")), (CROWD, CROWD));
}
