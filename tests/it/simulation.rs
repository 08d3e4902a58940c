//! The federated index under everything that goes wrong between organisations, seed by seed. Runs of any length:
//! `cargo run -p hie-tests --example simulate`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use hie_tests::sim::crowd::{in_parallel, processors};
use hie_tests::sim::planted::{PLANTED, hunt};
use hie_tests::sim::world::{Report, run, run_shifted, run_until_broken};

/// Seeds of the clean machine: each ten simulated minutes.
const SEEDS: u64 = 30;
/// Last seed within which each planted bug must show.
const HUNT_SEEDS_MAX: u64 = 100;

#[test]
fn spec_f_the_laws_hold_over_every_seed() {
    let reports: Vec<Report> = in_parallel(1..=SEEDS, processors(), |seed| run(seed, None));
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
    let (parted, stepped) = (sum(|one| one.counts.partitions), sum(|one| one.counts.clock_steps));
    let caught = sum(|one| one.counts.liar_named);
    eprintln!(
        "{SEEDS} seeds: {published} publishes, {complete} complete and {partial} partial answers, {crashes} crashes, \
         {parted} partitions, {stepped} steps of clocks, {renewed} renewals, {changed} registries, {caught} lies caught"
    );
    assert!(published > SEEDS * 100 && complete > SEEDS * 100 && partial > SEEDS);
    assert!(crashes > SEEDS * 5 && renewed > SEEDS && changed > SEEDS && caught > SEEDS);
    assert!(parted > SEEDS && stepped > SEEDS);
}

#[test]
fn one_seed_is_one_run() {
    assert_eq!(run(3, None), run(3, None));
    assert_ne!(run(3, None).trace, run(7, None).trace);
}

#[test]
fn no_decision_uses_another_nodes_clock() {
    let alike = in_parallel(1..=4, processors(), |seed| {
        let (left, right) = (run_shifted(seed, 0), run_shifted(seed, 700));
        (left.trace, left.counts) == (right.trace, right.counts)
    });
    assert_eq!(alike, vec![true; 4]);
}

#[test]
fn every_planted_bug_is_found() {
    in_parallel(0..=PLANTED.len() as u64 - 1, processors(), |number| {
        let (bug, laws, seed) = PLANTED[number as usize];
        let report = hunt(bug, laws, seed..=HUNT_SEEDS_MAX)
            .unwrap_or_else(|| panic!("{bug:?} was not found in {HUNT_SEEDS_MAX} seeds"));
        let seed = report.seed;
        let shown = report.violations.iter().find(|one| laws.contains(&one.law)).unwrap();
        eprintln!("{bug:?}: seed {seed} after {} ms: {:?}", shown.at_ms, shown.law);
        let clean = run_until_broken(seed, None, laws);
        assert_eq!(clean.violations, Vec::new(), "seed {seed} is clean without the bug");
    });
}
