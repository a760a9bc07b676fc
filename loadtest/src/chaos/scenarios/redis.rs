//! A Redis that cannot be heard, dies, or comes back with less than it had.

use std::{
    fs::File,
    time::{Duration, Instant},
};

use super::Stage;
use crate::{
    chaos::{
        checker::SUBSCRIPTION_CUT,
        cluster::ask,
        proxy::{Kind, Rule},
    },
    failure::{Failure, check_interrupt},
    process::{pause, ready_answer},
};

/// A fault of a gateway's links must be found within this, in ms.
const FOUND_MS: f64 = 5_000.0;
/// A gateway whose links are well again must be ready within this, in ms.
const HEALED_MS: f64 = 5_000.0;
/// How long either is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn subscriber_killed(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.repeat(Duration::from_secs(2), |stage| {
        for gateway in 0..stage.cluster.len() {
            stage.journal.fault(SUBSCRIPTION_CUT, Some(gateway))?;
            stage.cluster.proxies[gateway].cut(Some(Kind::Events));
        }
        Ok(())
    })
}

pub(super) fn half_open(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.repeat(Duration::from_secs(15), |stage| {
        let gateway = stage.any_gateway();
        stage.journal.fault("links to Redis half open", Some(gateway))?;
        stage.cluster.proxies[gateway].set(None, Rule::HOLD);
        found_and_healed(stage, gateway)
    })
}

/// Waits until a gateway is not ready, heals its links, and waits until it is ready again.
fn found_and_healed(stage: &mut Stage<'_>, gateway: usize) -> Result<(), Failure> {
    let red = stage.cluster.time_until_ready_is(false, gateway, PATIENCE)?;
    stage.measure("fault to /readyz red", red, PATIENCE, FOUND_MS)?;
    stage.rest(Duration::from_secs(3))?;
    // What was held is lost with its connections, as in a network that forgot them.
    stage.cluster.proxies[gateway].cut(None);
    stage.cluster.proxies[gateway].heal();
    let green = stage.cluster.time_until_ready_is(true, gateway, PATIENCE)?;
    stage.measure("healed to /readyz green", green, PATIENCE, HEALED_MS)
}

pub(super) fn deaf_subscriber(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let mut every_link = false;
    stage.repeat(Duration::from_secs(12), |stage| {
        let gateway = stage.any_gateway();
        every_link = !every_link;
        if every_link {
            stage
                .journal
                .fault("subscriptions deaf, new ones too", Some(gateway))?;
            stage.cluster.proxies[gateway].set(Some(Kind::Events), Rule::DEAF);
            return found_and_healed(stage, gateway);
        }
        stage.journal.fault("subscription deaf", Some(gateway))?;
        let proxy = &stage.cluster.proxies[gateway];
        proxy.deafen(Kind::Events);
        let started = Instant::now();
        while proxy.deaf_links(Kind::Events) > 0 && started.elapsed() < PATIENCE {
            check_interrupt()?;
            // The proxy does not pass on that the gateway hung up while it holds what comes down: it asks for readiness.
            if stage
                .cluster
                .time_until_ready_is(false, gateway, Duration::from_millis(20))?
                .is_some()
            {
                break;
            }
        }
        let took = Some(started.elapsed());
        stage.measure("deaf to replaced or /readyz red", took, PATIENCE, FOUND_MS)?;
        stage.cluster.proxies[gateway].cut(Some(Kind::Events));
        let green = stage.cluster.time_until_ready_is(true, gateway, PATIENCE)?;
        stage.measure("healed to /readyz green", green, PATIENCE, HEALED_MS)
    })
}

pub(super) fn restart(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.repeat(Duration::from_secs(8), |stage| {
        stage.journal.fault("Redis killed (SIGKILL), restarted", None)?;
        stage.cluster.kill_redis()?;
        let away = Duration::from_millis(stage.rng.u64(200..2_000));
        stage.rest(away)?;
        stage.cluster.restart_redis()?;
        all_ready(stage)
    })
}

fn all_ready(stage: &Stage<'_>) -> Result<(), Failure> {
    for gateway in 0..stage.cluster.len() {
        let green = stage.cluster.time_until_ready_is(true, gateway, PATIENCE)?;
        stage.measure("Redis back to /readyz green", green, PATIENCE, 10_000.0)?;
        if green.is_none() {
            let says = ready_answer(stage.cluster.address(gateway));
            stage
                .journal
                .note(format!("gateway {gateway} still answers /readyz with {says:?}"))?;
        }
    }
    Ok(())
}

