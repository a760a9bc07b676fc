//! Who is still there: the node's lease, nodes that have died, and what is due in rooms.
//!
//! Nothing here looks at every room: what is due is found by its time ([`Store::claim_due`]), a dead node by its lease
//! ([`Store::beat`]), and its rooms by the list that it kept ([`Store::rooms_of`]). Any node does this work; a claim keeps
//! two from doing the same, and passes it on where one dies over it. Each step in a room is one batch of the store, so
//! that whatever comes between is announced once.
//!
//! [`Store::claim_due`]: crate::store::Store::claim_due
//! [`Store::beat`]: crate::store::Store::beat
//! [`Store::rooms_of`]: crate::store::Store::rooms_of

use std::{sync::Arc, time::Duration};

use roomgate_shared::ids::RoomId;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, interval_at},
};

use super::{Origin, Rooms, Work, lifecycle};
use crate::{
    metrics::metrics,
    store::{Done, Op, StoreError},
};

/// Renewals within the length of a lease.
const BEATS: u32 = 5;
/// Rooms claimed in one go, and those worked on at once.
const CLAIMED: usize = 256;
const AT_ONCE: usize = 32;
/// How long a room is left to the node that has claimed it: a sweep takes milliseconds.
const CLAIM: Duration = Duration::from_secs(15);
/// Connections told of in one step after a lost lease: some 10 ms of Redis.
const RETURNING: usize = 500;
/// Pause between two steps in one room, so that its own commands come between.
const PAUSE: Duration = Duration::from_millis(5);

/// How often what is done here.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long the node's lease holds without being renewed.
    pub lease: Duration,
    /// How often what is due is looked for.
    pub sweep: Duration,
}

/// Keeps the lease and does what is due, for ever. The store is ready.
pub async fn run(rooms: Arc<Rooms>, pace: Pace) {
    tokio::join!(beat(&rooms, pace.lease), sweep(&rooms, pace.sweep));
}

async fn beat(rooms: &Arc<Rooms>, lease: Duration) {
    let mut turn = interval(lease / BEATS);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = JoinSet::new();
    loop {
        turn.tick().await;
        while work.try_join_next().is_some() {}
        let beat = match rooms.store.beat().await {
            Ok(beat) => beat,
            // Told by the gateway when the store is away.
            Err(error @ (StoreError::Unavailable(_) | StoreError::Timeout(_))) => {
                tracing::debug!(%error, "the lease is not renewed");
                continue;
            }
            Err(error) => {
                tracing::error!(%error, "the lease is not renewed: this gateway's members will be taken for gone");
                continue;
            }
        };
        if beat.lost {
            work.spawn(come_back(rooms.clone()));
        }
        for node in beat.dead {
            work.spawn(bury(rooms.clone(), node));
        }
    }
}

/// Others may have taken this node's connections for gone: each room is told who is here, some at a time.
async fn come_back(rooms: Arc<Rooms>) {
    metrics().leases_lost.increment(1);
    tracing::warn!(
        connections = rooms
            .hub
            .rooms()
            .iter()
            .map(|local| local.connections().len())
            .sum::<usize>(),
        "this node's lease was lost: others may have taken its members for gone; they are told to be here"
    );
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    for local in rooms.hub.rooms() {
        for some in local.connections().chunks(RETURNING) {
            // Never closed.
            let Ok(turn) = turns.clone().acquire_owned().await else {
                return;
            };
            let work = Work {
                // Put together when its turn comes: some may have gone by then.
                op: Op::Return { members: Vec::new() },
                origin: Origin::Return {
                    members: some.to_vec(),
                    turn: Some(turn),
                },
            };
            rooms.submit_if_open(local.id(), work);
        }
    }
}

/// Takes a dead node's connections out of its rooms.
async fn bury(rooms: Arc<Rooms>, node: String) {
    let started = Instant::now();
    let (mut count, mut away) = (0, 0);
    loop {
        let some = match rooms.store.rooms_of(&node, AT_ONCE).await {
            Ok(some) if some.is_empty() => break,
            Ok(some) => some,
            // The claim ends, and whoever looks then goes on.
            Err(error) => {
                tracing::warn!(node, %error, "what is left of a dead node's members is taken out later");
                return;
            }
        };
        let mut work = JoinSet::new();
        for room in some {
            let (rooms, node) = (rooms.clone(), node.clone());
            work.spawn(async move { (bury_in(&rooms, &room, &node).await, room) });
        }
        let (mut done, mut failed) = (Vec::new(), None);
        while let Some(joined) = work.join_next().await {
            let Ok((outcome, room)) = joined else { continue };
            match outcome {
                Ok(gone) => {
                    (count, away) = (count + 1, away + gone);
                    done.push(room);
                }
                Err(error @ (StoreError::Unavailable(_) | StoreError::Timeout(_))) => failed = Some(error),
                Err(error) => {
                    tracing::error!(node, %room, %error, "a room keeps a dead node's members for now");
                    failed = Some(error);
                }
            }
        }
        let none_done = done.is_empty();
        let struck = rooms.store.buried(&node, done).await;
        // The claim ends, and whoever looks then goes on with what is left.
        if let Some(error) = struck.err().or(failed.filter(|_| none_done)) {
            tracing::warn!(node, %error, "what is left of a dead node's members is taken out later");
            return;
        }
    }
    metrics().nodes_buried.increment(1);
    let ms = started.elapsed().as_millis() as u64;
    tracing::warn!(
        node,
        rooms = count,
        away,
        ms,
        "a node's lease has ended: its members are away"
    );
}

