//! The servers of a run: a Redis, perhaps a replica of it, gateways, and a proxy between each gateway and Redis.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::runtime::Handle;

use super::proxy::Proxy;
use crate::{
    failure::{Failure, check_interrupt},
    process::{
        Append, Gateway, GatewayOptions, Program, Redis, RedisOptions, lasting_port, pause, ready_answer,
    },
};

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The gateway's binary.
    pub gateway: PathBuf,
    /// The redis-server binary.
    pub redis: PathBuf,
    /// How many gateways.
    pub gateways: usize,
    /// What Redis keeps on disk.
    pub append: Append,
    /// Whether Redis has a replica.
    pub replica: bool,
    /// Settings of the gateways.
    pub settings: Vec<(String, String)>,
}

/// A running cluster. All its processes end when it is dropped.
pub struct Cluster {
    program: Program,
    logs: PathBuf,
    redis_binary: PathBuf,
    redis_options: RedisOptions,
    /// What gateways talk to, through their proxies. `None` while it is down.
    redis: Option<Redis>,
    /// The replica and its link to the master.
    replica: Option<(Redis, Proxy)>,
    /// One for each gateway.
    pub proxies: Vec<Proxy>,
    gateways: Vec<(GatewayOptions, Option<Gateway>)>,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Cluster {
    /// Starts everything; the gateways are ready.
    ///
    /// # Errors
    /// Something could not be started.
    pub fn start(parts: &Parts, folder: &Path, runtime: &Handle) -> Result<Self, Failure> {
        let logs = folder.join("logs");
        let redis_options = RedisOptions {
            port: lasting_port()?,
            append: parts.append,
            dir: folder.join("redis"),
            replica_of: None,
        };
        let redis = Redis::launch(&parts.redis, &redis_options)?;
        let mut cluster = Self {
            program: Program {
                path: parts.gateway.clone(),
                args: Vec::new(),
            },
            logs,
            redis_binary: parts.redis.clone(),
            redis: Some(redis),
            replica: None,
            proxies: Vec::new(),
            gateways: Vec::new(),
            redis_options,
        };
        if parts.replica {
            cluster.add_replica(folder, runtime)?;
        }
        for number in 0..parts.gateways {
            let proxy = runtime.block_on(Proxy::start(loopback(cluster.redis_options.port)))?;
            let options = GatewayOptions {
                number,
                port: lasting_port()?,
                redis_url: Some(format!("redis://{}", proxy.address)),
                settings: parts.settings.clone(),
            };
            cluster.proxies.push(proxy);
            cluster.gateways.push((options, None));
            cluster.launch_gateway(number)?;
        }
        for number in 0..parts.gateways {
            cluster.wait_ready(number)?;
        }
        Ok(cluster)
    }

    fn add_replica(&mut self, folder: &Path, runtime: &Handle) -> Result<(), Failure> {
        let proxy = runtime.block_on(Proxy::start(loopback(self.redis_options.port)))?;
        let options = RedisOptions {
            port: lasting_port()?,
            append: Append::No,
            dir: folder.join("replica"),
            replica_of: Some(proxy.address.port()),
        };
        let replica = Redis::launch(&self.redis_binary, &options)?;
        let started = Instant::now();
        while !ask(replica.port(), &["INFO", "replication"])?.contains("master_link_status:up") {
            check_interrupt()?;
            if started.elapsed() > Duration::from_secs(20) {
                return Err(Failure::Slow("the replica has no link to its master".to_owned()));
            }
            pause(Duration::from_millis(20));
        }
        self.replica = Some((replica, proxy));
        Ok(())
    }

    /// How many gateways there are.
    pub fn len(&self) -> usize {
        self.gateways.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.gateways.is_empty()
    }

    /// Where the gateways listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.gateways
            .iter()
            .map(|(options, _)| loopback(options.port))
            .collect()
    }

    /// Where a gateway listens.
    pub fn address(&self, gateway: usize) -> SocketAddr {
        loopback(self.gateways[gateway].0.port)
    }

    /// A gateway's process, if it runs.
    pub fn pid(&self, gateway: usize) -> Option<u32> {
        self.gateways[gateway].1.as_ref().map(Gateway::pid)
    }

    /// Starts a gateway, on the port that it had, and waits until it listens.
    ///
    /// # Errors
    /// It could not be started.
    pub fn launch_gateway(&mut self, gateway: usize) -> Result<(), Failure> {
        let (options, running) = &mut self.gateways[gateway];
        *running = Some(Gateway::launch(&self.program, &self.logs, options)?);
        Ok(())
    }

    /// Waits until a gateway is ready.
    ///
    /// # Errors
    /// It ended, or is not ready in time.
    pub fn wait_ready(&mut self, gateway: usize) -> Result<(), Failure> {
        self.running(gateway)?.wait_ready()
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_gateway(&mut self, gateway: usize) -> Result<(), Failure> {
        self.running(gateway)?.kill()?;
        self.gateways[gateway].1 = None;
        Ok(())
    }

    /// Sends a signal to a gateway.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&mut self, gateway: usize, signal: Signal) -> Result<(), Failure> {
        self.running(gateway)?.signal(signal)
    }

    /// SIGTERM; how long the gateway took to end, if it did within `patience`.
    ///
    /// # Errors
    /// It does not run.
    pub fn terminate(&mut self, gateway: usize, patience: Duration) -> Result<Option<Duration>, Failure> {
        let running = self.running(gateway)?;
        let started = Instant::now();
        running.signal(Signal::TERM)?;
        let ended = running.wait_end(patience)?;
        self.gateways[gateway].1 = None;
        Ok(ended.then(|| started.elapsed()))
    }

