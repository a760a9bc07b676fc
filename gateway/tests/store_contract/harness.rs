//! What the suite needs: stores to try, a sink that records, and the replies as values.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use roomgate::store::{
    Buried, Control, Done, EventSink, Join, Joined, Op, Refusal, Reply, Returning, SharedStore, StoreLimits,
    Swept,
    payload::{self, Payload},
};
use roomgate_shared::{
    ids::{ConnectionId, RoomId, UserId},
    protocol::{
        JsonText,
        command::{Fields, Since},
        event::{Snapshot, message_tail},
    },
};
use serde_json::Value;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A kind of store. To try another one: implement this, and add a line to `store_contract.rs`.
pub(crate) trait Backend {
    /// Nodes that share rooms.
    const NODES: usize;
    /// Whether a node hears of rooms that it has not subscribed to. They are for the sink to pass over.
    const HEARS_ALL: bool;
    /// What the nodes of one test share, and those of another do not.
    type World;
    /// One with nothing in it.
    fn world() -> Self::World;
    /// Node number `index`, ready, with this sink and these limits.
    fn store(
        index: usize,
        limits: StoreLimits,
        sink: Arc<dyn EventSink>,
    ) -> impl Future<Output = SharedStore>;
    /// The same in a world of its own.
    fn store_in(
        world: &Self::World,
        index: usize,
        limits: StoreLimits,
        sink: Arc<dyn EventSink>,
    ) -> impl Future<Output = SharedStore>;
}

/// One node of the store under test.
pub(crate) struct Node {
    pub(crate) store: SharedStore,
    pub(crate) heard: Arc<Recorder>,
}

/// A node with the usual limits.
pub(crate) async fn node<B: Backend>() -> Node {
    node_with::<B>(StoreLimits::default()).await
}

/// A node with limits of its own.
pub(crate) async fn node_with<B: Backend>(limits: StoreLimits) -> Node {
    node_number::<B>(0, limits).await
}

/// Node number `index`.
pub(crate) async fn node_number<B: Backend>(index: usize, limits: StoreLimits) -> Node {
    let heard = Arc::new(Recorder::default());
    let sink = Arc::clone(&heard) as Arc<dyn EventSink>;
    Node {
        store: B::store(index, limits, sink).await,
        heard,
    }
}

/// Nodes that share their store with no other test: what is due there is this test's.
pub(crate) struct Apart<B: Backend> {
    nodes: Vec<Node>,
    _world: B::World,
}

/// As many nodes as the store can have, in a world of their own.
pub(crate) async fn apart<B: Backend>(limits: StoreLimits) -> Apart<B> {
    let (world, mut nodes) = (B::world(), Vec::new());
    for index in 0..B::NODES {
        let heard = Arc::new(Recorder::default());
        let sink = Arc::clone(&heard) as Arc<dyn EventSink>;
        let store = B::store_in(&world, index, limits.clone(), sink).await;
        nodes.push(Node { store, heard });
    }
    Apart { nodes, _world: world }
}

impl<B: Backend> Apart<B> {
    /// The node of this number, or of the rest of its division by their number.
    pub(crate) fn node(&self, number: usize) -> &Node {
        &self.nodes[number % self.nodes.len()]
    }
}

