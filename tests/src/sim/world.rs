//! The world: an agenda in true time, and nodes that the agenda moves.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::DefaultHasher;

use hie_node_federation::config::{Config, Planted};
use hie_node_federation::port::{AskId, Effect, Input, Misbehaviour, Outcome, PersistId, PublishId};
use hie_node_federation::table::Table;
use hie_protocol::id::{IndexKey, OrgId, Sequence};
use hie_protocol::message::IndexMessage;
use hie_protocol::record::{RecordId, SignedRecord, VerifiedRecord};
use hie_protocol::registry::Registry;

use super::climate::{Climate, Clocks, HEALED_AFTER_MS, MINUTES};
use super::network::{Letter, Network};
use super::node::{Node, member, registry};
use super::oracle::{Law, Oracle, Violation};
use super::rng::Rng;
use super::trace;

/// Versions of its counter that a node loses in a crash under the planted bug.
const FORGOTTEN_VERSIONS: u64 = 3;

/// What is on the agenda.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Deliver(Box<Letter>),
    Wake {
        node: usize,
        life: u64,
    },
    Synced {
        node: usize,
        life: u64,
    },
    Persisted {
        node: usize,
        life: u64,
        id: PersistId,
    },
    Renewed {
        node: usize,
        life: u64,
        records: Vec<(Sequence, VerifiedRecord)>,
    },
    Link {
        node: usize,
        other: usize,
        life: u64,
        up: bool,
    },
    Restart {
        node: usize,
    },
    Registry {
        node: usize,
        version: usize,
    },
    Fault,
    Heal {
        partition: u64,
    },
    ClockRight {
        node: usize,
    },
    ChangeMembers,
    Publish,
    Ask,
    Lie,
    Intrude {
        node: usize,
    },
    Inspect,
    EndFaults,
    Judge,
    FinalAsk {
        node: usize,
    },
}

/// A run.
#[derive(Debug)]
pub struct World {
    pub(super) rng: Rng,
    pub(super) now: u64,
    pub(super) step: u64,
    agenda: BTreeMap<(u64, u64), Event>,
    pub(super) scheduled: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) places: BTreeMap<OrgId, usize>,
    pub(super) climate: Climate,
    pub(super) registries: Vec<Registry>,
    pub(super) network: Network,
    pub(super) oracle: Oracle,
    pub(super) planted: Option<Planted>,
    pub(super) keys: Vec<IndexKey>,
    /// Open publishes: what they carry, and the registry of their owner when they were issued.
    pub(super) publishes: BTreeMap<PublishId, (u64, Vec<(RecordId, u64)>)>,
    /// The last record that was published: the next operation or question is often about it.
    pub(super) latest: Option<RecordId>,
    pub(super) captured: Vec<IndexMessage>,
    /// What the stale liar showed first under each key.
    pub(super) stale: BTreeMap<IndexKey, Vec<SignedRecord>>,
    pub(super) calm: bool,
    pub(super) trace: DefaultHasher,
    pub(super) counts: Counts,
    /// The run ends when one of these is broken.
    stop_at: Vec<Law>,
}

/// What happened in a run, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Publishes acknowledged.
    pub published: u64,
    /// Questions put.
    pub asked: u64,
    /// Complete answers judged.
    pub complete: u64,
    /// Partial answers judged.
    pub partial: u64,
    /// Crashes.
    pub crashes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Steps of a clock.
    pub clock_steps: u64,
    /// Disks lost or set back.
    pub disks_lost: u64,
    /// Registry versions.
    pub registries: u64,
    /// Records renewed.
    pub renewed: u64,
    /// Misbehaviour reported.
    pub misbehaved: u64,
    /// Misbehaviour of the liar reported.
    pub liar_named: u64,
    /// Omissions reported.
    pub omissions_named: u64,
    /// Partial answers that name the liar among the silent.
    pub liar_silent: u64,
    /// Datagrams delivered.
    pub delivered: u64,
    /// Steps of machines.
    pub steps: u64,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed: the same seed gives the same report.
    pub seed: u64,
    /// Hash over everything that happened, in order.
    pub trace: u64,
    /// What happened.
    pub counts: Counts,
    /// Laws that did not hold.
    pub violations: Vec<Violation>,
}

/// Runs one seed for ten simulated minutes.
#[must_use]
pub fn run(seed: u64, planted: Option<Planted>) -> Report {
    run_minutes(seed, planted, MINUTES)
}

