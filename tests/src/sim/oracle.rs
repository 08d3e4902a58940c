//! The judge: its own truth, in its own order of operations.
//!
//! It numbers every operation by the true order in which the region's callers issued them, hides that
//! number in the sealed content, and compares answers by it. It reads no sequence, no expiry and no version
//! that the system computed: a judge that borrows its measure from the accused finds nothing.

use std::collections::{BTreeMap, BTreeSet};

use hie_node_federation::placement::placement;
use hie_node_federation::port::{AskId, Outcome, Why};
use hie_protocol::id::{IndexKey, OrgId, RecordHandle};
use hie_protocol::record::{IndexRecord, RecordContent, RecordId};
use hie_protocol::registry::{MemberRole, Registry};

use super::node::is_active;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Law {
    /// An acknowledged publish is in every later complete answer.
    Lost,
    /// No complete answer shows a version older than one acknowledged.
    Stale,
    /// No deleted record resurfaces after the deletion was acknowledged.
    Resurfaced,
    /// No record is answered that its owner did not sign.
    Forged,
    /// No record is shown to whom its label excludes.
    Excluded,
    /// A partial answer names exactly the silent.
    Silent,
    /// A complete answer had a read quorum for every key.
    Quorum,
    /// Each question is answered once, by its deadline.
    Unanswered,
    /// After the faults, every holder has every record, and the same.
    NotConverged,
    /// After the faults, every question is answered completely.
    NotHealed,
    /// A publish is acknowledged only when a write quorum has synced it.
    Thin,
    /// A record is answered only to who asked for its key.
    Unasked,
    /// No record is shown after its life.
    Expired,
    /// Who is out of the registry gets nothing after the bound.
    Removed,
    /// No storm of datagrams, whatever happens.
    Storm,
    /// Disks, memory and queues stay within their bounds.
    Bounded,
    /// A valid request is taken, and acknowledged once.
    Manners,
    /// No decision depends on another node's clock.
    Clock,
    /// Nobody is named for an omission but a member that omits.
    Slandered,
}

impl Law {
    /// Every law.
    pub const ALL: [Self; 19] = [
        Self::Lost,
        Self::Stale,
        Self::Resurfaced,
        Self::Forged,
        Self::Excluded,
        Self::Silent,
        Self::Quorum,
        Self::Unanswered,
        Self::NotConverged,
        Self::NotHealed,
        Self::Thin,
        Self::Unasked,
        Self::Expired,
        Self::Removed,
        Self::Storm,
        Self::Bounded,
        Self::Manners,
        Self::Clock,
        Self::Slandered,
    ];
}

/// A law that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which law.
    pub law: Law,
    /// True time, in milliseconds.
    pub at_ms: u64,
    /// What was seen.
    pub what: String,
}

/// One operation on one record, numbered by its place in the true order.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its number over the whole run, sealed into the content.
    pub number: u64,
    /// Whether it deletes.
    pub delete: bool,
    /// Who must not see it.
    pub excluded: Vec<OrgId>,
    /// When it was issued, in true milliseconds.
    pub issued_ms: u64,
    /// When its owner last signed a version with this content, in true milliseconds.
    pub signed_ms: u64,
    /// When it was acknowledged, as a step of the run.
    pub acked: Option<u64>,
    /// Whether its owner's clock was far off when it signed: then nobody need keep it.
    pub strayed: bool,
    /// Whether its owner lost its disk since: then nobody renews it.
    pub forsaken: bool,
}

impl Operation {
    /// An operation that is issued now.
    #[must_use]
    pub const fn new(number: u64, delete: bool, excluded: Vec<OrgId>, now_ms: u64) -> Self {
        Self {
            number,
            delete,
            excluded,
            issued_ms: now_ms,
            signed_ms: now_ms,
            acked: None,
            strayed: false,
            forsaken: false,
        }
    }
}

/// A question as the oracle saw it go out.
#[derive(Debug)]
struct Question {
    asker: usize,
    me: OrgId,
    asked: u64,
    registry: Registry,
    keys: Vec<IndexKey>,
    end_ms: u64,
    lookups: BTreeMap<u64, (OrgId, Vec<IndexKey>)>,
    whole: BTreeSet<(IndexKey, OrgId)>,
    tainted: BTreeSet<OrgId>,
    split: BTreeSet<u64>,
    must_complete: bool,
}

