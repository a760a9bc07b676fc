//! The registry of rooms and the index of what is due, put together again where they are lost.
//!
//! Both are written behind the calls of rooms and could be rebuilt from the rooms at any time; that costs a walk over all
//! keys, so it is done only where one of them lacks the mark that it is whole. The key alone says nothing: the next room in
//! use makes it anew.

use fred::types::{Resp3Frame as Frame, Value};
use roomgate_shared::{
    ids::RoomId,
    keys::{self, DUE, ROOMS},
};

use super::{calls::Command, client::CommandClient, lease, reply};
use crate::store::StoreError;

/// Keys looked at in one step of the walk: some 0.3 ms of Redis.
const STEP: i64 = 500;

/// Stands in both, never due, for: every room is in here, or has been since. No room's id.
const WHOLE: &str = "!";

fn bytes(text: impl Into<String>) -> Value {
    Value::Bytes(text.into().into())
}

fn command(name: &'static str, args: Vec<Value>) -> Command {
    (name, args)
}

/// Rebuilds what is lost. How many rooms were found; `None` where nothing is lost.
///
/// # Errors
/// Redis does not answer, or does not allow it: what is done is done, and the next call begins again.
pub(super) async fn look_after(client: &CommandClient) -> Result<Option<u64>, StoreError> {
    let marks = [ROOMS, DUE].map(|index| command("ZSCORE", vec![bytes(index), bytes(WHOLE)]));
    let mut lost = false;
    for mark in client.pipeline(marks.into()).await {
        lost |= matches!(mark?, Frame::Null);
    }
    if !lost {
        return Ok(None);
    }
    let (mut cursor, mut found) = ("0".to_owned(), 0);
    loop {
        let args = vec![
            bytes(cursor),
            bytes("MATCH"),
            bytes("room:{*}:meta"),
            bytes("COUNT"),
            Value::Integer(STEP),
        ];
        let answer = client.ask(command("SCAN", args)).await?;
        let (next, metas) =
            page(answer).ok_or_else(|| StoreError::Internal("no answer to SCAN".to_owned()))?;
        let rooms: Vec<RoomId> = metas.iter().filter_map(|meta| room_of(meta)).collect();
        found += enter(client, &rooms).await?;
        if next == "0" {
            let mark = |index| command("ZADD", vec![bytes(index), bytes("+inf"), bytes(WHOLE)]);
            for done in client.pipeline(vec![mark(ROOMS), mark(DUE)]).await {
                done?;
            }
            return Ok(Some(found));
        }
        cursor = next;
    }
}

/// Writes down those of the rooms that are there, and how many these were.
async fn enter(client: &CommandClient, rooms: &[RoomId]) -> Result<u64, StoreError> {
    let ends = rooms.iter().map(|room| {
        let [meta, ..] = keys::room(room);
        command("HGET", vec![bytes(meta), bytes("end")])
    });
    let ends = client.pipeline(ends.collect()).await;
    let (mut entries, mut found) = (Vec::new(), 0);
    for (room, end) in rooms.iter().zip(ends) {
        let end = end.ok().and_then(reply::text).and_then(|end| reply::owned(&end));
        if let Some(end) = end {
            found += 1;
            let args = vec![bytes(ROOMS), bytes("GT"), bytes(end), bytes(room.as_str())];
            entries.push(command("ZADD", args));
            entries.push(lease::touch(room, std::time::Duration::ZERO));
        }
    }
    for entry in client.pipeline(entries).await {
        entry?;
    }
    Ok(found)
}

/// Strikes a room that was removed; unless it has been made anew meanwhile, perhaps by another node, and written down
/// before it was struck.
///
/// # Errors
/// Redis does not answer: a sweep finds that the room is gone.
pub(super) async fn strike(client: &CommandClient, room: &RoomId) -> Result<(), StoreError> {
    let strike = |index| command("ZREM", vec![bytes(index), bytes(room.as_str())]);
    for struck in client
        .pipeline(vec![lease::swept(room, None), strike(ROOMS), strike(DUE)])
        .await
    {
        struck?;
    }
    enter(client, std::slice::from_ref(room)).await.map(|_| ())
}

fn page(frame: Frame) -> Option<(String, Vec<String>)> {
    let [cursor, keys] = <[Frame; 2]>::try_from(reply::list(frame)?).ok()?;
    let keys = reply::texts(keys)?;
    let keys = keys.iter().filter_map(reply::owned).collect();
    Some((reply::owned(&reply::text(cursor)?)?, keys))
}

fn room_of(meta: &str) -> Option<RoomId> {
    let id = meta.strip_prefix("room:{")?.strip_suffix("}:meta")?;
    RoomId::new(id).ok()
}
