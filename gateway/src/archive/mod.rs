//! Completed rooms, kept outside of the store: written before they are removed from it, read when one is opened again.
//! The format and the places are described in `docs/ARCHIVE.md`.
//!
//! Whoever writes may remove the room when [`RoomWriter::finish`] has answered, and not before: then the archive is
//! whole, and in a folder it outlives a power cut.

mod format;
mod names;
mod place;
mod record;
#[cfg(test)]
mod tests;
mod writer;

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::BoxStream};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, path::Path};
use roomgate_shared::ids::RoomId;

pub use self::{
    format::{DecodeError, EncodeError, FORMAT, MAX_BYTES, VERSION},
    record::{MemberRecord, RoomRecord, RoomRest, RoomStatistics},
    writer::RoomWriter,
};
use self::{
    names::Named,
    place::{Place, blocking},
};

/// How long a small call may take, its retries included; of a listing, the next step.
const CALL: Duration = Duration::from_secs(10);
/// How long it may take to read an archive, whose room waits for it.
const READ: Duration = Duration::from_secs(120);
/// How long a part of an archive may take on its way.
const PART: Duration = Duration::from_secs(60);

/// Why an archive could not be written, read or found. None of the texts has credentials in it.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// `ARCHIVE_URL` names no place for archives.
    #[error("ARCHIVE_URL: {0}")]
    Url(String),
    /// The room cannot be put into the format: trying again does not help.
    #[error("room {room} cannot be archived: {why}")]
    Unfit {
        /// The room.
        room: RoomId,
        /// Why not.
        why: EncodeError,
    },
    /// The archive could not be written: the room must stay.
    #[error("archive {path} cannot be written: {reason}")]
    Write {
        /// Where it should have been.
        path: String,
        /// What the place said.
        reason: String,
    },
    /// The place of archives could not be read, listed or cleared.
    #[error("archive {path} cannot be reached: {reason}")]
    Reach {
        /// What was asked for.
        path: String,
        /// What the place said.
        reason: String,
    },
    /// There is an archive, but it is not what was written.
    #[error("archive {path} is damaged: {why}")]
    Damaged {
        /// Where it is.
        path: String,
        /// How so.
        why: DecodeError,
    },
    /// There is an archive, but of another room than its place says.
    #[error("archive {path} is of another room: {found}")]
    OtherRoom {
        /// Where it is.
        path: String,
        /// The room in it.
        found: RoomId,
    },
}

/// An archive that has been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where, below `ARCHIVE_URL`.
    pub path: String,
    /// Its size, compressed.
    pub bytes: u64,
}

/// An archive that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// The room.
    pub room: RoomId,
    /// When it was completed, in milliseconds since 1970.
    pub completed: u64,
    /// Its epoch then.
    pub epoch: String,
    /// Where, below `ARCHIVE_URL`.
    pub path: String,
    /// Its size, compressed.
    pub bytes: u64,
}

/// The place of archives. Cheap to clone.
#[derive(Clone)]
pub struct Archive {
    place: Arc<Place>,
    base: Path,
}

impl Archive {
    /// Opens the place that `ARCHIVE_URL` names: a folder (a path or `file://`), made by the first write, or a bucket
    /// (`s3://`, `gs://`, `az://`, …), whose credentials come from the variables that its cloud's own tools read. No
    /// I/O: that it can be written to is seen with the first room.
    ///
    /// # Errors
    /// [`ArchiveError::Url`].
    pub fn open(url: &str) -> Result<Self, ArchiveError> {
        let (place, base) = Place::open(url).map_err(|why| ArchiveError::Url(scrubbed(&why)))?;
        let place = Arc::new(place);
        Ok(Self { place, base })
    }

    /// Begins the archive of a room that was completed at `completed` (milliseconds since 1970). Nothing is written yet.
    /// Beginning again with the same three replaces the archive.
    pub fn begin(&self, room: &RoomId, epoch: &str, completed: u64) -> RoomWriter {
        RoomWriter::new(self.clone(), room.clone(), epoch, completed)
    }

    /// Writes a room whose messages are at hand.
    ///
    /// # Errors
    /// [`ArchiveError::Write`], [`ArchiveError::Unfit`].
    pub async fn write(&self, room: RoomRecord) -> Result<Written, ArchiveError> {
        let mut writer = self.begin(&room.id, &room.epoch, room.completed);
        for message in room.messages {
            writer.message(message).await?;
        }
        writer.finish(room.rest).await
    }

    /// A room's newest archive, read and checked; `None` if it has none. One that is damaged is an error: an older one
    /// would pass for the newest.
    ///
    /// # Errors
    /// [`ArchiveError::Reach`], [`ArchiveError::Damaged`], [`ArchiveError::OtherRoom`].
    pub async fn latest(&self, room: &RoomId) -> Result<Option<RoomRecord>, ArchiveError> {
        let newest = self.of_room(room).await?.pop();
        match newest {
            None => Ok(None),
            Some(archived) => {
                let read = async { Ok(self.read(&archived).await) };
                // A place that trickles keeps within each step's deadline.
                in_time(READ, read)
                    .await
                    .map_err(|failure| unreachable(&self.path(&archived), &failure))?
                    .map(Some)
            }
        }
    }

    /// Whether a room has an archive; it is not read.
    ///
    /// # Errors
    /// [`ArchiveError::Reach`].
    pub async fn exists(&self, room: &RoomId) -> Result<bool, ArchiveError> {
        Ok(!self.of_room(room).await?.is_empty())
    }

