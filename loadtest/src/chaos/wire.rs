//! The protocol as the clients of the chaos run speak it: written from PROTOCOL.md, sharing nothing with the gateway.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::history::Since;

/// A frame from a gateway.
#[derive(Debug, Deserialize)]
pub struct Frame {
    /// What it is.
    #[serde(rename = "type")]
    pub of: String,
    /// The command that it answers.
    #[serde(default)]
    pub id: Option<String>,
    /// The room.
    #[serde(default)]
    pub room: Option<String>,
    /// A durable event's place.
    #[serde(default)]
    pub seq: Option<u64>,
    /// A durable event's time.
    #[serde(default)]
    pub ts: Option<u64>,
    /// The author of an event.
    #[serde(default)]
    pub by: Option<String>,
    /// Whether an ack is a remembered one.
    #[serde(default)]
    pub duplicate: bool,
    /// The rest.
    #[serde(default)]
    pub data: Value,
}

impl Frame {
    /// A text member of `data`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.data.get(name)?.as_str()
    }

    /// A whole number of `data`.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.data.get(name)?.as_u64()
    }

    /// The `seq` that the ack of a durable command tells.
    pub fn acked_seq(&self) -> Option<u64> {
        let message = self.data.get("message").and_then(|message| message.get("seq"));
        message.or_else(|| self.data.get("seq"))?.as_u64()
    }

    /// Who came and went, where the event tells of it.
    pub fn presence(&self) -> Option<Presence> {
        if self.of != "presence" {
            return None;
        }
        let list = |name: &str| {
            self.data
                .get(name)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
        };
        let member = |user: &Value, name: &str| Some(user.get(name)?.as_str()?.to_owned());
        let ids = |name: &str| {
            list(name)
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let joined = list("joined").into_iter();
        let left = list("left").into_iter();
        Some(Presence {
            joined: joined
                .filter_map(|user| Some((member(&user, "id")?, member(&user, "status")? == "away")))
                .collect(),
            away: ids("away"),
            back: ids("back"),
            left: left
                .filter_map(|one| Some((member(&one, "user")?, member(&one, "reason")?)))
                .collect(),
            all: self.data.get("all").and_then(Value::as_bool) == Some(true),
        })
    }

    /// The token of the command that made this event.
    pub fn token(&self) -> Option<String> {
        let holder = match self.of.as_str() {
            "message.sent" => self.data.get("body"),
            "broadcast" => self.data.get("payload"),
            "state.patched" => {
                let set = self.data.get("set")?.as_object()?;
                return set.values().find_map(Value::as_str).map(str::to_owned);
            }
            _ => None,
        };
        Some(holder?.get("t")?.as_str()?.to_owned())
    }

    /// A digest of all that an event says, whatever the order in which it says it.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.of, &self.room, self.seq, self.ts, &self.by).hash(&mut hasher);
        digest_of(&self.data).hash(&mut hasher);
        hasher.finish()
    }
}

fn digest_of(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Null => 0_u8.hash(&mut hasher),
        Value::Bool(is) => is.hash(&mut hasher),
        Value::Number(number) => number.to_string().hash(&mut hasher),
        Value::String(text) => text.hash(&mut hasher),
        Value::Array(items) => items.iter().for_each(|item| digest_of(item).hash(&mut hasher)),
        // Members have no order: their digests are added.
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let mut member = DefaultHasher::new();
                (name, digest_of(value)).hash(&mut member);
                member.finish()
            })
            .fold(members.len() as u64, u64::wrapping_add)
            .hash(&mut hasher),
    }
    hasher.finish()
}

/// What a `presence` event says, without the records of users.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Presence {
    /// Who came, and whether the one is away already.
    pub joined: Vec<(String, bool)>,
    /// Whose last connection was lost.
    pub away: Vec<String>,
    /// Who came back.
    pub back: Vec<String>,
    /// Who is no member any more, and why.
    pub left: Vec<(String, String)>,
    /// Whether those who came are all that there are.
    pub all: bool,
}

/// The durable commands that clients send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// `message.send`
    Message,
    /// `broadcast`
    Broadcast,
    /// `state.patch`, which adds one to [`COUNTER`]
    Patch,
}

/// The field of state that every patch adds one to.
pub const COUNTER: &str = "n";

