//! Bugs that are planted to prove that the simulator finds them.

use std::ops::RangeInclusive;

use hie_node_federation::config::Planted;

use super::oracle::Law;
use super::world::{Report, run_until_broken};

/// Every planted bug, the laws whose violation shows it, and the first seed that does.
pub const PLANTED: [(Planted, &[Law], u64); 30] = [
    (Planted::AcknowledgeBeforeSync, &[Law::Thin, Law::Lost, Law::Stale], 2),
    (Planted::OneReplicaComplete, &[Law::Quorum, Law::Lost, Law::Stale], 1),
    (Planted::TombstoneDroppedEarly, &[Law::Resurfaced, Law::NotConverged], 1),
    (Planted::ForgedOwnerAccepted, &[Law::Forged], 5),
    (Planted::WallClockVersions, &[Law::Lost, Law::Stale, Law::Resurfaced], 1),
    (Planted::LabelIgnored, &[Law::Excluded], 1),
    (Planted::OutboxForgotten, &[Law::NotConverged], 1),
    (Planted::QuorumOffByOne, &[Law::Thin], 13),
    (
        Planted::RenewalOvertakes,
        &[Law::Stale, Law::Resurfaced, Law::NotConverged],
        4,
    ),
    (Planted::RebalanceForgotten, &[Law::NotConverged, Law::Lost], 1),
    (Planted::OlderConfirms, &[Law::NotConverged], 1),
    (
        Planted::HolderTakesOlder,
        &[Law::Stale, Law::NotConverged, Law::Resurfaced],
        1,
    ),
    (Planted::QuotaIgnored, &[Law::Bounded], 7),
    (Planted::NeverPurged, &[Law::Bounded], 1),
    (Planted::LastAnswerWins, &[Law::Stale, Law::Resurfaced], 2),
    (Planted::UnreachableUnnamed, &[Law::Silent], 1),
    (Planted::DeadlineIgnored, &[Law::Unanswered], 1),
    (Planted::DuplicatesCounted, &[Law::Quorum, Law::Lost], 1),
    (Planted::AnswerOfAnyone, &[Law::Quorum, Law::Lost, Law::Silent], 6),
    (Planted::UnfittingAccepted, &[Law::Unasked], 5),
    (Planted::StalePlacement, &[Law::Quorum, Law::Silent, Law::Lost], 1),
    (Planted::ExpiryIgnored, &[Law::Expired], 35),
    (Planted::RemovedServed, &[Law::Removed], 1),
    (Planted::WrongKeyAccepted, &[Law::Forged], 5),
    (Planted::LinkDownIgnored, &[Law::Silent], 1),
    (Planted::NoBackOff, &[Law::Storm], 1),
    (Planted::CounterForgotten, &[Law::Manners, Law::Lost, Law::Stale], 1),
    (Planted::NobodyBehind, &[Law::Lost, Law::Stale, Law::Resurfaced], 67),
    (Planted::QuorumSuffices, &[Law::Lost, Law::Stale, Law::Resurfaced], 10),
    (Planted::PersistedBeforeSync, &[Law::Thin, Law::Lost, Law::Stale], 2),
];

/// Planted bugs that no short search has shown: another rule stands in for the one they break (an answer needs all
/// holders or confirmed owners, a publish all holders or struck ones). `simulate planted` hunts them too.
pub const MASKED: [(Planted, &[Law]); 7] = [
    (Planted::UnsettledWhole, &[Law::Lost, Law::Stale, Law::Resurfaced]),
    (Planted::EarlierSetsIgnored, &[Law::Lost, Law::Stale, Law::Resurfaced]),
    (Planted::MisplacedCounts, &[Law::Thin]),
    (Planted::RefusedCounts, &[Law::Thin]),
    (Planted::AnnouncedTooEarly, &[Law::Lost, Law::Stale, Law::Resurfaced]),
    (Planted::ReturnIgnored, &[Law::Lost, Law::Stale]),
    (Planted::QuestionIdsReused, &[Law::Quorum, Law::Silent, Law::Lost]),
];

/// Searches the seeds for a run that shows the bug by one of `laws`; the report of the first, cut where it showed.
#[must_use]
pub fn hunt(bug: Planted, laws: &[Law], seeds: RangeInclusive<u64>) -> Option<Report> {
    let shows = |report: &Report| report.violations.iter().any(|violation| laws.contains(&violation.law));
    seeds.map(|seed| run_until_broken(seed, Some(bug), laws)).find(shows)
}