    /// Removes every archive of a room, the newest last, and says how many there were.
    ///
    /// # Errors
    /// [`ArchiveError::Reach`]: some may be left.
    pub async fn remove(&self, room: &RoomId) -> Result<usize, ArchiveError> {
        let found = self.of_room(room).await?;
        for archived in &found {
            let path = self.path(archived);
            let Some(store) = self.reading(&path).await? else {
                break;
            };
            match in_time(CALL, store.delete(&path)).await {
                Ok(()) | Err(Failure::Store(object_store::Error::NotFound { .. })) => {}
                Err(failure) => return Err(unreachable(&path, &failure)),
            }
        }
        Ok(found.len())
    }

    /// At most `limit` archives, of all rooms, in no order that means anything.
    ///
    /// # Errors
    /// [`ArchiveError::Reach`].
    pub async fn list(&self, limit: usize) -> Result<Vec<Archived>, ArchiveError> {
        self.below(&names::rooms(&self.base), limit).await
    }

    /// The archives of a room, the newest last.
    async fn of_room(&self, room: &RoomId) -> Result<Vec<Archived>, ArchiveError> {
        let mut found = self.below(&names::room(&self.base, room), usize::MAX).await?;
        found.retain(|archived| archived.room == *room);
        found.sort_by(|a, b| (a.completed, &a.epoch).cmp(&(b.completed, &b.epoch)));
        Ok(found)
    }

    async fn below(&self, folder: &Path, limit: usize) -> Result<Vec<Archived>, ArchiveError> {
        let mut found = Vec::new();
        let Some(store) = self.reading(folder).await? else {
            return Ok(found);
        };
        let mut listing: BoxStream<'static, object_store::Result<ObjectMeta>> = store.list(Some(folder));
        while found.len() < limit {
            let next = async { listing.next().await.transpose() };
            let next = in_time(CALL, next)
                .await
                .map_err(|failure| unreachable(folder, &failure))?;
            let Some(meta) = next else {
                break;
            };
            if let Some(Named {
                room,
                completed,
                epoch,
            }) = names::read(&meta.location)
            {
                found.push(Archived {
                    room,
                    completed,
                    epoch,
                    path: meta.location.to_string(),
                    bytes: meta.size,
                });
            }
        }
        Ok(found)
    }

    async fn read(&self, archived: &Archived) -> Result<RoomRecord, ArchiveError> {
        let path = self.path(archived);
        let gone = || ArchiveError::Reach {
            path: path.to_string(),
            reason: "it is gone".to_owned(),
        };
        let store = self.reading(&path).await?.ok_or_else(gone)?;
        let failed = |failure: Failure| unreachable(&path, &failure);
        let damaged = |why| ArchiveError::Damaged {
            path: path.to_string(),
            why,
        };
        let got = in_time(CALL, store.get(&path)).await.map_err(failed)?;
        // No archive is larger packed than unpacked by more than a few bytes.
        if got.meta.size > MAX_BYTES {
            return Err(damaged(DecodeError::TooLarge(MAX_BYTES)));
        }
        let size = got.meta.size;
        let mut bytes = Vec::with_capacity(size as usize);
        let mut stream = got.into_stream();
        loop {
            let next = async { stream.next().await.transpose() };
            match in_time(PART, next).await.map_err(failed)? {
                Some(piece) => bytes.extend_from_slice(&piece),
                None => break,
            }
        }
        let record = blocking(move || Ok(format::decode(&bytes)))
            .await
            .map_err(|error| failed(Failure::Store(error)))?
            .map_err(damaged)?;
        if record.id != archived.room {
            return Err(ArchiveError::OtherRoom {
                path: path.to_string(),
                found: record.id,
            });
        }
        Ok(record)
    }

    async fn reading(&self, path: &Path) -> Result<Option<Arc<dyn ObjectStore>>, ArchiveError> {
        in_time(CALL, self.place.reading())
            .await
            .map_err(|failure| unreachable(path, &failure))
    }

    fn path(&self, archived: &Archived) -> Path {
        // As the listing gave it: it needs no encoding.
        Path::parse(&archived.path).unwrap_or_default()
    }
}

/// Why a call of the place failed.
enum Failure {
    Store(object_store::Error),
    Late(Duration),
}

impl Failure {
    /// For people: what the library says, without what may be secret.
    fn reason(&self) -> String {
        match self {
            Self::Store(error) => {
                let mut text = error.to_string();
                // The library's own text ends with the first cause; what went wrong is often told by a deeper one.
                let mut cause = std::error::Error::source(error);
                while let Some(error) = cause {
                    let told = error.to_string();
                    if !text.contains(&told) {
                        text = format!("{text}: {told}");
                    }
                    cause = error.source();
                }
                scrubbed(&text)
            }
            Self::Late(after) => format!("no answer within {} s", after.as_secs()),
        }
    }
}

async fn in_time<T>(
    deadline: Duration,
    call: impl Future<Output = object_store::Result<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(deadline, call).await {
        Ok(done) => done.map_err(Failure::Store),
        Err(_) => Err(Failure::Late(deadline)),
    }
}

fn unreachable(path: &Path, failure: &Failure) -> ArchiveError {
    ArchiveError::Reach {
        path: path.to_string(),
        reason: failure.reason(),
    }
}

/// `text` on one line, without the queries of addresses (signatures stand there) and their users and passwords.
fn scrubbed(text: &str) -> String {
    let word = |word: &str| match word.split_once("://") {
        None => word.to_owned(),
        Some((scheme, rest)) => {
            let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
            let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
    };
    let words: Vec<String> = text.split_whitespace().map(word).collect();
    words.join(" ")
}
