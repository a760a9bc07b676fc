//! The price of a bare write on this machine, now: what nothing that sends one frame a system call can beat, and the
//! yardstick that makes the figures of different machines and hours comparable.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use crate::{cpu::thread_time, failure::Failure};

/// Bytes of a write: a small frame.
pub const FRAME_BYTES: usize = 150;
/// Sockets written to in turn: as many as a fan-out has members.
pub const SOCKETS: usize = 1_000;

/// Writes of a frame to each of many loopback TCP sockets in turn, per CPU second of the writing thread, measured for
/// about `duration`. The reading is not counted.
///
/// # Errors
/// No sockets can be had.
pub fn writes_per_cpu_second(duration: Duration) -> Result<f64, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut pairs = Vec::with_capacity(SOCKETS);
    for _ in 0..SOCKETS {
        let writer = TcpStream::connect(address)?;
        let (reader, _) = listener.accept()?;
        writer.set_nodelay(true)?;
        reader.set_nonblocking(true)?;
        pairs.push((writer, reader));
    }
    let frame = [b'x'; FRAME_BYTES];
    let mut sink = vec![0; 64 * 1024];
    let started = Instant::now();
    let (mut writes, mut spent) = (0_u64, Duration::ZERO);
    while started.elapsed() < duration {
        let before = thread_time();
        for (writer, _) in &mut pairs {
            writer.write_all(&frame)?;
        }
        spent += thread_time().saturating_sub(before);
        writes += SOCKETS as u64;
        for (_, reader) in &mut pairs {
            match reader.read(&mut sink) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(writes as f64 / spent.as_secs_f64())
}
