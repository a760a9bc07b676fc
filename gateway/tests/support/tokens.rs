//! Tokens for tests.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// What gateways are given as JWT_SECRET.
pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";

/// Unix seconds.
pub(crate) fn second() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token for an hour.
pub(crate) fn token(user: &str, rooms: Value) -> String {
    signed(&json!({"sub": user, "exp": second() + 3600, "rooms": rooms}))
}

/// A token with these claims.
pub(crate) fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

/// A token with these claims, signed by a private key of `tests/keys` for RS256, and naming the key so.
pub(crate) fn signed_by(private: &str, key: &str, claims: &Value) -> String {
    let path = format!("{}/tests/keys/{private}.private.pem", env!("CARGO_MANIFEST_DIR"));
    let private = EncodingKey::from_rsa_pem(&std::fs::read(path).unwrap()).unwrap();
    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some(key.to_owned());
    encode(&header, claims, &private).unwrap()
}

/// The public half of a private key of `tests/keys`, as an entry of a JWKS.
pub(crate) fn jwk(private: &str, key: &str) -> Value {
    let path = format!("{}/tests/keys/{private}.private.pem", env!("CARGO_MANIFEST_DIR"));
    let private = EncodingKey::from_rsa_pem(&std::fs::read(path).unwrap()).unwrap();
    let mut jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&private, Algorithm::RS256).unwrap();
    jwk.common.key_id = Some(key.to_owned());
    serde_json::to_value(jwk).unwrap()
}
