//! The asker: asks every holder of each key, merges what owners signed, and never claims more than it knows.
//!
//! An answer is complete when each key was answered whole by all its holders, or by a read quorum at which no owner
//! is unconfirmed ([`crate::beat`], SPEC F-CONFIRMED); otherwise it is partial and names exactly the holders without
//! a whole answer for such a key, and those owners (SPEC F-SILENT). A key with more records than fit into one
//! message is read page by page (SPEC F-PAGES). A holder that confirmed a record and leaves it out is asked once
//! more; when it does so again it is named, and the record is handed to it (SPEC F-OMITTED).
//! Signatures are verified here again: a holder is never trusted for what it hands over (SPEC F-SIGNED).

use std::collections::{BTreeMap, BTreeSet};

use hie_protocol::id::{IndexKey, Millis, OrgId, Sequence};
use hie_protocol::message::{Cursor, IndexMessage, LOOKUP_KEYS_MAX};
use hie_protocol::record::{RecordId, SignedRecord, VerifiedRecord};

use crate::config::{
    ANSWER_GRACE_MS, ASK_KEYS_MAX, ASK_RECORDS_MAX, ASKS_OPEN_MAX, CLOCK_SKEW_MS_MAX, LOOKUP_RETRY_MS,
    LOOKUP_RETRY_MS_MAX, LOOKUPS_OPEN_MAX, Planted,
};
use crate::holder::{Shown, is_forgery};
use crate::machine::{Federation, Turn};
use crate::owner::back_off;
use crate::port::{AskId, Decline, Effect, Misbehaviour, Outcome, RequestId, Why};

mod omission;

use omission::{Omission, Suspicion};

/// Most pages of one key that one holder shows.
const LOOKUP_PAGES_MAX: usize = 256;

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
    /// When an answer is given at the latest, by the machine's clock: a step of the calendar makes nobody wait.
    ends: Millis,
    quorum: usize,
    quorum_at: Option<Millis>,
    keys: BTreeMap<IndexKey, Asked>,
    merged: BTreeMap<RecordId, VerifiedRecord>,
    /// Bytes already verified: copies of other holders cost nothing.
    seen: BTreeMap<SignedRecord, VerifiedRecord>,
    not_whole: BTreeSet<OrgId>,
    misbehaved: BTreeSet<OrgId>,
    /// What each holder showed.
    shown: BTreeMap<(OrgId, RecordId), Sequence>,
    /// Whether the machine asks for itself, to look at omissions again.
    own: bool,
}

/// A lookup on its way to one holder.
#[derive(Debug)]
struct Lookup {
    ask: AskId,
    holder: OrgId,
    keys: Vec<IndexKey>,
    after: Option<Cursor>,
    /// Pages read before this one.
    pages: usize,
    attempt: u32,
    again: Millis,
}

impl Lookup {
    /// Whether an answer that goes on at `next` fits: one key, further on each time, and not for ever.
    fn goes_on(&self, next: Option<&Cursor>) -> bool {
        let Some(next) = next else { return true };
        let further = self
            .after
            .as_ref()
            .is_none_or(|after| (&next.handle, &next.owner) > (&after.handle, &after.owner));
        self.keys.len() == 1 && further && self.pages < LOOKUP_PAGES_MAX
    }
}

/// The asker's part of the state.
#[derive(Debug, Default)]
pub(crate) struct Asker {
    asks: BTreeMap<AskId, Ask>,
    lookups: BTreeMap<u64, Lookup>,
    /// Omissions seen once, and when to look again.
    suspects: BTreeMap<Omission, Suspicion>,
}

/// Owners that are unconfirmed at each holder that answered.
type Doubts = BTreeMap<OrgId, BTreeSet<OrgId>>;

impl Asker {
    /// Earliest time at which something is due.
    pub(crate) fn next_timer(&self, now: Millis, mono: Millis) -> Option<Millis> {
        let ends = self.asks.values().map(|ask| match ask.quorum_at {
            Some(at) => at.plus(ANSWER_GRACE_MS).min(ask.ends),
            None => ask.ends,
        });
        let again = self.suspects.values().map(|suspicion| suspicion.at);
        ends.chain(self.lookups.values().map(|lookup| lookup.again))
            .chain(again)
            .min()
            .map(|due| now.plus(due.since(mono)))
    }

