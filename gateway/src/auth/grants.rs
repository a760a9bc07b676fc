//! What a user may do in which room.

use std::sync::Arc;

use roomgate_shared::{
    ids::RoomId,
    protocol::{Permission, Permissions},
};

/// What an anonymous user may do in every room.
const ANONYMOUS: Permissions = Permissions::NONE
    .with(Permission::Join)
    .with(Permission::Send)
    .with(Permission::State);

/// Permissions by room. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grants {
    /// No token: join, send and state, everywhere.
    Anonymous,
    /// As a token says.
    Token(Arc<[Grant]>),
}

/// One entry of a token's `rooms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// A room id, or what room ids begin with.
    name: Box<str>,
    /// It is a beginning: a `*` stood behind it.
    is_prefix: bool,
    permissions: Permissions,
}

impl Grant {
    /// An entry of the map: a room id, or a pattern that ends in `*`, and the names of permissions.
    ///
    /// # Errors
    /// What is wrong, for the log of whoever makes tokens.
    pub fn new(room: &str, permissions: &[String]) -> Result<Self, String> {
        let (name, is_prefix) = match room.strip_suffix('*') {
            Some(name) => (name, true),
            None => (room, false),
        };
        // What comes before the star is a beginning of a room id, or nothing.
        let is_room = |text: &str| RoomId::new(text).is_ok();
        if !(is_room(name) || is_prefix && name.is_empty()) {
            return Err("rooms: a name is a room id, or what room ids begin with and *".to_owned());
        }
        let mut all = Permissions::NONE;
        for permission in permissions {
            all = match permission.as_str() {
                "*" => Permissions::ALL,
                name => match Permission::parse(name) {
                    Some(permission) => all.with(permission),
                    None => {
                        return Err(
                            "rooms: a permission is join, send, state, moderate, manage or *".to_owned()
                        );
                    }
                },
            };
        }
        Ok(Self {
            name: name.into(),
            is_prefix,
            permissions: all,
        })
    }

    fn matches(&self, room: &RoomId) -> bool {
        if self.is_prefix {
            room.as_str().starts_with(&*self.name)
        } else {
            room.as_str() == &*self.name
        }
    }
}

impl Grants {
    /// What is allowed in a room: all that matches adds up.
    pub fn of(&self, room: &RoomId) -> Permissions {
        match self {
            Grants::Anonymous => ANONYMOUS,
            Grants::Token(grants) => grants
                .iter()
                .filter(|grant| grant.matches(room))
                .fold(Permissions::NONE, |all, grant| all.or(grant.permissions)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(map: &[(&str, &[&str])]) -> Grants {
        let each = map.iter().map(|(room, permissions)| {
            let permissions: Vec<String> = permissions.iter().map(|name| (*name).to_owned()).collect();
            Grant::new(room, &permissions).unwrap()
        });
        Grants::Token(each.collect())
    }

    #[test]
    fn what_matches_adds_up() {
        let grants = grants(&[
            ("lobby", &["join", "send"]),
            ("team-*", &["join"]),
            ("team-7", &["moderate"]),
            ("admin-*", &["*"]),
        ]);
        let of = |room: &str| {
            let permissions = grants.of(&RoomId::new(room).unwrap());
            let held = Permission::ALL.iter().filter(|&&one| permissions.has(one));
            held.map(|one| one.as_str()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("lobby"), "join send");
        assert_eq!(of("lobby2"), "");
        assert_eq!(of("team-7"), "join moderate");
        assert_eq!(of("team-8"), "join");
        assert_eq!(of("team"), "");
        assert_eq!(of("admin-x"), "join send state moderate manage");
        let all = Grants::Token([Grant::new("*", &["join".to_owned()]).unwrap()].into());
        assert!(all.of(&RoomId::new("any").unwrap()).has(Permission::Join));
        assert!(
            !Grants::Anonymous
                .of(&RoomId::new("any").unwrap())
                .has(Permission::Moderate)
        );
    }

    #[test]
    fn what_is_no_grant_is_refused() {
        for (room, permission) in [
            ("a b", "join"),
            ("", "join"),
            ("a*b", "join"),
            ("lobby", "Join"),
            ("lobby", ""),
        ] {
            assert!(
                Grant::new(room, &[permission.to_owned()]).is_err(),
                "{room} {permission}"
            );
        }
    }
}
