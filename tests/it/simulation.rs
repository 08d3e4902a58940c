//! The federated index under everything that goes wrong between organisations, seed by seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use hie_tests::sim::planted::{PLANTED, hunt};
use hie_tests::sim::world::{Report, run};

/// Seeds of the clean machine: each ten simulated minutes.
const SEEDS: u64 = 200;
/// Seeds within which each planted bug must show.
const HUNT_SEEDS_MAX: u64 = 60;

/// Runs a job for each number on all processors, in any order; the results in the order of the numbers.
fn on_all_processors<T: Send>(jobs: u64, job: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let mut results: Vec<(u64, T)> = thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= jobs {
                    return done;
                }
                done.push((number, job(number)));
            }
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn spec_f_the_laws_hold_over_every_seed() {
    let reports: Vec<Report> = on_all_processors(SEEDS, |number| run(number + 1, None));
    let broken: Vec<&Report> = reports.iter().filter(|report| !report.violations.is_empty()).collect();
    for report in &broken {
        eprintln!(
            "seed {}: {:#?}",
            report.seed,
            report.violations.iter().take(4).collect::<Vec<_>>()
        );
    }
    assert!(
        broken.is_empty(),
        "violated by seeds {:?}",
        broken.iter().map(|one| one.seed).collect::<Vec<_>>()
    );
    // A run in which nothing happens proves nothing.
    let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    let (published, complete) = (sum(|one| one.counts.published), sum(|one| one.counts.complete));
    let (partial, crashes) = (sum(|one| one.counts.partial), sum(|one| one.counts.crashes));
    let (renewed, changed) = (sum(|one| one.counts.renewed), sum(|one| one.counts.registries));
    let caught = sum(|one| one.counts.misbehaved);
    eprintln!(
        "{SEEDS} seeds: {published} publishes, {complete} complete and {partial} partial answers, {crashes} crashes, \
         {renewed} renewals, {changed} registries, {caught} lies caught"
    );
    assert!(published > SEEDS * 100 && complete > SEEDS * 100 && partial > SEEDS);
    assert!(crashes > SEEDS * 5 && renewed > SEEDS && changed > SEEDS && caught > SEEDS);
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 77] {
        assert_eq!(run(seed, None), run(seed, None));
    }
    assert_ne!(run(3, None).trace, run(77, None).trace);
}

#[test]
fn every_planted_bug_is_found() {
    let found = on_all_processors(PLANTED.len() as u64, |number| {
        let (bug, laws) = PLANTED[number as usize];
        (bug, laws, hunt(bug, laws, HUNT_SEEDS_MAX))
    });
    for (bug, laws, report) in found {
        let report = report.unwrap_or_else(|| panic!("{bug:?} was not found in {HUNT_SEEDS_MAX} seeds"));
        let shown = report
            .violations
            .iter()
            .find(|violation| laws.contains(&violation.law))
            .unwrap();
        eprintln!(
            "{bug:?}: seed {} after {} ms: {:?}",
            report.seed, shown.at_ms, shown.law
        );
        assert_eq!(run(report.seed, Some(bug)), report, "the failing seed replays");
        assert!(
            run(report.seed, None).violations.is_empty(),
            "the seed is clean without the bug"
        );
    }
}
