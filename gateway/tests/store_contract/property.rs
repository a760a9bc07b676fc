//! Any operations in any batches: the order has no holes, and replaying the events over a snapshot gives the next one.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use roomgate::store::Op;
use roomgate_shared::ids::RoomId;
use serde_json::{Value, json};

use super::harness::*;

fn user_id() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b\"", "é", "d"]).prop_map(str::to_owned)
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["x", "y", "z\"", "1"])
}

fn value() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["1", "1.5", "[]", "{}", "\"t\"", "-7"])
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (user_id(), 0..3_u64, prop::option::of((name(), value()))).prop_map(|(id, number, presence)| {
            let presence = fields(&presence.into_iter().collect::<Vec<_>>());
            Op::Join(roomgate::store::Join { presence, ..join(&id, number) })
        }),
        4 => (user_id(), 0..3_u64, any::<bool>())
            .prop_map(|(id, number, leaving)| if leaving { leave(&id, number) } else { lose(&id, number) }),
        2 => (user_id(), name(), value(), name()).prop_map(|(id, set, value, gone)| {
            presence(&id, &[(set, value)], if set == gone { &[] } else { std::slice::from_ref(&gone) })
        }),
        3 => (user_id(), value()).prop_map(|(id, body)| send(&id, body)),
        1 => user_id().prop_map(|id| broadcast(&id, "{}")),
        2 => (name(), value(), name()).prop_map(|(set, value, gone)| {
            patch(&[(set, value)], if set == gone { &[] } else { std::slice::from_ref(&gone) })
        }),
        2 => (name(), -3..3_i32).prop_map(|(name, by)| increment(name, f64::from(by) / 2.0)),
        1 => Just(state(None)),
        1 => Just(history(None, None, 3)),
    ]
}

/// What members see of a room.
#[derive(Debug, Default, PartialEq)]
struct View {
    seq: u64,
    version: u64,
    users: BTreeMap<String, Value>,
    state: BTreeMap<String, Value>,
    messages: Vec<Value>,
}

/// A user without what changes silently.
fn face(user: &Value) -> Value {
    json!({"name": user["name"], "presence": user["presence"], "status": user["status"], "joinedAt": user["joinedAt"]})
}

fn pairs(object: &Value) -> BTreeMap<String, Value> {
    object
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

impl View {
    fn of(picture: &Value, page: &Value) -> Self {
        let users = items(&picture["users"])
            .map(|user| (text(user, "id"), face(user)))
            .collect::<BTreeMap<_, _>>();
        assert_eq!(picture["members"].as_u64(), Some(users.len() as u64));
        Self {
            seq: picture["seq"].as_u64().unwrap(),
            version: picture["version"].as_u64().unwrap(),
            users,
            state: pairs(&picture["state"]),
            messages: items(&page["messages"]).cloned().collect(),
        }
    }

    fn replay(&mut self, event: &Value) {
        self.seq += 1;
        assert_eq!(event["seq"].as_u64(), Some(self.seq));
        let data = &event["data"];
        match event["type"].as_str().unwrap() {
            "presence" => {
                for user in items(&data["joined"]) {
                    assert!(
                        self.users.insert(text(user, "id"), face(user)).is_none(),
                        "{event}"
                    );
                }
                for user in items(&data["updated"]) {
                    assert!(
                        self.users.insert(text(user, "id"), face(user)).is_some(),
                        "{event}"
                    );
                }
                for (part, status) in [("away", "away"), ("back", "here")] {
                    for id in items(&data[part]) {
                        self.users.get_mut(id.as_str().unwrap()).unwrap()["status"] = json!(status);
                    }
                }
                for left in items(&data["left"]) {
                    assert!(self.users.remove(&text(left, "user")).is_some(), "{event}");
                }
            }
            "message.sent" => self.messages.push(data.clone()),
            "state.patched" => {
                self.version += 1;
                assert_eq!(data["version"].as_u64(), Some(self.version));
                for name in items(&data["remove"]) {
                    self.state.remove(name.as_str().unwrap());
                }
                self.state.extend(pairs(&data["set"]));
            }
            "broadcast" => {}
            other => panic!("{other}"),
        }
    }
}

async fn view_of(node: &Node, room: &RoomId) -> View {
    View::of(
        &node.picture(room).await,
        &node.ack(room, history(None, None, 50)).await,
    )
}

async fn check(node: &Node, batches: Vec<Vec<Op>>) {
    let room: RoomId = new_room();
    node.joined(&room, enter("a", 0)).await;
    let mut view = view_of(node, &room).await;
    let epoch = node.joined(&room, Op::tail(since("", 0))).await.epoch;
    for batch in batches {
        let replies = node.apply(&room, batch).await;
        for reply in replies.iter().flatten() {
            if let roomgate::store::Done::Joined(joined) = reply {
                assert_eq!(joined.epoch, epoch);
            }
        }
        let tail = node.joined(&room, Op::tail(since(&epoch, view.seq))).await;
        assert!(tail.recovered);
        for bytes in &tail.missed {
            view.replay(&serde_json::from_slice(bytes).unwrap());
        }
        view.messages.drain(..view.messages.len().saturating_sub(50));
        assert_eq!(view, view_of(node, &room).await);
    }
}

/// Proptest's own loop cannot await, so the cases are made here and checked one by one.
pub(crate) async fn replaying_events_gives_the_picture<B: Backend>() {
    let node = node::<B>().await;
    let mut runner = TestRunner::default();
    let strategy = vec(vec(op(), 1..12), 1..12);
    for _ in 0..60 {
        let batches = strategy.new_tree(&mut runner).unwrap().current();
        let _shown = Shown(format!("{batches:?}"));
        check(&node, batches).await;
    }
}

/// Prints the case that fails.
struct Shown(String);

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failing case: {}", self.0);
        }
    }
}