/// Runs one seed.
#[must_use]
pub fn run_minutes(seed: u64, planted: Option<Planted>, minutes: u64) -> Report {
    let mut rng = Rng::new(seed);
    let climate = Climate::of(&mut rng, minutes);
    World::new(rng, climate, planted).run(seed)
}

/// Runs one seed until one of `laws` is broken, or to its end.
#[must_use]
pub fn run_until_broken(seed: u64, planted: Option<Planted>, laws: &[Law]) -> Report {
    let mut rng = Rng::new(seed);
    let climate = Climate::of(&mut rng, MINUTES);
    let mut world = World::new(rng, climate, planted);
    world.stop_at = laws.to_vec();
    world.run(seed)
}

/// Runs one seed without expiries, every clock shifted by its own multiple of `shift_ms`: the trace is to be the same
/// whatever the shift, within the skew that the region allows.
#[must_use]
pub fn run_shifted(seed: u64, shift_ms: i64) -> Report {
    let mut rng = Rng::new(seed);
    let climate = Climate::of(&mut rng, MINUTES);
    let climate = Climate {
        clocks: Clocks::Near,
        shift_ms,
        // How old a record is that a liar leaves out is read from its owner's expiry; it decides what is reported,
        // never what is complete.
        liar: None,
        record_life_ms: 1_800_000,
        ..climate
    };
    World::new(rng, climate, None).run(seed)
}

/// Runs one seed in a climate of the caller's making.
#[must_use]
pub fn run_climate(seed: u64, climate: Climate, planted: Option<Planted>) -> Report {
    World::new(Rng::new(seed), climate, planted).run(seed)
}

impl World {
    /// A world before its first event.
    #[must_use]
    pub fn new(mut rng: Rng, climate: Climate, planted: Option<Planted>) -> Self {
        let nodes: Vec<Node> = (0..climate.members + climate.spare).map(Node::new).collect();
        let first: Vec<_> = nodes[..climate.members]
            .iter()
            .map(|node| member(node, !rng.chance(climate.no_holder)))
            .collect();
        let first = registry(first, climate.record_life_ms);
        let keys = (0..climate.keys).map(|_| IndexKey::new(rng.bytes32())).collect();
        let places = nodes.iter().enumerate().map(|(at, node)| (node.org.clone(), at));
        let mut world = Self {
            rng,
            now: 0,
            step: 0,
            agenda: BTreeMap::new(),
            scheduled: 0,
            places: places.collect(),
            nodes,
            registries: vec![first],
            network: Network::default(),
            oracle: Oracle::new(climate.record_life_ms, climate.record_life_ms * 2),
            climate,
            planted,
            keys,
            publishes: BTreeMap::new(),
            latest: None,
            captured: Vec::new(),
            stale: BTreeMap::new(),
            calm: false,
            trace: DefaultHasher::new(),
            counts: Counts::default(),
            stop_at: Vec::new(),
        };
        world.prepare();
        world
    }

    fn prepare(&mut self) {
        for at in 0..self.nodes.len() {
            let off = self.rng.range(0, 4000) as i64 - 2000;
            let drift = self.rng.range(0, 400) as i64 - 200;
            self.nodes[at].clock_off = off + self.climate.shift_ms * at as i64;
            self.nodes[at].drift_ppm = if self.climate.clocks == Clocks::Drift { drift } else { 0 };
        }
        for at in 0..self.climate.members {
            self.nodes[at].registry = Some(self.registries[0].clone());
            self.start(at);
        }
        if self.climate.fault_every_ms > 0 {
            let fault = self.rng.range(2000, self.climate.fault_every_ms);
            self.plan(fault, Event::Fault);
        }
        if self.climate.changes_members {
            let change = self.rng.range(20_000, 60_000);
            self.plan(change, Event::ChangeMembers);
        }
        if self.climate.liar.is_some() {
            self.plan(3000, Event::Lie);
        }
        self.plan(4000, Event::Publish);
        self.plan(5000, Event::Ask);
        self.plan(10_000, Event::Inspect);
        self.plan(self.climate.faulty_ms(), Event::EndFaults);
        self.plan(self.climate.faulty_ms() + HEALED_AFTER_MS, Event::Judge);
    }

