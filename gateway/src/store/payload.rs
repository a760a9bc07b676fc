//! What travels on a room's channel `room:{id}:events`: the contract among gateways.
//!
//! ```text
//! durable:  E <epoch> SP <first seq> RS <event> RS <event> …      seq rises by one from event to event
//! signal:   S <user id of the sender> RS [<user id> US …] RS <frame>   no receivers named: all members
//! moves:    M <instance> SP <its members> RS <user id> US <position> RS …   a US at the end: told once more
//! occupancy: C [<members>]                    of a room that counts; nothing: it does not count any more
//! ```
//!
//! RS is 0x1e and US 0x1f: neither can stand unescaped in JSON or in a user id, so a payload is split without being
//! parsed. Events and frames are the JSON text that clients get.

use bytes::Bytes;

const RS: u8 = 0x1e;
const US: u8 = 0x1f;

/// A payload, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Events with a place in the order.
    Durable {
        /// The room's epoch.
        epoch: &'a str,
        /// `seq` of the first event.
        first: u64,
        /// The events, in order.
        events: Vec<&'a [u8]>,
    },
    /// An ephemeral frame.
    Signal {
        /// The sender's user id: its connections get nothing.
        from: &'a str,
        /// Receivers; empty for all.
        to: Vec<&'a str>,
        /// The frame.
        frame: &'a [u8],
    },
    /// Where users of another node are now.
    Moves {
        /// The node, as [`Store::instance`](super::Store::instance) has it.
        instance: &'a str,
        /// How many connections of the room the node has.
        members: u64,
        /// Who has moved: user id and position, JSON text.
        moves: Vec<(&'a str, &'a [u8])>,
        /// Who has not moved since, told once more for those who do not know.
        again: Vec<(&'a str, &'a [u8])>,
    },
    /// How many members a room that counts has.
    Occupancy {
        /// That many; `None` where it does not count any more.
        members: Option<u64>,
    },
}

/// Takes a payload apart; `None` for one that no gateway of this version wrote.
pub fn parse(payload: &[u8]) -> Option<Payload<'_>> {
    let (&kind, rest) = payload.split_first()?;
    let mut parts = rest.split(|&b| b == RS);
    match kind {
        b'E' => {
            let (epoch, first) = std::str::from_utf8(parts.next()?).ok()?.split_once(' ')?;
            let (first, events) = (first.parse().ok()?, parts.collect::<Vec<_>>());
            (first > 0 && !events.is_empty()).then_some(Payload::Durable { epoch, first, events })
        }
        b'S' => {
            let from = std::str::from_utf8(parts.next()?).ok()?;
            let to = std::str::from_utf8(parts.next()?).ok()?;
            let to = to.split(US as char).filter(|user| !user.is_empty()).collect();
            Some(Payload::Signal {
                from,
                to,
                frame: parts.next()?,
            })
        }
        b'M' => {
            let (instance, members) = std::str::from_utf8(parts.next()?).ok()?.split_once(' ')?;
            let (mut moves, mut again) = (Vec::new(), Vec::new());
            for part in parts {
                let at = part.iter().position(|&b| b == US)?;
                let (user, position) = (std::str::from_utf8(&part[..at]).ok()?, &part[at + 1..]);
                match position.strip_suffix(&[US]) {
                    Some(position) => again.push((user, position)),
                    None => moves.push((user, position)),
                }
            }
            let members = members.parse().ok()?;
            Some(Payload::Moves {
                instance,
                members,
                moves,
                again,
            })
        }
        b'C' => {
            let text = std::str::from_utf8(rest).ok()?;
            let members = match text {
                "" => None,
                number => Some(number.parse().ok()?),
            };
            Some(Payload::Occupancy { members })
        }
        _ => None,
    }
}

