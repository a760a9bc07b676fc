//! Real gateway processes.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

/// How long a gateway may take to listen.
const START: Duration = Duration::from_secs(20);
/// Lines of its log that are kept.
const LOG_LINES: usize = 400;

/// A gateway of this build, killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
}

impl Gateway {
    /// Starts a gateway on a free port of the loopback with these settings and nothing of the test's own environment, and
    /// waits until it listens.
    pub(crate) fn start(envs: &[(&str, &str)]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_roomgate"))
            .env_clear()
            // What it writes by default, such as archives, is no part of the source.
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .env("LISTEN", "127.0.0.1:0")
            .env("RUST_BACKTRACE", "1")
            // Tests send as fast as they can; those of this limit set it.
            .env("MAX_COMMANDS_PER_SECOND", "0")
            .envs(envs.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // From here on a panic drops the gateway, and so ends it.
        let mut gateway = Self {
            child,
            log: Arc::default(),
            addr: ([127, 0, 0, 1], 0).into(),
        };
        let (log, stderr) = (Arc::clone(&gateway.log), gateway.child.stderr.take().unwrap());
        on_lines(stderr, move |line| {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_back(line);
            if log.len() > LOG_LINES {
                log.pop_front();
            }
        });
        let (listening, heard) = mpsc::channel();
        on_lines(gateway.child.stdout.take().unwrap(), move |line| {
            if let Some(addr) = line.strip_prefix("listening on http://") {
                // The test may have given up already.
                let _ = listening.send(addr.trim_end_matches('/').parse());
            }
        });
        match heard.recv_timeout(START) {
            Ok(addr) => gateway.addr = addr.unwrap(),
            Err(error) => panic!("the gateway does not listen: {error}\n{}", gateway.log()),
        }
        gateway
    }

    /// Waits until it takes connections.
    pub(crate) async fn ready(&self) {
        let until = tokio::time::Instant::now() + START;
        loop {
            let status = self.status("/readyz").await;
            if status == Some(200) {
                return;
            }
            assert!(
                tokio::time::Instant::now() < until,
                "not ready: {status:?}\n{}",
                self.log()
            );
            tokio::task::yield_now().await;
        }
    }

    /// The status of a GET, `None` where nobody answers.
    pub(crate) async fn status(&self, path: &str) -> Option<u16> {
        let (head, _) = self.get(path).await?;
        head.split(' ').nth(1)?.parse().ok()
    }

    /// Head and body of the answer to a GET, `None` where nobody answers.
    pub(crate) async fn get(&self, path: &str) -> Option<(String, String)> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.addr).await.ok()?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.addr
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        tokio::time::timeout(START, stream.read_to_end(&mut answer))
            .await
            .ok()?
            .ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer
            .split_once("\r\n\r\n")
            .map(|(head, body)| (head.to_owned(), body.to_owned()))
    }

    /// Asks it to stop, as an operator would.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal, named as for kill(1).
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, within: Duration) -> std::process::ExitStatus {
        let until = tokio::time::Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                tokio::time::Instant::now() < until,
                "still running\n{}",
                self.log()
            );
            tokio::task::yield_now().await;
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The newest lines of its log.
    pub(crate) fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Bytes of memory that it holds now.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only where the process has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("log of the gateway at {}:\n{}", self.addr, self.log());
        }
    }
}

/// Calls `each` with every line of `source` until it ends, on a thread of its own.
fn on_lines(source: impl Read + Send + 'static, mut each: impl FnMut(String) + Send + 'static) {
    thread::spawn(move || {
        for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
            each(String::from_utf8_lossy(&line).into_owned());
        }
    });
}
