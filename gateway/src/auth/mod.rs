//! Who a connection is, and what it may do.
//!
//! | file | subject |
//! |---|---|
//! | [`token`] | what a JWT must be to be believed, and what it says |
//! | [`jwks`] | public keys from a file or a URL |
//! | [`grants`] | what is allowed in which room |
//! | this one | anonymous users, and where a request's token stands |

pub mod grants;
pub mod jwks;
pub mod token;

use axum::http::{HeaderMap, header};
use roomgate_shared::ids::UserId;

use self::{
    grants::Grants,
    token::{Token, TokenError, Verifier},
};

/// What stands before a token among the subprotocols: browsers can set no header.
const BEARER_SUBPROTOCOL: &str = "bearer.";

/// Who a connection is.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The name to show.
    pub name: String,
    /// What it may do.
    pub grants: Grants,
    /// The token that says so.
    pub token: Option<Held>,
}

/// What is kept of a token while its connection lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// When it ends, Unix ms.
    pub expires: u64,
    /// When it was made, Unix ms; 0 where it does not say.
    pub issued: u64,
    /// Its id.
    pub id: Option<Box<str>>,
}

impl From<Token> for Identity {
    fn from(token: Token) -> Self {
        Self {
            user: token.user,
            name: token.name,
            grants: token.grants,
            token: Some(Held {
                expires: token.expires,
                issued: token.issued,
                id: token.id,
            }),
        }
    }
}

/// How users are known.
pub enum Authenticator {
    /// By what they say of themselves.
    Anonymous,
    /// By a token.
    Token(Box<Verifier>),
}

impl Authenticator {
    /// Checks a token at `now`, Unix ms; fetches keys anew where it names one that is not known.
    ///
    /// # Errors
    /// It is not believed. In anonymous mode none is looked at.
    pub async fn verify(&self, token: &str, now: u64) -> Result<Token, TokenError> {
        let Authenticator::Token(verifier) = self else {
            return Err(TokenError::NoKeys);
        };
        match verifier.verify(token, now) {
            Err(TokenError::UnknownKey) => match verifier.jwks() {
                Some(jwks) if jwks.refresh().await => verifier.verify(token, now),
                // It may be a key that is new.
                Some(_) => Err(TokenError::NoKeys),
                None => Err(TokenError::UnknownKey),
            },
            outcome => outcome,
        }
    }
}

/// The token that a handshake brings, where it stands first: `Authorization`, the subprotocol `bearer.…`, `?token=`.
pub fn bearer(headers: &HeaderMap, query: &str) -> Option<String> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
    });
    let subprotocol = || {
        let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        let mut offers = offers
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        offers.find_map(|offer| offer.trim().strip_prefix(BEARER_SUBPROTOCOL).map(str::to_owned))
    };
    let query = || {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs
            .find(|(name, _)| name == "token")
            .map(|(_, token)| token.into_owned())
    };
    authorization
        .or_else(subprotocol)
        .or_else(query)
        .filter(|token| !token.is_empty())
}

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
    Ok(Identity {
        user,
        name,
        grants: Grants::Anonymous,
        token: None,
    })
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
