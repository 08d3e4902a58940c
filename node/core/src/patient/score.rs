//! From evidence to a grade: certain, probable, or nothing.
//!
//! An identifier of one authority with an agreeing birth date or name is certain; everything else needs the
//! score. Name, birth date and sex alone are at most probable, and a guard caps the grade whatever the score
//! (SPEC M-GRADE).

use hie_protocol::message::MatchGrade;

use crate::patient::compare::{Evidence, capped, compare};
use crate::patient::normalise::Normal;

/// Log2 of the odds that two people of a region of a million are the same before anything is compared.
pub const PRIOR_BITS: f64 = -20.0;
/// Log2 odds from which a comparison is certain, when nothing caps it.
pub const CERTAIN_BITS: f64 = 8.0;
/// Log2 odds from which it is probable.
pub const PROBABLE_BITS: f64 = 2.0;
/// How far the best of several people must lead to be the one, in bits.
pub const LEADER_BITS: f64 = 6.0;

/// The judgement of one comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Grade, or none: not the same person, or nothing to say so with.
    pub grade: Option<MatchGrade>,
    /// Log2 odds.
    pub bits: f64,
    /// What agrees, in words.
    pub agrees: Vec<&'static str>,
    /// What differs, in words.
    pub differs: Vec<&'static str>,
}

/// Judges whether two records are one person.
#[must_use]
pub fn judge(left: &Normal, right: &Normal) -> Verdict {
    let evidence = compare(left, right);
    let bits = evidence.bits + PRIOR_BITS;
    let grade = grade(&evidence, bits);
    Verdict {
        grade,
        bits,
        agrees: evidence.agrees,
        differs: evidence.differs,
    }
}

fn grade(evidence: &Evidence, bits: f64) -> Option<MatchGrade> {
    let deterministic = evidence.identifier && (evidence.birth || evidence.name);
    if deterministic || bits >= CERTAIN_BITS {
        Some(capped(evidence, MatchGrade::Certain))
    } else if bits >= PROBABLE_BITS {
        Some(MatchGrade::Probable)
    } else {
        None
    }
}

/// The answer over several people: at most one certain, and only when it leads.
#[must_use]
pub fn lead<K: Clone>(mut judged: Vec<(K, Verdict)>) -> Vec<(K, Verdict)> {
    judged.retain(|(_, verdict)| verdict.grade.is_some());
    judged.sort_by(|(_, left), (_, right)| {
        right
            .grade
            .map(rank)
            .cmp(&left.grade.map(rank))
            .then(right.bits.total_cmp(&left.bits))
    });
    let runner_up = judged.get(1).map(|(_, verdict)| (verdict.grade, verdict.bits));
    if let (Some((_, best)), Some((Some(grade), bits))) = (judged.first_mut(), runner_up)
        && best.grade == Some(MatchGrade::Certain)
        && (grade == MatchGrade::Certain || best.bits - bits < LEADER_BITS)
    {
        // Two people fit: a human must choose.
        for (_, verdict) in &mut judged {
            verdict.grade = verdict.grade.map(|_| MatchGrade::Probable);
        }
    }
    judged
}

const fn rank(grade: MatchGrade) -> u8 {
    match grade {
        MatchGrade::Certain => 1,
        MatchGrade::Probable => 0,
    }
}

#[cfg(test)]
mod tests;
