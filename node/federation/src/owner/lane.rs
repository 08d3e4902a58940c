//! A lane: the way of own records to one holder.
//!
//! ```text
//! urgent (open publishes) --.
//!                            >-- batches in flight (window) --> Stored --> out of the outbox
//! outbox table, in passes --'
//! ```
//!
//! Several batches are in flight; the window grows with each answer and halves when one stays out, so that a
//! slow holder sets the pace. A pass walks the outbox of the holder once in key order; when everything that was
//! launched until its end has been confirmed, everything enqueued before its start is confirmed. From the last
//! such pass a lane knows how old its oldest unconfirmed record can be, in constant memory.

use super::{
    BTreeMap, BTreeSet, Entry, Federation, IndexMessage, MESSAGE_RECORD_BYTES_MAX, Millis, OrgId, Planted, RecordKey,
    STORE_RECORDS_MAX, STORE_RECORDS_V1_MAX, STORE_RETRY_MS, STORE_RETRY_MS_MAX, Sequence, SignedRecord, StoreOutcome,
    Table, Turn, V2, Vote, back_off, index_key, lane_key, lane_prefix,
};
use crate::config::{LAG_MS_MAX, STORES_IN_FLIGHT_MAX};

/// Pages of the backlog read for one batch.
const PAGES_PER_BATCH_MAX: usize = 4;
/// Passes ended in one turn.
const PASSES_PER_TURN_MAX: usize = 2;
/// Each so many batches, the backlog comes before what is urgent.
const BACKLOG_TURN: u64 = 4;

/// A batch on its way.
#[derive(Debug)]
struct Flight {
    items: Vec<(RecordKey, Sequence)>,
    records: Vec<SignedRecord>,
    attempt: u32,
    sent: Millis,
    again: Millis,
}

/// One walk through the outbox of a holder.
#[derive(Debug)]
struct Pass {
    started: Millis,
    /// Registry version under which everything was placed when it started; none while placing went on.
    version: Option<u64>,
    cursor: Vec<u8>,
    /// Once the end is reached: every flight with a lower id belongs to the pass.
    barrier: Option<u64>,
    /// Whether it left something behind.
    leftover: bool,
    /// Whether something may have come in behind the cursor.
    dirty: bool,
}

/// A holder named as behind in every beat since `first`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Naming {
    /// First beat of the unbroken run.
    pub first: u64,
    /// When enough members had shown that they know.
    pub known: Option<Millis>,
    /// Since when publishes wait for this holder again: what came before must be confirmed before the run ends.
    pub easing: Option<Millis>,
}

/// The way to one holder.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    urgent: BTreeSet<RecordKey>,
    flights: BTreeMap<u64, Flight>,
    flying: BTreeSet<RecordKey>,
    window: usize,
    batches: u64,
    round_trip_ms: u64,
    /// Whether the outbox table is to be walked.
    backlog: bool,
    pass: Option<Pass>,
    /// No record enqueued before this time is unconfirmed; none when nothing at all is. Like every time of a pass
    /// and a naming it is read from the machine's own clock, which no step of the calendar moves back.
    stale_since: Option<Millis>,
    pause: Option<Millis>,
    rejected: u32,
    /// Version under which everything placed there was confirmed.
    clean: Option<u64>,
    /// Version that the holder has confirmed as announced.
    announced: Option<u64>,
    announcing: Option<(u32, Millis)>,
    pub(crate) naming: Option<Naming>,
}

impl Lane {
    /// A lane whose outbox table may hold something; `since` when it does.
    pub(crate) fn with_backlog(since: Option<Millis>) -> Self {
        Self {
            backlog: true,
            stale_since: since,
            ..Self::default()
        }
    }

    /// A record waits for this holder.
    pub(crate) fn add(&mut self, key: &RecordKey, urgent: bool, now: Millis) {
        self.stale_since.get_or_insert(now);
        if urgent {
            self.urgent.insert(key.clone());
        } else {
            self.walk();
        }
    }

