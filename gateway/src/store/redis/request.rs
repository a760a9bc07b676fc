//! A batch as the arguments of the room function; `lua/base.lua` says what it takes.

use std::{collections::BTreeMap, fmt::Write as _, ops::Range};

use bytes::Bytes;
use fred::types::Value;
use roomgate_shared::{
    ids::{RoomId, UserId},
    protocol::{
        DEFAULT_PAGE, JsonText, MAX_PRESENCE_BYTES, MAX_STATE_BYTES,
        codec::is_image_url,
        command::{Fields, Since},
        json::push_str,
    },
};

use super::function::LIBRARY;
use crate::store::{CommandKey, Join, Op, PresenceMode, StoreLimits, Tail, export::RoomData};

/// Texts from this length on are handed over as they are instead of being copied together with the small ones.
const OWN: usize = 1024;

/// What the answer to an operation will be, and what is needed to put its text together.
#[derive(Debug)]
pub(super) enum Expect {
    /// A message's `seq`; its tail.
    Message(Bytes),
    /// A `seq`.
    Seq,
    /// The text of the ack.
    Text,
    /// Nothing to tell.
    Nothing,
    /// Version and `seq` of a patch.
    Patch,
    /// A join.
    Join {
        /// The client's `since.seq`.
        since: u64,
        /// Newest messages in the snapshot.
        messages: usize,
    },
    /// A tail, from this `seq`.
    Tail(u64),
    /// What a sweep did.
    Sweep,
    /// What was done about a dead node.
    Bury,
    /// A part of a room.
    Export,
}

/// A batch, encoded.
pub(super) struct Request {
    /// The arguments of `FCALL`.
    pub(super) args: Vec<Value>,
    /// One for each operation.
    pub(super) expect: Vec<Expect>,
}

/// The first argument of the room function after the keys. Made once.
pub(super) fn limits_text(limits: &StoreLimits) -> Bytes {
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for number in [
        limits.log_events,
        ms(limits.log_age),
        limits.log_bytes,
        ms(limits.active_ttl),
        ms(limits.retention),
        limits.page_bytes as u64,
        MAX_PRESENCE_BYTES as u64,
        MAX_STATE_BYTES as u64,
        ms(limits.dedupe),
        ms(limits.grace),
        match limits.presence {
            PresenceMode::Full => 0,
            PresenceMode::Count => 1,
            PresenceMode::Off => 2,
        },
        limits.full_members,
        ms(limits.waiting_ttl),
        ms(limits.again),
    ] {
        let _ = write!(text, "{number} ");
    }
    text.into()
}

enum Part {
    Static(&'static str),
    Copied(Range<usize>),
    Own(Bytes),
}

/// Collects arguments: the small ones in one allocation.
#[derive(Default)]
struct Args {
    text: String,
    parts: Vec<Part>,
}

impl Args {
    fn fixed(&mut self, text: &'static str) {
        self.parts.push(Part::Static(text));
    }

    fn copy(&mut self, text: &str) {
        self.with(|out| out.push_str(text));
    }

    fn with(&mut self, write: impl FnOnce(&mut String)) {
        let start = self.text.len();
        write(&mut self.text);
        self.parts.push(Part::Copied(start..self.text.len()));
    }

    fn quoted(&mut self, text: &str) {
        self.with(|out| push_str(out, text));
    }

    fn number(&mut self, number: impl std::fmt::Display) {
        self.with(|out| {
            let _ = write!(out, "{number}");
        });
    }

    fn text(&mut self, text: String) {
        if text.len() < OWN {
            self.copy(&text)
        } else {
            self.parts.push(Part::Own(text.into()))
        }
    }

    fn bytes(&mut self, bytes: Bytes) {
        self.parts.push(Part::Own(bytes));
    }

