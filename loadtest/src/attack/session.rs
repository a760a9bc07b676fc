//! One user's WebSocket: a task reads all the time, as a browser does, while the user thinks.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use parking_lot::Mutex;
use roomgate_shared::{
    ids::{CommandId, RoomId},
    protocol::{
        Command, CommandFrame, JsonText, SUBPROTOCOL,
        command::MessageKind,
        event::{Message as RoomMessage, ServerFrame},
    },
};
use serde_json::json;
use tokio::{
    net::TcpStream,
    sync::{Notify, oneshot},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

use super::checker::{Checker, Stay};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long an answer, or an event that must come, may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// A user's connection. Clones are the same connection.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    /// In the ids of its commands: the server remembers ids for minutes, and a user may come again.
    number: u64,
    sink: tokio::sync::Mutex<SplitSink<Socket, Message>>,
    shared: Arc<Shared>,
    checker: Arc<Checker>,
}

/// What the reading task and the user share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told with every event.
    progress: Notify,
}

#[derive(Default)]
struct State {
    next_id: u64,
    pending: HashMap<String, oneshot::Sender<ServerFrame>>,
    stay: Option<Stay>,
    /// From publish to here, of messages that nobody has collected yet.
    delays: Vec<Duration>,
    ended: Option<String>,
}

impl Session {
    /// Connects as `user` and waits for `welcome`.
    ///
    /// # Errors
    /// In words.
    pub async fn connect(host: &str, user: &str, checker: Arc<Checker>) -> Result<Self, String> {
        let url = format!(
            "{}/ws?user={user}&name={user}",
            host.trim_end_matches('/').replacen("http", "ws", 1)
        );
        let mut request = url.into_client_request().map_err(|error| error.to_string())?;
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", HeaderValue::from_static(SUBPROTOCOL));
        let connecting = tokio::time::timeout(PATIENCE, connect_async(request));
        let (socket, _) = connecting
            .await
            .map_err(|_| "no answer to the handshake".to_owned())?
            .map_err(|error| error.to_string())?;
        let (sink, mut stream) = socket.split();
        let first = tokio::time::timeout(PATIENCE, stream.next()).await.ok().flatten();
        match first {
            Some(Ok(Message::Text(text))) if text.contains("\"welcome\"") => {}
            other => return Err(format!("no welcome but {other:?}")),
        }
        let shared = Arc::new(Shared::default());
        tokio::spawn(read(stream, shared.clone(), checker.clone()));
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Ok(Self(Arc::new(Inner {
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            sink: tokio::sync::Mutex::new(sink),
            shared,
            checker,
        })))
    }

    /// Sends a command and waits for its `ack`.
    ///
    /// # Errors
    /// An `error` frame, no answer in time, or a connection that ended; in words.
    async fn ask(&self, prefix: &str, room: &RoomId, command: Command) -> Result<ServerFrame, String> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut state = self.0.shared.state.lock();
            if let Some(why) = &state.ended {
                return Err(format!("the connection ended: {why}"));
            }
            state.next_id += 1;
            let id = format!("{prefix}-{}-{}", self.0.number, state.next_id);
            state.pending.insert(id.clone(), answer);
            id
        };
        let frame = CommandFrame {
            id: CommandId::new(id).ok(),
            room: Some(room.clone()),
            command,
        };
        let text = Message::text(frame.to_json());
        self.0
            .sink
            .lock()
            .await
            .send(text)
            .await
            .map_err(|error| error.to_string())?;
        let frame = match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(_)) => return Err("the connection ended before the answer".to_owned()),
            Err(_) => return Err(format!("no answer in {PATIENCE:?}")),
        };
        match frame.kind.as_str() {
            "ack" => Ok(frame),
            _ => Err(format!("{}: {}", frame.kind, frame.data)),
        }
    }

    /// Enters a room.
    ///
    /// # Errors
    /// In words.
    pub async fn join(&self, room: &RoomId) -> Result<(), String> {
        let command = Command::Join {
            since: None,
            presence: Vec::new(),
            messages: 20,
        };
        self.ask("join", room, command).await.map(|_| ())
    }

    /// Sends a message and tells the checker of it when it is acknowledged.
    ///
    /// # Errors
    /// In words.
    pub async fn say(&self, room: &RoomId, text: &str) -> Result<(), String> {
        let body = JsonText::from_value(&json!({"text": text, "sentAtMicros": now_micros()}))
            .map_err(|error| error.to_string())?;
        let ack = self
            .ask(
                "say",
                room,
                Command::MessageSend {
                    body,
                    kind: MessageKind::Text,
                },
            )
            .await?;
        let message: RoomMessage = serde_json::from_value(ack.data["message"].clone())
            .map_err(|error| format!("the answer's message: {error}"))?;
        self.0
            .checker
            .acknowledged(room.as_str(), message.seq, &message.id);
        Ok(())
    }

    /// Reads the newest page of messages.
    ///
    /// # Errors
    /// In words; a page out of order is one.
    pub async fn history(&self, room: &RoomId) -> Result<(), String> {
        let command = Command::MessageHistory {
            before: None,
            after: None,
            limit: 50,
        };
        let ack = self.ask("history", room, command).await?;
        let messages: Vec<RoomMessage> = serde_json::from_value(ack.data["messages"].clone())
            .map_err(|error| format!("the answer's messages: {error}"))?;
        if messages.len() > 50 || !messages.is_sorted_by(|a, b| a.seq < b.seq) {
            return Err("a page that is too long or out of order".to_owned());
        }
        Ok(())
    }

    /// Waits until all that has happened in the room is seen, leaves it, and hands the stay to the checker.
    ///
    /// # Errors
    /// In words; an event that does not come is one.
    pub async fn leave(&self, room: &RoomId) -> Result<(), String> {
        let head = self
            .ask(
                "head",
                room,
                Command::StateGet {
                    fields: Some(vec!["none".to_owned()]),
                },
            )
            .await?;
        let head = head.data["seq"].as_u64().ok_or("the state's answer has no seq")?;
        let caught_up = tokio::time::timeout(PATIENCE, async {
            loop {
                let progress = self.0.shared.progress.notified();
                if self
                    .0
                    .shared
                    .state
                    .lock()
                    .stay
                    .as_ref()
                    .is_none_or(|stay| stay.seq >= head)
                {
                    return;
                }
                progress.await;
            }
        });
        if caught_up.await.is_err() {
            let seq = self
                .0
                .shared
                .state
                .lock()
                .stay
                .as_ref()
                .map_or(0, |stay| stay.seq);
            self.0.checker.fault(format!(
                "{room}: seq {head} exists; a member saw {seq} and no more"
            ));
        }
        self.ask("leave", room, Command::Leave).await.map(|_| ())
    }

    /// Closes the connection as a client that means to go.
    pub async fn close(&self) {
        // The peer may be gone already.
        let _ = self.0.sink.lock().await.close().await;
    }

    /// Times from publish to delivery since the last call.
    pub fn delays(&self) -> Vec<Duration> {
        std::mem::take(&mut self.0.shared.state.lock().delays)
    }
}

