//! One lying holder of three: it says that it keeps what it is given and that its answers are whole, and leaves records
//! out, or answers with what it had long ago. `liar [QUESTIONS]` counts the answers that called themselves complete and
//! were not. Each way of lying is run in a quiet region, and with crashes, partitions, loss and delay around it. Ends
//! with 1 when one complete answer lacks an acknowledged record or shows an old one.

#![allow(clippy::print_stdout, reason = "a measuring program")]

use std::process::ExitCode;
use std::time::Instant;

use hie_tests::sim::climate::{Climate, Lie};
use hie_tests::sim::crowd::{in_parallel, processors};
use hie_tests::sim::oracle::Law;
use hie_tests::sim::world::{Report, run_climate};

/// Questions in each part when the command line names no number.
const QUESTIONS: u64 = 10_000;
/// Questions of one run, about.
const QUESTIONS_PER_RUN: u64 = 1700;
/// What makes a complete answer false.
const FALSE: [Law; 3] = [Law::Lost, Law::Stale, Law::Resurfaced];

fn main() -> ExitCode {
    let wanted = std::env::args()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(QUESTIONS);
    println!(
        "{:<34} {:>9} {:>9} {:>8} {:>15} {:>13} {:>12}",
        "", "questions", "complete", "partial", "false complete", "liar in gaps", "publishes"
    );
    let mut wrong = 0;
    for (lie, lies) in [
        (Lie::Omit, "omits, claims whole"),
        (Lie::Stale, "answers with old content"),
    ] {
        for rough in [false, true] {
            wrong += part(lie, lies, rough, wanted);
        }
    }
    println!("false complete answers: {wrong} (bound: 0)");
    if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn part(lie: Lie, lies: &str, rough: bool, wanted: u64) -> usize {
    let start = Instant::now();
    let reports = in_parallel(1..=wanted.div_ceil(QUESTIONS_PER_RUN), processors(), |seed| {
        run_climate(seed, climate(lie, rough), None)
    });
    let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    let violations = reports.iter().flat_map(|report| &report.violations);
    let wrong: Vec<_> = violations.filter(|one| FALSE.contains(&one.law)).collect();
    println!(
        "{:<34} {:>9} {:>9} {:>8} {:>15} {:>13} {:>12}",
        format!("{lies}{}", if rough { ", rough" } else { "" }),
        sum(|one| one.counts.asked),
        sum(|one| one.counts.complete),
        sum(|one| one.counts.partial),
        wrong.len(),
        sum(|one| one.counts.liar_silent),
        sum(|one| one.counts.published),
    );
    for one in wrong.iter().take(2) {
        println!("  {:?} at {} ms: {}", one.law, one.at_ms, one.what);
    }
    eprintln!("{lies}, rough: {rough}, in {:.1?}", start.elapsed());
    wrong.len()
}

/// Three holders of everything, the third of which lies, and two more members that ask and publish.
fn climate(lie: Lie, rough: bool) -> Climate {
    let calm = Climate::calm(3, 12, 600_000);
    let quiet = Climate {
        liar: Some((2, lie)),
        pace_ms: (500, 300),
        ..calm
    };
    if !rough {
        return quiet;
    }
    Climate {
        loss: 50,
        duplicate: 20,
        slow: 20,
        sync_ms: 20,
        fault_every_ms: 10_000,
        ..quiet
    }
}
