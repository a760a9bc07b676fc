//! Fingerprints: equal exactly where two data are equal as JSON values.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn of(data: &str) -> u64 {
    let mut frame = format!(r#"{{"type":"broadcast","room":"r","data":{data}}}"#).into_bytes();
    let mut out = None;
    Decoder::default().decode(&mut frame, |incoming| {
        out = incoming
            .ok()
            .map(|incoming| incoming.fingerprint(CommandType::Broadcast));
    });
    out.unwrap_or_else(|| panic!("{data} is no data"))
}

#[test]
fn the_writing_does_not_matter() {
    for (one, other) in [
        (
            r#"{"a":1,"b":[true,null]}"#,
            "{ \"b\" : [ true , null ] , \"a\" : 1 }",
        ),
        (r#"{"a":1}"#, r#"{"a":1.0}"#),
        (r#"{"a":-0.0}"#, r#"{"a":0}"#),
        (r#"{"a":1e3}"#, r#"{"a":1000}"#),
        (r#"{"a":"é\n"}"#, r#"{"a":"\u00e9\u000a"}"#),
        ("{}", "null"),
    ] {
        assert_eq!(of(one), of(other), "{one} {other}");
    }
}

#[test]
fn what_differs_differs() {
    let texts = [
        "{}",
        r#"{"a":null}"#,
        r#"{"a":0}"#,
        r#"{"a":false}"#,
        r#"{"a":""}"#,
        r#"{"a":"0"}"#,
        r#"{"a":[]}"#,
        r#"{"a":{}}"#,
        r#"{"a":[0]}"#,
        r#"{"a":[[0]]}"#,
        r#"{"a":[1,2]}"#,
        r#"{"a":[2,1]}"#,
        r#"{"a":1,"b":2}"#,
        r#"{"a":2,"b":1}"#,
        r#"{"a":{"b":1}}"#,
        r#"{"b":{"a":1}}"#,
        r#"{"a":0.5}"#,
        r#"{"a":-1}"#,
        r#"{"a":18446744073709551615}"#,
        r#"{"a":9007199254740993}"#,
        r#"{"a":9007199254740992}"#,
    ];
    for (i, one) in texts.iter().enumerate() {
        for other in &texts[i + 1..] {
            assert_ne!(of(one), of(other), "{one} {other}");
        }
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| json!(n)),
        "[a-c]{0,3}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec(("[a-c]{1,2}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// The same value with the members of every object in the opposite order.
fn reversed(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(reversed).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .rev()
                .map(|(name, value)| format!("{}:{}", json!(name), reversed(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

proptest! {
    #[test]
    fn fingerprints_compare_as_values(one in values(), other in values()) {
        let (one_text, other_text) = (format!(r#"{{"a":{one}}}"#), format!(r#"{{"a":{other}}}"#));
        prop_assert_eq!(of(&one_text) == of(&other_text), one == other);
        prop_assert_eq!(of(&one_text), of(&format!(r#"{{"a":{}}}"#, reversed(&one))));
    }
}