    fn walk(&mut self) {
        self.backlog = true;
        if let Some(pass) = &mut self.pass {
            pass.dirty = true;
        }
    }

    /// Nobody waits for the record any more: the table remembers it.
    pub(crate) fn relax(&mut self, key: &RecordKey) {
        if self.urgent.remove(key) {
            self.walk();
        }
    }

    /// A new registry version is to be announced.
    pub(crate) fn announce_anew(&mut self) {
        self.announcing = None;
        self.backlog = true;
        self.pause = None;
        self.pass = None;
        self.clean = None;
    }

    pub(crate) fn hurry(&mut self, now: Millis) {
        self.pause = None;
        self.rejected = 0;
        for flight in self.flights.values_mut() {
            (flight.attempt, flight.again) = (0, now);
        }
        if let Some(announcing) = &mut self.announcing {
            *announcing = (0, now);
        }
    }

    /// When the lane needs attention.
    pub(crate) fn due(&self) -> Option<Millis> {
        let flights = self.flights.values().map(|flight| flight.again);
        if self.pause.is_some() {
            return flights.chain(self.pause).min();
        }
        flights.chain(self.announcing.map(|(_, at)| at)).min()
    }

    /// Whether something has waited for this holder longer than a healthy one takes.
    pub(crate) fn lags(&self, now: Millis) -> bool {
        self.stale_since.is_some_and(|since| now.since(since) > LAG_MS_MAX)
    }

    /// How long the oldest unconfirmed record may have waited, in milliseconds; none when nothing waits.
    pub(super) fn waits_ms(&self, now: Millis) -> Option<u64> {
        self.stale_since.map(|since| now.since(since))
    }

    /// Whether everything enqueued before `at` is confirmed.
    pub(crate) fn is_confirmed_to(&self, at: Millis) -> bool {
        self.stale_since.is_none_or(|since| since > at)
    }

    /// Decides whether beat number `beat` names this holder.
    ///
    /// INVARIANT: while a holder is struck, publishes are acknowledged without it. So a run of beats that name it
    /// ends in two steps: first publishes wait for it again, and when everything from before that is confirmed,
    /// the next beat names it no more.
    pub(crate) fn name(&mut self, now: Millis, beat: u64) -> bool {
        let lags = self.lags(now);
        match &mut self.naming {
            None if lags => {
                self.naming = Some(Naming {
                    first: beat,
                    known: None,
                    easing: None,
                });
            }
            None => {}
            Some(naming) if lags => naming.easing = None,
            Some(naming) => {
                let easing = *naming.easing.get_or_insert(now);
                if easing < now && self.is_confirmed_to(easing) {
                    self.naming = None;
                }
            }
        }
        self.naming.is_some()
    }

    /// Forgets all that the pass and its predecessors left to be done.
    fn end_pass(&mut self, now: Millis) {
        let Some(pass) = self.pass.take() else { return };
        if pass.leftover {
            self.rejected = self.rejected.saturating_add(1);
            self.pause = Some(now.plus(back_off(self.rejected, STORE_RETRY_MS, STORE_RETRY_MS_MAX)));
            return;
        }
        self.rejected = 0;
        self.clean = pass.version.or(self.clean);
        self.backlog = pass.dirty;
        let rest = pass.dirty || !self.urgent.is_empty() || !self.flights.is_empty();
        self.stale_since = rest.then_some(pass.started);
    }

    /// Whether a pass has reached its end and everything that it launched is answered.
    fn pass_is_over(&self) -> bool {
        let barrier = self.pass.as_ref().and_then(|pass| pass.barrier);
        barrier.is_some_and(|barrier| self.flights.range(..barrier).next().is_none())
    }
}

impl Federation {
    /// Moves every lane on: repeats, next batches, announcements.
    pub(crate) fn pump_lanes(&mut self, turn: &mut Turn<'_>) {
        self.place_own(turn);
        let mut lanes = core::mem::take(&mut self.owner.lanes);
        for (org, lane) in &mut lanes {
            self.pump(turn, org, lane);
        }
        // INVARIANT: pumping a lane adds no lane.
        self.owner.lanes = lanes;
    }

