//! Every Redis key and channel. The braces are literal: the cluster's hash tag, so that all keys of a room share one
//! slot and one script may change them together.

use crate::ids::RoomId;

/// The registry of rooms: a sorted set, room id by the Unix ms at which its life ends unless renewed. An index only.
pub const ROOMS: &str = "rooms";

/// What is due: a sorted set, room id by the Unix ms at which something is due in it, or sooner.
pub const DUE: &str = "rooms:due";

/// The gateways: a sorted set, a gateway's instance by the Unix ms at which its lease ends.
pub const NODES: &str = "nodes";

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
