//! Reading clients' frames: the only user of simd-json.
//!
//! A frame is parsed once, into a tape, with a limit on depth; the tape gives the envelope, and later (after
//! permission and membership are known) the command's data. Payloads are written out again as compact text, so what
//! is stored and passed on is valid JSON without white space, whatever the client sent.

use simd_json::{Buffers, Tape};
use twox_hash::XxHash3_64;

use super::{
    DEFAULT_PAGE, MAX_BATCH, MAX_BROADCAST_BYTES, MAX_DEPTH, MAX_KNOWN_MESSAGES, MAX_MODERATION_MS,
    MAX_MOVE_BYTES, MAX_NAME_CHARS, MAX_PAGE, MAX_PRESENCE_BYTES, MAX_REASON_CHARS, MAX_SIGNAL_BYTES,
    MAX_SIGNAL_TO, MAX_STATE_BYTES,
    codes::ErrorCode,
    command::{Command, CommandType, Fields, MessageKind, Moderation, RoomStatus, Since},
    config::ConfigChange,
    json::JsonText,
    tape::Json,
};
use crate::ids::{CommandId, IdError, RoomId, UserId};

/// Above this capacity the scratch space is given back after a frame, so one large frame is not paid for ever.
const KEEP_SCRATCH_BYTES: usize = 64 * 1024;

/// A frame, or an element of a batch, that is no command. Answered by `bad_request`; ten frames of the kind within a
/// minute end the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON, or a number that fits neither 64 bits nor a double, or an unpaired surrogate.
    #[error("the frame is not valid JSON, or has an integer beyond 64 bits")]
    NotJson,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("the frame is nested deeper than 32 levels")]
    TooDeep,
    /// Neither an object nor an array of some, or without a string `type`.
    #[error("a command is an object with a string `type`")]
    NotACommand,
    /// An array of more than [`MAX_BATCH`].
    #[error("an array holds 1 to 64 commands")]
    BatchSize,
    /// `id` is no command id.
    #[error("`id`: {0}")]
    Id(IdError),
}

/// Why a command's data was not accepted: a code of the protocol and a message for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// `bad_request` or `too_large`.
    pub code: ErrorCode,
    /// Names the field and what it accepts.
    pub message: String,
}

pub(super) fn bad(message: impl Into<String>) -> Refused {
    Refused {
        code: ErrorCode::BadRequest,
        message: message.into(),
    }
}

pub(super) fn too_large(message: impl Into<String>) -> Refused {
    Refused {
        code: ErrorCode::TooLarge,
        message: message.into(),
    }
}

/// A command whose envelope is read and whose data is not yet.
pub struct Incoming<'t, 'f> {
    /// The id to answer under.
    pub id: Option<CommandId>,
    /// The type, or `None` for one that this version does not know.
    pub kind: Option<CommandType>,
    room: Option<Json<'t, 'f>>,
    data: Option<Json<'t, 'f>>,
}

impl Incoming<'_, '_> {
    /// The room named.
    ///
    /// # Errors
    /// `bad_request` where it is absent or no room id.
    pub fn room(&self) -> Result<RoomId, Refused> {
        match self.room.map(Json::text) {
            Some(Some(room)) => RoomId::new(room).map_err(|e| bad(format!("`room`: {e}"))),
            Some(None) => Err(bad("`room` is a string")),
            None => Err(bad("`room` is missing")),
        }
    }

    /// A hash of the command's type and data, equal where the data are equal as JSON values. No data are as good as
    /// empty ones.
    pub fn fingerprint(&self, kind: CommandType) -> u64 {
        let empty = |data: Json<'_, '_>| data.members().is_some_and(|members| members.count() == 0);
        let data = self
            .data
            .filter(|data| !empty(*data))
            .map_or(0, Json::fingerprint);
        XxHash3_64::oneshot_with_seed(data, kind.as_str().as_bytes())
    }

