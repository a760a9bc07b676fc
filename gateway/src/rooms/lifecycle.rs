//! A room's end and its return.
//!
//! A room that is completed takes nothing more. Whoever completes it archives it at once; should that gateway die over it,
//! or the archive not be written, a sweep does so later: the store hands the room out until it is gone. It is removed only
//! when its archive is whole, and only if it still is what was archived. Doing it twice does no harm: both write the same.
//!
//! A room that is not in the store, and is to be made by a join, is looked for among the archives first.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use roomgate_shared::{
    ids::RoomId,
    protocol::{
        ErrorCode, JsonText,
        command::{RoomStatus, Since},
        config::{config_text, settings_of},
    },
};

use super::{Origin, Rooms};
use crate::{
    archive::{Archive, ArchiveError, MemberRecord, RoomRecord, RoomRest, RoomStatistics},
    metrics::metrics,
    store::{
        Applied, Done, Op, Refusal, StoreError,
        export::{Exported, MemberData, RestoredMessage, RoomData},
    },
};

/// Messages put back in one step: some 5 ms of Redis.
const RESTORED_AT_ONCE: usize = 256;
/// Rooms archived at once by one node: each reads its room out of the store and writes it to the archive.
pub(super) const ENDING_AT_ONCE: usize = 4;
/// Pause before a room that does not fit into an archive is tried again: it will hardly fit then.
const UNFIT: Duration = Duration::from_secs(3600);
/// For ever, in an archive.
const EVER: u64 = u64::MAX;

/// Why a room could not be archived or restored.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Refused(String),
}

/// Archives a completed room, then removes it, in a task of its own: a place that answers slowly holds up nobody else.
pub(super) fn begin_end(rooms: &Arc<Rooms>, room: &RoomId) {
    let (rooms, room) = (rooms.clone(), room.clone());
    tokio::spawn(async move { end(&rooms, &room).await });
}

/// A room that is gone already, or not completed, is passed over.
async fn end(rooms: &Arc<Rooms>, room: &RoomId) {
    // One at a time: the sweep may come while it is under way.
    if !rooms.ending.lock().insert(room.clone()) {
        return;
    }
    // Never closed.
    let turn = rooms.ending_turns.acquire().await;
    let ended = try_end(rooms, room).await;
    drop(turn);
    rooms.ending.lock().remove(room);
    match ended {
        Ok(()) => {}
        Err(Trouble::Store(error @ (StoreError::Unavailable(_) | StoreError::Timeout(_)))) => {
            tracing::warn!(%room, %error, "the completed room is archived when the store is back");
        }
        Err(trouble) => {
            metrics().archive_failures.increment(1);
            tracing::error!(%room, error = %trouble, "the completed room could not be archived; it stays, and it is tried again");
            let pause = match trouble {
                Trouble::Archive(ArchiveError::Unfit { .. }) => UNFIT,
                Trouble::Archive(_) | Trouble::Store(_) | Trouble::Refused(_) => Duration::ZERO,
            };
            let reason = trouble.to_string();
            let told = Op::Trouble { reason, pause };
            if let Err(error) = rooms.store.apply(room, vec![told]).await {
                tracing::debug!(%room, %error, "the trouble could not be written down");
            }
        }
    }
}

async fn try_end(rooms: &Rooms, room: &RoomId) -> Result<(), Trouble> {
    let Some(Exported {
        data: Some(data),
        mut next,
        messages,
    }) = export(rooms, room, 0).await?
    else {
        return Ok(());
    };
    let at = Since {
        epoch: data.epoch.clone(),
        seq: data.seq,
    };
    if let Some(archive) = &rooms.archive {
        let mut writer = archive.begin(room, &data.epoch, data.completed);
        let mut part = messages;
        let mut count = 0;
        loop {
            for message in part {
                count += 1;
                writer.message(text(&message)?).await?;
            }
            let Some(from) = next else { break };
            let Some(exported) = export(rooms, room, from).await? else {
                // Somebody else has been faster.
                return Ok(());
            };
            (part, next) = (exported.messages, exported.next);
        }
        let written = writer.finish(rest(*data)).await?;
        metrics().archived.increment(1);
        tracing::info!(%room, path = written.path, bytes = written.bytes, messages = count, "the completed room is archived");
    }
    let reply = rooms.store.apply(room, vec![Op::Remove { at }]).await?;
    match reply.replies.into_iter().next() {
        Some(Ok(_)) | None => Ok(()),
        // Gone, or opened again meanwhile: somebody else has been faster.
        Some(Err(refusal)) if matches!(refusal.code, ErrorCode::NotFound | ErrorCode::Conflict) => Ok(()),
        Some(Err(refusal)) => Err(Trouble::Refused(refusal.message.into_owned())),
    }
}

