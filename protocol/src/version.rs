//! The version ledger: newest on top, one sentence each. A channel begins with `Hello`, which settles the newest
//! version that both sides speak; a message of a later version never enters it (SPEC P-VERSION).

use serde::{Deserialize, Serialize};

/// A protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProtocolVersion(pub u16);

/// Second version: lookups go on page by page, members send beats, there are frames for comparison, pulls and signed
/// digests, shares of the token key are passed on, and the registry names relays, officers and suspensions; frames without these
/// are those of the first version, byte for byte.
pub const V2: ProtocolVersion = ProtocolVersion(2);

/// First version: registry, index, evaluate, open, retrieve.
pub const V1: ProtocolVersion = ProtocolVersion(1);

/// Versions that this program speaks, newest first.
pub const SPOKEN: [ProtocolVersion; 2] = [V2, V1];

/// What a channel speaks before its `Hello` is answered.
pub const UNGREETED: ProtocolVersion = V1;

/// Most versions in one `Hello`.
pub const VERSIONS_MAX: usize = 16;

/// The newest version that both sides speak, or none (refused with `Refusal::Version`).
#[must_use]
pub fn negotiate(mine: &[ProtocolVersion], theirs: &[ProtocolVersion]) -> Option<ProtocolVersion> {
    mine.iter().filter(|version| theirs.contains(version)).max().copied()
}

/// ALPN of the multiplexed control channel.
pub const ALPN_CONTROL: &[u8] = b"hie-control/1";
/// ALPN of the bulk lane.
pub const ALPN_BULK: &[u8] = b"hie-bulk/1";
/// ALPN of the bulk lane whose headers may carry a transfer hash.
pub const ALPN_BULK_2: &[u8] = b"hie-bulk/2";
/// ALPN of enrolment.
pub const ALPN_ENROL: &[u8] = b"hie-enrol/1";
/// Protocol name of a request on a substream of the control channel.
pub const PROTOCOL_REQUEST: &str = "/hie/request/1";
/// Protocol name of the bulk lane on a substream of the control channel, for a node that cannot be dialled.
pub const PROTOCOL_BULK: &str = "/hie/bulk/1";

#[cfg(test)]
mod tests {
    use super::{ProtocolVersion, SPOKEN, V1, V2, negotiate};

    #[test]
    fn spec_p_version_the_newest_common_version_wins() {
        assert_eq!(negotiate(&SPOKEN, &[ProtocolVersion(9), V1]), Some(V1));
        assert_eq!(negotiate(&SPOKEN, &[V1, V2, ProtocolVersion(9)]), Some(V2));
        assert_eq!(negotiate(&[V1], &SPOKEN), Some(V1));
        assert_eq!(negotiate(&SPOKEN, &[ProtocolVersion(9)]), None);
        assert_eq!(negotiate(&SPOKEN, &[]), None);
    }

    #[test]
    fn the_ledger_has_every_version_once_newest_first() {
        assert!(SPOKEN.is_sorted_by(|newer, older| newer > older));
    }
}