    /// Lets the run happen.
    #[must_use]
    pub fn run(mut self, seed: u64) -> Report {
        self.run_until(self.climate.run_ms);
        self.finish();
        Report {
            seed,
            trace: trace::finish(&self.trace),
            counts: self.counts,
            violations: self.oracle.violations,
        }
    }

    /// Lets everything happen up to a true time, in milliseconds.
    pub fn run_until(&mut self, until: u64) {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.step += 1;
            self.happen(event);
            if !self.stop_at.is_empty() && self.oracle.has_broken(&self.stop_at) {
                return;
            }
        }
        self.now = self.now.max(until);
    }

    fn finish(&mut self) {
        if self.now >= self.climate.run_ms {
            self.oracle.overdue(self.climate.run_ms + 60_000);
        }
        (self.counts.complete, self.counts.partial) = self.oracle.judged;
        self.counts.registries = self.registries.len() as u64;
    }

    /// What each node holds of the index: records, and bytes of keys and values in all tables of the holder.
    #[must_use]
    pub fn holdings(&self) -> Vec<(usize, usize)> {
        let tables = [Table::Held, Table::HeldExpiry, Table::HeldCount];
        let of = |node: &Node| {
            let bytes = tables.iter().map(|table| node.disk.bytes(*table)).sum();
            (node.disk.table(Table::Held).count(), bytes)
        };
        self.nodes.iter().map(of).collect()
    }

    /// Datagrams sent and bytes of records in them, by kind.
    #[must_use]
    pub const fn traffic(&self) -> &BTreeMap<&'static str, (u64, u64)> {
        &self.network.traffic
    }

    /// Records that were ever published.
    #[must_use]
    pub fn records(&self) -> usize {
        self.oracle.records.len()
    }

    /// What happened so far.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn plan(&mut self, after_ms: u64, event: Event) {
        self.scheduled += 1;
        self.agenda.insert((self.now + after_ms, self.scheduled), event);
    }

    /// Where a node is in the list.
    pub(super) fn at(&self, org: &OrgId) -> Option<usize> {
        self.places.get(org).copied()
    }

    pub(super) fn lives(&self, at: usize, life: u64) -> bool {
        self.nodes[at].life == life && self.nodes[at].machine.is_some()
    }

    pub(super) fn start(&mut self, at: usize) {
        let first_question = match self.planted {
            Some(Planted::QuestionIdsReused) => 1,
            _ => self.rng.next(),
        };
        let mut config = Config::new(self.nodes[at].org.clone(), first_question).with_planted(self.planted);
        if let Some(quota) = self.climate.quota {
            config.held_records_per_owner_max = quota;
        }
        self.nodes[at].start(config);
        self.nodes[at].up_since = self.now;
        if self.planted == Some(Planted::CounterForgotten) {
            self.nodes[at].counter = self.nodes[at].counter.saturating_sub(FORGOTTEN_VERSIONS);
        }
        self.input(at, Input::Tick, None);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver(letter) => self.deliver(*letter),
            Event::Wake { node, life } => {
                // An alarm that was set anew for an earlier time is void.
                if self.lives(node, life) && self.nodes[node].armed == Some(self.now) {
                    self.nodes[node].armed = None;
                    self.input(node, Input::Tick, None);
                }
            }
            Event::Synced { node, life } => self.synced(node, life),
            Event::Persisted { node, life, id } => {
                if self.lives(node, life) {
                    self.input(node, Input::Persisted(id), None);
                }
            }
            Event::Renewed { node, life, records } => {
                if self.lives(node, life) {
                    self.input(node, Input::Renewed { records }, None);
                }
            }
            Event::Link { node, other, life, up } => self.link(node, other, life, up),
            Event::Restart { node } => {
                if self.nodes[node].machine.is_none() && self.nodes[node].registry.is_some() {
                    self.start(node);
                }
            }
            Event::Registry { node, version } => self.hand_registry(node, version),
            Event::Fault => self.fault(),
            Event::Heal { partition } => self.heal(partition),
            Event::ClockRight { node } => self.clock_right(node),
            Event::ChangeMembers => self.change_members(),
            Event::Publish => self.publish_something(),
            Event::Ask => self.ask_something(),
            Event::Lie => self.lie(),
            Event::Intrude { node } => self.intrude(node),
            Event::Inspect => self.inspect(),
            Event::EndFaults => self.end_faults(),
            Event::Judge => self.judge(),
            Event::FinalAsk { node } => self.final_ask(node),
        }
    }

    fn synced(&mut self, node: usize, life: u64) {
        if !self.lives(node, life) {
            return;
        }
        let id = self.nodes[node].disk.sync().expect("a batch was written");
        if self.planted != Some(Planted::PersistedBeforeSync) {
            let after = self.rng.range(0, 3);
            self.plan(after, Event::Persisted { node, life, id });
        }
    }

    /// Feeds a machine and carries out what it says.
    pub(super) fn input(&mut self, at: usize, input: Input, cause: Option<AskId>) {
        let now = self.nodes[at].clock(self.now);
        let node = &mut self.nodes[at];
        let Some(machine) = node.machine.as_mut() else { return };
        let effects = machine.step(now, input, &node.disk);
        self.counts.steps += 1;
        trace::step(&mut self.trace, self.now, at, &effects);
        self.oracle.sized(self.now, at, effects.len());
        for effect in effects {
            self.carry_out(at, effect, cause);
        }
        self.arm(at);
    }

    fn carry_out(&mut self, at: usize, effect: Effect, cause: Option<AskId>) {
        match effect {
            Effect::Persist { id, changes } => {
                let took = self.rng.range(1, self.climate.sync_ms);
                let life = self.nodes[at].life;
                let done = self.nodes[at].disk_free.max(self.now) + took;
                self.nodes[at].disk_free = done;
                self.nodes[at].disk.write(id, changes);
                self.plan(done - self.now, Event::Synced { node: at, life });
                if self.planted == Some(Planted::PersistedBeforeSync) {
                    self.plan(0, Event::Persisted { node: at, life, id });
                }
            }
            Effect::Send { to, message } => {
                if let IndexMessage::Lookup { id, keys, .. } = &message {
                    self.oracle.lookup(cause, at, *id, &to, keys);
                }
                self.send(at, &to, message);
            }
            Effect::Published { id } => self.acknowledged(at, id),
            Effect::Answer { id, outcome } => {
                if let (Outcome::Partial { silent, .. }, Some((liar, _))) = (&outcome, self.climate.liar) {
                    let liar = &self.nodes[liar].org;
                    self.counts.liar_silent += u64::from(silent.iter().any(|(org, _)| org == liar));
                }
                let told_down = &self.nodes[at].told_down;
                self.oracle.answered(id, &outcome, self.now, told_down);
            }
            Effect::Renew { records } => {
                self.counts.renewed += records.len() as u64;
                self.renew(at, records);
            }
            Effect::Misbehaved { org, what } => {
                self.counts.misbehaved += 1;
                if what == Misbehaviour::Omitted {
                    self.counts.omissions_named += 1;
                    // Whoever lies in any way may be named.
                    let liar = self.climate.liar.map(|(liar, _)| self.nodes[liar].org.clone());
                    self.oracle.named(self.now, &org, liar);
                }
                let liar = self.climate.liar.is_some_and(|(liar, _)| self.nodes[liar].org == org);
                self.counts.liar_named += u64::from(liar);
            }
            Effect::WakeAt(time) => self.nodes[at].wake = Some(time),
            Effect::Declined { request, why } => {
                if self.climate.quota.is_none() {
                    let what = format!("{request:?} declined at {}: {why}", self.nodes[at].org);
                    self.oracle.violated(Law::Manners, self.now, what);
                }
            }
        }
    }

    fn acknowledged(&mut self, at: usize, id: PublishId) {
        let Some((since, records)) = self.publishes.remove(&id) else {
            let what = format!("{id:?} acknowledged twice");
            self.oracle.violated(Law::Manners, self.now, what);
            return;
        };
        self.counts.published += 1;
        self.oracle.acknowledged(&records, self.step);
        self.judge_copies(at, since, &records);
    }

    /// Puts the wake-up of a node on the agenda.
    fn arm(&mut self, at: usize) {
        let node = &self.nodes[at];
        let Some(wake) = node.wake else { return };
        let due = node.true_time(wake, self.now).max(self.now + 1);
        if node.armed.is_some_and(|armed| armed > self.now && armed <= due) {
            return;
        }
        let life = node.life;
        self.nodes[at].armed = Some(due);
        self.plan(due - self.now, Event::Wake { node: at, life });
    }

    /// The organisations that a node was told it cannot reach.
    pub(super) fn forget_links(&mut self, at: usize) {
        self.nodes[at].told_down = BTreeSet::new();
    }
}
