use jsonwebtoken::{EncodingKey, Header, encode};
use roomgate_shared::{ids::RoomId, protocol::Permission};
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "a secret of at least thirty-two bytes";

macro_rules! key {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/keys/", $name, ".pem"))
    };
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}

fn claims() -> Value {
    json!({"sub": "u-7", "exp": now() / 1000 + 60, "rooms": {"lobby": ["join"]}})
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
        .as_object_mut()
        .unwrap()
        .retain(|_, value| *value != json!("absent"));
    claims
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    sign(
        Algorithm::HS256,
        &EncodingKey::from_secret(SECRET.as_bytes()),
        claims,
    )
}

fn verifier() -> Verifier {
    Verifier::new(Keys::secret(SECRET.as_bytes()), None, None, 0)
}

fn code(outcome: &Result<Token, TokenError>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(TokenError::Bad(_)) => "bad",
        Err(TokenError::Expired) => "expired",
        Err(TokenError::NotYet) => "not yet",
        Err(TokenError::UnknownKey) => "unknown key",
        Err(TokenError::NoKeys) => "no keys",
    }
}

#[test]
fn a_good_token_says_who_and_what() {
    let second = now() / 1000;
    let claims = json!({
        "sub": "u-7", "name": "Zoë", "exp": second + 60, "nbf": second - 1, "iat": second - 5, "jti": "t1", "api": "write",
        "rooms": {"lobby": ["join", "send"], "team-*": ["*"]}, "else": [1, 2],
    });
    let token = verifier().verify(&hs256(&claims), now()).unwrap();
    assert_eq!((token.user.as_str(), token.name.as_str()), ("u-7", "Zoë"));
    assert_eq!(
        (token.expires, token.issued),
        ((second + 60) * 1000, (second - 5) * 1000)
    );
    assert_eq!(
        (token.id.as_deref(), token.api),
        (Some("t1"), Some(ApiAccess::Write))
    );
    let of = |room: &str| token.grants.of(&RoomId::new(room).unwrap());
    assert!(of("lobby").has(Permission::Send) && !of("lobby").has(Permission::State));
    assert!(of("team-1").has(Permission::Manage) && !of("other").has(Permission::Join));
    let plain = verifier()
        .verify(&hs256(&with(json!({"rooms": "absent"}))), now())
        .unwrap();
    assert_eq!((plain.name.as_str(), plain.id, plain.issued), ("u-7", None, 0));
}

#[test]
fn each_algorithm_has_its_key() {
    type Make = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;
    let cases: [(Algorithm, Make, &[u8], &[u8]); 3] = [
        (
            Algorithm::RS256,
            EncodingKey::from_rsa_pem,
            key!("rsa.private"),
            key!("rsa.public"),
        ),
        (
            Algorithm::ES256,
            EncodingKey::from_ec_pem,
            key!("p256.private"),
            key!("p256.public"),
        ),
        (
            Algorithm::EdDSA,
            EncodingKey::from_ed_pem,
            key!("ed25519.private"),
            key!("ed25519.public"),
        ),
    ];
    for (algorithm, make, private, _) in &cases {
        let token = sign(*algorithm, &make(private).unwrap(), &claims());
        for (other, _, _, public) in &cases {
            let verifier = Verifier::new(Keys::pem(public).unwrap(), None, None, 0);
            let expected = if other == algorithm { "ok" } else { "bad" };
            assert_eq!(
                code(&verifier.verify(&token, now())),
                expected,
                "{algorithm:?} {other:?}"
            );
        }
    }
    // Another key of the same kind.
    let token = sign(
        Algorithm::RS256,
        &EncodingKey::from_rsa_pem(key!("other.private")).unwrap(),
        &claims(),
    );
    let verifier = Verifier::new(Keys::pem(key!("rsa.public")).unwrap(), None, None, 0);
    assert_eq!(code(&verifier.verify(&token, now())), "bad");
    assert!(Keys::pem(b"no key").is_none());
    // A private key is none to check with, nor is a certificate request.
    assert!(
        Keys::pem(b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")
            .is_none()
    );
}

#[test]
fn a_public_key_is_no_secret() {
    // Signed by HS256 with the public key's text, as whoever knows only that could.
    let public = key!("rsa.public");
    let forged = sign(Algorithm::HS256, &EncodingKey::from_secret(public), &claims());
    let verifier = Verifier::new(Keys::pem(public).unwrap(), None, None, 0);
    assert_eq!(code(&verifier.verify(&forged, now())), "bad");
    let larger = sign(
        Algorithm::RS512,
        &EncodingKey::from_rsa_pem(key!("rsa.private")).unwrap(),
        &claims(),
    );
    assert_eq!(code(&verifier.verify(&larger, now())), "bad", "RS512");
    let hs512 = sign(
        Algorithm::HS512,
        &EncodingKey::from_secret(SECRET.as_bytes()),
        &claims(),
    );
    assert_eq!(
        code(&super::tests::verifier().verify(&hs512, now())),
        "bad",
        "HS512"
    );
}

#[test]
fn none_and_nonsense_are_refused() {
    let good = hs256(&claims());
    let [head, body, signature] = <[&str; 3]>::try_from(good.split('.').collect::<Vec<_>>()).unwrap();
    // {"alg":"none"} and {"alg":"None","typ":"JWT"}
    for none in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0"] {
        for token in [
            format!("{none}.{body}."),
            format!("{none}.{body}.{signature}"),
            format!("{none}.{body}"),
        ] {
            assert_eq!(code(&verifier().verify(&token, now())), "bad", "{token}");
        }
    }
    let mut wrong = signature.to_owned().into_bytes();
    wrong[3] = if wrong[3] == b'A' { b'B' } else { b'A' };
    let wrong = String::from_utf8(wrong).unwrap();
    let long = format!("{head}.{}.{signature}", "A".repeat(20_000));
    for token in [
        format!("{head}.{body}.{wrong}"),
        format!("{head}.{body}."),
        format!("{head}.{body}"),
        format!("{head}.{signature}.{body}"),
        long,
        String::new(),
        "..".to_owned(),
        "é.é.é".to_owned(),
    ] {
        assert_eq!(code(&verifier().verify(&token, now())), "bad", "{token}");
    }
}

