//! A real redis-server on a free port of the loopback, with nothing kept on disk.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// How long the server may take to answer.
const START: Duration = Duration::from_secs(20);

/// A server of this test's own, killed when dropped.
pub(crate) struct RedisServer {
    child: Option<Child>,
    folder: PathBuf,
    /// Where it listens, also while it is stopped.
    pub(crate) port: u16,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub(crate) fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "redis-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        // Another process may take the port between the two steps: then the server ends, and another one is tried.
        for _ in 0..10 {
            let port = TcpListener::bind(("127.0.0.1", 0))
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let mut server = Self {
                child: None,
                folder: folder.clone(),
                port,
            };
            if server.restart() {
                return server;
            }
        }
        panic!("redis-server does not start: is it installed? `make deps` installs it");
    }

    /// Starts the server again on its port, empty; whether it answers.
    pub(crate) fn restart(&mut self) -> bool {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args([
                "--maxmemory-policy",
                "noeviction",
                "--port",
                &self.port.to_string(),
                "--dir",
            ])
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is not installed: `make deps` installs it");
        self.child = Some(child);
        let until = Instant::now() + START;
        while Instant::now() < until {
            if self
                .child
                .as_mut()
                .is_some_and(|child| child.try_wait().unwrap().is_some())
            {
                return false;
            }
            if self
                .try_command(&["PING"])
                .is_some_and(|reply| reply.starts_with("+PONG"))
            {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    /// Kills the server.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only where the process has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server is stopped").id()
    }

    /// What a gateway is given.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A command's reply as redis-cli prints it.
    pub(crate) fn cli(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(command)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn try_command(&self, command: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream
            .write_all(format!("{}\r\n", command.join(" ")).as_bytes())
            .ok()?;
        let mut reply = [0; 64];
        let read = stream.read(&mut reply).ok()?;
        Some(String::from_utf8_lossy(&reply[..read]).into_owned())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
