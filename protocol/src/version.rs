//! The version ledger: newest on top, one sentence each.

use serde::{Deserialize, Serialize};

/// A protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProtocolVersion(pub u16);

/// First version: registry, index, evaluate, open, retrieve.
pub const V1: ProtocolVersion = ProtocolVersion(1);

/// Versions that this program speaks, newest first.
pub const SPOKEN: [ProtocolVersion; 1] = [V1];

/// The newest version both sides speak, or none (refused with `Refusal::Version`).
#[must_use]
pub fn negotiate(theirs: &[ProtocolVersion]) -> Option<ProtocolVersion> {
    SPOKEN.into_iter().find(|mine| theirs.contains(mine))
}

/// ALPN of the multiplexed control channel.
pub const ALPN_CONTROL: &[u8] = b"hie-control/1";
/// ALPN of the bulk lane.
pub const ALPN_BULK: &[u8] = b"hie-bulk/1";
/// ALPN of the bulk lane whose headers may carry a transfer hash.
pub const ALPN_BULK_2: &[u8] = b"hie-bulk/2";
/// ALPN of enrolment.
pub const ALPN_ENROL: &[u8] = b"hie-enrol/1";
/// libp2p protocol name of request-response.
pub const PROTOCOL_REQUEST: &str = "/hie/request/1";

#[cfg(test)]
mod tests {
    use super::{ProtocolVersion, V1, negotiate};

    #[test]
    fn the_newest_common_version_wins() {
        assert_eq!(negotiate(&[ProtocolVersion(9), V1]), Some(V1));
        assert_eq!(negotiate(&[ProtocolVersion(9)]), None);
    }
}
