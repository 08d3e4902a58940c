//! The asker: asks every holder of each key, merges what owners signed, and never claims more than it knows.
//!
//! An answer is complete when each key has a read quorum of whole answers (SPEC F-QUORUM); otherwise it is
//! partial and names exactly the holders without a whole answer for a key below quorum (SPEC F-SILENT).
//! Signatures are verified here again: a holder is never trusted for what it hands over (SPEC F-SIGNED).

use std::collections::{BTreeMap, BTreeSet};

use hie_protocol::id::{IndexKey, Millis, OrgId};
use hie_protocol::message::{IndexMessage, LOOKUP_KEYS_MAX};
use hie_protocol::record::{RecordId, SignedRecord, VerifiedRecord};

use crate::config::{
    ANSWER_GRACE_MS, ASK_KEYS_MAX, ASK_RECORDS_MAX, ASKS_OPEN_MAX, CLOCK_SKEW_MS_MAX, LOOKUP_RETRY_MS,
    LOOKUP_RETRY_MS_MAX, LOOKUPS_OPEN_MAX, Planted,
};
use crate::holder::is_forgery;
use crate::machine::{Federation, Turn};
use crate::owner::back_off;
use crate::port::{AskId, Decline, Effect, Misbehaviour, Outcome, RequestId, Why};

/// Who was asked for a key and who has answered whole.
#[derive(Debug)]
struct Asked {
    holders: Vec<OrgId>,
    whole: BTreeSet<OrgId>,
    /// Second answers, under the planted bug that counts them.
    doubled: usize,
}

/// An open question.
#[derive(Debug)]
struct Ask {
    asked_at: Millis,
    deadline: Millis,
    quorum: usize,
    quorum_at: Option<Millis>,
    keys: BTreeMap<IndexKey, Asked>,
    merged: BTreeMap<RecordId, VerifiedRecord>,
    /// Bytes already verified: copies of other holders cost nothing.
    seen: BTreeSet<SignedRecord>,
    not_whole: BTreeSet<OrgId>,
    misbehaved: BTreeSet<OrgId>,
}

/// A lookup on its way to one holder.
#[derive(Debug)]
struct Lookup {
    ask: AskId,
    holder: OrgId,
    keys: Vec<IndexKey>,
    attempt: u32,
    again: Millis,
}

/// The asker's part of the state.
#[derive(Debug, Default)]
pub(crate) struct Asker {
    asks: BTreeMap<AskId, Ask>,
    lookups: BTreeMap<u64, Lookup>,
}

impl Asker {
    /// Earliest time at which something is due.
    pub(crate) fn next_timer(&self) -> Option<Millis> {
        let ends = self.asks.values().map(|ask| match ask.quorum_at {
            Some(at) => at.plus(ANSWER_GRACE_MS).min(ask.deadline),
            None => ask.deadline,
        });
        ends.chain(self.lookups.values().map(|lookup| lookup.again)).min()
    }

    /// A channel opened: what waits for that member goes at once.
    pub(crate) fn hurry(&mut self, org: &OrgId, now: Millis) {
        for lookup in self.lookups.values_mut().filter(|lookup| lookup.holder == *org) {
            (lookup.attempt, lookup.again) = (0, now);
        }
    }
}

impl Ask {
    fn complete(&self) -> bool {
        let mut asked = self.keys.values();
        asked.all(|asked| asked.whole.len().saturating_add(asked.doubled) >= self.quorum)
    }

    /// Whether nobody is left to wait for under a key: holders that cannot be reached are not waited for.
    fn nobody_left(&self, asked: &Asked, cut: &BTreeSet<OrgId>) -> bool {
        let mut holders = asked.holders.iter();
        holders.all(|org| asked.whole.contains(org) || self.misbehaved.contains(org) || cut.contains(org))
    }

    /// Whether nobody is left to wait for.
    fn exhausted(&self, cut: &BTreeSet<OrgId>) -> bool {
        self.keys.values().all(|asked| self.nobody_left(asked, cut))
    }

