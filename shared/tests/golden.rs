//! The golden frames in `tests/golden/`: one file a frame of the protocol, read by the clients' tests as well.
//!
//! `commands/<type>.json`, `acks/<type>[.<case>].json`, `events/<type>.json`, `errors/<code>.json`, `welcome.json` and
//! `pong.json`. A type without a file fails, and so does a file without a type.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod files;

use std::{collections::BTreeSet, fmt::Debug};

use roomgate_shared::{
    ids::{CommandId, RoomId},
    protocol::{
        Command, CommandFrame, CommandType, Decoder, ErrorCode, JsonText, MAX_BATCH,
        command::{MessageKind, Moderation, RoomStatus, Since},
        config::ConfigChange,
        event::{
            CustomEvent, ErrorData, EventType, Message, MessageDeleted, MissingAnswer, Moderated, Occupancy,
            PresenceChange, Resumed, RoomConfigured, ServerFrame, Snapshot, StatePatched, StatusChanged,
            TokenExpiring, Welcome, ack_text, custom_event, epoch_text, error_text, event_text, message_tail,
            message_text, moves_head, occupancy_text, push_move, signal_text, status_text,
            token_expiring_text,
        },
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use files::{
    AuthAck, ConfigAck, HistoryAck, MessageAck, Nothing, PatchAck, Pong, SeqAck, StateAck, Status, UsersAck,
    compact, data_text, frame, names, text, value,
};

/// Acks of commands that have more than one form.
const ACK_CASES: &[(&str, &[&str])] = &[
    ("join", &["new", "resumed"]),
    ("message.send", &["", "duplicate"]),
    ("message.history", &["", "end"]),
    // Answered by `pong`.
    ("ping", &[]),
];
/// Frames in `events/` that are not durable.
const EPHEMERAL: &[&str] = &[
    "signal",
    "status",
    "resync",
    "moves",
    "occupancy",
    "token.expiring",
];

fn decode(json: &str) -> Vec<CommandFrame> {
    let mut frames = Vec::new();
    Decoder::default().decode(&mut json.to_owned().into_bytes(), |incoming| {
        let incoming = incoming.unwrap();
        let kind = incoming.kind.unwrap();
        let room = kind.needs_room().then(|| incoming.room().unwrap());
        let command = incoming.command(kind).unwrap();
        frames.push(CommandFrame {
            id: incoming.id.clone(),
            room,
            command,
        });
    });
    frames
}

fn json(value: Value) -> JsonText {
    JsonText::from_value(&value).unwrap()
}

fn field(name: &str, value: Value) -> (String, JsonText) {
    (name.to_owned(), json(value))
}

fn moderation(user: &str, in_full: bool) -> Moderation {
    Moderation {
        user: user.parse().unwrap(),
        reason: in_full.then(|| "flood".to_owned()),
        duration_ms: in_full.then_some(60_000),
    }
}

/// What the file of `kind` must decode to. Exhaustive, so a new command cannot be forgotten here.
fn expected(kind: CommandType) -> Command {
    use serde_json::json as v;
    match kind {
        CommandType::Auth => Command::Auth {
            token: "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1LTcifQ.c2lnbmF0dXJl".to_owned(),
        },
        CommandType::Ping => Command::Ping,
        CommandType::Join => Command::Join {
            since: Some(Since {
                epoch: "k7f3a91c".to_owned(),
                seq: 113,
            }),
            presence: vec![
                field("status", v!("typing")),
                (
                    "avatar".to_owned(),
                    JsonText::from_trusted(r##"{"colour":"#2a9d8f"}"##),
                ),
            ],
            messages: 20,
        },
        CommandType::Leave => Command::Leave,
        CommandType::PresenceUpdate => Command::PresenceUpdate {
            set: vec![field("status", v!("lunch")), field("mood", Value::Null)],
            remove: vec!["typing".to_owned()],
        },
        CommandType::Move => Command::Move {
            position: JsonText::from_trusted(r#"{"x":4,"y":7.5}"#),
        },
        CommandType::Signal => Command::Signal {
            event: "typing".to_owned(),
            payload: json(v!({"on": true})),
            to: Some(vec!["u-9".parse().unwrap(), "Zoë 7".parse().unwrap()]),
        },
        CommandType::Broadcast => Command::Broadcast {
            event: "dice.rolled".to_owned(),
            payload: JsonText::from_trusted(r#"{"sides":6,"result":[4,2]}"#),
        },
        CommandType::MessageSend => Command::MessageSend {
            body: JsonText::from_trusted(r#"{"text":"Grüße 👋 \"all\"","mentions":["u-9"]}"#),
            kind: MessageKind::Text,
        },
        CommandType::MessageEdit => Command::MessageEdit {
            message_id: "k7f3a91c-0000000120".to_owned(),
            body: json(v!({"text": "Grüße"})),
            if_version: Some(1),
        },
        CommandType::MessageDelete => Command::MessageDelete {
            message_id: "k7f3a91c-0000000120".to_owned(),
        },
        CommandType::MessageMissing => Command::MessageMissing {
            from: 1_759_999_900_000,
            to: 1_760_000_000_000,
            ids: ["118", "119", "120"]
                .map(|seq| (format!("k7f3a91c-0000000{seq}"), Some(1)))
                .into(),
        },
        CommandType::MessageHistory => Command::MessageHistory {
            before: Some("k7f3a91c-0000000118".to_owned()),
            after: None,
            limit: 25,
        },
        CommandType::StateGet => Command::StateGet {
            fields: Some(vec!["score".to_owned(), "phase".to_owned()]),
        },
        CommandType::StatePatch => Command::StatePatch {
            set: vec![field("phase", v!("play")), field("board", v!([[0, 1], [1, 0]]))],
            remove: vec!["draft".to_owned()],
            increment: vec![("score".to_owned(), 2.5), ("lives".to_owned(), -0.5)],
            if_version: Some(8),
        },
        CommandType::UsersList => Command::UsersList {
            cursor: Some("u-7".to_owned()),
            limit: 100,
        },
        CommandType::UserKick => Command::UserKick(moderation("u-9", true)),
        CommandType::UserMute => Command::UserMute(moderation("u-9", true)),
        CommandType::UserUnmute => Command::UserUnmute(moderation("u-9", false)),
        CommandType::UserBan => Command::UserBan(moderation("Zoë 7", false)),
        CommandType::UserUnban => Command::UserUnban(moderation("Zoë 7", false)),
        CommandType::RoomConfigure => Command::RoomConfigure(ConfigChange {
            set: vec![
                field("capacity", v!(50)),
                field("cooldownMs.messages", v!(3000)),
                field("features.polls", v!(true)),
                field("name", v!("Lobby")),
                (
                    "rate.messages".to_owned(),
                    JsonText::from_trusted(r#"{"perSecond":20,"burst":40}"#),
                ),
                field("retentionHours", v!(48)),
            ],
            remove: vec!["features.dice".to_owned()],
        }),
        CommandType::RoomStatus => Command::RoomStatus {
            status: RoomStatus::Completed,
        },
    }
}

#[test]
fn every_command_has_its_file_and_every_file_its_command() {
    let types = CommandType::ALL
        .iter()
        .map(|kind| kind.as_str().to_owned())
        .collect();
    assert_eq!(names("commands"), types);
}

#[test]
fn every_ack_has_its_files_and_every_file_its_ack() {
    let mut cases = BTreeSet::new();
    for kind in CommandType::ALL {
        let found = ACK_CASES.iter().find(|(name, _)| *name == kind.as_str());
        for case in found.map_or(&[""][..], |(_, cases)| cases) {
            cases.insert(
                format!("{kind}.{case}", kind = kind.as_str())
                    .trim_end_matches('.')
                    .to_owned(),
            );
        }
    }
    assert_eq!(names("acks"), cases);
}

#[test]
fn every_event_has_its_file_and_every_file_its_event() {
    let durable = EventType::ALL.iter().map(|kind| kind.as_str());
    let types = durable
        .chain(EPHEMERAL.iter().copied())
        .map(str::to_owned)
        .collect();
    assert_eq!(names("events"), types);
    for name in names("events") {
        let durable = EventType::ALL.iter().any(|kind| kind.as_str() == name);
        let frame: ServerFrame = serde_json::from_value(value(&format!("events/{name}"))).unwrap();
        assert_eq!(frame.kind, name);
        assert_eq!(
            (frame.seq.is_some(), frame.ts.is_some()),
            (durable, durable),
            "{name}"
        );
    }
}

#[test]
fn every_error_has_its_file_and_every_file_its_error() {
    let codes = ErrorCode::ALL
        .iter()
        .map(|code| code.as_str().to_owned())
        .collect();
    assert_eq!(names("errors"), codes);
    assert_eq!(
        names("."),
        ["pong", "status.epoch", "welcome"].map(str::to_owned).into()
    );
}

#[test]
fn commands_decode_to_their_types_and_write_back_the_same() {
    for &kind in CommandType::ALL {
        let name = format!("commands/{}", kind.as_str());
        let frames = decode(&text(&name));
        let [frame] = &frames[..] else {
            panic!("{name}: {} commands", frames.len())
        };
        assert_eq!(frame.command, expected(kind), "{name}");
        assert!(frame.id.is_some(), "{name}");
        assert_eq!(
            frame.room.as_ref().map(RoomId::as_str),
            kind.needs_room().then_some("lobby"),
            "{name}"
        );
        assert_eq!(
            serde_json::from_str::<Value>(&frame.to_json()).unwrap(),
            value(&name),
            "{name}"
        );
        assert_eq!(frame.to_json(), compact(&name), "{name}");
    }
}

#[test]
fn commands_decode_as_one_batch() {
    let texts: Vec<_> = CommandType::ALL
        .iter()
        .map(|kind| text(&format!("commands/{}", kind.as_str())))
        .collect();
    assert!(texts.len() <= MAX_BATCH);
    let frames = decode(&format!("[{}]", texts.join(",")));
    let commands: Vec<_> = frames.into_iter().map(|frame| frame.command).collect();
    assert_eq!(
        commands,
        CommandType::ALL
            .iter()
            .map(|&kind| expected(kind))
            .collect::<Vec<_>>()
    );
}

/// An ack whose `data` is a `T`, and whose text the builder writes the same.
fn ack<T: DeserializeOwned + Serialize + Debug>(name: &str, command: &str) -> T {
    let name = format!("acks/{name}");
    let (frame, data) = frame::<T>(&name);
    let sent = value(&format!("commands/{command}"));
    assert_eq!(frame.kind, "ack", "{name}");
    assert_eq!(frame.id.as_deref(), sent["id"].as_str(), "{name}");
    assert_eq!(frame.room.as_deref(), sent["room"].as_str(), "{name}");
    let (id, room) = (
        frame.id.unwrap().parse().unwrap(),
        frame.room.map(|room| RoomId::new(room).unwrap()),
    );
    let built = ack_text(&id, room.as_ref(), &data_text(&name));
    assert_eq!(built, compact(&name).replace("\"duplicate\":true,", ""), "{name}");
    data
}

#[test]
fn acks_read_as_their_types() {
    ack::<AuthAck>("auth", "auth");
    ack::<Nothing>("leave", "leave");
    ack::<SeqAck>("presence.update", "presence.update");
    ack::<Nothing>("move", "move");
    ack::<Nothing>("signal", "signal");
    ack::<SeqAck>("broadcast", "broadcast");
    let sent = ack::<MessageAck>("message.send", "message.send");
    assert_eq!(sent, ack::<MessageAck>("message.send.duplicate", "message.send"));
    assert_eq!(
        frame::<MessageAck>("acks/message.send.duplicate").0.duplicate,
        Some(true)
    );
    assert_eq!(frame::<MessageAck>("acks/message.send").0.duplicate, None);
    ack::<MessageAck>("message.edit", "message.edit");
    ack::<SeqAck>("message.delete", "message.delete");
    ack::<MissingAnswer>("message.missing", "message.missing");
    for name in [
        "user.kick",
        "user.mute",
        "user.unmute",
        "user.ban",
        "user.unban",
        "room.status",
    ] {
        ack::<SeqAck>(name, name);
    }
    ack::<ConfigAck>("room.configure", "room.configure");
    ack::<HistoryAck>("message.history", "message.history");
    ack::<HistoryAck>("message.history.end", "message.history");
    ack::<StateAck>("state.get", "state.get");
    ack::<PatchAck>("state.patch", "state.patch");
    ack::<UsersAck>("users.list", "users.list");
}

#[test]
fn joins_are_answered_by_a_snapshot_or_a_resume() {
    let new = ack::<Snapshot>("join.new", "join");
    assert!(!new.recovered);
    assert!(new.users.contains(&new.you), "a snapshot holds one's own arrival");
    assert!(new.messages.iter().all(|message| message.seq <= new.seq));
    let resumed = ack::<Resumed>("join.resumed", "join");
    assert!(resumed.recovered);
    let Command::Join {
        since: Some(since), ..
    } = expected(CommandType::Join)
    else {
        panic!("no `since`")
    };
    assert_eq!(
        (since.epoch, since.seq + resumed.missed),
        (resumed.epoch, resumed.seq)
    );
}

#[test]
fn frames_of_the_connection_read_as_their_types() {
    let (frame_, welcome) = frame::<Welcome>("welcome");
    assert_eq!(
        (frame_.kind.as_str(), welcome.protocol, welcome.limits.max_batch),
        ("welcome", 1, MAX_BATCH)
    );
    let (frame_, _) = frame::<Pong>("pong");
    assert_eq!(
        (frame_.kind.as_str(), frame_.id.as_deref()),
        ("pong", Some("k3-2"))
    );
    frame::<Status>("events/status");
    assert_eq!(compact("events/status"), status_text(true));
    assert_ne!(status_text(false), status_text(true));
    let (frame_, _) = frame::<Value>("status.epoch");
    let room = RoomId::new(frame_.room.unwrap()).unwrap();
    let epoch = frame_.data["epoch"].as_str().unwrap();
    assert_eq!(compact("status.epoch"), epoch_text(&room, epoch));
    let (frame_, resync) = frame::<Snapshot>("events/resync");
    assert_eq!(frame_.room, Some(resync.room.id));
    assert!(!resync.recovered);
}

/// What the builder of durable events gives for the parts of the file.
fn built<T: DeserializeOwned + Serialize>(kind: EventType, data: &str) -> T {
    let name = format!("events/{}", kind.as_str());
    let (frame, typed) = frame::<T>(&name);
    let (seq, ts) = (frame.seq.unwrap(), frame.ts.unwrap());
    let text = event_text(kind, &frame.room.unwrap(), seq, ts, frame.by.as_deref(), data);
    assert_eq!(text, compact(&name));
    typed
}

#[test]
fn durable_events_are_built_to_the_letter() {
    let presence: PresenceChange = built(EventType::Presence, &data_text("events/presence"));
    assert_eq!((presence.joined.len(), presence.left.len()), (1, 2));
    built::<StatePatched>(EventType::StatePatched, &data_text("events/state.patched"));

    let moderated = |kind: EventType| {
        built::<Moderated>(kind, &data_text(&format!("events/{}", kind.as_str())));
    };
    [
        EventType::UserMuted,
        EventType::UserUnmuted,
        EventType::UserBanned,
        EventType::UserUnbanned,
    ]
    .into_iter()
    .for_each(moderated);
    built::<MessageDeleted>(EventType::MessageDeleted, &data_text("events/message.deleted"));
    let edited: Message = built(EventType::MessageEdited, &data_text("events/message.edited"));
    assert_eq!(edited, ack::<MessageAck>("message.edit", "message.edit").message);
    let configured: RoomConfigured = built(EventType::RoomConfigured, &data_text("events/room.configured"));
    let acked = ack::<ConfigAck>("room.configure", "room.configure");
    assert_eq!(configured.config, acked.config);
    built::<StatusChanged>(EventType::RoomStatus, &data_text("events/room.status"));

    let payload = r#"{"sides":6,"result":[4,2]}"#;
    built::<CustomEvent>(EventType::Broadcast, &custom_event("dice.rolled", payload));

    let Command::MessageSend { body, kind } = expected(CommandType::MessageSend) else {
        panic!("no message")
    };
    let tail = message_tail("u-7", kind.as_str(), body.as_str());
    let message: Message = built(
        EventType::MessageSent,
        &message_text("k7f3a91c", 121, 1_760_000_000_000, &tail),
    );
    assert_eq!(message, ack::<MessageAck>("message.send", "message.send").message);
}

#[test]
fn signals_are_built_to_the_letter() {
    let (frame, _) = frame::<CustomEvent>("events/signal");
    let room = RoomId::new(frame.room.unwrap()).unwrap();
    assert_eq!(
        signal_text(&room, "u-7", "typing", r#"{"on":true}"#),
        compact("events/signal")
    );
}

#[test]
fn moves_and_occupancy_are_built_to_the_letter() {
    let (frame_, _) = frame::<Value>("events/moves");
    let room = RoomId::new(frame_.room.unwrap()).unwrap();
    let mut text = moves_head(&room);
    push_move(&mut text, "u-7", r#"{"x":4,"y":7.5}"#);
    text.push(',');
    push_move(&mut text, "Zoë \"7\"", r#"{"x":0,"y":1}"#);
    assert_eq!(format!("{text}}}}}"), compact("events/moves"));
    let (_, expiring) = frame::<TokenExpiring>("events/token.expiring");
    assert_eq!(
        token_expiring_text(expiring.expires_at),
        compact("events/token.expiring")
    );
    let (_, occupancy) = frame::<Occupancy>("events/occupancy");
    assert_eq!(
        occupancy_text(&room, occupancy.members),
        compact("events/occupancy")
    );
}

#[test]
fn errors_are_built_to_the_letter() {
    for code in ErrorCode::ALL {
        let name = format!("errors/{code}");
        let (frame, data) = frame::<ErrorData>(&name);
        assert_eq!(
            (frame.kind.as_str(), data.code.as_str()),
            ("error", code.as_str())
        );
        assert_eq!(data.retryable, code.retryable(), "{name}");
        let details = data_text(&name)
            .split_once("\"version\":")
            .map(|(_, rest)| format!("\"version\":{}", rest.strip_suffix('}').unwrap()));
        assert_eq!(details.is_some(), !data.details.is_empty(), "{name}");
        let id = frame.id.map(|id| CommandId::new(id).unwrap());
        let room = frame.room.map(|room| RoomId::new(room).unwrap());
        let built = error_text(
            id.as_ref(),
            room.as_ref(),
            *code,
            &data.message,
            data.retry_after_ms,
            details.as_deref(),
        );
        assert_eq!(built, compact(&name));
    }
}