    /// A channel opened: what waits for that member goes at once.
    pub(crate) fn hurry(&mut self, org: &OrgId, now: Millis) {
        for lookup in self.lookups.values_mut().filter(|lookup| lookup.holder == *org) {
            (lookup.attempt, lookup.again) = (0, now);
        }
    }
}

impl Ask {
    /// Whether nobody is left to wait for under a key: holders that cannot be reached are not waited for.
    fn nobody_left(&self, asked: &Asked, cut: &BTreeSet<OrgId>) -> bool {
        let mut holders = asked.holders.iter();
        holders.all(|org| asked.whole.contains(org) || self.misbehaved.contains(org) || cut.contains(org))
    }

    /// Whether nobody is left to wait for.
    fn exhausted(&self, cut: &BTreeSet<OrgId>) -> bool {
        self.keys.values().all(|asked| self.nobody_left(asked, cut))
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
    /// What is gathered so far for an open question, with the number of records, when these are more than `known`: hints
    /// for who does not want to wait for the answer, which alone says what counts.
    #[must_use]
    pub fn gathered(&self, id: AskId, known: usize) -> Option<(usize, Vec<VerifiedRecord>)> {
        let ask = self.asker.asks.get(&id).filter(|ask| ask.merged.len() > known)?;
        let shows = |verified: &&VerifiedRecord| {
            let record = verified.record();
            !record.is_tombstone() && !record.label.excluded.contains(&self.config.me) && self.is_active(&record.owner)
        };
        Some((ask.merged.len(), ask.merged.values().filter(shows).cloned().collect()))
    }

    /// Opens a question of the caller.
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
        self.open_ask(turn, id, keys, deadline, false);
    }