    /// Whether every key has its quorum, or nobody left who could bring it there.
    fn settled(&self, cut: &BTreeSet<OrgId>) -> bool {
        let enough = |asked: &Asked| asked.whole.len().saturating_add(asked.doubled) >= self.quorum;
        let mut keys = self.keys.values();
        keys.all(|asked| enough(asked) || self.nobody_left(asked, cut))
    }

    /// Takes a verified record: the highest sequence wins.
    fn merge(&mut self, verified: VerifiedRecord, last_wins: bool) {
        let id = verified.record().id();
        let newer = self
            .merged
            .get(&id)
            .is_none_or(|held| last_wins || held.record().sequence < verified.record().sequence);
        if newer {
            self.merged.insert(id, verified);
        }
    }
}

impl Federation {
    /// Opens a question.
    pub(crate) fn ask(&mut self, turn: &mut Turn<'_>, id: AskId, keys: Vec<IndexKey>, deadline: Millis) {
        let keys: BTreeSet<IndexKey> = keys.into_iter().collect();
        let why = if keys.is_empty() || keys.len() > ASK_KEYS_MAX {
            Some(Decline::Size)
        } else if self.asker.asks.contains_key(&id) {
            Some(Decline::IdInUse)
        } else if self.asker.asks.len() >= ASKS_OPEN_MAX || self.asker.lookups.len() >= LOOKUPS_OPEN_MAX {
            Some(Decline::Busy)
        } else {
            None
        };
        if let Some(why) = why {
            turn.emit(Effect::Declined {
                request: RequestId::Ask(id),
                why,
            });
            return;
        }
        let set = if self.config.has(Planted::StalePlacement) {
            self.members.known.sets.first()
        } else {
            self.members.current()
        };
        let quorum = set.map_or(1, |set| usize::try_from(set.read_quorum).unwrap_or(usize::MAX));
        let quorum = if self.config.has(Planted::OneReplicaComplete) {
            1
        } else {
            quorum
        };
        let mut by_holder: BTreeMap<OrgId, Vec<IndexKey>> = BTreeMap::new();
        let mut asked = BTreeMap::new();
        for key in keys {
            let holders = set.map(|set| set.place(&key)).unwrap_or_default();
            for holder in &holders {
                by_holder.entry(holder.clone()).or_default().push(key);
            }
            asked.insert(
                key,
                Asked {
                    holders,
                    whole: BTreeSet::new(),
                    doubled: 0,
                },
            );
        }
        self.asker.asks.insert(
            id,
            Ask {
                asked_at: turn.now,
                deadline,
                quorum,
                quorum_at: None,
                keys: asked,
                merged: BTreeMap::new(),
                seen: BTreeSet::new(),
                not_whole: BTreeSet::new(),
                misbehaved: BTreeSet::new(),
            },
        );
        for (holder, keys) in by_holder {
            for part in keys.chunks(LOOKUP_KEYS_MAX) {
                self.open_lookup(turn, id, &holder, part.to_vec());
            }
        }
    }

    fn open_lookup(&mut self, turn: &Turn<'_>, ask: AskId, holder: &OrgId, keys: Vec<IndexKey>) {
        let id = self.question();
        // The first sending is due now: pump_questions does it within this step.
        let lookup = Lookup {
            ask,
            holder: holder.clone(),
            keys,
            attempt: 0,
            again: turn.now,
        };
        self.asker.lookups.insert(id, lookup);
    }