    /// A command's key, as `lua/commands.lua` has it.
    fn key(&mut self, user: &UserId, key: Option<&CommandKey>) {
        match key {
            None => self.fixed(""),
            Some(CommandKey { id, fingerprint }) => self.with(|out| {
                let _ = write!(out, "{fingerprint:016x}{user}\u{1e}{id}");
            }),
        }
    }

    fn fields(&mut self, fields: &Fields) {
        self.number(fields.len());
        for (name, value) in fields {
            self.copy(name);
            self.copy(value.as_str());
        }
    }

    fn names(&mut self, names: &[String]) {
        self.number(names.len());
        for name in names {
            self.copy(name);
        }
    }

    /// A cursor: an empty one is none, so one that a client left empty is written as what no cursor can be.
    fn cursor(&mut self, cursor: Option<&str>) {
        match cursor {
            None => self.fixed(""),
            Some("") => self.fixed("?"),
            Some(cursor) => self.copy(cursor),
        }
    }

    fn since(&mut self, since: Option<&Since>) {
        match since {
            None => {
                self.fixed("");
                self.fixed("0");
            }
            Some(since) => {
                self.cursor(Some(&since.epoch));
                self.number(since.seq);
            }
        }
    }
}

/// A room's keys; and those that a batch of messages, broadcasts and signals needs.
const KEYS: usize = 11;
const FEW_KEYS: usize = 6;

/// A room's keys in the order of `lua/base.lua`, and last its channel. One allocation for all of them.
fn names(room: &RoomId) -> [Bytes; KEYS + 1] {
    const PARTS: [&str; KEYS + 1] = [
        "meta",
        "log",
        "messages",
        "message",
        "commands:0",
        "commands:1",
        "users",
        "seen",
        "state",
        "away",
        "positions",
        "events",
    ];
    let mut text = String::with_capacity(PARTS.len() * (room.as_str().len() + 19));
    let ranges = PARTS.map(|part| {
        let start = text.len();
        for piece in ["room:{", room.as_str(), "}:", part] {
            text.push_str(piece);
        }
        start..text.len()
    });
    let text = Bytes::from(text);
    ranges.map(|range| text.slice(range))
}

/// Encodes a batch. `instance` is the node's (`lua/index.lua`); `epoch` gives the name of a room that has to be made.
pub(super) fn encode(
    room: &RoomId,
    ops: Vec<Op>,
    limits: &Bytes,
    instance: &str,
    epoch: impl Fn() -> String,
) -> Request {
    let mut args = Args::default();
    let mut expect = Vec::with_capacity(ops.len());
    let mut keys = FEW_KEYS;
    let mut nonce: Option<String> = None;
    let mut ops = ops.into_iter().peekable();
    while let Some(op) = ops.next() {
        if !matches!(
            op,
            Op::MessageSend { .. } | Op::Broadcast { .. } | Op::Signal { .. }
        ) {
            keys = KEYS;
        }
        match op {
            Op::Join(join) => {
                if join.create && nonce.is_none() {
                    nonce = Some(epoch());
                }
                let nonce = nonce.as_deref().filter(|_| join.create).unwrap_or_default();
                expect.push(encode_join(&mut args, &join, instance, nonce));
            }
            Op::Part {
                user,
                connection,
                leaving,
            } => {
                args.fixed("P");
                args.copy(user.as_str());
                args.number(connection);
                args.fixed(if leaving { "1" } else { "0" });
                expect.push(Expect::Nothing);
            }
            Op::PresenceUpdate {
                user,
                key,
                set,
                remove,
            } => {
                args.fixed("U");
                args.key(&user, key.as_ref());
                args.copy(user.as_str());
                args.fields(&set);
                args.names(&remove);
                expect.push(Expect::Seq);
            }
            Op::StateGet { fields } => {
                args.fixed("G");
                match fields {
                    None => args.fixed("-1"),
                    Some(fields) => args.names(&fields),
                }
                expect.push(Expect::Text);
            }
            Op::StatePatch {
                by,
                key,
                set,
                remove,
                increment,
                if_version,
            } => {
                args.fixed("S");
                args.key(&by, key.as_ref());
                args.quoted(by.as_str());
                match if_version {
                    None => args.fixed(""),
                    Some(version) => args.number(version),
                }
                args.fields(&set);
                args.names(&remove);
                args.number(increment.len());
                for (name, number) in &increment {
                    args.copy(name);
                    args.with(|out| {
                        let _ = write!(out, "{number:?}");
                    });
                }
                expect.push(Expect::Patch);
            }
            Op::MessageSend { by, key, tail } => {
                let mut run = vec![(by, key, tail)];
                while let Some(Op::MessageSend { by, key, tail }) =
                    ops.next_if(|next| matches!(next, Op::MessageSend { .. }))
                {
                    run.push((by, key, tail));
                }
                if run.len() == 1 {
                    args.fixed("M");
                } else {
                    args.fixed("N");
                    args.number(run.len());
                }
                for (by, key, tail) in run {
                    args.key(&by, key.as_ref());
                    args.quoted(by.as_str());
                    let tail = Bytes::from(tail);
                    args.bytes(tail.clone());
                    expect.push(Expect::Message(tail));
                }
            }
            Op::MessageHistory { before, after, limit } => {
                args.fixed("H");
                args.cursor(before.as_deref());
                args.cursor(after.as_deref());
                args.number(limit);
                expect.push(Expect::Text);
            }
            Op::Broadcast { by, key, data } => {
                args.fixed("B");
                args.key(&by, key.as_ref());
                args.quoted(by.as_str());
                args.text(data);
                expect.push(Expect::Seq);
            }
            Op::Signal { payload } => {
                args.fixed("X");
                args.bytes(payload);
                expect.push(Expect::Nothing);
            }
            Op::MessageEdit { .. }
            | Op::MessageDelete { .. }
            | Op::MessageMissing { .. }
            | Op::Moderate { .. }
            | Op::Configure { .. }
            | Op::Status { .. } => expect.push(encode_governance(&mut args, op)),
            Op::Export { .. }
            | Op::Remove { .. }
            | Op::Trouble { .. }
            | Op::RestoreMessages { .. }
            | Op::Restore(_) => expect.push(encode_archiving(&mut args, op)),
            Op::UsersList { cursor, limit } => {
                args.fixed("L");
                args.copy(cursor.as_deref().unwrap_or_default());
                args.number(limit);
                expect.push(Expect::Text);
            }
            Op::Tail(Tail { since, ts, known }) => {
                args.fixed("T");
                args.since(Some(&since));
                args.number(ts.unwrap_or(0));
                args.number(known);
                args.number(DEFAULT_PAGE);
                expect.push(Expect::Tail(since.seq));
            }
            Op::Positions { positions } => {
                args.fixed("V");
                args.number(positions.len());
                for (user, position) in &positions {
                    args.copy(user.as_str());
                    args.copy(position.as_str());
                }
                expect.push(Expect::Nothing);
            }
            Op::Active { users } => {
                args.fixed("A");
                args.number(users.len());
                for user in &users {
                    args.copy(user.as_str());
                }
                expect.push(Expect::Nothing);
            }
            Op::Sweep => {
                args.fixed("W");
                expect.push(Expect::Sweep);
            }
            Op::Bury { node, cursor } => {
                args.fixed("D");
                args.copy(&node);
                args.copy(&cursor);
                expect.push(Expect::Bury);
            }
            Op::Return { members } => {
                args.fixed("R");
                args.copy(instance);
                args.number(members.len());
                for member in &members {
                    args.copy(member.user.as_str());
                    args.copy(&member.name);
                    args.number(member.connection);
                }
                expect.push(Expect::Nothing);
            }
        }
    }
    Request {
        args: values(room, keys, limits, args),
        expect,
    }
}

/// What is done about messages, users and the room itself.
#[expect(clippy::wildcard_enum_match_arm, reason = "the caller hands over these only")]
fn encode_governance(args: &mut Args, op: Op) -> Expect {
    let flag = |yes: bool| if yes { "1" } else { "0" };
    match op {
        Op::MessageEdit {
            by,
            key,
            message_id,
            body,
            if_version,
            moderates,
        } => {
            args.fixed("E");
            args.key(&by, key.as_ref());
            args.quoted(by.as_str());
            args.fixed(flag(moderates));
            args.copy(&message_id);
            let image = is_image_url(body.as_str());
            args.copy(body.as_str());
            match if_version {
                None => args.fixed(""),
                Some(version) => args.number(version),
            }
            args.fixed(flag(image));
            Expect::Text
        }
        Op::MessageDelete {
            by,
            key,
            message_id,
            moderates,
        } => {
            args.fixed("F");
            args.key(&by, key.as_ref());
            args.quoted(by.as_str());
            args.fixed(flag(moderates));
            args.copy(&message_id);
            Expect::Seq
        }
        Op::MessageMissing { from, to, ids } => {
            args.fixed("I");
            args.number(from);
            args.number(to);
            args.number(ids.len());
            for (id, version) in &ids {
                args.copy(id);
                match version {
                    None => args.fixed(""),
                    Some(version) => args.number(version),
                }
            }
            Expect::Text
        }
        Op::Moderate {
            by,
            key,
            action,
            about,
        } => {
            args.fixed("Y");
            args.key(&by, key.as_ref());
            args.quoted(by.as_str());
            args.fixed(action.as_str());
            args.copy(about.user.as_str());
            match &about.reason {
                None => args.fixed(""),
                Some(reason) => args.quoted(reason),
            }
            match about.duration_ms {
                None => args.fixed(""),
                Some(ms) => args.number(ms),
            }
            Expect::Seq
        }
        Op::Configure { by, key, change } => {
            args.fixed("C");
            args.key(&by, key.as_ref());
            args.quoted(by.as_str());
            args.fields(&change.set);
            args.names(&change.remove);
            Expect::Text
        }
        Op::Status { by, key, status } => {
            args.fixed("Q");
            args.key(&by, key.as_ref());
            args.quoted(by.as_str());
            args.fixed(status.as_str());
            Expect::Seq
        }
        _ => Expect::Nothing,
    }
}

/// What is done about an archive.
#[expect(clippy::wildcard_enum_match_arm, reason = "the caller hands over these only")]
fn encode_archiving(args: &mut Args, op: Op) -> Expect {
    match op {
        Op::Export { from } => {
            args.fixed("Z");
            args.number(from);
            return Expect::Export;
        }
        Op::Remove { at } => {
            args.fixed("K");
            args.copy(&at.epoch);
            args.number(at.seq);
        }
        Op::Trouble { reason, pause } => {
            args.fixed("t");
            args.text(reason);
            args.number(pause.as_millis());
        }
        Op::RestoreMessages { messages } => {
            args.fixed("o");
            args.number(messages.len());
            for message in messages {
                args.copy(&message.id);
                args.number(message.ts);
                args.text(message.text);
            }
        }
        Op::Restore(data) => restore(args, &data),
        _ => {}
    }
    Expect::Nothing
}

fn restore(args: &mut Args, data: &RoomData) {
    fn texts(args: &mut Args, map: &BTreeMap<String, JsonText>) {
        args.number(map.len());
        for (name, value) in map {
            args.copy(name);
            args.copy(value.as_str());
        }
    }
    args.fixed("O");
    args.copy(&data.epoch);
    args.copy(&data.past);
    for number in [
        data.seq,
        data.completed,
        data.version,
        data.created,
        data.peak,
        data.joins,
        data.session_ms,
        data.others,
    ] {
        args.number(number);
    }
    texts(args, &data.settings);
    texts(args, &data.state);
    args.number(data.members.len());
    for member in &data.members {
        args.copy(&member.id);
        args.copy(&member.name);
        args.number(member.joined_at);
        args.copy(member.position.as_ref().map_or("", JsonText::as_str));
        texts(args, &member.presence);
    }
    for list in [&data.bans, &data.mutes] {
        args.number(list.len());
        for (user, until) in list {
            args.copy(user);
            match until {
                None => args.fixed(""),
                Some(until) => args.number(until),
            }
        }
    }
}

fn encode_join(args: &mut Args, join: &Join, instance: &str, nonce: &str) -> Expect {
    args.fixed("J");
    args.copy(join.user.as_str());
    args.copy(&join.name);
    args.number(join.connection);
    args.copy(instance);
    args.since(join.since.as_ref());
    args.number(join.messages);
    args.copy(nonce);
    args.fields(&join.presence);
    Expect::Join {
        since: join.since.as_ref().map_or(0, |since| since.seq),
        messages: join.messages,
    }
}

fn values(room: &RoomId, keys: usize, limits: &Bytes, args: Args) -> Vec<Value> {
    let [names @ .., channel] = names(room);
    let mut values = Vec::with_capacity(keys + 4 + args.parts.len());
    values.push(Value::Bytes(LIBRARY.name.clone()));
    values.push(Value::Integer(keys as i64));
    values.extend(names.into_iter().take(keys).map(Value::Bytes));
    values.push(Value::Bytes(limits.clone()));
    values.push(Value::Bytes(channel));
    let text = Bytes::from(args.text);
    values.extend(args.parts.into_iter().map(|part| {
        Value::Bytes(match part {
            Part::Static(text) => Bytes::from_static(text.as_bytes()),
            Part::Copied(range) => text.slice(range),
            Part::Own(bytes) => bytes,
        })
    }));
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomgate_shared::{ids::CommandId, keys};

    #[test]
    fn the_keys_are_those_that_all_agree_on() {
        let room = RoomId::new("a:b~c").unwrap();
        let [
            meta,
            state,
            users,
            seen,
            messages,
            message,
            log,
            even,
            odd,
            away,
            positions,
            events,
        ] = keys::room(&room);
        let ours = [
            meta, log, messages, message, even, odd, users, seen, state, away, positions, events,
        ]
        .map(Bytes::from);
        assert_eq!(names(&room), ours);
    }

    fn encoded(ops: Vec<Op>) -> (Vec<String>, Vec<Expect>) {
        let limits = limits_text(&StoreLimits::default());
        let request = encode(&RoomId::new("r").unwrap(), ops, &limits, "gw-1~x", || {
            "e".repeat(10)
        });
        let args = request
            .args
            .iter()
            .map(|value| value.as_string().unwrap())
            .collect();
        (args, request.expect)
    }

    #[test]
    fn messages_on_end_make_one_run() {
        let by = UserId::new("u\"1").unwrap();
        let send = |tail: &str| Op::MessageSend {
            by: by.clone(),
            key: (tail == "a").then(|| CommandKey {
                id: CommandId::new("k1").unwrap(),
                fingerprint: 0xab,
            }),
            tail: tail.to_owned(),
        };
        let broadcast = Op::Broadcast {
            by: by.clone(),
            key: None,
            data: "{}".to_owned(),
        };
        let (args, expect) = encoded(vec![send("a"), send("b"), broadcast, send("c")]);
        assert_eq!(args[1], "6");
        assert_eq!(
            args[8],
            "10000 600000 8388608 3600000 86400000 1048576 4096 1048576 600000 300000 0 1000 1800000 30000 "
        );
        assert_eq!(args[9], "room:{r}:events");
        let by = "\"u\\\"1\"";
        let key = "00000000000000abu\"1\u{1e}k1";
        assert_eq!(
            args[10..],
            [
                "N", "2", key, by, "a", "", by, "b", "B", "", by, "{}", "M", "", by, "c"
            ]
        );
        assert_eq!(expect.len(), 4);
    }
}
