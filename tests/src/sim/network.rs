//! The network between the nodes: loss, copies, delay, partitions in both directions or in one.

use std::collections::{BTreeMap, BTreeSet};

use hie_node_federation::port::Input;
use hie_protocol::id::{IndexKey, OrgId};
use hie_protocol::message::IndexMessage;

use super::liar::Taint;
use super::oracle::Law;
use super::world::{Event, World};

/// Datagrams that one node may send in one second of true time, whatever happens.
const SENT_PER_SECOND_MAX: u64 = 400;
/// How long after it took the registry a node may still answer a member that is out, in milliseconds.
const REMOVED_MS_MAX: u64 = 5000;

/// A datagram under way.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub from: usize,
    pub to: usize,
    pub message: IndexMessage,
    /// Whether a liar has put something into it that its receiver must notice.
    pub taint: Taint,
    /// Life of the asker whose question this is, or answers.
    pub life: u64,
}

/// One side of a partition: nothing gets out of it; nothing gets in either unless it is one-way.
#[derive(Clone, Debug)]
struct Partition {
    side: BTreeSet<usize>,
    one_way: bool,
}

/// The state of the network.
#[derive(Debug, Default)]
pub(super) struct Network {
    partitions: BTreeMap<u64, Partition>,
    /// The second in which a node last sent, and how much.
    sent: BTreeMap<usize, (u64, u64)>,
    /// The question that is being answered: its asker, the asker's life, its keys.
    pub answering: Option<(usize, u64, Vec<IndexKey>)>,
    /// Datagrams by kind, and bytes of records in them.
    pub traffic: BTreeMap<&'static str, (u64, u64)>,
}

impl Network {
    fn carries(&self, from: usize, to: usize) -> bool {
        self.partitions.values().all(|one| {
            let (from_in, to_in) = (one.side.contains(&from), one.side.contains(&to));
            from_in == to_in || (one.one_way && to_in)
        })
    }
}

impl World {
    /// Hands a datagram to the network.
    pub(super) fn send(&mut self, from: usize, to: &OrgId, message: IndexMessage) {
        self.judge_sending(from, to, &message);
        let Some(to) = self.at(to) else { return };
        if matches!(message, IndexMessage::Store { .. }) && self.captured.len() < 64 {
            self.captured.push(message.clone());
        }
        let Some((message, taint)) = self.tamper(from, to, message) else {
            return;
        };
        self.dispatch(from, to, message, taint);
    }