impl Durable {
    /// The type on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message.send",
            Self::Broadcast => "broadcast",
            Self::Patch => "state.patch",
        }
    }

    /// The command's text. `user` is its author's id; `padding` makes it longer.
    pub fn command(self, id: &str, room: &str, user: &str, token: &str, padding: &str) -> String {
        let data = match self {
            Self::Message => json!({"body": {"t": token, "pad": padding}}),
            Self::Broadcast => json!({"event": "chaos", "payload": {"t": token, "pad": padding}}),
            Self::Patch => json!({"set": {user: token}, "increment": {COUNTER: 1}}),
        };
        json!({"id": id, "type": self.as_str(), "room": room, "data": data}).to_string()
    }
}

/// The text of a join.
pub fn join(id: &str, room: &str, since: Option<&Since>) -> String {
    let data = match since {
        Some(since) => json!({"since": {"epoch": since.epoch, "seq": since.seq}, "messages": 0}),
        None => json!({"messages": 0}),
    };
    json!({"id": id, "type": "join", "room": room, "data": data}).to_string()
}

/// The text of a move, without an id: it has no answer.
pub fn move_to(room: &str, x: u32, y: u32) -> String {
    json!({"type": "move", "room": room, "data": {"x": x, "y": y}}).to_string()
}

/// The text of a page of members.
pub fn users(id: &str, room: &str, cursor: Option<&str>) -> String {
    let data = match cursor {
        Some(cursor) => json!({"limit": 200, "cursor": cursor}),
        None => json!({"limit": 200}),
    };
    json!({"id": id, "type": "users.list", "room": room, "data": data}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Frame {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_token_is_found_in_every_durable_event() {
        let sent = r#"{"type":"message.sent","room":"r","seq":1,"data":{"body":{"t":"a","pad":""}}}"#;
        assert_eq!(frame(sent).token().as_deref(), Some("a"));
        let cast = r#"{"type":"broadcast","room":"r","seq":1,"data":{"event":"e","payload":{"t":"b"}}}"#;
        assert_eq!(frame(cast).token().as_deref(), Some("b"));
        let patched = r#"{"type":"state.patched","room":"r","seq":1,"data":{"set":{"n":3,"u1":"c"}}}"#;
        assert_eq!(frame(patched).token().as_deref(), Some("c"));
        let presence = r#"{"type":"presence","room":"r","seq":1,"data":{"away":["u"]}}"#;
        assert_eq!(frame(presence).token(), None);
    }

    #[test]
    fn a_presence_event_says_who_came_and_went() {
        let text = r#"{"type":"presence","room":"r","seq":9,"data":{
            "joined":[{"id":"a","status":"here"},{"id":"b","status":"away"}],"updated":[{"id":"e","status":"here"}],
            "away":["c"],"back":["e"],"left":[{"user":"d","reason":"timeout"}]}}"#;
        let said = Presence {
            joined: vec![("a".to_owned(), false), ("b".to_owned(), true)],
            away: vec!["c".to_owned()],
            back: vec!["e".to_owned()],
            left: vec![("d".to_owned(), "timeout".to_owned())],
            all: false,
        };
        assert_eq!(frame(text).presence(), Some(said));
        let all = r#"{"type":"presence","room":"r","seq":9,"data":{"all":true,"joined":[]}}"#;
        assert!(frame(all).presence().unwrap().all);
        let moves = r#"{"type":"moves","room":"r","data":{"away":{"x":1}}}"#;
        assert_eq!(frame(moves).presence(), None);
    }

    #[test]
    fn a_digest_passes_over_the_order_of_members_only() {
        let one = frame(r#"{"type":"x","room":"r","seq":1,"data":{"a":[1,2],"b":{"c":null}}}"#);
        let same = frame(r#"{"data":{"b":{"c":null},"a":[1,2]},"seq":1,"room":"r","type":"x"}"#);
        let other = frame(r#"{"type":"x","room":"r","seq":1,"data":{"a":[2,1],"b":{"c":null}}}"#);
        let swapped = frame(r#"{"type":"x","room":"r","seq":1,"data":{"b":[1,2],"a":{"c":null}}}"#);
        assert_eq!(one.digest(), same.digest());
        assert_ne!(one.digest(), other.digest());
        assert_ne!(one.digest(), swapped.digest());
    }
}
