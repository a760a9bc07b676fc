//! One room on its way into an archive: compressed beside the runtime's thread, sent on in parts, so that a room of
//! many messages is never in memory whole.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload, path::Path};
use roomgate_shared::{ids::RoomId, protocol::json::JsonText};

use super::{
    Archive, ArchiveError, CALL, EncodeError, Failure, PART, RoomRest, Written, format::Encoder, in_time,
    names, place::blocking,
};

/// Bytes of messages that are gathered for one go of the compressor: some 10 ms of its time.
const GATHER: usize = 512 * 1024;
/// Bytes of a part: more than the least that S3 takes, and all but the last the same, as some ask for.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// Writes one room: [`RoomWriter::message`] for each message in order, then [`RoomWriter::finish`]. Dropped before that,
/// or after an error, it leaves no archive.
pub struct RoomWriter {
    archive: Archive,
    room: RoomId,
    path: Path,
    /// Absent while it is at work, and after an error.
    encoder: Option<Encoder>,
    /// A fault of the beginning, told by the first call.
    unfit: Option<EncodeError>,
    gathered: Vec<JsonText>,
    gathered_bytes: usize,
    /// Compressed, not sent.
    packed: Vec<u8>,
    sent: u64,
    upload: Option<Upload>,
}

/// An upload in parts, taken back if it is not completed.
struct Upload {
    parts: Option<Box<dyn MultipartUpload>>,
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(mut parts), Ok(runtime)) = (self.parts.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime.spawn(async move {
            if let Err(failure) = in_time(CALL, parts.abort()).await {
                tracing::warn!(
                    reason = failure.reason(),
                    "an unfinished archive could not be taken back"
                );
            }
        });
    }
}

impl RoomWriter {
    pub(super) fn new(archive: Archive, room: RoomId, epoch: &str, completed: u64) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        let (encoder, unfit) = match Encoder::new(&room, epoch, completed, now) {
            Ok(encoder) => (Some(encoder), None),
            Err(why) => (None, Some(why)),
        };
        let path = names::archive(&archive.base, &room, epoch, completed);
        Self {
            archive,
            room,
            path,
            encoder,
            unfit,
            gathered: Vec::new(),
            gathered_bytes: 0,
            packed: Vec::new(),
            sent: 0,
            upload: None,
        }
    }

    /// Adds the next message. Mostly returns at once; now and then it waits until what was gathered is compressed, and
    /// sent. Not cancel-safe: a writer whose call was dropped must be dropped, too.
    ///
    /// # Errors
    /// [`ArchiveError::Write`], [`ArchiveError::Unfit`]: the writer is of no use any more.
    pub async fn message(&mut self, message: JsonText) -> Result<(), ArchiveError> {
        self.gathered_bytes += message.len();
        self.gathered.push(message);
        if self.gathered_bytes < GATHER {
            return Ok(());
        }
        let encoder = self.compress().await?;
        self.encoder = Some(encoder);
        while self.packed.len() > PART_BYTES {
            self.send_part(PART_BYTES).await?;
        }
        Ok(())
    }

    /// Ends the archive. When it answers the archive is there, whole; in a folder it also outlives a power cut.
    ///
    /// # Errors
    /// [`ArchiveError::Write`], [`ArchiveError::Unfit`]: the room must stay. After an answer that did not come in time
    /// the archive may be there nevertheless; another try replaces it.
    pub async fn finish(mut self, rest: RoomRest) -> Result<Written, ArchiveError> {
        let encoder = self.compress().await?;
        let ended = blocking(move || Ok(encoder.finish(&rest))).await;
        let last = ended
            .map_err(|error| self.failed(&Failure::Store(error)))?
            .map_err(|why| self.unfit(why))?;
        self.packed.extend_from_slice(&last);
        while self.packed.len() > PART_BYTES {
            self.send_part(PART_BYTES).await?;
        }
        if self.upload.is_none() {
            self.put().await?;
        } else {
            self.send_part(self.packed.len()).await?;
            self.complete().await?;
        }
        in_time(CALL, self.archive.place.settle(&self.path))
            .await
            .map_err(|failure| self.failed(&failure))?;
        Ok(Written {
            path: self.path.to_string(),
            bytes: self.sent,
        })
    }

    /// Compresses what was gathered into `packed`, and hands out the encoder.
    async fn compress(&mut self) -> Result<Encoder, ArchiveError> {
        if let Some(why) = self.unfit.take() {
            return Err(self.unfit(why));
        }
        let Some(mut encoder) = self.encoder.take() else {
            return Err(ArchiveError::Write {
                path: self.path.to_string(),
                reason: "it had failed before".to_owned(),
            });
        };
        let messages = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let done = blocking(move || {
            let done = messages.iter().try_for_each(|message| encoder.message(message));
            Ok(done.map(|()| (encoder.take(), encoder)))
        })
        .await
        .map_err(|error| self.failed(&Failure::Store(error)))?;
        let (packed, encoder) = done.map_err(|why| self.unfit(why))?;
        self.packed.extend_from_slice(&packed);
        Ok(encoder)
    }

    async fn send_part(&mut self, bytes: usize) -> Result<(), ArchiveError> {
        if self.upload.is_none() {
            let store = writing(self.archive.clone())
                .await
                .map_err(|failure| self.failed(&failure))?;
            let parts = in_time(CALL, self.archive.place.multipart(&store, &self.path))
                .await
                .map_err(|failure| self.failed(&failure))?;
            self.upload = Some(Upload { parts: Some(parts) });
        }
        let rest = self.packed.split_off(bytes);
        let part = std::mem::replace(&mut self.packed, rest);
        self.sent += part.len() as u64;
        let Some(parts) = self.upload.as_mut().and_then(|upload| upload.parts.as_mut()) else {
            return Ok(());
        };
        let sent = in_time(PART, parts.put_part(PutPayload::from(part))).await;
        sent.map_err(|failure| self.failed(&failure))
    }

    async fn complete(&mut self) -> Result<(), ArchiveError> {
        let Some(mut upload) = self.upload.take() else {
            return Ok(());
        };
        let Some(parts) = upload.parts.as_mut() else {
            return Ok(());
        };
        match in_time(PART, parts.complete()).await {
            Ok(_) => {
                upload.parts = None;
                Ok(())
            }
            Err(failure) => Err(self.failed(&failure)),
        }
    }

    /// An archive of less than a part, in one call.
    async fn put(&mut self) -> Result<(), ArchiveError> {
        let store = writing(self.archive.clone())
            .await
            .map_err(|failure| self.failed(&failure))?;
        let whole = std::mem::take(&mut self.packed);
        self.sent = whole.len() as u64;
        let put = in_time(PART, store.put(&self.path, PutPayload::from(whole))).await;
        put.map(|_| ()).map_err(|failure| self.failed(&failure))
    }

    fn failed(&self, failure: &Failure) -> ArchiveError {
        ArchiveError::Write {
            path: self.path.to_string(),
            reason: failure.reason(),
        }
    }

    fn unfit(&self, why: EncodeError) -> ArchiveError {
        let room = self.room.clone();
        ArchiveError::Unfit { room, why }
    }
}

/// Not a method: an upload that is under way cannot be shared between threads, so no reference to the writer may be held
/// while this waits.
async fn writing(archive: Archive) -> Result<Arc<dyn ObjectStore>, Failure> {
    in_time(CALL, archive.place.writing()).await
}
