//! The owner: a durable outbox that delivers every own record to all its holders, renews it in time, and
//! tells the caller as soon as a write quorum has it.
//!
//! ```text
//! Publish -> Persist(own, outbox) -> Persisted -> Store to each holder -> Stored -> W of R -> Published
//!                                                      ^---- again with back-off until each holds it
//! ```
//!
//! The outbox lives in a table, not in memory: memory holds the open publishes and one batch per holder.

use std::collections::{BTreeMap, BTreeSet};

use hie_protocol::id::{Millis, OrgId, Sequence};
use hie_protocol::message::{IndexMessage, STORE_RECORDS_V1_MAX, StoreOutcome};
use hie_protocol::record::{IndexRecord, SignedRecord, VerifiedRecord};
use hie_protocol::registry::{RegionPolicy, Registry, Standing};

use crate::config::{
    CLOCK_SKEW_MS_MAX, Config, MESSAGE_RECORD_BYTES_MAX, PLACE_RECORDS_PER_CHORE_MAX, PUBLISH_RECORDS_MAX,
    PUBLISHES_OPEN_MAX, Planted, RENEW_RECORDS_PER_CHORE_MAX, RENEW_RETRY_MS, RENEWALS_OPEN_MAX, STORE_RETRY_MS,
    STORE_RETRY_MS_MAX,
};
use crate::machine::{Federation, Turn};
use crate::port::{Decline, Effect, PublishId, RequestId};
use crate::table::{
    After, Entry, Kept, RecordKey, Table, index_key, lane_key, lane_prefix, record_key, timed, untimed,
};

mod lane;

use lane::Lane;

/// Pause between two rounds of placing, in milliseconds.
const PLACE_PAUSE_MS: u64 = 20;

/// What a holder said about one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Vote {
    /// It does not place the record.
    Misplaced,
    /// It has synced this version or a later one.
    Held,
}

/// A record of an open publish and who has it.
#[derive(Debug)]
struct Need {
    sequence: Sequence,
    /// Whether the outbox entry is durable here.
    durable: bool,
    votes: BTreeMap<OrgId, Vote>,
}

/// The owner's part of the state.
#[derive(Debug, Default)]
pub(crate) struct Owner {
    open: BTreeMap<PublishId, BTreeMap<RecordKey, Need>>,
    waiting: BTreeMap<RecordKey, BTreeSet<PublishId>>,
    pub(crate) lanes: BTreeMap<OrgId, Lane>,
    renewing: BTreeMap<RecordKey, Millis>,
    /// Where the placing of own records stands, and when it goes on.
    placing: Option<(Vec<u8>, Millis)>,
}

/// The successor of a record that only prolongs its life: same content, next sequence, later expiry.
#[must_use]
pub fn renewal(record: &IndexRecord, sequence: Sequence, now: Millis, policy: &RegionPolicy) -> IndexRecord {
    let expires = now.plus(policy.record_life_ms).max(record.expires);
    IndexRecord {
        sequence,
        expires,
        ..record.clone()
    }
}

/// The wait before attempt number `attempt` is repeated.
pub(crate) fn back_off(attempt: u32, first: u64, most: u64) -> u64 {
    first
        .saturating_mul(1_u64.checked_shl(attempt.min(16)).unwrap_or(u64::MAX))
        .min(most)
}

impl Owner {
    /// Starts with the outbox as it was kept.
    pub(crate) fn restore(config: &Config, registry: &Registry, _kept: &dyn Kept) -> Self {
        let mut owner = Self {
            placing: Some((Vec::new(), Millis(0))),
            ..Self::default()
        };
        for member in registry.active().filter(|member| member.org != config.me) {
            owner.lanes.insert(member.org.clone(), Lane::with_backlog());
        }
        owner
    }

    /// Earliest time at which something is due.
    pub(crate) fn next_timer(&self) -> Option<Millis> {
        let lanes = self.lanes.values().filter_map(Lane::due);
        lanes.chain(self.placing.as_ref().map(|(_, at)| *at)).min()
    }

    /// A channel opened: what waits for that member goes at once.
    pub(crate) fn hurry(&mut self, org: &OrgId, now: Millis) {
        if let Some(lane) = self.lanes.get_mut(org) {
            lane.hurry(now);
        }
    }
}

