//! Which certificates two nodes accept from each other, over real TLS 1.3 in memory (SPEC P-TLS).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod region;

use std::sync::Arc;

use hie_node_pki::config::{Channel, enrolment_client, enrolment_server, node_client, node_server};
use hie_node_pki::identity::{IdentityCell, NodeIdentity};
use hie_node_pki::key::Key;
use hie_node_pki::refusal::{CertificateRefusal, Refused};
use hie_node_pki::verify::Side;
use hie_protocol::id::NodeKey;
use hie_protocol::registry::Standing;
use hie_protocol::sign::Signer as _;
use ring::rand::SystemRandom;
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use rustls::{ClientConfig, ClientConnection, Error as TlsError, ServerConfig, ServerConnection};

use region::{DAY, NOW, Region, TestClock};

/// Outcome of one side.
type Outcome = Result<(), TlsError>;

/// Runs a handshake in memory until both sides are done or broken.
fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (Outcome, Outcome) {
    let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let (mut client_end, mut server_end) = (Ok(()), Ok(()));
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() && server_end.is_ok() {
            server.read_tls(&mut rest).unwrap();
            server_end = server.process_new_packets().map(|_| ());
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() && client_end.is_ok() {
            client.read_tls(&mut rest).unwrap();
            client_end = client.process_new_packets().map(|_| ());
        }
    }
    if client_end.is_ok() && server_end.is_ok() {
        assert!(!client.is_handshaking() && !server.is_handshaking());
    }
    (client_end, server_end)
}

/// Both sides of a handshake between `dialler` and a good acceptor of `region`, with the reason each side can log.
fn dial(region: &Region, dialler: NodeIdentity) -> (Option<Refused>, Option<Refused>) {
    let acceptor = region.node("urn:oid:2.999.2");
    let judge = region.judge();
    let server = node_server(Channel::Control, cell(acceptor.clone()), Arc::clone(&judge)).unwrap();
    let client = node_client(Channel::Control, cell(dialler.clone()), judge).unwrap();
    let (at_client, at_server) = shake(client, server);
    read(at_client, &dialler, at_server, &acceptor)
}

/// Both sides of a handshake where the acceptor is the odd one.
fn accept(region: &Region, acceptor: NodeIdentity) -> (Option<Refused>, Option<Refused>) {
    let dialler = region.node("urn:oid:2.999.2");
    let judge = region.judge();
    let server = node_server(Channel::Bulk, cell(acceptor.clone()), Arc::clone(&judge)).unwrap();
    let client = node_client(Channel::Bulk, cell(dialler.clone()), judge).unwrap();
    let (at_client, at_server) = shake(client, server);
    read(at_client, &dialler, at_server, &acceptor)
}

fn read(
    at_client: Outcome,
    dialler: &NodeIdentity,
    at_server: Outcome,
    acceptor: &NodeIdentity,
) -> (Option<Refused>, Option<Refused>) {
    let of = |outcome: Outcome, own: &NodeIdentity| {
        outcome
            .err()
            .map(|error| Refused::read(&error, own.facts(), NOW).unwrap_or_else(|| panic!("{error}")))
    };
    (of(at_client, dialler), of(at_server, acceptor))
}

fn cell(identity: NodeIdentity) -> Arc<IdentityCell> {
    Arc::new(IdentityCell::new(identity))
}

#[test]
fn spec_p_tls_members_complete_the_handshake() {
    let region = Region::new();
    assert_eq!(dial(&region, region.node("urn:oid:2.999.1")), (None, None));
    let peer = region
        .judge()
        .judge(region.node("urn:oid:2.999.1").chain(), Side::Client)
        .unwrap();
    assert_eq!(peer.node(), region.node("urn:oid:2.999.1").node());
    assert_eq!(peer.org().as_str(), "urn:oid:2.999.1");
}

#[test]
fn spec_p_tls_every_bad_certificate_is_refused_and_both_sides_know_why() {
    use CertificateRefusal as Why;
    type Case = (Why, fn() -> (Region, NodeIdentity));
    let cases: [Case; 9] = [
        (Why::ForeignAuthority, || {
            let foreign = Region::named("another region");
            (Region::new(), foreign.node("urn:oid:2.999.1"))
        }),
        // A foreign authority that copies the name of the region's root.
        (Why::ForeignAuthority, || {
            let foreign = Region::new();
            (Region::new(), foreign.node("urn:oid:2.999.1"))
        }),
        (Why::SelfSigned, || {
            let region = Region::new();
            let identity = region.self_signed("urn:oid:2.999.1");
            (region, identity)
        }),
        (Why::Expired, || {
            let region = Region::new();
            let identity = region.reissued("urn:oid:2.999.1", (NOW.0 - 9 * DAY, NOW.0 - 1000));
            (region, identity)
        }),
        (Why::NotYetValid, || {
            let region = Region::new();
            let identity = region.reissued("urn:oid:2.999.1", (NOW.0 + 1000, NOW.0 + 9 * DAY));
            (region, identity)
        }),
        (Why::Revoked, || {
            let mut region = Region::new();
            region.revoke("urn:oid:2.999.1");
            let identity = region.node("urn:oid:2.999.1");
            (region, identity)
        }),
        (Why::NotInRegistry, || {
            let region = Region::new();
            let identity = region.stranger("urn:oid:2.999.1");
            (region, identity)
        }),
        (Why::Suspended, || {
            let mut region = Region::new();
            region.registry.members[0].standing = Standing::Revoked(NOW);
            let identity = region.node("urn:oid:2.999.1");
            (region, identity)
        }),
        // The key of one member with the name of another.
        (Why::Malformed, || {
            let region = Region::new();
            let identity = region.misnamed("urn:oid:2.999.1", "urn:oid:2.999.2");
            (region, identity)
        }),
    ];
    for (why, make) in cases {
        let (region, identity) = make();
        let (dialler, acceptor) = (Some(Refused::Ours(why)), Some(Refused::Theirs(why)));
        assert_eq!(dial(&region, identity.clone()), (dialler, acceptor), "dialling");
        let (dialler, acceptor) = (Some(Refused::Theirs(why)), Some(Refused::Ours(why)));
        assert_eq!(accept(&region, identity), (dialler, acceptor), "accepting");
    }
}

