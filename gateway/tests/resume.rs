//! Guarantees 2, 3 and 5 over several gateways and a real Redis: who comes back, on whatever node, gets what it missed and
//! nothing twice; a command sent again has happened once; a past that Redis has lost is never gone on with silently.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use roomgate_shared::protocol::event::ServerFrame;
use serde_json::{Value, json};
use support::{
    client::Client,
    cluster::{Cluster, Store},
    process::Gateway,
};
use tokio::task::JoinSet;

/// Where a client stands in a room.
#[derive(Clone)]
struct Place {
    epoch: String,
    seq: u64,
}

impl Place {
    fn of(joined: &Value) -> Self {
        Self {
            epoch: joined["epoch"].as_str().unwrap().to_owned(),
            seq: joined["seq"].as_u64().unwrap(),
        }
    }

    fn since(&self) -> Value {
        json!({"since": {"epoch": self.epoch, "seq": self.seq}})
    }
}

async fn say(client: &mut Client, room: &str, body: impl Into<Value>) -> u64 {
    let ack = client
        .ack("message.send", room, json!({"body": body.into()}))
        .await;
    ack["message"]["seq"].as_u64().unwrap()
}

/// The next durable event of a room, which must have the next `seq`.
async fn step(client: &mut Client, room: &str, place: &mut Place) -> ServerFrame {
    let frame = client
        .until(|f| f.seq.is_some() && f.room.as_deref() == Some(room))
        .await;
    place.seq += 1;
    assert_eq!(frame.seq, Some(place.seq), "{frame:?}");
    frame
}

/// Reads events until the place is reached.
async fn reach(client: &mut Client, room: &str, place: &mut Place, seq: u64) {
    while place.seq < seq {
        step(client, room, place).await;
    }
}

