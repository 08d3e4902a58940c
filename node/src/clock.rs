//! The system's clock: the only place that reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use hie_protocol::id::Millis;

/// Now.
#[must_use]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The system's clock where a port wants one.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl hie_node_pki::clock::Clock for System {
    fn now(&self) -> Millis {
        now()
    }
}

impl hie_node_core::ports::Clock for System {
    fn now(&self) -> Millis {
        now()
    }
}

/// Difference from the other members' clocks above which somebody should look, in milliseconds.
pub const SKEW_WARN_MS: u64 = 500;
/// Difference above which the node signs nothing any more, in milliseconds.
pub const SKEW_REFUSE_MS: u64 = 5_000;
/// Members that must be heard before the node refuses to sign: one wrong clock must not stop another's node.
pub const SKEW_PEERS_MIN: usize = 3;

/// This node's clock against those of other members (SPEC P-CLOCK).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Skew {
    /// Median of (their clock - this clock), in milliseconds; positive when this clock is behind.
    pub median_ms: i64,
    /// Members heard.
    pub members: usize,
}

impl Skew {
    /// Judges differences (their clock - this clock, in milliseconds), one for each member.
    #[must_use]
    pub fn of(mut differences: Vec<i64>) -> Self {
        differences.sort_unstable();
        let members = differences.len();
        // Of two middles the one nearer to zero counts.
        let (low, high) = (members.saturating_sub(1) / 2, members / 2);
        let middles = [low, high].map(|at| differences.get(at).copied().unwrap_or(0));
        let median_ms = middles.into_iter().min_by_key(|middle| middle.unsigned_abs());
        Self {
            median_ms: median_ms.unwrap_or(0),
            members,
        }
    }

    /// Whether the node may sign records and claims.
    #[must_use]
    pub const fn may_sign(&self) -> bool {
        self.members < SKEW_PEERS_MIN || self.median_ms.unsigned_abs() <= SKEW_REFUSE_MS
    }

    /// What somebody should do about it, if anything.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        if self.members == 0 || self.median_ms.unsigned_abs() <= SKEW_WARN_MS {
            return None;
        }
        let seconds = self.median_ms.unsigned_abs().div_ceil(100);
        let (whole, tenth) = (seconds / 10, seconds % 10);
        let side = if self.median_ms > 0 { "behind" } else { "ahead of" };
        let stop = if self.may_sign() {
            ""
        } else {
            " It neither publishes nor asks until that is mended."
        };
        Some(format!(
            "The clock of this node is {whole}.{tenth} s {side} the clocks of {} other members.{stop} Set it by NTP; \
             the node goes on by itself.",
            self.members
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::Skew;

    #[test]
    fn spec_p_clock_the_median_judges_and_needs_three() {
        let of = |differences: &[i64]| Skew::of(differences.to_vec());
        assert_eq!(of(&[]), Skew::default());
        assert!(of(&[]).may_sign() && of(&[]).words().is_none());
        assert_eq!(of(&[100, 90_000, -20]).median_ms, 100);
        assert_eq!(of(&[100, 90_000]).median_ms, 100);
        // One or two wrong clocks of others stop nobody.
        assert!(of(&[90_000, 90_000]).may_sign());
        assert!(of(&[0, 10, 90_000, 90_000]).may_sign());
        // Three that agree do, in either direction, and words say what to do.
        for wrong in [6_000, -6_000] {
            let skew = of(&[wrong, wrong, wrong]);
            assert!(!skew.may_sign());
            let words = skew.words().unwrap_or_default();
            assert!(words.contains("6.0 s") && words.contains("NTP"), "{words}");
        }
        assert!(of(&[5_000, 5_000, 5_000]).may_sign());
        assert!(of(&[600, 600, 600]).words().is_some() && of(&[400, 400]).words().is_none());
    }
}
