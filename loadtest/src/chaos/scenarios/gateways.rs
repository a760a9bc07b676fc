//! Gateways that die, stop and freeze.

use std::time::Duration;

use rustix::process::Signal;

use super::Stage;
use crate::{chaos::checker::FROZEN, failure::Failure};

pub(super) fn calm(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.rest(stage.seconds)
}

pub(super) fn kill(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.repeat(Duration::from_secs(5), |stage| {
        let gateway = stage.any_gateway();
        stage.journal.fault("gateway killed (SIGKILL)", Some(gateway))?;
        stage.cluster.kill_gateway(gateway)?;
        // Gone for a while, as where something has to notice it first.
        let away = Duration::from_millis(stage.rng.u64(200..1_500));
        stage.rest(away)?;
        stage.cluster.launch_gateway(gateway)?;
        stage.cluster.wait_ready(gateway)
    })
}

pub(super) fn rolling_sigterm(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let patience = Duration::from_secs(30);
    let mut gateway = stage.any_gateway();
    stage.repeat(Duration::from_secs(5), |stage| {
        stage
            .journal
            .fault("gateway told to end (SIGTERM)", Some(gateway))?;
        let took = stage.cluster.terminate(gateway, patience)?;
        stage.measure("SIGTERM to the end of the process", took, patience, 10_000.0)?;
        stage.cluster.launch_gateway(gateway)?;
        stage.cluster.wait_ready(gateway)?;
        gateway = (gateway + 1) % stage.cluster.len();
        Ok(())
    })
}

pub(super) fn freeze(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let frozen = Duration::from_secs(20);
    stage.repeat(frozen + Duration::from_secs(10), |stage| {
        let gateway = stage.any_gateway();
        stage.journal.fault(FROZEN, Some(gateway))?;
        stage.cluster.signal(gateway, Signal::STOP)?;
        let rested = stage.rest(frozen);
        stage.cluster.signal(gateway, Signal::CONT)?;
        rested
    })
}
