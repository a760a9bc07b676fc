//! The data of each command: defaults, bounds, and which field a refusal names.

use super::*;

fn json(text: &str) -> JsonText {
    JsonText::from_trusted(text)
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json(value)))
        .collect()
}

/// Asserts that each of the texts reads as `expected`.
fn all_read_as(kind: &str, expected: &Command, texts: &[&str]) {
    for data in texts {
        assert_eq!(command(kind, data).as_ref(), Ok(expected), "{data}");
    }
}

#[test]
fn data_is_an_object_or_absent() {
    for kind in CommandType::ALL {
        for data in ["1", "\"x\"", "[]", "true", "[{}]"] {
            bad_request(kind.as_str(), data, "`data` is an object");
        }
    }
    for frame in [
        r#"{"type":"ping"}"#,
        r#"{"type":"ping","data":null}"#,
        r#"{"type":"ping","data":{}}"#,
    ] {
        assert_eq!(read(frame), Ok(Ok(Command::Ping)));
    }
}

#[test]
fn what_is_left_out_or_null_has_its_default() {
    let join = Command::Join {
        since: None,
        presence: vec![],
        messages: DEFAULT_PAGE,
    };
    let nulls = r#"{"since":null,"presence":null,"messages":null}"#;
    all_read_as("join", &join, &["{}", nulls, r#"{"presence":{}}"#]);
    let update = Command::PresenceUpdate {
        set: vec![],
        remove: vec![],
    };
    let nulls = r#"{"set":null,"remove":null}"#;
    all_read_as(
        "presence.update",
        &update,
        &["{}", nulls, r#"{"set":{},"remove":[]}"#],
    );
    let signal = Command::Signal {
        event: "e".to_owned(),
        payload: json("null"),
        to: None,
    };
    let nulls = r#"{"event":"e","payload":null,"to":null}"#;
    all_read_as("signal", &signal, &[r#"{"event":"e","payload":null}"#, nulls]);
    let send = Command::MessageSend {
        body: json("1"),
        kind: MessageKind::Text,
    };
    let nulls = r#"{"body":1,"kind":null}"#;
    all_read_as(
        "message.send",
        &send,
        &[r#"{"body":1}"#, nulls, r#"{"body":1,"kind":"text"}"#],
    );
    let history = Command::MessageHistory {
        before: None,
        after: None,
        limit: DEFAULT_PAGE,
    };
    all_read_as(
        "message.history",
        &history,
        &["{}", r#"{"before":null,"after":null,"limit":null}"#],
    );
    all_read_as(
        "state.get",
        &Command::StateGet { fields: None },
        &["{}", r#"{"fields":null}"#],
    );
    all_read_as(
        "state.get",
        &Command::StateGet { fields: Some(vec![]) },
        &[r#"{"fields":[]}"#],
    );
    let remove = vec!["a".to_owned()];
    let patch = Command::StatePatch {
        set: vec![],
        remove,
        increment: vec![],
        if_version: None,
    };
    let nulls = r#"{"set":null,"remove":["a"],"increment":null,"ifVersion":null}"#;
    all_read_as("state.patch", &patch, &[r#"{"remove":["a"]}"#, nulls]);
    let list = Command::UsersList {
        cursor: None,
        limit: DEFAULT_PAGE,
    };
    all_read_as("users.list", &list, &["{}", r#"{"cursor":null,"limit":null}"#]);
}

#[test]
fn required_members_are_missed_by_name() {
    bad_request("auth", "{}", "`token` is missing");
    bad_request("auth", r#"{"token":null}"#, "`token` is missing");
    bad_request("auth", r#"{"token":7}"#, "`token` is a string");
    for kind in ["signal", "broadcast"] {
        bad_request(kind, r#"{"payload":1}"#, "`event` is missing");
        bad_request(kind, r#"{"event":null,"payload":1}"#, "`event` is missing");
        bad_request(kind, r#"{"event":7,"payload":1}"#, "`event` is a string");
        bad_request(kind, r#"{"event":"e"}"#, "`payload` is missing");
    }
    bad_request("message.send", "{}", "`body` is missing");
    let null = Command::MessageSend {
        body: json("null"),
        kind: MessageKind::Text,
    };
    assert_eq!(
        command("message.send", r#"{"body":null}"#),
        Ok(null),
        "a body of null is a body"
    );
}

#[test]
fn counts_are_integers_within_their_bounds() {
    for (kind, name, min) in [
        ("join", "messages", 0),
        ("message.history", "limit", 1),
        ("users.list", "limit", 1),
    ] {
        let count = |text: &str| match command(kind, &format!(r#"{{"{name}":{text}}}"#)) {
            Ok(Command::Join { messages, .. }) => Ok(messages),
            Ok(Command::MessageHistory { limit, .. } | Command::UsersList { limit, .. }) => Ok(limit),
            other => Err(other.unwrap_err()),
        };
        for (text, n) in [
            ("1", 1),
            ("200", 200),
            ("5.0", 5),
            ("5e0", 5),
            ("0.5e1", 5),
            ("2e2", 200),
            ("1.0", 1),
        ] {
            assert_eq!(count(text), Ok(n), "{text}");
        }
        for zero in ["0", "-0", "0.0", "-0.0", "0e9"] {
            assert_eq!(count(zero).ok(), (min == 0).then_some(0), "{kind} {zero}");
        }
        let large = ["201", "1e3", "1e300", "18446744073709551615"];
        let small = ["-1", "-1.0", "0.5", "200.5", "5e-324", "-9223372036854775808"];
        for text in large.iter().chain(&small).chain(&["\"5\"", "true", "[5]", "{}"]) {
            let refused = count(text).expect_err(text);
            assert_eq!(refused.code, ErrorCode::BadRequest);
            assert_eq!(
                refused.message,
                format!("`{name}` is an integer from {min} to 200"),
                "{text}"
            );
        }
    }
}

#[test]
fn since_has_an_epoch_and_a_seq() {
    let since = |data: &str| match command("join", &format!(r#"{{"since":{data}}}"#)) {
        Ok(Command::Join { since, .. }) => Ok(since.unwrap().seq),
        other => Err(other.unwrap_err().message),
    };
    for (seq, n) in [
        ("0", 0),
        ("7", 7),
        ("7.0", 7),
        ("18446744073709551615", u64::MAX),
        ("9e15", 9 * 10u64.pow(15)),
    ] {
        assert_eq!(since(&format!(r#"{{"epoch":"k","seq":{seq}}}"#)), Ok(n));
    }
    assert_eq!(
        since(&format!(r#"{{"epoch":"{}","seq":1}}"#, "k".repeat(64))),
        Ok(1)
    );
    let long = format!(r#"{{"epoch":"{}","seq":1}}"#, "k".repeat(65));
    for data in [
        "7",
        "\"k\"",
        "[]",
        "{}",
        r#"{"seq":1}"#,
        r#"{"epoch":"k"}"#,
        r#"{"epoch":"","seq":1}"#,
        r#"{"epoch":7,"seq":1}"#,
        r#"{"epoch":null,"seq":1}"#,
        r#"{"epoch":"k","seq":-1}"#,
        r#"{"epoch":"k","seq":1.5}"#,
        r#"{"epoch":"k","seq":1e16}"#,
        r#"{"epoch":"k","seq":"1"}"#,
        r#"{"epoch":"k","seq":null}"#,
        &long,
    ] {
        assert!(since(data).unwrap_err().contains("`since`"), "{data}");
    }
}

#[test]
fn presence_has_4_kib_at_most() {
    for (kind, name) in [("join", "presence"), ("presence.update", "set")] {
        let data = |bytes| format!(r#"{{"{name}":{{"ab":{}}}}}"#, string_of(bytes));
        assert!(command(kind, &data(MAX_PRESENCE_BYTES - 2)).is_ok());
        let needle = format!("`{name}` has 4097 bytes");
        refused(kind, &data(MAX_PRESENCE_BYTES - 1), ErrorCode::TooLarge, &needle);
        let many = |n: usize| {
            let all: Vec<_> = (0..n)
                .map(|i| format!(r#""{i:03}":{}"#, string_of(125)))
                .collect();
            format!(r#"{{"{name}":{{{}}}}}"#, all.join(","))
        };
        assert!(command(kind, &many(32)).is_ok());
        refused(kind, &many(33), ErrorCode::TooLarge, name);
        for wrong in ["7", "\"x\"", "[]", "true"] {
            bad_request(
                kind,
                &format!(r#"{{"{name}":{wrong}}}"#),
                &format!("`{name}` is an object"),
            );
        }
    }
    let update = command("presence.update", r#"{"set":{"b":1,"a":null},"remove":["c"]}"#);
    let set = fields(&[("b", "1"), ("a", "null")]);
    assert_eq!(
        update,
        Ok(Command::PresenceUpdate {
            set,
            remove: vec!["c".to_owned()]
        })
    );
}

#[test]
fn names_have_1_to_128_characters() {
    let good = ["x", &"é".repeat(128), &"\u{10348}".repeat(128)].map(|name| format!("\"{name}\""));
    let bad =
        ["", &"x".repeat(129), &"é".repeat(129), &"x".repeat(100_000)].map(|name| format!("\"{name}\""));
    for (kind, field, data) in [
        ("signal", "event", r#"{"event":NAME,"payload":1}"#),
        ("broadcast", "event", r#"{"event":NAME,"payload":1}"#),
        ("join", "presence", r#"{"presence":{NAME:1}}"#),
        ("presence.update", "set", r#"{"set":{NAME:1}}"#),
        ("presence.update", "remove", r#"{"remove":[NAME]}"#),
        ("state.get", "fields", r#"{"fields":["a",NAME]}"#),
        ("state.patch", "set", r#"{"set":{NAME:1}}"#),
        ("state.patch", "remove", r#"{"remove":[NAME]}"#),
        ("state.patch", "increment", r#"{"increment":{NAME:1}}"#),
    ] {
        for name in &good {
            assert!(
                command(kind, &data.replace("NAME", name)).is_ok(),
                "{kind} {field} {name}"
            );
        }
        for name in &bad {
            let needle = format!("`{field}`: a name has 1 to 128");
            bad_request(kind, &data.replace("NAME", name), &needle);
        }
    }
}

#[test]
fn lists_of_names_hold_nothing_else() {
    for (kind, name) in [
        ("presence.update", "remove"),
        ("state.get", "fields"),
        ("state.patch", "remove"),
    ] {
        for wrong in ["7", "\"x\"", "{}", "[7]", r#"["a",null]"#, r#"[["a"]]"#] {
            let needle = format!("`{name}` is a list of names");
            bad_request(kind, &format!(r#"{{"{name}":{wrong}}}"#), &needle);
        }
    }
}

#[test]
fn a_field_is_named_once() {
    for (kind, data) in [
        ("join", r#"{"presence":{"a":1,"a":2}}"#),
        ("presence.update", r#"{"set":{"a":1,"b":1,"a":2}}"#),
        ("presence.update", r#"{"set":{"a":1},"remove":["a"]}"#),
        ("presence.update", r#"{"remove":["a","a"]}"#),
        ("state.patch", r#"{"set":{"a":1,"\u0061":2}}"#),
        ("state.patch", r#"{"set":{"a":1},"remove":["a"]}"#),
        ("state.patch", r#"{"set":{"a":1},"increment":{"a":1}}"#),
        ("state.patch", r#"{"remove":["a"],"increment":{"a":1}}"#),
        ("state.patch", r#"{"increment":{"a":1,"a":2}}"#),
        ("state.patch", r#"{"remove":["a","b","a"]}"#),
    ] {
        bad_request(kind, data, "field \"a\" stands twice");
    }
    bad_request(
        "state.patch",
        r#"{"remove":["\"\n","\"\n"]}"#,
        r#"field "\"\n" stands twice"#,
    );
}

#[test]
fn cursors_are_strings_and_history_takes_one() {
    bad_request("message.history", r#"{"before":7}"#, "`before` is a string");
    bad_request("message.history", r#"{"after":{}}"#, "`after` is a string");
    bad_request(
        "message.history",
        r#"{"before":"a","after":"b"}"#,
        "`before` and `after`",
    );
    bad_request("users.list", r#"{"cursor":7}"#, "`cursor` is a string");
    let history = Command::MessageHistory {
        before: None,
        after: Some("b".to_owned()),
        limit: 7,
    };
    all_read_as(
        "message.history",
        &history,
        &[r#"{"before":null,"after":"b","limit":7}"#],
    );
}

#[test]
fn a_patch_changes_something() {
    for data in [
        "{}",
        r#"{"ifVersion":3}"#,
        r#"{"set":{},"remove":[],"increment":{}}"#,
    ] {
        bad_request("state.patch", data, "at least one field");
    }
    let version = |text: &str| {
        command(
            "state.patch",
            &format!(r#"{{"remove":["a"],"ifVersion":{text}}}"#),
        )
    };
    for (text, n) in [
        ("0", Some(0)),
        ("5.0", Some(5)),
        ("18446744073709551615", Some(u64::MAX)),
        ("null", None),
    ] {
        let Ok(Command::StatePatch { if_version, .. }) = version(text) else {
            panic!("{text}")
        };
        assert_eq!(if_version, n);
    }
    for text in ["-1", "0.5", "\"1\"", "true", "[1]", "1e300"] {
        assert_eq!(version(text), Err(bad("`ifVersion` is an integer")), "{text}");
    }
    bad_request("state.patch", r#"{"set":[]}"#, "`set` is an object");
}
