//! The world: an agenda in true time, a network that misbehaves, nodes that fall and rise.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use hie_node_federation::config::{Config, Planted};
use hie_node_federation::placement::placement;
use hie_node_federation::port::{AskId, Effect, Input, Misbehaviour, PublishId};
use hie_node_federation::table::{Entry, Kept, Table, record_key};
use hie_protocol::id::{IndexKey, Millis, OrgId};
use hie_protocol::message::IndexMessage;
use hie_protocol::record::{IndexRecord, RecordId};
use hie_protocol::registry::{MemberRole, Registry, Standing};

use super::node::{Node, is_active, member, registry};
use super::oracle::{Oracle, Violation};
use super::rng::Rng;

/// Simulated time with faults, in milliseconds.
pub const FAULTY_MS: u64 = 540_000;
/// Simulated time of a whole run, in milliseconds: ten minutes.
pub const RUN_MS: u64 = 600_000;
/// When, after the faults, everything must have healed, in milliseconds.
const HEALED_MS: u64 = FAULTY_MS + 45_000;

/// What is on the agenda.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Deliver {
        from: usize,
        to: usize,
        message: IndexMessage,
        tainted: bool,
    },
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
        id: hie_node_federation::port::PersistId,
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
    ChangeMembers,
    Publish,
    Ask,
    Lie,
    EndFaults,
    Judge,
    FinalAsk {
        node: usize,
    },
}

/// What the seed decides about a run.
#[derive(Clone, Debug)]
pub(super) struct Climate {
    pub loss: u64,
    pub duplicate: u64,
    pub slow: u64,
    pub sync_ms: u64,
    pub fault_every_ms: u64,
    pub changes_members: bool,
    pub liar: Option<usize>,
    /// Whether the liar leaves records out of its answers.
    pub omits: bool,
    pub record_life_ms: u64,
}

/// A run.
#[derive(Debug)]
pub struct World {
    pub(super) rng: Rng,
    pub(super) now: u64,
    pub(super) step: u64,
    agenda: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) climate: Climate,
    pub(super) registries: Vec<Registry>,
    /// Side of each node per partition in force.
    partitions: BTreeMap<u64, BTreeSet<usize>>,
    pub(super) oracle: Oracle,
    pub(super) planted: Option<Planted>,
    pub(super) keys: Vec<IndexKey>,
    pub(super) publishes: BTreeMap<PublishId, Vec<(RecordId, u64)>>,
    pub(super) captured: Vec<IndexMessage>,
    pub(super) calm: bool,
    trace: DefaultHasher,
    pub(super) counts: Counts,
}

/// What happened in a run, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Publishes acknowledged.
    pub published: u64,
    /// Complete answers judged.
    pub complete: u64,
    /// Partial answers judged.
    pub partial: u64,
    /// Crashes.
    pub crashes: u64,
    /// Registry versions.
    pub registries: u64,
    /// Records renewed.
    pub renewed: u64,
    /// Misbehaviour reported.
    pub misbehaved: u64,
    /// Datagrams delivered.
    pub delivered: u64,
    /// Answers from which a liar left everything out.
    pub omitted: u64,
    /// Omissions reported.
    pub named: u64,
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
    let mut world = World::new(seed, planted);
    while let Some(((at, _), event)) = world.agenda.pop_first() {
        if at > RUN_MS {
            break;
        }
        world.now = at;
        world.step += 1;
        world.happen(event);
    }
    world.oracle.overdue(RUN_MS + 60_000);
    world.counts.complete = world.oracle.judged.0;
    world.counts.partial = world.oracle.judged.1;
    world.counts.registries = world.registries.len() as u64;
    Report {
        seed,
        trace: world.trace.finish(),
        counts: world.counts,
        violations: world.oracle.violations,
    }
}