/// A counter of a gateway's metrics.
async fn counter(gateway: &Gateway, name: &str) -> u64 {
    let (_, text) = gateway.get("/metrics").await.unwrap();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.rsplit(' ').next()?.parse::<f64>().ok());
    value.unwrap_or(0.0) as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_goes_on_at_another_node() {
    let cluster = Cluster::start(Store::Redis, 3, &[]).await;
    let mut writer = cluster.client(2, "w").await;
    let mut place = Place::of(&writer.ack("join", "r", json!({})).await);
    for round in 0..4_usize {
        let mut reader = cluster.client(round, "a").await;
        let joined = reader.ack("join", "r", place.since()).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        let missed = joined["missed"].as_u64().unwrap();
        let seq = joined["seq"].as_u64().unwrap();
        assert_eq!(place.seq + missed, seq);
        reach(&mut reader, "r", &mut place, seq).await;
        let last = say(&mut writer, "r", "seen").await;
        reach(&mut reader, "r", &mut place, last).await;
        drop(reader);
        for _ in 0..20 {
            say(&mut writer, "r", "missed").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_back_is_given_what_its_new_node_kept() {
    const CROWD: usize = 200;
    let mut cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let mut writer = cluster.client(1, "w").await;
    writer.ack("join", "r", json!({})).await;
    let mut crowd = JoinSet::new();
    for number in 0..CROWD {
        let mut client = cluster.client(0, &format!("u{number}")).await;
        let place = Place::of(&client.ack("join", "r", json!({"messages": 0})).await);
        crowd.spawn(async move { (client, place, number) });
    }
    let mut crowd = crowd.join_all().await;
    let all = say(&mut writer, "r", "all are here").await;
    for (client, place, _) in &mut crowd {
        reach(client, "r", place, all).await;
    }
    cluster.gateways[0].signal("KILL");
    for number in 0..20 {
        say(&mut writer, "r", number).await;
    }
    let mut work = JoinSet::new();
    for (client, mut place, number) in crowd {
        drop(client);
        let addr = cluster.gateways[1].addr;
        work.spawn(async move {
            let mut client = Client::connect(addr, &format!("u{number}")).await;
            let joined = client.ack("join", "r", place.since()).await;
            assert_eq!(joined["recovered"], true, "{joined}");
            let seq = joined["seq"].as_u64().unwrap();
            assert_eq!(place.seq + joined["missed"].as_u64().unwrap(), seq);
            reach(&mut client, "r", &mut place, seq).await;
            (client, place)
        });
    }
    let crowd = work.join_all().await;
    let last = say(&mut writer, "r", "end").await;
    for (mut client, mut place) in crowd {
        reach(&mut client, "r", &mut place, last).await;
    }
    let gateway = &cluster.gateways[1];
    let kept = counter(gateway, "roomgate_resumes_kept_total").await;
    let log = counter(gateway, "roomgate_resumes_log_total").await;
    assert_eq!((kept, log), (CROWD as u64, 0));
    cluster.gateways.remove(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_sent_again_after_a_lost_connection_has_happened_once() {
    const ROUNDS: usize = 30;
    let cluster = Cluster::start(Store::Redis, 2, &[]).await;
    let mut duplicates = 0;
    for round in 0..ROUNDS {
        let command =
            json!({"id": format!("m{round}"), "type": "message.send", "room": "r", "data": {"body": round}});
        let mut client = cluster.client(round, "a").await;
        client.ack("join", "r", json!({})).await;
        client.send_text(command.to_string()).await;
        if round % 3 == 0 {
            // It has been taken for certain; in the other rounds that is open.
            client.event("message.sent", "r").await;
        }
        drop(client);
        let mut client = cluster.client(round + 1, "a").await;
        client.ack("join", "r", json!({})).await;
        client.send_text(command.to_string()).await;
        let id = format!("m{round}");
        let ack = client.until(|f| f.id.as_deref() == Some(&id)).await;
        assert_eq!(ack.kind, "ack", "{}", ack.data);
        assert_eq!(ack.data["message"]["body"], round);
        duplicates += usize::from(ack.duplicate == Some(true));
        assert!(round % 3 != 0 || ack.duplicate == Some(true));
        let other = json!({"id": id, "type": "message.send", "room": "r", "data": {"body": "another"}});
        client.send_text(other.to_string()).await;
        let refused = client.until(|f| f.id.as_deref() == Some(&id)).await;
        assert_eq!(refused.data["code"], "id_conflict");
    }
    assert!(duplicates >= ROUNDS / 3);
    let mut client = cluster.client(0, "b").await;
    client.ack("join", "r", json!({})).await;
    let page = client.ack("message.history", "r", json!({"limit": 200})).await;
    let bodies: Vec<_> = page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["body"].as_u64().unwrap())
        .collect();
    assert_eq!(bodies, (0..ROUNDS as u64).collect::<Vec<_>>());
}

/// Redis is restored from an older state while members are in three rooms: one lost nothing, one lost its last events, and
/// one lost them and has had new ones under the old numbers before its members come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_saw_what_redis_has_lost_is_told_and_nobody_else() {
    let mut cluster = Cluster::start(Store::Redis, 3, &[]).await;
    let mut members = Vec::new();
    let rooms = ["kept", "lost"];
    for number in 0..6 {
        let mut client = cluster.client(number, &format!("u{number}")).await;
        let mut places = Vec::new();
        for room in rooms {
            places.push(Place::of(&client.ack("join", room, json!({})).await));
        }
        members.push((client, places));
    }
    let mut away = cluster.client(0, "away").await;
    let mut gone = Place::of(&away.ack("join", "again", json!({})).await);
    for room in rooms {
        let seq = say(&mut members[0].0, room, "saved").await;
        for (client, places) in &mut members {
            let place = &mut places[usize::from(room == "lost")];
            reach(client, room, place, seq).await;
        }
    }
    cluster.redis.as_ref().unwrap().ask(&["SAVE"]);
    for body in ["lost 1", "lost 2"] {
        let seq = say(&mut members[1].0, "lost", body).await;
        for (client, places) in &mut members {
            reach(client, "lost", &mut places[1], seq).await;
        }
        let seq = say(&mut away, "again", body).await;
        reach(&mut away, "again", &mut gone, seq).await;
    }
    drop(away);
    let redis = cluster.redis.as_mut().unwrap();
    redis.stop();
    redis.restart();

    // Told without asking; the picture has what is left.
    for (client, places) in &mut members {
        let resync = client.until(|f| f.kind == "resync").await;
        assert_eq!(resync.room.as_deref(), Some("lost"));
        assert_eq!(resync.data["reason"], "epoch_changed");
        let bodies: Vec<_> = resync.data["messages"].as_array().unwrap().iter().collect();
        assert_eq!(bodies.len(), 1, "{bodies:?}");
        let place = Place::of(&resync.data);
        assert_ne!(place.epoch, places[1].epoch);
        places[1] = place;
    }
    // Who lost nothing hears the room's new name with what comes next, and goes on.
    for gateway in &cluster.gateways {
        gateway.ready().await;
    }
    let seq = say(&mut members[2].0, "kept", "next").await;
    for (client, places) in &mut members {
        let renamed = |f: &ServerFrame| f.kind == "status" && f.room.as_deref() == Some("kept");
        let status = client.until(renamed).await;
        assert_ne!(status.data["epoch"], places[0].epoch);
        places[0].epoch = status.data["epoch"].as_str().unwrap().to_owned();
        reach(client, "kept", &mut places[0], seq).await;
    }
    let seq = say(&mut members[3].0, "lost", "new").await;
    for (client, places) in &mut members {
        reach(client, "lost", &mut places[1], seq).await;
    }
    // The one that was away: its numbers are taken by others now.
    let mut writer = cluster.client(1, "w").await;
    writer.ack("join", "again", json!({})).await;
    while say(&mut writer, "again", "taken").await < gone.seq + 3 {}
    let mut back = cluster.client(2, "away").await;
    let joined = back.ack("join", "again", gone.since()).await;
    assert_eq!(
        (&joined["recovered"], &joined["reason"]),
        (&json!(false), &json!("epoch_changed"))
    );
    // Those who stayed go on from where they are on any node, under either name of the room.
    for (number, (client, places)) in members.into_iter().enumerate() {
        drop(client);
        let mut client = cluster.client(number + 1, &format!("u{number}")).await;
        for (room, place) in rooms.iter().zip(&places) {
            let joined = client.ack("join", room, place.since()).await;
            assert_eq!(joined["recovered"], true, "{joined}");
        }
    }
}
