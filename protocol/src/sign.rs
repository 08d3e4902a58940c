//! Signed things: COSE_Sign1 (RFC 9052) with EdDSA over Ed25519, each with a domain that names its purpose.
//!
//! The domain is the external additional data of the signature, so a signature made for one purpose
//! never verifies for another (SPEC P-SIGN).

use coset::iana::Algorithm;
use coset::{CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder};
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::cbor;
use crate::id::{NodeKey, PublicKey, Signature};

/// Domain of the registry.
pub const DOMAIN_REGISTRY: &str = "hie registry v1";
/// Domain of pointers and locators.
pub const DOMAIN_RECORD: &str = "hie index record v1";
/// Domain of claims.
pub const DOMAIN_CLAIM: &str = "hie claim v1";
/// Domain of audit receipts.
pub const DOMAIN_RECEIPT: &str = "hie audit receipt v1";
/// Domain of evidence of treatment: an encounter as its organisation's node attests it.
pub const DOMAIN_EVIDENCE: &str = "hie evidence v1";
/// Domain of what a node tells the region office about token keys.
pub const DOMAIN_TOKEN_REPORT: &str = "hie token report v1";

/// Domain of an owner's digest of what a holder confirmed.
pub const DOMAIN_DIGEST: &str = "hie index digest v1";

/// Holds a signing key; the key itself never enters this crate.
pub trait Signer {
    /// The node that signs.
    fn node(&self) -> NodeKey;
    /// Signs the bytes with Ed25519.
    fn sign(&self, message: &[u8]) -> Signature;
}

/// Why a signed thing is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Not a COSE_Sign1 of this protocol.
    #[error("not a signed envelope of this protocol")]
    Envelope,
    /// The bytes break a frame rule.
    #[error("the signed envelope is malformed")]
    Frame(#[from] cbor::FrameError),
    /// The signer is not known.
    #[error("the signer {0} is not known")]
    UnknownSigner(NodeKey),
    /// The signature does not verify.
    #[error("the signature does not verify")]
    Signature,
}

/// Wraps `payload` in a COSE_Sign1 of the domain. Errors: [`SignError::Envelope`] when it cannot be encoded.
pub fn sign(domain: &str, payload: Vec<u8>, signer: &dyn Signer) -> Result<Vec<u8>, SignError> {
    CoseSign1Builder::new()
        .protected(header(signer.node().as_bytes().to_vec()))
        .payload(payload)
        .create_signature(domain.as_bytes(), |message| signer.sign(message).as_bytes().to_vec())
        .build()
        .to_vec()
        .map_err(|_| SignError::Envelope)
}

/// A verified payload and who signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The node that signed.
    pub node: NodeKey,
    /// The signed bytes.
    pub payload: Vec<u8>,
}

/// Verifies an envelope of at most `limit` bytes; `find` gives the public key of a node.
///
/// Errors: every [`SignError`].
pub fn verify(
    domain: &str,
    bytes: &[u8],
    limit: usize,
    find: impl FnOnce(&NodeKey) -> Option<PublicKey>,
) -> Result<Verified, SignError> {
    let envelope = read(bytes, limit)?;
    let node = NodeKey::from_slice(&envelope.protected.header.key_id).map_err(|_| SignError::Envelope)?;
    let key = find(&node).ok_or(SignError::UnknownSigner(node))?;
    envelope.verify_signature(domain.as_bytes(), |signature, message| {
        UnparsedPublicKey::new(&ED25519, key.as_bytes())
            .verify(message, signature)
            .map_err(|_| SignError::Signature)
    })?;
    let payload = envelope.payload.ok_or(SignError::Envelope)?;
    Ok(Verified { node, payload })
}

/// Reads the payload without judging the signature: only to find out what a refused thing claimed to be.
///
/// Errors: [`SignError::Frame`], [`SignError::Envelope`].
pub fn peek(bytes: &[u8], limit: usize) -> Result<Vec<u8>, SignError> {
    read(bytes, limit)?.payload.ok_or(SignError::Envelope)
}

fn read(bytes: &[u8], limit: usize) -> Result<CoseSign1, SignError> {
    cbor::guard_frame(bytes, limit)?;
    let envelope = CoseSign1::from_slice(bytes).map_err(|_| SignError::Envelope)?;
    // One signed thing has one form of bytes: what this crate would write for the same key, payload and signature.
    let only = CoseSign1Builder::new()
        .protected(header(envelope.protected.header.key_id.clone()))
        .payload(envelope.payload.clone().ok_or(SignError::Envelope)?)
        .signature(envelope.signature.clone())
        .build()
        .to_vec();
    if only.is_ok_and(|only| only == bytes) {
        Ok(envelope)
    } else {
        Err(SignError::Envelope)
    }
}

/// The protected header of every signed thing.
fn header(key_id: Vec<u8>) -> coset::Header {
    HeaderBuilder::new().algorithm(Algorithm::EdDSA).key_id(key_id).build()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::{DOMAIN_CLAIM, DOMAIN_RECORD, SignError, Signer, sign, verify};
    use crate::id::{NodeKey, PublicKey, Signature};

    /// A key made from one byte, for vectors.
    pub(crate) struct TestKey(pub Ed25519KeyPair, pub u8);

    impl TestKey {
        pub(crate) fn new(seed: u8) -> Self {
            Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(), seed)
        }

        pub(crate) fn public(&self) -> PublicKey {
            PublicKey::from_slice(self.0.public_key().as_ref()).unwrap()
        }
    }

    impl Signer for TestKey {
        fn node(&self) -> NodeKey {
            NodeKey::new([self.1; 32])
        }

        fn sign(&self, message: &[u8]) -> Signature {
            Signature::from_slice(self.0.sign(message).as_ref()).unwrap()
        }
    }

    #[test]
    fn spec_p_sign_a_signature_serves_one_domain() {
        let key = TestKey::new(1);
        let bytes = sign(DOMAIN_CLAIM, b"payload".to_vec(), &key).unwrap();
        let verified = verify(DOMAIN_CLAIM, &bytes, 999, |_| Some(key.public())).unwrap();
        assert_eq!(
            (verified.node, verified.payload.as_slice()),
            (key.node(), b"payload".as_slice())
        );
        assert_eq!(
            verify(DOMAIN_RECORD, &bytes, 999, |_| Some(key.public())),
            Err(SignError::Signature)
        );
        assert_eq!(
            verify(DOMAIN_CLAIM, &bytes, 999, |_| None),
            Err(SignError::UnknownSigner(key.node()))
        );
        assert_eq!(
            verify(DOMAIN_CLAIM, &bytes, 999, |_| Some(TestKey::new(2).public())),
            Err(SignError::Signature)
        );
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let key = TestKey::new(1);
        let bytes = sign(DOMAIN_CLAIM, b"payload".to_vec(), &key).unwrap();
        for at in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[at / 8] ^= 1 << (at % 8);
            assert!(
                verify(DOMAIN_CLAIM, &forged, 999, |node| (*node == key.node())
                    .then(|| key.public()))
                .is_err()
            );
        }
    }
}
