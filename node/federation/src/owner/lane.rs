//! A lane: the way of own records to one holder. At most one batch is in flight; it is sent again with
//! back-off until the holder answers. Urgent records (of open publishes) go before the backlog in the table.

use super::{
    BTreeMap, BTreeSet, Entry, Federation, IndexMessage, MESSAGE_RECORD_BYTES_MAX, Millis, OrgId, Planted, RecordKey,
    STORE_RECORDS_V1_MAX, STORE_RETRY_MS, STORE_RETRY_MS_MAX, Sequence, SignedRecord, StoreOutcome, Table, Turn, Vote,
    back_off, index_key, lane_key, lane_prefix,
};

/// Pages of the backlog read in one turn.
const PAGES_PER_TURN_MAX: usize = 4;

/// A batch on its way.
#[derive(Debug)]
struct Flight {
    id: u64,
    items: Vec<(RecordKey, Sequence)>,
    records: Vec<SignedRecord>,
    attempt: u32,
    again: Millis,
}

/// The way to one holder.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    urgent: BTreeSet<RecordKey>,
    flight: Option<Flight>,
    /// Whether the outbox table may hold something for this holder.
    backlog: bool,
    /// Whether something may have come in behind the cursor.
    dirty: bool,
    cursor: Vec<u8>,
    /// Whether this pass over the backlog left something behind.
    leftover: bool,
    pause: Option<Millis>,
    rejected: u32,
    /// Version that the holder has confirmed as announced.
    announced: Option<u64>,
    announcing: Option<(u32, Millis)>,
}

impl Lane {
    pub(crate) fn with_backlog() -> Self {
        Self {
            backlog: true,
            ..Self::default()
        }
    }

    /// A record waits for this holder.
    pub(crate) fn add(&mut self, key: &RecordKey, urgent: bool) {
        if urgent {
            self.urgent.insert(key.clone());
        } else {
            (self.backlog, self.dirty) = (true, true);
        }
    }

    /// Nobody waits for the record any more: the table remembers it.
    pub(crate) fn relax(&mut self, key: &RecordKey) {
        if self.urgent.remove(key) {
            (self.backlog, self.dirty) = (true, true);
        }
    }

    /// A new registry version is to be announced.
    pub(crate) fn announce_anew(&mut self) {
        self.announcing = None;
        self.backlog = true;
        self.pause = None;
        self.cursor.clear();
    }

    pub(crate) fn hurry(&mut self, now: Millis) {
        self.pause = None;
        self.rejected = 0;
        if let Some(flight) = &mut self.flight {
            (flight.attempt, flight.again) = (0, now);
        }
        if let Some(announcing) = &mut self.announcing {
            *announcing = (0, now);
        }
    }

