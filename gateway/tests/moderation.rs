//! Moderation and configuration over three gateways: who is put out where, and what outlives a gateway.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use roomgate_shared::protocol::event::ServerFrame;
use serde_json::{Value, json};
use support::{
    client::Client,
    cluster::{Cluster, Store},
    tokens::{SECRET, token},
    told::since,
};

const ROOM: &str = "lobby";

struct Scene {
    cluster: Cluster,
    moderator: Client,
}

impl Scene {
    async fn open() -> Self {
        let cluster = Cluster::start(Store::Redis, 3, &[("JWT_SECRET", SECRET)]).await;
        let all = token("mod", json!({"*": ["*"]}));
        let mut moderator = Client::connect_with(cluster.gateways[0].addr, &all).await;
        moderator.ack("join", ROOM, json!({})).await;
        Self { cluster, moderator }
    }

    /// A connection of a user that is in the room, on the gateway of this number.
    async fn member(&self, gateway: usize, user: &str) -> Client {
        let mut client = self.stranger(gateway, user).await;
        client.ack("join", ROOM, json!({})).await;
        client
    }

    /// The same before it has joined.
    async fn stranger(&self, gateway: usize, user: &str) -> Client {
        let rooms = json!({"*": ["join", "send", "state"]});
        Client::connect_with(self.cluster.gateways[gateway].addr, &token(user, rooms)).await
    }
}

/// The error frame by which a user is put out, and what came before it in the room.
async fn put_out(client: &mut Client) -> (Vec<ServerFrame>, ServerFrame) {
    let mut before = Vec::new();
    loop {
        let frame = client.next().await;
        if frame.kind == "error" && frame.id.is_none() {
            return (before, frame);
        }
        before.push(frame);
    }
}

/// Waits until everything that the room has told has come to a member, and says what.
async fn settled(client: &mut Client) -> Vec<ServerFrame> {
    let seq = client
        .ack("broadcast", ROOM, json!({"event": "mark", "payload": 0}))
        .await["seq"]
        .clone();
    let mut all = Vec::new();
    loop {
        let frame = client.next().await;
        if frame.seq == seq.as_u64() {
            return all;
        }
        all.push(frame);
    }
}

#[tokio::test]
async fn who_is_kicked_is_out_everywhere_and_may_come_back() {
    let mut scene = Scene::open().await;
    let (mut here, mut there) = (scene.member(0, "bob").await, scene.member(1, "bob").await);
    let mut witness = scene.member(2, "eve").await;
    let seq = scene
        .moderator
        .ack("user.kick", ROOM, json!({"user": "bob", "reason": "flood"}))
        .await["seq"]
        .clone();
    for client in [&mut here, &mut there] {
        let (before, error) = put_out(client).await;
        assert_eq!(
            (error.room.as_deref(), &error.data["code"]),
            (Some(ROOM), &json!("kicked"))
        );
        let last = before.iter().rfind(|frame| frame.seq.is_some()).unwrap();
        assert_eq!(last.seq, seq.as_u64(), "the event comes first");
        // Nothing more of the room, whatever is told there.
        scene
            .moderator
            .ack("message.send", ROOM, json!({"body": "after"}))
            .await;
        assert_eq!(
            client.refused("message.send", ROOM, json!({"body": 1})).await,
            "not_joined"
        );
        assert_eq!(client.refused("move", ROOM, json!({"x": 1})).await, "not_joined");
    }
    let told = settled(&mut witness).await;
    let left: Vec<_> = told
        .iter()
        .filter(|frame| frame.kind == "presence" && frame.data["left"] != Value::Null)
        .collect();
    assert_eq!(left.len(), 1);
    assert_eq!(
        left[0].data,
        json!({"left": [{"user": "bob", "reason": "kicked", "note": "flood"}]})
    );
    // Back on one connection; the other stays out, and its end says nothing.
    let joined = there.ack("join", ROOM, json!({})).await;
    assert_eq!(joined["members"], 3);
    here.close().await;
    let told = settled(&mut witness).await;
    assert!(
        told.iter()
            .all(|frame| frame.data["away"] == Value::Null && frame.data["left"] == Value::Null)
    );
    // And for a time.
    scene
        .moderator
        .ack("user.kick", ROOM, json!({"user": "bob", "durationMs": 600_000}))
        .await;
    let out = put_out(&mut there).await.1;
    assert!(out.data["until"].as_u64().is_some());
    let refused = there.ask("join", ROOM, json!({})).await;
    assert_eq!(refused.data["code"], "kicked");
    assert!(refused.data["until"].as_u64().is_some());
}

