//! A real `redis-server` for tests: on a free port, without persistence, gone with the test process.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server. Killed when dropped, and also when the test process ends without dropping it.
pub(crate) struct RedisServer {
    port: u16,
    folder: PathBuf,
    /// A shell that starts the server and kills it when its standard input ends.
    keeper: Option<Child>,
}

impl RedisServer {
    /// Starts a server on a free port and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with further arguments of `redis-server`.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("roomgate-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // Another process may take the port before the server does.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let mut server = Self {
                port,
                folder: folder.clone(),
                keeper: None,
            };
            if server.launch(arguments) {
                return server;
            }
        }
        panic!("redis-server does not start; is it installed?");
    }

    fn launch(&mut self, arguments: &[&str]) -> bool {
        let script = "redis-server \"$@\" & server=$!; cat > /dev/null; kill -CONT $server; kill -9 $server; wait $server";
        let port = self.port.to_string();
        let keeper = Command::new("sh")
            .args([
                "-c",
                script,
                "sh",
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .arg("--dir")
            .arg(&self.folder)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.keeper = Some(keeper);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(text) = self.try_ask(&["INFO", "server"]) {
                // Another test's server may have got the port.
                if text.contains(&format!("tcp_port:{}", self.port)) && self.owns(&text) {
                    return true;
                }
                if text.starts_with("$") {
                    break;
                }
                // An error, such as that a login is needed, comes from a server that is up.
                if text.starts_with("-NO") {
                    return true;
                }
            }
            pause();
        }
        self.stop();
        false
    }

    /// Whether the server that answers is a child of this keeper.
    fn owns(&self, info: &str) -> bool {
        let pid = info
            .lines()
            .find_map(|line| line.strip_prefix("process_id:"))
            .unwrap_or_default()
            .trim();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .nth(1)
            .unwrap_or_default();
        self.keeper
            .as_ref()
            .is_some_and(|keeper| keeper.id().to_string() == parent)
    }

    /// `redis://…`
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id.
    pub(crate) fn pid(&self) -> String {
        let info = self.ask(&["INFO", "server"]);
        info.lines()
            .find_map(|line| line.strip_prefix("process_id:"))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Kills the server. Its port stays reserved for [`RedisServer::restart`] by nothing but luck.
    pub(crate) fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// Starts a stopped server on the same port, empty.
    pub(crate) fn restart(&mut self) {
        let end = Instant::now() + PATIENCE;
        while !self.launch(&[]) {
            assert!(Instant::now() < end, "redis-server does not start again");
        }
    }

    /// Sends a signal to the server, given its process id.
    pub(crate) fn signal(pid: &str, signal: &str) {
        assert!(
            Command::new("kill")
                .args([signal, pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Sends one command and returns its reply as it stands on the wire, bulk strings and lists as their lines.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        self.try_ask(command)
            .unwrap_or_else(|| panic!("no answer to {command:?}"))
    }

    fn try_ask(&self, command: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut text = format!("*{}\r\n", command.len());
        for argument in command {
            text.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
        }
        stream.write_all(text.as_bytes()).ok()?;
        let mut out = String::new();
        read_reply(&mut BufReader::new(stream), &mut out)?;
        Some(out)
    }
}

fn read_reply(reader: &mut BufReader<TcpStream>, out: &mut String) -> Option<()> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let (kind, rest) = line.split_at(1);
    match kind {
        "$" => {
            let length: i64 = rest.trim().parse().ok()?;
            if length >= 0 {
                let mut bytes = vec![0; usize::try_from(length).ok()? + 2];
                reader.read_exact(&mut bytes).ok()?;
                out.push_str(&String::from_utf8_lossy(&bytes[..bytes.len() - 2]));
            }
            out.push('\n');
        }
        "*" => {
            for _ in 0..rest.trim().parse::<i64>().ok()? {
                read_reply(reader, out)?;
            }
        }
        "-" => {
            out.push('-');
            out.push_str(rest.trim_end());
            out.push('\n');
        }
        _ => {
            out.push_str(rest.trim_end());
            out.push('\n');
        }
    }
    Some(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "waits for another process, before any runtime is there"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
