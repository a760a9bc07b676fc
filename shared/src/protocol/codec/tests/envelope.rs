//! The envelope of a command: type, id and room, the order of checks, names that stand twice.

use super::*;

fn envelope(frame: &str, check: impl FnOnce(Result<Incoming<'_, '_>, Malformed>)) {
    let mut check = Some(check);
    Decoder::default().decode(&mut frame.as_bytes().to_vec(), |incoming| {
        check.take().unwrap()(incoming)
    });
    assert!(check.is_none(), "{frame}");
}

#[test]
fn an_id_is_a_command_id_or_absent() {
    for id in ["k", "K3-17", "a.b_c~d:e-f", &"9".repeat(64)] {
        envelope(&format!(r#"{{"type":"ping","id":"{id}"}}"#), |incoming| {
            assert_eq!(incoming.unwrap().id.unwrap().as_str(), id);
        });
    }
    for absent in [PING, r#"{"type":"ping","id":null}"#] {
        envelope(absent, |incoming| assert_eq!(incoming.unwrap().id, None));
    }
    let long = format!("\"{}\"", "k".repeat(65));
    for id in [
        "\"\"",
        "7",
        "true",
        "{}",
        "[]",
        "\"a b\"",
        "\"a/b\"",
        "\"é\"",
        r#""a\u0000""#,
        r#""a\n""#,
        &long,
    ] {
        assert_eq!(
            fault(format!(r#"{{"type":"ping","id":{id}}}"#)),
            Malformed::Id(IdError::Command),
            "{id}"
        );
    }
    assert!(Malformed::Id(IdError::Command).to_string().starts_with("`id`: "));
}

#[test]
fn a_room_is_checked_when_asked_for() {
    let room = |room: &str| {
        let mut out = None;
        envelope(&format!(r#"{{"type":"leave"{room}}}"#), |incoming| {
            out = Some(incoming.unwrap().room())
        });
        out.unwrap()
    };
    assert_eq!(room(r#","room":"lobby""#).unwrap().as_str(), "lobby");
    assert_eq!(room(r#","room":"lobb\u0079""#).unwrap().as_str(), "lobby");
    for (text, needle) in [
        ("", "`room` is missing"),
        (r#","room":null"#, "`room` is missing"),
        (r#","room":7"#, "`room` is a string"),
        (r#","room":["lobby"]"#, "`room` is a string"),
        (r#","room":"""#, "`room`: a room id"),
        (r#","room":"a b""#, "`room`: a room id"),
        (r#","room":"{a}""#, "`room`: a room id"),
        (r#","room":"a\u0000""#, "`room`: a room id"),
        (&format!(r#","room":"{}""#, "r".repeat(129)), "`room`: a room id"),
    ] {
        let refused = room(text).expect_err(text);
        assert_eq!(refused.code, ErrorCode::BadRequest);
        assert!(refused.message.starts_with(needle), "{text}: {}", refused.message);
    }
}

#[test]
fn checks_come_in_the_order_of_the_protocol() {
    assert_eq!(
        fault("[".repeat(33) + "x"),
        Malformed::TooDeep,
        "the first fault in the text"
    );
    assert_eq!(fault(r#"{"id":"no good"}"#), Malformed::NotACommand);
    assert_eq!(
        fault(r#"{"id":"no good","type":"fly"}"#),
        Malformed::Id(IdError::Command)
    );
    // The type is known before room and data are looked at.
    envelope(
        r#"{"id":"k1","type":"fly","room":"no good","data":7}"#,
        |incoming| {
            let incoming = incoming.unwrap();
            assert_eq!(
                (incoming.kind, incoming.id.map(String::from)),
                (None, Some("k1".to_owned()))
            );
        },
    );
    envelope(
        r#"{"id":"k1","type":"leave","room":"no good","data":7}"#,
        |incoming| {
            let incoming = incoming.unwrap();
            assert!(incoming.room().unwrap_err().message.starts_with("`room`"));
            assert!(
                incoming
                    .command(CommandType::Leave)
                    .unwrap_err()
                    .message
                    .starts_with("`data`")
            );
        },
    );
}

#[test]
fn unknown_types_are_no_fault_of_the_frame() {
    for kind in [
        "",
        "fly",
        "PING",
        "ping ",
        "message.edit.twice",
        "ack",
        r"a\u0000",
        "é",
    ] {
        envelope(&format!(r#"{{"type":"{kind}"}}"#), |incoming| {
            assert_eq!(incoming.unwrap().kind, None)
        });
    }
}

#[test]
fn unknown_fields_are_ignored() {
    assert!(is_ping(&read(
        r#"{"v":2,"type":"ping","trace":{"id":[1,2]},"data":{"x":1},"":null}"#
    )));
    let page = command("users.list", r#"{"limit":3,"order":"name","nested":{"limit":9}}"#);
    assert_eq!(
        page,
        Ok(Command::UsersList {
            cursor: None,
            limit: 3
        })
    );
}

#[test]
fn of_a_name_that_stands_twice_the_last_counts() {
    assert!(is_ping(&read(r#"{"type":"leave","type":"ping"}"#)));
    assert_eq!(fault(r#"{"type":"ping","type":7}"#), Malformed::NotACommand);
    assert_eq!(fault(r#"{"type":"ping","type":null}"#), Malformed::NotACommand);
    envelope(
        r#"{"id":"a","type":"leave","room":"x","room":"y","id":"b"}"#,
        |incoming| {
            let incoming = incoming.unwrap();
            assert_eq!(incoming.room().unwrap().as_str(), "y");
            assert_eq!(incoming.id.unwrap().as_str(), "b");
        },
    );
    let page = command("users.list", r#"{"limit":3,"limit":4}"#);
    assert_eq!(
        page,
        Ok(Command::UsersList {
            cursor: None,
            limit: 4
        })
    );
    let page = command("users.list", r#"{"limit":3,"limit":null}"#);
    assert_eq!(
        page,
        Ok(Command::UsersList {
            cursor: None,
            limit: DEFAULT_PAGE
        })
    );
}

#[test]
fn names_and_types_may_be_escaped() {
    assert!(is_ping(&read(r#"{"\u0074ype":"p\u0069ng"}"#)));
    let page = command("users.list", r#"{"l\u0069mit":3}"#);
    assert_eq!(
        page,
        Ok(Command::UsersList {
            cursor: None,
            limit: 3
        })
    );
}
