//! Why another node gave no answer.

use hie_node_pki::refusal::CertificateRefusal;
use hie_protocol::id::Millis;
use hie_protocol::refusal::Class;

/// Why another node gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerFailure {
    /// No channel: no address in the registry, or the last dial failed and the next is not due yet.
    #[error("the node cannot be reached")]
    Unreachable {
        /// Since when it has failed, if it ever was tried.
        since: Option<Millis>,
    },
    /// The deadline passed.
    #[error("the node did not answer in time")]
    TimedOut,
    /// A certificate was refused, by this side or by the other.
    #[error("no channel: {0}")]
    Refused(CertificateRefusal),
    /// The channel closed before the answer was there.
    #[error("the channel closed before the answer")]
    Closed,
    /// The other node broke the protocol.
    #[error("the node broke the protocol: {0}")]
    Misbehaved(&'static str),
    /// The frame to send is larger than a frame may be.
    #[error("the frame is larger than the protocol allows")]
    TooLarge,
    /// There is no protocol version that both nodes speak.
    #[error("no common protocol version")]
    Version,
    /// Too many requests to that node wait already.
    #[error("too many requests to the node wait already")]
    Crowded,
}

impl PeerFailure {
    /// Who must act.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Unreachable { .. } | Self::TimedOut | Self::Closed | Self::Crowded => Class::Unavailable,
            Self::Refused(_) | Self::Version => Class::Refused,
            Self::Misbehaved(_) => Class::Misbehaved,
            Self::TooLarge => Class::Invalid,
        }
    }
}
