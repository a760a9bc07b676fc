//! Members in great number: they say what they must, and throw away what they hear.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, tcp::OwnedWriteHalf},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    client::DEADLINE,
    frames::{self, close},
    raw::request,
};

/// One connection. Dropped, it is lost.
pub(crate) struct Mute {
    writer: OwnedWriteHalf,
    reader: JoinHandle<()>,
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Mute {
    /// Connects.
    pub(crate) async fn connect(addr: SocketAddr, user: &str) -> Self {
        let connecting = async {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            let request = request(&format!("/ws?user={user}"), "");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
            }
            assert!(answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");
            stream
        };
        let stream = timeout(DEADLINE, connecting).await.expect("no handshake in time");
        let (mut from, writer) = stream.into_split();
        let reader = tokio::spawn(async move {
            let mut rest = vec![0; 64 * 1024];
            while from.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {}
        });
        Self { writer, reader }
    }

    /// Many at once, of users with this prefix and these numbers.
    pub(crate) async fn crowd(addr: SocketAddr, prefix: &str, numbers: std::ops::Range<usize>) -> Vec<Self> {
        let mut all = Vec::new();
        // Not more at a time than a listener's queue takes.
        for from in numbers.clone().step_by(100) {
            let mut opening = JoinSet::new();
            for number in from..numbers.end.min(from + 100) {
                let user = format!("{prefix}{number}");
                opening.spawn(async move { Self::connect(addr, &user).await });
            }
            all.extend(opening.join_all().await);
        }
        all
    }

    /// Sends a frame as it is.
    pub(crate) async fn send(&mut self, text: &str) {
        self.write(&frames::text(text).bytes()).await;
    }

    /// Closes with 1000, which leaves all rooms.
    pub(crate) async fn close(mut self) {
        self.write(&close(1000, "").bytes()).await;
        // The gateway has it when it ends the connection.
        timeout(DEADLINE, &mut self.reader)
            .await
            .expect("not closed in time")
            .unwrap();
    }

    async fn write(&mut self, bytes: &[u8]) {
        timeout(DEADLINE, self.writer.write_all(bytes))
            .await
            .expect("not sent in time")
            .unwrap();
    }
}
