//! What this node says of itself: its lease, and the rooms in which it has members. So a node that dies is noticed, and
//! its members are found without a look at every room. `lua/index.lua` is the other half.

use std::{collections::HashSet, sync::Arc, time::Duration};

use fred::types::{Resp3Frame as Frame, Value};
use parking_lot::Mutex;
use roomgate_shared::{
    ids::{NodeId, RoomId},
    keys,
};
use tokio::time::Instant;

use super::{calls::Command, function::LIBRARY, reply};
use crate::{random, store::StoreError};

/// How long a claim on a dead node holds: the time that its rooms take, with much to spare.
const CLAIM: Duration = Duration::from_secs(15);
/// How long a claim on a room holds from a step of its sweep that was not the last.
const NEXT_STEP: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Lease {
    node: NodeId,
    /// How long it holds from its last renewal.
    length: Duration,
    inner: Mutex<Inner>,
}

struct Inner {
    instance: Arc<str>,
    /// What the next renewal says of the life before: `-` in the first, nothing while the lease is held.
    former: String,
    /// The instance before, if there was one.
    before: Option<Arc<str>>,
    /// Since when the lease has been held without a break.
    steady: Option<Instant>,
    /// When it was last renewed.
    renewed: Option<Instant>,
    /// The server that renewed it.
    server: Option<String>,
    /// It was lost, and the node has yet to be told so.
    lost: bool,
    /// Rooms that stand under the instance in the store, as far as the connection of that number has said so.
    registered: HashSet<RoomId>,
    connection: u64,
}

/// What a renewal has shown.
pub(super) enum Renewed {
    /// The lease is held. Dead nodes that this one is to see to.
    Held(Vec<String>),
    /// It was lost; the node has another instance, and renews at once.
    Lost,
}

impl Lease {
    pub(super) fn new(node: NodeId, length: Duration) -> Self {
        let instance = new_instance(&node);
        Self {
            node,
            length,
            inner: Mutex::new(Inner {
                instance,
                former: "-".to_owned(),
                before: None,
                steady: None,
                renewed: None,
                server: None,
                lost: false,
                registered: HashSet::new(),
                connection: 0,
            }),
        }
    }

    /// How long it holds from its last renewal.
    pub(super) fn length(&self) -> Duration {
        self.length
    }

    pub(super) fn instance(&self) -> Arc<str> {
        self.inner.lock().instance.clone()
    }

    /// The instance, and the one before it: nothing is to stand under that any more.
    pub(super) fn names(&self) -> (Arc<str>, Option<Arc<str>>) {
        let inner = self.inner.lock();
        (inner.instance.clone(), inner.before.clone())
    }

    /// The renewal. Dead nodes are looked for only by one that has held its own lease for a while: after an outage of
    /// Redis all leases have ended, and each node is given the time to renew its own. So also after it has stood still
    /// itself: others may have done so with it.
    pub(super) fn renewal(&self, look: bool) -> Command {
        let mut inner = self.inner.lock();
        if inner.renewed.is_none_or(|at| at.elapsed() > self.length * 2 / 5) {
            inner.steady = None;
        }
        let patience = self.length * 3 / 5;
        let look = look && inner.steady.is_some_and(|since| since.elapsed() >= patience);
        index(
            keys::NODES,
            &[
                "beat",
                &inner.instance,
                &ms(self.length),
                &ms(CLAIM),
                if look { "1" } else { "0" },
                &inner.former,
            ],
        )
    }

    /// What has come of it.
    pub(super) fn renewed(&self, answer: Result<Frame, StoreError>) -> Result<Renewed, StoreError> {
        let mut inner = self.inner.lock();
        let read = answer.and_then(|frame| {
            let mut items = reply::list(frame).ok_or_else(not_understood)?.into_iter();
            let state = items.next().as_ref().and_then(reply::number);
            let mut texts = items.map(|item| reply::text(item).and_then(|text| reply::owned(&text)));
            let server = texts.next().flatten();
            let dead = texts.collect::<Option<Vec<String>>>();
            state
                .zip(server)
                .zip(dead)
                .map(|((state, server), dead)| (state, server, dead))
                .ok_or_else(not_understood)
        });
        let (mut state, server, dead) = match read {
            Ok(read) => read,
            Err(error) => {
                inner.steady = None;
                return Err(error);
            }
        };
        // Another server may have less than the one before, and so connections of this node that are gone, or none of those
        // that are here.
        if inner
            .server
            .replace(server.clone())
            .is_some_and(|before| before != server)
        {
            state = 0;
        }
        let now = Instant::now();
        match state {
            2 => {
                inner.steady.get_or_insert(now);
            }
            0 => {
                inner.former = inner.instance.to_string();
                inner.before = Some(std::mem::replace(&mut inner.instance, new_instance(&self.node)));
                inner.registered.clear();
                inner.steady = None;
                inner.lost = true;
                return Ok(Renewed::Lost);
            }
            _ => inner.steady = Some(now),
        }
        inner.former.clear();
        inner.renewed = Some(now);
        Ok(Renewed::Held(dead))
    }

