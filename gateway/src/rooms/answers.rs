//! What the store has decided, carried out: who enters and leaves, and what each client is told.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use roomgate_shared::{
    ids::CommandId,
    protocol::{CommandType, ErrorCode, event},
};
use tokio::time::Instant;

use super::{Known, Origin, Rooms, failure, repair};
use crate::{
    hub::{Client, Entry, LocalRoom, Membership, Repair, positions_frame, text_frame},
    metrics::metrics,
    store::{Done, Joined, Refusal, Reply},
};

/// Carries out what the store has decided, in the order of the batch.
pub(super) fn complete(
    rooms: &Arc<Rooms>,
    local: &Arc<LocalRoom>,
    origins: Vec<Origin>,
    replies: Vec<Reply>,
) -> Repair {
    let mut repair = Repair::NotNeeded;
    for (origin, reply) in origins.into_iter().zip(replies) {
        match origin {
            Origin::Command {
                client,
                membership,
                id,
                kind,
                join,
                received,
                weight,
            } => {
                membership.answered(kind);
                match reply {
                    Ok(Done::Joined(joined)) => {
                        if join_done(local, &client, &membership, id.as_ref(), &join, &joined)
                            == Repair::Needed
                        {
                            repair = Repair::Needed;
                        }
                    }
                    Ok(Done::Ack(data)) => {
                        if kind == CommandType::Leave {
                            local.leave(&membership);
                        }
                        answer(&client, id.as_ref(), |id| {
                            event::ack_text(id, Some(local.id()), &data)
                        });
                    }
                    Ok(Done::Again(data)) => {
                        metrics().duplicates.increment(1);
                        answer(&client, id.as_ref(), |id| {
                            event::duplicate_ack_text(id, local.id(), &data)
                        });
                    }
                    Err(refusal) if refusal.no_room && kind != CommandType::Join => {
                        // The room is gone from the store while it has members here. They are to be told by a fresh
                        // picture; the command may then be sent again.
                        repair = Repair::Needed;
                        let lost =
                            Refusal::new(ErrorCode::Unavailable, "the room was lost and is being made anew");
                        answer_error(&client, id.as_ref(), Some(kind), local, &lost);
                    }
                    Err(refusal) => answer_error(&client, id.as_ref(), Some(kind), local, &refusal),
                    Ok(Done::Swept(_) | Done::Buried(_) | Done::Exported(_)) => {
                        tracing::error!(room = %local.id(), "an answer that is none to a command");
                    }
                }
                finish(&client, received, weight);
            }
            Origin::Gone { membership, .. } => {
                local.leave(&membership);
            }
            Origin::Positions {
                local: of, positions, ..
            } => of.written(&positions, true),
            Origin::Return { .. } => {
                if reply.is_err() {
                    // The room is gone from the store. Whoever is in is to be told.
                    repair = Repair::Needed;
                }
            }
            Origin::Unconfirmed { .. } => {}
            Origin::Resync { client, membership } => match reply {
                Ok(Done::Joined(joined)) => {
                    let frame = if joined.recovered {
                        // The log reaches back after all.
                        Bytes::new()
                    } else {
                        metrics().resyncs.increment(1);
                        text_frame(&format!(
                            r#"{{"type":"resync","room":"{}","data":{}}}"#,
                            local.id(),
                            joined.data
                        ))
                    };
                    let entry = Entry {
                        epoch: &joined.epoch,
                        seq: joined.seq,
                        answer: frame,
                        kept: &[],
                        missed: &joined.missed,
                        rules: joined.rules.as_deref(),
                    };
                    local.enter(client, membership, entry);
                }
                Ok(Done::Ack(_) | Done::Again(_) | Done::Swept(_) | Done::Buried(_) | Done::Exported(_)) => {
                    tracing::error!(room = %local.id(), "an ack for a join")
                }
                Err(refusal) => {
                    // It may not come in any more, for example because the room is full.
                    answer_error(&client, None, None, local, &refusal);
                    local.leave(&membership);
                }
            },
            Origin::Repair(tail) => {
                if repair::complete(rooms, local, &tail, reply) == Repair::Needed {
                    repair = Repair::Needed;
                }
            }
        }
    }
    repair
}

