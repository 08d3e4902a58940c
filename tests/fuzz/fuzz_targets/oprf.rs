//! Points, shares and answers of the oblivious function: what is read is written again byte for byte, an authority
//! answers every batch it can read with a proof that holds, and no answer with another proof is taken (RFC 9497).
#![no_main]

use std::sync::LazyLock;

use hie_protocol::oprf::key::{GroupKey, KeyShare, PublicShare};
use hie_protocol::oprf::{BlindedElement, ELEMENT_LEN, Evaluation, PROOF_LEN, server};
use libfuzzer_sys::fuzz_target;

static SHARE: LazyLock<KeyShare> = LazyLock::new(|| {
    let mut secret = [0; 32];
    secret[0] = 7;
    KeyShare::single(&secret).expect("a canonical scalar")
});

fuzz_target!(|data: &[u8]| {
    if let Ok(share) = KeyShare::from_bytes(data) {
        assert_eq!(share.to_bytes().as_slice(), data);
    }
    if let Ok(share) = PublicShare::from_bytes(data) {
        assert_eq!(share.to_bytes().as_slice(), data);
    }
    if let Ok(group) = GroupKey::from_bytes(data) {
        assert_eq!(group.to_bytes(), data);
    }
    let elements: Vec<[u8; ELEMENT_LEN]> = data.as_chunks().0.iter().take(4).copied().collect();
    let blinded: Vec<BlindedElement> = elements.iter().copied().map(BlindedElement).collect();
    let mut counter = 0_u8;
    let mut random = |out: &mut [u8]| {
        for byte in out {
            counter = counter.wrapping_add(1);
            *byte = counter;
        }
    };
    if let Ok(evaluation) = server::evaluate(&SHARE, &blinded, &mut random) {
        assert!(evaluation.verify(&SHARE.public(), &blinded).is_ok());
        let mut proof = [0; PROOF_LEN];
        let tail = &data[data.len().saturating_sub(PROOF_LEN)..];
        proof[..tail.len()].copy_from_slice(tail);
        if proof != evaluation.proof {
            let forged = Evaluation {
                elements: evaluation.elements,
                proof,
            };
            assert!(
                forged.verify(&SHARE.public(), &blinded).is_err(),
                "a forged proof holds"
            );
        }
    }
});
