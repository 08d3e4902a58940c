//! The simulation at length: `simulate [FROM TO [MINUTES [THREADS]]]` runs the seeds, `simulate planted [SEEDS [BUG]]`
//! hunts every planted bug or one, `simulate clocks [FROM TO]` runs each seed under two settings of all clocks. Prints simulated
//! hours for each second of wall time; ends with 1 when a law does not hold, a replay differs, or a bug is not found.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a measuring program")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hie_node_federation::config::Planted;
use hie_tests::sim::crowd::{in_parallel, processors};
use hie_tests::sim::oracle::Law;
use hie_tests::sim::planted::{MASKED, PLANTED, hunt};
use hie_tests::sim::world::{Report, run_minutes, run_shifted};

/// Seeds of a run that names none.
const SEEDS: u64 = 1000;
/// Simulated minutes of a run that names none.
const MINUTES: u64 = 60;
/// One in so many seeds is run a second time.
const REPLAY_EVERY: u64 = 50;
/// Seeds within which each planted bug must show.
const HUNT_SEEDS: u64 = 60;
/// Seeds at a time, so that long runs say where they are.
const BATCH: u64 = 50;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse().ok());
    let holds = match words.first().map(String::as_str) {
        Some("planted") => planted(number(1).unwrap_or(HUNT_SEEDS), words.get(2)),
        Some("clocks") => clocks(number(1).unwrap_or(1), number(2).unwrap_or(20)),
        _ => {
            let (from, to) = (number(0).unwrap_or(1), number(1).unwrap_or(SEEDS));
            let threads = number(3).and_then(|count| usize::try_from(count).ok());
            seeds(
                from,
                to,
                number(2).unwrap_or(MINUTES),
                threads.unwrap_or_else(processors),
            )
        }
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Sums {
    published: u64,
    complete: u64,
    partial: u64,
    crashes: u64,
    partitions: u64,
    registries: u64,
    clock_steps: u64,
    disks_lost: u64,
    datagrams: u64,
    liar_named: u64,
}

fn seeds(from: u64, to: u64, minutes: u64, threads: usize) -> bool {
    let start = Instant::now();
    let (mut sums, mut laws, mut broken, mut replays) = (Sums::default(), BTreeMap::<Law, u64>::new(), 0_u64, (0, 0));
    let mut next = from;
    while next <= to {
        let last = to.min(next + BATCH - 1);
        let reports = in_parallel(next..=last, threads, |seed| {
            let report = run_minutes(seed, None, minutes);
            let again = seed
                .is_multiple_of(REPLAY_EVERY)
                .then(|| run_minutes(seed, None, minutes) == report);
            (report, again)
        });
        for (report, again) in &reports {
            add(&mut sums, report);
            replays.0 += u64::from(again.is_some());
            replays.1 += u64::from(*again == Some(true));
            for violation in &report.violations {
                *laws.entry(violation.law).or_default() += 1;
            }
            if let Some(first) = report.violations.first() {
                broken += 1;
                println!(
                    "seed {}: {:?} at {} ms: {}",
                    report.seed, first.law, first.at_ms, first.what
                );
            }
        }
        let hours = simulated_hours((last + 1 - from) * minutes);
        eprintln!(
            "{} seeds, {hours:.1} h simulated in {:.0?}",
            last + 1 - from,
            start.elapsed()
        );
        next = last + 1;
    }
    let count = to + 1 - from;
    let runs = count + replays.0;
    print_sums(&sums, count, minutes);
    print_speed(simulated_hours(runs * minutes), start.elapsed(), threads);
    println!("replayed      {} of {} seeds bit by bit", replays.1, replays.0);
    println!(
        "violations    {} in {broken} seeds {laws:?}",
        laws.values().sum::<u64>()
    );
    broken == 0 && replays.0 == replays.1
}

fn add(sums: &mut Sums, report: &Report) {
    let counts = &report.counts;
    sums.published += counts.published;
    sums.complete += counts.complete;
    sums.partial += counts.partial;
    sums.crashes += counts.crashes;
    sums.partitions += counts.partitions;
    sums.registries += counts.registries;
    sums.clock_steps += counts.clock_steps;
    sums.disks_lost += counts.disks_lost;
    sums.datagrams += counts.delivered;
    sums.liar_named += counts.liar_named;
}

fn print_sums(sums: &Sums, seeds: u64, minutes: u64) {
    println!("seeds         {seeds} of {minutes} minutes");
    println!("publishes     {} acknowledged", sums.published);
    println!("answers       {} complete, {} partial", sums.complete, sums.partial);
    println!("crashes       {}", sums.crashes);
    println!("partitions    {}", sums.partitions);
    println!("registries    {}", sums.registries);
    println!("clock steps   {}", sums.clock_steps);
    println!("disks lost    {}", sums.disks_lost);
    println!("datagrams     {}", sums.datagrams);
    println!("liar named    {} times", sums.liar_named);
}

#[expect(clippy::cast_precision_loss, reason = "a figure to read")]
fn simulated_hours(minutes: u64) -> f64 {
    minutes as f64 / 60.0
}

fn print_speed(hours: f64, took: Duration, threads: usize) {
    let speed = hours / took.as_secs_f64();
    println!("speed         {hours:.1} h simulated in {took:.1?} on {threads} threads: {speed:.3} h each second");
}

fn planted(most: u64, only: Option<&String>) -> bool {
    let start = Instant::now();
    let shown = PLANTED.iter().map(|(bug, laws, _)| (*bug, *laws));
    let wanted = |bug: &Planted| only.is_none_or(|only| *only == format!("{bug:?}"));
    let bugs: Vec<_> = shown.chain(MASKED).filter(|(bug, _)| wanted(bug)).collect();
    let Some(last) = (bugs.len() as u64).checked_sub(1) else {
        eprintln!("simulate: no bug of that name is planted");
        return false;
    };
    let found = in_parallel(0..=last, processors(), |at| {
        let at = usize::try_from(at).expect("a place in the list");
        let (bug, laws) = *bugs.get(at).expect("a place in the list");
        (bug, laws, hunt(bug, laws, 1..=most))
    });
    let mut count = 0;
    for (bug, laws, report) in &found {
        let shown = report.as_ref().and_then(|report| {
            let first = report
                .violations
                .iter()
                .find(|violation| laws.contains(&violation.law))?;
            Some((report.seed, first))
        });
        match shown {
            Some((seed, first)) => {
                count += 1;
                println!("{bug:?}: seed {seed} after {} ms: {:?}", first.at_ms, first.law);
            }
            None => println!("{bug:?}: NOT FOUND in {most} seeds"),
        }
    }
    println!(
        "{count} of {} planted bugs found in {:.1?}",
        found.len(),
        start.elapsed()
    );
    count == found.len()
}

/// Two worlds that differ in every clock, within the skew that the region allows, decide alike.
fn clocks(from: u64, to: u64) -> bool {
    let alike = in_parallel(from..=to, processors(), |seed| {
        let (left, right) = (run_shifted(seed, 0), run_shifted(seed, 700));
        (seed, left.trace == right.trace && left.counts == right.counts)
    });
    let differ: Vec<u64> = alike
        .iter()
        .filter(|(_, alike)| !alike)
        .map(|(seed, _)| *seed)
        .collect();
    println!(
        "clocks        {} of {} seeds decide alike; {differ:?} differ",
        alike.len() - differ.len(),
        alike.len()
    );
    differ.is_empty()
}
