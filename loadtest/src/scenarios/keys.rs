//! Writes to one key, as Redis itself tells of them.

use std::{
    cell::RefCell,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use memchr::memmem;

use crate::{failure::Failure, process::Redis};

/// How long Redis may take to begin.
const PATIENCE: Duration = Duration::from_secs(5);

/// Counts the `HSET`s of one key by the notifications of the keyspace, those within functions too.
pub(super) struct KeyWatch {
    stream: TcpStream,
    /// All that came: some hundred bytes a write.
    heard: RefCell<Vec<u8>>,
}

impl KeyWatch {
    /// Counts from now on.
    pub(super) fn start(redis: &Redis, key: &str) -> Result<Self, Failure> {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port()));
        let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let wanted = format!("CONFIG SET notify-keyspace-events Kh\r\nSUBSCRIBE __keyspace@0__:{key}\r\n");
        stream.write_all(wanted.as_bytes())?;
        let started = Instant::now();
        let mut heard = Vec::new();
        let mut chunk = [0; 1024];
        // The last of the two answers ends with the number of subscriptions.
        while !heard.ends_with(b":1\r\n") {
            let read = stream.read(&mut chunk)?;
            heard.extend_from_slice(&chunk[..read]);
            if read == 0 || heard.starts_with(b"-") || started.elapsed() > PATIENCE {
                let said = String::from_utf8_lossy(&heard).into_owned();
                return Err(Failure::Wrong(format!("Redis does not tell of writes: {said}")));
            }
        }
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            heard: RefCell::new(Vec::new()),
        })
    }

    /// Writes up to now.
    pub(super) fn count(&self) -> Result<u64, Failure> {
        let mut heard = self.heard.borrow_mut();
        let mut chunk = [0; 16 * 1024];
        loop {
            match (&self.stream).read(&mut chunk) {
                Ok(0) => return Err(Failure::Wrong("Redis hung up on the one who watches".to_owned())),
                Ok(read) => heard.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(memmem::find_iter(&heard, b"\r\nhset\r\n").count() as u64)
    }
}
