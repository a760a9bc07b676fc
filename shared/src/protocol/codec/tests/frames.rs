//! Frames as a whole: what is JSON, what is a command, batches, depth, the envelope.

use super::*;

#[test]
fn what_is_not_json_is_said_to_be_not_json() {
    let cases: &[&[u8]] = &[
        b"",
        b" ",
        b"\n\t ",
        b"\0",
        b"{",
        b"}",
        b"[",
        b"[{]",
        b"hello",
        b"{\"type\":\"ping\"",
        b"{\"type\":\"ping\"}}",
        b"{\"type\":\"ping\"} x",
        b"{\"type\":\"ping\"}{\"type\":\"ping\"}",
        b"{\"type\":\"ping\"}\n{\"type\":\"ping\"}",
        b"{\"type\":\"ping\"}\0",
        b"\0{\"type\":\"ping\"}",
        b"{\"type\":\"ping\",}",
        b"{'type':'ping'}",
        b"{type:\"ping\"}",
        b"{\"type\" \"ping\"}",
        b"{\"type\":\"pi\0ng\"}",
        b"{\"type\":\"pi\nng\"}",
        b"{\"type\":\"pi\\xng\"}",
        b"{\"type\":\"pi\\u12g4\"}",
        b"{\"type\":\"ping\\\"}",
        b"{\"type\":\"ping\",\"a\":tru}",
        b"{\"type\":\"ping\",\"a\":nul}",
        b"{\"type\":\"ping\",\"a\":NaN}",
        b"{\"type\":\"ping\",\"a\":Infinity}",
        b"{\"type\":\"ping\",\"a\":-}",
        b"{\"type\":\"ping\",\"a\":+1}",
        b"{\"type\":\"ping\",\"a\":01}",
        b"{\"type\":\"ping\",\"a\":.5}",
        b"{\"type\":\"ping\",\"a\":1.}",
        b"{\"type\":\"ping\",\"a\":1e}",
        b"{\"type\":\"ping\",\"a\":0x10}",
        b"{\"type\":\"ping\",\"a\":[1,]}",
        b"{\"type\":\"ping\" /* comment */}",
        b"\xef\xbb\xbf{\"type\":\"ping\"}",
        b"\xff\xfe{\0}\0",
        b"{\"type\":\"p\xffng\"}",
        b"{\"type\":\"ping\",\"a\":\"\xed\xa0\x80\"}",
    ];
    for case in cases {
        assert_eq!(
            fault(case),
            Malformed::NotJson,
            "{}",
            String::from_utf8_lossy(case)
        );
    }
}

