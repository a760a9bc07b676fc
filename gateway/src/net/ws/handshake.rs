//! What a request must be to become a WebSocket; the answer tells what is wrong.

use axum::body::Body;
use fastwebsockets::upgrade::{UpgradeFut, is_upgrade_request, upgrade};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    header::{HOST, HeaderMap, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use roomgate_shared::protocol::SUBPROTOCOL;

/// An accepted request: the answer to send, and what the connection becomes once it is sent.
pub struct Handshake {
    /// `101 Switching Protocols`.
    pub response: Response<Body>,
    /// The stream, after the answer.
    pub upgraded: UpgradeFut,
}

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The status.
    pub status: StatusCode,
    /// What to do about it.
    pub message: &'static str,
}

impl Rejected {
    fn new(status: StatusCode, message: &'static str) -> Self {
        Self { status, message }
    }

    /// The answer.
    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::from(format!("{}\n", self.message)));
        *response.status_mut() = self.status;
        if self.status == StatusCode::UPGRADE_REQUIRED {
            response
                .headers_mut()
                .insert(UPGRADE, HeaderValue::from_static("websocket"));
            response
                .headers_mut()
                .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

/// Checks a request and makes the answer. `origins` are those that may connect from a browser; none: the page's host
/// must be the one that is asked.
///
/// # Errors
/// The request cannot become a WebSocket.
pub fn check<B>(request: &mut Request<B>, origins: &[String]) -> Result<Handshake, Rejected> {
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(Rejected::new(
            StatusCode::BAD_REQUEST,
            "a WebSocket begins with GET over HTTP/1.1",
        ));
    }
    if !is_upgrade_request(request) {
        return Err(Rejected::new(
            StatusCode::UPGRADE_REQUIRED,
            "this address speaks WebSocket only",
        ));
    }
    let headers = request.headers();
    if !headers.contains_key(HOST) {
        return Err(Rejected::new(
            StatusCode::BAD_REQUEST,
            "the Host header is missing",
        ));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        return Err(Rejected::new(
            StatusCode::UPGRADE_REQUIRED,
            "WebSocket version 13 is spoken here",
        ));
    }
    if !headers
        .get("sec-websocket-key")
        .is_some_and(|key| is_key(key.as_bytes()))
    {
        return Err(Rejected::new(
            StatusCode::BAD_REQUEST,
            "Sec-WebSocket-Key is 16 bytes in base64",
        ));
    }
    if !origin_allowed(headers, origins) {
        return Err(Rejected::new(
            StatusCode::FORBIDDEN,
            "this Origin may not connect; the setting ALLOWED_ORIGINS names those that may",
        ));
    }
    let subprotocol = subprotocol(headers)?;
    let (response, upgraded) = upgrade(request)
        .map_err(|_| Rejected::new(StatusCode::BAD_REQUEST, "this is no WebSocket handshake"))?;
    let mut response = response.map(|_| Body::empty());
    if subprotocol {
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(Handshake { response, upgraded })
}

/// 16 bytes in base64: 22 digits and two signs of padding.
fn is_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22]
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// Whether the subprotocol is to be echoed: it was offered, as against none offered.
fn subprotocol(headers: &HeaderMap) -> Result<bool, Rejected> {
    let mut any = false;
    for header in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        for offered in header.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            if offered == SUBPROTOCOL.as_bytes() {
                return Ok(true);
            }
            any |= !offered.is_empty();
        }
    }
    if any {
        return Err(Rejected::new(
            StatusCode::BAD_REQUEST,
            "the subprotocol spoken here is roomgate.v1",
        ));
    }
    Ok(false)
}

/// Browsers name the page's origin; other programs need not.
fn origin_allowed(headers: &HeaderMap, origins: &[String]) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let Ok(origin) = origin.to_str() else { return false };
    if origins.is_empty() {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let asked = origin.split_once("://").map(|(_, host)| host);
        return host.is_some() && host.map(str::to_ascii_lowercase) == asked.map(str::to_ascii_lowercase);
    }
    origins
        .iter()
        .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri("/ws");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    const GOOD: [(&str, &str); 5] = [
        ("host", "rooms.example:8080"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn status(extra: &[(&str, &str)], origins: &[&str]) -> u16 {
        let origins: Vec<String> = origins.iter().map(|o| (*o).to_owned()).collect();
        match check(&mut request(&[&GOOD[..], extra].concat()), &origins) {
            Ok(handshake) => handshake.response.status().as_u16(),
            Err(rejected) => rejected.status.as_u16(),
        }
    }

    #[test]
    fn each_fault_has_its_status() {
        assert_eq!(status(&[], &[]), 101);
        for (missing, expected) in [
            ("connection", 426),
            ("upgrade", 426),
            ("sec-websocket-version", 426),
            ("sec-websocket-key", 400),
        ] {
            let headers: Vec<_> = GOOD.into_iter().filter(|(name, _)| *name != missing).collect();
            let rejected = check(&mut request(&headers), &[]).err().unwrap();
            assert_eq!(rejected.status.as_u16(), expected, "without {missing}");
        }
    }

    #[test]
    fn the_same_host_may_connect_and_others_by_name_only() {
        assert_eq!(status(&[("origin", "https://rooms.example:8080")], &[]), 101);
        assert_eq!(status(&[("origin", "https://rooms.example")], &[]), 403);
        assert_eq!(status(&[("origin", "null")], &[]), 403);
        assert_eq!(
            status(&[("origin", "https://app.example")], &["https://app.example"]),
            101
        );
        assert_eq!(
            status(
                &[("origin", "https://rooms.example:8080")],
                &["https://app.example"]
            ),
            403
        );
        assert_eq!(status(&[("origin", "https://any.example")], &["*"]), 101);
    }

    #[test]
    fn the_subprotocol_is_echoed_if_offered() {
        let check = |offered: &str| {
            let mut request = request(&[&GOOD[..], &[("sec-websocket-protocol", offered)]].concat());
            check(&mut request, &[])
                .map(|h| {
                    h.response
                        .headers()
                        .get(SEC_WEBSOCKET_PROTOCOL)
                        .map(|v| v.to_str().unwrap().to_owned())
                })
                .map_err(|r| r.status.as_u16())
        };
        assert_eq!(check("other, roomgate.v1"), Ok(Some("roomgate.v1".to_owned())));
        assert_eq!(check("other"), Err(400));
        assert_eq!(check("bearer.abc"), Err(400));
        assert_eq!(check(""), Ok(None));
    }
}
