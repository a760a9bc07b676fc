//! Every command with every permission, over both stores: allowed exactly where the table says.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use roomgate_shared::protocol::CommandType;
use serde_json::{Value, json};
use support::{
    client::Client,
    cluster::{Cluster, Store},
    tokens::{SECRET, token},
};

const PERMISSIONS: [&str; 5] = ["join", "send", "state", "moderate", "manage"];

/// Which of them allow a command; any one is enough.
fn allowed_by(kind: CommandType) -> &'static [&'static str] {
    match kind {
        CommandType::Auth | CommandType::Ping => &PERMISSIONS,
        CommandType::Join
        | CommandType::Leave
        | CommandType::MessageHistory
        | CommandType::MessageMissing
        | CommandType::StateGet
        | CommandType::UsersList => &["join"],
        CommandType::PresenceUpdate
        | CommandType::Move
        | CommandType::Signal
        | CommandType::Broadcast
        | CommandType::MessageSend => &["send"],
        CommandType::MessageEdit | CommandType::MessageDelete => &["send", "moderate"],
        CommandType::StatePatch => &["state"],
        CommandType::UserKick
        | CommandType::UserMute
        | CommandType::UserUnmute
        | CommandType::UserBan
        | CommandType::UserUnban => &["moderate"],
        CommandType::RoomConfigure | CommandType::RoomStatus => &["manage"],
    }
}

/// Data that are right for the command. `message` is one that another user has sent.
fn data(kind: CommandType, message: &str) -> Value {
    match kind {
        CommandType::Auth | CommandType::Ping | CommandType::Leave => json!({}),
        CommandType::Join => json!({"messages": 0}),
        CommandType::PresenceUpdate => json!({"set": {"a": 1}}),
        CommandType::Move => json!({"x": 1}),
        CommandType::Signal | CommandType::Broadcast => json!({"event": "e", "payload": 1}),
        CommandType::MessageSend => json!({"body": 1}),
        CommandType::MessageEdit => json!({"messageId": message, "body": 2}),
        CommandType::MessageDelete => json!({"messageId": message}),
        CommandType::MessageHistory | CommandType::StateGet | CommandType::UsersList => json!({}),
        CommandType::MessageMissing => json!({"from": 0, "to": 1, "ids": []}),
        CommandType::StatePatch => json!({"set": {"a": 1}}),
        CommandType::UserKick => json!({"user": "victim"}),
        CommandType::UserMute | CommandType::UserUnmute | CommandType::UserBan | CommandType::UserUnban => {
            json!({"user": "nobody"})
        }
        CommandType::RoomConfigure => json!({"name": "x"}),
        CommandType::RoomStatus => json!({"status": "active"}),
    }
}

async fn table(store: Store) {
    let cluster = Cluster::start(store, 1, &[("JWT_SECRET", SECRET)]).await;
    let addr = cluster.gateways[0].addr;
    let mut owner = Client::connect_with(addr, &token("owner", json!({"*": ["*"]}))).await;
    for &kind in CommandType::ALL.iter().filter(|kind| kind.needs_room()) {
        for permission in PERMISSIONS {
            let room = format!("{}-{permission}", kind.as_str());
            owner.ack("join", &room, json!({})).await;
            let message = owner.ack("message.send", &room, json!({"body": 1})).await["message"]["id"].clone();
            let mut victim = Client::connect_with(addr, &token("victim", json!({"*": ["join"]}))).await;
            victim.ack("join", &room, json!({})).await;
            // In by one token, and asking by another.
            let in_by = token("u", json!({&room: ["join"]}));
            let mut client = Client::connect_with(addr, &in_by).await;
            client.ack("join", &room, json!({})).await;
            let wrong = token(
                "u",
                json!({&room: [permission], "other": ["*"], "other-*": ["*"]}),
            );
            let mut stranger = Client::connect_with(addr, &wrong).await;
            let data = data(kind, message.as_str().unwrap());
            let allowed = allowed_by(kind).contains(&permission);
            // Outside of the room: permission comes before `not_joined`.
            let outside = stranger.ask(kind.as_str(), &room, data.clone()).await;
            let expected = match (allowed, kind) {
                (false, _) => Some("forbidden"),
                (true, CommandType::Join) => None,
                (true, _) => Some("not_joined"),
            };
            assert_eq!(
                outside.data["code"].as_str(),
                expected,
                "{} by {permission}",
                kind.as_str()
            );
            // Inside, where the token lets it be: `join` and that.
            let both = token("u", json!({&room: ["join", permission]}));
            client
                .send_text(json!({"id": "a", "type": "auth", "data": {"token": both}}).to_string())
                .await;
            client.until(|frame| frame.id.as_deref() == Some("a")).await;
            let inside = client.ask(kind.as_str(), &room, data).await;
            let allowed = allowed || allowed_by(kind).contains(&"join");
            let others = matches!(kind, CommandType::MessageEdit | CommandType::MessageDelete);
            let expected = if allowed && !(others && permission == "send") {
                None
            } else {
                // Another's message, for who may only send.
                Some("forbidden")
            };
            assert_eq!(
                inside.data["code"].as_str(),
                expected,
                "{} by join, {permission}",
                kind.as_str()
            );
            owner.ack("leave", &room, json!({})).await;
            for client in [victim, client, stranger] {
                client.close().await;
            }
        }
    }
}

#[tokio::test]
async fn every_command_needs_its_permission_in_memory() {
    table(Store::Memory).await;
}

#[tokio::test]
async fn every_command_needs_its_permission_over_redis() {
    table(Store::Redis).await;
}

#[tokio::test]
async fn anonymous_users_join_send_and_change_the_state() {
    let cluster = Cluster::start(Store::Memory, 1, &[]).await;
    let mut client = cluster.client(0, "ada").await;
    client.ack("join", "lobby", json!({})).await;
    let message = client.ack("message.send", "lobby", json!({"body": 1})).await["message"]["id"].clone();
    let mut other = cluster.client(0, "bob").await;
    other.ack("join", "lobby", json!({})).await;
    for &kind in CommandType::ALL.iter().filter(|kind| kind.needs_room()) {
        if matches!(kind, CommandType::Join | CommandType::Leave) {
            continue;
        }
        let anonymous = ["join", "send", "state"];
        let others = matches!(kind, CommandType::MessageEdit | CommandType::MessageDelete);
        let allowed = !others && allowed_by(kind).iter().any(|one| anonymous.contains(one));
        let answer = other
            .ask(kind.as_str(), "lobby", data(kind, message.as_str().unwrap()))
            .await;
        let expected = (!allowed).then_some("forbidden");
        assert_eq!(answer.data["code"].as_str(), expected, "{}", kind.as_str());
    }
}
