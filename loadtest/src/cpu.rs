//! What the operating system says a process has used.

use std::{fs, io, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// User and system time of `pid`, all its threads together, in the kernel's ticks (10 ms).
///
/// # Errors
/// There is no such process, or its `stat` is not of the known form.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = ticks_of(&stat).ok_or_else(|| io::Error::other("/proc/PID/stat is not of the known form"))?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

fn ticks_of(stat: &str) -> Option<u64> {
    // The name, in brackets, may hold anything; utime and stime are the 12th and 13th fields after it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// The same to the nanosecond, as the scheduler counts it. Threads that have ended are not in it.
///
/// # Errors
/// There is no such process, or the kernel does not count so.
pub fn fine_cpu_time(pid: u32) -> io::Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = thread?.path().join("schedstat");
        // A thread may have ended since it was listed.
        let Ok(text) = fs::read_to_string(path) else {
            continue;
        };
        nanos += on_cpu(&text).ok_or_else(|| io::Error::other("schedstat is not of the known form"))?;
    }
    Ok(Duration::from_nanos(nanos))
}

fn on_cpu(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

/// Resident memory of `pid`, bytes.
///
/// # Errors
/// There is no such process, or the kernel has no `smaps_rollup`.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    rss_of(&rollup).ok_or_else(|| io::Error::other("no Rss in /proc/PID/smaps_rollup"))
}

fn rss_of(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// CPU time of this process.
pub fn own_time() -> Duration {
    since_start(ClockId::ProcessCPUTime)
}

/// CPU time of the calling thread.
pub fn thread_time() -> Duration {
    since_start(ClockId::ThreadCPUTime)
}

fn since_start(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_read_behind_any_name() {
        let stat = "7 (a) b ) S 1 7 7 0 -1 4194560 100 0 0 0 42 8 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks_of(stat), Some(50));
        assert_eq!(ticks_of("7 (x"), None);
    }

    #[test]
    fn fine_time_is_the_first_number() {
        assert_eq!(on_cpu("94119 2557478 2\n"), Some(94_119));
        assert_eq!(on_cpu(""), None);
        assert!(fine_cpu_time(std::process::id()).unwrap() > Duration::ZERO);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(
            rss_of("55-7f [rollup]\nRss:                2048 kB\nPss: 1 kB\n"),
            Some(2 * 1024 * 1024)
        );
    }

    #[test]
    fn this_process_has_used_something() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).unwrap() > 100_000);
        assert!(cpu_time(pid).is_ok());
        assert!(own_time() >= thread_time());
    }
}