#[test]
fn spec_p_tls_without_a_revocation_list_in_force_nobody_is_accepted() {
    let mut region = Region::new();
    region.list(&[], (NOW.0 - 9 * DAY, NOW.0 - 1000));
    let stale = (
        Some(Refused::Theirs(CertificateRefusal::StaleCrl)),
        Some(Refused::Ours(CertificateRefusal::StaleCrl)),
    );
    assert_eq!(dial(&region, region.node("urn:oid:2.999.1")), stale);
    let mut region = Region::new();
    region.registry.crl = Region::new().registry.crl;
    let refused = region
        .judge()
        .judge(region.node("urn:oid:2.999.1").chain(), Side::Client);
    assert_eq!(
        refused,
        Err(CertificateRefusal::StaleCrl),
        "a list signed by another root"
    );
    let mut region = Region::new();
    region.registry.crl = Region::named("another region").registry.crl;
    let refused = region
        .judge()
        .judge(region.node("urn:oid:2.999.1").chain(), Side::Client);
    assert_eq!(refused, Err(CertificateRefusal::StaleCrl), "a list of another issuer");
}

#[test]
fn spec_p_tls_a_dialler_without_certificate_is_refused() {
    let region = Region::new();
    let acceptor = region.node("urn:oid:2.999.2");
    let server = node_server(Channel::Control, cell(acceptor.clone()), region.judge()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(region.judge())
        .with_no_client_auth();
    client.alpn_protocols = vec![b"hie-control/1".to_vec()];
    let (at_client, at_server) = shake(Arc::new(client), server);
    let (dialler, judged) = read(at_client, &acceptor, at_server, &acceptor);
    assert_eq!(dialler, Some(Refused::Ours(CertificateRefusal::Missing)));
    assert_eq!(judged, Some(Refused::Theirs(CertificateRefusal::Missing)));
}

#[test]
fn a_new_registry_is_in_force_for_the_next_handshake() {
    let mut region = Region::new();
    let (judge, identity) = (region.judge(), region.node("urn:oid:2.999.1"));
    assert!(judge.judge(identity.chain(), Side::Client).is_ok());
    region.revoke("urn:oid:2.999.1");
    judge.membership().replace(region.membership());
    assert_eq!(
        judge.judge(identity.chain(), Side::Client),
        Err(CertificateRefusal::Revoked)
    );
}

#[test]
fn chains_are_bounded() {
    let region = Region::new();
    let leaf = region.node("urn:oid:2.999.1").chain()[0].clone();
    let judge = region.judge();
    assert_eq!(judge.judge(&[], Side::Client), Err(CertificateRefusal::Missing));
    let long = vec![leaf.clone(); 3];
    assert_eq!(judge.judge(&long, Side::Client), Err(CertificateRefusal::Malformed));
    let large = vec![0x30_u8; 5000];
    assert_eq!(
        judge.judge(&[large.into()], Side::Client),
        Err(CertificateRefusal::Malformed)
    );
    for at in (0..leaf.len() * 8).step_by(3) {
        let mut forged = leaf.to_vec();
        forged[at / 8] ^= 1 << (at % 8);
        assert!(judge.judge(&[forged.into()], Side::Client).is_err(), "bit {at}");
    }
}

#[test]
fn spec_p_join_an_invitation_trusts_one_root_and_its_authority_only() {
    let region = Region::new();
    let clock = || Arc::new(TestClock(NOW));
    let random = SystemRandom::new();
    let key = Key::generate(&random).unwrap();
    let hosts = ["127.0.0.1".to_owned()];
    let leaf = region
        .authority
        .issue_enrolment(&key, &hosts, region::validity(), [5; 16])
        .unwrap();
    let identity = NodeIdentity::new(key, vec![leaf, region.authority.root().to_vec()]).unwrap();
    let server = enrolment_server(cell(identity), clock()).unwrap();
    let pinned = enrolment_client(region.authority.fingerprint(), clock()).unwrap();
    let (at_client, at_server) = shake(pinned, Arc::clone(&server));
    assert!(at_client.is_ok() && at_server.is_ok(), "{at_client:?} {at_server:?}");

    let other = enrolment_client(Region::new().authority.fingerprint(), clock()).unwrap();
    assert!(shake(other, server).0.is_err(), "another root");

    let member = region.node("urn:oid:2.999.1");
    let chain = vec![member.chain()[0].to_vec(), region.authority.root().to_vec()];
    let member = NodeIdentity::new(member.key().clone(), chain).unwrap();
    let server = enrolment_server(cell(member), clock()).unwrap();
    let pinned = enrolment_client(region.authority.fingerprint(), clock()).unwrap();
    assert!(shake(pinned, server).0.is_err(), "a member that plays the authority");
}

#[test]
fn the_authoritys_own_leaf_is_no_member() {
    let region = Region::new();
    let key = Key::generate(&SystemRandom::new()).unwrap();
    let leaf = region
        .authority
        .issue_enrolment(&key, &[], region::validity(), [5; 16])
        .unwrap();
    let judged = region.judge().judge(&[leaf.into()], Side::Client);
    assert_eq!(judged, Err(CertificateRefusal::Malformed));
    let root: NodeKey = region.authority.node();
    assert_ne!(root, key.node_key());
}
