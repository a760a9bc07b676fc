//! In a batch: moderation, configuration, status, and messages after they were sent.

use roomgate_shared::{
    ids::UserId,
    protocol::{
        ErrorCode, JsonText, Lane, MAX_CONFIG_BYTES,
        codec::is_image_url,
        command::{Moderation, RoomStatus},
        config::{ConfigChange, config_text},
        event::{EventType, MessageParts},
        json::quoted,
    },
};

use super::{Batch, message_ack, seq_ack};
use crate::store::{
    Action, CommandKey, Done, PresenceMode, Refusal, Reply,
    memory::{
        commands::First,
        rules::{EVER, KICKED},
    },
};

/// Messages looked at for one comparison.
const MOST_COMPARED: usize = 2000;

impl Batch<'_> {
    /// `data` of the event `seq`, as far as the log reaches.
    fn told(&self, seq: u64) -> Option<String> {
        let event = self.room.logged(seq)?;
        let text = std::str::from_utf8(event).ok()?;
        let (_, data) = text.split_once("\"data\":")?;
        data.strip_suffix('}').map(str::to_owned)
    }

    fn message(&self, id: &str) -> Option<&str> {
        self.room.messages.get(id).map(|(_, text)| text.as_str())
    }

    /// A message that the user may change, taken apart.
    fn changeable(
        &mut self,
        by: &UserId,
        id: &str,
        moderates: bool,
    ) -> Result<(String, MessageParts), Refusal> {
        self.room.rules.hindered(Lane::Messages, by.as_str(), self.now)?;
        let no_message = || Refusal::new(ErrorCode::NotFound, "there is no such message");
        let text = self.message(id).ok_or_else(no_message)?.to_owned();
        let parts = MessageParts::read(&text).ok_or_else(no_message)?;
        if parts.by != by.as_str() && !moderates {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "only its author and moderators may change a message",
            ));
        }
        Ok((text, parts))
    }

    pub(super) fn message_edit(
        &mut self,
        by: &UserId,
        key: Option<CommandKey>,
        id: &str,
        body: &JsonText,
        if_version: Option<u64>,
        moderates: bool,
    ) -> Reply {
        if let Some(first) = self.first(by, key.as_ref())? {
            let text = self
                .told(first.seq)
                .or_else(|| self.message(id).map(str::to_owned));
            let gone = || Refusal::new(ErrorCode::NotFound, "the message is deleted by now");
            return Ok(Done::Again(message_ack(&text.ok_or_else(gone)?)));
        }
        let (text, parts) = self.changeable(by, id, moderates)?;
        self.room.rules.fits(&parts.kind, body.len())?;
        if parts.kind == "image" && !is_image_url(body.as_str()) {
            return Err(Refusal::new(
                ErrorCode::BadRequest,
                "`body` of an image is a data URL: data:image/(png|jpeg|gif|webp);base64,…",
            ));
        }
        if if_version.is_some_and(|version| version != parts.version) {
            return Err(Refusal {
                details: Some(format!(r#""version":{},"message":{text}"#, parts.version)),
                ..Refusal::new(ErrorCode::Conflict, "the message has another version")
            });
        }
        let edited = parts.edited(&text, body.as_str(), self.now);
        if let Some((_, kept)) = self.room.messages.get_mut(id) {
            kept.clone_from(&edited);
        }
        let data = edited.clone();
        let seq = self.event(EventType::MessageEdited, Some(by.as_str()), |_, _| data);
        self.keep(by, key, seq);
        Ok(Done::Ack(message_ack(&edited)))
    }

    pub(super) fn message_delete(
        &mut self,
        by: &UserId,
        key: Option<CommandKey>,
        id: &str,
        moderates: bool,
    ) -> Reply {
        if let Some(first) = self.first(by, key.as_ref())? {
            return Ok(Done::Again(seq_ack(first.seq)));
        }
        self.changeable(by, id, moderates)?;
        self.room.messages.remove(id);
        let data = format!(r#"{{"messageId":"{id}"}}"#);
        let seq = self.event(EventType::MessageDeleted, Some(by.as_str()), |_, _| data);
        self.keep(by, key, seq);
        Ok(Done::Ack(seq_ack(seq)))
    }

    pub(super) fn message_missing(&self, from: u64, to: u64, ids: &[(String, Option<u64>)]) -> Reply {
        let known: std::collections::HashMap<_, _> = ids.iter().map(|(id, version)| (id, version)).collect();
        let (mut missing, mut changed, mut bytes, mut next) = (Vec::new(), Vec::new(), 0, None);
        let sent = self
            .room
            .messages
            .iter()
            .filter(|(_, (ts, _))| (from..=to).contains(ts));
        for (count, (id, (ts, text))) in sent.enumerate() {
            let list = match known.get(id) {
                None => &mut missing,
                Some(Some(version))
                    if MessageParts::read(text).is_some_and(|parts| parts.version != *version) =>
                {
                    &mut changed
                }
                Some(_) => {
                    if count >= MOST_COMPARED {
                        next = Some(*ts);
                        break;
                    }
                    continue;
                }
            };
            if count >= MOST_COMPARED || bytes > 0 && bytes + text.len() > self.limits.page_bytes {
                next = Some(*ts);
                break;
            }
            bytes += text.len();
            list.push(text.as_str());
        }
        let gone = ids.iter().filter(|(id, _)| !self.room.messages.contains_key(id));
        let gone: Vec<String> = gone.map(|(id, _)| quoted(id)).collect();
        let next = next.map_or_else(String::new, |next| format!(r#","next":{next}"#));
        Ok(Done::Ack(format!(
            r#"{{"missing":[{}],"changed":[{}],"gone":[{}]{next}}}"#,
            missing.join(","),
            changed.join(","),
            gone.join(",")
        )))
    }

    pub(super) fn moderate(
        &mut self,
        by: &UserId,
        key: Option<CommandKey>,
        action: Action,
        about: &Moderation,
    ) -> Reply {
        if let Some(first) = self.first(by, key.as_ref())? {
            return Ok(Done::Again(seq_ack(first.seq)));
        }
        self.room.rules.shut_out(by.as_str(), self.now)?;
        self.flush_presence();
        let (id, now) = (about.user.as_str(), self.now);
        let ends = about.duration_ms.map_or(EVER, |ms| now.saturating_add(ms));
        let lasts = ends != EVER && matches!(action, Action::Mute | Action::Ban);
        let mut data = format!(r#"{{"user":{}"#, quoted(id));
        if lasts {
            data.push_str(&format!(r#","until":{ends}"#));
        }
        if let Some(reason) = &about.reason {
            data.push_str(&format!(r#","reason":{}"#, quoted(reason)));
        }
        data.push('}');
        let mut more = String::new();
        if ends != EVER {
            more.push_str(&format!(r#","until":{ends}"#));
        }
        if let Some(reason) = &about.reason {
            more.push_str(&format!(r#","note":{}"#, quoted(reason)));
        }
        let kicked = format!("{KICKED}{id}");
        let rules = &mut self.room.rules;
        let event = match action {
            Action::Kick => {
                if !self.put_out(id, "kicked", &more) {
                    return Err(Refusal::new(ErrorCode::NotFound, "the user is not in the room"));
                }
                if ends != EVER {
                    self.room.rules.bans.insert(kicked, ends);
                }
                None
            }
            Action::Mute => {
                rules.mutes.insert(id.to_owned(), ends);
                Some(EventType::UserMuted)
            }
            Action::Unmute => {
                let muted = rules.mutes.remove(id).is_some_and(|ends| ends > now);
                muted.then_some(EventType::UserUnmuted)
            }
            Action::Ban => {
                rules.bans.insert(id.to_owned(), ends);
                Some(EventType::UserBanned)
            }
            Action::Unban => {
                let all = [rules.bans.remove(id), rules.bans.remove(&kicked)];
                let any = all.into_iter().flatten().any(|ends| ends > now);
                any.then_some(EventType::UserUnbanned)
            }
        };
        if let Some(event) = event {
            self.event(event, Some(by.as_str()), |_, _| data);
        }
        if action == Action::Ban {
            self.put_out(id, "banned", &more);
        }
        let seq = self.room.seq;
        self.keep(by, key, seq);
        Ok(Done::Ack(seq_ack(seq)))
    }

    /// Puts a member out, by an event of its own, in a room that counts, too; `more` is told of it, JSON behind a comma.
    /// Whether it was one.
    fn put_out(&mut self, id: &str, reason: &'static str, more: &str) -> bool {
        let Some(user) = self.room.users.get(id) else {
            return false;
        };
        let since = user.away.unwrap_or(self.now);
        self.flush_presence();
        self.room.remove(id, since);
        let data = format!(
            r#"{{"left":[{{"user":{},"reason":"{reason}"{more}}}]}}"#,
            quoted(id)
        );
        self.event(EventType::Presence, None, |_, _| data);
        self.room.active = self.now;
        true
    }

    pub(super) fn configure(&mut self, by: &UserId, key: Option<CommandKey>, change: ConfigChange) -> Reply {
        if let Some(first) = self.first(by, key.as_ref())? {
            let config = self.told(first.seq).and_then(|data| {
                let config = data.strip_prefix("{\"config\":")?.strip_suffix('}')?;
                Some(config.to_owned())
            });
            let config = config.unwrap_or_else(|| self.room.rules.config_text());
            return Ok(Done::Again(config_ack(&config, first.seq)));
        }
        self.room.rules.shut_out(by.as_str(), self.now)?;
        let mut settings = self.room.rules.settings.clone();
        settings.extend(
            change
                .set
                .into_iter()
                .map(|(name, value)| (name, value.as_str().to_owned())),
        );
        change.remove.iter().for_each(|name| {
            settings.remove(name);
        });
        let text = config_text(&settings);
        if text.len() > MAX_CONFIG_BYTES {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                format!("a configuration has at most {MAX_CONFIG_BYTES} bytes"),
            ));
        }
        self.flush_presence();
        self.room.rules.set(settings);
        let data = format!(r#"{{"config":{text}}}"#);
        let seq = self.event(EventType::RoomConfigured, Some(by.as_str()), |_, _| data);
        self.retell();
        self.keep(by, key, seq);
        Ok(Done::Ack(config_ack(&text, seq)))
    }

    /// What members are told of each other may be another thing from now on.
    fn retell(&mut self) {
        let before = self.telling;
        let wish = self.room.wish(self.limits);
        let many = self.room.users.len() as u64 > self.limits.full_members;
        self.room.counting =
            wish == PresenceMode::Full && many && (before != PresenceMode::Full || self.room.counting);
        self.telling = self.room.telling(self.limits);
        if self.telling == before {
            return;
        }
        match self.telling {
            PresenceMode::Full => {
                self.turned = Some(PresenceMode::Full);
                self.tell_all();
            }
            PresenceMode::Count => self.turned = Some(PresenceMode::Count),
            PresenceMode::Off => {}
        }
    }

    pub(super) fn status(&mut self, by: &UserId, key: Option<CommandKey>, status: RoomStatus) -> Reply {
        if let Some(first) = self.first(by, key.as_ref())? {
            return Ok(Done::Again(seq_ack(first.seq)));
        }
        if self.room.rules.is_completed() {
            return Err(super::closed());
        }
        self.room.rules.shut_out(by.as_str(), self.now)?;
        self.flush_presence();
        if status != self.room.rules.status {
            self.set_status(status, Some(by.as_str()));
        }
        let seq = self.room.seq;
        self.keep(by, key, seq);
        Ok(Done::Ack(seq_ack(seq)))
    }

    pub(super) fn set_status(&mut self, status: RoomStatus, by: Option<&str>) {
        self.room.rules.status = status;
        if status == RoomStatus::Completed {
            self.room.completed = self.now;
            self.room.swept = 0;
        }
        let data = format!(r#"{{"status":"{}"}}"#, status.as_str());
        self.event(EventType::RoomStatus, by, |_, _| data);
    }

    /// What the command did, if it has happened.
    fn first(&mut self, by: &UserId, key: Option<&CommandKey>) -> Result<Option<First>, Refusal> {
        let Some(key) = key else { return Ok(None) };
        self.make(by.as_str(), key);
        self.room.commands.first(by.as_str(), key)
    }

    fn keep(&mut self, by: &UserId, key: Option<CommandKey>, seq: u64) {
        if let Some(key) = key {
            let first = First {
                seq,
                ts: self.now,
                version: 0,
            };
            self.room.commands.remember(by.as_str(), &key, first);
        }
    }
}

fn config_ack(config: &str, seq: u64) -> String {
    format!(r#"{{"config":{config},"seq":{seq}}}"#)
}
