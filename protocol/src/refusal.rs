//! Closed refusal codes: all that crosses a wire about a failure. The story stays in the log (SPEC P-REF).

use serde::{Deserialize, Serialize};

/// Who must act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The caller sent something wrong.
    Invalid,
    /// A policy says no.
    Refused,
    /// Time: try again later.
    Unavailable,
    /// The other node broke the protocol.
    Misbehaved,
    /// This node is at fault.
    Broken,
}

/// A refusal as it travels between nodes. Unknown and forbidden look alike from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The frame or a value in it is malformed.
    #[error("the request is malformed")]
    Malformed,
    /// No common protocol version.
    #[error("no common protocol version")]
    Version,
    /// The claim is missing, expired, replayed, for somebody else, or not signed by its organisation.
    #[error("the claim does not hold")]
    Claim,
    /// There is nothing here that the caller may know of.
    #[error("nothing to release")]
    NothingHere,
    /// The caller's budget is used up.
    #[error("the budget is used up")]
    Budget,
    /// The node does not offer this service.
    #[error("the service is not offered here")]
    NotOffered,
    /// The node cannot answer now.
    #[error("not able to answer now")]
    Busy,
    /// The node is at fault.
    #[error("the node failed")]
    Failed,
}

impl Refusal {
    /// The class that the receiver of this refusal should act on.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Malformed | Self::Version => Class::Invalid,
            Self::Claim | Self::NothingHere | Self::NotOffered => Class::Refused,
            Self::Budget | Self::Busy => Class::Unavailable,
            Self::Failed => Class::Broken,
        }
    }
}
