//! The servers of a run: a Redis and gateways of our own, on free loopback ports, ended when they are dropped.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Failure, check_interrupt};

/// How long a server may take to become ready.
const START: Duration = Duration::from_secs(20);

/// Raises this process's limit of open files to the hard one; processes started from now on inherit it. Returns it.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// Waits. The benchmark's thread has nothing else to do while a server starts.
#[expect(clippy::disallowed_methods, reason = "no runtime runs on this thread")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// A child process that is killed and reaped when dropped.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Owned {
    fn ended(&mut self) -> Option<String> {
        self.0.try_wait().ok().flatten().map(|status| status.to_string())
    }
}

/// A `redis-server` that keeps nothing on disk.
pub struct Redis {
    process: Owned,
    port: u16,
}

impl Redis {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// The binary cannot be run, or does not answer in time.
    pub fn start(binary: &Path, logs: &Path) -> Result<Self, Failure> {
        // Another process may take the port between the two; then Redis says so and the run fails.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let log = log_file(logs, &format!("redis-{port}"))?;
        let child = Command::new(binary)
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--protected-mode",
                "no",
            ])
            .args([
                "--save",
                "",
                "--appendonly",
                "no",
                "--loglevel",
                "warning",
                "--dir",
            ])
            .arg(logs)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::Start(format!("{}: {error}", binary.display())))?;
        let mut redis = Self {
            process: Owned(child),
            port,
        };
        wait_until("redis-server", &mut redis.process, || {
            let mut stream = connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
            stream.write_all(b"PING\r\n").ok()?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).ok()?;
            (&answer == b"+PONG").then_some(())
        })?;
        Ok(redis)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// What gateways connect to.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

/// What is started as a gateway.
#[derive(Debug, Clone)]
pub struct Program {
    /// The binary.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<&'static str>,
}

/// A running gateway.
pub struct Gateway {
    process: Owned,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Gateway {
    /// Starts one, on the memory store without `redis`, and waits until it is ready.
    ///
    /// # Errors
    /// The binary cannot be run, or does not become ready in time.
    pub fn start(
        program: &Program,
        logs: &Path,
        number: usize,
        redis: Option<&Redis>,
        heartbeat_ms: u64,
    ) -> Result<Self, Failure> {
        let log = log_file(logs, &format!("gateway-{number}"))?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.args)
            .env_remove("REDIS_URL")
            .env_remove("ROOM_STORE")
            .env("LISTEN", "127.0.0.1:0")
            .env("NODE_ID", format!("gw-{number}"))
            .env("AUTH_MODE", "anonymous")
            .env("LOG_LEVEL", "warn")
            .env("HEARTBEAT_MS", heartbeat_ms.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        if let Some(redis) = redis {
            command.env("REDIS_URL", redis.url());
        }
        let mut child = command
            .spawn()
            .map_err(|error| Failure::Start(format!("{}: {error}", program.path.display())))?;
        let stdout = child.stdout.take();
        let mut process = Owned(child);
        let address = listening_address(stdout, &mut process, logs, number)?;
        wait_until("the gateway", &mut process, || {
            let mut stream = connect(address)?;
            stream
                .write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                .ok()?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).ok()?;
            (&answer == b"HTTP/1.1 200").then_some(())
        })?;
        Ok(Self { process, address })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

/// The address that a gateway prints as its first line.
fn listening_address(
    stdout: Option<impl Read + Send + 'static>,
    process: &mut Owned,
    logs: &Path,
    number: usize,
) -> Result<SocketAddr, Failure> {
    let (told, line) = mpsc::channel();
    if let Some(stdout) = stdout {
        std::thread::spawn(move || {
            let mut text = String::new();
            let mut reader = BufReader::new(stdout);
            let _ = reader.read_line(&mut text);
            let _ = told.send(text);
            // Keeps the pipe open and empty for as long as the gateway lives.
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
        });
    }
    let text = line.recv_timeout(START).unwrap_or_default();
    text.trim()
        .rsplit_once("http://")
        .and_then(|(_, address)| address.parse().ok())
        .ok_or_else(|| {
            let ended = process
                .ended()
                .map_or(String::new(), |status| format!(" ({status})"));
            let said = tail(&log_path(logs, &format!("gateway-{number}")));
            Failure::Start(format!(
                "the gateway{ended} did not say where it listens; it said {text:?} {said}"
            ))
        })
}

fn wait_until(who: &str, process: &mut Owned, mut ready: impl FnMut() -> Option<()>) -> Result<(), Failure> {
    let started = Instant::now();
    while ready().is_none() {
        check_interrupt()?;
        if let Some(status) = process.ended() {
            return Err(Failure::Start(format!("{who} ended at once: {status}")));
        }
        if started.elapsed() > START {
            return Err(Failure::Start(format!("{who} is not ready after {START:?}")));
        }
        pause(Duration::from_millis(5));
    }
    Ok(())
}

fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    Some(stream)
}

fn log_path(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{name}.log"))
}

fn log_file(logs: &Path, name: &str) -> Result<File, Failure> {
    std::fs::create_dir_all(logs)?;
    Ok(File::create(log_path(logs, name))?)
}

/// The last words of a log.
fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