impl Federation {
    /// Takes a publish: outbox first, then holders.
    pub(crate) fn publish(&mut self, turn: &mut Turn<'_>, id: PublishId, records: &[VerifiedRecord]) {
        if let Err(why) = self.admit(turn, id, records) {
            turn.emit(Effect::Declined {
                request: RequestId::Publish(id),
                why,
            });
            return;
        }
        let mut needs = BTreeMap::new();
        let mut written = Vec::new();
        for verified in records {
            let key = record_key(&verified.record().id());
            let sequence = verified.record().sequence;
            self.own(turn, &key, verified);
            self.owner.waiting.entry(key.clone()).or_default().insert(id);
            needs.insert(
                key.clone(),
                Need {
                    sequence,
                    durable: false,
                    votes: BTreeMap::new(),
                },
            );
            written.push((key, sequence));
        }
        self.owner.open.insert(id, needs);
        self.after_sync(turn, After::Publish(written));
    }

    fn admit(&self, turn: &Turn<'_>, id: PublishId, records: &[VerifiedRecord]) -> Result<(), Decline> {
        if records.is_empty() || records.len() > PUBLISH_RECORDS_MAX {
            return Err(Decline::Size);
        }
        if self.owner.open.contains_key(&id) {
            return Err(Decline::IdInUse);
        }
        if self.owner.open.len() >= PUBLISHES_OPEN_MAX {
            return Err(Decline::Busy);
        }
        let mut keys = BTreeSet::new();
        for verified in records {
            let record = verified.record();
            if record.owner != self.config.me {
                return Err(Decline::NotOwn);
            }
            let key = record_key(&record.id());
            if let Some(before) = self.own_entry(turn, &key) {
                let grows = record.sequence > before.sequence || self.config.has(Planted::WallClockVersions);
                let outlives = !record.is_tombstone() || record.expires >= before.expires;
                if !grows || !outlives {
                    return Err(Decline::Order);
                }
            }
            if !keys.insert(key) {
                return Err(Decline::Size);
            }
        }
        Ok(())
    }

    /// Records signed anew come back.
    pub(crate) fn renewed(&mut self, turn: &mut Turn<'_>, records: &[(Sequence, VerifiedRecord)]) {
        let mut written = Vec::new();
        for (of, verified) in records {
            let record = verified.record();
            let key = record_key(&record.id());
            self.owner.renewing.remove(&key);
            let current = self.own_entry(turn, &key).is_some_and(|entry| entry.sequence == *of);
            let fits = record.owner == self.config.me && record.sequence > *of && !record.is_tombstone();
            if (current || self.config.has(Planted::RenewalOvertakes)) && fits {
                self.own(turn, &key, verified);
                written.push((key, record.sequence));
            }
        }
        if !written.is_empty() {
            self.after_sync(turn, After::Publish(written));
        }
    }

    /// Writes an own version: own table, due time, outbox of each other holder, own copy.
    fn own(&mut self, turn: &mut Turn<'_>, key: &RecordKey, verified: &VerifiedRecord) {
        let entry = Entry::of(verified);
        if let Some(before) = self.own_entry(turn, key) {
            self.ledger.write(Table::OwnDue, timed(self.due(&before), key), None);
        }
        self.ledger
            .write(Table::OwnDue, timed(self.due(&entry), key), Some(Vec::new()));
        self.ledger.write(Table::Own, key.clone(), Some(entry.encode()));
        let holders = self
            .members
            .current()
            .map(|set| set.place(&verified.record().key))
            .unwrap_or_default();
        for holder in holders {
            if holder == self.config.me {
                let _ = self.hold(turn, verified);
            } else {
                self.ledger
                    .write(Table::Outbox, lane_key(&holder, key), Some(Vec::new()));
            }
        }
    }

    /// When an own version needs attention: a live one at half its life, a tombstone at its end.
    fn due(&self, entry: &Entry) -> Millis {
        if entry.tombstone {
            entry.expires.plus(CLOCK_SKEW_MS_MAX.saturating_mul(2))
        } else {
            Millis(entry.expires.0.saturating_sub(self.registry.policy.record_life_ms / 2))
        }
    }

    pub(crate) fn own_entry(&self, turn: &Turn<'_>, key: &[u8]) -> Option<Entry> {
        self.ledger
            .get(turn.kept, Table::Own, key)
            .and_then(|bytes| Entry::decode(&bytes))
    }

