//! Where rooms stand: of each a few fields of its `meta`, of all in one pipeline.

use fred::types::{Resp3Frame as Frame, Value};
use roomgate_shared::{ids::RoomId, keys, protocol::command::Since};

use super::{
    calls::Command,
    reply::{list, owned, text},
};
use crate::store::{Head, StoreError};

/// What asks for a room's head.
pub(super) fn command(room: &RoomId) -> Command {
    let [meta, ..] = keys::room(room);
    let fields = ["epoch", "seq", "end"].map(Value::from_static_str);
    let args = std::iter::once(Value::Bytes(meta.into())).chain(fields);
    ("HMGET", args.collect())
}

/// Reads the answer; `None` for a room that is not there. `due` is the end, Unix ms, that a room's life is to have at
/// least.
pub(super) fn decode(frame: Frame, due: u64) -> Result<Option<Head>, StoreError> {
    let damaged = || StoreError::Damaged("meta: not the record of a room".to_owned());
    let fields = list(frame).ok_or_else(damaged)?;
    if fields.iter().all(|field| matches!(field, Frame::Null)) {
        return Ok(None);
    }
    let mut texts = fields
        .into_iter()
        .map(|field| text(field).and_then(|bytes| owned(&bytes)).ok_or_else(damaged));
    let mut next = || texts.next().unwrap_or_else(|| Err(damaged()));
    let (epoch, seq, end) = (next()?, next()?, next()?);
    Ok(Some(Head {
        at: Since {
            epoch,
            seq: seq.parse().map_err(|_| damaged())?,
        },
        is_due: end.parse::<u64>().map_err(|_| damaged())? < due,
    }))
}