    pub(super) fn open_ask(
        &mut self,
        turn: &Turn<'_>,
        id: AskId,
        keys: BTreeSet<IndexKey>,
        deadline: Millis,
        own: bool,
    ) {
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
                ends: turn.mono.plus(deadline.since(turn.now)),
                quorum,
                quorum_at: None,
                keys: asked,
                merged: BTreeMap::new(),
                seen: BTreeMap::new(),
                not_whole: BTreeSet::new(),
                misbehaved: BTreeSet::new(),
                shown: BTreeMap::new(),
                own,
            },
        );
        for (holder, keys) in by_holder {
            for part in keys.chunks(LOOKUP_KEYS_MAX) {
                self.open_lookup(turn, id, &holder, part.to_vec(), None);
            }
        }
    }

    fn open_lookup(
        &mut self,
        turn: &Turn<'_>,
        ask: AskId,
        holder: &OrgId,
        keys: Vec<IndexKey>,
        after: Option<(Cursor, usize)>,
    ) {
        let id = self.question();
        // The first sending is due now: pump_questions does it within this step.
        let lookup = Lookup {
            ask,
            holder: holder.clone(),
            keys,
            pages: after.as_ref().map_or(0, |(_, pages)| *pages),
            after: after.map(|(cursor, _)| cursor),
            attempt: 0,
            again: turn.mono,
        };
        self.asker.lookups.insert(id, lookup);
    }

    /// An answer to a lookup. Anything that was not asked of `from` is ignored.
    pub(crate) fn found(&mut self, turn: &mut Turn<'_>, from: &OrgId, id: u64, answer: Shown) {
        let anyone = self.config.has(Planted::AnswerOfAnyone);
        let asked = |lookup: &&Lookup| anyone || lookup.holder == *from;
        let Some(lookup) = self.asker.lookups.get(&id).filter(asked) else {
            return;
        };
        let from = &lookup.holder.clone();
        let (ask_id, keys) = (lookup.ask, lookup.keys.clone());
        let fits = lookup.goes_on(answer.next.as_ref());
        let pages = lookup.pages.saturating_add(1);
        let what = match self.examine(ask_id, &keys, &answer.records) {
            Ok(records) if fits => {
                self.take_answer(turn, id, from, &records, &answer, pages);
                return;
            }
            Ok(_) => Misbehaviour::Unfitting,
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

    /// Verifies every record of an answer.
    fn examine(
        &mut self,
        id: AskId,
        keys: &[IndexKey],
        records: &[Vec<SignedRecord>],
    ) -> Result<Vec<VerifiedRecord>, Misbehaviour> {
        if records.len() != keys.len() {
            return Err(Misbehaviour::Unfitting);
        }
        let mut verified_all = Vec::new();
        for (key, under) in keys.iter().zip(records) {
            for signed in under {
                let known = self.asker.asks.get(&id).and_then(|ask| ask.seen.get(signed));
                let verdict = match known {
                    Some(known) => Ok(known.clone()),
                    None => self.verify(signed),
                };
                match verdict {
                    Ok(verified) if verified.record().key == *key => verified_all.push(verified),
                    Ok(verified) if self.config.has(Planted::UnfittingAccepted) => verified_all.push(verified),
                    Ok(_) => return Err(Misbehaviour::Unfitting),
                    Err(error) if is_forgery(&error) => return Err(Misbehaviour::Forged),
                    // Its registry is not ours: the record has no owner here.
                    Err(_) => {}
                }
            }
        }
        Ok(verified_all)
    }

    fn take_answer(
        &mut self,
        turn: &Turn<'_>,
        id: u64,
        from: &OrgId,
        records: &[VerifiedRecord],
        answer: &Shown,
        pages: usize,
    ) {
        let last_wins = self.config.has(Planted::LastAnswerWins);
        let doubles = self.config.has(Planted::DuplicatesCounted);
        let lookup = self.asker.lookups.get(&id);
        let Some((ask_id, keys)) = lookup.map(|lookup| (lookup.ask, lookup.keys.clone())) else {
            return;
        };
        let Some(ask) = self.asker.asks.get_mut(&ask_id) else {
            return;
        };
        let fresh = records
            .iter()
            .filter(|one| !ask.seen.contains_key(one.signed()))
            .count();
        let fits = ask.seen.len().saturating_add(fresh) <= ASK_RECORDS_MAX
            && ask.shown.len().saturating_add(records.len()) <= ASK_RECORDS_MAX.saturating_mul(4);
        if fits {
            for verified in records {
                ask.shown
                    .insert((from.clone(), verified.record().id()), verified.record().sequence);
                if !ask.seen.contains_key(verified.signed()) {
                    ask.seen.insert(verified.signed().clone(), verified.clone());
                    ask.merge(verified.clone(), last_wins);
                }
            }
        }
        if answer.whole && fits {
            if !doubles {
                self.asker.lookups.remove(&id);
            }
            if let Some(next) = &answer.next {
                self.open_lookup(turn, ask_id, from, keys, Some((next.clone(), pages)));
                return;
            }
            for key in &keys {
                if let Some(asked) = ask.keys.get_mut(key) {
                    let second = !asked.whole.insert(from.clone());
                    asked.doubled = asked.doubled.saturating_add(usize::from(second && doubles));
                }
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
            self.open_lookup(turn, ask_id, from, left.to_vec(), None);
            self.open_lookup(turn, ask_id, from, right.to_vec(), None);
        } else if let Some(lookup) = self.asker.lookups.get_mut(&id) {
            lookup.again = turn
                .mono
                .plus(back_off(lookup.attempt, LOOKUP_RETRY_MS, LOOKUP_RETRY_MS_MAX));
        }
    }

    /// Sends what is due and closes what is answered or late.
    pub(crate) fn pump_questions(&mut self, turn: &mut Turn<'_>) {
        self.look_again(turn);
        loop {
            let due = self
                .asker
                .lookups
                .iter()
                .filter(|(_, lookup)| lookup.again <= turn.mono);
            let due: Vec<u64> = due.map(|(id, _)| *id).collect();
            if due.is_empty() {
                break;
            }
            for id in due {
                self.send_lookup(turn, id);
            }
        }
        let mut doubts = Doubts::default();
        let ids: Vec<AskId> = self.asker.asks.keys().copied().collect();
        for id in ids {
            self.close_if_done(turn, id, &mut doubts);
        }
    }

    fn send_lookup(&mut self, turn: &mut Turn<'_>, id: u64) {
        let Some(lookup) = self.asker.lookups.get_mut(&id) else {
            return;
        };
        lookup.again = turn
            .mono
            .plus(back_off(lookup.attempt, LOOKUP_RETRY_MS, LOOKUP_RETRY_MS_MAX));
        lookup.attempt = lookup.attempt.saturating_add(1);
        let (holder, keys, after) = (lookup.holder.clone(), lookup.keys.clone(), lookup.after.clone());
        if holder == self.config.me {
            let answer = self.look_up(turn, &keys, after.as_ref(), &holder);
            self.found(turn, &holder, id, answer);
        } else {
            turn.send(&holder, IndexMessage::Lookup { id, keys, after });
        }
    }

    fn close_if_done(&mut self, turn: &mut Turn<'_>, id: AskId, doubts: &mut Doubts) {
        let Some(ask) = self.asker.asks.get(&id) else {
            return;
        };
        let (mut complete, mut settled) = (true, true);
        for asked in ask.keys.values() {
            let answered = self.has_answer(turn.mono, ask, asked, doubts);
            complete &= answered;
            settled &= answered || ask.nobody_left(asked, &self.cut);
        }
        let exhausted = ask.exhausted(&self.cut);
        let Some(ask) = self.asker.asks.get_mut(&id) else {
            return;
        };
        if settled && ask.quorum_at.is_none() {
            ask.quorum_at = Some(turn.mono);
        } else if !settled {
            ask.quorum_at = None;
        }
        let waited = ask.quorum_at.is_some_and(|at| turn.mono >= at.plus(ANSWER_GRACE_MS));
        let late = turn.mono >= ask.ends && !self.config.has(Planted::DeadlineIgnored);
        let done = late || (settled && (waited || exhausted));
        if !done {
            return;
        }
        let Some(ask) = self.asker.asks.remove(&id) else { return };
        self.asker.lookups.retain(|_, lookup| lookup.ask != id);
        self.find_omissions(turn, &ask);
        if ask.own {
            return;
        }
        let as_of = ask.asked_at;
        let silent = if complete {
            Vec::new()
        } else {
            self.silent(turn.mono, &ask, doubts)
        };
        let records = self.shown(ask, turn.now);
        let outcome = if complete {
            Outcome::Complete { records, as_of }
        } else {
            Outcome::Partial { records, silent, as_of }
        };
        turn.emit(Effect::Answer { id, outcome });
    }

    /// Whether nothing that was acknowledged under a key can be missing.
    fn has_answer(&self, mono: Millis, ask: &Ask, asked: &Asked, doubts: &mut Doubts) -> bool {
        let count = asked.whole.len().saturating_add(asked.doubled);
        if count < ask.quorum {
            return false;
        }
        count >= asked.holders.len()
            || asked
                .whole
                .iter()
                .all(|holder| self.doubts(mono, holder, doubts).is_empty())
    }

    /// Owners that are unconfirmed at a holder, worked out once for each step.
    fn doubts<'a>(&self, mono: Millis, holder: &OrgId, doubts: &'a mut Doubts) -> &'a BTreeSet<OrgId> {
        doubts
            .entry(holder.clone())
            .or_insert_with(|| self.unconfirmed_at(mono, holder))
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

    /// Exactly the holders without a whole answer for a key that has no answer, and the owners that are unconfirmed
    /// at a quorum that answered.
    fn silent(&self, mono: Millis, ask: &Ask, doubts: &mut Doubts) -> Vec<(OrgId, Why)> {
        let mut names: BTreeSet<OrgId> = BTreeSet::new();
        let mut unconfirmed: BTreeSet<OrgId> = BTreeSet::new();
        for asked in ask.keys.values() {
            if self.has_answer(mono, ask, asked, doubts) {
                continue;
            }
            names.extend(asked.holders.iter().filter(|org| !asked.whole.contains(*org)).cloned());
            if asked.whole.len() >= ask.quorum {
                for holder in &asked.whole {
                    unconfirmed.extend(self.doubts(mono, holder, doubts).iter().cloned());
                }
            }
        }
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
        let mut silent: BTreeMap<OrgId, Why> = unconfirmed.into_iter().map(|org| (org, Why::Unconfirmed)).collect();
        let named = names.into_iter().filter(|org| !unnamed(org));
        silent.extend(named.map(|org| (org.clone(), why(&org))));
        silent.into_iter().collect()
    }
}
