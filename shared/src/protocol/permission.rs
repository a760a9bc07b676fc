//! What a token may allow in a room.

use super::CommandType;

/// One of the things that a token may allow in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// See the room: join it and read.
    Join,
    /// Messages, broadcasts, signals, moves, own presence.
    Send,
    /// Change the shared state.
    State,
    /// Change others' messages; mute, kick, ban.
    Moderate,
    /// Configure the room and change its status.
    Manage,
}

impl Permission {
    /// Every permission.
    pub const ALL: &'static [Permission] = &[
        Permission::Join,
        Permission::Send,
        Permission::State,
        Permission::Moderate,
        Permission::Manage,
    ];

    /// The permission's name in a token.
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::Join => "join",
            Permission::Send => "send",
            Permission::State => "state",
            Permission::Moderate => "moderate",
            Permission::Manage => "manage",
        }
    }

    /// The permission that `text` names, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.as_str() == text)
    }
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u8);

impl Permissions {
    /// None.
    pub const NONE: Self = Self(0);
    /// All: `*` in a token.
    pub const ALL: Self = Self(0b1_1111);

    /// These and one more.
    #[must_use]
    pub const fn with(self, permission: Permission) -> Self {
        Self(self.0 | 1 << permission as u8)
    }

    /// Those of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether one is among them.
    pub const fn has(self, permission: Permission) -> bool {
        self.0 & 1 << permission as u8 != 0
    }
}

impl CommandType {
    /// What a token must allow in the room for this command; `None` for those that concern no room. Others' messages need
    /// [`Permission::Moderate`] besides.
    pub fn permission(self) -> Option<Permission> {
        match self {
            CommandType::Auth | CommandType::Ping => None,
            CommandType::Join
            | CommandType::Leave
            | CommandType::MessageHistory
            | CommandType::MessageMissing
            | CommandType::StateGet
            | CommandType::UsersList => Some(Permission::Join),
            CommandType::PresenceUpdate
            | CommandType::Move
            | CommandType::Signal
            | CommandType::Broadcast
            | CommandType::MessageSend
            | CommandType::MessageEdit
            | CommandType::MessageDelete => Some(Permission::Send),
            CommandType::StatePatch => Some(Permission::State),
            CommandType::UserKick
            | CommandType::UserMute
            | CommandType::UserUnmute
            | CommandType::UserBan
            | CommandType::UserUnban => Some(Permission::Moderate),
            CommandType::RoomConfigure | CommandType::RoomStatus => Some(Permission::Manage),
        }
    }

    /// Whether a token with these permissions in the room allows the command. A moderator may change messages without
    /// being allowed to send any.
    pub fn is_allowed_by(self, permissions: Permissions) -> bool {
        let changes = matches!(self, CommandType::MessageEdit | CommandType::MessageDelete);
        let needed = self.permission();
        needed.is_none_or(|needed| permissions.has(needed))
            || changes && permissions.has(Permission::Moderate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        let some = Permissions::NONE.with(Permission::Join).with(Permission::Manage);
        let held: Vec<_> = Permission::ALL.iter().filter(|&&one| some.has(one)).collect();
        assert_eq!(held, [&Permission::Join, &Permission::Manage]);
        assert!(Permission::ALL.iter().all(|&one| Permissions::ALL.has(one)));
        assert_eq!(some.or(Permissions::ALL), Permissions::ALL);
        for &one in Permission::ALL {
            assert_eq!(Permission::parse(one.as_str()), Some(one));
        }
        assert_eq!(Permission::parse("*"), None);
    }
}
