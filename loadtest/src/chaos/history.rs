//! What every client saw and did, as JSON lines. The checker reads nothing else.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use clap::ValueEnum;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Files that the clients of a run share. All lines of a client are in one, in their order.
const FILES: usize = 8;

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since the run began, of one monotonic clock for all.
    pub at: u64,
    /// The client.
    pub client: u32,
    /// The client's connection, counted from 1 for each client.
    pub conn: u32,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happens to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A WebSocket is open.
    Connect {
        /// The gateway's number.
        gateway: usize,
    },
    /// No WebSocket came about.
    Refused {
        /// The gateway's number.
        gateway: usize,
        /// Why, in words.
        why: String,
    },
    /// A join was sent.
    Join {
        /// The room.
        room: String,
        /// `since`, if one was given.
        since: Option<Since>,
    },
    /// A join was acknowledged.
    Joined {
        /// The room.
        room: String,
        /// The room's epoch.
        epoch: String,
        /// The `seq` of the picture, or after the missed events.
        seq: u64,
        /// Whether all missed events follow.
        recovered: bool,
        /// How many, where recovered.
        missed: Option<u64>,
        /// Why not, where not.
        reason: Option<String>,
    },
    /// A command was sent, or sent again under its id.
    Sent {
        /// The room.
        room: String,
        /// The command id.
        id: String,
        /// The command's type.
        of: String,
        /// What names the command in its event.
        token: String,
        /// Whether it had been sent before.
        again: bool,
    },
    /// A command was acknowledged.
    Acked {
        /// The room.
        room: String,
        /// The command id.
        id: String,
        /// The place in the room's order that the ack tells.
        seq: u64,
        /// Whether the answer is a remembered one.
        duplicate: bool,
    },
    /// An error frame.
    Failed {
        /// The room that it names.
        room: Option<String>,
        /// The command that it answers.
        id: Option<String>,
        /// Its code.
        code: String,
    },
    /// A durable event.
    Event(Event),
    /// The room was lost and given anew.
    Resync {
        /// The room.
        room: String,
        /// The epoch from now on.
        epoch: String,
        /// The `seq` of the picture.
        seq: u64,
        /// Why.
        reason: Option<String>,
    },
    /// A status frame; with an epoch, the room goes on under it.
    Status {
        /// The room, if it is about one.
        room: Option<String>,
        /// `ok` or `down`.
        redis: Option<String>,
        /// The epoch from now on.
        epoch: Option<String>,
    },
    /// The connection ended with a close frame.
    Closed {
        /// Its code.
        code: u16,
        /// Its text.
        reason: String,
    },
    /// The connection ended without one, or was given up.
    Lost {
        /// Why, in words.
        why: String,
    },
    /// A command, or with no id the client itself, was told not to try again.
    GaveUp {
        /// The command id.
        id: Option<String>,
        /// The error code or close code.
        code: String,
    },
}

/// What a client knows of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// The epoch.
    pub epoch: String,
    /// The last `seq` handled.
    pub seq: u64,
}

/// A durable event as a client saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The room.
    pub room: String,
    /// The epoch that the client knows the room by.
    pub epoch: String,
    /// Its place in the room's order.
    pub seq: u64,
    /// Its type.
    #[serde(rename = "type")]
    pub of: String,
    /// What names the command that made it, if one of the clients' commands did.
    pub token: Option<String>,
    /// The author.
    pub by: Option<String>,
    /// A digest of all it says.
    pub digest: u64,
}

/// A fault planted in what is recorded, to see that the checker finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// A delivery is not recorded.
    Drop,
    /// A delivery is recorded twice.
    Double,
    /// Two deliveries of a room change places.
    Swap,
}

/// The histories of a run.
pub struct History {
    start: Instant,
    files: Vec<Mutex<BufWriter<File>>>,
    plant: Option<(Plant, u64)>,
    deliveries: AtomicU64,
    planted: AtomicU64,
    failed: Mutex<Option<io::Error>>,
}