#[test]
fn times_are_kept_to() {
    let second = now() / 1000;
    let cases = [
        (json!({"exp": second - 1}), "expired"),
        (json!({"exp": second - 3600}), "expired"),
        (json!({"exp": "absent"}), "bad"),
        (json!({"exp": null}), "bad"),
        (json!({"exp": (second + 60).to_string()}), "bad"),
        (json!({"exp": -1}), "bad"),
        (json!({"exp": 1e300}), "bad"),
        (json!({"nbf": second + 60}), "not yet"),
        (json!({"nbf": (second - 60).to_string()}), "bad"),
        (json!({"nbf": [second - 60]}), "bad"),
        (json!({"iat": "yesterday"}), "bad"),
        (json!({"exp": second as f64 + 60.5}), "ok"),
    ];
    for (changes, expected) in cases {
        let outcome = verifier().verify(&hs256(&with(changes.clone())), now());
        assert_eq!(code(&outcome), expected, "{changes}");
    }
    let lenient = Verifier::new(Keys::secret(SECRET.as_bytes()), None, None, 30);
    for changes in [json!({"exp": second - 20}), json!({"nbf": second + 20})] {
        assert_eq!(code(&lenient.verify(&hs256(&with(changes)), now())), "ok");
    }
}

#[test]
fn issuer_and_audience_are_as_set() {
    let strict = Verifier::new(Keys::secret(SECRET.as_bytes()), Some("me"), Some("rooms"), 0);
    let cases = [
        (json!({"iss": "me", "aud": "rooms"}), "ok", "bad"),
        (json!({"iss": "me", "aud": ["other", "rooms"]}), "ok", "bad"),
        (json!({"iss": "you", "aud": "rooms"}), "bad", "bad"),
        (json!({"iss": "me", "aud": "other"}), "bad", "bad"),
        (json!({"iss": "me"}), "bad", "ok"),
        (json!({"aud": "rooms"}), "bad", "bad"),
        (json!({}), "bad", "ok"),
    ];
    for (changes, with_both, with_none) in cases {
        let token = hs256(&with(changes.clone()));
        assert_eq!(code(&strict.verify(&token, now())), with_both, "{changes}");
        assert_eq!(code(&verifier().verify(&token, now())), with_none, "{changes}");
    }
}

#[test]
fn claims_have_their_form() {
    for changes in [
        json!({"sub": "absent"}),
        json!({"sub": ""}),
        json!({"sub": "a\u{0}b"}),
        json!({"sub": 7}),
        json!({"sub": "x".repeat(129)}),
        json!({"name": "a\u{202e}b"}),
        json!({"name": 7}),
        json!({"jti": ""}),
        json!({"jti": 7}),
        json!({"rooms": ["lobby"]}),
        json!({"rooms": {"lobby": "join"}}),
        json!({"rooms": {"lobby": ["jump"]}}),
        json!({"rooms": {"a b": ["join"]}}),
        json!({"rooms": {"": ["join"]}}),
        json!({"api": "root"}),
    ] {
        assert_eq!(
            code(&verifier().verify(&hs256(&with(changes.clone())), now())),
            "bad",
            "{changes}"
        );
    }
}

#[test]
fn a_token_from_the_future_is_not_valid_yet() {
    let made_in = |seconds: u64| {
        hs256(&with(
            json!({"iat": now() / 1000 + seconds, "exp": now() / 1000 + 900}),
        ))
    };
    assert_eq!(code(&verifier().verify(&made_in(90), now())), "not yet");
    let lenient = Verifier::new(Keys::secret(SECRET.as_bytes()), None, None, 300);
    assert_eq!(code(&lenient.verify(&made_in(90), now())), "ok");
    // Its maker's clock is a little ahead; what is revoked now is revoked with it.
    let (token, now) = (made_in(30), now());
    assert_eq!(verifier().verify(&token, now).unwrap().issued, now);
}
