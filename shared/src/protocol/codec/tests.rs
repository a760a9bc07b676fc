use super::*;

mod data;
mod envelope;
mod fingerprints;
mod frames;
mod payloads;

const PING: &str = r#"{"type":"ping"}"#;

/// What one element of a frame gave, with the borrow of the frame ended.
type Read = Result<Result<Command, Refused>, Malformed>;

fn read_with(decoder: &mut Decoder, frame: impl AsRef<[u8]>) -> Vec<Read> {
    let mut out = Vec::new();
    decoder.decode(&mut frame.as_ref().to_vec(), |incoming| {
        out.push(incoming.map(|incoming| match incoming.kind {
            Some(kind) => incoming.command(kind),
            None => Err(bad("?")),
        }));
    });
    out
}

/// Decodes a frame and each command's data; an unknown type reads as the refusal `?`.
fn read_all(frame: impl AsRef<[u8]>) -> Vec<Read> {
    read_with(&mut Decoder::default(), frame)
}

/// The one result of a frame.
fn read(frame: impl AsRef<[u8]>) -> Read {
    let mut all = read_all(&frame);
    assert_eq!(all.len(), 1, "{}", String::from_utf8_lossy(frame.as_ref()));
    all.remove(0)
}

fn fault(frame: impl AsRef<[u8]>) -> Malformed {
    match read(&frame) {
        Err(fault) => fault,
        Ok(read) => panic!("{} reads as {read:?}", String::from_utf8_lossy(frame.as_ref())),
    }
}

fn is_ping(read: &Read) -> bool {
    *read == Ok(Ok(Command::Ping))
}

/// The command of a type with this `data`.
fn command(kind: &str, data: &str) -> Result<Command, Refused> {
    read(format!(
        r#"{{"id":"k1","type":"{kind}","room":"lobby","data":{data}}}"#
    ))
    .unwrap()
}

/// Asserts that the data is refused by a message that has `needle`.
fn refused(kind: &str, data: &str, code: ErrorCode, needle: &str) {
    let refused = command(kind, data).expect_err(data);
    assert_eq!(refused.code, code, "{data}: {}", refused.message);
    assert!(refused.message.contains(needle), "{data}: {}", refused.message);
}

fn bad_request(kind: &str, data: &str, needle: &str) {
    refused(kind, data, ErrorCode::BadRequest, needle);
}

/// A JSON string of `bytes` bytes, its quotes counted.
fn string_of(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}
