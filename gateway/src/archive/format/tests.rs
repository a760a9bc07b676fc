use super::*;
use crate::archive::record::{MemberRecord, RoomStatistics};
use proptest::{collection::vec, option, prelude::*};

/// JSON texts that a reader of numbers or objects would change.
fn json() -> impl Strategy<Value = JsonText> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("-0".to_owned()),
        Just("1.0".to_owned()),
        Just("1e400".to_owned()),
        Just("123456789012345678901234567890".to_owned()),
        Just("0.1000000000000000055511151231257827".to_owned()),
        Just(r#""\u00e9\ud800\/""#.to_owned()),
        Just(r#"{"b":1,"a":2,"b":3}"#.to_owned()),
        ".*".prop_map(|text| roomgate_shared::protocol::json::quoted(&text)),
    ];
    let nested = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            vec(("[a-c]", inner), 0..4).prop_map(|items| {
                let items: Vec<String> = items.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
                format!("{{{}}}", items.join(","))
            }),
        ]
    });
    nested.prop_map(JsonText::from_trusted)
}

fn fields() -> impl Strategy<Value = Vec<(String, JsonText)>> {
    vec((".*", json()), 0..4)
}

fn member() -> impl Strategy<Value = MemberRecord> {
    (".*", ".*", fields(), option::of(json()), any::<(u64, u64)>()).prop_map(
        |(id, name, presence, position, (joined_at, last_seen))| MemberRecord {
            id,
            name,
            presence,
            position,
            joined_at,
            last_seen,
        },
    )
}

fn rest() -> impl Strategy<Value = RoomRest> {
    let until = || vec((".*", any::<u64>()), 0..3);
    (
        any::<[u64; 8]>(),
        (".*", option::of(".*"), json()),
        (fields(), vec(member(), 0..4), until(), until()),
    )
        .prop_map(
            |([seq, version, created, active, peak, joins, messages, session_ms], text, lists)| RoomRest {
                past: text.0.clone(),
                seq,
                version,
                status: text.0,
                name: text.1,
                config: text.2,
                created,
                active,
                state: lists.0,
                members: lists.1,
                bans: lists.2,
                mutes: lists.3,
                statistics: RoomStatistics {
                    peak,
                    joins,
                    messages,
                    session_ms,
                },
            },
        )
}

fn room() -> impl Strategy<Value = RoomRecord> {
    (
        "[A-Za-z0-9._~:-]{1,128}",
        ".*",
        any::<u64>(),
        vec(json(), 0..8),
        rest(),
    )
        .prop_map(|(id, epoch, completed, messages, rest)| RoomRecord {
            id: RoomId::new(id).unwrap(),
            epoch,
            completed,
            messages,
            rest,
        })
}

fn encode(room: &RoomRecord) -> Vec<u8> {
    let mut encoder = Encoder::new(&room.id, &room.epoch, room.completed, 1).unwrap();
    let mut archive = Vec::new();
    for message in &room.messages {
        encoder.message(message).unwrap();
        archive.extend(encoder.take());
    }
    archive.extend(encoder.finish(&room.rest).unwrap());
    archive
}

