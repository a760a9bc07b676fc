//! A Redis that comes back with less than it had told: no past that has ended is gone on with.

use std::sync::Arc;

use roomgate::store::{Done, EventSink, Joined, Op, StoreLimits, Tail, redis::RedisStore};
use roomgate_shared::{ids::RoomId, keys};

use super::{commands::once, harness::*, on_redis::config, redis_server::RedisServer};

async fn node_of(server: &RedisServer) -> Node {
    let heard = Arc::new(Recorder::default());
    let sink = Arc::clone(&heard) as Arc<dyn EventSink>;
    let store = RedisStore::new(config(&server.url(), 0, StoreLimits::default()), sink).unwrap();
    store.boot(PATIENCE).await.unwrap();
    Node { store, heard }
}

async fn sends(node: &Node, room: &RoomId, count: usize) {
    for _ in 0..count {
        node.ack(room, send("u1", "1")).await;
    }
}

/// A resume of a user's further connection, whose arrival makes no event.
async fn resumed(node: &Node, room: &RoomId, epoch: &str, seq: u64) -> Joined {
    node.joined(room, resume("u1", 2, epoch, seq)).await
}

fn is_lost(joined: &Joined) -> bool {
    !joined.recovered && joined.data.contains(r#""reason":"epoch_changed""#)
}

/// Waits until the store serves again after its server was away.
async fn back(node: &Node, room: &RoomId) {
    eventually("the store is back", || async {
        node.store.apply(room, vec![state(None)]).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_server_that_lost_its_last_writes_ends_the_epoch_of_those_who_saw_them() {
    let mut server = RedisServer::start();
    let (node, room) = (node_of(&server).await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    sends(&node, &room, 9).await;
    server.ask(&["SAVE"]);
    sends(&node, &room, 5).await;
    server.stop();
    server.restart();
    back(&node, &room).await;

    // Who had got no further than what was kept goes on, under a new name.
    let kept = resumed(&node, &room, &epoch, 10).await;
    assert!(kept.recovered && kept.epoch != epoch && kept.seq == 10);
    assert!(is_lost(&resumed(&node, &room, &epoch, 11).await));
    // Also when the lost numbers are taken again.
    sends(&node, &room, 8).await;
    let missed = resumed(&node, &room, &epoch, 7).await;
    assert!(missed.recovered && missed.missed.len() == 11);
    for seq in 11..=18 {
        assert!(is_lost(&resumed(&node, &room, &epoch, seq).await), "{seq}");
        assert!(resumed(&node, &room, &kept.epoch, seq).await.recovered);
    }
    // What is published now has the new epoch.
    node.store.subscribe(&room).await.unwrap();
    node.heard.clear();
    sends(&node, &room, 1).await;
    node.heard.until(&room, 19).await;
    assert!(node.heard.payloads(&room)[0].starts_with(format!("E{} 19", kept.epoch).as_bytes()));
}

#[tokio::test]
async fn nothing_lost_is_nothing_ended() {
    let mut server = RedisServer::start();
    let (node, room) = (node_of(&server).await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    sends(&node, &room, 3).await;
    let first = node.ack(&room, once("k1", 1, send("u1", "\"x\""))).await;
    let mut epochs = vec![epoch.clone()];
    for round in 0..3 {
        server.ask(&["SAVE"]);
        server.stop();
        server.restart();
        back(&node, &room).await;
        for (k, old) in epochs.iter().enumerate() {
            let joined = resumed(&node, &room, old, 5 + k as u64).await;
            assert!(joined.recovered, "round {round}: {}", joined.data);
        }
        let epoch = resumed(&node, &room, &epoch, 1).await.epoch;
        assert!(!epochs.contains(&epoch), "an epoch is given once");
        epochs.push(epoch);
        // The message's id is the one that it was given.
        match node.one(&room, once("k1", 1, send("u1", "\"x\""))).await {
            Ok(Done::Again(again)) => {
                assert_eq!(serde_json::from_str::<serde_json::Value>(&again).unwrap(), first);
            }
            other => panic!("{other:?}"),
        }
        sends(&node, &room, 1).await;
    }
    // Pages go over the ends of epochs.
    let page = node.ack(&room, history(None, None, 4)).await;
    let newer = page["before"].as_str().unwrap();
    let older = node.ack(&room, history(Some(newer), None, 10)).await;
    assert_eq!(older["messages"].as_array().unwrap().len(), 3);
    assert!(older.get("before").is_none());
}

/// A server that becomes another's replica and is promoted again is the same process on the same connections, with
/// another past.
#[tokio::test]
async fn a_server_that_was_a_replica_meanwhile_is_another_one() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let (node, room) = (node_of(&server).await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    sends(&node, &room, 9).await;
    let follows = |follower: &RedisServer, master: &RedisServer| {
        let text = follower.ask(&["INFO", "replication"]);
        text.contains(&format!("master_port:{}", master.port()))
            && text.contains("master_link_status:up")
            && text.contains("master_sync_in_progress:0")
    };
    for one in [&server, &other] {
        one.ask(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
    }
    let port = server.port().to_string();
    other.ask(&["REPLICAOF", "127.0.0.1", &port]);
    eventually("the other server follows", || async { follows(&other, &server) }).await;
    let meta = &keys::room(&room)[0];
    eventually("it has everything", || async {
        other.ask(&["HGET", meta, "seq"]).trim() == "10"
    })
    .await;
    // It takes over without what comes now, and the first one follows it.
    other.ask(&["REPLICAOF", "NO", "ONE"]);
    sends(&node, &room, 5).await;
    let port = other.port().to_string();
    server.ask(&["REPLICAOF", "127.0.0.1", &port]);
    eventually("the first server follows", || async { follows(&server, &other) }).await;
    server.ask(&["REPLICAOF", "NO", "ONE"]);
    back(&node, &room).await;
    sends(&node, &room, 8).await;
    for seq in 11..=18 {
        assert!(is_lost(&resumed(&node, &room, &epoch, seq).await), "{seq}");
    }
    assert!(resumed(&node, &room, &epoch, 10).await.recovered);
}

/// Times of a room do not fall, so behind a clock that was ahead they stand still for a while.
#[tokio::test]
async fn no_two_servers_give_the_same_epoch_though_the_clock_is_behind() {
    let mut server = RedisServer::start();
    let (node, room) = (node_of(&server).await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    let ahead = (node.store.now_ms() + 3_600_000).to_string();
    server.ask(&["HSET", &keys::room(&room)[0], "active", &ahead]);
    server.ask(&["SAVE"]);
    let mut epochs = vec![epoch.clone()];
    for _ in 0..3 {
        server.stop();
        server.restart();
        back(&node, &room).await;
        sends(&node, &room, 3).await;
        let epoch = resumed(&node, &room, &epoch, 1).await.epoch;
        assert!(!epochs.contains(&epoch), "{epoch} once more, for other events");
        epochs.push(epoch);
    }
}

/// Where keys were put back, new events may have taken the old numbers since: below them nothing is certain either.
#[tokio::test]
async fn where_keys_were_put_back_and_grew_again_the_old_epoch_holds_no_more() {
    let server = RedisServer::start();
    let (node, room) = (node_of(&server).await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    sends(&node, &room, 4).await;
    let keys = keys::room(&room);
    for key in &keys {
        server.ask(&["COPY", key, &format!("saved:{key}"), "REPLACE"]);
    }
    sends(&node, &room, 4).await;
    for key in &keys {
        server.ask(&["COPY", &format!("saved:{key}"), key, "REPLACE"]);
    }
    sends(&node, &room, 2).await;
    // A node that was told of 9 asks; the room is at 7.
    let tail = Op::Tail(Tail {
        since: since(&epoch, 9),
        ts: None,
        known: 9,
    });
    assert!(is_lost(&node.joined(&room, tail).await));
    // A client that had 6 and 7 had others.
    for seq in [6, 7] {
        assert!(is_lost(&resumed(&node, &room, &epoch, seq).await), "{seq}");
    }
}

/// Keys that are put back while the server runs leave no trace in it: what nodes know is what tells.
#[tokio::test]
async fn a_node_that_knows_more_ends_the_epoch() {
    let server = RedisServer::start();
    let (node, room) = (node_of(&server).await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    sends(&node, &room, 4).await;
    let keys = keys::room(&room);
    let copy = |from: &str, to: &str| {
        for key in &keys {
            server.ask(&["COPY", &format!("{from}{key}"), &format!("{to}{key}"), "REPLACE"]);
        }
    };
    copy("", "saved:");
    let tail = |epoch: &str, seq, ts, known| {
        Op::Tail(Tail {
            since: since(epoch, seq),
            ts,
            known,
        })
    };
    sends(&node, &room, 2).await;
    copy("saved:", "");

    // It has told of an event that is not there.
    let joined = node.joined(&room, tail(&epoch, 5, None, 7)).await;
    assert!(is_lost(&joined) && joined.epoch != epoch);
    assert!(is_lost(&resumed(&node, &room, &epoch, 5).await));
    let second = joined.epoch;

    // Its last event is not the one that has this number now: nobody's past of that name can be told from the other.
    copy("", "saved:");
    let ts_of = |joined: &Joined| {
        let event: serde_json::Value = serde_json::from_slice(&joined.missed[0]).unwrap();
        event["ts"].as_u64().unwrap()
    };
    sends(&node, &room, 1).await;
    let ts = ts_of(&resumed(&node, &room, &second, 5).await);
    copy("saved:", "");
    eventually("the clock has moved on", || async {
        node.store.now_ms() > ts + 2
    })
    .await;
    sends(&node, &room, 1).await;
    assert_ne!(ts_of(&resumed(&node, &room, &second, 5).await), ts);
    let joined = node.joined(&room, tail(&second, 6, Some(ts), 6)).await;
    assert!(is_lost(&joined) && joined.epoch != second);
    for old in [&epoch, &second] {
        assert!(is_lost(&resumed(&node, &room, old, 3).await));
    }
    let third = joined.epoch;
    assert!(resumed(&node, &room, &third, 3).await.recovered);
    // A client's word is not enough to end an epoch.
    let ahead = resumed(&node, &room, &third, 1_000_000).await;
    assert!(!ahead.recovered && ahead.epoch == third);
}