    fn pump(&mut self, turn: &mut Turn<'_>, org: &OrgId, lane: &mut Lane) {
        if self.config.has(Planted::AnnouncedTooEarly) {
            self.announce(turn, org, lane);
        }
        let pause = self.config.has(Planted::NoBackOff).then_some(1);
        repeat(turn, org, lane, pause);
        if lane.pause.is_some_and(|until| until > turn.now) {
            return;
        }
        lane.pause = None;
        if lane
            .stale_since
            .is_some_and(|since| turn.mono.since(since) >= LAG_MS_MAX / 2)
        {
            lane.backlog = true;
        }
        for _ in 0..PASSES_PER_TURN_MAX {
            self.launch(turn, org, lane);
            if !lane.pass_is_over() {
                break;
            }
            lane.end_pass(turn.now);
            if !lane.backlog || lane.pause.is_some() {
                break;
            }
        }
        self.announce(turn, org, lane);
    }

    /// Fills the window.
    fn launch(&mut self, turn: &mut Turn<'_>, org: &OrgId, lane: &mut Lane) {
        while lane.flights.len() < lane.window.max(1) {
            let (items, records) = self.gather(turn, org, lane);
            if items.is_empty() {
                return;
            }
            let id = self.question();
            turn.send(
                org,
                IndexMessage::Store {
                    id,
                    records: records.clone(),
                },
            );
            lane.flying.extend(items.iter().map(|(key, _)| key.clone()));
            let flight = Flight {
                items,
                records,
                attempt: 0,
                sent: turn.now,
                again: turn.now.plus(patience(lane)),
            };
            lane.flights.insert(id, flight);
        }
    }

    /// The next batch: urgent records, then the backlog; now and then the other way round.
    fn gather(
        &mut self,
        turn: &mut Turn<'_>,
        org: &OrgId,
        lane: &mut Lane,
    ) -> (Vec<(RecordKey, Sequence)>, Vec<SignedRecord>) {
        let most = if self.speaks(org) >= V2 {
            STORE_RECORDS_MAX
        } else {
            STORE_RECORDS_V1_MAX
        };
        let mut batch = Batch::of(most);
        lane.batches = lane.batches.wrapping_add(1);
        if lane.batches.is_multiple_of(BACKLOG_TURN) {
            self.gather_backlog(turn, org, lane, &mut batch);
        }
        while let Some(key) = lane.urgent.pop_first() {
            let entry = self.own_entry(turn, &key).filter(|_| !lane.flying.contains(&key));
            // What flies is looked at again when it lands.
            let Some(entry) = entry else { continue };
            if !batch.add(&key, entry) {
                lane.urgent.insert(key);
                return batch.into_parts();
            }
        }
        self.gather_backlog(turn, org, lane, &mut batch);
        batch.into_parts()
    }

    fn gather_backlog(&mut self, turn: &mut Turn<'_>, org: &OrgId, lane: &mut Lane, batch: &mut Batch) {
        if !lane.backlog || self.config.has(Planted::OutboxForgotten) {
            return;
        }
        let version = (!self.owner_is_placing()).then_some(self.members.version());
        let mut pass = lane.pass.take().unwrap_or_else(|| Pass {
            started: turn.mono,
            version,
            cursor: Vec::new(),
            barrier: None,
            leftover: false,
            dirty: false,
        });
        let prefix = lane_prefix(org);
        for _ in 0..PAGES_PER_BATCH_MAX {
            if pass.barrier.is_some() || batch.is_full() {
                break;
            }
            let page = self
                .ledger
                .scan(turn.kept, Table::Outbox, &prefix, &pass.cursor, STORE_RECORDS_MAX);
            if page.is_empty() {
                // The batch in hand flies under the next id: it belongs to the pass.
                pass.barrier = Some(self.peek_question().saturating_add(1));
                break;
            }
            for (place, _) in page {
                let key = place.get(prefix.len()..).unwrap_or_default().to_vec();
                let placed = self.places_now(&key, org);
                match self.own_entry(turn, &key).filter(|_| placed) {
                    Some(_) if lane.flying.contains(&key) => {}
                    Some(entry) => {
                        if !batch.add(&key, entry) {
                            break;
                        }
                        lane.urgent.remove(&key);
                    }
                    None => self.ledger.write(Table::Outbox, place.clone(), None),
                }
                pass.cursor = [place.as_slice(), &[0]].concat();
            }
        }
        lane.pass = Some(pass);
    }

