//! What a room's members here must be told when the channel did not tell them: the events they missed, from the store's
//! log, or a fresh picture each.

use std::sync::Arc;

use roomgate_shared::protocol::{DEFAULT_PAGE, ErrorCode, command::Since};
use tokio::sync::mpsc;

use super::{Origin, Rooms, Work};
use crate::{
    hub::{LocalRoom, Repair},
    metrics::metrics,
    store::{Done, Join, Op, Reply},
};

/// Carries out the hub's requests, as works of the rooms they concern.
pub(super) async fn run(rooms: Arc<Rooms>, mut requests: mpsc::UnboundedReceiver<Arc<LocalRoom>>) {
    while let Some(local) = requests.recv().await {
        if !ask(&rooms, &local) {
            // Nobody is in: whoever comes gets a picture.
            local.abandon_repair();
        }
    }
}

/// Asks the store for what follows the members' last event; `false` where there is no member.
pub(super) fn ask(rooms: &Arc<Rooms>, local: &Arc<LocalRoom>) -> bool {
    let Some(since) = local.since().filter(|_| !local.is_empty()) else {
        return false;
    };
    let work = Work {
        op: Op::Tail { since: since.clone() },
        origin: Origin::Repair(since),
    };
    rooms.submit_if_open(local.id(), work);
    true
}

/// Gives the members what the store has after `since`, or starts over with a picture each.
pub(super) fn complete(rooms: &Arc<Rooms>, local: &Arc<LocalRoom>, since: &Since, reply: Reply) -> Repair {
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
            local.repair(since, &joined.missed)
        }
        Ok(Done::Joined(_)) => resync(rooms, local, "its log does not reach back"),
        Err(refusal) if refusal.code == ErrorCode::NotFound => {
            resync(rooms, local, "it is gone from the store")
        }
        Ok(Done::Ack(_)) | Err(_) => {
            tracing::error!(room = %local.id(), ?reply, "an answer that is none to a tail");
            local.abandon_repair();
            Repair::NotNeeded
        }
    }
}

/// Has every member here joined anew. Until the first of them has its picture, the room is in repair.
fn resync(rooms: &Arc<Rooms>, local: &Arc<LocalRoom>, why: &'static str) -> Repair {
    let (members, since) = (local.begin_resync(), local.since());
    tracing::warn!(room = %local.id(), members = members.len(), why, "members of the room are resynchronised");
    if members.is_empty() {
        local.abandon_repair();
    }
    for (client, membership) in members {
        let join = Join {
            user: client.user.clone(),
            name: client.name.to_string(),
            connection: client.id,
            node: rooms.node.clone(),
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
