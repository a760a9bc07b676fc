//! The end of a run: a newcomer reads each room's whole log and state through a gateway, as any client could.
//!
//! It joins with `since` at 0, so that every event that the room still has comes again. What the clients saw is held
//! against this.

use std::{
    fs::File,
    io::{BufWriter, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::{
    history::Since,
    wire::{self, COUNTER, Frame, Presence},
};

/// How long an answer, or the next of the events, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts for one room.
const ATTEMPTS: u32 = 5;
/// The user that reads.
pub const AUDITOR: &str = "auditor";

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Audited {
    /// A room.
    Room {
        /// Its id.
        room: String,
        /// Its epoch.
        epoch: String,
        /// Its last event.
        head: u64,
        /// The events after this one follow; 0 means all.
        from: u64,
        /// The value of the field that every patch added one to.
        counter: u64,
    },
    /// One of its events.
    Event {
        /// The room.
        room: String,
        /// Its place.
        seq: u64,
        /// What names the command that made it.
        token: Option<String>,
        /// A digest of all it says.
        digest: u64,
        /// Who came and went, where it tells of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        presence: Option<Presence>,
    },
    /// The members that a room lists, as its events up to the head have them; not of a room that only counts.
    Users {
        /// The room.
        room: String,
        /// Each one, and whether it is away.
        users: Vec<(String, bool)>,
    },
    /// A room that could not be read.
    Unreadable {
        /// Its id.
        room: String,
        /// Why.
        why: String,
    },
}

/// Where the audit of a run is.
pub fn path(folder: &Path) -> PathBuf {
    folder.join("audit.jsonl")
}

/// Audits `rooms` through any of `gateways` and writes the audit. Returns each room's head, as far as it could be read.
///
/// # Errors
/// The file cannot be written.
pub async fn audit(
    folder: &Path,
    gateways: &[SocketAddr],
    rooms: &[String],
) -> std::io::Result<Vec<(String, Since)>> {
    let mut file = BufWriter::new(File::create(path(folder))?);
    let mut heads = Vec::new();
    for (number, room) in rooms.iter().enumerate() {
        let mut lines = Err("never tried".to_owned());
        for attempt in 0..ATTEMPTS {
            let gateway = gateways[(number + attempt as usize) % gateways.len()];
            lines = read_room(gateway, room).await;
            if lines.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
        }
        let lines = lines.unwrap_or_else(|why| {
            vec![Audited::Unreadable {
                room: room.clone(),
                why,
            }]
        });
        for line in &lines {
            if let Audited::Room { epoch, head, .. } = line {
                let since = Since {
                    epoch: epoch.clone(),
                    seq: *head,
                };
                heads.push((room.clone(), since));
            }
            serde_json::to_writer(&mut file, line)?;
            file.write_all(b"\n")?;
        }
    }
    file.flush()?;
    Ok(heads)
}

async fn read_room(gateway: SocketAddr, room: &str) -> Result<Vec<Audited>, String> {
    let mut socket = open(gateway).await?;
    let first = socket.ask(wire::join("a1", room, None), "a1").await?;
    let mut epoch = first.text("epoch").unwrap_or_default().to_owned();
    // On a connection of its own: there nothing came before.
    let mut socket = open(gateway).await?;
    let since = Since { epoch, seq: 0 };
    let joined = socket.ask(wire::join("a2", room, Some(&since)), "a2").await?;
    let head = joined.number("seq").ok_or("a join without a seq")?;
    let recovered = joined.data.get("recovered").and_then(Value::as_bool) == Some(true);
    epoch = joined.text("epoch").unwrap_or_default().to_owned();
    let mut events = Vec::new();
    while recovered && (events.len() as u64) < head {
        let frame = socket.next().await?;
        if let (Some(seq), Some(of)) = (frame.seq, frame.room.as_deref())
            && of == room
        {
            events.push(Audited::Event {
                room: room.to_owned(),
                seq,
                token: frame.token(),
                digest: frame.digest(),
                presence: frame.presence(),
            });
        }
    }
    let users = match first.number("members")
        == first
            .data
            .get("users")
            .and_then(Value::as_array)
            .map(|users| users.len() as u64)
    {
        true => Some(socket.users(room).await?),
        false => None,
    };
    let get = format!(r#"{{"id":"a3","type":"state.get","room":"{room}"}}"#);
    let state = socket.ask(get, "a3").await?;
    let counter = state
        .data
        .get("state")
        .and_then(|state| state.get(COUNTER))
        .and_then(Value::as_u64)
        .unwrap_or(0);
    let mut lines = vec![Audited::Room {
        room: room.to_owned(),
        epoch,
        head,
        from: if recovered { 0 } else { head },
        counter,
    }];
    lines.append(&mut events);
    lines.extend(users.map(|users| Audited::Users {
        room: room.to_owned(),
        users,
    }));
    Ok(lines)
}

/// Whether it is about anybody but the one that reads.
fn tells_of_others(presence: &Presence) -> bool {
    let joined = presence.joined.iter().map(|(user, _)| user);
    let left = presence.left.iter().map(|(user, _)| user);
    let mut all = joined.chain(&presence.away).chain(&presence.back).chain(left);
    all.any(|user| user != AUDITOR)
}

struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Presence of others that was told while an answer was waited for.
    changes: usize,
}

async fn open(gateway: SocketAddr) -> Result<Socket, String> {
    let connecting = connect_async(format!("ws://{gateway}/ws?user={AUDITOR}"));
    let (stream, _) = timeout(PATIENCE, connecting)
        .await
        .map_err(|_| "no answer to the handshake".to_owned())?
        .map_err(|error| error.to_string())?;
    Ok(Socket { stream, changes: 0 })
}

impl Socket {
    async fn next(&mut self) -> Result<Frame, String> {
        loop {
            let message = timeout(PATIENCE, self.stream.next()).await;
            let message = message.map_err(|_| "nothing came for 10 s".to_owned())?;
            match message
                .ok_or("the stream ended")?
                .map_err(|error| error.to_string())?
            {
                Message::Text(text) => return serde_json::from_str(&text).map_err(|error| error.to_string()),
                Message::Close(frame) => return Err(format!("closed: {frame:?}")),
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// All members, page by page.
    async fn users(&mut self, room: &str) -> Result<Vec<(String, bool)>, String> {
        let mut users = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let id = format!("u{}", users.len());
            let page = self.ask(wire::users(&id, room, cursor.as_deref()), &id).await?;
            let listed = page.data.get("users").and_then(Value::as_array);
            users.extend(listed.into_iter().flatten().filter_map(|user| {
                let text = |name: &str| user.get(name)?.as_str();
                Some((text("id")?.to_owned(), text("status")? == "away"))
            }));
            cursor = page.text("cursor").map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        match self.changes {
            0 => Ok(users),
            _ => Err("somebody came or went while the members were listed".to_owned()),
        }
    }

    /// The ack of a command.
    async fn ask(&mut self, text: String, id: &str) -> Result<Frame, String> {
        self.stream
            .send(Message::text(text))
            .await
            .map_err(|error| error.to_string())?;
        loop {
            let frame = self.next().await?;
            self.changes += usize::from(
                frame
                    .presence()
                    .is_some_and(|presence| tells_of_others(&presence)),
            );
            match (frame.of.as_str(), frame.id.as_deref()) {
                ("ack", Some(of)) if of == id => return Ok(frame),
                ("error", Some(of)) if of == id => return Err(frame.data.to_string()),
                _ => {}
            }
        }
    }
}
