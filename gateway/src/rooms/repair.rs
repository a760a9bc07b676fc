//! What a room's members here must be told when the channel did not tell them: the events they missed, from the store's
//! log, or a fresh picture each.

use std::sync::Arc;

use roomgate_shared::{
    ids::ConnectionId,
    protocol::{ErrorCode, command::Since},
};
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
        match local.since() {
            Some(since) if !local.is_empty() => {
                let work = Work {
                    op: Op::Tail { since: since.clone() },
                    origin: Origin::Repair(since),
                };
                rooms.submit_if_open(local.id(), work);
            }
            // Nobody is in: whoever comes gets a picture.
            Some(_) | None => local.abandon_repair(),
        }
    }
}

/// Gives the members what the store has after `since`, or starts over with a picture each.
pub(super) fn complete(rooms: &Arc<Rooms>, local: &Arc<LocalRoom>, since: &Since, reply: Reply) -> Repair {
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

/// Has every member here joined anew. The room stays in repair until the first of them has its picture.
fn resync(rooms: &Arc<Rooms>, local: &Arc<LocalRoom>, why: &'static str) -> Repair {
    let members = local.members();
    tracing::warn!(room = %local.id(), members = members.len(), why, "members of the room are resynchronised");
    let mut seen: Option<ConnectionId> = None;
    for client in members {
        seen = Some(client.id);
        let join = Join {
            user: client.user.clone(),
            name: client.name.to_string(),
            connection: client.id,
            node: rooms.node.clone(),
            presence: Vec::new(),
            since: None,
            messages: roomgate_shared::protocol::DEFAULT_PAGE,
            create: true,
        };
        rooms.submit_if_open(
            local.id(),
            Work {
                op: Op::Join(join),
                origin: Origin::Resync(client),
            },
        );
    }
    if seen.is_none() {
        local.abandon_repair();
    }
    Repair::NotNeeded
}
