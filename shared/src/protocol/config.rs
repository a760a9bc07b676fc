//! A room's configuration: what `room.configure` changes, and what gateways and clients read.
//!
//! A change names *settings*: a field of the configuration, or `group.member` where the field is a group (`rate`,
//! `cooldownMs`, `features`). Each setting is replaced or removed by itself, so two changes of different settings do not
//! undo each other.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    MAX_CONFIG_BYTES, MAX_NAME_CHARS,
    codec::{Refused, bad, check_name, too_large},
    json::{JsonText, push_str},
    lane::Lane,
    tape::Json,
};

/// Fields whose members are settings of their own.
pub const GROUPS: [&str; 3] = ["cooldownMs", "features", "rate"];

/// Bounds of what a room may be configured to.
const MAX_CAPACITY: u64 = 1_000_000;
const RETENTION_HOURS: std::ops::RangeInclusive<f64> = 0.001..=8_760.0;
const MOVE_TICK_MS: std::ops::RangeInclusive<u64> = 10..=10_000;
const PER_SECOND: std::ops::RangeInclusive<f64> = 0.01..=100_000.0;
const MAX_BURST: u64 = 100_000;
const MAX_COOLDOWN_MS: u64 = 24 * 3600 * 1000;
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// A change of a room's configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConfigChange {
    /// Settings that get a value: name and JSON text, each once.
    pub set: Vec<(String, JsonText)>,
    /// Settings that go back to their default.
    pub remove: Vec<String>,
}

/// A rate: so many a second over time, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// Tokens that come back in a second.
    pub per_second: f64,
    /// Tokens at most.
    pub burst: f64,
}

/// A room's configuration as gateways read it. What is absent is as the gateway's settings have it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoomConfig {
    /// A name for people.
    pub name: Option<String>,
    /// Most members; 0 and absent: any number.
    pub capacity: Option<u64>,
    /// `full`, `count` or `off`: what members are told of each other.
    pub presence: Option<String>,
    /// For how long messages are kept.
    pub retention_hours: Option<f64>,
    /// Largest body of a message.
    pub max_message_bytes: Option<u64>,
    /// Whether messages may be images.
    pub images: Option<bool>,
    /// How long moves are gathered.
    pub move_tick_ms: Option<u64>,
    /// By lane, of all members together.
    pub rate: BTreeMap<String, Rate>,
    /// By lane: least time between two commands of one user, ms.
    pub cooldown_ms: BTreeMap<String, u64>,
    /// The room is archived when its life ends by itself, too.
    pub archive_idle: Option<bool>,
    /// Flags that the application reads.
    pub features: Map<String, Value>,
}

impl RoomConfig {
    /// Reads a configuration's JSON text; what cannot be read counts as absent.
    pub fn read(text: &[u8]) -> Self {
        serde_json::from_slice(text).unwrap_or_default()
    }
}

impl ConfigChange {
    /// Reads a change from the `data` of a command.
    ///
    /// # Errors
    /// `bad_request` or `too_large`, naming the field and what it accepts.
    pub(super) fn read(data: Json<'_, '_>) -> Result<Self, Refused> {
        let mut change = Self::default();
        let members = data.members().ok_or_else(|| bad("`data` is an object"))?;
        let mut seen = BTreeSet::new();
        for (field, value) in members {
            if !seen.insert(field) {
                return Err(bad(format!("`{field}` stands twice")));
            }
            if GROUPS.contains(&field) {
                change.group(field, value)?;
            } else if let Some(text) = plain(field, value)? {
                change.put(field.to_owned(), value.is_null(), text);
            }
        }
        if change.set.is_empty() && change.remove.is_empty() {
            return Err(bad(
                "nothing to change: `name`, `capacity`, `presence`, `retentionHours`, `maxMessageBytes`, `images`, \
                 `moveTickMs`, `rate`, `cooldownMs`, `archiveIdle`, `features`",
            ));
        }
        let bytes: usize = change
            .set
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if bytes > MAX_CONFIG_BYTES {
            return Err(too_large(format!(
                "the change has {bytes} bytes; {MAX_CONFIG_BYTES} are allowed"
            )));
        }
        Ok(change)
    }

    fn put(&mut self, name: String, remove: bool, text: JsonText) {
        if remove {
            self.remove.push(name);
        } else {
            self.set.push((name, text));
        }
    }