/// A part of a completed room; `None` for one that is not there, or not completed.
async fn export(rooms: &Rooms, room: &RoomId, from: u64) -> Result<Option<Exported>, Trouble> {
    let applied = rooms.store.apply(room, vec![Op::Export { from }]).await?;
    match applied.replies.into_iter().next() {
        Some(Ok(Done::Exported(exported))) => Ok(Some(exported)),
        Some(Err(refusal)) if matches!(refusal.code, ErrorCode::NotFound | ErrorCode::Conflict) => Ok(None),
        other => Err(Trouble::Refused(format!("no export: {other:?}"))),
    }
}

fn text(message: &[u8]) -> Result<JsonText, Trouble> {
    let text = std::str::from_utf8(message).map_err(|error| Trouble::Refused(error.to_string()))?;
    Ok(JsonText::from_trusted(text))
}

fn rest(data: RoomData) -> RoomRest {
    let settings = data
        .settings
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().to_owned()));
    let config = JsonText::from_trusted(config_text(&settings.collect()));
    let name = data.settings.get("name");
    let ends = |list: Vec<(String, Option<u64>)>| -> Vec<(String, u64)> {
        list.into_iter()
            .map(|(user, until)| (user, until.unwrap_or(EVER)))
            .collect()
    };
    let member = |member: MemberData| MemberRecord {
        id: member.id,
        name: member.name,
        presence: member.presence.into_iter().collect(),
        position: member.position,
        joined_at: member.joined_at,
        last_seen: member.last_seen,
    };
    RoomRest {
        past: data.past,
        seq: data.seq,
        version: data.version,
        status: RoomStatus::Completed.as_str().to_owned(),
        name: name.and_then(|name| serde_json::from_str(name.as_str()).ok()),
        config,
        created: data.created,
        active: data.active,
        state: data.state.into_iter().collect(),
        members: data.members.into_iter().map(member).collect(),
        bans: ends(data.bans),
        mutes: ends(data.mutes),
        statistics: RoomStatistics {
            peak: data.peak,
            joins: data.joins,
            messages: data.seq.saturating_sub(data.others),
            session_ms: data.session_ms,
        },
    }
}

fn data(record: RoomRecord) -> Result<(RoomData, Vec<RestoredMessage>), Trouble> {
    let RoomRecord {
        epoch,
        completed,
        messages,
        rest,
        ..
    } = record;
    let odd = |error: serde_json::Error| Trouble::Refused(format!("the archive is not understood: {error}"));
    let ends = |list: Vec<(String, u64)>| -> Vec<(String, Option<u64>)> {
        list.into_iter()
            .map(|(user, until)| (user, Some(until).filter(|&until| until != EVER)))
            .collect()
    };
    let member = |member: MemberRecord| MemberData {
        id: member.id,
        name: member.name,
        presence: member.presence.into_iter().collect(),
        position: member.position,
        joined_at: member.joined_at,
        last_seen: member.last_seen,
    };
    let data = RoomData {
        epoch,
        past: rest.past,
        seq: rest.seq,
        version: rest.version,
        created: rest.created,
        active: rest.active,
        completed,
        peak: rest.statistics.peak,
        joins: rest.statistics.joins,
        session_ms: rest.statistics.session_ms,
        others: rest.seq.saturating_sub(rest.statistics.messages),
        settings: settings_of(rest.config.as_str()).map_err(odd)?,
        state: rest.state.into_iter().collect::<BTreeMap<_, _>>(),
        members: rest.members.into_iter().map(member).collect(),
        bans: ends(rest.bans),
        mutes: ends(rest.mutes),
    };
    let restored = |message: JsonText| -> Result<RestoredMessage, Trouble> {
        #[derive(serde::Deserialize)]
        struct Place {
            id: String,
            ts: u64,
        }
        let Place { id, ts } = serde_json::from_str(message.as_str()).map_err(odd)?;
        Ok(RestoredMessage {
            id,
            ts,
            text: message.as_str().to_owned(),
        })
    };
    let messages: Result<Vec<_>, _> = messages.into_iter().map(restored).collect();
    Ok((data, messages?))
}

