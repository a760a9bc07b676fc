//! Who members may be, and their lists.

use roomgate::store::Op;
use serde_json::json;

use super::{harness::*, presence::events};

pub(crate) async fn user_ids_may_hold_anything_printable<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let ids = [
        "Zoë \"7\"",
        "back\\slash",
        "{user}",
        "日本 語",
        "\u{1f600}",
        "1",
        "a/b",
        "%s",
        "-1",
    ];
    for (number, id) in ids.iter().enumerate() {
        let you = snapshot(&node.one(&room, enter(id, number as u64)).await).you;
        assert_eq!((you.id.as_str(), you.name), (*id, format!("<{id}>")));
        let ack = node.ack(&room, send(id, "1")).await;
        assert_eq!(ack["message"]["by"], *id);
    }
    let list = node
        .ack(
            &room,
            Op::UsersList {
                cursor: None,
                limit: 100,
            },
        )
        .await;
    let mut expected = ids.to_vec();
    expected.sort_unstable();
    let listed: Vec<_> = list["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| text(user, "id"))
        .collect();
    assert_eq!(listed, expected);
    let epoch = node.joined(&room, Op::tail(since("x", 0))).await.epoch;
    node.ack(&room, lose(ids[0], 0)).await;
    let last = events(&node, &room, &epoch).await.pop().unwrap();
    assert_eq!(last["data"]["away"], json!([ids[0]]));
}

pub(crate) async fn members_are_listed_in_pages<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let ids = ["B", "a", "C", "é", "b", "10", "9", "_"];
    let ops = ids
        .iter()
        .zip(1..)
        .map(|(id, number)| enter(id, number))
        .collect();
    node.apply(&room, ops).await;
    let mut expected = ids.to_vec();
    expected.sort_unstable();
    let (mut listed, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = node
            .ack(
                &room,
                Op::UsersList {
                    cursor: cursor.clone(),
                    limit: 3,
                },
            )
            .await;
        assert_eq!(page["total"], 8);
        listed.extend(
            page["users"]
                .as_array()
                .unwrap()
                .iter()
                .map(|user| text(user, "id")),
        );
        pages += 1;
        match page.get("cursor") {
            Some(next) => cursor = Some(next.as_str().unwrap().to_owned()),
            None => break,
        }
    }
    assert_eq!(
        (listed, pages),
        (expected.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>(), 3)
    );
    // A cursor need not be a member any more, and a list in a batch sees what came before it.
    let list = Op::UsersList {
        cursor: Some("a~".to_owned()),
        limit: 1,
    };
    let replies = node.apply(&room, vec![list.clone(), leave("b", 5), list]).await;
    assert_eq!(ack(&replies[0])["users"][0]["id"], "b");
    let after = ack(&replies[2]);
    assert_eq!(
        (&after["users"][0]["id"], &after["total"]),
        (&json!("é"), &json!(7))
    );
    let exactly = node
        .ack(
            &room,
            Op::UsersList {
                cursor: None,
                limit: 7,
            },
        )
        .await;
    assert!(exactly.get("cursor").is_none());
}

pub(crate) async fn pages_of_many_hold_each_member_once<B: Backend>() {
    let (node, room) = (node::<B>().await, new_room());
    let mut expected: Vec<String> = (0..257).map(|n| format!("u{}", n * 7919 % 1000)).collect();
    for some in expected.chunks(64) {
        let joins = some.iter().enumerate().map(|(n, id)| enter(id, n as u64));
        node.apply(&room, joins.collect()).await;
    }
    expected.sort_unstable();
    expected.dedup();
    for limit in [1, 3, 64, 200] {
        let (mut listed, mut cursor): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let page = node.ack(&room, list(cursor.as_deref(), limit)).await;
            let users = page["users"].as_array().unwrap();
            assert!((1..=limit).contains(&users.len()));
            listed.extend(users.iter().map(|user| text(user, "id")));
            match page.get("cursor") {
                Some(next) => cursor = Some(next.as_str().unwrap().to_owned()),
                None => break,
            }
        }
        assert_eq!(listed, expected, "{limit}");
    }
}
