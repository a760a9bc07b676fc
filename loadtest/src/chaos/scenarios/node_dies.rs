//! A gateway that dies with most of a room on it, and is not started again. Half of its members come back elsewhere at
//! once, the others never.

use std::time::{Duration, Instant};

use super::Stage;
use crate::{
    chaos::{checker::NODE_DIED, cluster::ask, journal::Act},
    failure::{Failure, check_interrupt},
    process::pause,
};

/// How long those who come back may take.
const COMING_BACK: Duration = Duration::from_secs(30);
/// How long it may take until the store has forgotten the gateway and who never came back.
const FORGETTING: Duration = Duration::from_secs(120);
/// Of so many clients, one watches from another gateway; at least [`WATCHERS`].
const WATCHER_OF: usize = 50;
const WATCHERS: usize = 4;

/// The last gateway is the one that dies; some clients watch on the others.
pub(super) fn begins_on(client: usize, clients: usize, gateways: usize) -> usize {
    let watchers = (clients / WATCHER_OF).max(WATCHERS);
    match client < watchers {
        true => client % (gateways - 1),
        false => gateways - 1,
    }
}

pub(super) fn run(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.rest(stage.seconds)?;
    let victim = stage.cluster.len() - 1;
    let mut gone = stage.crowd.on_gateway(victim);
    stage.rng.shuffle(&mut gone);
    gone.truncate(gone.len() / 2);
    stage.crowd.order_all(|orders| orders.on = None);
    for &client in &gone {
        stage.crowd.order(client, |orders| orders.returns = false);
    }
    stage.journal.write(Act::Gone {
        clients: gone
            .iter()
            .filter_map(|&client| u32::try_from(client).ok())
            .collect(),
    })?;
    stage.journal.fault(NODE_DIED, Some(victim))?;
    stage.cluster.kill_gateway(victim)?;
    let died = Instant::now();
    let late = stage
        .crowd
        .wait_for(COMING_BACK, |client, view| match gone.contains(&client) {
            true => view.stopped,
            false => view.gateway.is_some_and(|gateway| gateway != victim) && view.at_rest(),
        })?;
    let back = (late == 0).then(|| died.elapsed());
    let others = (0..stage.crowd.len()).filter(|client| !gone.contains(client));
    let memberships: usize = others.map(|client| stage.crowd.view(client).rooms.len()).sum();
    stage.measure(
        "those who come back in their room elsewhere",
        back,
        COMING_BACK,
        10_000.0,
    )?;

    let port = stage.cluster.redis_port();
    let rooms = stage.rooms.to_vec();
    forgotten(stage, died, "kill to the last member out of the store", || {
        let mut members = 0;
        for room in &rooms {
            let key = format!("room:{{{room}}}:users");
            members += ask(port, &["HLEN", &key])?.parse::<usize>().unwrap_or(usize::MAX);
        }
        Ok(match members == memberships {
            true => None,
            false => Some(format!("{members} members; {memberships} should be")),
        })
    })?;
    let node = format!("gw-{victim}");
    forgotten(stage, died, "kill to the last key without its name", || {
        let named = ask(port, &["EVAL", NAMING, "0", &node])?;
        Ok((!named.is_empty()).then(|| format!("the dead gateway is named by {named}")))
    })
}

/// Waits until `left` tells of nothing more, and notes how long it took; what it told last, where it did not end.
fn forgotten(
    stage: &Stage<'_>,
    died: Instant,
    what: &str,
    mut left: impl FnMut() -> Result<Option<String>, Failure>,
) -> Result<(), Failure> {
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    loop {
        check_interrupt()?;
        let Some(text) = left()? else {
            stage.journal.measure(what, ms(died.elapsed()), "ms", None)?;
            return Ok(());
        };
        if died.elapsed() > FORGETTING {
            stage.journal.note(format!("{what}: {text}"))?;
            return Ok(stage.journal.write(Act::Never {
                what: what.to_owned(),
                waited_ms: ms(FORGETTING),
            })?);
        }
        pause(Duration::from_millis(100));
    }
}

/// Every key that names `ARGV[1]`, in its own name or in what it holds.
const NAMING: &str = "
local found, cursor = {}, '0'
local read = {
    string = function(key) return redis.call('GET', key) end,
    hash = function(key) return table.concat(redis.call('HGETALL', key), ' ') end,
    zset = function(key) return table.concat(redis.call('ZRANGE', key, 0, -1), ' ') end,
    set = function(key) return table.concat(redis.call('SMEMBERS', key), ' ') end,
    list = function(key) return table.concat(redis.call('LRANGE', key, 0, -1), ' ') end,
}
repeat
    local page = redis.call('SCAN', cursor, 'COUNT', 1000)
    cursor = page[1]
    for _, key in ipairs(page[2]) do
        local of = read[redis.call('TYPE', key).ok]
        if string.find(key .. ' ' .. (of and of(key) or ''), ARGV[1], 1, true) then found[#found + 1] = key end
    end
until cursor == '0'
return table.concat(found, ' ')
";
