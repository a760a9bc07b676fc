//! One connection to Redis, RESP3, for what fred is not used for: the checks at the start, the subscriber, room calls.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use redis_protocol::resp3::{
    decode::complete::decode_bytes_mut,
    types::{BytesFrame, Resp3Frame as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::config::Endpoint;

/// Why a connection could not be made, or was lost.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// Not reachable, or gone.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// What answers does not speak RESP.
    #[error("what answers is no Redis server")]
    NotRedis,
    /// An error that Redis answered with.
    #[error("{0}")]
    Refused(String),
    /// The server follows another one.
    #[error("the server is a replica, which takes no writes")]
    Replica,
}

/// A connection that has said `HELLO`.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    /// Read, but not used yet.
    pub(super) input: BytesMut,
    /// What the server said of itself when the connection was made.
    pub(super) is_replica: bool,
}

impl Wire {
    /// Connects, logs in and names the connection, all within `patience`.
    pub(super) async fn connect(
        endpoint: &Endpoint,
        name: &str,
        patience: Duration,
    ) -> Result<Self, WireError> {
        timeout(patience, Self::open(endpoint, name))
            .await
            .map_err(|_| WireError::Timeout(patience))?
    }

    async fn open(endpoint: &Endpoint, name: &str) -> Result<Self, WireError> {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        stream.set_nodelay(true)?;
        let mut wire = Self {
            stream,
            input: BytesMut::new(),
            is_replica: false,
        };
        let mut hello: Vec<&str> = vec!["HELLO", "3"];
        if let Some(password) = &endpoint.password {
            hello.extend(["AUTH", endpoint.user.as_deref().unwrap_or("default"), password]);
        }
        hello.extend(["SETNAME", name]);
        let about = wire.ask(&hello).await?;
        wire.is_replica = field(&about, "role").is_some_and(|role| role == b"replica");
        Ok(wire)
    }

    /// Sends one command and waits for its reply; the caller bounds the wait. An error reply is
    /// [`WireError::Refused`].
    pub(super) async fn ask<T: AsRef<[u8]>>(&mut self, command: &[T]) -> Result<BytesFrame, WireError> {
        let mut output = Vec::new();
        push_command(&mut output, command);
        self.stream.write_all(&output).await?;
        loop {
            let decoded = decode_bytes_mut(&mut self.input).map_err(|_| WireError::NotRedis)?;
            if let Some((frame, _, _)) = decoded {
                if let BytesFrame::SimpleError { data, .. } = &frame {
                    return Err(WireError::Refused(data.to_string()));
                }
                if let BytesFrame::BlobError { data, .. } = &frame {
                    return Err(WireError::Refused(String::from_utf8_lossy(data).into_owned()));
                }
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Sends one command whose reply is text, within `patience`.
    pub(super) async fn ask_text<T: AsRef<[u8]>>(
        &mut self,
        command: &[T],
        patience: Duration,
    ) -> Result<Bytes, WireError> {
        let reply = timeout(patience, self.ask(command))
            .await
            .map_err(|_| WireError::Timeout(patience))??;
        Ok(reply.as_bytes().map(Bytes::copy_from_slice).unwrap_or_default())
    }
}

/// A field of a map that is text.
fn field<'a>(map: &'a BytesFrame, name: &str) -> Option<&'a [u8]> {
    let BytesFrame::Map { data, .. } = map else {
        return None;
    };
    let entry = data
        .iter()
        .find(|(key, _)| key.as_bytes() == Some(name.as_bytes()))?;
    entry.1.as_bytes()
}

/// A connection's two directions without waiting: what is read and not used yet, what is to be written and has not been.
pub(super) struct Pipe {
    pub(super) stream: TcpStream,
    pub(super) input: BytesMut,
    pub(super) output: Vec<u8>,
    /// How much of `output` is written.
    written: usize,
}

impl Pipe {
    /// Least free space for a read.
    const READ: usize = 64 * 1024;
    /// A buffer above this is given back when it is empty.
    const KEEP: usize = 256 * 1024;

    pub(super) fn new(wire: Wire) -> Self {
        Self {
            stream: wire.stream,
            input: wire.input,
            output: Vec::new(),
            written: 0,
        }
    }

    /// Whether something is to be written.
    pub(super) fn is_pending(&self) -> bool {
        self.written < self.output.len()
    }

    /// Writes as much as the socket takes.
    pub(super) fn write(&mut self) -> Result<(), &'static str> {
        while self.is_pending() {
            match self.stream.try_write(&self.output[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err("write failed"),
            }
        }
        if self.output.capacity() > Self::KEEP {
            self.output = Vec::new();
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads what is there; whether it was anything.
    pub(super) fn read(&mut self) -> Result<bool, &'static str> {
        if self.input.is_empty() && self.input.capacity() > Self::KEEP {
            self.input = BytesMut::new();
        }
        self.input.reserve(Self::READ);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err("closed by Redis"),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => Err("read failed"),
        }
    }
}

/// Appends a command as RESP.
pub(super) fn push_command<T: AsRef<[u8]>>(out: &mut Vec<u8>, command: &[T]) {
    out.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for argument in command {
        let argument = argument.as_ref();
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}