    /// Whether the lease was lost since this was last asked.
    pub(super) fn was_lost(&self) -> bool {
        std::mem::take(&mut self.inner.lock().lost)
    }

    /// Whether the lease holds for all that this node knows. Nobody is to enter under one that may be over.
    pub(super) fn lasts(&self) -> bool {
        let renewed = self.inner.lock().renewed;
        renewed.is_some_and(|at| at.elapsed() < self.length)
    }

    /// Whether the node has had a lease yet: before, nobody is to enter.
    pub(super) fn is_taken(&self) -> bool {
        self.inner.lock().renewed.is_some()
    }

    /// What is to be written ahead of a call by which connections enter `room`, over the connection of that number: that
    /// the node has members there. Nothing if that is known.
    pub(super) fn registration(&self, room: &RoomId, connection: u64) -> Option<[Command; 2]> {
        let mut inner = self.inner.lock();
        // What was written over another connection may be lost with its server.
        if inner.connection != connection {
            inner.registered.clear();
            inner.connection = connection;
        }
        let known = inner.registered.contains(room);
        (!known).then(|| {
            [
                set("SADD", &inner.instance, [room]),
                index(keys::NODES, &["enter", &inner.instance]),
            ]
        })
    }

    /// It is written, under `instance`.
    pub(super) fn registered(&self, room: &RoomId, connection: u64, instance: &str) {
        let mut inner = self.inner.lock();
        if inner.connection == connection && *inner.instance == *instance {
            inner.registered.insert(room.clone());
        }
    }

    /// The node has no members in `room` any more: what is to be written of that.
    pub(super) fn deregistration(&self, room: &RoomId) -> Command {
        let mut inner = self.inner.lock();
        inner.registered.remove(room);
        set("SREM", &inner.instance, [room])
    }

    /// How many rooms the node has.
    pub(super) fn size(&self) -> Command {
        ("SCARD", vec![key(&keys::rooms_of(&self.instance()))])
    }

    /// The end: how many rooms the node has left, and what is to be written where none is, and where some are.
    pub(super) fn resignation(&self) -> [Command; 3] {
        let instance = self.instance();
        let name = || Value::Bytes(bytes(&instance));
        [
            self.size(),
            ("ZREM", vec![key(keys::NODES), name()]),
            index(keys::NODES, &["resign", &instance]),
        ]
    }
}

/// The instances whose lease holds.
pub(super) fn live() -> Command {
    index(keys::NODES, &["live"])
}

/// Some rooms in which a dead node had members, and the claim on it renewed.
pub(super) fn rooms_of(node: &str, most: usize) -> [Command; 2] {
    let some = vec![key(&keys::rooms_of(node)), Value::Integer(most as i64)];
    [
        index(keys::NODES, &["mourn", node, &ms(CLAIM)]),
        ("SRANDMEMBER", some),
    ]
}

/// Nothing of a dead node is left in `rooms`.
pub(super) fn buried(node: &str, rooms: &[RoomId]) -> Command {
    set("SREM", node, rooms)
}

/// Nothing of it is left at all.
pub(super) fn forgotten(node: &str) -> Command {
    index(keys::NODES, &["forget", node])
}

/// Something is due in `room` within `grace`.
pub(super) fn touch(room: &RoomId, grace: Duration) -> Command {
    index(keys::DUE, &["touch", &ms(grace), room.as_str()])
}

/// A sweep of `room` is done; when something is due again, or that the room is gone.
pub(super) fn swept(room: &RoomId, next: Option<u64>) -> Command {
    let next = next.map(|next| next.to_string()).unwrap_or_default();
    index(keys::DUE, &["swept", room.as_str(), &next])
}

/// A sweep of `room` goes on.
pub(super) fn still_sweeping(room: &RoomId) -> Command {
    index(keys::DUE, &["still", room.as_str(), &ms(NEXT_STEP)])
}

/// Rooms in which something is due.
pub(super) fn claim(most: usize, claim: Duration) -> Command {
    index(keys::DUE, &["claim", &most.to_string(), &ms(claim)])
}

fn index(of: &str, args: &[&str]) -> Command {
    let mut all = vec![Value::Bytes(LIBRARY.index.clone()), Value::Integer(1), key(of)];
    all.extend(args.iter().map(|arg| key(arg)));
    ("FCALL", all)
}

fn set<'a>(command: &'static str, instance: &str, rooms: impl IntoIterator<Item = &'a RoomId>) -> Command {
    let mut args = vec![key(&keys::rooms_of(instance))];
    args.extend(rooms.into_iter().map(|room| key(room.as_str())));
    (command, args)
}

fn key(text: &str) -> Value {
    Value::Bytes(bytes(text))
}

fn bytes(text: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}