    fn running(&mut self, gateway: usize) -> Result<&mut Gateway, Failure> {
        self.gateways[gateway]
            .1
            .as_mut()
            .ok_or_else(|| Failure::Wrong(format!("gateway {gateway} does not run")))
    }

    /// How long it takes until `/readyz` of a gateway is green, or is not; `None` if not within `patience`.
    ///
    /// # Errors
    /// [`Failure::Interrupted`].
    pub fn time_until_ready_is(
        &self,
        green: bool,
        gateway: usize,
        patience: Duration,
    ) -> Result<Option<Duration>, Failure> {
        let started = Instant::now();
        while started.elapsed() < patience {
            check_interrupt()?;
            let status = ready_answer(self.address(gateway)).map(|(status, _)| status);
            if (status == Some(200)) == green {
                return Ok(Some(started.elapsed()));
            }
            pause(Duration::from_millis(20));
        }
        Ok(None)
    }

    /// `kill -9` of Redis.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill_redis(&mut self) -> Result<(), Failure> {
        match self.redis.take() {
            Some(mut redis) => redis.kill(),
            None => Ok(()),
        }
    }

    /// Starts Redis again, on its port and its files.
    ///
    /// # Errors
    /// It could not be started.
    pub fn restart_redis(&mut self) -> Result<(), Failure> {
        self.redis = Some(Redis::launch(&self.redis_binary, &self.redis_options)?);
        Ok(())
    }

    /// The append-only file that Redis writes to, and its length.
    ///
    /// # Errors
    /// There is none.
    pub fn append_file(&self) -> Result<(PathBuf, u64), Failure> {
        let dir = self.redis_options.dir.join("appendonlydir");
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(".incr.aof") {
                return Ok((entry.path(), entry.metadata()?.len()));
            }
        }
        Err(Failure::Wrong(format!(
            "no append-only file in {}",
            dir.display()
        )))
    }

    /// The link from the replica to its master.
    ///
    /// # Errors
    /// There is no replica.
    pub fn replication(&self) -> Result<&Proxy, Failure> {
        self.replica
            .as_ref()
            .map(|(_, proxy)| proxy)
            .ok_or_else(no_replica)
    }

    /// Ends the master and makes the replica one; the gateways' new links go there.
    ///
    /// # Errors
    /// There is no replica, or it refuses.
    pub fn promote(&mut self) -> Result<(), Failure> {
        self.kill_redis()?;
        let (replica, _) = self.replica.take().ok_or_else(no_replica)?;
        ask(replica.port(), &["REPLICAOF", "NO", "ONE"])?;
        for proxy in &self.proxies {
            proxy.point_at(loopback(replica.port()));
            proxy.cut(None);
        }
        self.redis_options.port = replica.port();
        self.redis = Some(replica);
        Ok(())
    }

    /// Redis's port at the moment.
    pub fn redis_port(&self) -> u16 {
        self.redis_options.port
    }
}

fn no_replica() -> Failure {
    Failure::Wrong("there is no replica".to_owned())
}

/// A connection to Redis beside those of the gateways.
pub struct Side(TcpStream);

impl Side {
    /// Connects; every answer may take 5 s.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn connect(port: u16) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&loopback(port), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Sends one command and reads the reply: the text of a simple, bulk or number reply.
    ///
    /// # Errors
    /// An error reply, or none in time.
    pub fn ask(&mut self, command: &[&str]) -> Result<String, Failure> {
        let mut request = format!("*{}\r\n", command.len());
        for word in command {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.write_all(request.as_bytes())?;
        let mut reply = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let read = self.0.read(&mut chunk)?;
            if read == 0 {
                return Err(Failure::Wrong(format!("Redis hung up on {command:?}")));
            }
            reply.extend_from_slice(&chunk[..read]);
            if let Some(text) = whole_reply(&reply) {
                return text.map_err(|error| Failure::Wrong(format!("Redis refused {command:?}: {error}")));
            }
        }
    }
}

/// [`Side::ask`] on a connection for this command alone.
///
/// # Errors
/// As there.
pub fn ask(port: u16, command: &[&str]) -> Result<String, Failure> {
    Side::connect(port)?.ask(command)
}

/// The text of a reply, or of an error, once all of it is there.
fn whole_reply(reply: &[u8]) -> Option<Result<String, String>> {
    let end = reply.windows(2).position(|pair| pair == b"\r\n")?;
    let first = String::from_utf8_lossy(&reply[1..end]).into_owned();
    match reply[0] {
        b'-' => Some(Err(first)),
        b'$' if first != "-1" => {
            let length: usize = first.parse().ok()?;
            let body = reply.get(end + 2..end + 2 + length)?;
            Some(Ok(String::from_utf8_lossy(body).into_owned()))
        }
        _ => Some(Ok(first)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_whole() {
        assert_eq!(whole_reply(b"+OK\r\n"), Some(Ok("OK".to_owned())));
        assert_eq!(whole_reply(b"-ERR no\r\n"), Some(Err("ERR no".to_owned())));
        assert_eq!(whole_reply(b"$5\r\nab"), None);
        assert_eq!(whole_reply(b"$5\r\nab\r\nc\r\n"), Some(Ok("ab\r\nc".to_owned())));
        assert_eq!(whole_reply(b":3\r\n"), Some(Ok("3".to_owned())));
    }
}