fn packed(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

fn signed(document: &str) -> Vec<u8> {
    let sum = hex(digest(&SHA256, document.as_bytes()).as_ref());
    packed(&format!("{document}{}", trailer(&sum)))
}

fn small() -> RoomRecord {
    let text = JsonText::from_trusted;
    RoomRecord {
        id: RoomId::new("hall").unwrap(),
        epoch: "a1".to_owned(),
        completed: 5,
        messages: vec![text(r#"{"seq":1,"body":1.0}"#), text(r#"{"seq":2,"body":"é"}"#)],
        rest: RoomRest {
            past: String::new(),
            seq: 2,
            version: 0,
            status: "completed".to_owned(),
            name: None,
            config: text("{}"),
            created: 1,
            active: 4,
            state: vec![("topic".to_owned(), text("1e2"))],
            members: Vec::new(),
            bans: vec![("eve".to_owned(), u64::MAX)],
            mutes: Vec::new(),
            statistics: RoomStatistics::default(),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_room_reads_back_as_it_was(room in room()) {
        prop_assert_eq!(decode(&encode(&room)).unwrap(), room);
    }

    #[test]
    fn anything_else_is_an_error(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
    }
}

#[test]
fn the_text_is_two_lines_and_the_second_the_checksum_of_the_first() {
    let text = String::from_utf8(unpack(&encode(&small()), MAX_BYTES).unwrap()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    assert_eq!(
        lines[0],
        concat!(
            r#"{"format":"roomgate.room","version":1,"written":1,"room":{"id":"hall","epoch":"a1","completed":5,"#,
            r#""messages":[{"seq":1,"body":1.0},{"seq":2,"body":"é"}],"#,
            r#""seq":2,"version":0,"status":"completed","name":null,"config":{},"created":1,"active":4,"#,
            r#""state":[["topic",1e2]],"members":[],"bans":[["eve",18446744073709551615]],"mutes":[],"#,
            r#""statistics":{"peak":0,"joins":0,"messages":0,"session_ms":0}}}"#,
            "\n"
        )
    );
    let sum = hex(digest(&SHA256, lines[0].as_bytes()).as_ref());
    assert_eq!(lines[1..], [trailer(&sum)]);
    assert_eq!(lines[1].len(), TRAILER_BYTES);
}

#[test]
fn cut_off_anywhere_it_is_told_as_cut_off() {
    let archive = encode(&small());
    for length in 0..archive.len() {
        assert_eq!(
            decode(&archive[..length]),
            Err(DecodeError::Truncated),
            "{length}"
        );
    }
}

#[test]
fn a_flipped_bit_is_found_or_changes_nothing() {
    let archive = encode(&small());
    let mut harmless = 0;
    for at in 0..archive.len() {
        for bit in 0..8 {
            let mut bad = archive.clone();
            bad[at] ^= 1 << bit;
            if let Ok(room) = decode(&bad) {
                // gzip's own head names a time and a system, and bits fill up the last byte before its own checksum and
                // length: nothing of the room.
                assert!(at < 10 || at == archive.len() - 9, "{at}.{bit}");
                assert_eq!(room, small());
                harmless += 1;
            }
        }
    }
    assert!(harmless < 80, "{harmless}");
}

#[test]
fn each_damage_has_an_error_of_its_own() {
    let document = |format: &str, version: u64| {
        format!(r#"{{"format":"{format}","version":{version},"written":1,"room":{{}}}}"#) + "\n"
    };
    let wrong_sum = document(FORMAT, 1) + &trailer(&"0".repeat(64));
    let trailing = [encode(&small()), vec![0]].concat();
    assert_eq!(decode(&packed(&wrong_sum)), Err(DecodeError::Checksum));
    assert_eq!(
        decode(&packed(&document(FORMAT, 1).repeat(3))),
        Err(DecodeError::NoChecksum)
    );
    assert_eq!(decode(&packed("{}")), Err(DecodeError::NoChecksum));
    assert_eq!(
        decode(&signed(&document(FORMAT, 2))),
        Err(DecodeError::Version(2))
    );
    assert_eq!(decode(&trailing), Err(DecodeError::Trailing));
    let other = decode(&signed(&document("other", 1)));
    assert!(matches!(other, Err(DecodeError::NotARoom(_))), "{other:?}");
    let empty = decode(&signed(&document(FORMAT, 1)));
    assert!(matches!(empty, Err(DecodeError::NotARoom(_))), "{empty:?}");
    let plain = decode(document(FORMAT, 1).as_bytes());
    assert!(matches!(plain, Err(DecodeError::Compression(_))), "{plain:?}");
}

#[test]
fn neither_written_nor_read_beyond_its_bound() {
    let archive = encode(&small());
    let length = unpack(&archive, MAX_BYTES).unwrap().len() as u64;
    assert!(decode_within(&archive, length).is_ok());
    assert_eq!(
        decode_within(&archive, length - 1),
        Err(DecodeError::TooLarge(length - 1))
    );
    let write = |limit: u64| {
        let room = small();
        let mut encoder = Encoder::new(&room.id, &room.epoch, room.completed, 1).unwrap();
        encoder.limit = limit;
        for message in &room.messages {
            encoder.message(message)?;
        }
        encoder.finish(&room.rest)
    };
    assert!(write(length).is_ok());
    assert_eq!(write(length - 1), Err(EncodeError::TooLarge(length - 1)));
    assert_eq!(write(150), Err(EncodeError::TooLarge(150)));
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let mut encoder = Encoder::new(&small().id, "e", 1, 1).unwrap();
    let broken = JsonText::from_trusted(r#"{"a":1"#);
    let error = encoder.message(&broken).unwrap_err();
    assert!(
        error.to_string().starts_with("a message is not JSON: "),
        "{error}"
    );
    let mut rest = small().rest;
    rest.config = broken;
    let encoder = Encoder::new(&small().id, "e", 1, 1).unwrap();
    assert!(encoder.finish(&rest).is_err());
}