/// The oracle.
#[derive(Debug)]
pub struct Oracle {
    /// Operations of each record, in true order.
    pub records: BTreeMap<RecordId, Vec<Operation>>,
    questions: BTreeMap<AskId, Question>,
    /// Owners that were ever removed: their records may vanish.
    pub departed: BTreeSet<OrgId>,
    /// Records of which their owner signed two contents with one sequence: it may get what it deserves.
    pub equivocal: BTreeSet<RecordId>,
    /// What was found.
    pub violations: Vec<Violation>,
    /// Complete and partial answers judged.
    pub judged: (u64, u64),
    record_life_ms: u64,
    tombstone_life_ms: u64,
}

/// How far the oracle stays away from an expiry, in milliseconds.
const EXPIRY_MARGIN_MS: u64 = 20_000;
/// How long after its life a record may be shown, in milliseconds: clocks differ.
const SHOWN_MARGIN_MS: u64 = 35_000;
/// Effects of one step of one machine.
const EFFECTS_PER_STEP_MAX: usize = 1000;
/// How late an answer may come, in milliseconds: a clock may step while it is awaited.
const LATE_MS: u64 = 10_000;

/// The content of operation `number`.
#[must_use]
pub fn content(number: u64) -> Vec<u8> {
    [b"operation".as_slice(), &number.to_be_bytes()].concat()
}