/// Whether a batch would make the room if it is not there.
pub(super) fn may_make(ops: &[Op]) -> bool {
    ops.iter().any(|op| matches!(op, Op::Join(join) if join.create))
}

/// Applies a batch that may make the room: if the room is not there, it is looked for among the archives before it is
/// made. Joins that go on with a past which has ended there are refused; another one opens the room again.
pub(super) async fn apply(
    rooms: &Rooms,
    archive: &Archive,
    room: &RoomId,
    ops: Vec<Op>,
    origins: &[Origin],
) -> Result<Applied, StoreError> {
    let careful = ops.iter().cloned().map(|mut op| {
        if let Op::Join(join) = &mut op {
            join.create = false;
        }
        op
    });
    let applied = rooms.store.apply(room, careful.collect()).await?;
    if !applied.epoch.is_empty() {
        return Ok(applied);
    }
    // It is not there, so nothing has happened.
    if !asked(room, archive.exists(room).await)? {
        return rooms.store.apply(room, ops).await;
    }
    let opens = |(op, origin): (&Op, &Origin)| {
        let resync = matches!(origin, Origin::Resync { .. });
        matches!(op, Op::Join(join) if join.create && join.since.is_none()) && !resync
    };
    if !ops.iter().zip(origins).any(opens) {
        let refused = |op: &Op| {
            if matches!(op, Op::Join(_)) {
                Refusal::new(ErrorCode::RoomClosed, "the room is completed")
            } else {
                Refusal::no_room()
            }
        };
        return Ok(Applied {
            replies: ops.iter().map(|op| Err(refused(op))).collect(),
            ..applied
        });
    }
    let one = rooms.reading.lock().await;
    if let Some(record) = asked(room, archive.latest(room).await)? {
        restore(rooms, room, record).await?;
    }
    drop(one);
    rooms.store.apply(room, ops).await
}

/// What the archive has answered, as far as it has.
fn asked<T>(room: &RoomId, answer: Result<T, ArchiveError>) -> Result<T, StoreError> {
    answer.map_err(|error| {
        metrics().archive_failures.increment(1);
        tracing::error!(%room, %error, "what the archive has of the room is not known, so it is not made");
        match error {
            ArchiveError::Damaged { .. } | ArchiveError::OtherRoom { .. } => {
                StoreError::Damaged(error.to_string())
            }
            ArchiveError::Url(_)
            | ArchiveError::Unfit { .. }
            | ArchiveError::Write { .. }
            | ArchiveError::Reach { .. } => StoreError::unavailable(error.to_string()),
        }
    })
}

async fn restore(rooms: &Rooms, room: &RoomId, record: RoomRecord) -> Result<(), StoreError> {
    let (data, messages) = data(record).map_err(|trouble| StoreError::Damaged(trouble.to_string()))?;
    let count = messages.len();
    let mut messages = messages.into_iter();
    loop {
        let messages: Vec<_> = messages.by_ref().take(RESTORED_AT_ONCE).collect();
        if messages.is_empty() {
            break;
        }
        rooms
            .store
            .apply(room, vec![Op::RestoreMessages { messages }])
            .await?;
    }
    rooms.store.apply(room, vec![Op::Restore(Box::new(data))]).await?;
    metrics().restored.increment(1);
    tracing::info!(%room, messages = count, "the room is open again, as it was archived");
    Ok(())
}
