//! The answer of the room function as replies; `lua/base.lua` and `lua/join.lua` say what it looks like.

use std::borrow::Cow;

use bytes::Bytes;
use fred::types::Resp3Frame as Frame;
use roomgate_shared::{
    ids::RoomId,
    protocol::{codes::ErrorCode, event, json::push_u64},
};

use super::{
    picture::{Head, Shared, joined},
    request::Expect,
};
use crate::store::{self, Applied, Buried, Done, Refusal, Reply, StoreError, export::Exported};

/// A batch's answer.
pub(super) struct Answer {
    /// For the caller.
    pub(super) applied: Applied,
    /// When the room ends, Unix ms, if that moved.
    pub(super) life: Option<u64>,
    /// What a sweep in the batch came to.
    pub(super) swept: Option<Swept>,
}

/// How far a sweep has got.
pub(super) enum Swept {
    /// All is done until this time, Unix ms.
    Until(u64),
    /// There is more.
    InPart,
    /// The room is gone.
    Gone,
}

/// Reads the answer to a batch that expects `expect`.
pub(super) fn decode(room: &RoomId, frame: Frame, expect: Vec<Expect>) -> Result<Answer, StoreError> {
    read(room, frame, expect)
        .ok_or_else(|| StoreError::Internal("an answer of the room function is not understood".to_owned()))
}

fn read(room: &RoomId, frame: Frame, expect: Vec<Expect>) -> Option<Answer> {
    let mut items = list(frame)?.into_iter();
    if number(&items.next()?)? != 1 {
        return None;
    }
    let ts = number(&items.next()?)?;
    let epoch = text(items.next()?)?;
    let seq = number(&items.next()?)?;
    let life = number(&items.next()?)?;
    let head = Head {
        room,
        epoch: std::str::from_utf8(&epoch).ok()?,
        seq,
        ts,
    };
    let shared = Shared::read(items.next()?)?;
    let mut replies = Vec::with_capacity(expect.len());
    let mut swept = None;
    for expect in expect {
        let sweep = matches!(expect, Expect::Sweep);
        let reply = reply(&head, shared.as_ref(), items.next()?, expect)?;
        if sweep {
            swept = Some(match &reply {
                Ok(Done::Swept(done)) if done.next > done.now => Swept::Until(done.next),
                Ok(_) => Swept::InPart,
                Err(_) => Swept::Gone,
            });
        }
        replies.push(reply);
    }
    let seq = head.seq;
    Some(Answer {
        applied: Applied { replies, epoch, seq },
        life: Some(life).filter(|&life| life > 0),
        swept,
    })
}

fn reply(head: &Head<'_>, shared: Option<&Shared>, item: Frame, expect: Expect) -> Option<Reply> {
    let mut parts = match expect {
        Expect::Message(tail) => match number(&item) {
            Some(seq) => return Some(Ok(Done::Ack(message_ack(head.epoch, seq, head.ts, &tail)?))),
            None => {
                let parts = list(item)?;
                if let Some(first) = remembered(&parts) {
                    let first = first?;
                    let ack = message_ack(&first.epoch, first.seq, first.ts, &tail)?;
                    return Some(Ok(Done::Again(ack)));
                }
                parts
            }
        },
        Expect::Seq => match number(&item) {
            Some(seq) => return Some(Ok(Done::Ack(seq_ack(seq)))),
            None => {
                let parts = list(item)?;
                if let Some(first) = remembered(&parts) {
                    return Some(Ok(Done::Again(seq_ack(first?.seq))));
                }
                parts
            }
        },
        Expect::Nothing => match number(&item) {
            Some(_) => return Some(Ok(Done::Ack("{}".to_owned()))),
            None => list(item)?,
        },
        Expect::Text => {
            if let Frame::Array { data, .. } = item {
                if let [mark, told] = &data[..]
                    && text(mark.clone())? == "="
                {
                    return Some(Ok(Done::Again(owned(&text(told.clone())?)?)));
                }
                data
            } else {
                return Some(Ok(Done::Ack(owned(&text(item)?)?)));
            }
        }
        Expect::Patch => {
            let parts = list(item)?;
            match parts.first().and_then(number) {
                Some(version) => return Some(Ok(Done::Ack(patch_ack(version, number(parts.get(1)?)?)))),
                None => {
                    if let Some(first) = remembered(&parts) {
                        let first = first?;
                        return Some(Ok(Done::Again(patch_ack(first.version?, first.seq))));
                    }
                    parts
                }
            }
        }
        Expect::Join { since, messages } => {
            let mut parts = list(item)?;
            match parts.first().and_then(number) {
                Some(reason) => {
                    let you = owned(&text(parts.pop()?)?)?;
                    return joined(head, shared?, reason, since, messages, Some(&you)).map(Ok);
                }
                None => parts,
            }
        }
        Expect::Tail(since) => {
            let parts = list(item)?;
            match parts.first().and_then(number) {
                Some(reason) => return joined(head, shared?, reason, since, usize::MAX, None).map(Ok),
                None => parts,
            }
        }
        Expect::Sweep => {
            let parts = list(item)?;
            match parts.first().and_then(number) {
                Some(left) => {
                    let (purged, next) = (number(parts.get(1)?)?, number(parts.get(2)?)?);
                    let completed = number(parts.get(3)?)? == 1;
                    return Some(Ok(Done::Swept(store::Swept {
                        left,
                        purged,
                        now: head.ts,
                        next,
                        completed,
                    })));
                }
                None => parts,
            }
        }
        Expect::Bury => {
            let mut parts = list(item)?;
            match parts.first().and_then(number) {
                Some(away) => {
                    let cursor = owned(&text(parts.pop()?)?)?;
                    return Some(Ok(Done::Buried(Buried { away, cursor })));
                }
                None => parts,
            }
        }
        Expect::Export => {
            let parts = list(item)?;
            match <[Frame; 3]>::try_from(parts) {
                Ok([header, next, messages]) if matches!(messages, Frame::Array { .. }) => {
                    let header = text(header)?;
                    let data = if header.is_empty() {
                        None
                    } else {
                        Some(serde_json::from_slice(&header).ok()?)
                    };
                    let next = number(&next);
                    let messages = texts(messages)?;
                    return Some(Ok(Done::Exported(Exported { data, next, messages })));
                }
                Ok(parts) => parts.into(),
                Err(parts) => parts,
            }
        }
    }
    .into_iter();
    let code = text(parts.next()?)?;
    if code == "no_room" {
        return Some(Err(Refusal::no_room()));
    }
    let code = ErrorCode::ALL
        .iter()
        .copied()
        .find(|known| known.as_str().as_bytes() == code)?;
    let message = Cow::Owned(owned(&text(parts.next()?)?)?);
    let details = match parts.next() {
        None | Some(Frame::Null) => None,
        Some(details) => Some(owned(&text(details)?)?).filter(|details| !details.is_empty()),
    };
    let retry_ms = parts.next().as_ref().and_then(number);
    Some(Err(Refusal {
        code,
        message,
        details,
        retry_ms,
        no_room: false,
    }))
}

