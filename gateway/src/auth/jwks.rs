//! A set of public keys (JWKS, RFC 7517) from a file or a URL: kept, and fetched again from time to time and when a token
//! names a key that is not in it. A fetch that fails leaves the keys that are there.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use parking_lot::RwLock;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

/// How often the set is fetched anyway.
const EVERY: Duration = Duration::from_secs(300);
/// Least time between two fetches, however many tokens name unknown keys; and between tries while there are no keys.
const LEAST: Duration = Duration::from_secs(10);
/// How long a fetch may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Largest set that is read.
const MAX_BYTES: usize = 1024 * 1024;

/// A key of the set.
pub struct Key {
    /// Its `kid`.
    pub id: Option<String>,
    /// The one algorithm that it is used with.
    pub algorithm: Algorithm,
    /// The key.
    pub key: DecodingKey,
}

/// Where the set comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, read anew each time.
    File(PathBuf),
    /// A URL, http or https.
    Url(reqwest::Url),
}

/// See the module.
pub struct Jwks {
    source: Source,
    client: reqwest::Client,
    keys: RwLock<Option<Arc<[Key]>>>,
    /// When a fetch last began, and whether it succeeded. Held while one is under way.
    last: Mutex<Option<(Instant, bool)>>,
}

impl Source {
    /// As `JWKS_URL` names it: an http or https URL, a file URL or a path.
    ///
    /// # Errors
    /// What is accepted.
    pub fn read(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file://") {
            return Ok(Source::File(path.into()));
        }
        if !text.contains("://") {
            return Ok(Source::File(text.into()));
        }
        match reqwest::Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Source::Url(url)),
            _ => Err("an http or https URL, a file:// URL or a path".to_owned()),
        }
    }
}

impl Jwks {
    /// A set that has not been fetched yet.
    ///
    /// # Errors
    /// The HTTP client could not be made: the system's certificates, for example.
    pub fn new(source: Source) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .timeout(DEADLINE)
            .user_agent("roomgate")
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            source,
            client,
            keys: RwLock::new(None),
            last: Mutex::new(None),
        })
    }

    /// The keys, once they have been fetched.
    pub fn keys(&self) -> Option<Arc<[Key]>> {
        self.keys.read().clone()
    }

    /// Fetches the set, unless that was done just now. Waits for a fetch that is under way. Whether
    /// the last fetch succeeded.
    pub async fn refresh(&self) -> bool {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((at, done)) = *last
            && (at > asked || asked - at < LEAST)
        {
            return done;
        }
        let began = Instant::now();
        let done = match timeout(DEADLINE, self.fetch())
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
        {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "the keys for tokens are read");
                *self.keys.write() = Some(keys.into());
                true
            }
            Err(error) => {
                let kept = self.keys.read().as_ref().map_or(0, |keys| keys.len());
                tracing::warn!(error, kept, "JWKS_URL: the keys for tokens could not be read");
                false
            }
        };
        *last = Some((began, done));
        done
    }

    /// Keeps the set fresh, for ever.
    pub async fn run(&self) {
        loop {
            self.refresh().await;
            let pause = if self.keys().is_some() { EVERY } else { LEAST / 5 };
            sleep(pause).await;
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let text = match &self.source {
            Source::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || std::fs::read(&path)).await;
                read.map_err(|error| error.to_string())?
                    .map_err(|error| error.to_string())?
            }
            Source::Url(url) => {
                let failed = |error: reqwest::Error| error.without_url().to_string();
                let mut response = self.client.get(url.clone()).send().await.map_err(failed)?;
                if !response.status().is_success() {
                    return Err(format!("status {}", response.status().as_u16()));
                }
                let mut text = Vec::new();
                while let Some(chunk) = response.chunk().await.map_err(failed)? {
                    text.extend_from_slice(&chunk);
                    if text.len() > MAX_BYTES {
                        return Err("it is larger than 1 MiB".to_owned());
                    }
                }
                text
            }
        };
        read(&text)
    }
}

/// The keys of a set that tokens can be checked with; others are passed over.
fn read(text: &[u8]) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_slice(text).map_err(|error| format!("it is no JWKS: {error}"))?;
    let keys: Vec<Key> = set.keys.iter().filter_map(key).collect();
    if keys.is_empty() {
        return Err("it has no key for RS256, ES256 or EdDSA".to_owned());
    }
    Ok(keys)
}

fn key(jwk: &Jwk) -> Option<Key> {
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(parameters) if parameters.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(_) => (Algorithm::EdDSA, KeyAlgorithm::EdDSA),
        // A secret has no business in a public set.
        AlgorithmParameters::EllipticCurve(_) | AlgorithmParameters::OctetKey(_) | _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|said| said != named) {
        return None;
    }
    Some(Key {
        id: jwk.common.key_id.clone(),
        algorithm,
        key: DecodingKey::from_jwk(jwk).ok()?,
    })
}