    /// An answer to a lookup. Anything that was not asked of `from` is ignored.
    pub(crate) fn found(
        &mut self,
        turn: &mut Turn<'_>,
        from: &OrgId,
        id: u64,
        records: &[Vec<SignedRecord>],
        whole: bool,
    ) {
        let anyone = self.config.has(Planted::AnswerOfAnyone);
        let asked = |lookup: &&Lookup| anyone || lookup.holder == *from;
        let Some(lookup) = self.asker.lookups.get(&id).filter(asked) else {
            return;
        };
        let from = &lookup.holder.clone();
        let (ask_id, keys) = (lookup.ask, lookup.keys.clone());
        let what = match self.examine(ask_id, &keys, records) {
            Ok(fresh) => {
                self.take_answer(turn, id, ask_id, from, &keys, fresh, whole);
                return;
            }
            Err(what) => what,
        };
        turn.emit(Effect::Misbehaved {
            org: from.clone(),
            what,
        });
        self.asker
            .lookups
            .retain(|_, lookup| lookup.ask != ask_id || lookup.holder != *from);
        if let Some(ask) = self.asker.asks.get_mut(&ask_id) {
            ask.misbehaved.insert(from.clone());
            ask.keys.values_mut().for_each(|asked| {
                asked.whole.remove(from);
            });
        }
    }

