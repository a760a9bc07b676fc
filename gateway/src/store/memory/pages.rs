//! Pages of messages and members, and the picture of a room.

use std::ops::Bound;

use roomgate_shared::{
    ids::UserId,
    protocol::{ErrorCode, json::quoted},
};

use super::room::Room;
use crate::store::{Done, Refusal, Reply, StoreLimits};

/// `Op::MessageHistory`.
pub(super) fn history(
    room: &Room,
    before: Option<&str>,
    after: Option<&str>,
    limit: usize,
    limits: &StoreLimits,
) -> Reply {
    let check = |cursor: &str| {
        let known = cursor.rsplit_once('-').is_some_and(|(epoch, seq)| {
            !epoch.is_empty()
                && epoch.len() <= 64
                && !seq.is_empty()
                && seq.bytes().all(|b| b.is_ascii_digit())
        });
        if known {
            Ok(())
        } else {
            Err(Refusal::new(
                ErrorCode::BadRequest,
                "the cursor is none of this room's",
            ))
        }
    };
    before.into_iter().chain(after).try_for_each(check)?;
    let page = match (before, after) {
        (_, Some(after)) => {
            let newer = (Bound::Excluded(after), Bound::Unbounded);
            page(room.messages.range::<str, _>(newer), limit, limits.page_bytes)
        }
        (Some(before), None) => {
            let older = (Bound::Unbounded, Bound::Excluded(before));
            reversed(page(
                room.messages.range::<str, _>(older).rev(),
                limit,
                limits.page_bytes,
            ))
        }
        (None, None) => reversed(page(room.messages.iter().rev(), limit, limits.page_bytes)),
    };
    let mut data = format!("{{\"messages\":[{}]", texts(&page));
    let (first, last) = (page.first().map(|(id, _)| *id), page.last().map(|(id, _)| *id));
    // Of an empty page only the cursor that led to it is known.
    let older = first
        .or(after)
        .is_some_and(|first| room.messages.keys().next().is_some_and(|id| id.as_str() < first));
    let newer = last.or(before).is_some_and(|last| {
        room.messages
            .keys()
            .next_back()
            .is_some_and(|id| id.as_str() > last)
    });
    if let Some(cursor) = first.or(after).filter(|_| older) {
        data.push_str(&format!(",\"before\":{}", quoted(cursor)));
    }
    if let Some(cursor) = last.or(before).filter(|_| newer) {
        data.push_str(&format!(",\"after\":{}", quoted(cursor)));
    }
    data.push('}');
    Ok(Done::Ack(data))
}

/// The newest messages, oldest first, as the inside of a JSON array.
pub(super) fn newest(room: &Room, count: usize, limits: &StoreLimits) -> String {
    texts(&reversed(page(
        room.messages.iter().rev(),
        count,
        limits.page_bytes,
    )))
}

type Page<'a> = Vec<(&'a str, &'a str)>;

fn page<'a>(
    messages: impl Iterator<Item = (&'a String, &'a (u64, String))>,
    limit: usize,
    bytes: usize,
) -> Page<'a> {
    let mut total = 0;
    messages
        .take(limit)
        .take_while(|(_, (_, text))| {
            let first = total == 0;
            total += text.len();
            first || total <= bytes
        })
        .map(|(id, (_, text))| (id.as_str(), text.as_str()))
        .collect()
}

fn reversed(mut page: Page<'_>) -> Page<'_> {
    page.reverse();
    page
}

fn texts(page: &Page<'_>) -> String {
    page.iter().map(|(_, text)| *text).collect::<Vec<_>>().join(",")
}

/// `Op::UsersList`.
pub(super) fn users(room: &Room, cursor: Option<&str>, limit: usize) -> Reply {
    if cursor.is_some_and(|cursor| UserId::new(cursor).is_err()) {
        return Err(Refusal::new(
            ErrorCode::BadRequest,
            "the cursor is none of this room's",
        ));
    }
    let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = room
        .users
        .range::<str, _>((from, Bound::Unbounded))
        .map(|(id, _)| id);
    let page: Vec<&String> = rest.by_ref().take(limit).collect();
    let users: Vec<String> = page.iter().map(|id| room.user_text(id)).collect();
    let mut data = format!("{{\"users\":[{}],\"total\":{}", users.join(","), room.users.len());
    if let (Some(last), Some(_)) = (page.last(), rest.next()) {
        data.push_str(&format!(",\"cursor\":{}", quoted(last)));
    }
    data.push('}');
    Ok(Done::Ack(data))
}

/// Every member.
pub(super) fn all_users(room: &Room) -> Vec<String> {
    room.users.keys().map(|id| room.user_text(id)).collect()
}

/// What the pictures of a room have in common: `version` to `members`. `who`: it tells who is there.
pub(super) fn picture(room: &Room, who: bool) -> String {
    let users: Vec<String> = if who { all_users(room) } else { Vec::new() };
    format!(
        r#""room":{{"id":"{}","status":"{}","config":{}}},"version":{},"state":{},"users":[{}],"members":{}"#,
        room.id,
        room.rules.status.as_str(),
        room.rules.config_text(),
        room.version,
        room.state_text(None),
        users.join(","),
        room.users.len(),
    )
}
