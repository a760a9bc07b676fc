//! Tokens: what a JWT must be to be believed, and what it says.

use std::{collections::BTreeMap, fmt};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use roomgate_shared::ids::UserId;
use serde::Deserialize;

use super::{
    grants::{Grant, Grants},
    jwks::Jwks,
};

/// Longest token that is looked at: it came in a header or a query, and most are below 2 KiB.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// How far ahead the clock of a token's maker may be, ms, where no longer leeway is set.
const MOST_AHEAD: u64 = 60_000;
/// Longest token id.
const MAX_JTI_CHARS: usize = 128;
/// The last time that is taken for one, seconds: the year 9999.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// Why a token is not believed. The texts are for its owner, and hold nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT, another algorithm, another signature, or a claim that is not what it must be.
    #[error("the token is not accepted: {0}")]
    Bad(String),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has yet to come.
    #[error("the token is not valid yet")]
    NotYet,
    /// It names a key that is not known here; it is looked for.
    #[error("the token's key is not known")]
    UnknownKey,
    /// The keys have not been fetched yet.
    #[error("the keys that tokens are checked with cannot be had now")]
    NoKeys,
}

fn bad(why: impl fmt::Display) -> TokenError {
    TokenError::Bad(why.to_string())
}

/// What the HTTP API lets a token's owner do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiAccess {
    /// Look.
    Read,
    /// Change rooms.
    Write,
    /// Everything.
    Admin,
}

/// A token that is believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Whose it is.
    pub user: UserId,
    /// The name to show; the user id if it has none.
    pub name: String,
    /// When it ends, Unix ms.
    pub expires: u64,
    /// When it was made, Unix ms; 0 where it does not say.
    pub issued: u64,
    /// Its id.
    pub id: Option<Box<str>>,
    /// What it allows in which room.
    pub grants: Grants,
    /// What it allows over HTTP.
    pub api: Option<ApiAccess>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    #[serde(default)]
    iat: Option<f64>,
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    rooms: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    api: Option<ApiAccess>,
}

/// What tokens are checked with. The algorithm follows from the key, never from the token: a public key can so not be
/// taken for a secret.
pub enum Keys {
    /// One key and its algorithm.
    One(Box<DecodingKey>, Algorithm),
    /// A set that is fetched, and fetched again.
    Set(Box<Jwks>),
}

/// Checks tokens.
pub struct Verifier {
    keys: Keys,
    /// For any algorithm; each check takes its own.
    validation: Validation,
    /// By how much clocks may differ, ms.
    leeway: u64,
}

impl Keys {
    /// HS256 with a secret.
    pub fn secret(secret: &[u8]) -> Self {
        Self::One(Box::new(DecodingKey::from_secret(secret)), Algorithm::HS256)
    }

    /// RS256, ES256 or EdDSA, as the public key in PEM is one of RSA, P-256 or Ed25519.
    pub fn pem(pem: &[u8]) -> Option<Self> {
        let one = |key: DecodingKey, algorithm| Self::One(Box::new(key), algorithm);
        let rsa = DecodingKey::from_rsa_pem(pem).map(|key| one(key, Algorithm::RS256));
        let ec = || DecodingKey::from_ec_pem(pem).map(|key| one(key, Algorithm::ES256));
        let ed = || DecodingKey::from_ed_pem(pem).map(|key| one(key, Algorithm::EdDSA));
        rsa.or_else(|_| ec()).or_else(|_| ed()).ok()
    }
}

