//! Moderation, configuration and what a room demands of commands.

use std::time::Duration;

use roomgate::store::{Action, CommandKey, Done, Op, StoreLimits, payload};
use roomgate_shared::{
    ids::{CommandId, RoomId},
    protocol::{
        JsonText,
        codes::ErrorCode,
        command::{Moderation, RoomStatus},
        config::ConfigChange,
        event::message_tail,
    },
};
use serde_json::{Value, json};

use super::harness::*;

pub(crate) fn moderate(action: Action, id: &str, duration_ms: Option<u64>) -> Op {
    Op::Moderate {
        by: user("m"),
        key: None,
        action,
        about: Moderation {
            user: user(id),
            reason: None,
            duration_ms,
        },
    }
}

pub(crate) fn configure(set: &[(&str, &str)], remove: &[&str]) -> Op {
    Op::Configure {
        by: user("m"),
        key: None,
        change: ConfigChange {
            set: fields(set),
            remove: names(remove),
        },
    }
}

pub(crate) fn status(status: RoomStatus) -> Op {
    Op::Status {
        by: user("m"),
        key: None,
        status,
    }
}

fn signal(id: &str) -> Op {
    Op::Signal {
        payload: payload::signal(id, [], "{}"),
    }
}

/// The events after `seq`, as values.
async fn after(node: &Node, room: &RoomId, epoch: &str, seq: u64) -> Vec<Value> {
    let tail = node.joined(room, Op::tail(since(epoch, seq))).await;
    assert!(tail.recovered);
    tail.missed
        .iter()
        .map(|event| serde_json::from_slice(event).unwrap())
        .collect()
}

/// Everything that a muted user may not do.
fn writings(id: &str) -> Vec<Op> {
    let patch = Op::StatePatch {
        by: user(id),
        key: None,
        set: fields(&[("a", "1")]),
        remove: Vec::new(),
        increment: Vec::new(),
        if_version: None,
    };
    vec![
        send(id, "1"),
        broadcast(id, "{}"),
        signal(id),
        patch,
        presence(id, &[("a", "2")], &[]),
    ]
}

pub(crate) async fn a_muted_user_may_only_read<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let muted = "u\"1";
    let epoch = node.joined(&room, enter(muted, 1)).await.epoch;
    node.joined(&room, enter("m", 2)).await;
    let message = text(&node.ack(&room, send(muted, "0")).await["message"], "id");
    let seq = node.ack(&room, moderate(Action::Mute, muted, None)).await["seq"].clone();
    assert_eq!(seq, 4);
    let events = after(&node, &room, &epoch, 3).await;
    assert_eq!(
        (&events[0]["type"], &events[0]["by"]),
        (&json!("user.muted"), &json!("m"))
    );
    assert_eq!(events[0]["data"], json!({"user": muted}));
    let own = Op::MessageDelete {
        by: user(muted),
        key: None,
        message_id: message,
        moderates: false,
    };
    for op in writings(muted).into_iter().chain([own]) {
        let refusal = node.refusal(&room, op).await;
        assert_eq!((refusal.code, refusal.details), (ErrorCode::Muted, None));
    }
    // Reading, and joining anew.
    node.ack(&room, history(None, None, 10)).await;
    let joined = node.joined(&room, enter(muted, 3)).await;
    let rules: Value = serde_json::from_slice(&joined.rules.unwrap()).unwrap();
    assert_eq!(rules, json!({"config": {}, "mutes": {muted: 0}}));
    for op in writings("m") {
        node.ack(&room, op).await;
    }
    let before = node.ack(&room, broadcast("m", "{}")).await["seq"]
        .as_u64()
        .unwrap();
    node.ack(&room, moderate(Action::Unmute, muted, None)).await;
    // Nothing to undo: no event.
    let again = node.ack(&room, moderate(Action::Unmute, muted, None)).await;
    assert_eq!(again["seq"], before + 1);
    for op in writings(muted) {
        node.ack(&room, op).await;
    }
}

