//! What a room demands of commands: who is muted or banned, rates, pauses, sizes, its status.

use std::collections::{BTreeMap, HashMap};

use roomgate_shared::protocol::{
    ErrorCode, Lane,
    command::RoomStatus,
    config::{RoomConfig, config_text},
    json::quoted,
};

use crate::store::Refusal;

/// For ever.
pub(super) const EVER: u64 = u64::MAX;
/// Stands before the id of a user that was put out for a time, among the bans.
pub(super) const KICKED: char = '\u{1e}';

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) status: RoomStatus,
    /// Setting → JSON text.
    pub(super) settings: BTreeMap<String, String>,
    /// What they come to.
    pub(super) config: RoomConfig,
    /// The room was restored once: it is archived when its life ends.
    pub(super) again: bool,
    /// User id → when it ends, Unix ms.
    pub(super) mutes: BTreeMap<String, u64>,
    /// Likewise.
    pub(super) bans: BTreeMap<String, u64>,
    paces: HashMap<Lane, (f64, u64)>,
    cooldowns: HashMap<(Lane, String), u64>,
}

impl Rules {
    /// The configuration as clients get it.
    pub(super) fn config_text(&self) -> String {
        config_text(&self.settings)
    }

    pub(super) fn is_completed(&self) -> bool {
        self.status == RoomStatus::Completed
    }

    /// The settings are these from now on.
    pub(super) fn set(&mut self, settings: BTreeMap<String, String>) {
        self.config = RoomConfig::read(config_text(&settings).as_bytes());
        self.settings = settings;
    }

    /// Forgets what has ended.
    pub(super) fn forget(&mut self, now: u64) {
        self.mutes.retain(|_, ends| *ends > now);
        self.bans.retain(|_, ends| *ends > now);
        self.cooldowns.retain(|_, ends| *ends > now);
    }

    /// A text for gateways; `None` where there is nothing to know.
    pub(super) fn text(&self, now: u64) -> Option<String> {
        if self.settings.is_empty() && self.mutes.is_empty() {
            return None;
        }
        let mutes = self.mutes.iter().filter(|(_, ends)| **ends > now);
        let mutes = mutes.map(|(user, ends)| {
            let ends = if *ends == EVER { 0 } else { *ends };
            format!("{}:{ends}", quoted(user))
        });
        Some(format!(
            r#"{{"config":{},"mutes":{{{}}}}}"#,
            self.config_text(),
            mutes.collect::<Vec<_>>().join(",")
        ))
    }

    /// Whether bodies of messages are looked at.
    pub(super) fn is_strict(&self) -> bool {
        self.config.images.is_some() || self.config.max_message_bytes.is_some()
    }

    /// # Errors
    /// Bans, mutes, pauses and rates: the command does not count.
    pub(super) fn hindered(&mut self, lane: Lane, user: &str, now: u64) -> Result<(), Refusal> {
        self.shut_out(user, now)?;
        if let Some(&ends) = self.mutes.get(user)
            && ends > now
        {
            return Err(until(ErrorCode::Muted, "you are muted in this room", ends));
        }
        self.paced(lane, user, now)
    }

    /// # Errors
    /// Pauses and rates alone.
    pub(super) fn paced(&mut self, lane: Lane, user: &str, now: u64) -> Result<(), Refusal> {
        let pause = self
            .config
            .cooldown_ms
            .get(lane.as_str())
            .copied()
            .filter(|&ms| ms > 0);
        let key = (lane, user.to_owned());
        if pause.is_some()
            && let Some(&ends) = self.cooldowns.get(&key)
            && ends > now
        {
            return Err(Refusal {
                retry_ms: Some(ends - now),
                ..Refusal::new(ErrorCode::Cooldown, "slow mode: one at a time")
            });
        }
        if let Some(rate) = self.config.rate.get(lane.as_str()) {
            let (tokens, at) = self.paces.get(&lane).copied().unwrap_or((rate.burst, now));
            let tokens = (tokens + now.saturating_sub(at) as f64 * rate.per_second / 1e3).min(rate.burst);
            if tokens < 1.0 {
                let retry = ((1.0 - tokens) * 1e3 / rate.per_second).ceil() as u64;
                return Err(Refusal {
                    retry_ms: Some(retry),
                    ..Refusal::new(ErrorCode::RateLimited, "the room takes no more of these now")
                });
            }
            self.paces.insert(lane, (tokens - 1.0, now));
        }
        if let Some(pause) = pause {
            self.cooldowns.insert(key, now + pause);
        }
        Ok(())
    }

    /// # Errors
    /// The user may not come in.
    pub(super) fn shut_out(&self, user: &str, now: u64) -> Result<(), Refusal> {
        let standing = |name: &str| self.bans.get(name).copied().filter(|&ends| ends > now);
        if let Some(ends) = standing(user) {
            return Err(until(ErrorCode::Banned, "you are banned from this room", ends));
        }
        if let Some(ends) = standing(&format!("{KICKED}{user}")) {
            return Err(until(
                ErrorCode::Kicked,
                "you were put out of this room for a time",
                ends,
            ));
        }
        Ok(())
    }

    /// # Errors
    /// A body of this kind and so many bytes is not allowed here.
    pub(super) fn fits(&self, kind: &str, bytes: usize) -> Result<(), Refusal> {
        if self.config.images == Some(false) && kind == "image" {
            return Err(Refusal::new(ErrorCode::BadRequest, "this room takes no images"));
        }
        match self.config.max_message_bytes {
            Some(most) if bytes as u64 > most => Err(Refusal::new(
                ErrorCode::TooLarge,
                format!("`body` has {bytes} bytes; this room takes {most}"),
            )),
            Some(_) | None => Ok(()),
        }
    }
}

fn until(code: ErrorCode, message: &'static str, ends: u64) -> Refusal {
    Refusal {
        details: (ends != EVER).then(|| format!(r#""until":{ends}"#)),
        ..Refusal::new(code, message)
    }
}
