//! Cost of the index for 3, 20 and 200 members, by simulation without faults: datagrams and bytes for each question,
//! records and bytes at each node. `scale [SECONDS]`; ends with 1 when the cost of a question grows with the region or
//! the records at a node do not fall as R/N.

#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a measuring program")]

use std::process::ExitCode;
use std::time::Instant;

use hie_tests::sim::climate::Climate;
use hie_tests::sim::rng::Rng;
use hie_tests::sim::world::World;

/// Sizes of the regions.
const MEMBERS: [usize; 3] = [3, 20, 200];
/// Copies of each record.
const REPLICAS: usize = 3;
/// Keys in use: many more than questions ask for, so that records spread.
const KEYS: usize = 3000;
/// Simulated seconds of publishing and asking, after which a minute passes without.
const SECONDS: u64 = 120;
/// Mean time between two publishes, and between two questions, anywhere in the region, in milliseconds.
const PACE_MS: u64 = 40;
/// How far figures may be from what is expected.
const TOLERANCE: f64 = 0.15;

/// Figures of one region.
struct Row {
    members: usize,
    questions: u64,
    per_question: f64,
    bytes_per_question: f64,
    records: usize,
    mean: f64,
    most: usize,
    bytes: f64,
    kept_up: f64,
}

fn main() -> ExitCode {
    let seconds = std::env::args()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(SECONDS);
    println!(
        "{:>8} {:>10} {:>14} {:>14} {:>9} {:>13} {:>9} {:>13} {:>12} {:>15}",
        "members",
        "questions",
        "datagrams/q",
        "record bytes/q",
        "records",
        "records/node",
        "most",
        "expected",
        "bytes/node",
        "background/s/n"
    );
    let rows: Vec<Row> = MEMBERS.iter().map(|members| measure(*members, seconds)).collect();
    let mut holds = true;
    for row in &rows {
        let expected = row.records as f64 * REPLICAS as f64 / row.members as f64;
        println!(
            "{:>8} {:>10} {:>14.2} {:>14.0} {:>9} {:>13.1} {:>9} {:>13.1} {:>12.0} {:>15.2}",
            row.members,
            row.questions,
            row.per_question,
            row.bytes_per_question,
            row.records,
            row.mean,
            row.most,
            expected,
            row.bytes,
            row.kept_up
        );
        holds &= (row.mean / expected - 1.0).abs() < TOLERANCE;
    }
    if let (Some(twenty), Some(two_hundred)) = (rows.get(1), rows.get(2)) {
        let ratio = two_hundred.per_question / twenty.per_question;
        let fall = twenty.mean / two_hundred.mean;
        println!("datagrams for a question, 200 members to 20: {ratio:.2} (bound: within {TOLERANCE} of 1)");
        println!("records at a node, 20 members to 200: {fall:.2} (R/N: 10)");
        holds &= (ratio - 1.0).abs() < TOLERANCE;
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(members: usize, seconds: u64) -> Row {
    let start = Instant::now();
    let mut climate = Climate::calm(members, KEYS, (seconds + 60) * 1000);
    climate.pace_ms = (PACE_MS, PACE_MS);
    let mut world = World::new(Rng::new(1), climate, None);
    world.run_until(seconds * 1000 + 30_000);
    let traffic = |kind: &str| world.traffic().get(kind).copied().unwrap_or_default();
    let (lookup, found) = (traffic("lookup"), traffic("found"));
    let (store, stored) = (traffic("store"), traffic("stored"));
    let all: u64 = world.traffic().values().map(|(count, _)| count).sum();
    let background = all - lookup.0 - found.0 - store.0 - stored.0;
    let questions = world.counts().asked;
    let holdings = world.holdings();
    let held: usize = holdings.iter().map(|(records, _)| records).sum();
    let bytes: usize = holdings.iter().map(|(_, bytes)| bytes).sum();
    eprintln!("{members} members simulated in {:.1?}", start.elapsed());
    Row {
        members,
        questions,
        per_question: (lookup.0 + found.0) as f64 / questions as f64,
        bytes_per_question: found.1 as f64 / questions as f64,
        records: world.records(),
        mean: held as f64 / members as f64,
        most: holdings.iter().map(|(records, _)| *records).max().unwrap_or_default(),
        bytes: bytes as f64 / members as f64,
        kept_up: background as f64 / (seconds + 30) as f64 / members as f64,
    }
}
