//! Where an archive lies: `rooms/3f/3f9a01b2c3d4e5f6-<room>/<completed>-<epoch>.json.gz`.

use aws_lc_rs::digest::{SHA256, digest};
use object_store::path::Path;
use roomgate_shared::ids::RoomId;

use super::format::hex;

/// What an archive's name ends with.
const SUFFIX: &str = ".json.gz";
/// Characters of the hash before a room's id: they tell `A` from `a` where the file system does not.
const HASH_CHARS: usize = 16;

/// The folder of all archives, below `base`.
pub(super) fn rooms(base: &Path) -> Path {
    base.clone().join("rooms")
}

/// The folder of a room's archives.
pub(super) fn room(base: &Path, room: &RoomId) -> Path {
    let hash = hex(&digest(&SHA256, room.as_str().as_bytes()).as_ref()[..HASH_CHARS / 2]);
    // Neither `:` nor `~` is welcome everywhere in names; `=` and `!` are, and no id has them.
    let name = room.as_str().replace(':', "=").replace('~', "!");
    rooms(base).join(&hash[..2]).join(format!("{hash}-{name}"))
}

/// An archive. Names sort by time.
pub(super) fn archive(base: &Path, id: &RoomId, epoch: &str, completed: u64) -> Path {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let epoch: String = epoch
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .take(64)
        .collect();
    room(base, id).join(format!("{completed:020}-{epoch}{SUFFIX}"))
}

/// What an archive's place says of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub(super) room: RoomId,
    pub(super) completed: u64,
    pub(super) epoch: String,
}

/// Reads a place back; `None` for whatever is not an archive.
pub(super) fn read(path: &Path) -> Option<Named> {
    let mut parts = path.as_ref().rsplit('/');
    let (file, folder) = (parts.next()?, parts.next()?);
    let (completed, epoch) = file.strip_suffix(SUFFIX)?.split_once('-')?;
    let id = folder
        .get(HASH_CHARS..)?
        .strip_prefix('-')?
        .replace('=', ":")
        .replace('!', "~");
    Some(Named {
        room: RoomId::new(id).ok()?,
        completed: completed.parse().ok()?,
        epoch: epoch.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_place_reads_back(id in "[A-Za-z0-9._~:-]{1,128}", epoch in "[0-9a-z]{10}", completed: u64) {
            let room = RoomId::new(&id).unwrap();
            let path = archive(&Path::from("a/b"), &room, &epoch, completed);
            prop_assert!(path.as_ref().starts_with("a/b/rooms/"));
            prop_assert!(path.parts().all(|part| part.as_ref().len() <= 255));
            prop_assert!(!path.as_ref().contains(['%', ':', '~']));
            prop_assert_eq!(read(&path), Some(Named { room, completed, epoch }));
        }

        #[test]
        fn ids_that_differ_in_case_only_have_other_folders_in_lower_case(id in "[A-Za-z]{1,20}") {
            let folder = |id: &str| room(&Path::default(), &RoomId::new(id).unwrap()).as_ref().to_lowercase();
            prop_assume!(id != id.to_lowercase());
            prop_assert_ne!(folder(&id), folder(&id.to_lowercase()));
        }
    }

    #[test]
    fn other_files_are_no_archives() {
        for name in [
            "0123456789abcdef-r/00000000000000000001-e.json.gz#1",
            "0123456789abcdef-r/x-e.json.gz",
            "0123456789abcdef-r/1-e.json",
            "0123456789abcdef/1-e.json.gz",
            "r/1-e.json.gz",
            "1-e.json.gz",
        ] {
            assert_eq!(read(&Path::parse(name).unwrap()), None, "{name}");
        }
    }
}
