//! A new node joins a region that is full: how long until it holds its part of the index and answers whole, killed once
//! on the way; and before that, the rate of a first publication. `join [RECORDS [NODES]]`; ends with 1 when the node
//! does not come to answer whole, or begins anew after the kill.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hie::order::Order;
use hie_protocol::id::{IndexKey, OrgId};
use hie_protocol::message::LOOKUP_KEYS_MAX;
use hie_protocol::oprf::derive;
use hie_tests::crowd::{demographics, places, write_ndjson};
use hie_tests::figures::{memory_mib, processor_seconds};
use hie_tests::observer::{Observer, order};
use hie_tests::stage::{Outcome, Place, Plan, Stage};
use serde_json::Value;

/// Index records of the region when the command line names no number.
const RECORDS: u64 = 20_000;
/// Nodes that hold them when the command line names no number.
const NODES: usize = 4;
/// Index records of one made patient at one organisation: her tokens, a note and a summary.
const RECORDS_PER_PATIENT: u64 = 12;
/// Patients of one file: an import reads a file at once.
const PATIENTS_PER_FILE: u64 = 2000;
/// People whose records tell how far the new node is.
const SAMPLE: u64 = 100;
/// The new node is killed when it holds this part of the sample.
const KILL_AT: f64 = 0.4;
/// A node that resumes still holds at least this part of what it held.
const KEPT_MIN: f64 = 0.9;
/// Longest wait for publication, and for the new node.
const LONGEST: Duration = Duration::from_secs(3 * 3600);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let mut next = |default: u64| words.next().unwrap_or(Ok(default));
    let (Ok(records), Ok(nodes)) = (next(RECORDS), next(NODES as u64)) else {
        eprintln!("join [RECORDS [NODES]]: both are numbers");
        return ExitCode::FAILURE;
    };
    match run(records, usize::try_from(nodes).unwrap_or(NODES)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("join: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(records: u64, nodes: usize) -> Outcome<bool> {
    let folder = tempfile::tempdir()?;
    let people = records.div_ceil(RECORDS_PER_PATIENT);
    let mut all = places(nodes + 2, 1);
    let (looks, joiner) = (all.pop().ok_or("no nodes")?, all.pop().ok_or("no nodes")?);
    let looks = Place { holder: false, ..looks };
    let plan = Plan {
        threshold: 1,
        host: None,
        people: false,
    };
    let mut stage = Stage::region(folder.path(), &all, plan)?;
    stage.start_all()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(publish(&stage, folder.path(), &all, people))?;
    stage.join(joiner.clone())?;
    stage.join(looks.clone())?;
    let home = stage.home(&looks)?;
    runtime.block_on(async {
        let observer = Observer::open(&home).await?;
        let sample = Sample::of(&observer, &all, &joiner, people).await?;
        println!(
            "sample             {} records of {SAMPLE} people belong at the new node",
            sample.keys.len()
        );
        let measured = fill(&mut stage, &observer, &joiner, &sample, records).await;
        observer.close().await;
        measured
    })
}

/// The first publication of everybody, at all nodes at once.
async fn publish(stage: &Stage, at: &Path, all: &[Place], people: u64) -> Outcome<()> {
    let before = processor(stage, all);
    let (mut started, mut imported) = (Instant::now(), Duration::ZERO);
    let mut from = 0;
    let batch = PATIENTS_PER_FILE * all.len() as u64;
    while from < people {
        let mut files = Vec::new();
        for (turn, place) in all.iter().enumerate() {
            let file = at.join(format!("{}.ndjson", place.slug));
            let here = (from..people.min(from + batch)).filter(|person| home_of(*person, all.len()) == turn);
            write_ndjson(&file, here, place, 1)?;
            files.push((place, file));
        }
        if from == 0 {
            started = Instant::now();
        }
        let now = Instant::now();
        let running = files.into_iter().map(|(place, path)| async move {
            order(&stage.home(place)?, &Order::ImportFhir { path, dry_run: false }).await
        });
        futures::future::try_join_all(running).await?;
        imported += now.elapsed();
        from += batch;
    }
    for place in all {
        while waiting(stage, place)? > 0 {
            if started.elapsed() > LONGEST {
                return Err(format!("{} does not end publishing", place.slug).into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    let (took, used) = (started.elapsed().as_secs_f64(), processor(stage, all) - before);
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let people = people as f64;
    println!(
        "first publication  {people} patients at {} nodes: imported in {:.1} s, all published after {took:.1} s: {:.1} patients/s; {used:.0} s of processor time, {:.1} patients/s per core; a million in {:.1} h at this rate",
        all.len(),
        imported.as_secs_f64(),
        people / took,
        people / used,
        1e6 / (people / took) / 3600.0
    );
    let memory: Vec<String> = all
        .iter()
        .filter_map(|place| Some(format!("{} MiB", memory_mib(stage.pid(place).ok()?))))
        .collect();
    println!("memory             {}", memory.join(", "));
    Ok(())
}

fn home_of(person: u64, nodes: usize) -> usize {
    usize::try_from(person % (nodes as u64).max(1)).unwrap_or(0)
}

fn processor(stage: &Stage, all: &[Place]) -> f64 {
    all.iter()
        .filter_map(|place| stage.pid(place).ok())
        .map(processor_seconds)
        .sum()
}

fn waiting(stage: &Stage, place: &Place) -> Outcome<u64> {
    let status = stage.demand(place, &["status"])?;
    let waiting = status
        .iter()
        .find_map(|line| line.get("publications_waiting").and_then(Value::as_u64));
    waiting.ok_or_else(|| "hie status does not say what waits".into())
}

/// Records of the sample that belong at the new node.
struct Sample {
    joiner: OrgId,
    keys: BTreeMap<IndexKey, OrgId>,
}

impl Sample {
    async fn of(observer: &Observer, all: &[Place], joiner: &Place, people: u64) -> Outcome<Self> {
        let joiner = OrgId::parse(&joiner.urn)?;
        let mut keys = BTreeMap::new();
        for turn in 0..SAMPLE.min(people) {
            let person = turn * people / SAMPLE.min(people);
            let owner = all.get(home_of(person, all.len())).ok_or("no such node")?;
            for output in observer.outputs(&demographics(person)?).await? {
                let key = IndexKey::new(derive::index_key(&output));
                if observer.holders(&key).contains(&joiner) {
                    keys.insert(key, OrgId::parse(&owner.urn)?);
                }
            }
        }
        Ok(Self { joiner, keys })
    }

    /// Part of the sample that the new node has, and whether it answers whole for all of it.
    async fn look(&self, observer: &Observer) -> (f64, bool) {
        let (mut held, mut whole) = (0_usize, true);
        let keys: Vec<IndexKey> = self.keys.keys().copied().collect();
        for part in keys.chunks(LOOKUP_KEYS_MAX) {
            let Some((found, all)) = observer.held(&self.joiner, part).await else {
                return (0.0, false);
            };
            whole &= all;
            let has = |(key, under): &(&IndexKey, &Vec<_>)| {
                self.keys
                    .get(key)
                    .is_some_and(|owner| observer.of_owner(under, owner).is_some())
            };
            held += part.iter().zip(&found).filter(has).count();
        }
        #[expect(clippy::cast_precision_loss, reason = "a part")]
        let part = held as f64 / keys.len().max(1) as f64;
        (part, whole)
    }
}

/// Starts the new node, kills it once on its way, and waits until it has everything and says so.
async fn fill(stage: &mut Stage, observer: &Observer, joiner: &Place, sample: &Sample, records: u64) -> Outcome<bool> {
    stage.start(joiner)?;
    let started = Instant::now();
    let (mut killed, mut good, mut has_all) = (None, true, None);
    loop {
        let (part, whole) = sample.look(observer).await;
        if killed.is_none() && part >= KILL_AT {
            stage.kill(joiner)?;
            stage.start(joiner)?;
            let mut again = sample.look(observer).await.0;
            let back = Instant::now();
            while again == 0.0 && back.elapsed() < Duration::from_secs(30) {
                tokio::time::sleep(LOOK).await;
                again = sample.look(observer).await.0;
            }
            println!(
                "killed             after {:.1} s with {:.0} % of the sample; back with {:.0} %",
                started.elapsed().as_secs_f64(),
                part * 100.0,
                again * 100.0
            );
            good &= again >= part * KEPT_MIN;
            killed = Some(part);
        }
        if part >= 1.0 && has_all.is_none() {
            has_all = Some(started.elapsed());
            println!(
                "holds              its whole part of the sample after {:.1} s",
                started.elapsed().as_secs_f64()
            );
        }
        if whole && has_all.is_some() {
            break;
        }
        if started.elapsed() > LONGEST {
            println!(
                "NOT whole          after {:.0} s: {:.0} % of the sample",
                started.elapsed().as_secs_f64(),
                part * 100.0
            );
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
    let took = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a projection")]
    let million = took * 1e6 / records as f64 / 60.0;
    println!(
        "joined             answers whole {took:.1} s after its start, with {records} records in the region; at this rate {million:.1} min with a million"
    );
    Ok(good)
}