impl Verifier {
    /// A verifier. `issuer` and `audience`, where given, must stand in every token; without an `audience`, a token that is
    /// for somebody is refused (RFC 7519, 4.1.3). `leeway`: seconds by which clocks may differ.
    pub fn new(keys: Keys, issuer: Option<&str>, audience: Option<&str>, leeway: u64) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation.validate_nbf = true;
        validation.leeway = leeway;
        Self {
            keys,
            validation,
            leeway: leeway * 1000,
        }
    }

    /// The set of keys, if that is what tokens are checked with.
    pub fn jwks(&self) -> Option<&Jwks> {
        match &self.keys {
            Keys::Set(set) => Some(set),
            Keys::One(..) => None,
        }
    }

    /// Checks a token at `now`, Unix ms.
    ///
    /// # Errors
    /// It is not believed.
    pub fn verify(&self, token: &str, now: u64) -> Result<Token, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(bad("it is too long"));
        }
        let header = decode_header(token).map_err(|_| bad("not a JWT, or of an unknown algorithm"))?;
        let claims = match &self.keys {
            Keys::One(key, algorithm) => self.claims(token, key, *algorithm)?,
            Keys::Set(set) => {
                let keys = set.keys().ok_or(TokenError::NoKeys)?;
                let candidates = keys.iter().filter(|key| {
                    key.algorithm == header.alg && (header.kid.is_none() || header.kid == key.id)
                });
                let mut outcome = Err(TokenError::UnknownKey);
                for key in candidates {
                    outcome = self.claims(token, &key.key, key.algorithm);
                    if outcome.is_ok() {
                        break;
                    }
                }
                outcome?
            }
        };
        self.token(claims, now)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what remains is all the same to its owner"
    )]
    fn claims(&self, token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Claims, TokenError> {
        let mut validation = self.validation.clone();
        validation.algorithms = vec![algorithm];
        let decoded = decode::<Claims>(token, key, &validation).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::ImmatureSignature => TokenError::NotYet,
            ErrorKind::InvalidAlgorithm => bad("another algorithm than its key's"),
            ErrorKind::InvalidSignature => bad("its signature is wrong"),
            ErrorKind::InvalidIssuer => bad("another issuer"),
            ErrorKind::InvalidAudience => bad("it is for another audience"),
            ErrorKind::MissingRequiredClaim(claim) => bad(format!("the claim {claim} is missing")),
            ErrorKind::InvalidClaimFormat(claim) => bad(format!("the claim {claim} has a wrong form")),
            _ => bad("it is damaged, or a claim has a wrong form"),
        })?;
        Ok(decoded.claims)
    }

    fn token(&self, claims: Claims, now: u64) -> Result<Token, TokenError> {
        let ms = |name: &str, seconds: f64| {
            if (0.0..=LAST_SECOND).contains(&seconds) {
                Ok((seconds * 1000.0) as u64)
            } else {
                Err(bad(format!("the claim {name} has a wrong form")))
            }
        };
        let user = UserId::new(&claims.sub).map_err(|error| bad(format!("sub: {error}")))?;
        let name = match claims.name {
            // A name is what a user id is: printable and short.
            Some(name) => UserId::new(&name)
                .map_err(|_| bad("name: a name has 1 to 128 printable characters"))?
                .to_string(),
            None => user.to_string(),
        };
        let id = claims.jti.map(|id| {
            let fits = UserId::new(&id).is_ok() && id.chars().count() <= MAX_JTI_CHARS;
            if fits {
                Ok(id.into_boxed_str())
            } else {
                Err(bad("jti: 1 to 128 printable characters"))
            }
        });
        let grants = claims
            .rooms
            .iter()
            .map(|(room, permissions)| Grant::new(room, permissions).map_err(bad));
        let expires = ms("exp", claims.exp)?.saturating_add(self.leeway);
        // To the millisecond, as the connection will end.
        if expires <= now {
            return Err(TokenError::Expired);
        }
        let issued = claims.iat.map_or(Ok(0), |iat| ms("iat", iat))?;
        // One from the future would outlive every revocation until then. Its maker's clock may be a little ahead.
        if issued > now.saturating_add(self.leeway.max(MOST_AHEAD)) {
            return Err(TokenError::NotYet);
        }
        Ok(Token {
            user,
            name,
            expires,
            // What is revoked now is revoked with it.
            issued: issued.min(now),
            id: id.transpose()?,
            grants: Grants::Token(grants.collect::<Result<Vec<_>, _>>()?.into()),
            api: claims.api,
        })
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
