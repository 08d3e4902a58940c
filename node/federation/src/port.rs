//! What goes into the machine and what comes out.
//!
//! Order within one `step` counts: effects are carried out first to last, and [`Effect::Persist`] comes
//! first. `Persisted(id)` says that the changes of `id` and of every earlier id are synced to disk. A shell
//! that cannot sync stops; it never says `Persisted` (law 6).

use hie_protocol::id::{IndexKey, Millis, OrgId, Sequence};
use hie_protocol::message::IndexMessage;
use hie_protocol::record::{IndexRecord, VerifiedRecord};
use hie_protocol::registry::Registry;
use hie_protocol::version::ProtocolVersion;

use crate::table::Change;

/// Names a publish of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishId(pub u64);

/// Names a question of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// Names a batch of changes. Ids of one life of a machine grow by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The time asked for by [`Effect::WakeAt`] has come. Harmless at any other time.
    Tick,
    /// The caller publishes own records: new, changed or deleted. Sequences come from its durable counter.
    Publish {
        /// The caller's name for it; not in use by another open publish.
        id: PublishId,
        /// At most [`crate::config::PUBLISH_RECORDS_MAX`].
        records: Vec<VerifiedRecord>,
    },
    /// The answer to [`Effect::Renew`]: the same records, signed anew. One that has changed in the
    /// meantime is dropped, so that a renewal never overtakes a publish.
    Renewed {
        /// The sequence that was to be renewed, and its successor.
        records: Vec<(Sequence, VerifiedRecord)>,
    },
    /// The caller asks for everything under some keys.
    Ask {
        /// The caller's name for it; not in use by another open question.
        id: AskId,
        /// At most [`crate::config::ASK_KEYS_MAX`].
        keys: Vec<IndexKey>,
        /// By this time an answer is given, complete or partial.
        deadline: Millis,
    },
    /// A datagram came from an authenticated member.
    Received {
        /// The member that the channel proves.
        from: OrgId,
        /// The datagram.
        message: IndexMessage,
    },
    /// The changes of this id and of all earlier ones are durable.
    Persisted(PersistId),
    /// A newer registry, verified and already durable at the shell.
    Registry(Box<Registry>),
    /// Nobody waits for a publish any more. Its records stay in the outbox.
    Abandon(PublishId),
    /// A member has said which version it speaks with us.
    Speaks {
        /// The member.
        org: OrgId,
        /// The version.
        version: ProtocolVersion,
    },
    /// A channel to a member opened or closed.
    Link {
        /// The member.
        org: OrgId,
        /// Whether it can be reached.
        up: bool,
    },
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write the changes in one atomic batch, sync, then say `Persisted(id)`.
    Persist {
        /// Name of the batch.
        id: PersistId,
        /// The writes, in order.
        changes: Vec<Change>,
    },
    /// Send a datagram. Losing it is allowed.
    Send {
        /// To whom.
        to: OrgId,
        /// The datagram.
        message: IndexMessage,
    },
    /// Every record of the publish is durable at a write quorum, and at every holder that the region does not
    /// know to be behind.
    Published {
        /// Which.
        id: PublishId,
    },
    /// The request was not taken; nothing was done.
    Declined {
        /// Which.
        request: RequestId,
        /// Why.
        why: Decline,
    },
    /// The answer to a question. Each question gets exactly one.
    Answer {
        /// Which.
        id: AskId,
        /// The answer.
        outcome: Outcome,
    },
    /// Sign these own records anew with the next sequence and a later expiry ([`crate::owner::renewal`])
    /// and give them back as [`Input::Renewed`].
    Renew {
        /// The versions to renew.
        records: Vec<IndexRecord>,
    },
    /// A member broke the protocol: for the log and the region office.
    Misbehaved {
        /// Who.
        org: OrgId,
        /// What it did.
        what: Misbehaviour,
    },
    /// Call with `Tick` at this time. Replaces every earlier one.
    WakeAt(Millis),
}

/// A request of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestId {
    /// A publish.
    Publish(PublishId),
    /// A question.
    Ask(AskId),
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Decline {
    /// Too much is open: come again later.
    #[error("too many requests are open")]
    Busy,
    /// More records or keys than one request may carry, or none.
    #[error("the request has no entry, too many, or one twice")]
    Size,
    /// The id is in use.
    #[error("the id names an open request")]
    IdInUse,
    /// A record belongs to another organisation.
    #[error("a record is not this organisation's own")]
    NotOwn,
    /// A record does not follow its predecessor: the sequence must grow and the expiry must not shrink.
    #[error("a record does not follow the version before it")]
    Order,
}

/// Why a member counts as silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// No answer came in time.
    NoAnswer,
    /// There is no channel to it.
    Unreachable,
    /// It answered, but not with everything: cut at a limit, or still being filled.
    NotWhole,
    /// Its answer broke the protocol.
    Misbehaved,
    /// It is no longer a member.
    Left,
    /// An owner of which the region's beats do not show that an answering holder has all it acknowledged.
    Unconfirmed,
}

/// What a member did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// A record whose signature or form is wrong.
    #[error("it handed over a record that its owner did not sign")]
    Forged,
    /// An answer that does not fit the question.
    #[error("its answer does not fit the question")]
    Unfitting,
    /// A whole answer without a record that the holder has confirmed.
    #[error("it left out a record that it has confirmed")]
    Omitted,
}

/// The answer to a question; there is no third constructor (law 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every key was answered by all its holders, or by a read quorum that is confirmed: whatever was
    /// acknowledged before `as_of` is here.
    Complete {
        /// Live records, in the order of their ids.
        records: Vec<VerifiedRecord>,
        /// When the question was asked.
        as_of: Millis,
    },
    /// Some key was not answered so.
    Partial {
        /// Live records that were found, in the order of their ids.
        records: Vec<VerifiedRecord>,
        /// Exactly the holders without a whole answer for such a key, and the owners that are unconfirmed at a
        /// holder that answered, in the order of their ids.
        silent: Vec<(OrgId, Why)>,
        /// When the question was asked.
        as_of: Millis,
    },
}