    /// The command with its data checked against the protocol's form and fixed limits.
    ///
    /// # Errors
    /// `bad_request` or `too_large`, naming the field.
    pub fn command(&self, kind: CommandType) -> Result<Command, Refused> {
        if self.data.is_some_and(|data| data.members().is_none()) {
            return Err(bad("`data` is an object"));
        }
        let data = Data(self.data);
        Ok(match kind {
            CommandType::Auth => Command::Auth {
                token: data.required_string("token")?,
            },
            CommandType::Ping => Command::Ping,
            CommandType::Join => Command::Join {
                since: data.since()?,
                presence: data.presence("presence")?,
                messages: data.count("messages", 0, MAX_PAGE, DEFAULT_PAGE)?,
            },
            CommandType::Leave => Command::Leave,
            CommandType::PresenceUpdate => {
                let (set, remove) = (data.presence("set")?, data.names("remove")?.unwrap_or_default());
                distinct(set.iter().map(|(name, _)| name).chain(&remove))?;
                Command::PresenceUpdate { set, remove }
            }
            CommandType::Move => Command::Move {
                position: data.position()?,
            },
            CommandType::Signal => Command::Signal {
                event: data.name("event")?,
                payload: data.payload("payload", MAX_SIGNAL_BYTES)?,
                to: data.users("to")?,
            },
            CommandType::Broadcast => Command::Broadcast {
                event: data.name("event")?,
                payload: data.payload("payload", MAX_BROADCAST_BYTES)?,
            },
            CommandType::MessageSend => data.message()?,
            CommandType::MessageEdit => Command::MessageEdit {
                message_id: data.message_id()?,
                body: data.payload("body", usize::MAX)?,
                if_version: data.version()?,
            },
            CommandType::MessageDelete => Command::MessageDelete {
                message_id: data.message_id()?,
            },
            CommandType::MessageMissing => data.missing()?,
            CommandType::MessageHistory => {
                let (before, after) = (data.string("before")?, data.string("after")?);
                if before.is_some() && after.is_some() {
                    return Err(bad("`before` and `after` exclude each other"));
                }
                Command::MessageHistory {
                    before,
                    after,
                    limit: data.count("limit", 1, MAX_PAGE, DEFAULT_PAGE)?,
                }
            }
            CommandType::StateGet => {
                let fields = data.names("fields")?;
                distinct(fields.iter().flatten())?;
                Command::StateGet { fields }
            }
            CommandType::StatePatch => data.state_patch()?,
            CommandType::UsersList => Command::UsersList {
                cursor: data.string("cursor")?,
                limit: data.count("limit", 1, MAX_PAGE, DEFAULT_PAGE)?,
            },
            CommandType::UserKick => Command::UserKick(data.moderation()?),
            CommandType::UserMute => Command::UserMute(data.moderation()?),
            CommandType::UserUnmute => Command::UserUnmute(data.moderation()?),
            CommandType::UserBan => Command::UserBan(data.moderation()?),
            CommandType::UserUnban => Command::UserUnban(data.moderation()?),
            CommandType::RoomConfigure => {
                let data = self.data.ok_or_else(|| bad("`data` is missing"))?;
                Command::RoomConfigure(ConfigChange::read(data)?)
            }
            CommandType::RoomStatus => {
                let status = data.required_string("status")?;
                let status = RoomStatus::parse(&status);
                Command::RoomStatus {
                    status: status.ok_or_else(|| bad("`status` is waiting, active or completed"))?,
                }
            }
        })
    }
}

/// Reads frames with scratch space that it keeps from one to the next. One is enough for a thread.
pub struct Decoder {
    buffers: Buffers,
    tape: Option<Tape<'static>>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            buffers: Buffers::with_max_depth(1024, MAX_DEPTH),
            tape: None,
        }
    }
}

impl Decoder {
    /// Reads one frame, whose bytes are changed in place, and hands each command or fault in it to `each`, in order.
    /// A frame that is wrong as a whole gives one fault and nothing else.
    pub fn decode(&mut self, frame: &mut [u8], mut each: impl FnMut(Result<Incoming<'_, '_>, Malformed>)) {
        let size = frame.len();
        let mut tape = self.tape.take().unwrap_or_else(|| Tape(Vec::new())).reset();
        match simd_json::fill_tape(frame, &mut self.buffers, &mut tape) {
            Ok(()) => read_frame(Json::root(&tape.0), &mut each),
            Err(error) => {
                let too_deep = matches!(error.error(), simd_json::ErrorType::DepthLimitExceeded);
                each(Err(if too_deep {
                    Malformed::TooDeep
                } else {
                    Malformed::NotJson
                }));
            }
        }
        if size > KEEP_SCRATCH_BYTES {
            *self = Self::default();
        } else {
            self.tape = Some(tape.reset());
        }
    }
}