    fn group(&mut self, field: &str, value: Json<'_, '_>) -> Result<(), Refused> {
        let members = value
            .members()
            .ok_or_else(|| bad(format!("`{field}` is an object")))?;
        let mut seen = BTreeSet::new();
        for (name, value) in members {
            if !seen.insert(name) {
                return Err(bad(format!("`{field}`: `{name}` stands twice")));
            }
            let text = match field {
                "features" => {
                    check_name(field, name)?;
                    value.compact()
                }
                _ if Lane::parse(name).is_none() => {
                    return Err(bad(format!(
                        "`{field}`: a lane is messages, state, moves, broadcasts or joins"
                    )));
                }
                _ if value.is_null() => value.compact(),
                "rate" => rate(value)?,
                _ => integer("cooldownMs", value, 0..=MAX_COOLDOWN_MS)?,
            };
            self.put(format!("{field}.{name}"), value.is_null(), text);
        }
        Ok(())
    }

    /// The change as a client writes it.
    pub fn nested(&self) -> BTreeMap<String, Value> {
        let mut out = BTreeMap::new();
        let set = self.set.iter().map(|(name, text)| {
            let value = serde_json::from_str(text.as_str()).unwrap_or_default();
            (name, value)
        });
        let all = set.chain(self.remove.iter().map(|name| (name, Value::Null)));
        for (name, value) in all {
            match split(name) {
                (group, Some(member)) => {
                    let group = out
                        .entry(group.to_owned())
                        .or_insert_with(|| Value::Object(Map::new()));
                    group[member] = value;
                }
                (field, None) => {
                    out.insert(field.to_owned(), value);
                }
            }
        }
        out
    }
}

/// A setting's field, and the member of it where the field is a group.
fn split(setting: &str) -> (&str, Option<&str>) {
    match setting.split_once('.') {
        Some((group, member)) if GROUPS.contains(&group) => (group, Some(member)),
        Some(_) | None => (setting, None),
    }
}

/// A configuration as JSON text, from its settings. `lua/config.lua` writes the same.
pub fn config_text(settings: &BTreeMap<String, String>) -> String {
    let mut out = String::from("{");
    let mut open: Option<&str> = None;
    for (setting, value) in settings {
        let (field, member) = split(setting);
        if open.is_some_and(|group| group != field) {
            out.push('}');
            open = None;
        }
        if out.len() > 1 && open.is_none() {
            out.push(',');
        }
        match member {
            None => push_str(&mut out, field),
            Some(member) => {
                if open.is_none() {
                    push_str(&mut out, field);
                    out.push_str(":{");
                    open = Some(field);
                } else {
                    out.push(',');
                }
                push_str(&mut out, member);
            }
        }
        out.push(':');
        out.push_str(value);
    }
    out.push_str(if open.is_some() { "}}" } else { "}" });
    out
}

/// The settings that a configuration's JSON text is made of: what [`config_text`] makes it of again.
///
/// # Errors
/// It is no JSON object, or one of its groups is none.
pub fn settings_of(config: &str) -> Result<BTreeMap<String, JsonText>, serde_json::Error> {
    let fields: BTreeMap<String, JsonText> = serde_json::from_str(config)?;
    let mut settings = BTreeMap::new();
    for (field, value) in fields {
        if GROUPS.contains(&field.as_str()) {
            let members: BTreeMap<String, JsonText> = serde_json::from_str(value.as_str())?;
            settings.extend(
                members
                    .into_iter()
                    .map(|(name, value)| (format!("{field}.{name}"), value)),
            );
        } else {
            settings.insert(field, value);
        }
    }
    Ok(settings)
}

