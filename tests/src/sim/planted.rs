//! Bugs that are planted to prove that the simulator finds them.

use std::ops::RangeInclusive;

use hie_node_federation::config::Planted;

use super::oracle::Law;
use super::world::{Report, run_until_broken};

/// Every planted bug, the laws whose violation shows it, and the first seed that does.
pub const PLANTED: [(Planted, &[Law], u64); 37] = [
    (Planted::AcknowledgeBeforeSync, &[Law::Thin, Law::Lost, Law::Stale], 1),
    (Planted::OneReplicaComplete, &[Law::Quorum, Law::Lost, Law::Stale], 1),
    (Planted::TombstoneDroppedEarly, &[Law::Resurfaced, Law::NotConverged], 1),
    (Planted::ForgedOwnerAccepted, &[Law::Forged], 1),
    (Planted::WallClockVersions, &[Law::Lost, Law::Stale, Law::Resurfaced], 1),
    (Planted::LabelIgnored, &[Law::Excluded], 1),
    (Planted::OutboxForgotten, &[Law::NotConverged], 1),
    (Planted::UnsettledWhole, &[Law::Lost, Law::Stale, Law::Resurfaced], 1),
    (Planted::QuorumOffByOne, &[Law::Thin], 1),
    (
        Planted::EarlierSetsIgnored,
        &[Law::Lost, Law::Stale, Law::Resurfaced],
        1,
    ),
    (Planted::MisplacedCounts, &[Law::Thin], 1),
    (Planted::RefusedCounts, &[Law::Thin], 1),
    (
        Planted::RenewalOvertakes,
        &[Law::Stale, Law::Resurfaced, Law::NotConverged],
        1,
    ),
    (Planted::RebalanceForgotten, &[Law::NotConverged, Law::Lost], 1),
    (Planted::AnnouncedTooEarly, &[Law::Lost, Law::Stale, Law::Resurfaced], 1),
    (Planted::OlderConfirms, &[Law::NotConverged], 1),
    (
        Planted::HolderTakesOlder,
        &[Law::Stale, Law::NotConverged, Law::Resurfaced],
        1,
    ),
    (Planted::QuotaIgnored, &[Law::Bounded], 1),
    (Planted::NeverPurged, &[Law::Bounded], 1),
    (Planted::LastAnswerWins, &[Law::Stale, Law::Resurfaced], 1),
    (Planted::UnreachableUnnamed, &[Law::Silent], 1),
    (Planted::DeadlineIgnored, &[Law::Unanswered], 1),
    (Planted::DuplicatesCounted, &[Law::Quorum, Law::Lost], 1),
    (Planted::AnswerOfAnyone, &[Law::Quorum, Law::Lost, Law::Silent], 1),
    (Planted::UnfittingAccepted, &[Law::Unasked], 1),
    (Planted::StalePlacement, &[Law::Quorum, Law::Silent, Law::Lost], 1),
    (Planted::ExpiryIgnored, &[Law::Expired], 1),
    (Planted::RemovedServed, &[Law::Removed], 1),
    (Planted::WrongKeyAccepted, &[Law::Forged], 1),
    (Planted::LinkDownIgnored, &[Law::Silent], 1),
    (Planted::ReturnIgnored, &[Law::Lost, Law::Stale], 1),
    (Planted::NoBackOff, &[Law::Storm], 1),
    (Planted::QuestionIdsReused, &[Law::Quorum, Law::Silent, Law::Lost], 1),
    (Planted::CounterForgotten, &[Law::Manners, Law::Lost, Law::Stale], 1),
    (Planted::NobodyBehind, &[Law::Lost, Law::Stale, Law::Resurfaced], 1),
    (Planted::QuorumSuffices, &[Law::Lost, Law::Stale, Law::Resurfaced], 1),
    (Planted::PersistedBeforeSync, &[Law::Thin, Law::Lost, Law::Stale], 1),
];

/// Searches the seeds for a run that shows the bug by one of `laws`; the report of the first, cut where it showed.
#[must_use]
pub fn hunt(bug: Planted, laws: &[Law], seeds: RangeInclusive<u64>) -> Option<Report> {
    let shows = |report: &Report| report.violations.iter().any(|violation| laws.contains(&violation.law));
    seeds.map(|seed| run_until_broken(seed, Some(bug), laws)).find(shows)
}
