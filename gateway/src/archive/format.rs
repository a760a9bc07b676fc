//! The format of an archive: gzip of two lines, the room as one JSON document and the SHA-256 of that line. See
//! `docs/ARCHIVE.md`. No I/O, and nothing here waits: whoever calls keeps it off the runtime's thread.

use std::io::{Read as _, Write as _};

use aws_lc_rs::digest::{Context, SHA256, digest};
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use roomgate_shared::{ids::RoomId, protocol::json::JsonText};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::record::{RoomRecord, RoomRest};

/// What every archive calls itself.
pub const FORMAT: &str = "roomgate.room";
/// The version that is written, and the only one that is read.
pub const VERSION: u64 = 1;
/// Most bytes of an archive's text: what is not written cannot be needed back, and what unpacks to more is not read.
pub const MAX_BYTES: u64 = 1 << 30;

/// `{"sha256":"…"}` and a line feed.
const TRAILER_BYTES: usize = 11 + 64 + 3;

/// Why a room cannot be put into the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Something that should be JSON is not: it could not be read back.
    #[error("{what} is not JSON: {why}")]
    NotJson {
        /// What of the room.
        what: &'static str,
        /// What serde_json says.
        why: String,
    },
    /// More than [`MAX_BYTES`].
    #[error("the room has more than {} MiB", .0 >> 20)]
    TooLarge(u64),
    /// The compressor failed.
    #[error("cannot be compressed: {0}")]
    Compress(String),
}

/// Why bytes are not an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("it is cut off")]
    Truncated,
    /// It is not what was compressed.
    #[error("it cannot be decompressed: {0}")]
    Compression(String),
    /// More than [`MAX_BYTES`].
    #[error("it unpacks to more than {} MiB", .0 >> 20)]
    TooLarge(u64),
    /// Something follows where it should have ended.
    #[error("something follows after its end")]
    Trailing,
    /// The last line is not a checksum.
    #[error("it has no checksum")]
    NoChecksum,
    /// The text is not what was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// Whole, but nothing that a gateway has written.
    #[error("it is not an archive of a room: {0}")]
    NotARoom(String),
    /// Whole, and written by a later Roomgate.
    #[error("its version is {0}, and this gateway reads version {VERSION}")]
    Version(u64),
}

/// Writes an archive piece by piece. After an error it must be thrown away.
pub(super) struct Encoder {
    gzip: GzEncoder<Vec<u8>>,
    hash: Context,
    /// Bytes of text so far.
    bytes: u64,
    messages: u64,
    limit: u64,
}

impl Encoder {
    /// Begins the archive of `room`, written at `written`.
    ///
    /// # Errors
    /// None that depends on the room.
    pub(super) fn new(room: &RoomId, epoch: &str, completed: u64, written: u64) -> Result<Self, EncodeError> {
        let mut encoder = Self {
            gzip: GzEncoder::new(Vec::new(), Compression::default()),
            hash: Context::new(&SHA256),
            bytes: 0,
            messages: 0,
            limit: MAX_BYTES,
        };
        let id = roomgate_shared::protocol::json::quoted(room.as_str());
        let epoch = roomgate_shared::protocol::json::quoted(epoch);
        encoder.text(&format!(
            r#"{{"format":"{FORMAT}","version":{VERSION},"written":{written},"room":{{"id":{id},"epoch":{epoch},"completed":{completed},"messages":["#
        ))?;
        Ok(encoder)
    }

    /// Adds the next message.
    ///
    /// # Errors
    /// It is not JSON, or the archive becomes too large.
    pub(super) fn message(&mut self, message: &JsonText) -> Result<(), EncodeError> {
        serde_json::from_str::<&RawValue>(message.as_str()).map_err(|error| not_json("a message", &error))?;
        if self.messages > 0 {
            self.text(",")?;
        }
        self.messages += 1;
        self.text(message.as_str())
    }