/// Reads until the connection ends.
async fn read(mut stream: SplitStream<Socket>, shared: Arc<Shared>, checker: Arc<Checker>) {
    let mut why = "end of stream".to_owned();
    while let Some(message) = stream.next().await {
        match message {
            Ok(Message::Text(text)) => match serde_json::from_str::<ServerFrame>(&text) {
                Ok(frame) => {
                    shared.state.lock().frame(frame, &checker);
                    shared.progress.notify_waiters();
                }
                Err(error) => checker.fault(format!("a frame that is none of the protocol's: {error}")),
            },
            Ok(Message::Close(close)) => why = format!("closed by the server: {close:?}"),
            Ok(Message::Binary(_)) => checker.fault("a binary frame".to_owned()),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Err(error) => {
                why = error.to_string();
                break;
            }
        }
    }
    let mut state = shared.state.lock();
    state.pending.clear();
    state.ended = Some(why);
}

impl State {
    fn frame(&mut self, frame: ServerFrame, checker: &Checker) {
        if let Some(seq) = frame.seq {
            return self.event(frame, seq, checker);
        }
        let Some(id) = &frame.id else { return };
        if frame.kind == "ack" && id.starts_with("join-") {
            let (room, from) = (
                frame.room.clone().unwrap_or_default(),
                frame.data["seq"].as_u64().unwrap_or(0),
            );
            self.stay = Some(Stay {
                room,
                from,
                seq: from,
                ..Stay::default()
            });
        }
        if frame.kind == "ack"
            && id.starts_with("leave-")
            && let Some(stay) = self.stay.take()
        {
            checker.stayed(stay);
        }
        if let Some(answer) = self.pending.remove(id) {
            // The one who asked may have lost patience.
            let _ = answer.send(frame);
        }
    }

    fn event(&mut self, frame: ServerFrame, seq: u64, checker: &Checker) {
        let room = frame.room.unwrap_or_default();
        let Some(stay) = self.stay.as_mut().filter(|stay| stay.room == room) else {
            return checker.fault(format!("an event of {room}, where the user is not"));
        };
        if seq != stay.seq + 1 {
            checker.fault(format!("{room}: seq {seq} after {}", stay.seq));
        }
        stay.seq = seq;
        if frame.kind == "message.sent"
            && let Some(id) = frame.data["id"].as_str()
        {
            if !stay.seen.insert(id.to_owned()) {
                checker.fault(format!("{room}: message {id} twice"));
            }
            if let Some(sent) = frame.data["body"]["sentAtMicros"].as_u64() {
                self.delays
                    .push(Duration::from_micros(now_micros().saturating_sub(sent)));
            }
        }
    }
}

/// A user's way to time an operation.
pub async fn timed<T>(operation: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    let value = operation.await;
    (value, started.elapsed())
}

fn now_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros() as u64
}
