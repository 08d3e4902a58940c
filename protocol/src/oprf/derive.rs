//! Keys derived from the function's output and from a record key: HKDF-SHA512 (RFC 5869), no salt,
//! one label for each purpose. A holder of the index has index keys alone and cannot reach a seal key.
//!
//! Frozen values: `protocol/vectors/derive.json`.

use ring::hkdf;

/// Length of every derived key, in bytes.
pub const KEY_LEN: usize = 32;

/// Label of the key under which a pointer is stored.
pub const LABEL_INDEX: &str = "hie index v1";
/// Label of the key that seals a pointer's content.
pub const LABEL_SEAL: &str = "hie seal v1";
/// Label of the key under which a record's locators are stored.
pub const LABEL_LOCATOR: &str = "hie locator v1";
/// Label of the key that seals a locator's content.
pub const LABEL_LOCATOR_SEAL: &str = "hie locator seal v1";

/// Where the pointer of a match token is stored.
#[must_use]
pub fn index_key(prf: &[u8; 64]) -> [u8; KEY_LEN] {
    derive(prf, LABEL_INDEX)
}

/// What seals the pointer of a match token.
#[must_use]
pub fn seal_key(prf: &[u8; 64]) -> [u8; KEY_LEN] {
    derive(prf, LABEL_SEAL)
}

/// Where the locators of a record are stored.
#[must_use]
pub fn locator_key(record_key: &[u8; 32]) -> [u8; KEY_LEN] {
    derive(record_key, LABEL_LOCATOR)
}

/// What seals the locators of a record.
#[must_use]
pub fn locator_seal_key(record_key: &[u8; 32]) -> [u8; KEY_LEN] {
    derive(record_key, LABEL_LOCATOR_SEAL)
}

#[expect(clippy::expect_used, reason = "HKDF-SHA512 gives up to 16320 bytes; 32 are asked")]
fn derive(secret: &[u8], label: &str) -> [u8; KEY_LEN] {
    let mut key = [0u8; KEY_LEN];
    hkdf::Salt::new(hkdf::HKDF_SHA512, &[])
        .extract(secret)
        .expand(&[label.as_bytes()], KeyLen)
        .and_then(|okm| okm.fill(&mut key))
        .expect("32 bytes are within the reach of HKDF-SHA512");
    key
}

struct KeyLen;

impl hkdf::KeyType for KeyLen {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::{index_key, locator_key, locator_seal_key, seal_key};

    #[test]
    fn spec_p_derive_vectors_do_not_change() {
        let text = include_str!("../../vectors/derive.json");
        let cases: serde_json::Value = serde_json::from_str(text).unwrap();
        let cases = cases["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 3);
        for case in cases {
            let bytes = |name: &str| hex::decode(case[name].as_str().unwrap()).unwrap();
            let prf: [u8; 64] = bytes("prf").try_into().unwrap();
            let record: [u8; 32] = bytes("record_key").try_into().unwrap();
            assert_eq!(index_key(&prf).to_vec(), bytes("index_key"));
            assert_eq!(seal_key(&prf).to_vec(), bytes("seal_key"));
            assert_eq!(locator_key(&record).to_vec(), bytes("locator_key"));
            assert_eq!(locator_seal_key(&record).to_vec(), bytes("locator_seal_key"));
        }
    }

    #[test]
    fn derivations_are_frozen_in_this_file_too() {
        assert_eq!(
            hex::encode(index_key(&[0; 64])),
            "78a0787ee6bd518a332e00fcd17eb20af0cfc77677582e7a6c928971928920db"
        );
        assert_eq!(
            hex::encode(seal_key(&[0; 64])),
            "d8f7daacbede5232fe309e7a1dc0d449be7183aa1e5bb27be8fb8e466f33f941"
        );
    }
}
