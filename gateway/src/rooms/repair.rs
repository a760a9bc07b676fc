//! What a room's members here must be told when the channel did not tell them: the events they missed, from the store's
//! log, or a fresh picture each.

use std::{sync::Arc, time::Duration};

use roomgate_shared::{
    ids::RoomId,
    protocol::{DEFAULT_PAGE, command::Since},
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{Origin, Rooms, Work, moves};
use crate::{
    hub::{LocalRoom, Repair, Request},
    metrics::metrics,
    store::{Done, Head, Join, Op, Reply, StoreError, Tail},
};

/// How often every open room is compared with the store: what a lost payload leaves behind at the end of a room's events
/// is found so, and the lives of rooms with members are renewed.
const CHECK: Duration = Duration::from_secs(60);
/// How long a room that seems to be behind is waited for: its events may be on their way.
const GRACE: Duration = Duration::from_secs(1);
/// Pause before a comparison that the store did not answer is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// Rooms compared in one go.
const AT_ONCE: usize = 1024;

/// Carries out the hub's requests, as works of the rooms they concern, and compares all rooms from time to time.
pub(super) async fn run(rooms: Arc<Rooms>, mut requests: mpsc::UnboundedReceiver<Request>) {
    let all = Arc::new(Notify::new());
    tokio::spawn(compare(rooms.clone(), all.clone()));
    while let Some(request) = requests.recv().await {
        match request {
            Request::Repair(local) => {
                if !ask(&rooms, &local) {
                    // Nobody is in: whoever comes gets a picture.
                    local.abandon_repair();
                }
            }
            Request::CompareAll => all.notify_one(),
            Request::Tick(local) => {
                tokio::spawn(moves::run(rooms.clone(), local));
            }
            Request::Out(local, out) => rooms.part(local.id(), out),
            Request::Emptied(local) => rooms.look(local.id()),
        }
    }
}

/// Compares all rooms when that is asked for, and from time to time.
async fn compare(rooms: Arc<Rooms>, asked: Arc<Notify>) {
    let mut checks = interval_at(Instant::now() + CHECK, CHECK);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both are cancel safe.
        tokio::select! {
            () = asked.notified() => compare_all(&rooms).await,
            _ = checks.tick() => check(&rooms).await,
        }
    }
}

/// Compares all rooms with the store, however long it takes to be there, and has repaired those that differ.
async fn compare_all(rooms: &Arc<Rooms>) {
    let started = Instant::now();
    let interruptions = rooms.hub.interruptions();
    let mut left = rooms.hub.rooms();
    let (count, mut differ) = (left.len(), 0);
    loop {
        let mut again = Vec::new();
        for some in left.chunks(AT_ONCE) {
            for (local, found) in some.iter().zip(look(rooms, some).await) {
                match found {
                    Ok(Found::Same) => {}
                    Ok(Found::Due) => {
                        ask(rooms, local);
                    }
                    Ok(Found::Behind(_) | Found::Lost) => {
                        differ += 1;
                        rooms.hub.request_repair(local);
                    }
                    // Its members hear of it when they ask for something.
                    Err(StoreError::Damaged(_)) => {}
                    Err(_) => again.push(local.clone()),
                }
            }
        }
        if again.is_empty() {
            break;
        }
        left = again;
        tokio::time::sleep(RETRY).await;
    }
    rooms.hub.compared(interruptions);
    let ms = started.elapsed().as_millis() as u64;
    // What came of an outage is told with its end, once.
    tracing::debug!(
        rooms = count,
        differ,
        ms,
        "all rooms have been compared with the store"
    );
}

/// Compares all rooms with the store once.
async fn check(rooms: &Arc<Rooms>) {
    let mut behind = Vec::new();
    for some in rooms.hub.rooms().chunks(AT_ONCE) {
        for (local, found) in some.iter().zip(look(rooms, some).await) {
            local.let_go();
            match found {
                Ok(Found::Due) => {
                    ask(rooms, local);
                }
                Ok(Found::Behind(seq)) => behind.push((local.clone(), seq)),
                Ok(Found::Lost) => rooms.hub.request_repair(local),
                Ok(Found::Same) | Err(_) => {}
            }
        }
    }
    if !behind.is_empty() {
        tokio::time::sleep(GRACE).await;
    }
    for (local, seq) in behind {
        if local.since().is_some_and(|here| here.seq < seq) {
            rooms.hub.request_repair(&local);
        }
    }
}