pub(crate) async fn a_mute_ends_by_itself<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    node.ack(&room, moderate(Action::Mute, "u1", Some(400))).await;
    let events = after(&node, &room, &epoch, 1).await;
    let until = events[0]["data"]["until"].as_u64().unwrap();
    assert_eq!(until, events[0]["ts"].as_u64().unwrap() + 400);
    let refusal = node.refusal(&room, send("u1", "1")).await;
    assert_eq!(refusal.details, Some(format!("\"until\":{until}")));
    eventually("the mute ends", async || {
        node.one(&room, send("u1", "1")).await.is_ok()
    })
    .await;
}

pub(crate) async fn a_kicked_user_is_out_and_may_come_back<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = node.joined(&room, enter("m", 1)).await.epoch;
    node.joined(&room, enter("u1", 2)).await;
    node.joined(&room, enter("u1", 3)).await;
    node.one(&room, positions(&[("u1", "{\"x\":1}")])).await.unwrap();
    let seq = node.ack(&room, moderate(Action::Kick, "u1", None)).await["seq"].clone();
    let events = after(&node, &room, &epoch, 2).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["seq"], seq);
    assert_eq!(
        events[0]["data"],
        json!({"left": [{"user": "u1", "reason": "kicked"}]})
    );
    let page = node.ack(&room, list(None, 10)).await;
    assert_eq!(page["total"], 1);
    // Its connections go later, and say nothing more.
    node.ack(&room, lose("u1", 2)).await;
    assert_eq!(after(&node, &room, &epoch, 3).await.len(), 0);
    assert_eq!(
        node.refusal(&room, moderate(Action::Kick, "u1", None)).await.code,
        ErrorCode::NotFound
    );
    node.joined(&room, enter("u1", 4)).await;
    node.ack(&room, moderate(Action::Kick, "u1", Some(400))).await;
    let refusal = node.refusal(&room, enter("u1", 5)).await;
    assert_eq!(refusal.code, ErrorCode::Kicked);
    assert!(refusal.details.unwrap().starts_with("\"until\":"));
    eventually("it may come back", async || {
        node.one(&room, enter("u1", 5)).await.is_ok()
    })
    .await;
}

fn patch_by(id: &str) -> Op {
    let mut op = patch(&[("a", "1")], &[]);
    if let Op::StatePatch { by, .. } = &mut op {
        *by = user(id);
    }
    op
}

fn configure_by(id: &str) -> Op {
    let mut op = configure(&[("capacity", "9")], &[]);
    if let Op::Configure { by, .. } = &mut op {
        *by = user(id);
    }
    op
}

fn moderate_by(id: &str, action: Action, about: &str) -> Op {
    let mut op = moderate(action, about, None);
    if let Op::Moderate { by, .. } = &mut op {
        *by = user(id);
    }
    op
}

pub(crate) async fn a_banned_user_stays_out<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = node.joined(&room, enter("m", 1)).await.epoch;
    node.joined(&room, enter("u1", 2)).await;
    node.ack(&room, moderate(Action::Ban, "u1", None)).await;
    let events = after(&node, &room, &epoch, 2).await;
    assert_eq!(events[0]["type"], "user.banned");
    assert_eq!(
        events[1]["data"],
        json!({"left": [{"user": "u1", "reason": "banned"}]})
    );
    for op in [enter("u1", 3), resume("u1", 2, &epoch, 2)] {
        assert_eq!(node.refusal(&room, op).await.code, ErrorCode::Banned);
    }
    // Its gateway may not have heard of it yet, and passes on what it sends; or puts it in again after an outage.
    for op in [
        send("u1", "1"),
        broadcast("u1", "{}"),
        patch_by("u1"),
        configure_by("u1"),
        moderate_by("u1", Action::Unban, "u1"),
    ] {
        assert_eq!(node.refusal(&room, op).await.code, ErrorCode::Banned);
    }
    node.one(&room, come_back(&[("u1", 2), ("m", 1)])).await.unwrap();
    assert_eq!(node.picture(&room).await["members"], 1);
    // One that is not there is banned, too; and a time ends.
    node.ack(&room, moderate(Action::Ban, "u2", Some(400))).await;
    assert_eq!(node.refusal(&room, enter("u2", 4)).await.code, ErrorCode::Banned);
    eventually("the ban ends", async || {
        node.one(&room, enter("u2", 4)).await.is_ok()
    })
    .await;
    node.ack(&room, moderate(Action::Unban, "u1", None)).await;
    node.joined(&room, enter("u1", 5)).await;
    // A kick's time ends by it, too.
    node.ack(&room, moderate(Action::Kick, "u1", Some(60_000))).await;
    assert_eq!(node.refusal(&room, enter("u1", 6)).await.code, ErrorCode::Kicked);
    node.ack(&room, moderate(Action::Unban, "u1", None)).await;
    node.joined(&room, enter("u1", 6)).await;
}

