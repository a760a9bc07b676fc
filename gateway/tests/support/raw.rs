//! A WebSocket client made of bytes: it can break every rule, and it checks that the server breaks none.

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::process::Gateway;

pub(crate) use super::frames::*;

/// Bound of every wait.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Awaits, but not longer than [`DEADLINE`].
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what)
        .await
        .expect("nothing within the deadline")
}

/// What a server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The code, where there is one, and the reason.
    Close(Option<u16>, String),
    /// FIN, with no frame begun.
    End,
    /// The connection was reset.
    Reset,
}

/// The answer to a handshake.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Response {
    /// A header's value; its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// The request of a right handshake, with more header lines, each ended by CRLF.
pub(crate) fn request(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: gateway.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// One connection to a gateway, which lives as long.
pub(crate) struct Ws {
    stream: TcpStream,
    /// Read, but not looked at.
    buffer: Vec<u8>,
    gateway: Arc<Gateway>,
}

impl Ws {
    /// A connection without a handshake.
    pub(crate) async fn dial(gateway: &Arc<Gateway>) -> Self {
        let stream = soon(TcpStream::connect(gateway.addr)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
            gateway: Arc::clone(gateway),
        }
    }

    /// Sends a request (and what stands behind it) and reads the head of the answer.
    pub(crate) async fn handshake(gateway: &Arc<Gateway>, request: impl AsRef<[u8]>) -> (Response, Self) {
        let mut ws = Self::dial(gateway).await;
        ws.send_bytes(request.as_ref()).await;
        let response = ws.response().await.expect("no answer to the handshake");
        (response, ws)
    }

    /// A connection after its handshake.
    pub(crate) async fn open(gateway: &Arc<Gateway>, path: &str) -> Self {
        let (response, ws) = Self::handshake(gateway, request(path, "")).await;
        assert_eq!(response.status, 101, "{response:?}");
        ws
    }

    /// The gateway.
    pub(crate) fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// The socket.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The head of an HTTP answer; `None` where the connection ends without one.
    pub(crate) async fn response(&mut self) -> Option<Response> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
                let mut lines = head.lines();
                let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
                let headers = lines.filter_map(|line| line.split_once(':'));
                let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
                return Some(Response {
                    status,
                    headers: headers.collect(),
                });
            }
            if soon(self.read()).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Passes over bytes, such as the body of an HTTP answer.
    pub(crate) async fn skip(&mut self, bytes: usize) {
        while self.buffer.len() < bytes {
            assert_ne!(soon(self.read()).await.unwrap(), 0, "the connection ends early");
        }
        self.buffer.drain(..bytes);
    }

    async fn read(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }

    /// Sends bytes. A failure is left to the next read, which shows how the connection ended.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = soon(self.stream.write_all(bytes)).await;
    }

    /// Sends bytes in writes of `size`.
    pub(crate) async fn send_chopped(&mut self, bytes: &[u8], size: usize) {
        for chunk in bytes.chunks(size) {
            self.send_bytes(chunk).await;
            tokio::task::yield_now().await;
        }
    }

    /// Sends frames in one write.
    pub(crate) async fn send(&mut self, frames: &[Out]) {
        self.send_bytes(&bytes(frames)).await;
    }

    /// What comes next. Asserts that the server's frames are whole, unmasked and as short as they can be.
    pub(crate) async fn next(&mut self) -> Got {
        self.next_within(DEADLINE).await
    }

    /// What comes next, though it may take a while.
    pub(crate) async fn next_within(&mut self, limit: Duration) -> Got {
        loop {
            if let Some((got, used)) = frame(&self.buffer) {
                self.buffer.drain(..used);
                return got;
            }
            match timeout(limit, self.read())
                .await
                .expect("nothing within the limit")
            {
                Ok(0) => {
                    assert_eq!(self.buffer, b"", "the connection ends within a frame");
                    return Got::End;
                }
                Ok(_) => {}
                Err(_) => return Got::Reset,
            }
        }
    }

    /// Asserts that this is what comes next.
    pub(crate) async fn expect(&mut self, expected: Got) {
        let got = self.next().await;
        assert!(got == expected, "{} instead of {}", brief(&got), brief(&expected));
    }

    pub(crate) async fn expect_text(&mut self, expected: &str) {
        self.expect(Got::Text(expected.to_owned())).await;
    }

    /// The next text, read as JSON.
    pub(crate) async fn next_json(&mut self) -> serde_json::Value {
        match self.next().await {
            Got::Text(text) => serde_json::from_str(&text).unwrap(),
            got => panic!("{} instead of JSON", brief(&got)),
        }
    }

    /// Asserts that the server closes with `code`; answers, and asserts that TCP ends in good order.
    pub(crate) async fn expect_close(&mut self, code: u16) {
        match self.next().await {
            Got::Close(Some(got), _) => assert_eq!(got, code),
            got => panic!("{} instead of a close with {code}", brief(&got)),
        }
        self.send(&[close(code, "")]).await;
        self.expect(Got::End).await;
    }

    /// Asserts that the connection works, by a ping that comes back before anything else.
    pub(crate) async fn expect_alive(&mut self) {
        self.send(&[ping("alive?")]).await;
        self.expect(Got::Pong(b"alive?".to_vec())).await;
    }

    /// Closes with 1000 and asserts that the server does its part.
    pub(crate) async fn finish(mut self) {
        self.send(&[close(1000, "")]).await;
        self.expect(Got::Close(Some(1000), String::new())).await;
        self.expect(Got::End).await;
    }

    /// Writes `chunk` again and again, up to `total` bytes in all, until the server says something or the connection breaks.
    /// Gives the bytes written.
    pub(crate) async fn flood(&mut self, chunk: &[u8], total: usize) -> usize {
        let (mut reader, mut writer) = self.stream.split();
        let mut written = 0;
        let writing = async {
            while written < total {
                if writer.write_all(chunk).await.is_err() {
                    break;
                }
                written += chunk.len();
            }
        };
        let reading = async {
            // The result stands in the buffer, or is shown by the next read.
            let _ = reader.read_buf(&mut self.buffer).await;
        };
        let racing = async {
            tokio::select! {
                () = writing => {}
                () = reading => {}
            }
        };
        timeout(6 * DEADLINE, racing)
            .await
            .expect("the server neither reads nor answers");
        written
    }
}

