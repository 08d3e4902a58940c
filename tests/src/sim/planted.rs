//! Bugs that are planted to prove that the simulator finds them.

use hie_node_federation::config::Planted;

use super::oracle::Law;
use super::world::{Report, run};

/// Every planted bug, and the laws whose violation shows it.
pub const PLANTED: [(Planted, &[Law]); 10] = [
    (
        Planted::AcknowledgeBeforeSync,
        &[Law::Lost, Law::Stale, Law::Resurfaced, Law::NotConverged],
    ),
    (Planted::OneReplicaComplete, &[Law::Lost, Law::Stale, Law::Resurfaced]),
    (Planted::TombstoneDroppedEarly, &[Law::Resurfaced]),
    (Planted::ForgedOwnerAccepted, &[Law::Forged]),
    (Planted::WallClockVersions, &[Law::Lost, Law::Stale, Law::Resurfaced]),
    (Planted::LabelIgnored, &[Law::Excluded]),
    (Planted::OutboxForgotten, &[Law::NotConverged]),
    (Planted::UnsettledWhole, &[Law::Lost, Law::Stale, Law::Resurfaced]),
    (Planted::NobodyBehind, &[Law::Lost, Law::Stale, Law::Resurfaced]),
    (Planted::QuorumSuffices, &[Law::Lost, Law::Stale, Law::Resurfaced]),
];

/// Searches the seeds from 1 for a run that shows the bug by one of `laws`; the report of the first.
#[must_use]
pub fn hunt(bug: Planted, laws: &[Law], seeds_max: u64) -> Option<Report> {
    (1..=seeds_max)
        .map(|seed| run(seed, Some(bug)))
        .find(|report| report.violations.iter().any(|violation| laws.contains(&violation.law)))
}
