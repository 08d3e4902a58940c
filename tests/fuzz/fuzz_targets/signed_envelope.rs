//! Claims, index records, receipts and registries: as envelopes of a stranger, and as payloads that a member signed.
//!
//! Nothing that a member did not sign is taken. What is taken is signed again to the same bytes (SPEC P-SIGN).
#![no_main]

use std::sync::LazyLock;

use hie_fuzz::region::{NOW, Region};
use hie_protocol::bytes::Bytes;
use hie_protocol::claim::Claim;
use hie_protocol::message::Receipt;
use hie_protocol::record::VerifiedRecord;
use hie_protocol::registry::Registry;
use hie_protocol::sign::{self, DOMAIN_CLAIM, DOMAIN_RECEIPT, DOMAIN_RECORD, DOMAIN_REGISTRY};
use libfuzzer_sys::fuzz_target;

static REGION: LazyLock<Region> = LazyLock::new(Region::new);

fuzz_target!(|data: &[u8]| {
    let region = &*REGION;
    let member = &region.key;
    let (registry, node) = (&region.registry, &region.key.node_key());
    let _ = sign::peek(data, 1 << 20);
    read_all(region, data);

    let payload = data.to_vec();
    let envelope = sign::sign(DOMAIN_CLAIM, payload.clone(), member).expect("signed");
    if let Ok(claim) = Claim::verify(&envelope, registry, node, &region.org, NOW) {
        assert_eq!(claim.sign(member).expect("signed again"), envelope);
    }
    let envelope = Bytes(sign::sign(DOMAIN_RECORD, payload.clone(), member).expect("signed"));
    if let Ok(record) = VerifiedRecord::verify(&envelope, registry) {
        assert_eq!(
            record.record().clone().sign(member).expect("signed again").signed(),
            &envelope
        );
    }
    let envelope = sign::sign(DOMAIN_RECEIPT, payload.clone(), member).expect("signed");
    if let Ok(receipt) = Receipt::verify(&envelope, registry) {
        assert_eq!(receipt.sign(member).expect("signed again"), envelope);
    }
    let envelope = sign::sign(DOMAIN_REGISTRY, payload, &region.authority).expect("signed");
    if let Ok(read) = Registry::verify(&envelope, region.authority.public(), None) {
        assert_eq!(read.sign(&region.authority).expect("signed again"), envelope);
    }
});

/// Reads the bytes as each kind of envelope; a kind that is taken must have been signed by the member.
fn read_all(region: &Region, data: &[u8]) {
    let (registry, node) = (&region.registry, &region.key.node_key());
    if let Ok(claim) = Claim::verify(data, registry, node, &region.org, NOW) {
        assert_eq!(&claim.node, node);
    }
    if let Ok(record) = VerifiedRecord::verify(&Bytes(data.to_vec()), registry) {
        assert_eq!(record.record().owner, region.org);
    }
    if let Ok(receipt) = Receipt::verify(data, registry) {
        assert_eq!(receipt.log, region.org);
    }
    let _ = Registry::verify(data, region.authority.public(), Some(7)).map(|read| assert!(read.version >= 7));
}
