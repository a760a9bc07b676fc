//! Any operations in any batches: the order has no holes, and replaying the events over a snapshot gives the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{collection::vec, prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use roomgate::store::{Op, StoreLimits};
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
        2 => Just(Op::Sweep),
        1 => vec((user_id(), 0..3_u64), 1..3).prop_map(|members| {
            let members: Vec<_> = members.iter().map(|(id, number)| (id.as_str(), *number)).collect();
            come_back(&members)
        }),
        1 => Just(Op::Bury { node: ITSELF.to_owned(), cursor: String::new() }),
        1 => (user_id(), value()).prop_map(|(id, x)| positions(&[(&id, &format!("{{\"x\":{x}}}"))])),
        1 => user_id().prop_map(|id| Op::Active { users: vec![user(&id)] }),
    ]
}

/// Stands for the node that applies the operation.
const ITSELF: &str = "itself";

/// What members see of a room.
#[derive(Debug, Default, PartialEq)]
struct View {
    seq: u64,
    version: u64,
    /// Nothing where the room counts.
    users: Option<BTreeMap<String, Value>>,
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
        let counts = users.is_empty() && picture["members"] != 0;
        assert!(counts || picture["members"] == users.len());
        let users = (!counts).then_some(users);
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
                assert_one_thing_of_each(data);
                if data["all"] == true {
                    self.users = Some(BTreeMap::new());
                }
                let users = self.users.as_mut();
                let users = users.unwrap_or_else(|| panic!("in a room that counts: {event}"));
                for user in items(&data["joined"]) {
                    assert!(users.insert(text(user, "id"), face(user)).is_none(), "{event}");
                }
                for user in items(&data["updated"]) {
                    assert!(users.insert(text(user, "id"), face(user)).is_some(), "{event}");
                }
                for (part, status) in [("away", "away"), ("back", "here")] {
                    for id in items(&data[part]) {
                        let user = users.get_mut(id.as_str().unwrap()).unwrap();
                        assert!(part == "back" || user["status"] != status, "{event}");
                        user["status"] = json!(status);
                    }
                }
                for left in items(&data["left"]) {
                    assert!(users.remove(&text(left, "user")).is_some(), "{event}");
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

/// An event says one thing of a user, save that `back` and `updated` may come together; and something at all.
fn assert_one_thing_of_each(data: &Value) {
    let mut seen = BTreeSet::new();
    for part in ["joined", "away", "left", "back", "updated"] {
        for entry in items(&data[part]) {
            let id = ["id", "user"].iter().find_map(|name| entry[name].as_str());
            let id = id.or(entry.as_str()).unwrap();
            let is_new = seen.insert(id);
            let is_back = part == "updated" && items(&data["back"]).any(|back| back == id);
            assert!(is_new || is_back, "{id} twice: {data}");
        }
    }
    // Nobody may be everybody: the last ones have left at once.
    assert!(!seen.is_empty() || data["all"] == true, "{data}");
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
    for mut batch in batches {
        for op in &mut batch {
            if let Op::Bury { node: name, .. } = op {
                *name = node.store.instance().to_string();
            }
        }
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
        let next = view_of(node, &room).await;
        if next.users.is_none() {
            view.users = None;
        }
        assert_eq!(view, next);
    }
}

/// Proptest's own loop cannot await, so the cases are made here and checked one by one.
pub(crate) async fn replaying_events_gives_the_picture<B: Backend>() {
    // Away for hardly a moment, so that sweeps find somebody; and with few members already too many, or never.
    let limits = |full_members| StoreLimits {
        grace: Duration::from_millis(1),
        full_members,
        ..StoreLimits::default()
    };
    let nodes = [
        node_with::<B>(limits(1_000)).await,
        node_with::<B>(limits(2)).await,
        node_with::<B>(limits(3)).await,
    ];
    let mut runner = TestRunner::default();
    let strategy = vec(vec(op(), 1..12), 1..12);
    for case in 0..90 {
        let batches = strategy.new_tree(&mut runner).unwrap().current();
        let _shown = Shown(format!("{batches:?}"));
        check(&nodes[case % nodes.len()], batches).await;
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
