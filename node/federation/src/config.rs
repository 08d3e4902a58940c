//! Every limit and period of the machine, each with its unit in its name.

use hie_protocol::cbor::FRAME_BYTES_MAX;
use hie_protocol::id::OrgId;

/// Bytes of records in one `Store` or `Found`; the rest of the frame is for its heads.
pub const MESSAGE_RECORD_BYTES_MAX: usize = FRAME_BYTES_MAX / 4 * 3;
/// Most records that one publish carries.
pub const PUBLISH_RECORDS_MAX: usize = 1024;
/// Most publishes that wait for their quorum.
pub const PUBLISHES_OPEN_MAX: usize = 4096;
/// Most keys that one question asks for.
pub const ASK_KEYS_MAX: usize = 1024;
/// Most questions in flight.
pub const ASKS_OPEN_MAX: usize = 1024;
/// Most lookups in flight over all questions.
pub const LOOKUPS_OPEN_MAX: usize = 16_384;
/// Most records that one question gathers.
pub const ASK_RECORDS_MAX: usize = 16_384;
/// Most answers that wait for a sync; beyond it a store is not answered and its owner asks again.
pub const SYNCS_WAITING_MAX: usize = 8192;
/// Most earlier holder sets remembered.
pub const EARLIER_SETS_MAX: usize = 16;
/// Most expired records forgotten in one round of chores.
pub const PURGE_RECORDS_PER_CHORE_MAX: usize = 256;
/// Most own records examined in one round of placing after a change of the registry.
pub const PLACE_RECORDS_PER_CHORE_MAX: usize = 256;
/// Most own records handed out for renewal in one round of chores.
pub const RENEW_RECORDS_PER_CHORE_MAX: usize = 128;
/// Most records out for renewal.
pub const RENEWALS_OPEN_MAX: usize = 1024;
/// Most verified records remembered, so that a copy costs no second signature check.
pub const VERIFIED_RECORDS_MAX: usize = 4096;
/// Time between two rounds of chores, in milliseconds.
pub const CHORE_PERIOD_MS: u64 = 1000;
/// A renewal that was not answered is asked for again after this, in milliseconds.
pub const RENEW_RETRY_MS: u64 = 30_000;
/// First wait before a store is sent again, in milliseconds; it doubles.
pub const STORE_RETRY_MS: u64 = 500;
/// Longest wait before a store is sent again, in milliseconds.
pub const STORE_RETRY_MS_MAX: u64 = 10_000;
/// First wait before a lookup is sent again, in milliseconds; it doubles.
pub const LOOKUP_RETRY_MS: u64 = 300;
/// Longest wait before a lookup is sent again, in milliseconds.
pub const LOOKUP_RETRY_MS_MAX: u64 = 2000;
/// How long a question waits for the remaining holders once every key has its quorum, in milliseconds.
pub const ANSWER_GRACE_MS: u64 = 50;
/// How far two clocks of the region may differ, in milliseconds: expiry is stretched by it.
pub const CLOCK_SKEW_MS_MAX: u64 = 10_000;
/// Records of one owner that one holder keeps.
pub const HELD_RECORDS_PER_OWNER_MAX: u64 = 5_000_000;

/// What the machine is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This organisation.
    pub me: OrgId,
    /// First question id: drawn at random at every start, so that an answer to an earlier life never
    /// meets a question of this one.
    pub first_question: u64,
    /// Records of one owner that this holder keeps.
    pub held_records_per_owner_max: u64,
    planted: Option<Planted>,
}

impl Config {
    /// The configuration of a member.
    #[must_use]
    pub const fn new(me: OrgId, first_question: u64) -> Self {
        Self {
            me,
            first_question,
            held_records_per_owner_max: HELD_RECORDS_PER_OWNER_MAX,
            planted: None,
        }
    }

    /// Plants a bug, to prove that the simulator finds it. Never called outside tests.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_planted(mut self, bug: Option<Planted>) -> Self {
        self.planted = bug;
        self
    }

    pub(crate) fn has(&self, bug: Planted) -> bool {
        self.planted == Some(bug)
    }
}

/// Bugs that a test plants to prove that the simulator would find them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A holder answers before its sync.
    AcknowledgeBeforeSync,
    /// One whole answer is served as complete.
    OneReplicaComplete,
    /// Holders forget tombstones after a few seconds.
    TombstoneDroppedEarly,
    /// A record signed by another member than its owner is taken.
    ForgedOwnerAccepted,
    /// The shell numbers versions by its clock, and the outbox does not object.
    WallClockVersions,
    /// Holders do not hold back what a label excludes.
    LabelIgnored,
    /// The outbox is not read back after a restart.
    OutboxForgotten,
    /// A holder new to a key says at once that it holds everything under it.
    UnsettledWhole,
    /// A publish is acknowledged with one copy less than the write quorum.
    QuorumOffByOne,
    /// Only the holders in force count for an acknowledgement.
    EarlierSetsIgnored,
    /// A holder that does not place a key counts as if it held it.
    MisplacedCounts,
    /// A holder that refused a record counts as if it held it.
    RefusedCounts,
    /// A renewal of an older version overtakes a publish.
    RenewalOvertakes,
    /// New holders get nothing of what is there already.
    RebalanceForgotten,
    /// An owner announces a registry version before its records are confirmed.
    AnnouncedTooEarly,
    /// The confirmation of an older version clears the outbox of a later one.
    OlderConfirms,
    /// A holder lets an older version replace a newer one.
    HolderTakesOlder,
    /// A holder takes more of one owner than its quota.
    QuotaIgnored,
    /// A holder never forgets what is expired.
    NeverPurged,
    /// An asker shows the version that came last.
    LastAnswerWins,
    /// An asker leaves out of the silent whom it cannot reach.
    UnreachableUnnamed,
    /// An asker waits beyond its deadline.
    DeadlineIgnored,
    /// A second answer of the same holder counts as one of another.
    DuplicatesCounted,
    /// An answer counts whoever sends it.
    AnswerOfAnyone,
    /// A record of another key is taken into an answer.
    UnfittingAccepted,
    /// An asker goes on asking the earliest holders that it remembers.
    StalePlacement,
    /// An asker shows what is expired.
    ExpiryIgnored,
    /// Who is out of the registry is still answered.
    RemovedServed,
    /// The name of the owner's key is enough: whose key signed is not checked.
    WrongKeyAccepted,
    /// A closed channel is not noted.
    LinkDownIgnored,
    /// A member that returns, and a gap in the registry, unsettle nobody.
    ReturnIgnored,
    /// What was not answered is sent again without a pause.
    NoBackOff,
    /// The shell numbers its questions from one at each start.
    QuestionIdsReused,
    /// The shell loses the last steps of its version counter in a crash.
    CounterForgotten,
    /// The shell says that a batch is durable before it is synced.
    PersistedBeforeSync,
}