pub(crate) async fn a_room_that_counts_tells_who_is_put_out<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = node.joined(&room, enter("m", 1)).await.epoch;
    node.joined(&room, enter("u1", 2)).await;
    node.joined(&room, enter("u2", 3)).await;
    let seq = node
        .ack(&room, configure(&[("presence", "\"count\"")], &[]))
        .await["seq"]
        .as_u64()
        .unwrap();
    node.ack(&room, moderate(Action::Kick, "u1", None)).await;
    node.ack(&room, moderate(Action::Ban, "u2", None)).await;
    let events = after(&node, &room, &epoch, seq).await;
    let left = |user: &str, reason: &str| json!({"left": [{"user": user, "reason": reason}]});
    assert_eq!(events[0]["data"], left("u1", "kicked"));
    assert_eq!(events[1]["type"], "user.banned");
    assert_eq!(events[2]["data"], left("u2", "banned"));
    assert_eq!(snapshot(&node.one(&room, enter("m", 1)).await).members, 1);
}

pub(crate) async fn moderation_happens_once_and_on_every_node<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let other = node_number::<B>(1, StoreLimits::default()).await;
    let other = if B::NODES > 1 { &other } else { &node };
    node.joined(&room, enter("u1", 1)).await;
    let keyed = |action| {
        let mut op = moderate(action, "u1", None);
        if let Op::Moderate { key, .. } = &mut op {
            *key = Some(CommandKey {
                id: CommandId::new("k1").unwrap(),
                fingerprint: action as u64,
            });
        }
        op
    };
    let first = node.ack(&room, keyed(Action::Ban)).await;
    let reply = other.one(&room, keyed(Action::Ban)).await;
    let Ok(Done::Again(text)) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), first);
    assert_eq!(
        other.refusal(&room, keyed(Action::Mute)).await.code,
        ErrorCode::IdConflict
    );
    assert_eq!(other.refusal(&room, enter("u1", 2)).await.code, ErrorCode::Banned);
}