fn read_frame<'t, 'f>(root: Json<'t, 'f>, each: &mut impl FnMut(Result<Incoming<'t, 'f>, Malformed>)) {
    if let Some(commands) = root.items() {
        if commands.len() == 0 {
            return each(Err(Malformed::NotACommand));
        }
        if commands.len() > MAX_BATCH {
            return each(Err(Malformed::BatchSize));
        }
        for command in commands {
            each(read_command(command));
        }
    } else {
        each(read_command(root));
    }
}

fn read_command<'t, 'f>(value: Json<'t, 'f>) -> Result<Incoming<'t, 'f>, Malformed> {
    let (mut kind, mut id, mut room, mut data) = (None, None, None, None);
    for (name, member) in value.members().ok_or(Malformed::NotACommand)? {
        match name {
            "type" => kind = Some(member),
            "id" => id = Some(member),
            "room" => room = Some(member),
            "data" => data = Some(member),
            _ => {}
        }
    }
    let kind = kind.and_then(Json::text).ok_or(Malformed::NotACommand)?;
    let id = present(id)
        .map(|id| {
            id.text()
                .ok_or(IdError::Command)
                .and_then(CommandId::new)
                .map_err(Malformed::Id)
        })
        .transpose()?;
    Ok(Incoming {
        id,
        kind: CommandType::parse(kind),
        room: present(room),
        data: present(data),
    })
}

/// A member that is there and not `null`: clients in typed languages send `null` for what they leave out.
fn present<'t, 'f>(value: Option<Json<'t, 'f>>) -> Option<Json<'t, 'f>> {
    value.filter(|v| !v.is_null())
}

pub(super) fn check_name(what: &str, name: &str) -> Result<(), Refused> {
    let short =
        !name.is_empty() && name.len() <= 4 * MAX_NAME_CHARS && name.chars().count() <= MAX_NAME_CHARS;
    if short {
        Ok(())
    } else {
        Err(bad(format!(
            "`{what}`: a name has 1 to {MAX_NAME_CHARS} characters"
        )))
    }
}

/// Message ids are made by the server; what cannot be one need not be looked for.
fn check_message_id(what: &str, id: &str) -> Result<(), Refused> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if (1..=64).contains(&id.len()) && id.bytes().all(plain) {
        Ok(())
    } else {
        Err(bad(format!("`{what}`: not a message id")))
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), Refused> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(bad(format!("field {} stands twice", super::json::quoted(name))));
        }
    }
    Ok(())
}

/// The members of `data`, each read by name and checked.
struct Data<'t, 'f>(Option<Json<'t, 'f>>);

impl<'t, 'f> Data<'t, 'f> {
    fn get(&self, name: &str) -> Option<Json<'t, 'f>> {
        present(self.0?.get(name))
    }

    fn string(&self, name: &str) -> Result<Option<String>, Refused> {
        self.get(name)
            .map(|v| {
                v.text()
                    .map(str::to_owned)
                    .ok_or_else(|| bad(format!("`{name}` is a string")))
            })
            .transpose()
    }

    fn required_string(&self, name: &str) -> Result<String, Refused> {
        self.string(name)?
            .ok_or_else(|| bad(format!("`{name}` is missing")))
    }

    fn name(&self, name: &str) -> Result<String, Refused> {
        let value = self.required_string(name)?;
        check_name(name, &value)?;
        Ok(value)
    }