#[tokio::test]
async fn who_is_banned_stays_out_whatever_dies() {
    let mut scene = Scene::open().await;
    let (mut here, mut there) = (scene.member(1, "bob").await, scene.member(2, "bob").await);
    scene
        .moderator
        .ack("user.ban", ROOM, json!({"user": "bob"}))
        .await;
    scene
        .moderator
        .ack("user.mute", ROOM, json!({"user": "eve"}))
        .await;
    let config = json!({"capacity": 3, "cooldownMs": {"messages": 600_000}});
    scene.moderator.ack("room.configure", ROOM, config).await;
    for client in [&mut here, &mut there] {
        assert_eq!(put_out(client).await.1.data["code"], "banned");
        assert_eq!(client.refused("join", ROOM, json!({})).await, "banned");
    }
    // The gateway that did it is gone, and so are the sockets.
    scene.cluster.gateways.remove(0);
    let mut again = scene.stranger(0, "bob").await;
    for data in [json!({}), json!({"since": {"epoch": "x", "seq": 1}})] {
        assert_eq!(again.refused("join", ROOM, data).await, "banned");
    }
    let mut eve = scene.member(1, "eve").await;
    assert_eq!(
        eve.refused("message.send", ROOM, json!({"body": 1})).await,
        "muted"
    );
    assert_eq!(eve.refused("move", ROOM, json!({"x": 1})).await, "muted");
    let mut carol = scene.member(0, "carol").await;
    carol.ack("message.send", ROOM, json!({"body": 1})).await;
    let slow = carol.ask("message.send", ROOM, json!({"body": 2})).await;
    assert_eq!(slow.data["code"], "cooldown");
    assert!((1..=600_000).contains(&slow.data["retryAfterMs"].as_u64().unwrap()));
    let mut dave = scene.stranger(1, "dave").await;
    assert_eq!(dave.refused("join", ROOM, json!({})).await, "room_full");
    let all = token("mod", json!({"*": ["*"]}));
    let mut moderator = Client::connect_with(scene.cluster.gateways[1].addr, &all).await;
    moderator.ack("join", ROOM, json!({})).await;
    moderator
        .ack("room.configure", ROOM, json!({"capacity": 0}))
        .await;
    moderator.ack("user.unban", ROOM, json!({"user": "bob"})).await;
    again.ack("join", ROOM, json!({})).await;
}

#[tokio::test]
async fn who_is_muted_reads_and_does_not_write_on_any_gateway() {
    let mut scene = Scene::open().await;
    let (mut here, mut there) = (scene.member(0, "bob").await, scene.member(1, "bob").await);
    let mut eve = scene.member(2, "eve").await;
    scene
        .moderator
        .ack("user.mute", ROOM, json!({"user": "bob", "reason": "caps"}))
        .await;
    for client in [&mut here, &mut there] {
        let muted = client.event("user.muted", ROOM).await;
        assert_eq!(muted.data, json!({"user": "bob", "reason": "caps"}));
        for (kind, data) in [
            ("message.send", json!({"body": 1})),
            ("broadcast", json!({"event": "e", "payload": 1})),
            ("signal", json!({"event": "e", "payload": 1})),
            ("move", json!({"x": 1})),
            ("presence.update", json!({"set": {"a": 1}})),
            ("state.patch", json!({"set": {"a": 1}})),
        ] {
            assert_eq!(client.refused(kind, ROOM, data).await, "muted", "{kind}");
        }
        // It reads all the same.
        let said = eve.ack("message.send", ROOM, json!({"body": "hi"})).await;
        let heard = client.until(|frame| frame.data == said["message"]).await;
        assert_eq!(heard.kind, "message.sent");
        client.ack("message.history", ROOM, json!({})).await;
    }
    scene
        .moderator
        .ack("user.unmute", ROOM, json!({"user": "bob"}))
        .await;
    there.event("user.unmuted", ROOM).await;
    there.ack("move", ROOM, json!({"x": 1})).await;
    there.ack("message.send", ROOM, json!({"body": 1})).await;
}