pub(crate) async fn a_configuration_is_changed_setting_by_setting<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    let set = [
        ("name", "\"Lobby \\\"1\\\"\""),
        ("capacity", "10"),
        ("rate.messages", "{\"perSecond\":20,\"burst\":40}"),
        ("features.b.c", "[1.0,{}]"),
        ("features.a", "true"),
    ];
    let first = node.ack(&room, configure(&set, &[])).await;
    let config = json!({"name": "Lobby \"1\"", "capacity": 10, "features": {"a": true, "b.c": [1.0, {}]},
        "rate": {"messages": {"perSecond": 20, "burst": 40}}});
    assert_eq!(first, json!({"config": config, "seq": 2}));
    let text = node.one(&room, enter("u1", 1)).await;
    let joined = joined(&text);
    assert!(
        joined.data.contains(r#""features":{"a":true,"b.c":[1.0,{}]}"#),
        "{}",
        joined.data
    );
    let second = node
        .ack(
            &room,
            configure(&[("capacity", "11")], &["features.b.c", "name", "images"]),
        )
        .await;
    assert_eq!(
        second["config"],
        json!({"capacity": 11, "features": {"a": true}, "rate": {"messages": {"perSecond": 20, "burst": 40}}})
    );
    let events = after(&node, &room, &epoch, 1).await;
    assert_eq!(events[0]["data"], json!({"config": config}));
    assert_eq!(events[1]["data"], json!({"config": second["config"]}));
    // Again under its id: what was told then.
    let mut keyed = configure(&[("capacity", "12")], &[]);
    if let Op::Configure { key, .. } = &mut keyed {
        *key = Some(CommandKey {
            id: CommandId::new("k1").unwrap(),
            fingerprint: 1,
        });
    }
    let third = node.ack(&room, keyed.clone()).await;
    node.ack(&room, configure(&[("capacity", "13")], &[])).await;
    let reply = node.one(&room, keyed).await;
    let Ok(Done::Again(text)) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), third);
    let many: Vec<(String, String)> = (0..200)
        .map(|n| (format!("features.{n:0>100}"), "1".to_owned()))
        .collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(
        node.refusal(&room, configure(&many, &[])).await.code,
        ErrorCode::TooLarge
    );
}

pub(crate) async fn a_room_has_a_capacity<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    node.joined(&room, enter("u2", 2)).await;
    node.ack(&room, configure(&[("capacity", "2")], &[])).await;
    let refusal = node.refusal(&room, enter("u3", 3)).await;
    assert_eq!(refusal.code, ErrorCode::RoomFull);
    assert!(refusal.retry_ms.is_some());
    // Members come back, and with more connections.
    node.joined(&room, enter("u2", 4)).await;
    node.ack(&room, lose("u1", 1)).await;
    node.joined(&room, enter("u1", 5)).await;
    node.ack(&room, leave("u1", 5)).await;
    node.joined(&room, enter("u3", 3)).await;
    // In one batch there is one place.
    node.ack(&room, leave("u3", 3)).await;
    let replies = node.apply(&room, vec![enter("u4", 6), enter("u5", 7)]).await;
    assert!(replies[0].is_ok());
    assert_eq!(replies[1].as_ref().unwrap_err().code, ErrorCode::RoomFull);
}

pub(crate) async fn a_room_bounds_its_messages<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    node.ack(
        &room,
        configure(&[("maxMessageBytes", "10"), ("images", "false")], &[]),
    )
    .await;
    node.ack(&room, send("u1", "\"12345678\"")).await;
    assert_eq!(
        node.refusal(&room, send("u1", "\"123456789\"")).await.code,
        ErrorCode::TooLarge
    );
    let image = || Op::MessageSend {
        by: user("u1"),
        key: None,
        tail: message_tail("u1", "image", "\"data:\""),
    };
    assert_eq!(node.refusal(&room, image()).await.code, ErrorCode::BadRequest);
    let message = text(&node.ack(&room, send("u1", "1")).await["message"], "id");
    let edit = Op::MessageEdit {
        by: user("u1"),
        key: None,
        message_id: message,
        body: JsonText::from_trusted("\"123456789\""),
        if_version: None,
        moderates: false,
    };
    assert_eq!(node.refusal(&room, edit).await.code, ErrorCode::TooLarge);
    node.ack(&room, configure(&[], &["maxMessageBytes", "images"]))
        .await;
    node.ack(&room, image()).await;
    node.ack(&room, send("u1", "\"123456789\"")).await;
}

