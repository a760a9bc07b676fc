//! Lanes: kinds of commands whose rate is limited apart, in a room and for a user.

use super::CommandType;

/// A kind of commands that share a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Messages: sent, edited, deleted.
    Messages,
    /// Changes of the shared state and of presence.
    State,
    /// Positions.
    Moves,
    /// Custom events, durable and not.
    Broadcasts,
    /// Arrivals.
    Joins,
}

impl Lane {
    /// Every lane.
    pub const ALL: &'static [Lane] = &[
        Lane::Messages,
        Lane::State,
        Lane::Moves,
        Lane::Broadcasts,
        Lane::Joins,
    ];

    /// The lane's name in a room's configuration and in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Lane::Messages => "messages",
            Lane::State => "state",
            Lane::Moves => "moves",
            Lane::Broadcasts => "broadcasts",
            Lane::Joins => "joins",
        }
    }

    /// The lane that `text` names, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|lane| lane.as_str() == text)
    }
}

impl CommandType {
    /// The lane on which the command counts.
    pub fn lane(self) -> Option<Lane> {
        match self {
            CommandType::MessageSend | CommandType::MessageEdit | CommandType::MessageDelete => {
                Some(Lane::Messages)
            }
            CommandType::StatePatch | CommandType::PresenceUpdate => Some(Lane::State),
            CommandType::Move => Some(Lane::Moves),
            CommandType::Broadcast | CommandType::Signal => Some(Lane::Broadcasts),
            CommandType::Join => Some(Lane::Joins),
            CommandType::Auth
            | CommandType::Ping
            | CommandType::Leave
            | CommandType::MessageHistory
            | CommandType::MessageMissing
            | CommandType::StateGet
            | CommandType::UsersList
            | CommandType::UserKick
            | CommandType::UserMute
            | CommandType::UserUnmute
            | CommandType::UserBan
            | CommandType::UserUnban
            | CommandType::RoomConfigure
            | CommandType::RoomStatus => None,
        }
    }
}
