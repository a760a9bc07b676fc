//! A client that speaks the protocol, with a deadline on everything it waits for.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use roomgate_shared::protocol::event::ServerFrame;
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        handshake::client::Request,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One connection.
pub(crate) struct Client {
    sink: SplitSink<Socket, Message>,
    frames: mpsc::UnboundedReceiver<Received>,
    /// Read while something else was waited for.
    seen: VecDeque<ServerFrame>,
    sent: u64,
    reader: tokio::task::JoinHandle<()>,
    /// Begins its command ids, so that no two clients have one in common.
    name: String,
    /// The data of `welcome`.
    pub(crate) welcome: Value,
}

/// A dropped client is a lost connection: the socket goes with the task that reads it.
impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

enum Received {
    Frame(ServerFrame),
    Closed(u16, String),
}

impl Client {
    /// Connects and reads the welcome.
    pub(crate) async fn connect(addr: SocketAddr, user: &str) -> Self {
        Self::open(addr, &format!("user={user}&name={user}")).await
    }

    /// The same, with a token.
    pub(crate) async fn connect_with(addr: SocketAddr, token: &str) -> Self {
        Self::open(addr, &format!("token={token}")).await
    }

    async fn open(addr: SocketAddr, query: &str) -> Self {
        let request = format!("ws://{addr}/ws?{query}").into_client_request().unwrap();
        let mut client = Self::request(request).await.unwrap();
        client.read_welcome().await;
        client
    }

    /// Reads the welcome, which comes first.
    pub(crate) async fn read_welcome(&mut self) {
        let welcome = self.next().await;
        assert_eq!(welcome.kind, "welcome");
        self.welcome = welcome.data;
    }

    /// Connects by a request of one's own, and reads nothing; the status where it is refused.
    pub(crate) async fn request(request: Request) -> Result<Self, u16> {
        let connecting = tokio_tungstenite::connect_async(request);
        let socket = match timeout(DEADLINE, connecting).await.expect("no handshake in time") {
            Ok((socket, _)) => socket,
            Err(Error::Http(response)) => return Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        };
        let (sink, mut stream) = socket.split();
        let (received, frames) = mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            let mut closed = (1006, String::new());
            while let Some(Ok(message)) = stream.next().await {
                match message {
                    Message::Text(text) => {
                        let frame = serde_json::from_str(&text).expect("a server's frame is JSON");
                        let _ = received.send(Received::Frame(frame));
                    }
                    Message::Close(close) => {
                        closed =
                            close.map_or((1005, String::new()), |c| (c.code.into(), c.reason.to_string()));
                    }
                    Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                }
            }
            let _ = received.send(Received::Closed(closed.0, closed.1));
        });
        Ok(Self {
            sink,
            frames,
            seen: VecDeque::new(),
            name: format!("k{}", COUNT.fetch_add(1, Ordering::Relaxed)),
            sent: 0,
            reader,
            welcome: Value::Null,
        })
    }

    /// Sends a command and gives its id.
    pub(crate) async fn send(&mut self, kind: &str, room: &str, data: Value) -> String {
        self.sent += 1;
        let id = format!("{}-{}", self.name, self.sent);
        self.send_text(json!({"id": id, "type": kind, "room": room, "data": data}).to_string())
            .await;
        id
    }

    /// Sends a frame as it is.
    pub(crate) async fn send_text(&mut self, text: String) {
        timeout(DEADLINE, self.sink.send(Message::text(text)))
            .await
            .expect("not sent in time")
            .unwrap();
    }

    /// Sends a frame, if the connection is still open.
    pub(crate) async fn try_send(&mut self, text: String) {
        let _ = timeout(DEADLINE, self.sink.send(Message::text(text))).await;
    }

    /// Sends a command and waits for its answer, an ack or an error.
    pub(crate) async fn ask(&mut self, kind: &str, room: &str, data: Value) -> ServerFrame {
        let id = self.send(kind, room, data).await;
        self.until(|frame| frame.id.as_deref() == Some(&id)).await
    }

    /// Sends a command that must succeed, and gives the data of its ack.
    pub(crate) async fn ack(&mut self, kind: &str, room: &str, data: Value) -> Value {
        let answer = self.ask(kind, room, data).await;
        assert_eq!(answer.kind, "ack", "{kind}: {}", answer.data);
        answer.data
    }

    /// Sends a command that must be refused, and gives the code.
    pub(crate) async fn refused(&mut self, kind: &str, room: &str, data: Value) -> String {
        let answer = self.ask(kind, room, data).await;
        assert_eq!(answer.kind, "error", "{kind}: {}", answer.data);
        answer.data["code"].as_str().unwrap().to_owned()
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> ServerFrame {
        match self.seen.pop_front() {
            Some(frame) => frame,
            None => self
                .read()
                .await
                .unwrap_or_else(|(code, reason)| panic!("closed: {code} {reason}")),
        }
    }

    /// The next frame, if one is here already.
    pub(crate) fn try_next(&mut self) -> Option<ServerFrame> {
        if let Some(frame) = self.seen.pop_front() {
            return Some(frame);
        }
        match self.frames.try_recv() {
            Ok(Received::Frame(frame)) => Some(frame),
            Ok(Received::Closed(code, reason)) => panic!("closed: {code} {reason}"),
            Err(_) => None,
        }
    }

    /// The first frame for which `wanted` holds; those before it stay to be read.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&ServerFrame) -> bool) -> ServerFrame {
        if let Some(at) = self.seen.iter().position(&wanted) {
            return self.seen.remove(at).unwrap();
        }
        loop {
            let frame = self
                .read()
                .await
                .unwrap_or_else(|(code, reason)| panic!("closed: {code} {reason}"));
            if wanted(&frame) {
                return frame;
            }
            self.seen.push_back(frame);
        }
    }

    /// The first frame for which `wanted` holds, or how the connection was closed.
    pub(crate) async fn until_or_closed(
        &mut self,
        wanted: impl Fn(&ServerFrame) -> bool,
    ) -> Result<ServerFrame, (u16, String)> {
        loop {
            let frame = self.read().await?;
            if wanted(&frame) {
                return Ok(frame);
            }
            self.seen.push_back(frame);
        }
    }

    /// The first event of a room with this type.
    pub(crate) async fn event(&mut self, kind: &str, room: &str) -> ServerFrame {
        self.until(|frame| frame.kind == kind && frame.room.as_deref() == Some(room))
            .await
    }

    /// Waits for the end of the connection: its close code and reason, 1006 where there was none.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(closed) = self.read().await {
                return closed;
            }
        }
    }

    /// Closes with 1000 and waits for the answer.
    pub(crate) async fn close(mut self) {
        // The gateway may have closed first.
        let normal = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        let _ = self.sink.send(Message::Close(Some(normal))).await;
        self.closed().await;
    }

    async fn read(&mut self) -> Result<ServerFrame, (u16, String)> {
        match timeout(DEADLINE, self.frames.recv())
            .await
            .expect("nothing came in time")
        {
            Some(Received::Frame(frame)) => Ok(frame),
            Some(Received::Closed(code, reason)) => Err((code, reason)),
            None => Err((1006, "read to the end before".to_owned())),
        }
    }
}