/// What comparing a room with the store has shown.
enum Found {
    /// Nothing is missing on either side.
    Same,
    /// The same, and the room's life is to be renewed.
    Due,
    /// The store has events up to this one, which have not come here.
    Behind(u64),
    /// The store lacks what is known here, or has another epoch.
    Lost,
}

/// Compares some rooms with the store, in one go.
async fn look(rooms: &Rooms, some: &[Arc<LocalRoom>]) -> Vec<Result<Found, StoreError>> {
    let ids: Vec<RoomId> = some.iter().map(|local| local.id().clone()).collect();
    // What is known before the store is asked: what comes meanwhile it may not have had.
    let before: Vec<Option<Tail>> = some.iter().map(|local| local.tail()).collect();
    let heads = rooms.store.heads(&ids).await;
    let each = some.iter().zip(before).zip(heads);
    each.map(|((local, before), head)| Ok(found(local, before, head?)))
        .collect()
}

fn found(local: &LocalRoom, before: Option<Tail>, head: Option<Head>) -> Found {
    let (Some(before), Some(here)) = (before, local.since()) else {
        return Found::Same;
    };
    if local.is_empty() || here.epoch != before.since.epoch {
        return Found::Same;
    }
    match head {
        None => Found::Lost,
        Some(head) if head.at.epoch != here.epoch || head.at.seq < before.known => Found::Lost,
        Some(head) if here.seq < head.at.seq => Found::Behind(head.at.seq),
        Some(head) if head.is_due => Found::Due,
        Some(_) => Found::Same,
    }
}

/// Asks the store for what follows the members' last event; `false` where there is no member.
pub(super) fn ask(rooms: &Arc<Rooms>, local: &Arc<LocalRoom>) -> bool {
    let Some(tail) = local.tail().filter(|_| !local.is_empty()) else {
        return false;
    };
    let work = Work {
        op: Op::Tail(tail.clone()),
        origin: Origin::Repair(tail),
    };
    rooms.submit_if_open(local.id(), work);
    true
}

/// Gives the members what the store has after where they stand, or starts over with a picture each.
pub(super) fn complete(rooms: &Arc<Rooms>, local: &Arc<LocalRoom>, tail: &Tail, reply: Reply) -> Repair {
    let since = &tail.since;
    if local.since().is_none_or(|now| now.epoch != since.epoch) {
        // The room has started anew since this was asked.
        return Repair::NotNeeded;
    }
    match reply {
        Ok(Done::Joined(joined)) if joined.recovered => {
            if !joined.missed.is_empty() {
                metrics().repairs.increment(1);
                tracing::info!(room = %local.id(), events = joined.missed.len(), "missed events were fetched");
            }
            let repair = local.repair(since, &joined.epoch, &joined.missed);
            rooms.hub.follow_up(local);
            repair
        }
        Ok(Done::Joined(joined)) if joined.epoch != since.epoch => {
            // Where an event that somebody was told of is gone, even those who had not got it yet are told.
            let known = Since {
                epoch: since.epoch.clone(),
                seq: tail.known,
            };
            resync(rooms, local, Some(known), "the store has lost what it had told")
        }
        Ok(Done::Joined(_)) => resync(rooms, local, Some(since.clone()), "its log does not reach back"),
        Err(refusal) if refusal.no_room => {
            resync(rooms, local, Some(since.clone()), "it is gone from the store")
        }
        Ok(Done::Ack(_) | Done::Again(_) | Done::Swept(_) | Done::Buried(_) | Done::Exported(_)) | Err(_) => {
            tracing::error!(room = %local.id(), ?reply, "an answer that is none to a tail");
            local.abandon_repair();
            Repair::NotNeeded
        }
    }
}

/// Has every member here joined anew, unless that is under way. Until somebody here has a picture, the room is in repair.
fn resync(rooms: &Arc<Rooms>, local: &Arc<LocalRoom>, since: Option<Since>, why: &'static str) -> Repair {
    if local.is_empty() {
        local.abandon_repair();
        return Repair::NotNeeded;
    }
    let members = local.begin_resync();
    if !members.is_empty() {
        tracing::warn!(room = %local.id(), members = members.len(), why, "members of the room are resynchronised");
    }
    for (client, membership) in members {
        let join = Join {
            user: client.user().clone(),
            name: client.name().to_string(),
            connection: client.id,
            presence: Vec::new(),
            since: since.clone(),
            messages: DEFAULT_PAGE,
            create: true,
        };
        rooms.submit_if_open(
            local.id(),
            Work {
                op: Op::Join(join),
                origin: Origin::Resync { client, membership },
            },
        );
    }
    Repair::NotNeeded
}