    /// Own versions became durable here: they may travel now, and the own copy counts.
    pub(crate) fn dispatch(&mut self, turn: &mut Turn<'_>, records: Vec<(RecordKey, Sequence)>) {
        let me = self.config.me.clone();
        for (key, sequence) in records {
            let Some(place) = index_key(&key) else { continue };
            let urgent = self.owner.waiting.contains_key(&key);
            for id in self.owner.waiting.get(&key).into_iter().flatten() {
                let need = self.owner.open.get_mut(id).and_then(|needs| needs.get_mut(&key));
                if let Some(need) = need.filter(|need| need.sequence <= sequence) {
                    need.durable = true;
                }
            }
            let mut targets = BTreeSet::new();
            for set in &self.members.known.sets {
                targets.extend(set.place(&place));
            }
            for target in &targets {
                if let Some(lane) = self.owner.lanes.get_mut(target) {
                    lane.add(&key, urgent);
                }
            }
            if !targets.contains(&me) {
                continue;
            }
            if self.members.current().is_some_and(|set| set.places_at(&place, &me)) {
                let held = self
                    .ledger
                    .get(turn.kept, Table::Held, &key)
                    .and_then(|bytes| Entry::decode(&bytes));
                if held.is_some_and(|entry| entry.sequence >= sequence) {
                    self.vote(turn, &me, &key, sequence, Vote::Held);
                }
            } else {
                self.vote(turn, &me, &key, sequence, Vote::Misplaced);
            }
        }
    }

    /// A holder has spoken about one record: perhaps a publish is now acknowledged.
    fn vote(&mut self, turn: &mut Turn<'_>, from: &OrgId, key: &RecordKey, sequence: Sequence, vote: Vote) {
        let Some(publishes) = self.owner.waiting.get(key).cloned() else {
            return;
        };
        for id in publishes {
            let Some(need) = self.owner.open.get_mut(&id).and_then(|needs| needs.get_mut(key)) else {
                continue;
            };
            if vote == Vote::Held && need.sequence > sequence {
                continue;
            }
            let said = need.votes.entry(from.clone()).or_insert(vote);
            *said = (*said).max(vote);
            self.settle(turn, id, key);
        }
    }

    /// Closes the record of a publish, and the publish, when every holder set has its quorum.
    fn settle(&mut self, turn: &mut Turn<'_>, id: PublishId, key: &RecordKey) {
        let Some(needs) = self.owner.open.get(&id) else { return };
        let Some(need) = needs.get(key) else { return };
        if !need.durable || !self.has_quorums(key, &need.votes) {
            return;
        }
        if let Some(needs) = self.owner.open.get_mut(&id) {
            needs.remove(key);
            if needs.is_empty() {
                self.owner.open.remove(&id);
                turn.emit(Effect::Published { id });
            }
        }
        if let Some(publishes) = self.owner.waiting.get_mut(key) {
            publishes.remove(&id);
            if publishes.is_empty() {
                self.owner.waiting.remove(key);
                let forgets = self.config.has(Planted::OutboxForgotten);
                self.owner
                    .lanes
                    .values_mut()
                    .filter(|_| !forgets)
                    .for_each(|lane| lane.relax(key));
            }
        }
    }

    /// Whether the votes are a write quorum of the set in force and of every remembered one.
    fn has_quorums(&self, key: &RecordKey, votes: &BTreeMap<OrgId, Vote>) -> bool {
        let Some(place) = index_key(key) else { return false };
        let version = self.members.version();
        let forgets = self.config.has(Planted::EarlierSetsIgnored);
        let mut sets = self.members.known.sets.iter();
        sets.all(|set| {
            let in_force = set.version == version;
            let holders = set.place(&place);
            let active = holders.iter().filter(|org| self.is_active(org));
            let (mut reachable, mut voted) = (0_u64, 0_u64);
            for org in active {
                reachable = reachable.saturating_add(1);
                let counts = match votes.get(org) {
                    Some(Vote::Held) => true,
                    Some(Vote::Misplaced) => !in_force || self.config.has(Planted::MisplacedCounts),
                    None => false,
                };
                voted = voted.saturating_add(u64::from(counts));
            }
            let needed = if in_force {
                set.write_quorum
            } else {
                set.write_quorum.min(reachable)
            };
            let spared = u64::from(self.config.has(Planted::QuorumOffByOne));
            voted.saturating_add(spared) >= needed || (forgets && !in_force)
        })
    }

    pub(crate) fn is_active(&self, org: &OrgId) -> bool {
        self.registry
            .member(org)
            .is_some_and(|member| member.standing == Standing::Active)
    }

