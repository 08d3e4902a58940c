//! What a run leaves behind: a hash over every effect in order, without the bytes that clocks put into it.

use std::hash::{DefaultHasher, Hash, Hasher};

use hie_node_federation::port::{Effect, Outcome};

/// Adds one step of one machine.
pub(super) fn step(trace: &mut DefaultHasher, now: u64, at: usize, effects: &[Effect]) {
    (now, at, effects.len()).hash(trace);
    for effect in effects {
        core::mem::discriminant(effect).hash(trace);
        match effect {
            Effect::Persist { id, changes } => {
                id.hash(trace);
                for change in changes {
                    (change.table, change.key.len(), change.value.is_some()).hash(trace);
                }
            }
            Effect::Send { to, message } => {
                to.hash(trace);
                core::mem::discriminant(message).hash(trace);
            }
            Effect::Published { id } => id.hash(trace),
            Effect::Answer { id, outcome } => {
                id.hash(trace);
                let records = match outcome {
                    Outcome::Complete { records, .. } => records,
                    Outcome::Partial { records, silent, .. } => {
                        for (org, why) in silent {
                            (org, *why as u8).hash(trace);
                        }
                        records
                    }
                };
                for verified in records {
                    (verified.record().handle, verified.record().sequence).hash(trace);
                }
            }
            Effect::Renew { records } => records.len().hash(trace),
            Effect::Misbehaved { org, .. } => org.hash(trace),
            Effect::Declined { .. } | Effect::WakeAt(_) => {}
        }
    }
}

/// The hash so far.
pub(super) fn finish(trace: &DefaultHasher) -> u64 {
    trace.finish()
}