#[test]
fn numbers_beyond_64_bits_or_a_double_are_not_json() {
    for number in [
        "18446744073709551616",
        "-9223372036854775809",
        "1e400",
        "-1e400",
        "1e99999999999",
    ] {
        assert_eq!(
            fault(format!(r#"{{"type":"ping","a":{number}}}"#)),
            Malformed::NotJson,
            "{number}"
        );
    }
}

#[test]
fn lone_surrogates_are_not_json() {
    for text in [
        r"\ud800",
        r"\udc00",
        r"\ud800x",
        r"\ud800\n",
        r"\ud800\ud800",
        r"\udc00\ud800",
        r"a\ud83d",
    ] {
        assert_eq!(
            fault(format!(r#"{{"type":"ping","a":"{text}"}}"#)),
            Malformed::NotJson,
            "{text}"
        );
        assert_eq!(
            fault(format!(r#"{{"type":"ping","{text}":1}}"#)),
            Malformed::NotJson,
            "{text}"
        );
    }
}

#[test]
fn what_is_json_but_no_command_is_said_to_be_none() {
    for frame in [
        "null",
        "true",
        "1",
        "-0",
        "1.5e3",
        r#""ping""#,
        r#""""#,
        "{}",
        r#"{"id":"k1"}"#,
        r#"{"type":null}"#,
        r#"{"type":1}"#,
        r#"{"type":{"type":"ping"}}"#,
        r#"{"type":["ping"]}"#,
        r#"{"Type":"ping"}"#,
        r#"{"data":{"type":"ping"}}"#,
        "[null]",
        "[1]",
        "[[]]",
        r#"[[{"type":"ping"}]]"#,
        r#"["ping"]"#,
    ] {
        assert_eq!(fault(frame), Malformed::NotACommand, "{frame}");
    }
}

#[test]
fn white_space_around_and_between_tokens_is_no_matter() {
    assert!(is_ping(&read(
        " \r\n\t{ \"type\" :\t\"ping\" ,\n\"data\" : { } }\r\n"
    )));
    assert!(is_ping(&read(" [ {\"type\":\"ping\"} ] ")));
}

#[test]
fn a_batch_has_1_to_64_commands() {
    let batch = |n| read_all(format!("[{}]", vec![PING; n].join(",")));
    assert_eq!(batch(0), [Err(Malformed::NotACommand)]);
    for n in [1, 2, 63, 64] {
        let all = batch(n);
        assert_eq!(all.len(), n);
        assert!(all.iter().all(is_ping));
    }
    for n in [65, 66, 1000] {
        assert_eq!(batch(n), [Err(Malformed::BatchSize)], "one fault, nothing done");
    }
    assert_eq!(
        read_all(format!("[{}]", vec!["1"; 65].join(","))),
        [Err(Malformed::BatchSize)]
    );
}

#[test]
fn each_element_of_a_batch_stands_by_itself_and_in_order() {
    let frame = r#"[{"type":"ping"},7,{"id":"no good","type":"ping"},{"type":"fly"},{"type":"leave"},
        {"type":"auth"},{"type":"ping"}]"#;
    assert_eq!(
        read_all(frame),
        [
            Ok(Ok(Command::Ping)),
            Err(Malformed::NotACommand),
            Err(Malformed::Id(IdError::Command)),
            Ok(Err(bad("?"))),
            Ok(Ok(Command::Leave)),
            Ok(Err(bad("`token` is missing"))),
            Ok(Ok(Command::Ping)),
        ]
    );
}

#[test]
fn a_frame_broken_at_its_end_gives_nothing_of_its_beginning() {
    assert_eq!(read_all(format!("[{PING},{PING},")), [Err(Malformed::NotJson)]);
    assert_eq!(read_all(format!("[{PING},{PING}}}")), [Err(Malformed::NotJson)]);
}

/// A ping, one level deep, whose unknown field holds `inner`.
fn ping_with(inner: &str) -> String {
    format!(r#"{{"type":"ping","x":{inner}}}"#)
}

/// Values nested `n` levels deep, by each means.
fn nests(n: usize) -> [String; 3] {
    let (mut open, mut close) = (String::new(), String::new());
    for i in 0..n {
        open.push_str(if i % 2 == 0 { r#"{"a":"# } else { "[" });
        close.insert(0, if i % 2 == 0 { '}' } else { ']' });
    }
    [
        "[".repeat(n) + &"]".repeat(n),
        r#"{"a":"#.repeat(n) + "1" + &"}".repeat(n),
        format!("{open}1{close}"),
    ]
}

#[test]
fn depth_32_is_read_and_33_is_refused() {
    for nest in nests(31) {
        assert!(is_ping(&read(ping_with(&nest))), "{nest}");
        assert_eq!(
            fault(format!("[{}]", ping_with(&nest))),
            Malformed::TooDeep,
            "a batch is a level"
        );
    }
    for nest in nests(32) {
        assert_eq!(fault(ping_with(&nest)), Malformed::TooDeep, "{nest}");
        assert_eq!(fault(&nest), Malformed::NotACommand, "{nest}");
    }
    for nest in nests(30) {
        assert!(is_ping(&read(format!("[{}]", ping_with(&nest)))), "{nest}");
        let wide = format!("[{}]", vec![nest; 500].join(","));
        assert!(is_ping(&read(ping_with(&wide))), "width is not depth");
    }
    for nest in nests(33) {
        assert_eq!(fault(&nest), Malformed::TooDeep, "{nest}");
    }
}

#[test]
fn a_megabyte_of_brackets_is_too_deep_and_not_a_stack_overflow() {
    for open in ["[", r#"{"a":"#, "[{\"a\":"] {
        let frame = open.repeat(1024 * 1024 / open.len());
        assert_eq!(fault(frame), Malformed::TooDeep);
    }
    assert_eq!(fault("]".repeat(1024 * 1024)), Malformed::NotJson);
}

#[test]
fn a_decoder_keeps_nothing_of_a_frame() {
    let mut decoder = Decoder::default();
    let large = format!(
        r#"{{"type":"message.send","data":{{"body":"{}"}}}}"#,
        "x".repeat(100_000)
    );
    for junk in [
        "",
        "[[[[",
        &"[".repeat(4000),
        r#"{"type":"auth","data":{"token":"t"#,
        "\0",
        &large,
        "[1,2,3]",
    ] {
        read_with(&mut decoder, junk);
        assert_eq!(
            read_with(&mut decoder, PING),
            [Ok(Ok(Command::Ping))],
            "after {junk:.40}"
        );
        assert_eq!(
            read_with(&mut decoder, r#"{"id":"k1"}"#),
            [Err(Malformed::NotACommand)]
        );
        assert_eq!(read_with(&mut decoder, ""), [Err(Malformed::NotJson)]);
    }
}
