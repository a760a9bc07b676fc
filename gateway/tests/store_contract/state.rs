//! The shared state.

use roomgate::store::Op;
use roomgate_shared::protocol::{MAX_STATE_BYTES, codes::ErrorCode};
use serde_json::json;

use super::{harness::*, presence::EXACT};

pub(crate) async fn fields_are_set_read_and_removed<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    assert_eq!(
        node.ack(&room, state(None)).await,
        json!({"version": 0, "state": {}, "seq": 1})
    );
    let ack = node
        .ack(&room, patch(&[("a", "1"), ("b", "[2]")], &["never"]))
        .await;
    assert_eq!(ack, json!({"version": 1, "seq": 2}));
    assert_eq!(
        node.ack(&room, patch(&[("c", "null")], &["a"])).await,
        json!({"version": 2, "seq": 3})
    );
    let all = json!({"version": 2, "state": {"b": [2], "c": null}, "seq": 3});
    assert_eq!(node.ack(&room, state(None)).await, all);
    let some = node.ack(&room, state(Some(&["c", "a", "zz"]))).await;
    assert_eq!(some["state"], json!({"c": null}));
    let picture = snapshot(&node.one(&room, enter("u2", 2)).await);
    assert_eq!((picture.version, json!(picture.state)), (2, all["state"].clone()));
    let tail = node.joined(&room, Op::tail(since(&picture.epoch, 1))).await;
    let event: serde_json::Value = serde_json::from_slice(&tail.missed[0]).unwrap();
    let expected = json!({"version": 1, "set": {"a": 1, "b": [2]}, "remove": ["never"]});
    assert_eq!(
        (&event["type"], &event["by"], &event["data"]),
        (&json!("state.patched"), &json!("u1"), &expected)
    );
}

pub(crate) async fn state_in_a_batch_is_in_order<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let ops = vec![
        state(None),
        patch(&[("a", "1")], &[]),
        state(Some(&["a"])),
        patch(&[], &["a"]),
        state(None),
        increment("a", 2.0),
        state(None),
    ];
    let replies = node.apply(&room, ops).await;
    let states: Vec<_> = [0, 2, 4, 6].map(|at| ack(&replies[at])["state"].clone()).to_vec();
    assert_eq!(states, [json!({}), json!({"a": 1}), json!({}), json!({"a": 2})]);
    assert_eq!(node.ack(&room, state(None)).await["state"], json!({"a": 2}));
}

pub(crate) async fn a_patch_of_another_version_is_a_conflict<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    node.ack(&room, patch(&[("a", "1"), ("b", "2"), ("x", "9")], &[]))
        .await;
    let op = |version| Op::StatePatch {
        by: user("u1"),
        key: None,
        set: fields(&[("a", "5")]),
        remove: names(&["b", "zz"]),
        increment: vec![("x".to_owned(), 1.0)],
        if_version: Some(version),
    };
    for version in [0, 2] {
        let refusal = node.refusal(&room, op(version)).await;
        assert_eq!(refusal.code, ErrorCode::Conflict);
        let details: serde_json::Value =
            serde_json::from_str(&format!("{{{}}}", refusal.details.unwrap())).unwrap();
        assert_eq!(details, json!({"version": 1, "fields": {"a": 1, "b": 2, "x": 9}}));
    }
    assert_eq!(node.ack(&room, op(1)).await, json!({"version": 2, "seq": 3}));
    assert_eq!(
        node.ack(&room, state(None)).await["state"],
        json!({"a": 5, "x": 10})
    );
}

pub(crate) async fn increments_add_up<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    for (by, expected) in [
        (1.0, "1"),
        (-3.0, "-2"),
        (2.5, "0.5"),
        (-0.5, "0"),
        (0.1, "0.1"),
        (0.2, "0.30000000000000004"),
        (-0.300_000_000_000_000_04, "0"),
        (9_007_199_254_740_991.0, "9007199254740991"),
        (1.0, "9007199254740992"),
    ] {
        node.ack(&room, increment("n", by)).await;
        let reply = node.one(&room, state(Some(&["n"]))).await;
        let Ok(roomgate::store::Done::Ack(text)) = reply else {
            panic!("{reply:?}")
        };
        assert!(
            text.contains(&format!("\"n\":{expected}}}")),
            "{expected} in {text}"
        );
    }
    node.ack(&room, patch(&[("f", "1.50")], &[])).await;
    node.ack(&room, increment("f", 1e300)).await;
    let read = node.ack(&room, state(Some(&["f"]))).await;
    assert_eq!(read["state"]["f"].as_f64(), Some(1e300));
    // Past 2^53 it is a double, however it is written.
    node.ack(&room, increment("n", 9e15)).await;
    let read = node.ack(&room, state(Some(&["n"]))).await;
    assert_eq!(read["state"]["n"].as_f64(), Some(9_007_199_254_740_992.0 + 9e15));
}

pub(crate) async fn what_cannot_be_incremented_is_refused_whole<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let values = [
        ("s", "\"5\""),
        ("l", "[1]"),
        ("o", "{}"),
        ("t", "true"),
        ("z", "null"),
        ("big", "1.7e308"),
    ];
    node.ack(&room, patch(&values, &[])).await;
    let before = node.ack(&room, state(None)).await;
    for (name, by) in [
        ("s", 1.0),
        ("l", 1.0),
        ("o", 1.0),
        ("t", 1.0),
        ("z", 1.0),
        ("big", 1.7e308),
    ] {
        let op = Op::StatePatch {
            by: user("u1"),
            key: None,
            set: fields(&[("other", "1")]),
            remove: names(&["s2"]),
            increment: vec![("good".to_owned(), 1.0), (name.to_owned(), by)],
            if_version: None,
        };
        assert_eq!(
            node.refusal(&room, op).await.code,
            ErrorCode::BadRequest,
            "{name}"
        );
    }
    assert_eq!(node.ack(&room, state(None)).await, before);
}

pub(crate) async fn the_state_has_a_limit<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    let half = format!("\"{}\"", "x".repeat(MAX_STATE_BYTES / 2 - 3));
    node.ack(&room, patch(&[("a", &half), ("b", &half)], &[])).await;
    let refusal = node.refusal(&room, patch(&[("c", "1")], &[])).await;
    assert_eq!(refusal.code, ErrorCode::StateTooLarge);
    assert_eq!(
        node.refusal(&room, increment("c", 1.0)).await.code,
        ErrorCode::StateTooLarge
    );
    // What a patch frees counts, within the patch and afterwards.
    node.ack(&room, patch(&[("c", &half)], &["a"])).await;
    node.ack(&room, patch(&[("c", "1")], &[])).await;
    node.ack(&room, patch(&[("d", "1")], &["b"])).await;
    let read = node.ack(&room, state(None)).await;
    assert_eq!(
        (&read["state"], &read["version"]),
        (&json!({"c": 1, "d": 1}), &json!(4))
    );
}

pub(crate) async fn state_keeps_its_text<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    node.joined(&room, enter("u1", 1)).await;
    for value in EXACT {
        node.ack(&room, patch(&[("v", value), ("é\"\\\n", value)], &[]))
            .await;
        let reply = node.one(&room, state(Some(&["v"]))).await;
        let Ok(roomgate::store::Done::Ack(text)) = reply else {
            panic!("{reply:?}")
        };
        assert!(
            text.contains(&format!("\"state\":{{\"v\":{value}}}")),
            "{value} in {text}"
        );
    }
    let read = node.ack(&room, state(Some(&["é\"\\\n"]))).await;
    assert_eq!(read["state"], json!({"é\"\\\n": true}));
}
