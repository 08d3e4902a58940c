//! One organisation's node: its key, its clock, its disk, and the machine while it runs.

use std::collections::{BTreeMap, BTreeSet};

use hie_node_federation::config::Config;
use hie_node_federation::machine::Federation;
use hie_protocol::id::{Millis, NodeKey, OrgId, PublicKey, Sequence, Signature};
use hie_protocol::registry::{
    BreakGlassRules, ConsentModel, Member, MemberKind, MemberRole, NodeEntry, RegionPolicy, Registry, Standing,
    TokenParameters,
};
use hie_protocol::sign::Signer;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::disk::Disk;

/// The calendar time at which every run starts.
pub const EPOCH_MS: u64 = 1_900_000_000_000;

/// A signing key made from a number.
#[derive(Debug)]
pub struct SimKey {
    pair: Ed25519KeyPair,
    node: NodeKey,
}

impl SimKey {
    /// The key of node number `at`.
    #[must_use]
    pub fn new(at: usize) -> Self {
        let seed = [u8::try_from(at).unwrap() + 1; 32];
        Self {
            pair: Ed25519KeyPair::from_seed_unchecked(&seed).unwrap(),
            node: NodeKey::new(seed),
        }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::from_slice(self.pair.public_key().as_ref()).unwrap()
    }
}

impl Signer for SimKey {
    fn node(&self) -> NodeKey {
        self.node
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_slice(self.pair.sign(message).as_ref()).unwrap()
    }
}

/// A signer that claims to be another node.
#[derive(Debug)]
pub struct Impostor<'a>(pub &'a SimKey, pub NodeKey);

impl Signer for Impostor<'_> {
    fn node(&self) -> NodeKey {
        self.1
    }

    fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message)
    }
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its organisation.
    pub org: OrgId,
    /// Its key.
    pub key: SimKey,
    /// Its disk.
    pub disk: Disk,
    /// The machine; none while the node is down.
    pub machine: Option<Federation>,
    /// Grows with every start.
    pub life: u64,
    /// The registry that it has on disk; none before it joins.
    pub registry: Option<Registry>,
    /// Milliseconds that its clock is off.
    pub clock_off: i64,
    /// Microseconds that its clock gains in a second.
    pub drift_ppm: i64,
    /// Its durable counter.
    pub counter: u64,
    /// Whom it was told that it cannot reach.
    pub told_down: BTreeSet<OrgId>,
    /// When its machine last started, in true time.
    pub up_since: u64,
    /// When its disk was last lost or set back, in true time.
    pub lost_disk: Option<u64>,
    /// The true time since which its registry has these members out.
    pub knows_out: BTreeMap<OrgId, u64>,
    /// When it wants to be woken, by its own clock.
    pub wake: Option<Millis>,
    /// The latest wake-up on the agenda, in true time.
    pub armed: Option<u64>,
    /// When its disk is next free, in true time.
    pub disk_free: u64,
}

impl Node {
    /// Node number `at`, not yet joined.
    #[must_use]
    pub fn new(at: usize) -> Self {
        Self {
            org: OrgId::parse(&format!("urn:oid:2.999.{}", at + 1)).unwrap(),
            key: SimKey::new(at),
            disk: Disk::default(),
            machine: None,
            life: 0,
            registry: None,
            clock_off: 0,
            drift_ppm: 0,
            counter: 0,
            told_down: BTreeSet::new(),
            up_since: 0,
            lost_disk: None,
            knows_out: BTreeMap::new(),
            wake: None,
            armed: None,
            disk_free: 0,
        }
    }

    /// Its clock at a true time.
    #[must_use]
    pub fn clock(&self, now: u64) -> Millis {
        Millis((EPOCH_MS + now).saturating_add_signed(self.off(now)))
    }

    /// How far its clock is off at a true time, in milliseconds.
    #[must_use]
    pub const fn off(&self, now: u64) -> i64 {
        self.clock_off + now as i64 * self.drift_ppm / 1_000_000
    }

    /// The true time of a time on its clock, not before `now` and not more than a millisecond too early.
    #[must_use]
    pub fn true_time(&self, at: Millis, now: u64) -> u64 {
        let wait = at.since(self.clock(now)) as i64;
        now + (wait - wait * self.drift_ppm / 1_000_000).max(0) as u64
    }

    /// The next sequence.
    pub const fn sequence(&mut self) -> Sequence {
        self.counter += 1;
        Sequence(self.counter)
    }

    /// Whether it runs and its own registry counts it as a member.
    #[must_use]
    pub fn takes_part(&self) -> bool {
        self.machine.is_some()
            && self
                .registry
                .as_ref()
                .is_some_and(|registry| is_active(registry, &self.org))
    }

    /// Starts the machine from the disk.
    pub fn start(&mut self, config: Config) {
        let registry = self.registry.clone().expect("a node starts with a registry");
        self.life += 1;
        self.told_down.clear();
        self.machine = Some(Federation::restore(config, registry, &self.disk));
        (self.wake, self.armed) = (None, None);
    }
}

/// Whether a registry counts an organisation as a member.
#[must_use]
pub fn is_active(registry: &Registry, org: &OrgId) -> bool {
    registry
        .member(org)
        .is_some_and(|member| member.standing == Standing::Active)
}

/// The entry of a node in the registry.
#[must_use]
pub fn member(node: &Node, holder: bool) -> Member {
    Member {
        org: node.org.clone(),
        name: format!("Organisation {}", node.org),
        kind: MemberKind::Hospital,
        nodes: vec![NodeEntry {
            key: node.key.node,
            public: node.key.public(),
            control: None,
            bulk: None,
            relays: Vec::new(),
        }],
        roles: if holder {
            vec![MemberRole::IndexHolder]
        } else {
            Vec::new()
        },
        standing: Standing::Active,
        phone: None,
        term: 0,
    }
}

/// A first registry.
#[must_use]
pub fn registry(mut members: Vec<Member>, record_life_ms: u64) -> Registry {
    members.sort_by(|left, right| left.org.cmp(&right.org));
    Registry {
        region: "Simulated region".into(),
        version: 1,
        issued: Millis(EPOCH_MS),
        root: Vec::new(),
        crl: Vec::new(),
        members,
        policy: RegionPolicy {
            consent: ConsentModel::OptOut,
            break_glass: BreakGlassRules {
                allowed: true,
                minutes: 60,
                tell_withheld: false,
            },
            replicas: 3,
            write_quorum: 2,
            record_life_ms,
            tombstone_life_ms: record_life_ms * 2,
            tokens: TokenParameters {
                profile: "sim".into(),
                epoch: 1,
                threshold: 1,
                authorities: Vec::new(),
                resharing: None,
                beside: None,
            },
            officers: None,
        },
    }
}
