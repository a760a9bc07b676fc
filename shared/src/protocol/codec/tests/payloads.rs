//! The payloads of commands: sizes to the byte, images, numbers, and the compact text that is kept.

use super::*;

#[test]
fn payloads_are_limited_to_the_byte() {
    for (kind, max) in [("signal", MAX_SIGNAL_BYTES), ("broadcast", MAX_BROADCAST_BYTES)] {
        let data = |bytes| format!(r#"{{"event":"e","payload":{}}}"#, string_of(bytes));
        assert!(command(kind, &data(max)).is_ok());
        let needle = format!("`payload` has {} bytes; {max} are allowed", max + 1);
        refused(kind, &data(max + 1), ErrorCode::TooLarge, &needle);
        // Bytes of the compact text count, not those on the wire.
        let spaced = format!(r#"{{"event":"e","payload":[{}1]}}"#, " ".repeat(max));
        assert!(command(kind, &spaced).is_ok());
        let escaped = format!(r#"{{"event":"e","payload":"{}"}}"#, r"\u0041".repeat(max - 2));
        assert!(command(kind, &escaped).is_ok());
        let wide = format!(r#"{{"event":"e","payload":"{}"}}"#, "é".repeat(max / 2));
        refused(kind, &wide, ErrorCode::TooLarge, "`payload`");
    }
}

#[test]
fn a_position_is_a_small_object() {
    let data = |bytes: usize| format!(r#"{{"p":{}}}"#, string_of(bytes - 6));
    assert_eq!(data(MAX_MOVE_BYTES).len(), MAX_MOVE_BYTES);
    let Ok(Command::Move { position }) = command("move", &data(MAX_MOVE_BYTES)) else {
        panic!("refused")
    };
    assert_eq!(position.as_str(), data(MAX_MOVE_BYTES));
    let needle = format!(
        "`data` has {} bytes; {MAX_MOVE_BYTES} are allowed",
        MAX_MOVE_BYTES + 1
    );
    refused("move", &data(MAX_MOVE_BYTES + 1), ErrorCode::TooLarge, &needle);
    bad_request("move", "{}", "`data` is the position");
    assert_eq!(
        command("move", r#"{ "x" : 4, "y":7.50 }"#),
        Ok(Command::Move {
            position: JsonText::from_trusted(r#"{"x":4,"y":7.5}"#)
        })
    );
}

#[test]
fn a_signal_names_at_most_1000_users() {
    let to = |n: usize| {
        let users: Vec<_> = (0..n).map(|i| format!("\"u-{i}\"")).collect();
        format!(r#"{{"event":"e","payload":1,"to":[{}]}}"#, users.join(","))
    };
    let Ok(Command::Signal { to: Some(users), .. }) = command("signal", &to(1000)) else {
        panic!("refused")
    };
    assert_eq!((users.len(), users[999].as_str()), (1000, "u-999"));
    refused("signal", &to(1001), ErrorCode::TooLarge, "`to` names 1001 users");
    assert!(
        matches!(command("signal", &to(0)), Ok(Command::Signal { to: Some(users), .. }) if users.is_empty())
    );
    for (to, needle) in [
        ("7", "`to` is a list"),
        ("\"u-1\"", "`to` is a list"),
        ("[7]", "`to`: a user id"),
        ("[null]", "`to`: a user id"),
        (r#"["u-1",""]"#, "`to`: a user id"),
        (r#"["a\u0000"]"#, "`to`: a user id"),
        (r#"["a\u001f"]"#, "`to`: a user id"),
    ] {
        bad_request(
            "signal",
            &format!(r#"{{"event":"e","payload":1,"to":{to}}}"#),
            needle,
        );
    }
}

#[test]
fn images_are_data_urls() {
    let image = |body: &str| command("message.send", &format!(r#"{{"kind":"image","body":{body}}}"#));
    for kind in ["png", "jpeg", "gif", "webp"] {
        for data in ["iVBORw0KGgo=", "QUJD", "QQ==", r"a\/+9", r"\u0051QQQ"] {
            let body = format!("\"data:image/{kind};base64,{data}\"");
            assert!(
                matches!(
                    image(&body),
                    Ok(Command::MessageSend {
                        kind: MessageKind::Image,
                        ..
                    })
                ),
                "{body}"
            );
        }
    }
    let no_data = [
        "", "====", "Q===", "QUJ", "QU=D", "QU D", "QUJ-", r#"QU\"D"#, r"QUJD\n", "QéJ",
    ];
    let no_data = no_data.map(|data| format!(r#""data:image/png;base64,{data}""#));
    for body in no_data.iter().map(String::as_str).chain([
        "null",
        "7",
        "[]",
        r#"["data:image/png;base64,QUJD"]"#,
        r#""""#,
        r#""QUJD""#,
        r#""data:image/png,QUJD""#,
        r#""data:image/svg+xml;base64,QUJD""#,
        r#""data:image/PNG;base64,QUJD""#,
        r#""data:text/html;base64,QUJD""#,
        r#"" data:image/png;base64,QUJD""#,
        r#""javascript:alert(1)""#,
    ]) {
        assert!(
            image(body).unwrap_err().message.starts_with("`body` of an image"),
            "{body}"
        );
    }
    for kind in [r#""video""#, r#""""#, r#""Text""#] {
        bad_request(
            "message.send",
            &format!(r#"{{"kind":{kind},"body":1}}"#),
            "`kind` is text or image",
        );
    }
    bad_request("message.send", r#"{"kind":7,"body":1}"#, "`kind` is a string");
}

#[test]
fn increments_are_numbers() {
    for (text, by) in [
        ("1", 1.0),
        ("-1", -1.0),
        ("-0", 0.0),
        ("2.5", 2.5),
        ("1e308", 1e308),
        ("5e-324", 5e-324),
        ("1e-400", 0.0),
        ("18446744073709551615", 18_446_744_073_709_551_615.0),
        ("-9223372036854775808", -9_223_372_036_854_775_808.0),
    ] {
        let data = format!(r#"{{"increment":{{"n":{text}}}}}"#);
        let Ok(Command::StatePatch { increment, .. }) = command("state.patch", &data) else {
            panic!("{text}")
        };
        assert_eq!(increment, [("n".to_owned(), by)], "{text}");
    }
    for wrong in [
        "7",
        "[]",
        r#"{"n":"1"}"#,
        r#"{"n":null}"#,
        r#"{"n":true}"#,
        r#"{"n":[1]}"#,
        r#"{"n":{}}"#,
    ] {
        bad_request(
            "state.patch",
            &format!(r#"{{"increment":{wrong}}}"#),
            "`increment` is an object of numbers",
        );
    }
}

#[test]
fn a_patch_sets_at_most_a_state() {
    let data = |bytes| format!(r#"{{"set":{{"ab":{}}}}}"#, string_of(bytes));
    assert!(command("state.patch", &data(MAX_STATE_BYTES - 2)).is_ok());
    let needle = format!("`set` has {} bytes", MAX_STATE_BYTES + 1);
    refused(
        "state.patch",
        &data(MAX_STATE_BYTES - 1),
        ErrorCode::StateTooLarge,
        &needle,
    );
}

#[test]
fn payloads_come_out_compact_and_equal_in_value() {
    for (sent, kept) in [
        (" [ 1 , 2.50 , -3e2 ] ", "[1,2.5,-300.0]"),
        (r#"{ "b" : { } , "a" : [ ] }"#, r#"{"b":{},"a":[]}"#),
        (r#""\u0041\/\u00e9\ud83d\udc4b\u2028""#, "\"A/é👋\u{2028}\""),
        (
            r#""\b\f\n\r\t\u0000\u001e\u007f""#,
            "\"\\b\\f\\n\\r\\t\\u0000\\u001e\u{7f}\"",
        ),
        ("\"\u{2028}\u{feff}\u{fffe}\"", "\"\u{2028}\u{feff}\u{fffe}\""),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9007199254740993", "9007199254740993"),
        ("0.1", "0.1"),
        ("0.1000000000000000055511151231257827", "0.1"),
        ("123456789.123456789123456789", "123456789.12345679"),
        ("2.2250738585072014e-308", "2.2250738585072014e-308"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("1e-400", "0.0"),
        ("1.0", "1.0"),
        ("-0.0", "-0.0"),
        ("true", "true"),
        ("null", "null"),
    ] {
        let Ok(Command::MessageSend { body, .. }) = command("message.send", &format!(r#"{{"body":{sent}}}"#))
        else {
            panic!("{sent}");
        };
        assert_eq!(body.as_str(), kept, "{sent}");
    }
}
