//! A region for tests: one authority, two members, its own clock.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hie_node_pki::authority::{Approved, RegionAuthority, Revoked, Validity};
use hie_node_pki::clock::Clock;
use hie_node_pki::csr::{CheckedCsr, make};
use hie_node_pki::identity::NodeIdentity;
use hie_node_pki::key::Key;
use hie_node_pki::membership::{Membership, MembershipCell};
use hie_node_pki::verify::Judge;
use hie_protocol::id::{Millis, OrgId};
use hie_protocol::registry::{
    BreakGlassRules, ConsentModel, Member, MemberKind, NodeEntry, RegionPolicy, Registry, Standing, TokenParameters,
};
use ring::rand::SystemRandom;

/// The instant at which every test plays.
pub const NOW: Millis = Millis(1_790_000_000_000);
/// A day in milliseconds.
pub const DAY: u64 = 24 * 60 * 60 * 1000;

/// A clock that stands.
#[derive(Debug)]
pub struct TestClock(pub Millis);

impl Clock for TestClock {
    fn now(&self) -> Millis {
        self.0
    }
}

pub fn validity() -> Validity {
    Validity {
        not_before: Millis(NOW.0 - DAY),
        not_after: Millis(NOW.0 + 6 * DAY),
    }
}

pub struct Region {
    pub authority: RegionAuthority,
    pub registry: Registry,
    keys: BTreeMap<String, Key>,
    identities: BTreeMap<String, NodeIdentity>,
    serial: AtomicU8,
}

impl Region {
    pub fn new() -> Self {
        Self::named("test region")
    }

    pub fn named(name: &str) -> Self {
        let key = Key::generate(&SystemRandom::new()).unwrap();
        let decade = Validity {
            not_before: Millis(NOW.0 - 99 * DAY),
            not_after: Millis(NOW.0 + 3650 * DAY),
        };
        let authority = RegionAuthority::create(key, name, decade, [1; 16]).unwrap();
        let registry = Registry {
            region: name.to_owned(),
            version: 1,
            issued: NOW,
            root: authority.root().to_vec(),
            crl: Vec::new(),
            members: Vec::new(),
            policy: policy(),
        };
        let mut region = Self {
            authority,
            registry,
            keys: BTreeMap::new(),
            identities: BTreeMap::new(),
            serial: AtomicU8::new(2),
        };
        region.list(&[], (NOW.0 - DAY, NOW.0 + 3 * DAY));
        for org in ["urn:oid:2.999.1", "urn:oid:2.999.2"] {
            region.join(org);
        }
        region
    }

    /// Lets one more member join.
    pub fn join(&mut self, org: &str) {
        let key = Key::generate(&SystemRandom::new()).unwrap();
        let identity = self.certify(&key, org, validity());
        self.registry.members.push(Member {
            org: OrgId::parse(org).unwrap(),
            name: org.to_owned(),
            kind: MemberKind::Hospital,
            nodes: vec![NodeEntry {
                key: key.node_key(),
                public: key.public(),
                control: None,
                bulk: None,
                relays: Vec::new(),
            }],
            roles: Vec::new(),
            standing: Standing::Active,
            phone: None,
            term: 0,
        });
        self.keys.insert(org.to_owned(), key);
        self.identities.insert(org.to_owned(), identity);
    }

    fn certify(&self, key: &Key, org: &str, validity: Validity) -> NodeIdentity {
        let org = OrgId::parse(org).unwrap();
        let request = CheckedCsr::check(&make(key, &org).unwrap()).unwrap();
        let serial = [self.serial.fetch_add(1, Ordering::Relaxed); 16];
        let approved = Approved {
            org,
            hosts: vec!["127.0.0.1".to_owned()],
            validity,
            serial,
        };
        let leaf = self.authority.issue(&request, &approved).unwrap();
        NodeIdentity::new(key.clone(), vec![leaf]).unwrap()
    }

    /// The good identity of a member.
    pub fn node(&self, org: &str) -> NodeIdentity {
        self.identities[org].clone()
    }

    /// A member's key with a leaf of another validity.
    pub fn reissued(&self, org: &str, (not_before, not_after): (u64, u64)) -> NodeIdentity {
        let validity = Validity {
            not_before: Millis(not_before),
            not_after: Millis(not_after),
        };
        self.certify(&self.keys[org], org, validity)
    }

    /// A member's key with a leaf that names another member.
    pub fn misnamed(&self, org: &str, name: &str) -> NodeIdentity {
        self.certify(&self.keys[org], name, validity())
    }

    /// A good leaf for a key that the registry does not know.
    pub fn stranger(&self, org: &str) -> NodeIdentity {
        self.certify(&Key::generate(&SystemRandom::new()).unwrap(), org, validity())
    }

    /// A member's key with a certificate it signed itself.
    pub fn self_signed(&self, org: &str) -> NodeIdentity {
        let key = self.keys[org].clone();
        let own = RegionAuthority::create(key.clone(), org, validity(), [9; 16]).unwrap();
        NodeIdentity::new(key, vec![own.root().to_vec()]).unwrap()
    }

    pub fn revoke(&mut self, org: &str) {
        let serial = self.identities[org].facts().serial.clone();
        let entry = Revoked {
            serial,
            at: Millis(NOW.0 - 1000),
            compromised: true,
        };
        self.list(&[entry], (NOW.0 - DAY, NOW.0 + 3 * DAY));
    }

    pub fn list(&mut self, revoked: &[Revoked], (from, until): (u64, u64)) {
        let life = Validity {
            not_before: Millis(from),
            not_after: Millis(until),
        };
        self.registry.crl = self.authority.revocation_list(revoked, 1, life).unwrap();
    }

    pub fn membership(&self) -> Membership {
        Membership::from_registry(&self.registry).unwrap()
    }

    pub fn judge(&self) -> Arc<Judge> {
        let cell = Arc::new(MembershipCell::new(self.membership()));
        Arc::new(Judge::new(cell, Arc::new(TestClock(NOW))))
    }
}

fn policy() -> RegionPolicy {
    RegionPolicy {
        consent: ConsentModel::OptOut,
        break_glass: BreakGlassRules {
            allowed: true,
            minutes: 60,
            tell_withheld: true,
        },
        replicas: 3,
        write_quorum: 2,
        record_life_ms: DAY,
        tombstone_life_ms: 2 * DAY,
        tokens: TokenParameters {
            profile: "test".to_owned(),
            epoch: 1,
            threshold: 1,
            authorities: Vec::new(),
            resharing: None,
            beside: None,
        },
        officers: None,
    }
}
