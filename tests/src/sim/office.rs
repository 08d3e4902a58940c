//! The region office: who joins, is suspended, returns, leaves, is revoked, and who holds the index.

use hie_node_federation::port::Input;
use hie_protocol::id::OrgId;
use hie_protocol::message::IndexMessage;
use hie_protocol::registry::{MemberRole, Registry, Standing};

use super::liar::Taint;
use super::node::{EPOCH_MS, is_active, member};
use super::world::{Event, World};

/// Fewest holders that the office leaves in place.
const HOLDERS_MIN: usize = 3;

impl World {
    /// The office signs a new version.
    pub(super) fn change_members(&mut self) {
        let mut next = self.registries.last().expect("a registry").clone();
        let out: Vec<usize> = (0..self.nodes.len())
            .filter(|at| !is_active(&next, &self.nodes[*at].org))
            .collect();
        let holders: Vec<OrgId> = next
            .with_role(MemberRole::IndexHolder)
            .map(|one| one.org.clone())
            .collect();
        match self.rng.index(10) {
            0..=1 if holders.len() > HOLDERS_MIN => self.change_holders(&mut next),
            _ if !out.is_empty() && (holders.len() < 5 || self.rng.chance(600)) => {
                let at = out[self.rng.index(out.len())];
                let entry = member(&self.nodes[at], true);
                next.members.retain(|one| one.org != entry.org);
                next.members.push(entry);
                next.members.sort_by(|left, right| left.org.cmp(&right.org));
            }
            _ if holders.len() > HOLDERS_MIN => {
                let org = holders[self.rng.index(holders.len())].clone();
                self.exclude(&mut next, &org);
            }
            _ => self.change_holders(&mut next),
        }
        next.version += 1;
        self.registries.push(next);
        self.spread();
        if self.now + 100_000 < self.climate.faulty_ms() {
            let after = self.rng.range(40_000, 90_000);
            self.plan(after, Event::ChangeMembers);
        }
    }

    /// One member begins to hold the index, or ends to.
    fn change_holders(&mut self, next: &mut Registry) {
        let at = self.rng.index(next.members.len());
        let entry = &mut next.members[at];
        if entry.standing != Standing::Active {
            return;
        }
        if entry.roles.contains(&MemberRole::IndexHolder) {
            entry.roles.clear();
        } else {
            entry.roles.push(MemberRole::IndexHolder);
        }
    }

    fn exclude(&mut self, next: &mut Registry, org: &OrgId) {
        let since = hie_protocol::id::Millis(EPOCH_MS + self.now);
        let suspended = self.rng.chance(400);
        let gone = next.members.iter_mut().find(|one| one.org == *org);
        let gone = gone.expect("a holder is a member");
        gone.standing = if suspended {
            Standing::Suspended(since)
        } else {
            Standing::Revoked(since)
        };
        gone.term += 1;
        self.oracle.departed.insert(org.clone());
    }

    /// The newest version goes to every node, at different times. Who is out may never hear of it.
    fn spread(&mut self) {
        let version = self.registries.len() - 1;
        for node in 0..self.nodes.len() {
            let after = self.rng.range(20, 6000);
            let out = !is_active(&self.registries[version], &self.nodes[node].org);
            if out && self.rng.chance(500) {
                let intrudes = self.rng.range(1000, 8000);
                self.plan(intrudes, Event::Intrude { node });
            }
            self.plan(after, Event::Registry { node, version });
        }
    }

    /// Who was put out asks as if it were still in.
    pub(super) fn intrude(&mut self, node: usize) {
        let org = self.nodes[node].org.clone();
        if self.calm || is_active(self.registries.last().expect("a registry"), &org) {
            return;
        }
        let to = self.rng.index(self.nodes.len());
        let id = self.rng.next();
        let keys = vec![self.keys[self.rng.index(self.keys.len())]];
        if to != node {
            let question = IndexMessage::Lookup { id, keys, after: None };
            self.dispatch(node, to, question, Taint::Clean);
        }
        let next = self.rng.range(1000, 8000);
        self.plan(next, Event::Intrude { node });
    }

    pub(super) fn hand_registry(&mut self, at: usize, version: usize) {
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
        for member in &registry.members {
            if member.standing == Standing::Active {
                node.knows_out.remove(&member.org);
            } else {
                node.knows_out.entry(member.org.clone()).or_insert(self.now);
            }
        }
        node.registry = Some(registry.clone());
        if joins {
            self.start(at);
        } else {
            self.input(at, Input::Registry(Box::new(registry)), None);
        }
    }

    /// Whether a node's own registry counts an organisation as a member.
    pub(super) fn counts_as_member(&self, at: usize, org: &OrgId) -> bool {
        let registry = self.nodes[at].registry.as_ref();
        registry.is_some_and(|registry| is_active(registry, org))
    }
}