impl World {
    fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut rng = Rng::new(seed);
        let members = rng.index(4) + 4;
        let nodes: Vec<Node> = (0..members + 2).map(Node::new).collect();
        let climate = Climate {
            loss: [0, 20, 50, 150][rng.index(4)],
            duplicate: [0, 20, 100][rng.index(3)],
            slow: [0, 20, 100][rng.index(3)],
            sync_ms: [3, 20, 200][rng.index(3)],
            fault_every_ms: [8_000, 15_000, 40_000][rng.index(3)],
            changes_members: rng.chance(500),
            liar: rng.chance(600).then(|| members - 1),
            omits: rng.chance(600),
            record_life_ms: [120_000, 400_000, 1_800_000][rng.index(3)],
        };
        let first: Vec<_> = nodes[..members]
            .iter()
            .map(|node| member(node, !rng.chance(100)))
            .collect();
        let first = registry(first, climate.record_life_ms);
        let keys = (0..12).map(|_| IndexKey::new(rng.bytes32())).collect();
        let oracle = Oracle::new(climate.record_life_ms, climate.record_life_ms * 2);
        let mut world = Self {
            rng,
            now: 0,
            step: 0,
            agenda: BTreeMap::new(),
            scheduled: 0,
            nodes,
            climate,
            registries: vec![first],
            partitions: BTreeMap::new(),
            oracle,
            planted,
            keys,
            publishes: BTreeMap::new(),
            captured: Vec::new(),
            calm: false,
            trace: DefaultHasher::new(),
            counts: Counts::default(),
        };
        world.prepare(members);
        world
    }

    fn prepare(&mut self, members: usize) {
        for at in 0..members {
            self.nodes[at].registry = Some(self.registries[0].clone());
            self.nodes[at].clock_off = self.rng.range(0, 4000) as i64 - 2000;
            self.start(at);
        }
        let fault = self.rng.range(2000, self.climate.fault_every_ms);
        self.plan(fault, Event::Fault);
        if self.climate.changes_members {
            let change = self.rng.range(60_000, 120_000);
            self.plan(change, Event::ChangeMembers);
        }
        if self.climate.liar.is_some() {
            self.plan(3000, Event::Lie);
        }
        self.plan(4000, Event::Publish);
        self.plan(5000, Event::Ask);
        self.plan(FAULTY_MS, Event::EndFaults);
        self.plan(HEALED_MS, Event::Judge);
    }

    pub(super) fn plan(&mut self, after_ms: u64, event: Event) {
        self.scheduled += 1;
        self.agenda.insert((self.now + after_ms, self.scheduled), event);
    }

    /// Where a node is in the list.
    pub(super) fn at(&self, org: &OrgId) -> Option<usize> {
        self.nodes.iter().position(|node| node.org == *org)
    }

    fn start(&mut self, at: usize) {
        let config = Config::new(self.nodes[at].org.clone(), self.rng.next()).with_planted(self.planted);
        self.nodes[at].start(config);
        self.input(at, Input::Tick, None);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver {
                from,
                to,
                message,
                tainted,
            } => self.deliver(from, to, message, tainted),
            Event::Wake { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].machine.is_some() {
                    self.nodes[node].armed = None;
                    self.input(node, Input::Tick, None);
                }
            }
            Event::Synced { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].machine.is_some() {
                    let id = self.nodes[node].disk.sync().expect("a batch was written");
                    let after = self.rng.range(0, 3);
                    self.plan(after, Event::Persisted { node, life, id });
                }
            }
            Event::Persisted { node, life, id } => {
                if self.nodes[node].life == life {
                    self.input(node, Input::Persisted(id), None);
                }
            }
            Event::Restart { node } => {
                if self.nodes[node].machine.is_none() && self.nodes[node].registry.is_some() {
                    self.start(node);
                }
            }
            Event::Registry { node, version } => self.hand_registry(node, version),
            Event::Fault => self.fault(),
            Event::Heal { partition } => self.heal(partition),
            Event::ChangeMembers => self.change_members(),
            Event::Publish => self.publish_something(),
            Event::Ask => self.ask_something(),
            Event::Lie => self.lie(),
            Event::EndFaults => self.end_faults(),
            Event::Judge => self.judge(),
            Event::FinalAsk { node } => self.final_ask(node),
        }
    }

    /// Feeds a machine and carries out what it says.
    pub(super) fn input(&mut self, at: usize, input: Input, cause: Option<AskId>) {
        let now = self.nodes[at].clock(self.now);
        let node = &mut self.nodes[at];
        let Some(machine) = node.machine.as_mut() else { return };
        let effects = machine.step(now, input, &node.disk);
        (self.now, at, effects.len()).hash(&mut self.trace);
        for effect in effects {
            self.carry_out(at, effect, cause);
        }
        self.arm(at);
    }

    fn carry_out(&mut self, at: usize, effect: Effect, cause: Option<AskId>) {
        match effect {
            Effect::Persist { id, changes } => {
                (id, changes.len()).hash(&mut self.trace);
                let took = self.rng.range(1, self.climate.sync_ms);
                let life = self.nodes[at].life;
                let done = self.nodes[at].disk_free.max(self.now) + took;
                self.nodes[at].disk_free = done;
                self.nodes[at].disk.write(id, changes);
                self.plan(done - self.now, Event::Synced { node: at, life });
            }
            Effect::Send { to, message } => {
                if let IndexMessage::Lookup { id, keys, .. } = &message {
                    self.oracle.lookup(cause, at, *id, &to, keys);
                }
                self.send(at, &to, message);
            }
            Effect::Published { id } => {
                self.counts.published += 1;
                id.hash(&mut self.trace);
                let records = self.publishes.remove(&id).expect("acknowledged once");
                self.oracle.acknowledged(&records, self.step);
            }
            Effect::Answer { id, outcome } => {
                id.hash(&mut self.trace);
                self.oracle.answered(id, &outcome, self.now);
            }
            Effect::Renew { records } => {
                self.counts.renewed += records.len() as u64;
                self.renew(at, records);
            }
            Effect::Misbehaved { org, what } => {
                self.counts.misbehaved += 1;
                if what == Misbehaviour::Omitted {
                    self.counts.named += 1;
                    let liar = self.climate.liar.filter(|_| self.climate.omits);
                    self.oracle
                        .named(self.now, &org, liar.map(|liar| self.nodes[liar].org.clone()));
                }
            }
            Effect::WakeAt(time) => self.nodes[at].wake = Some(time),
            Effect::Declined { request, why } => panic!("{request:?} declined at {}: {why}", self.nodes[at].org),
        }
    }

    /// Puts the wake-up of a node on the agenda.
    fn arm(&mut self, at: usize) {
        let node = &self.nodes[at];
        let Some(wake) = node.wake else { return };
        let due = node.true_time(wake).max(self.now + 1);
        if node.armed.is_some_and(|armed| armed > self.now && armed <= due) {
            return;
        }
        let life = node.life;
        self.nodes[at].armed = Some(due);
        self.plan(due - self.now, Event::Wake { node: at, life });
    }

    fn connected(&self, left: usize, right: usize) -> bool {
        self.partitions
            .values()
            .all(|side| side.contains(&left) == side.contains(&right))
    }

    /// Hands a datagram to the network.
    pub(super) fn send(&mut self, from: usize, to: &OrgId, message: IndexMessage) {
        let Some(to) = self.at(to) else { return };
        let (message, tainted) = self.tamper(from, message);
        if matches!(message, IndexMessage::Store { .. }) && self.captured.len() < 64 {
            self.captured.push(message.clone());
        }
        let copies = 1 + usize::from(!self.calm && self.rng.chance(self.climate.duplicate));
        for _ in 0..copies {
            if !self.calm && self.rng.chance(self.climate.loss) {
                continue;
            }
            let slow = !self.calm && self.rng.chance(self.climate.slow);
            let latency = if slow {
                self.rng.range(100, 4000)
            } else {
                self.rng.range(2, 40)
            };
            self.plan(
                latency,
                Event::Deliver {
                    from,
                    to,
                    message: message.clone(),
                    tainted,
                },
            );
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: IndexMessage, tainted: bool) {
        if !self.connected(from, to) || self.nodes[to].machine.is_none() {
            return;
        }
        self.counts.delivered += 1;
        let org = self.nodes[from].org.clone();
        let mut cause = None;
        if let IndexMessage::Found { id, whole, next, .. } = &message {
            cause = self.oracle.cause(to, *id);
            if self.nodes[to]
                .registry
                .as_ref()
                .is_some_and(|registry| is_active(registry, &org))
            {
                self.oracle.delivered(to, &org, *id, *whole && next.is_none(), tainted);
            }
        }
        self.input(to, Input::Received { from: org, message }, cause);
    }

    fn fault(&mut self) {
        if self.calm {
            return;
        }
        match self.rng.index(10) {
            0..=3 => {
                let at = self.rng.index(self.nodes.len());
                self.crash(at);
            }
            4 => {
                // A power cut takes several at the same instant.
                for at in 0..self.nodes.len() {
                    if self.rng.chance(600) {
                        self.crash(at);
                    }
                }
            }
            5..=7 => {
                let side = (0..self.nodes.len()).filter(|_| self.rng.chance(400)).collect();
                let partition = self.scheduled;
                self.partitions.insert(partition, side);
                let lasts = self.rng.range(500, 30_000);
                self.plan(lasts, Event::Heal { partition });
            }
            _ => {
                let at = self.rng.index(self.nodes.len());
                self.nodes[at].clock_off = self.rng.range(0, 8000) as i64 - 4000;
                self.input(at, Input::Tick, None);
            }
        }
        let next = self.rng.range(1000, self.climate.fault_every_ms * 2);
        self.plan(next, Event::Fault);
    }

    fn crash(&mut self, at: usize) {
        if self.nodes[at].machine.take().is_none() {
            return;
        }
        self.counts.crashes += 1;
        self.nodes[at].disk.cut();
        self.nodes[at].disk_free = self.now;
        self.oracle.crashed(at);
        let down = self.rng.range(200, 20_000);
        self.plan(down, Event::Restart { node: at });
    }

    fn heal(&mut self, partition: u64) {
        if self.partitions.remove(&partition).is_none() || self.rng.chance(500) {
            return;
        }
        for at in 0..self.nodes.len() {
            for other in 0..self.nodes.len() {
                if at != other && self.nodes[at].machine.is_some() {
                    let org = self.nodes[other].org.clone();
                    self.input(at, Input::Link { org, up: true }, None);
                }
            }
        }
    }

    /// The region authority signs a new version: somebody leaves, comes, or returns.
    fn change_members(&mut self) {
        let mut next = self.registries.last().expect("a registry").clone();
        let out: Vec<usize> = (0..self.nodes.len())
            .filter(|at| !is_active(&next, &self.nodes[*at].org))
            .collect();
        let holders: Vec<OrgId> = next
            .with_role(MemberRole::IndexHolder)
            .map(|one| one.org.clone())
            .collect();
        if !out.is_empty() && (holders.len() < 5 || self.rng.chance(600)) {
            let at = out[self.rng.index(out.len())];
            let entry = member(&self.nodes[at], true);
            next.members.retain(|one| one.org != entry.org);
            next.members.push(entry);
            next.members.sort_by(|left, right| left.org.cmp(&right.org));
        } else {
            let org = holders[self.rng.index(holders.len())].clone();
            let gone = next
                .members
                .iter_mut()
                .find(|one| one.org == org)
                .expect("a holder is a member");
            gone.standing = Standing::Revoked(Millis(self.now));
            self.oracle.departed.insert(org);
        }
        next.version += 1;
        self.registries.push(next);
        let version = self.registries.len() - 1;
        for node in 0..self.nodes.len() {
            let after = self.rng.range(20, 6000);
            self.plan(after, Event::Registry { node, version });
        }
        // Nobody is away for longer than this, so nobody misses a version.
        if self.now + 200_000 < FAULTY_MS {
            let after = self.rng.range(90_000, 140_000);
            self.plan(after, Event::ChangeMembers);
        }
    }

    fn hand_registry(&mut self, at: usize, version: usize) {
        let registry = self.registries[version].clone();
        let node = &mut self.nodes[at];
        let joins = node.registry.is_none();
        if joins && !is_active(&registry, &node.org) {
            return;
        }
        if node
            .registry
            .as_ref()
            .is_some_and(|held| held.version >= registry.version)
        {
            return;
        }
        if !joins && node.machine.is_none() {
            self.plan(1000, Event::Registry { node: at, version });
            return;
        }
        node.registry = Some(registry.clone());
        if joins {
            self.start(at);
        } else {
            self.input(at, Input::Registry(Box::new(registry)), None);
        }
    }

    fn end_faults(&mut self) {
        self.calm = true;
        let partitions: Vec<u64> = self.partitions.keys().copied().collect();
        for partition in partitions {
            self.heal(partition);
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].machine.is_none() && self.nodes[at].registry.is_some() {
                self.start(at);
            }
        }
    }

    /// The faults are over and time has passed: everything must be everywhere.
    fn judge(&mut self) {
        let registry = self.registries.last().expect("a registry").clone();
        let mut oracle = std::mem::replace(&mut self.oracle, Oracle::new(0, 0));
        oracle.overdue(self.now);
        oracle.converged(self.now, |id| {
            let holders = placement(&id.key, &registry).into_iter();
            holders
                .map(|org| (org.clone(), self.at(&org).and_then(|at| self.on_disk(at, id))))
                .collect()
        });
        self.oracle = oracle;
        for node in 0..self.nodes.len() {
            if is_active(&registry, &self.nodes[node].org) {
                self.plan(10 + node as u64, Event::FinalAsk { node });
            }
        }
    }

    fn on_disk(&self, at: usize, id: &RecordId) -> Option<IndexRecord> {
        let bytes = self.nodes[at].disk.get(Table::Held, &record_key(id))?;
        Entry::decode(&bytes)?.record()
    }
}