    /// Tells a holder that everything placed at it under this version was confirmed by it.
    fn announce(&mut self, turn: &mut Turn<'_>, org: &OrgId, lane: &mut Lane) {
        let version = self.members.version();
        let holds = self.members.current().is_some_and(|set| set.holders.contains(org));
        let clean = lane.clean == Some(version) || self.config.has(Planted::AnnouncedTooEarly);
        if !holds || !clean || lane.announced == Some(version) {
            lane.announcing = None;
            return;
        }
        let (attempt, at) = lane.announcing.unwrap_or((0, turn.now));
        if at > turn.now {
            return;
        }
        lane.announcing = Some((
            attempt.saturating_add(1),
            turn.now.plus(back_off(attempt, STORE_RETRY_MS, STORE_RETRY_MS_MAX)),
        ));
        turn.send(
            org,
            IndexMessage::Store {
                id: version,
                records: Vec::new(),
            },
        );
    }

    pub(super) const fn owner_is_placing(&self) -> bool {
        self.owner.placing.is_some()
    }

    /// A holder answers a batch.
    pub(crate) fn stored(&mut self, turn: &mut Turn<'_>, from: &OrgId, id: u64, outcomes: &[StoreOutcome]) {
        let version = self.members.version();
        let Some(lane) = self.owner.lanes.get_mut(from) else {
            return;
        };
        if outcomes.is_empty() {
            if id == version && lane.announcing.is_some() {
                lane.announced = Some(version);
                lane.announcing = None;
            }
            return;
        }
        if lane
            .flights
            .get(&id)
            .is_none_or(|flight| flight.items.len() != outcomes.len())
        {
            return;
        }
        let Some(flight) = lane.flights.remove(&id) else { return };
        for (key, _) in &flight.items {
            lane.flying.remove(key);
        }
        if flight.attempt == 0 {
            let took = turn.now.since(flight.sent);
            lane.round_trip_ms = lane.round_trip_ms.saturating_mul(7).saturating_add(took) / 8;
            lane.window = lane.window.max(1).saturating_add(1).min(STORES_IN_FLIGHT_MAX);
        }
        if outcomes.contains(&StoreOutcome::Held) {
            lane.rejected = 0;
        } else {
            lane.rejected = lane.rejected.saturating_add(1);
            lane.pause = Some(
                turn.now
                    .plus(back_off(lane.rejected, STORE_RETRY_MS, STORE_RETRY_MS_MAX)),
            );
        }
        for ((key, sequence), outcome) in flight.items.into_iter().zip(outcomes) {
            match outcome {
                StoreOutcome::Refused if !self.config.has(Planted::RefusedCounts) => self.left_behind(from, &key),
                StoreOutcome::Held | StoreOutcome::Refused => {
                    self.confirmed(turn, from, &key, sequence);
                    self.vote(turn, from, &key, sequence, Vote::Held);
                }
                StoreOutcome::Misplaced => {
                    if self.places_now(&key, from) {
                        self.left_behind(from, &key);
                    }
                    self.vote(turn, from, &key, sequence, Vote::Misplaced);
                }
            }
        }
    }

    /// Whether the set in force places a record at `org`.
    fn places_now(&self, key: &[u8], org: &OrgId) -> bool {
        index_key(key).is_some_and(|at| self.members.current().is_some_and(|set| set.places_at(&at, org)))
    }

