//! What tests read out of joins and presence events.

use roomgate_shared::protocol::event::ServerFrame;
use serde_json::{Value, json};

/// What a presence event says, each user by its id, one line for each.
pub(crate) fn lines(event: &ServerFrame) -> Vec<String> {
    let mut out = Vec::new();
    for (part, list) in event.data.as_object().unwrap() {
        for entry in list.as_array().into_iter().flatten() {
            let id = entry["id"].as_str().or(entry["user"].as_str()).or(entry.as_str());
            let mut line = format!("{part} {}", id.unwrap());
            if let Some(reason) = entry["reason"].as_str() {
                line = format!("{line} {reason}");
            }
            out.push(line);
        }
        if !list.is_array() {
            out.push(format!("{part} {list}"));
        }
    }
    out.sort_unstable();
    out
}

/// What a join says to go on from where another join was.
pub(crate) fn since(joined: &Value) -> Value {
    json!({"since": {"epoch": joined["epoch"], "seq": joined["seq"]}})
}
