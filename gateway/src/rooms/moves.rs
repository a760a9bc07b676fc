//! Ticks: while something moves in a room, one task gives it to the members, to other nodes and, seldom, to the store.

use std::sync::Arc;

use roomgate_shared::{
    ids::{RoomId, UserId},
    protocol::JsonText,
};

use super::{Origin, Rooms, Work};
use crate::{
    hub::{Client, LocalRoom},
    metrics::metrics,
    store::{Op, Refusal},
};

/// A user that is in the room here has moved.
///
/// # Errors
/// The room does not let it.
pub(super) fn moved(
    rooms: &Arc<Rooms>,
    local: &Arc<LocalRoom>,
    client: &Arc<Client>,
    position: JsonText,
) -> Result<(), Refusal> {
    local.moved(client, position, rooms.store.now_ms())?;
    start(rooms, local);
    Ok(())
}

/// Sees to it that somebody ticks, if there is something to tick for.
pub(super) fn start(rooms: &Arc<Rooms>, local: &Arc<LocalRoom>) {
    if local.claim_ticking() {
        tokio::spawn(run(rooms.clone(), local.clone()));
    }
}

/// Ticks until nothing is left. The first move goes out at once, what follows with the next tick.
pub(super) async fn run(rooms: Arc<Rooms>, local: Arc<LocalRoom>) {
    loop {
        let ticked = local.tick(rooms.move_tick, &rooms.store.instance());
        if let Some(payload) = ticked.publish {
            rooms.store.publish(local.id(), payload);
        }
        if !ticked.write.is_empty() {
            write(&rooms, &local, ticked.write);
        }
        match ticked.wait {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return,
        }
    }
}

/// Writes places to the store, by the room's queue; also when the last member here has gone meanwhile.
fn write(rooms: &Arc<Rooms>, local: &Arc<LocalRoom>, positions: Vec<(UserId, JsonText)>) {
    metrics().positions_written.increment(1);
    let room: &RoomId = local.id();
    let work = Work {
        op: Op::Positions {
            positions: positions.clone(),
        },
        origin: Origin::Positions {
            local: local.clone(),
            positions,
        },
    };
    rooms.submit(room, work);
}