    /// What has come out of the compressor since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.gzip.get_mut())
    }

    /// Adds the rest of the room, ends the archive and gives what has come out since the last [`Encoder::take`].
    ///
    /// # Errors
    /// A value is not JSON, or the archive becomes too large.
    pub(super) fn finish(mut self, rest: &RoomRest) -> Result<Vec<u8>, EncodeError> {
        let rest = serde_json::to_string(rest).map_err(|error| not_json("the room's data", &error))?;
        self.text("],")?;
        self.text(rest.strip_prefix('{').unwrap_or(&rest))?;
        self.text("}\n")?;
        let sum = hex(self.hash.clone().finish().as_ref());
        self.text(&trailer(&sum))?;
        self.gzip
            .finish()
            .map_err(|error| EncodeError::Compress(error.to_string()))
    }

    fn text(&mut self, text: &str) -> Result<(), EncodeError> {
        self.bytes += text.len() as u64;
        if self.bytes > self.limit {
            return Err(EncodeError::TooLarge(self.limit));
        }
        self.hash.update(text.as_bytes());
        self.gzip
            .write_all(text.as_bytes())
            .map_err(|error| EncodeError::Compress(error.to_string()))
    }
}

/// Reads a whole archive. Needs memory for its text and for the record.
///
/// # Errors
/// It is damaged, of another version, or no archive.
pub(super) fn decode(archive: &[u8]) -> Result<RoomRecord, DecodeError> {
    decode_within(archive, MAX_BYTES)
}

fn decode_within(archive: &[u8], limit: u64) -> Result<RoomRecord, DecodeError> {
    let text = unpack(archive, limit)?;
    let at = text
        .len()
        .checked_sub(TRAILER_BYTES)
        .ok_or(DecodeError::NoChecksum)?;
    let (document, found) = text.split_at(at);
    if !found.starts_with(br#"{"sha256":""#) {
        return Err(DecodeError::NoChecksum);
    }
    let sum = hex(digest(&SHA256, document).as_ref());
    if found != trailer(&sum).as_bytes() {
        return Err(DecodeError::Checksum);
    }
    record(document)
}

fn unpack(archive: &[u8], limit: u64) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = GzDecoder::new(archive);
    let mut text = Vec::new();
    let read = (&mut decoder).take(limit + 1).read_to_end(&mut text);
    read.map_err(|error| {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            DecodeError::Truncated
        } else {
            DecodeError::Compression(error.to_string())
        }
    })?;
    if text.len() as u64 > limit {
        return Err(DecodeError::TooLarge(limit));
    }
    if !decoder.into_inner().is_empty() {
        return Err(DecodeError::Trailing);
    }
    Ok(text)
}

#[derive(Deserialize)]
struct Document<'a> {
    format: String,
    version: u64,
    #[serde(borrow)]
    room: &'a RawValue,
}

#[derive(Deserialize)]
struct Head {
    id: RoomId,
    epoch: String,
    completed: u64,
    messages: Vec<JsonText>,
}

fn record(document: &[u8]) -> Result<RoomRecord, DecodeError> {
    let not_a_room = |error: serde_json::Error| DecodeError::NotARoom(error.to_string());
    let document: Document = serde_json::from_slice(document).map_err(not_a_room)?;
    if document.format != FORMAT {
        return Err(DecodeError::NotARoom(format!(
            "it calls itself {:?}",
            document.format
        )));
    }
    if document.version != VERSION {
        return Err(DecodeError::Version(document.version));
    }
    // Twice over the same text, each time passing over the other half: flattening would lose the values' own text.
    let head: Head = serde_json::from_str(document.room.get()).map_err(not_a_room)?;
    let rest: RoomRest = serde_json::from_str(document.room.get()).map_err(not_a_room)?;
    Ok(RoomRecord {
        id: head.id,
        epoch: head.epoch,
        completed: head.completed,
        messages: head.messages,
        rest,
    })
}

fn not_json(what: &'static str, error: &serde_json::Error) -> EncodeError {
    let why = error.to_string();
    EncodeError::NotJson { what, why }
}

fn trailer(sum: &str) -> String {
    format!("{{\"sha256\":\"{sum}\"}}\n")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