pub(crate) async fn a_lane_has_a_rate<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let other = node_number::<B>(1, StoreLimits::default()).await;
    let other = if B::NODES > 1 { &other } else { &node };
    node.joined(&room, enter("u1", 1)).await;
    let rate = "{\"perSecond\":4,\"burst\":3}";
    let set = [("rate.messages", rate), ("rate.broadcasts", rate)];
    node.ack(&room, configure(&set, &[])).await;
    // One bucket for all users and nodes, whether in one batch or in several.
    let mut replies = node.apply(&room, vec![send("u1", "1"), send("u2", "2")]).await;
    replies.extend(other.apply(&room, vec![send("u3", "3"), send("u4", "4")]).await);
    assert_eq!(
        replies.iter().filter(|reply| reply.is_ok()).count(),
        3,
        "{replies:?}"
    );
    let refusal = replies[3].clone().unwrap_err();
    assert_eq!(refusal.code, ErrorCode::RateLimited);
    let wait = refusal.retry_ms.unwrap();
    assert!((1..=250).contains(&wait), "{wait}");
    // The other lanes have theirs.
    node.ack(&room, broadcast("u1", "{}")).await;
    node.ack(&room, signal("u1")).await;
    node.ack(&room, signal("u1")).await;
    assert_eq!(
        node.refusal(&room, signal("u1")).await.code,
        ErrorCode::RateLimited
    );
    for op in writings("u1").into_iter().skip(3) {
        node.ack(&room, op).await;
    }
    eventually("a token comes back", async || {
        node.one(&room, send("u1", "5")).await.is_ok()
    })
    .await;
    node.ack(&room, configure(&[], &["rate.messages"])).await;
    for _ in 0..5 {
        node.ack(&room, send("u1", "6")).await;
    }
}

pub(crate) async fn slow_mode_holds_each_user_up<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    node.ack(&room, configure(&[("cooldownMs.messages", "500")], &[]))
        .await;
    node.ack(&room, send("u1", "1")).await;
    let refusal = node.refusal(&room, send("u1", "2")).await;
    assert_eq!(refusal.code, ErrorCode::Cooldown);
    assert!((1..=500).contains(&refusal.retry_ms.unwrap()), "{refusal:?}");
    node.ack(&room, send("u2", "3")).await;
    node.ack(&room, broadcast("u1", "{}")).await;
    // What is refused does not begin it anew.
    eventually("the pause ends", async || {
        node.one(&room, send("u1", "4")).await.is_ok()
    })
    .await;
    let replies = node.apply(&room, vec![send("u3", "5"), send("u3", "6")]).await;
    assert!(replies[0].is_ok());
    assert_eq!(replies[1].as_ref().unwrap_err().code, ErrorCode::Cooldown);
}

pub(crate) async fn arrivals_have_a_rate_and_members_do_not<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    node.ack(
        &room,
        configure(&[("rate.joins", "{\"perSecond\":0.5,\"burst\":2}")], &[]),
    )
    .await;
    let replies = node
        .apply(
            &room,
            vec![enter("u2", 2), enter("u3", 3), enter("u4", 4), enter("u1", 5)],
        )
        .await;
    assert!(replies[0].is_ok() && replies[1].is_ok() && replies[3].is_ok());
    assert_eq!(replies[2].as_ref().unwrap_err().code, ErrorCode::RateLimited);
    node.joined(&room, enter("u2", 6)).await;
}

pub(crate) async fn a_retry_is_answered_whatever_the_rules<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    node.ack(&room, configure(&[("cooldownMs.messages", "60000")], &[]))
        .await;
    let keyed = || Op::MessageSend {
        by: user("u1"),
        key: Some(CommandKey {
            id: CommandId::new("k1").unwrap(),
            fingerprint: 1,
        }),
        tail: message_tail("u1", "text", "1"),
    };
    node.ack(&room, keyed()).await;
    assert!(matches!(node.one(&room, keyed()).await, Ok(Done::Again(_))));
    node.ack(&room, moderate(Action::Mute, "u1", None)).await;
    assert!(matches!(node.one(&room, keyed()).await, Ok(Done::Again(_))));
}

