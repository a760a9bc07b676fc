//! One room whose keys hold what they must not.

use super::Stage;
use crate::{
    chaos::{cluster::ask, journal::Act},
    failure::Failure,
};

/// Which of the room's keys is damaged, in turn.
const KEYS: [&str; 4] = ["meta", "log", "users", "message"];

pub(super) fn damaged(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let room = stage.rooms[stage.rng.usize(0..stage.rooms.len())].clone();
    let port = stage.cluster.redis_port();
    // Its members' times do not count: they stay members, though, and must all be at its head in the end.
    stage.journal.phase("before")?;
    stage.rest(stage.seconds / 3)?;
    stage.journal.phase("during")?;
    let each = stage.seconds / 3 / KEYS.len() as u32;
    for key in KEYS {
        let (key, aside) = (format!("room:{{{room}}}:{key}"), format!("aside:{{{room}}}"));
        let there = ask(port, &["EXISTS", &key])? == "1";
        stage.journal.write(Act::Fault {
            what: "a key of a room of the wrong type".to_owned(),
            gateway: None,
            room: Some(room.clone()),
        })?;
        // In one step, so that no call finds the key absent, which would be a room that has ended.
        let script = if there {
            "redis.call('RENAME', KEYS[1], KEYS[2]); redis.call('SET', KEYS[1], '\\255junk')"
        } else {
            "redis.call('SET', KEYS[1], '\\255junk')"
        };
        ask(port, &["EVAL", script, "2", &key, &aside])?;
        stage.rest(each)?;
        let script = if there {
            "redis.call('RENAME', KEYS[2], KEYS[1])"
        } else {
            "redis.call('DEL', KEYS[1])"
        };
        ask(port, &["EVAL", script, "2", &key, &aside])?;
        stage.rest(each / 2)?;
    }
    stage.journal.phase("after")?;
    stage.rest(stage.seconds / 3)
}
