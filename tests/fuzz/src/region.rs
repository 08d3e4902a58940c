//! A region of one member. Its keys are made from one repeated byte, so that seeds and findings stay valid.

use hie_node_pki::authority::{Approved, RegionAuthority, Validity};
use hie_node_pki::csr::{self, CheckedCsr};
use hie_node_pki::key::Key;
use hie_protocol::id::{Millis, OrgId};
use hie_protocol::registry::{
    BreakGlassRules, ConsentModel, Member, MemberKind, NodeEntry, RegionPolicy, Registry, Standing, TokenParameters,
};

/// The instant at which everything is judged: 2026-11-23T12:00:00Z.
pub const NOW: Millis = Millis(1_795_435_200_000);

/// A region and all that its member holds.
pub struct Region {
    /// Its authority.
    pub authority: RegionAuthority,
    /// The member's id.
    pub org: OrgId,
    /// The member's key.
    pub key: Key,
    /// The member's request for a certificate, DER.
    pub csr: Vec<u8>,
    /// The member's certificate, DER.
    pub leaf: Vec<u8>,
    /// Its registry.
    pub registry: Registry,
}

impl Region {
    /// Makes the region.
    pub fn new() -> Self {
        let validity = Validity {
            not_before: Millis(NOW.0 - 86_400_000),
            not_after: NOW.plus(86_400_000),
        };
        let authority = RegionAuthority::create(fixed_key(1), "Fuzz", validity, [1; 16]).expect("root");
        let org = OrgId::parse("urn:oid:2.999.7.1").expect("an OID URN");
        let key = fixed_key(2);
        let csr = csr::make(&key, &org).expect("request");
        let approved = Approved {
            org: org.clone(),
            hosts: vec!["localhost".into()],
            validity,
            serial: [2; 16],
        };
        let checked = CheckedCsr::check(&csr).expect("own request");
        let leaf = authority.issue(&checked, &approved).expect("leaf");
        let crl = authority.revocation_list(&[], 1, validity).expect("revocation list");
        let registry = registry(&org, &key, authority.root().to_vec(), crl);
        Self {
            authority,
            org,
            key,
            csr,
            leaf,
            registry,
        }
    }
}

impl Default for Region {
    fn default() -> Self {
        Self::new()
    }
}

/// An Ed25519 key whose seed is one repeated byte (PKCS#8, RFC 8410).
pub fn fixed_key(seed: u8) -> Key {
    let mut der = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    ];
    der.extend([seed; 32]);
    Key::from_pkcs8(&der).expect("a PKCS#8 Ed25519 key")
}

/// The region's rules of emergency access.
pub fn break_glass() -> BreakGlassRules {
    BreakGlassRules {
        allowed: true,
        minutes: 60,
        tell_withheld: true,
    }
}

fn registry(org: &OrgId, key: &Key, root: Vec<u8>, crl: Vec<u8>) -> Registry {
    let node = NodeEntry {
        key: key.node_key(),
        public: key.public(),
        control: Some("127.0.0.1:8443".into()),
        bulk: Some("127.0.0.1:8444".into()),
relays: Vec::new(),
    };
    let member = Member {
        org: org.clone(),
        name: "City General".into(),
        kind: MemberKind::Hospital,
        nodes: vec![node],
        roles: Vec::new(),
        standing: Standing::Active,
        phone: None,
term: 0,
    };
    let tokens = TokenParameters {
        profile: "p1".into(),
        epoch: 1,
        threshold: 1,
        authorities: Vec::new(),
resharing: None,
beside: None,
    };
    let policy = RegionPolicy {
        consent: ConsentModel::OptOut,
        break_glass: break_glass(),
        replicas: 3,
        write_quorum: 2,
        record_life_ms: 86_400_000,
        tombstone_life_ms: 864_000_000,
        tokens,
officers: None,
    };
    Registry {
        region: "Fuzz".into(),
        version: 1,
        issued: NOW,
        root,
        crl,
        members: vec![member],
        policy,
    }
}
