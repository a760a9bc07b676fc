//! What was done to the servers and when, and what was measured of them: JSON lines beside the clients' histories.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::history::History;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Microseconds since the run began.
    pub at: u64,
    /// What it is.
    #[serde(flatten)]
    pub what: Act,
}

/// What was done or measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Act {
    /// Something was done to the servers.
    Fault {
        /// In a few words, the same for each fault of a kind.
        what: String,
        /// The gateway that it was done to.
        gateway: Option<usize>,
        /// The room that it was done to.
        room: Option<String>,
    },
    /// A figure.
    Measure {
        /// In a few words, the same for each figure of a kind.
        what: String,
        /// The figure.
        value: f64,
        /// Its unit.
        unit: String,
        /// What it may be at most.
        at_most: Option<f64>,
    },
    /// Something that must happen did not.
    Never {
        /// What was waited for.
        what: String,
        /// For how long.
        waited_ms: f64,
    },
    /// A part of the run begins.
    Phase {
        /// Its name.
        name: String,
    },
    /// Something of note that is no figure.
    Note {
        /// What.
        text: String,
    },
    /// These clients never come back once their connections are lost; nothing of them is expected at the end.
    Gone {
        /// The clients.
        clients: Vec<u32>,
    },
    /// These clients are not compared with the others, and why.
    Apart {
        /// The clients.
        clients: Vec<u32>,
        /// Why.
        why: String,
    },
}

/// Where the journal of a run is.
pub fn path(folder: &Path) -> PathBuf {
    folder.join("faults.jsonl")
}

/// Writes the journal.
pub struct Journal {
    file: Mutex<File>,
    history: Arc<History>,
}

impl Journal {
    /// Opens it in `folder`, on the clock of `history`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(folder: &Path, history: Arc<History>) -> io::Result<Self> {
        let file = Mutex::new(File::create(path(folder))?);
        Ok(Self { file, history })
    }

    /// Something was done just now to a gateway, or to Redis.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn fault(&self, what: &str, gateway: Option<usize>) -> io::Result<()> {
        self.write(Act::Fault {
            what: what.to_owned(),
            gateway,
            room: None,
        })
    }

    /// A figure, and what it may be at most.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn measure(&self, what: &str, value: f64, unit: &str, at_most: Option<f64>) -> io::Result<()> {
        self.write(Act::Measure {
            what: what.to_owned(),
            value,
            unit: unit.to_owned(),
            at_most,
        })
    }

    /// A part of the run begins.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn phase(&self, name: &str) -> io::Result<()> {
        let name = name.to_owned();
        self.write(Act::Phase { name })
    }

    /// Something of note.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note(&self, text: String) -> io::Result<()> {
        self.write(Act::Note { text })
    }

    /// Anything.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, what: Act) -> io::Result<()> {
        let at = self.history.now();
        let mut line = serde_json::to_vec(&Entry { at, what })?;
        line.push(b'\n');
        self.file.lock().write_all(&line)
    }
}