    /// A holder has synced a version: nothing is left to deliver there unless a later one exists.
    fn confirmed(&mut self, turn: &Turn<'_>, from: &OrgId, key: &RecordKey, sequence: Sequence) {
        self.owner.measure.confirmed(turn.mono, from, key, sequence);
        let latest = self.own_entry(turn, key).is_none_or(|entry| entry.sequence <= sequence)
            || self.config.has(Planted::OlderConfirms);
        let place = lane_key(from, key);
        if latest && self.ledger.get(turn.kept, Table::Outbox, &place).is_some() {
            self.ledger.write(Table::Outbox, place, None);
        } else if !latest {
            let urgent = self.owner.waiting.contains_key(key);
            if let Some(lane) = self.owner.lanes.get_mut(from) {
                lane.add(key, urgent, turn.mono);
            }
        }
    }

    /// A record was not taken: it is offered again after a pause.
    fn left_behind(&mut self, from: &OrgId, key: &RecordKey) {
        let urgent = self.owner.waiting.contains_key(key);
        if let Some(lane) = self.owner.lanes.get_mut(from) {
            lane.walk();
            if let Some(pass) = &mut lane.pass {
                pass.leftover = true;
            }
            if urgent {
                lane.urgent.insert(key.clone());
            }
        }
    }
}

/// Sends again what was not answered in time.
fn repeat(turn: &mut Turn<'_>, org: &OrgId, lane: &mut Lane, fixed: Option<u64>) {
    let now = turn.now;
    let late: Vec<u64> = lane
        .flights
        .iter()
        .filter(|(_, flight)| flight.again <= now)
        .map(|(id, _)| *id)
        .collect();
    if !late.is_empty() {
        lane.window = (lane.window / 2).max(1);
    }
    for (at, id) in late.into_iter().enumerate() {
        let window = lane.window;
        let first = patience(lane);
        let Some(flight) = lane.flights.get_mut(&id) else {
            continue;
        };
        if at >= window {
            // The window has shrunk: the rest waits for its turn.
            flight.again = now.plus(first);
            continue;
        }
        flight.attempt = flight.attempt.saturating_add(1);
        let pause = fixed.unwrap_or_else(|| back_off(flight.attempt, first, STORE_RETRY_MS_MAX));
        flight.again = now.plus(pause);
        turn.send(
            org,
            IndexMessage::Store {
                id,
                records: flight.records.clone(),
            },
        );
    }
}

/// How long an answer may take before the batch is sent again, in milliseconds.
fn patience(lane: &Lane) -> u64 {
    STORE_RETRY_MS
        .max(lane.round_trip_ms.saturating_mul(4))
        .min(STORE_RETRY_MS_MAX)
}

/// A batch within the limits of one message.
struct Batch {
    most: usize,
    items: Vec<(RecordKey, Sequence)>,
    records: Vec<SignedRecord>,
    bytes: usize,
    taken: BTreeSet<RecordKey>,
}

impl Batch {
    const fn of(most: usize) -> Self {
        Self {
            most,
            items: Vec::new(),
            records: Vec::new(),
            bytes: 0,
            taken: BTreeSet::new(),
        }
    }

    const fn is_full(&self) -> bool {
        self.items.len() >= self.most
    }

    /// Adds a record once; false when the batch is full.
    fn add(&mut self, key: &RecordKey, entry: Entry) -> bool {
        if self.taken.contains(key) {
            return true;
        }
        let bytes = self.bytes.saturating_add(entry.signed.0.len());
        if self.is_full() || bytes > MESSAGE_RECORD_BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        self.taken.insert(key.clone());
        self.items.push((key.clone(), entry.sequence));
        self.records.push(entry.signed);
        true
    }

    fn into_parts(self) -> (Vec<(RecordKey, Sequence)>, Vec<SignedRecord>) {
        (self.items, self.records)
    }
}