/// The payload of moves: user id, position, and whether it is told once more.
pub fn moves<'a>(
    instance: &str,
    members: usize,
    moves: impl IntoIterator<Item = (&'a str, &'a [u8], bool)>,
) -> Bytes {
    let mut out = format!("M{instance} {members}").into_bytes();
    for (user, position, again) in moves {
        out.push(RS);
        out.extend_from_slice(user.as_bytes());
        out.push(US);
        out.extend_from_slice(position);
        if again {
            out.push(US);
        }
    }
    out.into()
}

/// The payload of a room's occupancy, as `lua/room.lua` writes it, too.
pub fn occupancy(members: Option<u64>) -> Bytes {
    let members = members.map(|members| members.to_string());
    format!("C{}", members.unwrap_or_default()).into()
}

/// The payload of durable events, `first` being the `seq` of the first.
pub fn durable<'a>(epoch: &str, first: u64, events: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut out = format!("E{epoch} {first}").into_bytes();
    for event in events {
        out.push(RS);
        out.extend_from_slice(event);
    }
    out.into()
}

/// The payload of a signal.
pub fn signal<'a>(from: &str, to: impl IntoIterator<Item = &'a str>, frame: &str) -> Bytes {
    let mut out = Vec::with_capacity(frame.len() + from.len() + 16);
    out.push(b'S');
    out.extend_from_slice(from.as_bytes());
    out.push(RS);
    for user in to {
        out.extend_from_slice(user.as_bytes());
        out.push(US);
    }
    out.push(RS);
    out.extend_from_slice(frame.as_bytes());
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_read_back() {
        let events: [&[u8]; 2] = [b"{\"a\":1}", b"{\"b\":\"\\u001e\"}"];
        let bytes = durable("k1", 7, events);
        assert_eq!(bytes.as_ref(), b"Ek1 7\x1e{\"a\":1}\x1e{\"b\":\"\\u001e\"}");
        assert_eq!(
            parse(&bytes),
            Some(Payload::Durable {
                epoch: "k1",
                first: 7,
                events: events.to_vec()
            })
        );

        let bytes = signal("u 1", ["a", "b c"], "{}");
        assert_eq!(
            parse(&bytes),
            Some(Payload::Signal {
                from: "u 1",
                to: vec!["a", "b c"],
                frame: b"{}"
            })
        );
        let bytes = signal("u", [], "{}");
        assert_eq!(
            parse(&bytes),
            Some(Payload::Signal {
                from: "u",
                to: vec![],
                frame: b"{}"
            })
        );
    }

    #[test]
    fn moves_and_occupancy_read_back() {
        let [one, two]: [(&str, &[u8]); 2] = [("u 1", b"{\"x\":1}"), ("b", b"{}")];
        let bytes = moves("gw-1~x", 50, [(one.0, one.1, false), (two.0, two.1, true)]);
        assert_eq!(bytes.as_ref(), b"Mgw-1~x 50\x1eu 1\x1f{\"x\":1}\x1eb\x1f{}\x1f");
        assert_eq!(
            parse(&bytes),
            Some(Payload::Moves {
                instance: "gw-1~x",
                members: 50,
                moves: vec![one],
                again: vec![two],
            })
        );
        for members in [Some(1204), None] {
            assert_eq!(parse(&occupancy(members)), Some(Payload::Occupancy { members }));
        }
    }

    #[test]
    fn what_no_gateway_wrote_is_none() {
        for junk in [
            &b""[..],
            b"X",
            b"E",
            b"Ek1",
            b"Ek1 x\x1e{}",
            b"Ek1 0\x1e{}",
            b"Ek1 7",
            b"S",
            b"Su\x1e",
            b"Su\x1e\xff\x1e{}",
            b"M",
            b"Mgw-1",
            b"Mgw-1 x\x1eu\x1f{}",
            b"Mgw-1 1\x1eu",
            b"Mgw-1 1\x1e\xff\x1f{}",
            b"Cx",
        ] {
            assert_eq!(parse(junk), None, "{junk:?}");
        }
    }
}