/// Enters a connection whose join the store has answered.
fn join_done(
    local: &Arc<LocalRoom>,
    client: &Arc<Client>,
    membership: &Arc<Membership>,
    id: Option<&CommandId>,
    known: &Known,
    joined: &Joined,
) -> Repair {
    let Joined {
        epoch,
        seq,
        data,
        missed,
        recovered,
        positions,
        occupancy,
        rules,
    } = joined;
    let mut entry = Entry {
        epoch,
        seq: *seq,
        missed,
        rules: rules.as_deref(),
        ..Entry::default()
    };
    let resumed = |seq: u64, missed: u64| {
        let you = data.find(r#","you":"#).map_or("}", |at| &data[at..]);
        format!(r#"{{"epoch":"{epoch}","seq":{seq},"recovered":true,"missed":{missed}{you}"#)
    };
    let own;
    let data = match known {
        Known::In if *recovered => {
            // Where it stands, and nothing missed.
            let at = local.position(membership).unwrap_or(*seq);
            local.reentered(membership, *seq);
            answer(client, id, |id| {
                event::ack_text(id, Some(local.id()), &resumed(at, 0))
            });
            return Repair::NotNeeded;
        }
        Known::Kept(kept) if *recovered => {
            metrics().resumes_kept.increment(1);
            entry.kept = &kept.frames;
            own = resumed(*seq, kept.count + missed.len() as u64);
            &own
        }
        Known::Nothing | Known::In | Known::Kept(_) => {
            if *recovered {
                metrics().resumes_log.increment(1);
            }
            data
        }
    };
    // What has no place in the order comes between the answer and the events, in one piece with the answer.
    let mut answer = Vec::new();
    if let Some(id) = id {
        answer.push(text_frame(&event::ack_text(id, Some(local.id()), data)));
    }
    answer.extend(positions_frame(local.id(), positions, client.user().as_str()));
    answer.extend(occupancy.map(|members| text_frame(&event::occupancy_text(local.id(), members))));
    entry.answer = match &answer[..] {
        [only] => only.clone(),
        all => all.concat().into(),
    };
    local.enter(client.clone(), membership.clone(), entry)
}

/// Answers a command that has an id.
pub(super) fn answer(client: &Client, id: Option<&CommandId>, text: impl FnOnce(&CommandId) -> String) {
    if let Some(id) = id {
        client.outbox.push_answer(text_frame(&text(id)));
    }
}

fn answer_error(
    client: &Client,
    id: Option<&CommandId>,
    kind: Option<CommandType>,
    local: &LocalRoom,
    refusal: &Refusal,
) {
    answer_error_for(client, id, kind, local, refusal, None);
}

pub(super) fn answer_error_for(
    client: &Client,
    id: Option<&CommandId>,
    kind: Option<CommandType>,
    local: &LocalRoom,
    refusal: &Refusal,
    retry: Option<Duration>,
) {
    metrics().error(refusal.code).increment(1);
    client.refused(kind, refusal.code);
    tracing::debug!(
        connection = %client.id,
        room = %local.id(),
        command = id.map(CommandId::as_str),
        code = %refusal.code,
        message = %refusal.message,
        "a command is refused"
    );
    // Rounded up: who comes at the very moment is not to be told the rest of a millisecond.
    let known = retry.map(|retry| u64::try_from(retry.as_millis()).unwrap_or(u64::MAX) + 1);
    let usual = failure::retry_after_ms(refusal.code).map(|usual| known.unwrap_or(usual));
    let retry = refusal.retry_ms.or(usual);
    let text = event::error_text(
        id,
        Some(local.id()),
        refusal.code,
        &refusal.message,
        retry,
        refusal.details.as_deref(),
    );
    client.outbox.push_answer(text_frame(&text));
}

pub(super) fn finish(client: &Client, received: Instant, weight: usize) {
    metrics().command_duration.record(millis(received));
    client.end(weight);
}

pub(super) fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
