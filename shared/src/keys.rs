//! Every Redis key and channel. The braces are literal: the cluster's hash tag, so that all keys of a room share one
//! slot and one script may change them together.

use crate::ids::RoomId;

/// The registry of rooms: a sorted set, room id by the Unix ms at which its life ends unless renewed. An index only.
pub const ROOMS: &str = "rooms";

/// What is due: a sorted set, room id by the Unix ms at which something is due in it, or sooner.
pub const DUE: &str = "rooms:due";

/// The gateways: a sorted set, a gateway's instance by the Unix ms at which its lease ends.
pub const NODES: &str = "nodes";

/// The channel of all gateways: what an operator says of users.
pub const CONTROL: &str = "nodes:control";

/// What is known of a user: `rates` (hash), `connections` (hash), `revoked` and `blocked` (strings). A user id may hold what
/// would end a hash tag, so it is written in the alphabet of room ids and `%`.
pub fn user(id: &str, part: &str) -> String {
    format!("user:{{{}}}:{part}", encoded(id))
}

/// That a token, by its id, is revoked: a string.
pub fn token(id: &str) -> String {
    format!("token:{{{}}}:revoked", encoded(id))
}

/// Connections from an address: a hash.
pub fn address(address: &str) -> String {
    format!("ip:{{{}}}:connections", encoded(address))
}

/// `text` in the alphabet of room ids, any other byte as `%` and two hexadecimal digits.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b':' | b'-') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02x}");
        }
    }
    out
}

/// The rooms in which a gateway has, or has just had, members: a set of room ids.
pub fn rooms_of(instance: &str) -> String {
    format!("node:{instance}:rooms")
}

/// Number of keys in [`room`].
pub const ROOM_KEYS: usize = 12;

/// The keys of one room.
///
/// | index | key | type | holds |
/// |---|---|---|---|
/// | 0 | `room:{id}:meta` | hash | epoch, seq, version, status, config, times, counters |
/// | 1 | `room:{id}:state` | hash | field → JSON value |
/// | 2 | `room:{id}:users` | hash | user id → JSON record |
/// | 3 | `room:{id}:seen` | zset | user id by last-seen ms |
/// | 4 | `room:{id}:messages` | zset | message id by ms |
/// | 5 | `room:{id}:message` | hash | message id → JSON message |
/// | 6 | `room:{id}:log` | zset | event text by `seq` |
/// | 7 | `room:{id}:commands:0` | hash | user and command id → what the command did, of windows of time with an even number |
/// | 8 | `room:{id}:commands:1` | hash | the same of odd ones |
/// | 9 | `room:{id}:away` | zset | user id by the ms since when it is away |
/// | 10 | `room:{id}:positions` | hash | user id → where it is, JSON |
/// | 11 | `room:{id}:events` | channel | not a key: passed along so that it is named in one place |
pub fn room(id: &RoomId) -> [String; ROOM_KEYS] {
    [
        "meta",
        "state",
        "users",
        "seen",
        "messages",
        "message",
        "log",
        "commands:0",
        "commands:1",
        "away",
        "positions",
        "events",
    ]
    .map(|part| format!("room:{{{id}}}:{part}"))
}

/// Keys of a room that only rooms with bans, mutes or slow mode have; the room function names them itself.
///
/// | index | key | type | holds |
/// |---|---|---|---|
/// | 0 | `room:{id}:bans` | zset | user id by the ms at which its ban ends; RS and the id: put out for a time |
/// | 1 | `room:{id}:mutes` | zset | user id by the ms at which its mute ends |
/// | 2 | `room:{id}:cooldowns` | zset | lane, RS and user id by the ms from which the user may go on |
pub fn rules(id: &RoomId) -> [String; 3] {
    ["bans", "mutes", "cooldowns"].map(|part| format!("room:{{{id}}}:{part}"))
}

/// The channel of a room's events.
pub fn events_channel(id: &RoomId) -> String {
    format!("room:{{{id}}}:events")
}

/// The room id within an events channel's name, unchecked; `None` for any other channel.
pub fn room_of_channel(channel: &str) -> Option<&str> {
    channel.strip_prefix("room:{")?.strip_suffix("}:events")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_keys_hold_no_brace_of_theirs() {
        assert_eq!(user("ada", "rates"), "user:{ada}:rates");
        assert_eq!(user("{a}b é%", "rates"), "user:{%7ba%7db%20%c3%a9%25}:rates");
        assert_ne!(user("a%20b", "x"), user("a b", "x"));
        assert_eq!(address("2001:db8::"), "ip:{2001:db8::}:connections");
    }

    #[test]
    fn a_channel_names_its_room() {
        let id = RoomId::new("a:b~c").unwrap();
        assert_eq!(events_channel(&id), "room:{a:b~c}:events");
        assert_eq!(room_of_channel(&events_channel(&id)), Some("a:b~c"));
        assert_eq!(room(&id)[11], events_channel(&id));
        for other in ["rooms", "room:{a}:meta", "room:a:events", "probe:gw-1"] {
            assert_eq!(room_of_channel(other), None);
        }
    }
}
