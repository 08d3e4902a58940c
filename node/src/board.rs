//! What a running node knows about its own trust, for status and doctor: set by the workers, read by the desk.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hie_node_core::ports::SigningGate;
use hie_protocol::id::Millis;

use crate::clock::Skew;
use crate::moment::write_words;

/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Default)]
struct Notes {
    equivocation: Option<u64>,
    registry_refused: Option<String>,
    renewal_failed: Option<(Millis, String)>,
    skew: Skew,
}

/// The notes, shared by the workers of a node.
#[derive(Debug, Default)]
pub struct Board(Mutex<Notes>);

impl Board {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The authority signed two registries of this version.
    pub fn equivocation(&self, version: u64) {
        self.notes().equivocation = Some(version);
    }

    /// A registry was refused.
    pub fn registry_refused(&self, why: String) {
        self.notes().registry_refused = Some(why);
    }

    /// A newer registry was taken: an earlier refusal is past.
    pub fn registry_taken(&self) {
        self.notes().registry_refused = None;
    }

    /// The certificate could not be renewed; the first failure in a row counts.
    pub fn renewal_failed(&self, at: Millis, why: String) {
        let mut notes = self.notes();
        let since = notes.renewal_failed.as_ref().map_or(at, |(since, _)| *since);
        notes.renewal_failed = Some((since, why));
    }

    /// The certificate was renewed.
    pub fn renewed(&self) {
        self.notes().renewal_failed = None;
    }

    /// The clock as compared with others.
    pub fn set_skew(&self, skew: Skew) {
        self.notes().skew = skew;
    }

    /// The clock as compared with others.
    #[must_use]
    pub fn skew(&self) -> Skew {
        self.notes().skew
    }

    /// What needs somebody, in sentences with the fix.
    #[must_use]
    pub fn needs_you(&self, now: Millis) -> Vec<String> {
        let notes = self.notes();
        let mut words = Vec::new();
        if let Some(version) = notes.equivocation {
            words.push(format!(
                "ALARM: the region authority signed two different registries of version {version}. This node keeps the \
                 first and the proof of both (identity/equivocation-{version}.cbor). Call the region office and the \
                 other members."
            ));
        }
        if let Some(why) = &notes.registry_refused {
            words.push(format!(
                "A registry was refused: {why}. This node goes on with the one it has; tell the region office."
            ));
        }
        if let Some((since, why)) = &notes.renewal_failed {
            let days = now.since(*since) / DAY_MS;
            words.push(format!(
                "The certificate of this node could not be renewed since {} ({days} days): {why}. It is tried again by \
                 itself; check that the region authority is reachable.",
                write_words(*since)
            ));
        }
        words.extend(notes.skew.words());
        words
    }
}

impl SigningGate for Board {
    fn off_ms(&self) -> Option<i64> {
        let skew = self.skew();
        (!skew.may_sign()).then_some(skew.median_ms)
    }
}

#[cfg(test)]
mod tests {
    use hie_node_core::ports::SigningGate as _;
    use hie_protocol::id::Millis;

    use super::{Board, DAY_MS};
    use crate::clock::Skew;

    const NOW: Millis = Millis(1_795_436_523_456);

    #[test]
    fn spec_p_clock_the_gate_closes_and_opens_again() {
        let board = Board::default();
        assert_eq!(board.off_ms(), None);
        board.set_skew(Skew::of(vec![-7_000, -7_000, -7_000]));
        assert_eq!(board.off_ms(), Some(-7_000));
        assert!(
            board
                .needs_you(NOW)
                .iter()
                .any(|line| line.contains("neither publishes nor asks"))
        );
        board.set_skew(Skew::of(vec![3, -7, 12]));
        assert_eq!((board.off_ms(), board.needs_you(NOW)), (None, Vec::new()));
    }

    #[test]
    fn failures_count_their_days_and_end_with_success() {
        let board = Board::default();
        board.renewal_failed(NOW, "no answer".into());
        board.renewal_failed(NOW.plus(2 * DAY_MS), "refused".into());
        let words = board.needs_you(NOW.plus(3 * DAY_MS)).join("");
        assert!(words.contains("(3 days)") && words.contains("refused"), "{words}");
        board.renewed();
        board.equivocation(9);
        board.registry_refused("why".into());
        assert_eq!(board.needs_you(NOW).len(), 2);
        board.registry_taken();
        let left = board.needs_you(NOW);
        assert!(
            left.len() == 1 && left.iter().all(|line| line.contains("ALARM")),
            "{left:?}"
        );
    }
}