#[tokio::test]
async fn who_was_away_meanwhile_hears_of_it() {
    let mut scene = Scene::open().await;
    let mut bob = scene.member(1, "bob").await;
    let mut eve = scene.member(2, "eve").await;
    let first = eve.ack("message.send", ROOM, json!({"body": "first"})).await;
    let second = eve.ack("message.send", ROOM, json!({"body": "second"})).await;
    bob.until(|frame| frame.data["id"] == second["message"]["id"])
        .await;
    let stood = bob.ack("join", ROOM, json!({})).await;
    drop(bob);
    let message = first["message"]["id"].clone();
    eve.ack(
        "message.edit",
        ROOM,
        json!({"messageId": message, "body": "edited", "ifVersion": 1}),
    )
    .await;
    let conflict = eve
        .ask(
            "message.edit",
            ROOM,
            json!({"messageId": message, "body": "x", "ifVersion": 1}),
        )
        .await;
    assert_eq!(
        (&conflict.data["code"], &conflict.data["version"]),
        (&json!("conflict"), &json!(2))
    );
    assert_eq!(conflict.data["message"]["body"], "edited");
    scene
        .moderator
        .ack(
            "message.delete",
            ROOM,
            json!({"messageId": second["message"]["id"]}),
        )
        .await;
    scene
        .moderator
        .ack("room.configure", ROOM, json!({"features": {"polls": true}}))
        .await;
    let mut bob = scene.stranger(0, "bob").await;
    let resumed = bob.ack("join", ROOM, since(&stood)).await;
    assert_eq!(resumed["recovered"], true);
    let edited = bob.event("message.edited", ROOM).await;
    assert_eq!(
        (&edited.data["body"], &edited.data["version"]),
        (&json!("edited"), &json!(2))
    );
    let deleted = bob.event("message.deleted", ROOM).await;
    assert_eq!(deleted.by.as_deref(), Some("mod"));
    let configured = bob.event("room.configured", ROOM).await;
    assert_eq!(configured.data, json!({"config": {"features": {"polls": true}}}));
    let page = bob.ack("message.history", ROOM, json!({})).await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn moves_keep_to_the_configuration_on_every_gateway() {
    let mut scene = Scene::open().await;
    let (mut bob, mut eve) = (scene.member(1, "bob").await, scene.member(2, "eve").await);
    let config = json!({"rate": {"moves": {"perSecond": 0.1, "burst": 2}}});
    scene.moderator.ack("room.configure", ROOM, config).await;
    for client in [&mut bob, &mut eve] {
        client.event("room.configured", ROOM).await;
        client.ack("move", ROOM, json!({"x": 1})).await;
        client.ack("move", ROOM, json!({"x": 2})).await;
        let refused = client.ask("move", ROOM, json!({"x": 3})).await;
        assert_eq!(refused.data["code"], "rate_limited");
        assert!(refused.data["retryAfterMs"].as_u64().unwrap() > 1_000);
    }
    // A gateway that has had nobody here learns it with the first who comes.
    let config = json!({"rate": {"moves": null}, "cooldownMs": {"moves": 600_000}});
    scene.moderator.ack("room.configure", ROOM, config).await;
    bob.close().await;
    let mut carol = scene.member(1, "carol").await;
    carol.ack("move", ROOM, json!({"x": 1})).await;
    assert_eq!(carol.refused("move", ROOM, json!({"x": 2})).await, "cooldown");
}

/// What is not there is answered so, and nothing else comes of it.
#[tokio::test]
async fn what_is_not_in_the_room_is_not_found() {
    for store in [Store::Memory, Store::Redis] {
        let cluster = Cluster::start(store, 1, &[("JWT_SECRET", SECRET)]).await;
        let all = token("mod", json!({"*": ["*"]}));
        let mut client = Client::connect_with(cluster.gateways[0].addr, &all).await;
        client.ack("join", ROOM, json!({})).await;
        let sent = client
            .ack("message.send", ROOM, json!({"body": "to be deleted"}))
            .await;
        let id = sent["message"]["id"].clone();
        client.ack("message.delete", ROOM, json!({"messageId": id})).await;
        for (kind, data) in [
            ("message.edit", json!({"messageId": id, "body": "again"})),
            ("message.delete", json!({"messageId": id})),
            ("user.kick", json!({"user": "nobody-here"})),
        ] {
            assert_eq!(client.refused(kind, ROOM, data).await, "not_found", "{kind}");
        }
        // Nothing but the two events has come: no fresh picture.
        let told = settle(&mut client).await;
        assert_eq!(told, ["message.sent", "message.deleted"], "{store:?}");
    }
}

async fn settle(client: &mut Client) -> Vec<String> {
    let frames = settled(client).await;
    let told = frames.into_iter().filter(|frame| frame.id.is_none());
    told.map(|frame| frame.kind)
        .filter(|kind| kind != "presence")
        .collect()
}