/// A field that is no group, in the form in which it is kept; `None` for one that does not exist.
fn plain(field: &str, value: Json<'_, '_>) -> Result<Option<JsonText>, Refused> {
    let text = match field {
        "name" | "capacity" | "presence" | "retentionHours" | "maxMessageBytes" | "images" | "moveTickMs"
        | "archiveIdle"
            if value.is_null() =>
        {
            value.compact()
        }
        "name" => match value.text() {
            Some(name) if name.chars().count() <= MAX_NAME_CHARS => value.compact(),
            _ => {
                return Err(bad(format!(
                    "`name` is a string of at most {MAX_NAME_CHARS} characters"
                )));
            }
        },
        "capacity" => integer(field, value, 0..=MAX_CAPACITY)?,
        "presence" => match value.text() {
            Some("full" | "count" | "off") => value.compact(),
            _ => return Err(bad("`presence` is full, count or off")),
        },
        "retentionHours" => number(field, value, RETENTION_HOURS)?,
        "maxMessageBytes" => integer(field, value, 1..=MAX_BYTES)?,
        "images" | "archiveIdle" => match value.compact() {
            text if matches!(text.as_str(), "true" | "false") => text,
            _ => return Err(bad(format!("`{field}` is true or false"))),
        },
        "moveTickMs" => integer(field, value, MOVE_TICK_MS)?,
        _ => return Ok(None),
    };
    Ok(Some(text))
}

fn integer(
    field: &str,
    value: Json<'_, '_>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<JsonText, Refused> {
    let number = value.integer().filter(|number| range.contains(number));
    let (least, most) = (range.start(), range.end());
    let number = number.ok_or_else(|| bad(format!("`{field}` is an integer from {least} to {most}")))?;
    Ok(JsonText::from_trusted(number.to_string()))
}

fn number(
    field: &str,
    value: Json<'_, '_>,
    range: std::ops::RangeInclusive<f64>,
) -> Result<JsonText, Refused> {
    let number = value.number().filter(|number| range.contains(number));
    let (least, most) = (range.start(), range.end());
    let number = number.ok_or_else(|| bad(format!("`{field}` is a number from {least} to {most}")))?;
    Ok(JsonText::from_trusted(number_text(number)))
}

/// An integer where it is one.
fn number_text(number: f64) -> String {
    if number.fract() == 0.0 {
        format!("{number:.0}")
    } else {
        format!("{number}")
    }
}

fn rate(value: Json<'_, '_>) -> Result<JsonText, Refused> {
    let per_second = value
        .get("perSecond")
        .and_then(Json::number)
        .filter(|number| PER_SECOND.contains(number));
    let Some(per_second) = per_second else {
        let (least, most) = (PER_SECOND.start(), PER_SECOND.end());
        return Err(bad(format!(
            "`rate`: {{\"perSecond\":number,\"burst\":count}}, `perSecond` from {least} to {most}"
        )));
    };
    let burst = match value.get("burst").filter(|burst| !burst.is_null()) {
        // Twice what a second brings, and one at least.
        None => ((2.0 * per_second).ceil() as u64).clamp(1, MAX_BURST),
        Some(burst) => burst
            .integer()
            .filter(|burst| (1..=MAX_BURST).contains(burst))
            .ok_or_else(|| bad(format!("`rate`: `burst` is an integer from 1 to {MAX_BURST}")))?,
    };
    Ok(JsonText::from_trusted(format!(
        "{{\"perSecond\":{},\"burst\":{burst}}}",
        number_text(per_second)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_make_one_object() {
        let settings = |list: &[(&str, &str)]| {
            let owned = list
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            config_text(&owned.collect())
        };
        assert_eq!(settings(&[]), "{}");
        let all = [
            ("features.a.b", "1"),
            ("features.x\"", "[]"),
            ("capacity", "3"),
            ("rate.moves", "{\"perSecond\":1,\"burst\":2}"),
            ("cooldownMs.messages", "5"),
        ];
        let text = settings(&all);
        assert_eq!(
            text,
            "{\"capacity\":3,\"cooldownMs\":{\"messages\":5},\"features\":{\"a.b\":1,\"x\\\"\":[]},\
             \"rate\":{\"moves\":{\"perSecond\":1,\"burst\":2}}}"
        );
        let again = settings_of(&text).unwrap();
        let again = again
            .into_iter()
            .map(|(name, value)| (name, value.as_str().to_owned()));
        assert_eq!(config_text(&again.collect()), text);
        let config = RoomConfig::read(text.as_bytes());
        assert_eq!(config.capacity, Some(3));
        assert_eq!(config.rate["moves"].burst, 2.0);
        assert_eq!(config.cooldown_ms["messages"], 5);
        assert_eq!(RoomConfig::read(b"?"), RoomConfig::default());
        assert_eq!(
            settings(&[("features.a", "1"), ("images", "true")]),
            "{\"features\":{\"a\":1},\"images\":true}"
        );
    }
}