pub(crate) async fn presence_is_configured_at_run_time<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.store.subscribe(&room).await.unwrap();
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    node.joined(&room, enter("u2", 2)).await;
    for mode in ["count", "off"] {
        let quoted = format!("\"{mode}\"");
        let seq = node.ack(&room, configure(&[("presence", &quoted)], &[])).await["seq"]
            .as_u64()
            .unwrap();
        node.ack(&room, presence("u1", &[("a", &quoted)], &[])).await;
        assert_eq!(after(&node, &room, &epoch, seq).await.len(), 0, "{mode}");
        let joined = snapshot(&node.one(&room, enter("u1", 1)).await);
        assert_eq!((joined.users.len(), joined.members), (0, 2));
    }
    let seq = node.ack(&room, configure(&[], &["presence"])).await["seq"]
        .as_u64()
        .unwrap();
    let events = after(&node, &room, &epoch, seq).await;
    assert_eq!(events[0]["data"]["all"], true);
    assert_eq!(events[0]["data"]["joined"].as_array().unwrap().len(), 2);
    assert_eq!(snapshot(&node.one(&room, enter("u1", 1)).await).users.len(), 2);
}

pub(crate) async fn a_room_keeps_its_messages_for_its_own_time<B: Backend>() {
    let limits = StoreLimits {
        retention: Duration::from_secs(3600),
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    node.ack(&room, send("u1", "1")).await;
    // 360 ms.
    node.ack(&room, configure(&[("retentionHours", "0.0001")], &[]))
        .await;
    let page = async || node.ack(&room, history(None, None, 10)).await["messages"].clone();
    eventually("the message is past its time", async || page().await == json!([])).await;
    node.ack(&room, send("u1", "2")).await;
    assert_eq!(bodies(&page().await), [json!(2)]);
    let joined = snapshot(&node.one(&room, enter("u1", 1)).await);
    assert!(joined.messages.len() <= 1);
}

/// A hot room, whose window is half a second, never shows anything older, and keeps nothing older for long.
pub(crate) async fn nothing_of_a_busy_room_outlives_its_window<B: Backend>() {
    let nodes = apart::<B>(StoreLimits::default()).await;
    let (node, room) = (nodes.node(0), new_room());
    node.joined(&room, enter("u1", 1)).await;
    node.ack(&room, configure(&[("retentionHours", "0.00014")], &[]))
        .await;
    let end = node.store.now_ms() + 3_000;
    let mut oldest_seen = u64::MAX;
    while node.store.now_ms() < end {
        let replies = node
            .apply(&room, (0..50).map(|n| send("u1", &n.to_string())).collect())
            .await;
        let now = ack(&replies[49])["message"]["ts"].as_u64().unwrap();
        let page = node.ack(&room, history(None, None, 200)).await;
        for message in page["messages"].as_array().unwrap() {
            let ts = message["ts"].as_u64().unwrap();
            oldest_seen = oldest_seen.min(ts);
            assert!(now.saturating_sub(ts) <= 510, "{} ms old", now - ts);
        }
    }
    eventually("swept", async || {
        node.one(&room, Op::Sweep).await.unwrap();
        let page = node.ack(&room, history(None, None, 1)).await;
        page["messages"] == json!([])
    })
    .await;
}

pub(crate) async fn a_waiting_room_lives_shorter<B: Backend>() {
    let limits = StoreLimits {
        active_ttl: Duration::from_secs(60),
        waiting_ttl: Duration::from_millis(300),
        ..StoreLimits::default()
    };
    let (node, room) = (node_with::<B>(limits).await, new_room());
    let epoch = node.joined(&room, enter("u1", 1)).await.epoch;
    let seq = node.ack(&room, status(RoomStatus::Waiting)).await["seq"].clone();
    let events = after(&node, &room, &epoch, 1).await;
    assert_eq!(
        (&events[0]["seq"], &events[0]["data"]),
        (&seq, &json!({"status": "waiting"}))
    );
    // The same again changes nothing.
    assert_eq!(node.ack(&room, status(RoomStatus::Waiting)).await["seq"], seq);
    assert_eq!(
        snapshot(&node.one(&room, enter("u1", 1)).await).room.status,
        "waiting"
    );
}