    /// A datagram leaves as it is.
    pub(super) fn dispatch(&mut self, from: usize, to: usize, message: IndexMessage, taint: Taint) {
        let traffic = self.network.traffic.entry(kind(&message)).or_default();
        *traffic = (traffic.0 + 1, traffic.1 + record_bytes(&message));
        let life = match &self.network.answering {
            Some((asker, life, _)) if *asker == to && matches!(message, IndexMessage::Found { .. }) => *life,
            _ => self.nodes[from].life,
        };
        let letter = Letter {
            from,
            to,
            message,
            taint,
            life,
        };
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
            self.plan(latency, Event::Deliver(Box::new(letter.clone())));
        }
    }

    /// No storm, and nothing for whom the sender knows to be out.
    fn judge_sending(&mut self, from: usize, to: &OrgId, message: &IndexMessage) {
        let second = self.now / 1000;
        let sent = self.network.sent.entry(from).or_default();
        *sent = if sent.0 == second {
            (second, sent.1 + 1)
        } else {
            (second, 1)
        };
        if sent.1 == SENT_PER_SECOND_MAX * self.nodes.len().div_ceil(10) as u64 {
            let what = format!("{} sent {} datagrams in one second", self.nodes[from].org, sent.1);
            self.oracle.violated(Law::Storm, self.now, what);
        }
        let knows = self.nodes[from].knows_out.get(to);
        if knows.is_some_and(|since| self.now > since + REMOVED_MS_MAX) {
            let what = format!("{} sent {} to {to}", self.nodes[from].org, kind(message));
            self.oracle.violated(Law::Removed, self.now, what);
        }
    }

    pub(super) fn deliver(&mut self, letter: Letter) {
        let Letter {
            from,
            to,
            message,
            taint,
            life,
        } = letter;
        if !self.network.carries(from, to) || self.nodes[to].machine.is_none() {
            return;
        }
        self.counts.delivered += 1;
        let org = self.nodes[from].org.clone();
        let mut cause = None;
        match &message {
            // An answer to a question of an earlier life answers nothing.
            IndexMessage::Found { id, whole, next, .. } => {
                if taint == Taint::Guessed && self.oracle.is_asked(to, *id, &org) {
                    // What looked like somebody else's turned out to be its own.
                    return;
                }
                let mine = life == self.nodes[to].life || self.is_liar(from);
                cause = self.oracle.cause(to, *id).filter(|_| mine);
                if matches!(&taint, Taint::Foreign(_, key) if self.oracle.asks_for(cause, key)) {
                    // Whether it fits depends on what came before: not a clear lie.
                    return;
                }
                let tainted = self.shows(to, &taint);
                if cause.is_some() && self.counts_as_member(to, &org) {
                    self.oracle.delivered(to, &org, *id, *whole && next.is_none(), tainted);
                }
            }
            IndexMessage::Lookup { id, keys, .. } => {
                self.overhear(to, from, *id, keys);
                self.network.answering = Some((from, life, keys.clone()));
            }
            _ => {}
        }
        self.input(to, Input::Received { from: org, message }, cause);
        self.network.answering = None;
    }

    /// Whether the receiver must notice what was put into an answer.
    fn shows(&self, to: usize, taint: &Taint) -> bool {
        match taint {
            Taint::Clean | Taint::Guessed => false,
            Taint::Forged => true,
            Taint::Foreign(owner, _) => self.counts_as_member(to, owner),
        }
    }

    /// The network divides.
    pub(super) fn divide(&mut self, one_way: bool) {
        let side: BTreeSet<usize> = (0..self.nodes.len()).filter(|_| self.rng.chance(400)).collect();
        let partition = self.scheduled;
        self.counts.partitions += 1;
        for node in 0..self.nodes.len() {
            for other in 0..self.nodes.len() {
                if side.contains(&node) != side.contains(&other) && self.rng.chance(600) {
                    let (after, life) = (self.rng.range(100, 2000), self.nodes[node].life);
                    let up = false;
                    self.plan(after, Event::Link { node, other, life, up });
                }
            }
        }
        self.network.partitions.insert(partition, Partition { side, one_way });
        let lasts = self.rng.range(500, 30_000);
        self.plan(lasts, Event::Heal { partition });
    }

    pub(super) fn heal(&mut self, partition: u64) {
        if self.network.partitions.remove(&partition).is_none() {
            return;
        }
        for node in 0..self.nodes.len() {
            let life = self.nodes[node].life;
            for other in 0..self.nodes.len() {
                let told = self.nodes[node].told_down.contains(&self.nodes[other].org);
                if node != other && (told || self.rng.chance(500)) {
                    let after = self.rng.range(1, 500);
                    let up = true;
                    self.plan(after, Event::Link { node, other, life, up });
                }
            }
        }
    }

    pub(super) fn heal_all(&mut self) {
        let partitions: Vec<u64> = self.network.partitions.keys().copied().collect();
        for partition in partitions {
            self.heal(partition);
        }
    }

    /// The shell of a node says that a channel opened or closed.
    pub(super) fn link(&mut self, node: usize, other: usize, life: u64, up: bool) {
        let parted = !self.network.carries(node, other) || !self.network.carries(other, node);
        // What was foreseen when a partition began or ended may have been overtaken by the next.
        if !self.lives(node, life) || node == other || parted == up {
            return;
        }
        let org = self.nodes[other].org.clone();
        if up {
            self.nodes[node].told_down.remove(&org);
        } else {
            self.nodes[node].told_down.insert(org.clone());
        }
        self.input(node, Input::Link { org, up }, None);
    }
}

/// Name of a kind of datagram.
fn kind(message: &IndexMessage) -> &'static str {
    match message {
        IndexMessage::Store { .. } => "store",
        IndexMessage::Stored { .. } => "stored",
        IndexMessage::Lookup { .. } => "lookup",
        IndexMessage::Found { .. } => "found",
        IndexMessage::Beat { .. } => "beat",
        IndexMessage::Compare { .. } => "compare",
        IndexMessage::Compared { .. } => "compared",
        IndexMessage::Digest { .. } => "digest",
        IndexMessage::Pull { .. } => "pull",
        IndexMessage::Pulled { .. } => "pulled",
    }
}

fn record_bytes(message: &IndexMessage) -> u64 {
    let records: Vec<usize> = match message {
        IndexMessage::Store { records, .. } => records.iter().map(|one| one.0.len()).collect(),
        IndexMessage::Pulled { records, .. } => records.iter().map(|one| one.0.len()).collect(),
        IndexMessage::Found { records, .. } => records.iter().flatten().map(|one| one.0.len()).collect(),
        _ => Vec::new(),
    };
    records.iter().sum::<usize>() as u64
}