    /// When the lane needs attention.
    pub(crate) fn due(&self) -> Option<Millis> {
        match &self.flight {
            Some(flight) => Some(flight.again),
            None => [self.pause, self.announcing.map(|(_, at)| at)]
                .into_iter()
                .flatten()
                .min(),
        }
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
        if let Some(flight) = &mut lane.flight {
            if flight.again <= turn.now {
                flight.attempt = flight.attempt.saturating_add(1);
                let pause = back_off(flight.attempt, STORE_RETRY_MS, STORE_RETRY_MS_MAX);
                let pause = if self.config.has(Planted::NoBackOff) { 1 } else { pause };
                flight.again = turn.now.plus(pause);
                turn.send(
                    org,
                    IndexMessage::Store {
                        id: flight.id,
                        records: flight.records.clone(),
                    },
                );
            }
            return;
        }
        if lane.pause.is_some_and(|until| until > turn.now) {
            return;
        }
        lane.pause = None;
        let (items, records) = self.gather(turn, org, lane);
        if items.is_empty() {
            self.announce(turn, org, lane);
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
        lane.announcing = None;
        lane.flight = Some(Flight {
            id,
            items,
            records,
            attempt: 0,
            again: turn.now.plus(STORE_RETRY_MS),
        });
    }

    /// The next batch: urgent records, then the backlog.
    fn gather(
        &mut self,
        turn: &mut Turn<'_>,
        org: &OrgId,
        lane: &mut Lane,
    ) -> (Vec<(RecordKey, Sequence)>, Vec<SignedRecord>) {
        let mut batch = Batch::default();
        while let Some(key) = lane.urgent.pop_first() {
            let Some(entry) = self.own_entry(turn, &key) else {
                continue;
            };
            if !batch.add(&key, entry) {
                lane.urgent.insert(key);
                return batch.into_parts();
            }
        }
        if self.config.has(Planted::OutboxForgotten) {
            return batch.into_parts();
        }
        let prefix = lane_prefix(org);
        for _ in 0..PAGES_PER_TURN_MAX {
            if !lane.backlog {
                break;
            }
            let page = self
                .ledger
                .scan(turn.kept, Table::Outbox, &prefix, &lane.cursor, STORE_RECORDS_V1_MAX);
            if page.is_empty() {
                lane.cursor.clear();
                if core::mem::take(&mut lane.leftover) {
                    lane.rejected = lane.rejected.saturating_add(1);
                    lane.pause = Some(
                        turn.now
                            .plus(back_off(lane.rejected, STORE_RETRY_MS, STORE_RETRY_MS_MAX)),
                    );
                } else {
                    lane.backlog = core::mem::take(&mut lane.dirty) || !batch.items.is_empty();
                    lane.rejected = 0;
                }
                break;
            }
            for (place, _) in page {
                let key = place.get(prefix.len()..).unwrap_or_default().to_vec();
                let placed = self.places_now(&key, org);
                match self.own_entry(turn, &key).filter(|_| placed) {
                    Some(entry) => {
                        if !batch.add(&key, entry) {
                            return batch.into_parts();
                        }
                    }
                    None => self.ledger.write(Table::Outbox, place.clone(), None),
                }
                lane.cursor = [place.as_slice(), &[0]].concat();
            }
        }
        batch.into_parts()
    }

    /// Tells a holder that everything placed at it under this version was confirmed by it.
    fn announce(&mut self, turn: &mut Turn<'_>, org: &OrgId, lane: &mut Lane) {
        let version = self.members.version();
        let holds = self.members.current().is_some_and(|set| set.holders.contains(org));
        let busy = lane.backlog || lane.pause.is_some() || self.owner_is_placing();
        let busy = busy && !self.config.has(Planted::AnnouncedTooEarly);
        if !holds || busy || lane.announced == Some(version) {
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
        if !lane
            .flight
            .as_ref()
            .is_some_and(|flight| flight.id == id && flight.items.len() == outcomes.len())
        {
            return;
        }
        let Some(flight) = lane.flight.take() else { return };
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
        let latest = self.own_entry(turn, key).is_none_or(|entry| entry.sequence <= sequence)
            || self.config.has(Planted::OlderConfirms);
        let place = lane_key(from, key);
        if latest && self.ledger.get(turn.kept, Table::Outbox, &place).is_some() {
            self.ledger.write(Table::Outbox, place, None);
        } else if let Some(lane) = self.owner.lanes.get_mut(from).filter(|_| !latest) {
            (lane.backlog, lane.dirty) = (true, true);
        }
    }

    /// A record was not taken: it is offered again after a pause.
    fn left_behind(&mut self, from: &OrgId, key: &RecordKey) {
        let urgent = self.owner.waiting.contains_key(key);
        if let Some(lane) = self.owner.lanes.get_mut(from) {
            (lane.backlog, lane.dirty, lane.leftover) = (true, true, true);
            if urgent {
                lane.urgent.insert(key.clone());
            }
        }
    }
}

/// A batch within the limits of one message.
#[derive(Default)]
struct Batch {
    items: Vec<(RecordKey, Sequence)>,
    records: Vec<SignedRecord>,
    bytes: usize,
    taken: BTreeMap<RecordKey, ()>,
}

impl Batch {
    /// Adds a record once; false when the batch is full.
    fn add(&mut self, key: &RecordKey, entry: Entry) -> bool {
        if self.taken.contains_key(key) {
            return true;
        }
        let bytes = self.bytes.saturating_add(entry.signed.0.len());
        if self.items.len() >= STORE_RECORDS_V1_MAX || bytes > MESSAGE_RECORD_BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        self.taken.insert(key.clone(), ());
        self.items.push((key.clone(), entry.sequence));
        self.records.push(entry.signed);
        true
    }

    fn into_parts(self) -> (Vec<(RecordKey, Sequence)>, Vec<SignedRecord>) {
        (self.items, self.records)
    }
}
