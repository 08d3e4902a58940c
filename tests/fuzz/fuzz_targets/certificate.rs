//! Certificates, requests and revocation lists in DER.
//!
//! No bytes but those the region issued pass for a member, no request without proof of its key is taken, and no foreign
//! root or list brings the membership down (SPEC P-TLS).
#![no_main]

use std::sync::LazyLock;

use hie_fuzz::region::{NOW, Region};
use hie_node_pki::csr::CheckedCsr;
use hie_node_pki::key::Key;
use hie_node_pki::membership::Membership;
use hie_node_pki::verify::{Side, judge_at};
use hie_node_pki::x509;
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;

static WORLD: LazyLock<(Region, Membership)> = LazyLock::new(|| {
    let region = Region::new();
    let membership = Membership::from_registry(&region.registry).expect("own registry");
    let leaf = CertificateDer::from(region.leaf.clone());
    assert!(
        judge_at(&membership, &leaf, &[], Side::Client, NOW).is_ok(),
        "the member's own leaf"
    );
    (region, membership)
});

fuzz_target!(|data: &[u8]| {
    let (region, membership) = &*WORLD;
    if let Ok(facts) = x509::certificate(data) {
        assert!(data.len() <= x509::CERTIFICATE_BYTES_MAX);
        assert!(facts.org.is_none_or(|org| org.as_str().starts_with("urn:oid:")));
    }
    if let Ok(facts) = x509::crl(data) {
        assert!(facts.revoked.len() <= data.len());
    }
    let _ = CheckedCsr::check(data);
    if let Ok(checked) = CheckedCsr::check(&changed(&region.csr, data)) {
        // What is signed cannot be changed: whoever asks is who asked before.
        assert_eq!(checked.node(), region.key.node_key());
    }
    let _ = Key::from_pkcs8(data);
    for der in [data.to_vec(), changed(&region.leaf, data)] {
        for side in [Side::Client, Side::Server] {
            if judge_at(membership, &CertificateDer::from(der.as_slice()), &[], side, NOW).is_ok() {
                assert_eq!(der, region.leaf, "a forged certificate passes");
            }
        }
    }
    let mut foreign = region.registry.clone();
    foreign.crl = data.to_vec();
    let _ = Membership::from_registry(&foreign);
    foreign.crl.clone_from(&region.registry.crl);
    foreign.root = data.to_vec();
    let _ = Membership::from_registry(&foreign);
});

/// A copy with up to eight bytes changed: each change is a place (two bytes) and what is added to the byte there.
fn changed(der: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut copy = der.to_vec();
    for [high, low, difference] in changes.as_chunks().0.iter().take(8) {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % copy.len();
        copy[at] = copy[at].wrapping_add(*difference);
    }
    copy
}
