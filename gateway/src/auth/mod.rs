//! Who a connection is.

use roomgate_shared::ids::UserId;

use crate::session::Identity;

/// The identity of an anonymous connection: `?user=` and `?name=` where given, else made up from the connection's number.
///
/// # Errors
/// A message for the client, where one of them is not acceptable.
pub fn anonymous(query: &str, nonce: u64, counter: u64) -> Result<Identity, String> {
    let (mut user, mut name) = (None, None);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "user" => user = Some(UserId::new(value).map_err(|e| format!("user: {e}"))?),
            // A name is what a user id is: printable and short.
            "name" => {
                name =
                    Some(UserId::new(value).map_err(|_| "name: a name has 1 to 128 printable characters")?);
            }
            _ => {}
        }
    }
    let user = match user {
        Some(user) => user,
        None => {
            UserId::new(format!("anonymous-{:08x}{counter:x}", nonce as u32)).map_err(|e| e.to_string())?
        }
    };
    let name = name.map_or_else(|| user.to_string(), |name| name.to_string());
    Ok(Identity { user, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_the_user() {
        let identity = anonymous("user=u-7&name=Zo%C3%AB%20Q+x&token=secret", 1, 2).unwrap();
        assert_eq!(
            (identity.user.as_str(), identity.name.as_str()),
            ("u-7", "Zoë Q x")
        );
        assert!(anonymous("user=", 1, 2).is_err());
        assert!(anonymous("user=a%00b", 1, 2).is_err());
        assert!(anonymous("name=a%0Ab", 1, 2).is_err());
    }

    #[test]
    fn users_are_made_up_apart() {
        let (a, b) = (anonymous("", 1, 2).unwrap(), anonymous("", 1, 3).unwrap());
        assert_ne!(a.user, b.user);
        assert_eq!(a.user.as_str(), a.name);
    }
}
