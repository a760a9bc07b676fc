//! The answers of joins and tails, put together from what they share.

use bytes::Bytes;
use fred::types::Resp3Frame as Frame;
use roomgate_shared::{ids::RoomId, protocol::json::push_u64};

use super::reply::{list, number, owned, text, texts};
use crate::store::{Done, Joined, Positions};

/// What an answer begins with.
pub(super) struct Head<'a> {
    pub(super) room: &'a RoomId,
    pub(super) epoch: &'a str,
    pub(super) seq: u64,
    pub(super) ts: u64,
}

/// What joins and tails share.
pub(super) struct Shared {
    picture: Option<Picture>,
    first: u64,
    events: Vec<Bytes>,
    places: Positions,
    /// How many members there are, in a room that counts.
    members: Option<u64>,
    /// What nodes with members must know.
    rules: Option<Bytes>,
}

/// The room at the end of the batch.
struct Picture {
    /// From `"room"` to `"members"`: the same for everybody.
    body: String,
    messages: Vec<Bytes>,
}

impl Shared {
    /// `None` outside for what is not understood, inside where there is nothing to share.
    pub(super) fn read(frame: Frame) -> Option<Option<Self>> {
        if number(&frame).is_some() {
            return Some(None);
        }
        let [picture, first, events, places, members, rules] = <[Frame; 6]>::try_from(list(frame)?).ok()?;
        let picture = if number(&picture).is_some() {
            None
        } else {
            Some(Picture::read(picture)?)
        };
        Some(Some(Self {
            picture,
            first: number(&first)?,
            events: texts(events)?,
            places: positions(texts(places)?)?,
            // Elsewhere it is -1.
            members: number(&members),
            // Elsewhere it is 0.
            rules: text(rules),
        }))
    }

    /// The events after `since`, if they are all there.
    fn after(&self, since: u64, seq: u64) -> Option<Vec<Bytes>> {
        let skip = usize::try_from((since + 1).checked_sub(self.first)?).ok()?;
        let events = self.events.get(skip..)?;
        (since + events.len() as u64 == seq).then(|| events.to_vec())
    }
}

fn positions(texts: Vec<Bytes>) -> Option<Positions> {
    let (pairs, _) = texts.as_chunks::<2>();
    let each = pairs
        .iter()
        .map(|[user, position]| Some((owned(user)?, position.clone())));
    each.collect()
}

impl Picture {
    fn read(frame: Frame) -> Option<Self> {
        let [status, config, version, state, users, members, messages] =
            <[Frame; 7]>::try_from(list(frame)?).ok()?;
        let (status, config, state, users) = (text(status)?, text(config)?, text(state)?, text(users)?);
        let [status, config, state, users] =
            [&status, &config, &state, &users].map(|bytes| std::str::from_utf8(bytes).ok());
        let (state, users) = (state?, users?);
        let mut body = String::with_capacity(state.len() + users.len() + 128);
        for piece in [
            "\",\"status\":\"",
            status?,
            "\",\"config\":",
            config?,
            "},\"version\":",
        ] {
            body.push_str(piece);
        }
        push_u64(&mut body, number(&version)?);
        for piece in [",\"state\":{", state, "},\"users\":[", users, "],\"members\":"] {
            body.push_str(piece);
        }
        push_u64(&mut body, number(&members)?);
        Some(Self {
            body,
            messages: texts(messages)?,
        })
    }

    /// `data` of the ack, with the newest `messages`.
    fn data(&self, head: &Head<'_>, reason: &str, messages: usize, you: Option<&str>) -> Option<String> {
        let messages = &self.messages[self.messages.len().saturating_sub(messages)..];
        let bytes: usize = messages.iter().map(|text| text.len() + 1).sum();
        let mut out = String::with_capacity(self.body.len() + bytes + you.map_or(0, str::len) + 192);
        push_head(&mut out, head);
        for piece in [
            ",\"recovered\":false,\"reason\":\"",
            reason,
            "\",\"room\":{\"id\":\"",
            head.room.as_str(),
        ] {
            out.push_str(piece);
        }
        out.push_str(&self.body);
        out.push_str(",\"messages\":[");
        for (index, message) in messages.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            out.push_str(std::str::from_utf8(message).ok()?);
        }
        out.push(']');
        push_you(&mut out, you);
        Some(out)
    }
}

fn push_head(out: &mut String, head: &Head<'_>) {
    out.push_str("{\"epoch\":\"");
    out.push_str(head.epoch);
    out.push_str("\",\"seq\":");
    push_u64(out, head.seq);
}

fn push_you(out: &mut String, you: Option<&str>) {
    if let Some(you) = you {
        out.push_str(",\"you\":");
        out.push_str(you);
    }
    out.push('}');
}

/// The answer to one join, or to a tail, which has no `you`.
pub(super) fn joined(
    head: &Head<'_>,
    shared: &Shared,
    reason: u64,
    since: u64,
    messages: usize,
    you: Option<&str>,
) -> Option<Done> {
    let reason = match reason {
        0 => {
            let missed = shared.after(since, head.seq)?;
            let mut data = String::with_capacity(you.map_or(0, str::len) + 96);
            push_head(&mut data, head);
            data.push_str(",\"recovered\":true,\"missed\":");
            push_u64(&mut data, missed.len() as u64);
            push_you(&mut data, you);
            let epoch = head.epoch.to_owned();
            return Some(Done::Joined(Joined {
                epoch,
                seq: head.seq,
                data,
                missed,
                recovered: true,
                positions: shared.places.clone(),
                occupancy: shared.members,
                rules: shared.rules.clone(),
            }));
        }
        1 => "new",
        2 => "too_old",
        3 => "epoch_changed",
        4 => "ahead",
        _ => return None,
    };
    let data = shared.picture.as_ref()?.data(head, reason, messages, you)?;
    let epoch = head.epoch.to_owned();
    Some(Done::Joined(Joined {
        epoch,
        seq: head.seq,
        data,
        missed: Vec::new(),
        recovered: false,
        positions: Positions::default(),
        occupancy: None,
        rules: shared.rules.clone(),
    }))
}