    fn count(&self, name: &str, min: usize, max: usize, default: usize) -> Result<usize, Refused> {
        let Some(value) = self.get(name) else {
            return Ok(default);
        };
        value
            .integer()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| (min..=max).contains(n))
            .ok_or_else(|| bad(format!("`{name}` is an integer from {min} to {max}")))
    }

    /// The data themselves, as a position.
    fn position(&self) -> Result<JsonText, Refused> {
        let data = self
            .0
            .filter(|data| data.members().is_some_and(|members| members.count() > 0));
        let position = data
            .ok_or_else(|| bad("`data` is the position, such as {\"x\":4,\"y\":7}"))?
            .compact();
        if position.len() > MAX_MOVE_BYTES {
            return Err(too_large(format!(
                "`data` has {} bytes; {MAX_MOVE_BYTES} are allowed",
                position.len()
            )));
        }
        Ok(position)
    }

    fn payload(&self, name: &str, max: usize) -> Result<JsonText, Refused> {
        // `null` is a value here, unlike elsewhere.
        let value = self
            .0
            .and_then(|data| data.get(name))
            .ok_or_else(|| bad(format!("`{name}` is missing")))?;
        let json = value.compact();
        if json.len() > max {
            return Err(too_large(format!(
                "`{name}` has {} bytes; {max} are allowed",
                json.len()
            )));
        }
        Ok(json)
    }

    fn names(&self, name: &str) -> Result<Option<Vec<String>>, Refused> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let array = value
            .items()
            .ok_or_else(|| bad(format!("`{name}` is a list of names")))?;
        let mut names = Vec::with_capacity(array.len());
        for item in array {
            let item = item
                .text()
                .ok_or_else(|| bad(format!("`{name}` is a list of names")))?;
            check_name(name, item)?;
            names.push(item.to_owned());
        }
        Ok(Some(names))
    }

    fn fields(&self, name: &str) -> Result<Fields, Refused> {
        let Some(value) = self.get(name) else {
            return Ok(Vec::new());
        };
        let members = value
            .members()
            .ok_or_else(|| bad(format!("`{name}` is an object")))?;
        let mut fields = Vec::new();
        for (key, item) in members {
            check_name(name, key)?;
            fields.push((key.to_owned(), item.compact()));
        }
        distinct(fields.iter().map(|(key, _)| key))?;
        Ok(fields)
    }

    fn presence(&self, name: &str) -> Result<Fields, Refused> {
        let fields = self.fields(name)?;
        let bytes: usize = fields.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > MAX_PRESENCE_BYTES {
            return Err(too_large(format!(
                "`{name}` has {bytes} bytes; {MAX_PRESENCE_BYTES} are allowed"
            )));
        }
        Ok(fields)
    }

    fn users(&self, name: &str) -> Result<Option<Vec<UserId>>, Refused> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let array = value
            .items()
            .ok_or_else(|| bad(format!("`{name}` is a list of user ids")))?;
        if array.len() > MAX_SIGNAL_TO {
            return Err(too_large(format!(
                "`{name}` names {} users; {MAX_SIGNAL_TO} are allowed",
                array.len()
            )));
        }
        let users = array.map(|item| {
            item.text()
                .ok_or(IdError::User)
                .and_then(UserId::new)
                .map_err(|e| bad(format!("`{name}`: {e}")))
        });
        users.collect::<Result<_, _>>().map(Some)
    }

    fn since(&self) -> Result<Option<Since>, Refused> {
        let Some(value) = self.get("since") else {
            return Ok(None);
        };
        let epoch = value
            .get("epoch")
            .and_then(Json::text)
            .filter(|e| (1..=64).contains(&e.len()));
        let seq = value.get("seq").and_then(Json::integer);
        match (epoch, seq) {
            (Some(epoch), Some(seq)) => Ok(Some(Since {
                epoch: epoch.to_owned(),
                seq,
            })),
            _ => Err(bad("`since` has a string `epoch` and an integer `seq`")),
        }
    }

    fn message(&self) -> Result<Command, Refused> {
        let kind = match self.string("kind")?.as_deref() {
            None | Some("text") => MessageKind::Text,
            Some("image") => MessageKind::Image,
            Some(_) => return Err(bad("`kind` is text or image")),
        };
        let body = self.payload("body", usize::MAX)?;
        if kind == MessageKind::Image && !is_image_url(body.as_str()) {
            return Err(bad(
                "`body` of an image is a data URL: data:image/(png|jpeg|gif|webp);base64,…",
            ));
        }
        Ok(Command::MessageSend { body, kind })
    }

    fn version(&self) -> Result<Option<u64>, Refused> {
        self.get("ifVersion")
            .map(|v| v.integer().ok_or_else(|| bad("`ifVersion` is an integer")))
            .transpose()
    }

    fn message_id(&self) -> Result<String, Refused> {
        let id = self.required_string("messageId")?;
        check_message_id("messageId", &id)?;
        Ok(id)
    }

    fn time(&self, name: &str) -> Result<u64, Refused> {
        self.get(name)
            .and_then(Json::integer)
            .ok_or_else(|| bad(format!("`{name}` is a time, Unix ms")))
    }

    fn missing(&self) -> Result<Command, Refused> {
        let (from, to) = (self.time("from")?, self.time("to")?);
        let wrong = || bad("`ids` is a list of message ids, or an object of message ids and versions");
        let value = self.get("ids").ok_or_else(wrong)?;
        let mut ids = Vec::new();
        if let Some(items) = value.items() {
            for item in items {
                ids.push((item.text().ok_or_else(wrong)?.to_owned(), None));
            }
        } else {
            for (id, version) in value.members().ok_or_else(wrong)? {
                ids.push((id.to_owned(), Some(version.integer().ok_or_else(wrong)?)));
            }
        }
        if ids.len() > MAX_KNOWN_MESSAGES {
            return Err(too_large(format!(
                "`ids` names {} messages; {MAX_KNOWN_MESSAGES} are allowed",
                ids.len()
            )));
        }
        ids.iter().try_for_each(|(id, _)| check_message_id("ids", id))?;
        distinct(ids.iter().map(|(id, _)| id))?;
        Ok(Command::MessageMissing { from, to, ids })
    }

    fn moderation(&self) -> Result<Moderation, Refused> {
        let user = self.required_string("user")?;
        let user = UserId::new(user).map_err(|e| bad(format!("`user`: {e}")))?;
        let reason = self.string("reason")?;
        if reason
            .as_ref()
            .is_some_and(|reason| reason.is_empty() || reason.chars().count() > MAX_REASON_CHARS)
        {
            return Err(bad(format!("`reason` has 1 to {MAX_REASON_CHARS} characters")));
        }
        let duration = self.get("durationMs").map(|value| {
            value
                .integer()
                .filter(|ms| (1..=MAX_MODERATION_MS).contains(ms))
                .ok_or_else(|| {
                    bad(format!(
                        "`durationMs` is an integer from 1 to {MAX_MODERATION_MS}"
                    ))
                })
        });
        Ok(Moderation {
            user,
            reason,
            duration_ms: duration.transpose()?,
        })
    }

    fn state_patch(&self) -> Result<Command, Refused> {
        let set = self.fields("set")?;
        let remove = self.names("remove")?.unwrap_or_default();
        let mut increment = Vec::new();
        if let Some(value) = self.get("increment") {
            let members = value
                .members()
                .ok_or_else(|| bad("`increment` is an object of numbers"))?;
            for (key, item) in members {
                check_name("increment", key)?;
                let by = item
                    .number()
                    .ok_or_else(|| bad("`increment` is an object of numbers"))?;
                increment.push((key.to_owned(), by));
            }
        }
        let names = set
            .iter()
            .map(|(k, _)| k)
            .chain(&remove)
            .chain(increment.iter().map(|(k, _)| k));
        distinct(names.clone())?;
        if names.count() == 0 {
            return Err(bad("a patch sets, removes or increments at least one field"));
        }
        let bytes: usize = set.iter().map(|(k, v)| k.len() + v.len()).sum();
        if bytes > MAX_STATE_BYTES {
            return Err(Refused {
                code: ErrorCode::StateTooLarge,
                message: format!("`set` has {bytes} bytes; a room's state may have {MAX_STATE_BYTES}"),
            });
        }
        let if_version = self.version()?;
        Ok(Command::StatePatch {
            set,
            remove,
            increment,
            if_version,
        })
    }
}

/// Whether compact JSON is a string that is a data URL of an accepted image type, with well-formed base64.
pub fn is_image_url(json: &str) -> bool {
    let Some(text) = json.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
        return false;
    };
    let Some(rest) = text.strip_prefix("data:image/") else {
        return false;
    };
    let Some(data) = ["png", "jpeg", "gif", "webp"]
        .iter()
        .find_map(|kind| rest.strip_prefix(kind)?.strip_prefix(";base64,"))
    else {
        return false;
    };
    let digits = data.trim_end_matches('=');
    !digits.is_empty()
        && data.len() % 4 == 0
        && data.len() - digits.len() <= 2
        && digits
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

#[cfg(test)]
mod tests;