    /// Verifies every record of an answer that was not verified before.
    fn examine(
        &mut self,
        id: AskId,
        keys: &[IndexKey],
        records: &[Vec<SignedRecord>],
    ) -> Result<Vec<VerifiedRecord>, Misbehaviour> {
        if records.len() != keys.len() {
            return Err(Misbehaviour::Unfitting);
        }
        let mut fresh = Vec::new();
        for (key, under) in keys.iter().zip(records) {
            for signed in under {
                if self.asker.asks.get(&id).is_some_and(|ask| ask.seen.contains(signed)) {
                    continue;
                }
                match self.verify(signed) {
                    Ok(verified) if verified.record().key == *key => fresh.push(verified),
                    Ok(verified) if self.config.has(Planted::UnfittingAccepted) => fresh.push(verified),
                    Ok(_) => return Err(Misbehaviour::Unfitting),
                    Err(error) if is_forgery(&error) => return Err(Misbehaviour::Forged),
                    // Its registry is not ours: the record has no owner here.
                    Err(_) => {}
                }
            }
        }
        Ok(fresh)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one answer")]
    fn take_answer(
        &mut self,
        turn: &Turn<'_>,
        id: u64,
        ask_id: AskId,
        from: &OrgId,
        keys: &[IndexKey],
        fresh: Vec<VerifiedRecord>,
        whole: bool,
    ) {
        let last_wins = self.config.has(Planted::LastAnswerWins);
        let doubles = self.config.has(Planted::DuplicatesCounted);
        let Some(ask) = self.asker.asks.get_mut(&ask_id) else {
            return;
        };
        let fits = ask.seen.len().saturating_add(fresh.len()) <= ASK_RECORDS_MAX;
        if fits {
            for verified in fresh {
                ask.seen.insert(verified.signed().clone());
                ask.merge(verified, last_wins);
            }
        }
        if whole && fits {
            for key in keys {
                if let Some(asked) = ask.keys.get_mut(key) {
                    let second = !asked.whole.insert(from.clone());
                    asked.doubled = asked.doubled.saturating_add(usize::from(second && doubles));
                }
            }
            if !doubles {
                self.asker.lookups.remove(&id);
            }
            return;
        }
        ask.not_whole.insert(from.clone());
        if let Some((left, right)) = keys
            .split_at_checked(keys.len() / 2)
            .filter(|(left, _)| !left.is_empty())
        {
            // Too much for one message, or one key of several is not settled: ask for less at a time.
            self.asker.lookups.remove(&id);
            self.open_lookup(turn, ask_id, from, left.to_vec());
            self.open_lookup(turn, ask_id, from, right.to_vec());
        } else if let Some(lookup) = self.asker.lookups.get_mut(&id) {
            lookup.again = turn
                .now
                .plus(back_off(lookup.attempt, LOOKUP_RETRY_MS, LOOKUP_RETRY_MS_MAX));
        }
    }

    /// Sends what is due and closes what is answered or late.
    pub(crate) fn pump_questions(&mut self, turn: &mut Turn<'_>) {
        loop {
            let due = self.asker.lookups.iter().filter(|(_, lookup)| lookup.again <= turn.now);
            let due: Vec<u64> = due.map(|(id, _)| *id).collect();
            if due.is_empty() {
                break;
            }
            for id in due {
                self.send_lookup(turn, id);
            }
        }
        let ids: Vec<AskId> = self.asker.asks.keys().copied().collect();
        for id in ids {
            self.close_if_done(turn, id);
        }
    }

    fn send_lookup(&mut self, turn: &mut Turn<'_>, id: u64) {
        let Some(lookup) = self.asker.lookups.get_mut(&id) else {
            return;
        };
        lookup.again = turn
            .now
            .plus(back_off(lookup.attempt, LOOKUP_RETRY_MS, LOOKUP_RETRY_MS_MAX));
        lookup.attempt = lookup.attempt.saturating_add(1);
        let (holder, keys) = (lookup.holder.clone(), lookup.keys.clone());
        if holder == self.config.me {
            let (records, whole) = self.look_up(turn, &keys, &holder);
            self.found(turn, &holder, id, &records, whole);
        } else {
            turn.send(&holder, IndexMessage::Lookup { id, keys, after: None });
        }
    }

    fn close_if_done(&mut self, turn: &mut Turn<'_>, id: AskId) {
        let Some(ask) = self.asker.asks.get_mut(&id) else {
            return;
        };
        let complete = ask.complete();
        let settled = ask.settled(&self.cut);
        if settled && ask.quorum_at.is_none() {
            ask.quorum_at = Some(turn.now);
        } else if !settled {
            ask.quorum_at = None;
        }
        let waited = ask.quorum_at.is_some_and(|at| turn.now >= at.plus(ANSWER_GRACE_MS));
        let late = turn.now >= ask.deadline && !self.config.has(Planted::DeadlineIgnored);
        let done = late || (settled && (waited || ask.exhausted(&self.cut)));
        if !done {
            return;
        }
        let Some(ask) = self.asker.asks.remove(&id) else { return };
        self.asker.lookups.retain(|_, lookup| lookup.ask != id);
        let as_of = ask.asked_at;
        let silent = if complete { Vec::new() } else { self.silent(&ask) };
        let records = self.shown(ask, turn.now);
        let outcome = if complete {
            Outcome::Complete { records, as_of }
        } else {
            Outcome::Partial { records, silent, as_of }
        };
        turn.emit(Effect::Answer { id, outcome });
    }

    /// Live records that this organisation may see.
    fn shown(&self, ask: Ask, now: Millis) -> Vec<VerifiedRecord> {
        let shows = |verified: &VerifiedRecord| {
            let record = verified.record();
            let excluded = record.label.excluded.contains(&self.config.me) && !self.config.has(Planted::LabelIgnored);
            let expired = record.expires.plus(CLOCK_SKEW_MS_MAX) < now && !self.config.has(Planted::ExpiryIgnored);
            let alive = !record.is_tombstone() && !expired;
            // The registry may have changed while the question was open.
            alive && !excluded && self.is_active(&record.owner)
        };
        ask.merged.into_values().filter(shows).collect()
    }

    /// Exactly the holders without a whole answer for a key below quorum.
    fn silent(&self, ask: &Ask) -> Vec<(OrgId, Why)> {
        let below = ask.keys.values().filter(|asked| asked.whole.len() < ask.quorum);
        let names: BTreeSet<&OrgId> = below
            .flat_map(|asked| asked.holders.iter().filter(|org| !asked.whole.contains(*org)))
            .collect();
        let why = |org: &OrgId| {
            if !self.is_active(org) {
                Why::Left
            } else if ask.misbehaved.contains(org) {
                Why::Misbehaved
            } else if ask.not_whole.contains(org) {
                Why::NotWhole
            } else if self.cut.contains(org) {
                Why::Unreachable
            } else {
                Why::NoAnswer
            }
        };
        let unnamed = |org: &OrgId| self.config.has(Planted::UnreachableUnnamed) && why(org) == Why::Unreachable;
        let named = names.into_iter().filter(|org| !unnamed(org));
        named.map(|org| (org.clone(), why(org))).collect()
    }
}