/// A room that no other test uses.
pub(crate) fn new_room() -> RoomId {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    RoomId::new(format!(
        "room-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    ))
    .unwrap()
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(
            tokio::time::Instant::now() < end,
            "not within {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Records what a store hands on.
#[derive(Default)]
pub(crate) struct Recorder {
    payloads: Mutex<Vec<(String, Bytes)>>,
    interruptions: AtomicUsize,
    controls: Mutex<Vec<Control>>,
}

impl EventSink for Recorder {
    fn payload(&self, room: &str, payload: Bytes) {
        self.payloads.lock().push((room.to_owned(), payload));
    }

    fn interrupted(&self) {
        self.interruptions.fetch_add(1, Ordering::Relaxed);
    }

    fn control(&self, control: Control) {
        self.controls.lock().push(control);
    }
}

impl Recorder {
    /// How often everything may have been missed.
    pub(crate) fn interruptions(&self) -> usize {
        self.interruptions.load(Ordering::Relaxed)
    }

    /// What an operator has said.
    pub(crate) fn controls(&self) -> Vec<Control> {
        self.controls.lock().clone()
    }

    /// The payloads of a room, in the order in which they came.
    pub(crate) fn payloads(&self, room: &RoomId) -> Vec<Bytes> {
        let payloads = self.payloads.lock();
        payloads
            .iter()
            .filter(|(id, _)| id == room.as_str())
            .map(|(_, bytes)| bytes.clone())
            .collect()
    }

    /// Forgets what has been heard.
    pub(crate) fn clear(&self) {
        self.payloads.lock().clear();
    }

    /// The durable events of a room with their `seq` as the payload gives it, in the order in which they came.
    pub(crate) fn events(&self, room: &RoomId) -> Vec<(u64, Value)> {
        let mut out = Vec::new();
        for bytes in self.payloads(room) {
            if let Some(Payload::Durable { first, events, .. }) = payload::parse(&bytes) {
                for (seq, event) in (first..).zip(events) {
                    out.push((seq, serde_json::from_slice(event).unwrap()));
                }
            }
        }
        out
    }

    /// The numbers of members that were published of a room, in the order in which they came.
    pub(crate) fn counts(&self, room: &RoomId) -> Vec<u64> {
        let mut out = Vec::new();
        for bytes in self.payloads(room) {
            if let Some(Payload::Occupancy { members }) = payload::parse(&bytes) {
                out.extend(members);
            }
        }
        out
    }

    /// Waits until the room's event `seq` has come.
    pub(crate) async fn until(&self, room: &RoomId, seq: u64) {
        eventually(&format!("event {seq} of {room}"), || async {
            self.events(room).iter().any(|(heard, _)| *heard == seq)
        })
        .await;
    }
}

impl Node {
    /// Applies a batch.
    pub(crate) async fn apply(&self, room: &RoomId, ops: Vec<Op>) -> Vec<Reply> {
        let count = ops.len();
        let applied = self.store.apply(room, ops).await.unwrap();
        assert_eq!(applied.replies.len(), count);
        applied.replies
    }

    /// Applies one operation.
    pub(crate) async fn one(&self, room: &RoomId, op: Op) -> Reply {
        self.apply(room, vec![op]).await.remove(0)
    }

    /// Applies one operation that is acknowledged.
    pub(crate) async fn ack(&self, room: &RoomId, op: Op) -> Value {
        ack(&self.one(room, op).await)
    }

    /// Applies one operation that is refused.
    pub(crate) async fn refusal(&self, room: &RoomId, op: Op) -> Refusal {
        self.one(room, op).await.unwrap_err()
    }

    /// Applies one join or tail.
    pub(crate) async fn joined(&self, room: &RoomId, op: Op) -> Joined {
        joined(&self.one(room, op).await)
    }

    /// Does what is due in a room.
    pub(crate) async fn sweep(&self, room: &RoomId) -> Swept {
        swept(&self.one(room, Op::Sweep).await)
    }

    /// Rooms in which something is due.
    pub(crate) async fn claim(&self, most: usize, claim: Duration) -> Vec<RoomId> {
        let rooms = self.store.claim_due(most, claim).await.unwrap();
        assert!(rooms.len() <= most);
        rooms
    }

    /// The room as a newcomer sees it; changes nothing.
    pub(crate) async fn picture(&self, room: &RoomId) -> Value {
        let since = Since {
            epoch: "none".to_owned(),
            seq: 0,
        };
        let joined = self.joined(room, Op::tail(since)).await;
        assert!(!joined.recovered);
        serde_json::from_str(&joined.data).unwrap()
    }
}

/// A reply that must be an ack, as a value.
pub(crate) fn ack(reply: &Reply) -> Value {
    match reply {
        Ok(Done::Ack(text)) => serde_json::from_str(text).unwrap(),
        Ok(Done::Joined(_) | Done::Again(_) | Done::Swept(_) | Done::Buried(_) | Done::Exported(_))
        | Err(_) => {
            panic!("no ack: {reply:?}")
        }
    }
}

/// A reply that must be that of a join or a tail.
pub(crate) fn joined(reply: &Reply) -> Joined {
    match reply {
        Ok(Done::Joined(joined)) => joined.clone(),
        Ok(Done::Ack(_) | Done::Again(_) | Done::Swept(_) | Done::Buried(_) | Done::Exported(_)) | Err(_) => {
            panic!("no join: {reply:?}")
        }
    }
}

/// A reply that must be that of a sweep.
pub(crate) fn swept(reply: &Reply) -> Swept {
    match reply {
        Ok(Done::Swept(swept)) => swept.clone(),
        Ok(Done::Ack(_) | Done::Again(_) | Done::Joined(_) | Done::Buried(_) | Done::Exported(_))
        | Err(_) => {
            panic!("no sweep: {reply:?}")
        }
    }
}

/// A reply that must be that of a step of [`Op::Bury`].
pub(crate) fn buried(reply: &Reply) -> Buried {
    match reply {
        Ok(Done::Buried(buried)) => buried.clone(),
        Ok(Done::Ack(_) | Done::Again(_) | Done::Joined(_) | Done::Swept(_) | Done::Exported(_)) | Err(_) => {
            panic!("nobody buried: {reply:?}")
        }
    }
}

/// A reply that must be a snapshot.
pub(crate) fn snapshot(reply: &Reply) -> Snapshot {
    let joined = joined(reply);
    assert!(!joined.recovered && joined.missed.is_empty());
    let snapshot: Snapshot = serde_json::from_str(&joined.data).unwrap();
    assert_eq!((&snapshot.epoch, snapshot.seq), (&joined.epoch, joined.seq));
    snapshot
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

pub(crate) fn connection(number: u64) -> ConnectionId {
    ConnectionId::new(7, number)
}

/// Fields from pairs of names and JSON texts.
pub(crate) fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), JsonText::from_trusted(*value)))
        .collect()
}

pub(crate) fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A join that makes the room. The display name is the id in brackets.
pub(crate) fn join(id: &str, number: u64) -> Join {
    Join {
        user: user(id),
        name: format!("<{id}>"),
        connection: connection(number),
        presence: Vec::new(),
        since: None,
        messages: 50,
        create: true,
    }
}

pub(crate) fn enter(id: &str, number: u64) -> Op {
    Op::Join(join(id, number))
}

pub(crate) fn resume(id: &str, number: u64, epoch: &str, seq: u64) -> Op {
    Op::Join(Join {
        since: Some(since(epoch, seq)),
        ..join(id, number)
    })
}

pub(crate) fn since(epoch: &str, seq: u64) -> Since {
    Since {
        epoch: epoch.to_owned(),
        seq,
    }
}

pub(crate) fn leave(id: &str, number: u64) -> Op {
    Op::Part {
        user: user(id),
        connection: connection(number),
        leaving: true,
    }
}

pub(crate) fn lose(id: &str, number: u64) -> Op {
    Op::Part {
        user: user(id),
        connection: connection(number),
        leaving: false,
    }
}

/// The return of connections of this node: user ids and numbers.
pub(crate) fn come_back(members: &[(&str, u64)]) -> Op {
    let returning = |&(id, number): &(&str, u64)| Returning {
        user: user(id),
        name: format!("<{id}>"),
        connection: connection(number),
    };
    Op::Return {
        members: members.iter().map(returning).collect(),
    }
}

/// Last positions: user ids and JSON texts.
pub(crate) fn positions(of: &[(&str, &str)]) -> Op {
    let positions = of
        .iter()
        .map(|(id, text)| (user(id), JsonText::from_trusted(*text)))
        .collect();
    Op::Positions { positions }
}

/// The first members in the order of their ids.
pub(crate) fn list(cursor: Option<&str>, limit: usize) -> Op {
    Op::UsersList {
        cursor: cursor.map(str::to_owned),
        limit,
    }
}

pub(crate) fn presence(id: &str, set: &[(&str, &str)], remove: &[&str]) -> Op {
    Op::PresenceUpdate {
        user: user(id),
        key: None,
        set: fields(set),
        remove: names(remove),
    }
}

pub(crate) fn send(id: &str, body: &str) -> Op {
    Op::MessageSend {
        by: user(id),
        key: None,
        tail: message_tail(id, "text", body),
    }
}

pub(crate) fn broadcast(id: &str, data: &str) -> Op {
    Op::Broadcast {
        by: user(id),
        key: None,
        data: data.to_owned(),
    }
}

pub(crate) fn history(before: Option<&str>, after: Option<&str>, limit: usize) -> Op {
    Op::MessageHistory {
        before: before.map(str::to_owned),
        after: after.map(str::to_owned),
        limit,
    }
}

pub(crate) fn patch(set: &[(&str, &str)], remove: &[&str]) -> Op {
    Op::StatePatch {
        by: user("u1"),
        key: None,
        set: fields(set),
        remove: names(remove),
        increment: Vec::new(),
        if_version: None,
    }
}

pub(crate) fn increment(name: &str, by: f64) -> Op {
    Op::StatePatch {
        by: user("u1"),
        key: None,
        set: Vec::new(),
        remove: Vec::new(),
        increment: vec![(name.to_owned(), by)],
        if_version: None,
    }
}

pub(crate) fn state(fields: Option<&[&str]>) -> Op {
    Op::StateGet {
        fields: fields.map(names),
    }
}

/// The bodies of a list of messages.
pub(crate) fn bodies(list: &Value) -> Vec<Value> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|message| message["body"].clone())
        .collect()
}

/// A member of an answer that is text.
pub(crate) fn text(value: &Value, name: &str) -> String {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
        .to_owned()
}
