//! Events that a gateway acts on besides passing them on: who is put out, who is muted, how the room is configured.
//!
//! They are found by how their text begins, so that all others cost a comparison of a few bytes. As events of the room's
//! order each is acted on once, on every node, whatever was missed meanwhile; a node that has missed them for good gets a
//! picture of the room instead.

use bytes::Bytes;
use roomgate_shared::protocol::{
    ErrorCode,
    event::{Moderated, PresenceChange, ServerFrame, StatusChanged},
};
use serde::de::DeserializeOwned;

/// What an event says to gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// These users' connections are out, and told so by this code; until when, Unix ms.
    Out(Vec<(String, ErrorCode, Option<u64>)>),
    /// A user may only read until this time, Unix ms; 0: for ever.
    Muted(String, u64),
    /// It may write again.
    Unmuted(String),
    /// The configuration is this.
    Configured(Bytes),
    /// The room is completed: everybody is out.
    Closed,
}

const PRESENCE: &[u8] = br#"{"type":"presence""#;
const USER: &[u8] = br#"{"type":"user."#;
const ROOM: &[u8] = br#"{"type":"room."#;

impl Notice {
    /// What the event `text` says to gateways, if anything.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        if text.starts_with(PRESENCE) {
            let put_out = |reason: &[u8]| memchr::memmem::find(text, reason).is_some();
            if !(put_out(br#""reason":"kicked""#) || put_out(br#""reason":"banned""#)) {
                return None;
            }
            let (_, change) = data::<PresenceChange>(text)?;
            let out = change
                .left
                .into_iter()
                .filter_map(|left| match left.reason.as_str() {
                    "kicked" => Some((left.user, ErrorCode::Kicked, left.until)),
                    "banned" => Some((left.user, ErrorCode::Banned, left.until)),
                    _ => None,
                });
            return Some(Notice::Out(out.collect())).filter(|out| *out != Notice::Out(Vec::new()));
        }
        if text.starts_with(USER) {
            let (kind, moderated) = data::<Moderated>(text)?;
            return match kind.as_str() {
                "user.muted" => Some(Notice::Muted(moderated.user, moderated.until.unwrap_or(0))),
                "user.unmuted" => Some(Notice::Unmuted(moderated.user)),
                // Who is banned and in is put out by an event of presence.
                _ => None,
            };
        }
        if text.starts_with(ROOM) {
            let (kind, frame) = data::<serde_json::Value>(text)?;
            return match kind.as_str() {
                "room.configured" => Some(Notice::Configured(frame["config"].to_string().into())),
                "room.status" => {
                    let status: StatusChanged = serde_json::from_value(frame).ok()?;
                    (status.status == "completed").then_some(Notice::Closed)
                }
                _ => None,
            };
        }
        None
    }
}

fn data<T: DeserializeOwned>(text: &[u8]) -> Option<(String, T)> {
    let frame: ServerFrame = serde_json::from_slice(text).ok()?;
    Some((frame.kind, serde_json::from_value(frame.data).ok()?))
}

#[cfg(test)]
mod tests {
    use roomgate_shared::protocol::event::{EventType, event_text};

    use super::*;

    fn read(kind: EventType, data: &str) -> Option<Notice> {
        Notice::read(event_text(kind, "r", 7, 1, Some("m"), data).as_bytes())
    }

    #[test]
    fn events_for_gateways_are_found_and_others_are_not() {
        let out = |user: &str, code| Some(Notice::Out(vec![(user.to_owned(), code, None)]));
        let left = |reason: &str| format!(r#"{{"left":[{{"user":"u","reason":"{reason}"}}]}}"#);
        assert_eq!(
            read(EventType::Presence, &left("kicked")),
            out("u", ErrorCode::Kicked)
        );
        assert_eq!(
            read(EventType::Presence, &left("banned")),
            out("u", ErrorCode::Banned)
        );
        assert_eq!(read(EventType::Presence, &left("left")), None);
        // Said by a user, not by the room.
        assert_eq!(
            read(
                EventType::MessageSent,
                r#"{"body":{"left":[{"user":"u","reason":"kicked"}]}}"#
            ),
            None
        );
        let muted = read(EventType::UserMuted, r#"{"user":"u","until":5,"reason":"x"}"#);
        assert_eq!(muted, Some(Notice::Muted("u".to_owned(), 5)));
        assert_eq!(
            read(EventType::UserMuted, r#"{"user":"u"}"#),
            Some(Notice::Muted("u".to_owned(), 0))
        );
        assert_eq!(
            read(EventType::UserUnmuted, r#"{"user":"u"}"#),
            Some(Notice::Unmuted("u".to_owned()))
        );
        assert_eq!(read(EventType::UserBanned, r#"{"user":"u"}"#), None);
        let configured = read(EventType::RoomConfigured, r#"{"config":{"images":false}}"#);
        assert_eq!(configured, Some(Notice::Configured("{\"images\":false}".into())));
        assert_eq!(
            read(EventType::RoomStatus, r#"{"status":"completed"}"#),
            Some(Notice::Closed)
        );
        assert_eq!(read(EventType::RoomStatus, r#"{"status":"waiting"}"#), None);
    }
}
