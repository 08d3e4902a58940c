//! Omission: a holder answers whole, but without a record that it has confirmed to its owner.
//!
//! One sighting may be a race between a change and two answers: the record is handed to the holder, and after a pause
//! both are asked again. Who leaves it out a second time, having said that it holds it, while the owner's fresh beat
//! says that nothing is missing there or at the holder that showed it, is named (SPEC F-OMITTED). The word of the
//! owner alone names nobody: it may be the owner who lies about what it delivered.

use std::collections::BTreeSet;

use hie_protocol::id::{IndexKey, Millis, OrgId, Sequence};
use hie_protocol::message::{IndexMessage, LOOKUP_KEYS_MAX, StoreOutcome};
use hie_protocol::record::{RecordId, VerifiedRecord};

use super::Ask;
use crate::config::{ASKS_OPEN_MAX, LOOKUP_RETRY_MS_MAX, OMISSION_AGAIN_MS, SETTLE_MS, SUSPECTS_MAX};
use crate::machine::{Federation, Turn};
use crate::port::{AskId, Effect, Misbehaviour};

/// Questions of the machine itself have ids from here on.
const OWN_ASK: u64 = 1 << 63;
/// How long a second sighting is awaited once the question was put again, in milliseconds.
const SECOND_LOOK_MS: u64 = 60_000;

/// A holder left out a version that another holder showed.
pub(super) type Omission = (OrgId, RecordId, Sequence);

/// An omission seen once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    /// When to look again, or, once that is done, when to forget it.
    pub at: Millis,
    looked_again: bool,
    /// Under which question the record was handed over.
    handed: u64,
    /// It said that it holds the record now.
    holds: bool,
}

impl Federation {
    /// Asks again for what somebody left out.
    pub(super) fn look_again(&mut self, turn: &mut Turn<'_>) {
        let now = turn.mono;
        self.asker
            .suspects
            .retain(|_, suspicion| !suspicion.looked_again || suspicion.at > now);
        let due = self.asker.suspects.iter_mut();
        let mut keys: BTreeSet<IndexKey> = BTreeSet::new();
        for ((_, id, _), suspicion) in due.filter(|(_, suspicion)| suspicion.at <= now).take(LOOKUP_KEYS_MAX) {
            keys.insert(id.key);
            suspicion.at = now.plus(SECOND_LOOK_MS);
            suspicion.looked_again = true;
        }
        if !keys.is_empty() && self.asker.asks.len() < ASKS_OPEN_MAX {
            let id = AskId(OWN_ASK | self.question());
            self.open_ask(turn, id, keys, turn.now.plus(LOOKUP_RETRY_MS_MAX), true);
        }
    }

    /// Compares what the holders of a question showed.
    pub(super) fn find_omissions(&mut self, turn: &mut Turn<'_>, ask: &Ask) {
        let mut missing: Vec<(OrgId, VerifiedRecord, bool)> = Vec::new();
        for (id, latest) in &ask.merged {
            let Some(asked) = ask.keys.get(&id.key) else { continue };
            let sequence = latest.record().sequence;
            let has = |org: &&OrgId| {
                let shown = ask.shown.get(&((*org).clone(), id.clone()));
                shown.is_some_and(|shown| *shown >= sequence)
            };
            let without: Vec<&OrgId> = asked.whole.iter().filter(|org| !has(org)).collect();
            if without.is_empty() || !self.is_settled(turn.now, latest) {
                continue;
            }
            let certain = |org: &OrgId| self.has_confirmed(turn.mono, &id.owner, org);
            let showing = asked.whole.iter().filter(has).filter(|org| certain(org)).count();
            if showing == 0 {
                continue;
            }
            // INVARIANT: of two that show a version one does not lie. A single one may show what is no longer the latest,
            // and the others may rightly hold a later version back.
            let sure = showing >= 2;
            let named = without.into_iter().filter(|org| certain(org));
            missing.extend(named.map(|org| (org.clone(), latest.clone(), sure)));
        }
        for (org, record, sure) in missing {
            self.omitted(turn, org, &record, sure);
        }
    }

    fn omitted(&mut self, turn: &mut Turn<'_>, org: OrgId, record: &VerifiedRecord, sure: bool) {
        if org == self.config.me {
            let _ = self.hold(turn, record);
            return;
        }
        let id = self.question();
        turn.send(
            &org,
            IndexMessage::Store {
                id,
                records: vec![record.signed().clone()],
            },
        );
        if !sure {
            return;
        }
        let omission = (org, record.record().id(), record.record().sequence);
        let room = self.asker.suspects.len() < SUSPECTS_MAX;
        match self.asker.suspects.get_mut(&omission) {
            Some(suspicion) if suspicion.looked_again && suspicion.holds => {
                self.asker.suspects.remove(&omission);
                turn.emit(Effect::Misbehaved {
                    org: omission.0,
                    what: Misbehaviour::Omitted,
                });
            }
            Some(suspicion) if !suspicion.holds => suspicion.handed = id,
            Some(_) => {}
            None if room => {
                let suspicion = Suspicion {
                    at: turn.mono.plus(OMISSION_AGAIN_MS),
                    looked_again: false,
                    handed: id,
                    holds: false,
                };
                self.asker.suspects.insert(omission, suspicion);
            }
            None => {}
        }
    }

    /// A holder answers to a record that was handed to it.
    pub(crate) fn handed_over(&mut self, from: &OrgId, id: u64, outcomes: &[StoreOutcome]) {
        let suspects = self.asker.suspects.iter_mut();
        for ((_, _, _), suspicion) in suspects.filter(|((org, _, _), suspicion)| org == from && suspicion.handed == id)
        {
            suspicion.holds |= outcomes == [StoreOutcome::Held];
        }
    }

    /// Whether a version was signed long enough ago to be everywhere.
    fn is_settled(&self, now: Millis, verified: &VerifiedRecord) -> bool {
        let record = verified.record();
        let policy = &self.registry.policy;
        let life = if record.is_tombstone() {
            policy.tombstone_life_ms
        } else {
            policy.record_life_ms
        };
        let signed = Millis(record.expires.0.saturating_sub(life));
        now.since(signed) > SETTLE_MS && record.expires > now
    }

    /// Whether an owner says that a holder has all its records.
    fn has_confirmed(&self, mono: Millis, owner: &OrgId, holder: &OrgId) -> bool {
        if *owner == self.config.me {
            !self.own_unconfirmed(holder)
        } else {
            owner == holder || self.vouches(mono, owner, holder)
        }
    }
}