impl History {
    /// Opens the files in `folder`. With `plant`, one delivery in so many is recorded wrongly.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn create(folder: &Path, start: Instant, plant: Option<(Plant, u64)>) -> io::Result<Arc<Self>> {
        let files: io::Result<Vec<_>> = (0..FILES)
            .map(|number| {
                let file = File::create(folder.join(format!("clients-{number}.jsonl")))?;
                Ok(Mutex::new(BufWriter::with_capacity(256 * 1024, file)))
            })
            .collect();
        Ok(Arc::new(Self {
            start,
            files: files?,
            plant,
            deliveries: AtomicU64::new(0),
            planted: AtomicU64::new(0),
            failed: Mutex::new(None),
        }))
    }

    /// Microseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Durable events delivered to clients so far.
    pub fn deliveries(&self) -> u64 {
        self.deliveries.load(Ordering::Relaxed)
    }

    /// Faults planted so far.
    pub fn planted(&self) -> u64 {
        self.planted.load(Ordering::Relaxed)
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// This, or an earlier write, failed: the histories are not whole.
    pub fn finish(&self) -> io::Result<()> {
        for file in &self.files {
            file.lock().flush()?;
        }
        self.failed.lock().take().map_or(Ok(()), Err)
    }

    fn write(&self, line: &Line) {
        let mut file = self.files[line.client as usize % FILES].lock();
        let written = serde_json::to_writer(&mut *file, line)
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(b"\n"));
        if let Err(error) = written {
            self.failed.lock().get_or_insert(error);
        }
    }
}

/// What one client writes its history with.
pub struct Pen {
    history: Arc<History>,
    client: u32,
    /// The number of the present connection; 0 before the first.
    pub conn: u32,
    /// A delivery that is to change places with the room's next.
    held: Option<(String, Line)>,
}

impl Pen {
    /// One for `client`.
    pub fn new(history: Arc<History>, client: u32) -> Self {
        Self {
            history,
            client,
            conn: 0,
            held: None,
        }
    }

    /// Records what happened just now.
    pub fn write(&mut self, what: What) {
        let line = self.line(what);
        // A delivery changes places with the next one of its stretch only.
        let ends_stretch = match &line.what {
            What::Joined { .. }
            | What::Resync { .. }
            | What::Status { .. }
            | What::Closed { .. }
            | What::Lost { .. } => true,
            What::Connect { .. }
            | What::Refused { .. }
            | What::Join { .. }
            | What::Sent { .. }
            | What::Acked { .. }
            | What::Failed { .. }
            | What::Event(_)
            | What::GaveUp { .. } => false,
        };
        if ends_stretch {
            self.put_back();
        }
        self.history.write(&line);
    }

    /// Records a delivery, as it was or as the planted fault has it.
    pub fn event(&mut self, event: Event) {
        let number = self.history.deliveries.fetch_add(1, Ordering::Relaxed) + 1;
        let room = event.room.clone();
        let line = self.line(What::Event(event));
        let plant = self
            .history
            .plant
            .filter(|&(_, every)| number.is_multiple_of(every))
            .map(|(plant, _)| plant);
        if self.held.as_ref().is_some_and(|(held, _)| *held == room) {
            self.history.write(&line);
            self.put_back();
            self.history.planted.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match plant {
            Some(Plant::Swap) => {
                self.put_back();
                self.held = Some((room, line));
                return;
            }
            Some(Plant::Drop) => {}
            Some(Plant::Double) => {
                self.history.write(&line);
                self.history.write(&line);
            }
            None => self.history.write(&line),
        }
        if plant.is_some() {
            self.history.planted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn line(&self, what: What) -> Line {
        Line {
            at: self.history.now(),
            client: self.client,
            conn: self.conn,
            what,
        }
    }

    fn put_back(&mut self) {
        if let Some((_, line)) = self.held.take() {
            self.history.write(&line);
        }
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        self.put_back();
    }
}

/// The files with the clients' histories in `folder`.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    (0..FILES)
        .map(|number| folder.join(format!("clients-{number}.jsonl")))
        .filter(|path| path.is_file())
        .collect()
}

/// Gives every line of a file of JSON lines to `take`.
///
/// # Errors
/// The file cannot be read, or a line is none.
pub fn read<T: for<'a> Deserialize<'a>>(path: &Path, mut take: impl FnMut(T)) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 * 1024, File::open(path)?);
    let mut text = String::new();
    for number in 1.. {
        text.clear();
        if reader.read_line(&mut text)? == 0 {
            break;
        }
        let line = serde_json::from_str(&text)
            .map_err(|error| io::Error::other(format!("{}:{number}: {error}", path.display())))?;
        take(line);
    }
    Ok(())
}