fn ms(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn new_instance(node: &NodeId) -> Arc<str> {
    format!("{node}~{}", &random::epoch()[..8]).into()
}

fn not_understood() -> StoreError {
    StoreError::Internal("an answer of the index function is not understood".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        Lease::new(NodeId::new("gw-1").unwrap(), Duration::from_secs(10))
    }

    fn answer(state: i64, dead: &[&'static str]) -> Result<Frame, StoreError> {
        by_server(state, "s1", dead)
    }

    fn by_server(state: i64, server: &'static str, dead: &[&'static str]) -> Result<Frame, StoreError> {
        let mut data = vec![Frame::Number {
            data: state,
            attributes: None,
        }];
        let texts = std::iter::once(&server).chain(dead);
        data.extend(texts.map(|name| Frame::BlobString {
            data: bytes::Bytes::from_static(name.as_bytes()),
            attributes: None,
        }));
        Ok(Frame::Array {
            data,
            attributes: None,
        })
    }

    fn held(lease: &Lease, answer: Result<Frame, StoreError>) -> Option<Vec<String>> {
        match lease.renewed(answer).unwrap() {
            Renewed::Held(dead) => Some(dead),
            Renewed::Lost => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_server_is_a_lost_lease_and_none_is_forgotten() {
        let lease = lease();
        assert!(held(&lease, answer(2, &[])).is_some() && !lease.was_lost());
        let before = lease.instance();
        assert_eq!(held(&lease, by_server(2, "s2", &[])), None);
        assert_ne!(lease.instance(), before);
        // The next renewal fails: what was lost is told with the one that does not.
        assert!(lease.renewed(Err(StoreError::unavailable("gone"))).is_err());
        assert_eq!(asked(&lease), (false, before.to_string()));
        assert!(held(&lease, by_server(2, "s2", &[])).is_some());
        assert!(lease.was_lost() && !lease.was_lost());
    }

    /// Renews the lease in time, so often.
    async fn hold(lease: &Lease, times: usize) {
        for _ in 0..times {
            tokio::time::advance(Duration::from_secs(2)).await;
            let _ = asked(lease);
            assert!(matches!(lease.renewed(answer(2, &[])), Ok(Renewed::Held(_))));
        }
    }

    /// Whether a renewal looks for dead nodes, and what it says of the life before.
    fn asked(lease: &Lease) -> (bool, String) {
        let (_, args) = lease.renewal(true);
        let text = |at: usize| args[at].as_string().unwrap();
        (text(7) == "1", text(8))
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_node_that_has_held_its_lease_looks_for_dead_ones() {
        let lease = lease();
        assert_eq!(asked(&lease), (false, "-".to_owned()));
        assert!(!lease.is_taken());
        assert!(matches!(lease.renewed(answer(2, &[])), Ok(Renewed::Held(_))));
        assert!(lease.is_taken());
        assert_eq!(asked(&lease), (false, String::new()));
        hold(&lease, 3).await;
        assert!(asked(&lease).0);
        assert_eq!(held(&lease, answer(2, &["gw-2~x"])).unwrap(), ["gw-2~x"]);
        // Redis was away: whoever was there then is given time.
        assert!(lease.renewed(Err(StoreError::unavailable("gone"))).is_err());
        assert!(!asked(&lease).0);
        assert!(matches!(lease.renewed(answer(1, &[])), Ok(Renewed::Held(_))));
        assert!(!asked(&lease).0);
        hold(&lease, 3).await;
        assert!(asked(&lease).0);
        // It stood still itself, for less than a lease.
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!asked(&lease).0);
        hold(&lease, 2).await;
        assert!(!asked(&lease).0);
        hold(&lease, 2).await;
        assert!(asked(&lease).0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_lease_is_followed_by_another_life() {
        let lease = lease();
        let room = RoomId::new("r").unwrap();
        let _ = lease.renewed(answer(2, &[]));
        let before = lease.instance();
        assert!(lease.registration(&room, 1).is_some());
        lease.registered(&room, 1, &before);
        assert!(lease.registration(&room, 1).is_none());
        assert!(
            lease.registration(&room, 2).is_some(),
            "another connection may be to another server"
        );
        lease.registered(&room, 2, &before);
        assert!(lease.registration(&room, 2).is_none() && lease.lasts());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!lease.lasts(), "it may be over");
        assert!(matches!(lease.renewed(answer(0, &[])), Ok(Renewed::Lost)));
        assert_ne!(lease.instance(), before);
        assert_eq!(asked(&lease), (false, before.to_string()));
        lease.registered(&room, 2, &before);
        assert!(lease.registration(&room, 2).is_some());
        // The next one was taken for dead before it began: another one again, and nothing of the first is forgotten.
        let second = lease.instance();
        assert!(matches!(lease.renewed(answer(0, &[])), Ok(Renewed::Lost)));
        assert_eq!(asked(&lease), (false, second.to_string()));
        assert!(matches!(lease.renewed(answer(2, &[])), Ok(Renewed::Held(_))));
        assert_eq!(asked(&lease), (false, String::new()));
    }
}