/// `everysec` promises the disk all but the last second. A killed process has given all to the kernel, so the last
/// second is cut off by hand.
pub(super) fn restart_behind(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.repeat(Duration::from_secs(8), |stage| {
        stage.rest(Duration::from_secs(1))?;
        let (file, synced) = stage.cluster.append_file()?;
        stage.rest(Duration::from_secs(1))?;
        stage
            .journal
            .fault("Redis killed (SIGKILL), restarted without its last second", None)?;
        stage.cluster.kill_redis()?;
        let had = std::fs::metadata(&file)?.len();
        File::options().write(true).open(&file)?.set_len(synced)?;
        stage.journal.measure(
            "cut off the append-only file",
            (had - synced) as f64,
            "bytes",
            None,
        )?;
        let away = Duration::from_millis(stage.rng.u64(200..2_000));
        stage.rest(away)?;
        stage.cluster.restart_redis()?;
        all_ready(stage)
    })
}

pub(super) fn promote(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.rest(stage.seconds / 4)?;
    // From here on the replica gets nothing.
    stage.cluster.replication()?.set(None, Rule::HOLD);
    stage.journal.fault("replication held", None)?;
    stage.rest(Duration::from_secs(2))?;
    // A fifth of the clients have seen what will be lost, and stay away until their numbers are taken again.
    let mut away: Vec<usize> = (0..stage.crowd.len()).collect();
    stage.rng.shuffle(&mut away);
    away.truncate(stage.crowd.len() / 5);
    for &client in &away {
        stage.crowd.order(client, |orders| orders.online = false);
    }
    stage.crowd.wait_for(Duration::from_secs(5), |client, view| {
        view.gateway.is_none() || !away.contains(&client)
    })?;
    let kept: Vec<_> = away
        .iter()
        .map(|&client| stage.crowd.view(client).rooms)
        .collect();
    stage.journal.fault("master killed, replica promoted", None)?;
    stage.cluster.promote()?;
    all_ready(stage)?;
    // Until each of their rooms has grown past what they know, as far as there is time for that.
    let started = Instant::now();
    let patience = stage.seconds * 2 + Duration::from_secs(10);
    loop {
        check_interrupt()?;
        let heads = heads(stage)?;
        let passed = kept.iter().flatten().filter(|(room, since, _)| {
            let known = since.as_ref().map_or(0, |since| since.seq);
            heads.iter().any(|(of, head)| of == room && *head > known)
        });
        let (passed, all) = (passed.count(), kept.iter().map(Vec::len).sum::<usize>());
        if passed == all || started.elapsed() > patience {
            let text = format!(
                "{passed} of {all} memberships came back when the room's seq had passed theirs, after {:.1} s",
                started.elapsed().as_secs_f64()
            );
            stage.journal.note(text)?;
            break;
        }
        pause(Duration::from_millis(50));
    }
    for &client in &away {
        stage.crowd.order(client, |orders| orders.online = true);
    }
    stage.rest(stage.seconds / 4)
}

/// The last `seq` of each room, as Redis has it.
fn heads(stage: &Stage<'_>) -> Result<Vec<(String, u64)>, Failure> {
    let heads = stage.rooms.iter().map(|room| {
        let meta = format!("room:{{{room}}}:meta");
        let seq = ask(stage.cluster.redis_port(), &["HGET", &meta, "seq"])?;
        Ok((room.clone(), seq.parse().unwrap_or(0)))
    });
    heads.collect()
}

/// Commands that shall lose their replies in a run of the full length.
const REPLIES: u64 = 10_000;

pub(super) fn reply_cut(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let started = Instant::now();
    let taken = |stage: &Stage<'_>| {
        let proxies = stage.cluster.proxies.iter();
        proxies.map(|proxy| proxy.replies_taken()).sum::<u64>()
    };
    while started.elapsed() < stage.seconds {
        check_interrupt()?;
        for proxy in &stage.cluster.proxies {
            // Only now and then, so that the gateways also get something done.
            proxy.take_replies(u64::from(stage.rng.u8(0..4) == 0));
        }
        pause(Duration::from_millis(25));
        let timeouts = stage
            .crowd
            .counts
            .timeouts
            .load(std::sync::atomic::Ordering::Relaxed);
        if timeouts >= REPLIES {
            break;
        }
    }
    stage.cluster.proxies.iter().for_each(|proxy| proxy.heal());
    for _ in 0..taken(stage) {
        stage.journal.fault("link cut with a reply on it", None)?;
    }
    let timeouts = stage
        .crowd
        .counts
        .timeouts
        .load(std::sync::atomic::Ordering::Relaxed);
    stage
        .journal
        .measure("commands whose reply was cut", timeouts as f64, "", None)?;
    Ok(())
}