async fn bury_in(rooms: &Rooms, room: &RoomId, node: &str) -> Result<u64, StoreError> {
    let (mut cursor, mut away) = (String::new(), 0);
    loop {
        let op = Op::Bury {
            node: node.to_owned(),
            cursor,
        };
        match apply(rooms, room, op).await? {
            Some(Done::Buried(buried)) => {
                away += buried.away;
                cursor = buried.cursor;
            }
            Some(_) | None => return Ok(away),
        }
        if cursor.is_empty() {
            return Ok(away);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn sweep(rooms: &Arc<Rooms>, pace: Duration) {
    // Nodes that start together are not to look at the same moment.
    let first = pace.mul_f64((crate::random::bits() % 1_000) as f64 / 1_000.0);
    let mut turn = interval_at(Instant::now() + first, pace);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        note_activity(rooms).await;
        if let Err(error) = rooms.store.look_after().await {
            tracing::debug!(%error, "the store's indexes could not be looked after");
        }
        let started = Instant::now();
        match sweep_once(rooms).await {
            Ok(swept) if swept.rooms > 0 => {
                let ms = started.elapsed().as_millis() as u64;
                tracing::debug!(
                    rooms = swept.rooms,
                    left = swept.left,
                    purged = swept.purged,
                    ms,
                    "swept"
                );
            }
            Ok(_) => {}
            Err(error @ (StoreError::Unavailable(_) | StoreError::Timeout(_))) => {
                tracing::debug!(%error, "what is due cannot be looked for");
            }
            Err(error) => tracing::error!(%error, "what is due cannot be looked for: nobody leaves by time"),
        }
    }
}

/// What a sweep of all that is due did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SweptAll {
    /// Rooms that were looked at.
    pub rooms: u64,
    /// Members that left.
    pub left: u64,
    /// Messages past retention that went.
    pub purged: u64,
}

/// Does what is due by now, in whatever rooms.
///
/// # Errors
/// The store does not say what is due.
pub async fn sweep_once(rooms: &Arc<Rooms>) -> Result<SweptAll, StoreError> {
    let mut all = SweptAll::default();
    loop {
        let due = rooms.store.claim_due(CLAIMED, CLAIM).await?;
        if due.is_empty() {
            return Ok(all);
        }
        let mut work = JoinSet::new();
        for some in due.chunks(AT_ONCE) {
            for room in some {
                let (rooms, room) = (rooms.clone(), room.clone());
                work.spawn(async move { sweep_room(&rooms, &room).await });
            }
            while let Some(swept) = work.join_next().await {
                let (left, purged) = swept.unwrap_or_default();
                all.rooms += 1;
                all.left += left;
                all.purged += purged;
            }
        }
    }
}

/// Does what is due in one room. How many members left, and how many messages went.
async fn sweep_room(rooms: &Arc<Rooms>, room: &RoomId) -> (u64, u64) {
    let (mut left, mut purged) = (0, 0);
    loop {
        match apply(rooms, room, Op::Sweep).await {
            Ok(Some(Done::Swept(swept))) => {
                metrics().timeouts.increment(swept.left);
                metrics().purged.increment(swept.purged);
                left += swept.left;
                purged += swept.purged;
                if swept.completed {
                    lifecycle::begin_end(rooms, room);
                    break;
                }
                if swept.next > swept.now {
                    break;
                }
            }
            Ok(_) => break,
            // It comes again when the claim is over.
            Err(error) => {
                tracing::debug!(%room, %error, "a room could not be swept");
                break;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    metrics().swept.increment(1);
    (left, purged)
}

/// One operation in a room that need not be open here. `None` for a room that is gone.
async fn apply(rooms: &Rooms, room: &RoomId, op: Op) -> Result<Option<Done>, StoreError> {
    let applied = rooms.store.apply(room, vec![op]).await?;
    Ok(applied.replies.into_iter().next().and_then(Result::ok))
}

/// Tells the store who has done something since the last time. What cannot be told is not told again.
async fn note_activity(rooms: &Arc<Rooms>) {
    let mut work = JoinSet::new();
    for local in rooms.hub.rooms() {
        let users = local.active();
        if users.is_empty() {
            continue;
        }
        if work.len() >= AT_ONCE {
            work.join_next().await;
        }
        let rooms = rooms.clone();
        work.spawn(async move { apply(&rooms, local.id(), Op::Active { users }).await.map(|_| ()) });
    }
    work.join_all().await;
}
