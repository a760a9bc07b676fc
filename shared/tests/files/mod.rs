//! The golden files as text, values and types; and the types of `data` that only a client reads.

use std::{collections::BTreeSet, fs, path::PathBuf};

use roomgate_shared::protocol::event::{Member, Message, ServerFrame};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub(crate) fn text(name: &str) -> String {
    let path = folder().join(format!("{name}.json"));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub(crate) fn value(name: &str) -> Value {
    serde_json::from_str(&text(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

pub(crate) fn names(dir: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder().join(dir))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_file())
        .map(|path| {
            assert_eq!(path.extension().unwrap(), "json", "{}", path.display());
            path.file_stem().unwrap().to_str().unwrap().to_owned()
        })
        .collect()
}

/// The file without white space between tokens, its members in their order: the form in which gateways write.
pub(crate) fn compact(name: &str) -> String {
    let (mut out, mut quoted, mut escaped) = (String::new(), false, false);
    for c in text(name).chars() {
        if quoted || !c.is_ascii_whitespace() {
            out.push(c);
        }
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
    }
    out
}

/// The `data` of the compact file, as text.
pub(crate) fn data_text(name: &str) -> String {
    let text = compact(name);
    let (_, data) = text.split_once("\"data\":").unwrap();
    data.strip_suffix('}').unwrap().to_owned()
}

/// Reads a server frame whose `data` is a `T`; both must write back as they were read.
pub(crate) fn frame<T: DeserializeOwned + Serialize>(name: &str) -> (ServerFrame, T) {
    let golden = value(name);
    let frame: ServerFrame = serde_json::from_value(golden.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(serde_json::to_value(&frame).unwrap(), golden, "{name}");
    let data: T = serde_json::from_value(frame.data.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(serde_json::to_value(&data).unwrap(), frame.data, "{name}");
    (frame, data)
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Pong {
    pub(crate) server_time: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AuthAck {
    pub(crate) expires_at: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeqAck {
    pub(crate) seq: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageAck {
    pub(crate) message: Message,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigAck {
    pub(crate) config: Map<String, Value>,
    pub(crate) seq: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryAck {
    pub(crate) messages: Vec<Message>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateAck {
    pub(crate) version: u64,
    pub(crate) state: Map<String, Value>,
    pub(crate) seq: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchAck {
    pub(crate) version: u64,
    pub(crate) seq: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsersAck {
    pub(crate) users: Vec<Member>,
    pub(crate) total: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Status {
    pub(crate) redis: String,
}
