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

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

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

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).map_err(|error| Failure::Io(error.into()))
    }

    /// `kill -9`, and the end waited for.
    fn kill(&mut self) -> Result<(), Failure> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Waits for the end, `patience` at most; whether it came.
    fn wait_end(&mut self, patience: Duration) -> Result<bool, Failure> {
        let started = Instant::now();
        while self.ended().is_none() {
            check_interrupt()?;
            if started.elapsed() > patience {
                return Ok(false);
            }
            pause(Duration::from_millis(5));
        }
        Ok(true)
    }
}

/// A free loopback port outside the range from which the kernel takes ports for outgoing connections: one that a server
/// can be started on again, without a client's connection having taken it meanwhile.
///
/// # Errors
/// None was found.
pub fn lasting_port() -> Result<u16, Failure> {
    let first = fastrand::u16(12_000..30_000);
    (0..1_000)
        .map(|step| first + step)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .ok_or_else(|| Failure::Start("no free port".to_owned()))
}

/// What a Redis keeps on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// Nothing.
    No,
    /// The append-only file, synced every second.
    EverySecond,
    /// The append-only file, synced before each answer.
    Always,
}

/// How a Redis is started.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Its port.
    pub port: u16,
    /// What it keeps.
    pub append: Append,
    /// Where its files and its log are.
    pub dir: PathBuf,
    /// The port of its master.
    pub replica_of: Option<u16>,
}

/// A `redis-server` on loopback.
pub struct Redis {
    process: Owned,
    port: u16,
}

impl Redis {
    /// Starts one that keeps nothing on disk, on a free port, and waits until it answers.
    ///
    /// # Errors
    /// The binary cannot be run, or does not answer in time.
    pub fn start(binary: &Path, logs: &Path) -> Result<Self, Failure> {
        // Another process may take the port between the two; then Redis says so and the run fails.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let options = RedisOptions {
            port,
            append: Append::No,
            dir: logs.to_owned(),
            replica_of: None,
        };
        Self::launch(binary, &options)
    }

    /// Starts one and waits until it answers; one with an append-only file has read it by then.
    ///
    /// # Errors
    /// The binary cannot be run, or does not answer in time.
    pub fn launch(binary: &Path, options: &RedisOptions) -> Result<Self, Failure> {
        let port = options.port;
        let log = log_file(&options.dir, &format!("redis-{port}"))?;
        let mut command = Command::new(binary);
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--protected-mode", "no", "--save", "", "--loglevel", "warning"])
            .arg("--dir")
            .arg(&options.dir);
        let fsync = match options.append {
            Append::No => None,
            Append::EverySecond => Some("everysec"),
            Append::Always => Some("always"),
        };
        match fsync {
            None => command.args(["--appendonly", "no"]),
            // Rewrites off: the file's growth is then the time that passed.
            Some(fsync) => command
                .args(["--appendonly", "yes", "--appendfsync", fsync])
                .args(["--auto-aof-rewrite-percentage", "0"]),
        };
        if let Some(master) = options.replica_of {
            command.args(["--replicaof", &format!("127.0.0.1 {master}")]);
            command.args(["--repl-diskless-sync-delay", "0"]);
        }
        let child = command
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

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What gateways connect to.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `kill -9`; returns when it is gone.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.process.kill()
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

/// How a gateway is started.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// Its number among the gateways of the run; its node id is `gw-<number>`.
    pub number: usize,
    /// Its port on loopback; 0 takes a free one.
    pub port: u16,
    /// Its Redis; the memory store without one.
    pub redis_url: Option<String>,
    /// Other settings, by their variables.
    pub settings: Vec<(String, String)>,
}

/// A running gateway.
pub struct Gateway {
    process: Owned,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Gateway {
    /// Starts one on a free port, on the memory store without `redis`, and waits until it is ready.
    ///
    /// # Errors
    /// The binary cannot be run, or does not become ready in time.
    pub fn start(
        program: &Program,
        logs: &Path,
        number: usize,
        redis: Option<&Redis>,
        settings: &[(&'static str, String)],
    ) -> Result<Self, Failure> {
        let options = GatewayOptions {
            number,
            port: 0,
            redis_url: redis.map(Redis::url),
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        };
        // The log of an earlier run; there need not be one.
        let _ = std::fs::remove_file(log_path(logs, &format!("gateway-{number}")));
        let mut gateway = Self::launch(program, logs, &options)?;
        gateway.wait_ready()?;
        Ok(gateway)
    }

    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// The binary cannot be run, or does not say in time where it listens.
    pub fn launch(program: &Program, logs: &Path, options: &GatewayOptions) -> Result<Self, Failure> {
        let number = options.number;
        let log = log_file(logs, &format!("gateway-{number}"))?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.args)
            .env_remove("REDIS_URL")
            .env_remove("ROOM_STORE")
            .env("LISTEN", format!("127.0.0.1:{}", options.port))
            .env("NODE_ID", format!("gw-{number}"))
            .env("AUTH_MODE", "anonymous")
            // A closed loop on few connections sends more than any client should.
            .env("MAX_COMMANDS_PER_SECOND", "0")
            .env("LOG_LEVEL", "warn")
            .envs(options.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        if let Some(url) = &options.redis_url {
            command.env("REDIS_URL", url);
        }
        let mut child = command
            .spawn()
            .map_err(|error| Failure::Start(format!("{}: {error}", program.path.display())))?;
        let stdout = child.stdout.take();
        let mut process = Owned(child);
        let address = listening_address(stdout, &mut process, logs, number)?;
        Ok(Self { process, address })
    }

    /// Waits until `/readyz` is green.
    ///
    /// # Errors
    /// It ends, or is not ready in time.
    pub fn wait_ready(&mut self) -> Result<(), Failure> {
        let address = self.address;
        wait_until("the gateway", &mut self.process, || {
            (ready_answer(address)?.0 == 200).then_some(())
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        self.process.signal(signal)
    }

    /// `kill -9`; returns when it is gone.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.process.kill()
    }

    /// Waits for its end, `patience` at most; whether it came.
    ///
    /// # Errors
    /// [`Failure::Interrupted`].
    pub fn wait_end(&mut self, patience: Duration) -> Result<bool, Failure> {
        self.process.wait_end(patience)
    }
}

/// What a gateway answers to `/readyz` within a second: the status and the text; `None` without an answer.
pub fn ready_answer(gateway: SocketAddr) -> Option<(u16, String)> {
    let mut stream = connect(gateway)?;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: loadtest\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.trim().to_owned()))
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
    // What an earlier process of that name wrote in this run stays.
    Ok(File::options()
        .create(true)
        .append(true)
        .open(log_path(logs, name))?)
}

/// The last words of a log.
fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