/// What a command did the first time.
struct First {
    seq: u64,
    ts: u64,
    epoch: String,
    version: Option<u64>,
}

/// `None` outside for an answer that is of no command that has happened before, inside for one that is not understood.
fn remembered(parts: &[Frame]) -> Option<Option<First>> {
    let (mark, rest) = parts.split_first()?;
    if text(mark.clone())? != "=" {
        return None;
    }
    let read = || {
        let [seq, ts, epoch, version @ ..] = rest else {
            return None;
        };
        Some(First {
            seq: number(seq)?,
            ts: number(ts)?,
            epoch: owned(&text(epoch.clone())?)?,
            version: version.first().and_then(number),
        })
    };
    Some(read())
}

fn message_ack(epoch: &str, seq: u64, ts: u64, tail: &[u8]) -> Option<String> {
    let message = event::message_text(epoch, seq, ts, std::str::from_utf8(tail).ok()?);
    let mut out = String::with_capacity(message.len() + 12);
    out.push_str("{\"message\":");
    out.push_str(&message);
    out.push('}');
    Some(out)
}

fn seq_ack(seq: u64) -> String {
    let mut out = String::with_capacity(24);
    out.push_str("{\"seq\":");
    push_u64(&mut out, seq);
    out.push('}');
    out
}

fn patch_ack(version: u64, seq: u64) -> String {
    let mut out = String::with_capacity(40);
    out.push_str("{\"version\":");
    push_u64(&mut out, version);
    out.push_str(",\"seq\":");
    push_u64(&mut out, seq);
    out.push('}');
    out
}

pub(super) fn number(frame: &Frame) -> Option<u64> {
    if let Frame::Number { data, .. } = frame {
        u64::try_from(*data).ok()
    } else {
        None
    }
}

pub(super) fn text(frame: Frame) -> Option<Bytes> {
    if let Frame::BlobString { data, .. } | Frame::SimpleString { data, .. } = frame {
        Some(data)
    } else {
        None
    }
}

pub(super) fn list(frame: Frame) -> Option<Vec<Frame>> {
    if let Frame::Array { data, .. } = frame {
        Some(data)
    } else {
        None
    }
}

pub(super) fn texts(frame: Frame) -> Option<Vec<Bytes>> {
    list(frame)?.into_iter().map(text).collect()
}

