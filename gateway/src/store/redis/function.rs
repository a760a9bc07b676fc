//! The Redis function library: the Lua files joined, under a name that carries their hash, so that gateways of
//! different versions use one Redis side by side. A library of another version is left where it is.

use std::sync::LazyLock;

use bytes::Bytes;

/// The files, in the order in which they are joined: each uses only what stands before it.
const FILES: [&str; 17] = [
    include_str!("lua/base.lua"),
    include_str!("lua/epochs.lua"),
    include_str!("lua/rules.lua"),
    include_str!("lua/commands.lua"),
    include_str!("lua/log.lua"),
    include_str!("lua/messages.lua"),
    include_str!("lua/edits.lua"),
    include_str!("lua/users.lua"),
    include_str!("lua/moderation.lua"),
    include_str!("lua/state.lua"),
    include_str!("lua/join.lua"),
    include_str!("lua/config.lua"),
    include_str!("lua/sweep.lua"),
    include_str!("lua/archive.lua"),
    include_str!("lua/room.lua"),
    include_str!("lua/index.lua"),
    include_str!("lua/user.lua"),
];

/// The library.
pub(super) struct Library {
    /// Name of the library and of the function for rooms.
    pub(super) name: Bytes,
    /// Name of the function for what is known of all rooms and nodes.
    pub(super) index: Bytes,
    /// Name of the function for what is known of users.
    pub(super) user: Bytes,
    /// What `FUNCTION LOAD` takes.
    pub(super) code: Bytes,
}

/// The library of this build.
pub(super) static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let text = FILES.concat();
    let name = format!("roomgate_{:08x}", fnv1a(text.as_bytes()));
    let code = format!("#!lua name={name}\n{}", text.replace("@NAME@", &name));
    Library {
        index: format!("{name}_index").into(),
        user: format!("{name}_user").into(),
        name: name.into(),
        code: code.into(),
    }
});

/// FNV-1a, 32 bits.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_a_hash_of_the_text() {
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"a"), 0xe40c_292c);
        let name = std::str::from_utf8(&LIBRARY.name).unwrap();
        let code = std::str::from_utf8(&LIBRARY.code).unwrap();
        assert!(code.starts_with(&format!("#!lua name={name}\n")));
        assert!(code.contains(&format!("redis.register_function('{name}', room)")));
    }
}