/// The operation that a record's content names.
#[must_use]
pub fn number_in(record: &IndexRecord) -> Option<u64> {
    let RecordContent::Live(sealed) = &record.content else {
        return None;
    };
    let number = sealed.0.strip_prefix(b"operation".as_slice())?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

impl Oracle {
    /// An oracle for a region with these lives.
    #[must_use]
    pub const fn new(record_life_ms: u64, tombstone_life_ms: u64) -> Self {
        Self {
            records: BTreeMap::new(),
            questions: BTreeMap::new(),
            departed: BTreeSet::new(),
            equivocal: BTreeSet::new(),
            violations: Vec::new(),
            judged: (0, 0),
            record_life_ms,
            tombstone_life_ms,
        }
    }

    /// A law did not hold.
    pub fn violated(&mut self, law: Law, at_ms: u64, what: String) {
        self.violations.push(Violation { law, at_ms, what });
    }

    /// A member was named for leaving records out.
    pub fn named(&mut self, now_ms: u64, org: &OrgId, liar: Option<OrgId>) {
        if liar.as_ref() != Some(org) {
            self.violated(Law::Slandered, now_ms, format!("{org} left nothing out"));
        }
    }

    /// Whether one of these laws did not hold.
    #[must_use]
    pub fn has_broken(&self, laws: &[Law]) -> bool {
        self.violations.iter().any(|violation| laws.contains(&violation.law))
    }

    /// A caller has issued an operation.
    pub fn issued(&mut self, id: RecordId, operation: Operation) {
        self.records.entry(id).or_default().push(operation);
    }

    /// A caller was told that its operations are durable.
    pub fn acknowledged(&mut self, ids: &[(RecordId, u64)], step: u64) {
        for (id, number) in ids {
            for operation in self.records.get_mut(id).into_iter().flatten() {
                if operation.number == *number {
                    operation.acked = Some(step);
                }
            }
        }
    }

    /// The owner signs a version anew.
    pub fn renewed(&mut self, record: &IndexRecord, now_ms: u64) {
        let number = number_in(record);
        for operation in self.records.get_mut(&record.id()).into_iter().flatten() {
            if Some(operation.number) == number {
                operation.signed_ms = now_ms;
            }
        }
    }

    /// When what a record says was last signed, in true milliseconds, and whether it says that it is deleted.
    #[must_use]
    pub fn signed_ms(&self, record: &IndexRecord) -> Option<(u64, bool)> {
        let operations = self.records.get(&record.id())?;
        let of = |one: &&Operation| match number_in(record) {
            Some(number) => one.number == number,
            None => one.delete,
        };
        let last = operations.iter().rev().find(of)?;
        Some((last.signed_ms, last.delete))
    }

    /// An owner lost its disk: what it had published is renewed no more.
    pub fn forsaken(&mut self, org: &OrgId) {
        let own = self.records.iter_mut().filter(|(id, _)| id.owner == *org);
        for operation in own.flat_map(|(_, operations)| operations) {
            operation.forsaken = true;
        }
    }

    /// Whether a record may be gone: expired, deleted, or its owner is out.
    #[must_use]
    pub fn may_vanish(&self, id: &RecordId, now_ms: u64) -> bool {
        let ends = |one: &Operation| now_ms + EXPIRY_MARGIN_MS > one.issued_ms + self.record_life_ms;
        let operations = self.records.get(id).map(Vec::as_slice).unwrap_or_default();
        self.departed.contains(&id.owner)
            || self.equivocal.contains(id)
            || operations.iter().any(|one| ends(one) || one.strayed || one.forsaken)
    }

    /// The records under a key.
    fn under(&self, key: &IndexKey) -> impl Iterator<Item = (&RecordId, &Vec<Operation>)> {
        let key = *key;
        let first = RecordId {
            key,
            owner: OrgId::parse("urn:oid:0.0").expect("the least of all names"),
            handle: RecordHandle::new([0; 16]),
        };
        self.records.range(first..).take_while(move |(id, _)| id.key == key)
    }

    /// Whether a lookup of this number went to this holder.
    #[must_use]
    pub fn is_asked(&self, asker: usize, id: u64, holder: &OrgId) -> bool {
        let mut open = self.questions.values().filter(|question| question.asker == asker);
        open.any(|question| question.lookups.get(&id).is_some_and(|(org, _)| org == holder))
    }

    /// Whether an open question asks for a key.
    #[must_use]
    pub fn asks_for(&self, ask: Option<AskId>, key: &IndexKey) -> bool {
        let question = ask.and_then(|ask| self.questions.get(&ask));
        question.is_some_and(|question| question.keys.contains(key))
    }

    /// A machine gave so many effects in one step.
    pub fn sized(&mut self, now_ms: u64, at: usize, effects: usize) {
        if effects > EFFECTS_PER_STEP_MAX {
            self.violated(
                Law::Bounded,
                now_ms,
                format!("node {at} gave {effects} effects in one step"),
            );
        }
    }

    /// A question is put.
    #[expect(clippy::too_many_arguments, reason = "the facts of one question")]
    pub fn asked(
        &mut self,
        id: AskId,
        asker: usize,
        me: OrgId,
        step: u64,
        registry: Registry,
        keys: Vec<IndexKey>,
        end_ms: u64,
        must_complete: bool,
    ) {
        self.questions.insert(
            id,
            Question {
                asker,
                me,
                asked: step,
                registry,
                keys,
                end_ms,
                lookups: BTreeMap::new(),
                whole: BTreeSet::new(),
                tainted: BTreeSet::new(),
                split: BTreeSet::new(),
                must_complete,
            },
        );
    }

    /// A lookup left the asker, within the step of `cause`.
    pub fn lookup(&mut self, cause: Option<AskId>, asker: usize, id: u64, to: &OrgId, keys: &[IndexKey]) {
        if self
            .questions
            .values()
            .any(|question| question.asker == asker && question.lookups.contains_key(&id))
        {
            return;
        }
        if let Some(question) = cause.and_then(|ask| self.questions.get_mut(&ask)) {
            question.lookups.insert(id, (to.clone(), keys.to_vec()));
        }
    }

    /// The question that a lookup serves.
    #[must_use]
    pub fn cause(&self, asker: usize, id: u64) -> Option<AskId> {
        let mut open = self.questions.iter();
        open.find(|(_, question)| question.asker == asker && question.lookups.contains_key(&id))
            .map(|(ask, _)| *ask)
    }

    /// An answer of a holder reached the asker.
    pub fn delivered(&mut self, asker: usize, from: &OrgId, id: u64, whole: bool, tainted: bool) {
        let Some(ask) = self.cause(asker, id) else { return };
        let Some(question) = self.questions.get_mut(&ask) else {
            return;
        };
        let Some((holder, keys)) = question.lookups.get(&id).cloned() else {
            return;
        };
        if holder != *from || question.tainted.contains(from) || question.split.contains(&id) {
            return;
        }
        if question.whole.contains(&(keys[0], holder.clone())) {
            return;
        }
        if tainted {
            question.tainted.insert(holder.clone());
            question.whole.retain(|(_, org)| *org != holder);
        } else if whole {
            question.whole.extend(keys.into_iter().map(|key| (key, holder.clone())));
        } else if keys.len() > 1 {
            question.split.insert(id);
        }
    }

    /// The asker crashed: its questions get no answer.
    pub fn crashed(&mut self, node: usize) {
        self.questions.retain(|_, question| question.asker != node);
    }

    /// The caller got its answer.
    pub fn answered(&mut self, id: AskId, outcome: &Outcome, now_ms: u64, told_down: &BTreeSet<OrgId>) {
        let Some(question) = self.questions.remove(&id) else {
            self.violated(
                Law::Unanswered,
                now_ms,
                format!("{id:?} was answered twice or never asked"),
            );
            return;
        };
        let records: Vec<IndexRecord> = match outcome {
            Outcome::Complete { records, .. } | Outcome::Partial { records, .. } => {
                records.iter().map(|verified| verified.record().clone()).collect()
            }
        };
        self.judge_records(&question, &records, now_ms);
        match outcome {
            Outcome::Complete { .. } => {
                self.judged.0 += 1;
                self.judge_complete(&question, &records, now_ms);
            }
            Outcome::Partial { silent, .. } => {
                self.judged.1 += 1;
                self.judge_partial(&question, silent, now_ms);
                self.judge_reasons(&question, silent, told_down, now_ms);
            }
        }
    }

    /// Every record of any answer: signed by its owner, and not for others' eyes.
    fn judge_records(&mut self, question: &Question, records: &[IndexRecord], now_ms: u64) {
        for record in records {
            let number = number_in(record);
            let operations = self.records.get(&record.id()).map(Vec::as_slice).unwrap_or_default();
            match operations.iter().find(|operation| Some(operation.number) == number) {
                None => {
                    let what = format!("{:?} at {} was never issued", record.id(), question.me);
                    self.violated(Law::Forged, now_ms, what);
                }
                Some(operation) if operation.excluded.contains(&question.me) => {
                    let what = format!("{:?} shown to {}", record.id(), question.me);
                    self.violated(Law::Excluded, now_ms, what);
                }
                Some(operation) if operation.signed_ms + self.record_life_ms + SHOWN_MARGIN_MS < now_ms => {
                    if !operation.strayed {
                        let what = format!("{:?} shown at {} after its life", record.id(), question.me);
                        self.violated(Law::Expired, now_ms, what);
                    }
                }
                Some(_) => {}
            }
            if !question.keys.contains(&record.key) {
                let what = format!("{:?} shown at {} to another question", record.id(), question.me);
                self.violated(Law::Unasked, now_ms, what);
            }
        }
    }

    /// The reason beside the name: whom the node was told to be out of reach, and whom not.
    fn judge_reasons(&mut self, question: &Question, silent: &[(OrgId, Why)], told: &BTreeSet<OrgId>, now_ms: u64) {
        for (org, why) in silent {
            let fits = match why {
                Why::NoAnswer => !told.contains(org),
                Why::Unreachable => told.contains(org),
                Why::Left => self.departed.contains(org),
                Why::NotWhole | Why::Misbehaved | Why::Unconfirmed => true,
            };
            if !fits {
                let what = format!("{org} named {why:?} at {}", question.me);
                self.violated(Law::Silent, now_ms, what);
            }
        }
    }

    fn judge_complete(&mut self, question: &Question, records: &[IndexRecord], now_ms: u64) {
        let mut found = Vec::new();
        for (id, operations) in question.keys.iter().flat_map(|key| self.under(key)) {
            if self.equivocal.contains(id) {
                continue;
            }
            let Some(at) = operations
                .iter()
                .rposition(|one| one.acked.is_some_and(|step| step < question.asked))
            else {
                continue;
            };
            let acked = &operations[at];
            let hidden = |one: &Operation| one.excluded.contains(&question.me);
            let shown = records.iter().find(|record| record.id() == *id).and_then(number_in);
            let place = shown.and_then(|number| operations.iter().position(|one| one.number == number));
            match place {
                Some(place) if place < at && !operations[place..].iter().any(hidden) => {
                    let law = if acked.delete { Law::Resurfaced } else { Law::Stale };
                    found.push((
                        law,
                        format!("{id:?}: operation {place} shown after {at} was acknowledged"),
                    ));
                }
                Some(_) => {}
                None => {
                    let may_vanish = operations[at..].iter().any(|one| one.delete || hidden(one))
                        || now_ms + EXPIRY_MARGIN_MS > acked.issued_ms + self.record_life_ms
                        || acked.strayed
                        || acked.forsaken
                        || self.departed.contains(&id.owner)
                        || !is_active(&question.registry, &id.owner);
                    if !may_vanish {
                        found.push((
                            Law::Lost,
                            format!("{id:?}: operation {at} is not shown to {}", question.me),
                        ));
                    }
                }
            }
        }
        let enough = question.keys.iter().all(|key| self.could_complete(question, key, true));
        if !enough {
            found.push((Law::Quorum, format!("complete at {} without a quorum", question.me)));
        }
        for (law, what) in found {
            self.violated(law, now_ms, what);
        }
    }

    fn could_complete(&self, question: &Question, key: &IndexKey, local: bool) -> bool {
        let holders = placement(key, &question.registry);
        let count = holders
            .iter()
            .filter(|org| {
                if **org == question.me {
                    local
                } else {
                    question.whole.contains(&(*key, (*org).clone()))
                }
            })
            .count();
        let all = question.registry.with_role(MemberRole::IndexHolder).count();
        count >= question.registry.policy.read_quorum_of(all)
    }

    /// The oracle does not see what the asker's own copy said, nor which owners the beats leave unconfirmed: any
    /// reading of both that fits is enough.
    fn judge_partial(&mut self, question: &Question, silent: &[(OrgId, Why)], now_ms: u64) {
        let named: BTreeSet<OrgId> = silent
            .iter()
            .filter(|(_, why)| *why != Why::Unconfirmed)
            .map(|(org, _)| org.clone())
            .collect();
        let doubts = silent.iter().any(|(_, why)| *why == Why::Unconfirmed);
        let keys = question.keys.len();
        let fits = (0..1_u32 << (2 * keys)).any(|readings| {
            let mut expected = BTreeSet::new();
            let (mut open, mut below) = (false, false);
            for (at, key) in question.keys.iter().enumerate() {
                let local = readings >> at & 1 == 1;
                let doubted = readings >> (keys + at) & 1 == 1;
                let missing: Vec<OrgId> = placement(key, &question.registry)
                    .into_iter()
                    .filter(|org| {
                        if *org == question.me {
                            !local
                        } else {
                            !question.whole.contains(&(*key, org.clone()))
                        }
                    })
                    .collect();
                let quorum = self.could_complete(question, key, local);
                if missing.is_empty() || (quorum && !doubted) {
                    continue;
                }
                below |= !quorum;
                open = true;
                expected.extend(missing);
            }
            // A holder that is silent itself is named as that, not as an unconfirmed owner.
            open && expected == named && (below || doubts || !expected.is_empty())
        });
        if !fits {
            self.violated(
                Law::Silent,
                now_ms,
                format!("at {} the silent are not {named:?}", question.me),
            );
        }
        if question.must_complete {
            self.violated(
                Law::NotHealed,
                now_ms,
                format!("at {} still silent: {silent:?}", question.me),
            );
        }
    }

    /// Questions that should have been answered by now.
    pub fn overdue(&mut self, now_ms: u64) {
        let late: Vec<AskId> = self
            .questions
            .iter()
            .filter(|(_, one)| one.end_ms + LATE_MS < now_ms)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.questions.remove(&id);
            self.violated(Law::Unanswered, now_ms, format!("{id:?} has no answer"));
        }
    }

    /// After the faults: `held` gives, for each holder of a record, what its disk has.
    pub fn converged(&mut self, now_ms: u64, held: impl Fn(&RecordId) -> Vec<(OrgId, Option<IndexRecord>)>) {
        let mut found = Vec::new();
        for (id, operations) in &self.records {
            let Some(at) = operations.iter().rposition(|one| one.acked.is_some()) else {
                continue;
            };
            let forgotten = operations[at..]
                .iter()
                .any(|one| one.delete && now_ms + EXPIRY_MARGIN_MS > one.issued_ms + self.tombstone_life_ms);
            let loose = operations.iter().any(|one| one.strayed || one.forsaken) || self.equivocal.contains(id);
            if self.departed.contains(&id.owner) || forgotten || loose {
                continue;
            }
            let copies = held(id);
            for (org, copy) in &copies {
                let fresh = copy.as_ref().is_some_and(|record| match number_in(record) {
                    Some(number) => operations[at..].iter().any(|one| one.number == number),
                    None => record.is_tombstone() && operations[at..].iter().any(|one| one.delete),
                });
                if !fresh {
                    found.push(format!("{id:?} is missing or old at {org}"));
                }
            }
            if copies
                .windows(2)
                .any(|pair| pair[0].1.as_ref().map(number_in) != pair[1].1.as_ref().map(number_in))
            {
                found.push(format!("{id:?} differs between its holders"));
            }
        }
        for what in found {
            self.violated(Law::NotConverged, now_ms, what);
        }
    }
}