pub(super) fn owned(bytes: &Bytes) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(data: i64) -> Frame {
        Frame::Number {
            data,
            attributes: None,
        }
    }

    fn t(text: &'static str) -> Frame {
        Frame::BlobString {
            data: Bytes::from_static(text.as_bytes()),
            attributes: None,
        }
    }

    fn l(data: Vec<Frame>) -> Frame {
        Frame::Array {
            data,
            attributes: None,
        }
    }

    fn read(answers: Vec<Frame>, shared: Frame, expect: Vec<Expect>) -> Vec<Reply> {
        let mut items = vec![n(1), n(1_760_000_000_000), t("k1"), n(7), n(0), shared];
        items.extend(answers);
        let answer = decode(&RoomId::new("r").unwrap(), l(items), expect).unwrap();
        assert_eq!((&answer.applied.epoch[..], answer.applied.seq), (&b"k1"[..], 7));
        answer.applied.replies
    }

    #[test]
    fn acks_and_refusals() {
        let replies = read(
            vec![
                n(7),
                n(6),
                n(0),
                l(vec![n(3), n(5)]),
                l(vec![t("conflict"), t("no"), t("\"version\":1")]),
            ],
            n(0),
            vec![
                Expect::Message(Bytes::from_static(b"\"by\":\"u\"}")),
                Expect::Seq,
                Expect::Nothing,
                Expect::Patch,
                Expect::Patch,
            ],
        );
        let ack = |text: &str| Ok(Done::Ack(text.to_owned()));
        let message = "{\"message\":{\"id\":\"k1-0000000007\",\"seq\":7,\"ts\":1760000000000,\"by\":\"u\"}}";
        let refusal = Refusal {
            code: ErrorCode::Conflict,
            message: "no".into(),
            details: Some("\"version\":1".to_owned()),
            retry_ms: None,
            no_room: false,
        };
        let expected = vec![
            ack(message),
            ack("{\"seq\":6}"),
            ack("{}"),
            ack("{\"version\":3,\"seq\":5}"),
            Err(refusal),
        ];
        assert_eq!(replies, expected);
    }

    #[test]
    fn what_has_happened_before_says_so() {
        let first = |version: bool| {
            let mut parts = vec![t("="), n(5), n(1_750_000_000_000), t("k0")];
            parts.extend(version.then(|| n(3)));
            l(parts)
        };
        let expect = vec![
            Expect::Message(Bytes::from_static(b"\"by\":\"u\"}")),
            Expect::Seq,
            Expect::Patch,
        ];
        let replies = read(vec![first(false), first(false), first(true)], n(0), expect);
        let again = |text: &str| Ok(Done::Again(text.to_owned()));
        let message = "{\"message\":{\"id\":\"k0-0000000005\",\"seq\":5,\"ts\":1750000000000,\"by\":\"u\"}}";
        let expected = [
            again(message),
            again("{\"seq\":5}"),
            again("{\"version\":3,\"seq\":5}"),
        ];
        assert_eq!(replies, expected);
    }

    #[test]
    fn joins_share_the_picture_and_the_events() {
        let picture = l(vec![
            t("active"),
            t("{}"),
            n(2),
            t("\"a\":1"),
            t("{}"),
            n(1),
            l(vec![t("1"), t("2")]),
        ]);
        let shared = l(vec![
            picture,
            n(6),
            l(vec![t("six"), t("seven")]),
            l(vec![t("u-1"), t("{}")]),
            n(-1),
            n(0),
        ]);
        let replies = read(
            vec![l(vec![n(1), t("me")]), l(vec![n(0), t("me")]), l(vec![n(2)])],
            shared,
            vec![
                Expect::Join {
                    since: 0,
                    messages: 1,
                },
                Expect::Join {
                    since: 6,
                    messages: 1,
                },
                Expect::Tail(1),
            ],
        );
        let Ok(Done::Joined(first)) = &replies[0] else {
            panic!("{replies:?}")
        };
        assert_eq!(
            first.data,
            "{\"epoch\":\"k1\",\"seq\":7,\"recovered\":false,\"reason\":\"new\",\"room\":{\"id\":\"r\",\
             \"status\":\"active\",\"config\":{}},\"version\":2,\"state\":{\"a\":1},\"users\":[{}],\"members\":1,\
             \"messages\":[2],\"you\":me}"
        );
        let Ok(Done::Joined(second)) = &replies[1] else {
            panic!("{replies:?}")
        };
        assert_eq!(second.missed, ["seven"]);
        assert_eq!(
            second.data,
            "{\"epoch\":\"k1\",\"seq\":7,\"recovered\":true,\"missed\":1,\"you\":me}"
        );
        assert_eq!(
            second.positions[..],
            [("u-1".to_owned(), Bytes::from_static(b"{}"))]
        );
        assert_eq!((first.positions.len(), second.occupancy), (0, None));
        let Ok(Done::Joined(third)) = &replies[2] else {
            panic!("{replies:?}")
        };
        assert!(
            third.data.ends_with("\"messages\":[1,2]}") && !third.recovered,
            "{third:?}"
        );
    }

    #[test]
    fn what_is_no_answer_is_an_internal_fault() {
        for frame in [n(1), l(vec![]), l(vec![n(1), n(1), t("k"), n(0), n(0), n(0)])] {
            let room = RoomId::new("r").unwrap();
            assert!(matches!(
                decode(&room, frame, vec![Expect::Seq]),
                Err(StoreError::Internal(_))
            ));
        }
    }
}