    /// The registry changed: lanes follow the members, own records are placed anew, quorums are counted anew.
    pub(crate) fn owner_registry_changed(&mut self, turn: &mut Turn<'_>) {
        let me = self.config.me.clone();
        let active: BTreeSet<OrgId> = self
            .registry
            .active()
            .map(|member| member.org.clone())
            .filter(|org| *org != me)
            .collect();
        self.owner.lanes.retain(|org, _| active.contains(org));
        for org in active {
            self.owner
                .lanes
                .entry(org)
                .or_insert_with(Lane::with_backlog)
                .announce_anew();
        }
        self.owner.placing = Some((Vec::new(), Millis(0)));
        let open = self.owner.open.values().flatten().filter(|(_, need)| need.durable);
        let open: Vec<(RecordKey, Sequence)> = open.map(|(key, need)| (key.clone(), need.sequence)).collect();
        self.dispatch(turn, open);
    }

    /// Places own records under the set in force, a bounded number at a time.
    fn place_own(&mut self, turn: &mut Turn<'_>) {
        let Some((cursor, at)) = self.owner.placing.clone() else {
            return;
        };
        let Some(current) = self.members.current().cloned() else {
            return;
        };
        if at > turn.now {
            return;
        }
        let before = self.members.known.placed.clone();
        let like = before.as_ref().is_some_and(|set| set.places_like(&current))
            || self.config.has(Planted::RebalanceForgotten);
        let page = if like {
            Vec::new()
        } else {
            self.ledger
                .scan(turn.kept, Table::Own, &[], &cursor, PLACE_RECORDS_PER_CHORE_MAX)
        };
        for (key, value) in &page {
            let Some(place) = index_key(key) else { continue };
            let had = before.as_ref().map(|set| set.place(&place)).unwrap_or_default();
            for holder in current.place(&place).into_iter().filter(|holder| !had.contains(holder)) {
                if holder != self.config.me {
                    self.ledger
                        .write(Table::Outbox, lane_key(&holder, key), Some(Vec::new()));
                    if let Some(lane) = self.owner.lanes.get_mut(&holder) {
                        lane.add(key, false);
                    }
                } else if let Some(Ok(verified)) = Entry::decode(value).map(|entry| self.verify(&entry.signed)) {
                    let _ = self.hold(turn, &verified);
                    if self.owner.waiting.contains_key(key) {
                        self.after_sync(turn, After::Publish(vec![(key.clone(), verified.record().sequence)]));
                    }
                }
            }
        }
        match page.last() {
            Some((last, _)) if page.len() == PLACE_RECORDS_PER_CHORE_MAX => {
                let next = [last.as_slice(), &[0]].concat();
                self.owner.placing = Some((next, turn.now.plus(PLACE_PAUSE_MS)));
            }
            _ => {
                self.owner.placing = None;
                let version = current.version;
                self.members.set_placed(current, &mut self.ledger);
                let me = self.config.me.clone();
                self.members.hear(&me, version, &mut self.ledger);
                self.members.review(&self.registry, turn.now, &mut self.ledger);
            }
        }
    }

    /// Renewals and the end of tombstones.
    pub(crate) fn own_chores(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        self.owner.renewing.retain(|_, retry| *retry > now);
        let most = RENEW_RECORDS_PER_CHORE_MAX.saturating_add(self.owner.renewing.len());
        let due = self.ledger.scan(turn.kept, Table::OwnDue, &[], &[], most);
        let mut renew = Vec::new();
        for (place, _) in due {
            let Some((at, key)) = untimed(&place) else { continue };
            if at > now {
                break;
            }
            let key = key.to_vec();
            let entry = self.own_entry(turn, &key);
            match entry {
                Some(entry) if !entry.tombstone && self.due(&entry) <= now => {
                    let busy = self.owner.renewing.contains_key(&key);
                    if !busy && self.owner.renewing.len() < RENEWALS_OPEN_MAX {
                        renew.extend(entry.record());
                        self.owner.renewing.insert(key, now.plus(RENEW_RETRY_MS));
                    }
                }
                Some(entry) if !entry.tombstone => {
                    // The region changed the record life: the record is due at another time now.
                    self.ledger.write(Table::OwnDue, place, None);
                    self.ledger
                        .write(Table::OwnDue, timed(self.due(&entry), &key), Some(Vec::new()));
                }
                Some(_) => {
                    self.ledger.write(Table::OwnDue, place, None);
                    for holder in self.owner.lanes.keys() {
                        self.ledger.write(Table::Outbox, lane_key(holder, &key), None);
                    }
                    self.ledger.write(Table::Own, key, None);
                }
                None => self.ledger.write(Table::OwnDue, place, None),
            }
        }
        if !renew.is_empty() {
            turn.emit(Effect::Renew { records: renew });
        }
    }
}