/// The first frame in `bytes` and its length, if it is whole.
fn frame(bytes: &[u8]) -> Option<(Got, usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    assert_eq!(
        first & 0xf0,
        0x80,
        "a server's frame is final, with no reserved bit"
    );
    assert_eq!(second & 0x80, 0, "a server's frame is unmasked");
    let (head, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (
            10,
            usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).unwrap(),
        ),
        length => (2, usize::from(length)),
    };
    let shortest = match length {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    assert_eq!(head, shortest, "a length of {length} in a head of {head} bytes");
    let payload = bytes.get(head..head + length)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let got = match first & 0x0f {
        TEXT => Got::Text(text(payload)),
        BINARY => Got::Binary(payload.to_vec()),
        control => {
            assert!(length <= 125, "a control frame of {length} bytes");
            match (control, payload) {
                (PING, _) => Got::Ping(payload.to_vec()),
                (PONG, _) => Got::Pong(payload.to_vec()),
                (CLOSE, []) => Got::Close(None, String::new()),
                (CLOSE, [high, low, reason @ ..]) => {
                    Got::Close(Some(u16::from_be_bytes([*high, *low])), text(reason))
                }
                _ => panic!("a server's frame with opcode {control} and {length} bytes"),
            }
        }
    };
    Some((got, head + length))
}

/// For messages of assertions: not a megabyte of text.
fn brief(got: &Got) -> String {
    let mut text = format!("{got:?}");
    if let Some((at, _)) = text.char_indices().nth(300) {
        text.truncate(at);
        text.push('…');
    }
    text
}
