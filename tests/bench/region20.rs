//! Twenty real nodes on one machine: how long it takes to locate all documents of a patient, quiet, with a third of the
//! nodes dead, and over a wide area. `region20 [PEOPLE [QUESTIONS [SEED]]]`; ends with 1 when a bound or an answer breaks.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use hie_tests::crowd::{REGIONAL_SYSTEM, held_at, mixed, places, write_ndjson};
use hie_tests::delay::{Distance, relay};
use hie_tests::figures::{memory_mib, ms, percentile, processor_seconds, spread};
use hie_tests::stage::{Outcome, Place, Plan, Stage};
use serde_json::Value;

/// Nodes of the region.
const NODES: usize = 20;
/// Nodes that hold a share of the token key, and how many of them must evaluate.
const AUTHORITIES: usize = 5;
const THRESHOLD: u16 = 3;
/// Nodes that die: a third, rounded up.
const DEAD: usize = 7;
/// Authorities among the dead: as many as the threshold lets die.
const DEAD_AUTHORITIES: usize = 2;
/// People of the region when the command line names no number.
const PEOPLE: u64 = 1000;
/// Questions of one phase when the command line names no number.
const QUESTIONS: usize = 200;
/// Host of the relays, which every node dials; the nodes listen beside it.
const RELAYS: &str = "127.0.0.2";
/// Round trip of the wide area.
const WIDE: Duration = Duration::from_millis(50);
/// Added delay that a dead third may cost, in milliseconds.
const ADDED_MS_MAX: f64 = 500.0;
/// Bounds over the wide area, in milliseconds.
const WIDE_P50_MS_MAX: f64 = 300.0;
const WIDE_P95_MS_MAX: f64 = 1000.0;
/// Longest wait for the region to settle.
const SETTLE: Duration = Duration::from_secs(600);

struct World {
    stage: Stage,
    places: Vec<Place>,
    people: u64,
    seed: u64,
    dead: BTreeSet<usize>,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    distance: Distance,
}

/// What one question came to.
struct Answered {
    ms: f64,
    faults: Vec<String>,
    partial: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let mut next = |default: u64| words.next().unwrap_or(Ok(default));
    let (Ok(people), Ok(questions), Ok(seed)) = (next(PEOPLE), next(QUESTIONS as u64), next(1)) else {
        eprintln!("region20 [PEOPLE [QUESTIONS [SEED]]]: all are numbers");
        return ExitCode::FAILURE;
    };
    match run(people, usize::try_from(questions).unwrap_or(QUESTIONS), seed) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("region20: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(people: u64, questions: usize, seed: u64) -> Outcome<bool> {
    let folder = tempfile::tempdir()?;
    let mut world = World::open(folder.path(), people, seed)?;
    world.fill(folder.path())?;
    world.weigh("after the import");
    let mut good = true;
    let quiet = world.phase("quiet", questions, &mut good)?;
    world.choose_dead();
    let named: Vec<&str> = world
        .dead
        .iter()
        .filter_map(|at| Some(world.places.get(*at)?.slug.as_str()))
        .collect();
    println!("dead third         {} of {NODES}: {}", named.len(), named.join(" "));
    for (name, how) in [("killed", "KILL"), ("stopped", "STOP")] {
        world.die(how)?;
        let first = world.phase(&format!("{name}, at once"), questions / 4, &mut good)?;
        let later = world.phase(&format!("{name}, later"), questions, &mut good)?;
        for (when, figures) in [("at once", &first), ("later", &later)] {
            good &= added(&format!("{name}, {when}"), &quiet, figures);
        }
        world.revive(how)?;
    }
    world.distance.round_trip(WIDE);
    thread::sleep(Duration::from_secs(1));
    let wide = world.phase("wide area, 50 ms", questions, &mut good)?;
    let trips = (percentile(&wide, 0.5) - percentile(&quiet, 0.5)) / ms(WIDE);
    println!(
        "round trips        {trips:.1} per question: p50 over the wide area less p50 quiet, in round trips of 50 ms"
    );
    good &= bound("wide area p50", percentile(&wide, 0.5), WIDE_P50_MS_MAX);
    good &= bound("wide area p95", percentile(&wide, 0.95), WIDE_P95_MS_MAX);
    world.die("STOP")?;
    let both = world.phase("wide area, stopped", questions, &mut good)?;
    good &= added("wide area, stopped", &wide, &both);
    world.revive("STOP")?;
    world.weigh("at the end");
    Ok(good)
}

fn bound(what: &str, figure: f64, limit: f64) -> bool {
    let within = figure <= limit;
    println!(
        "{what:<19}{figure:.0} ms, {} {limit:.0} ms",
        if within { "within" } else { "OVER" }
    );
    within
}

/// Compares a phase with the quiet one.
fn added(what: &str, quiet: &[f64], figures: &[f64]) -> bool {
    let more = |part| percentile(figures, part) - percentile(quiet, part);
    println!(
        "added              {what}: p50 {:+.0} ms, p95 {:+.0} ms, p99 {:+.0} ms",
        more(0.5),
        more(0.95),
        more(0.99)
    );
    bound("added p50", more(0.5), ADDED_MS_MAX) & bound("added p95", more(0.95), ADDED_MS_MAX)
}

impl World {
    fn open(at: &Path, people: u64, seed: u64) -> Outcome<Self> {
        let started = Instant::now();
        let places = places(NODES, AUTHORITIES);
        let plan = Plan {
            threshold: THRESHOLD,
            host: Some(RELAYS),
            people: false,
        };
        let mut stage = Stage::region(at, &places, plan)?;
        let joined = started.elapsed();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let distance = Distance::default();
        for place in &places {
            for to in stage.listens(place)? {
                let port = to.rsplit(':').next().unwrap_or_default();
                runtime.block_on(relay(&format!("{RELAYS}:{port}"), to.clone(), distance.clone()))?;
            }
        }
        let started = Instant::now();
        stage.start_all()?;
        println!(
            "joined             {NODES} nodes in {:.1} s; all listen {:.1} s after their start",
            joined.as_secs_f64(),
            started.elapsed().as_secs_f64()
        );
        // The program that is measured installs its own; a second one in this process is none.
        let _first = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
        let world = Self {
            stage,
            places,
            people,
            seed,
            dead: BTreeSet::new(),
            client,
            runtime,
            distance,
        };
        world.until_connected(NODES)?;
        println!(
            "connected          every node with every other {:.1} s after the start",
            started.elapsed().as_secs_f64()
        );
        Ok(world)
    }

    fn status(&self, place: &Place) -> Outcome<Value> {
        let lines = self.stage.demand(place, &["status"])?;
        lines
            .into_iter()
            .next()
            .ok_or_else(|| "hie status printed nothing".into())
    }

    fn live(&self) -> impl Iterator<Item = (usize, &Place)> {
        self.places.iter().enumerate().filter(|(at, _)| !self.dead.contains(at))
    }

    /// Waits until every live node reaches `nodes` less itself.
    fn until_connected(&self, nodes: usize) -> Outcome<()> {
        let deadline = Instant::now() + SETTLE;
        for (_, place) in self.live() {
            loop {
                let status = self.status(place)?;
                let peers = status
                    .get("peers")
                    .and_then(Value::as_array)
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let up = peers
                    .iter()
                    .filter(|peer| peer.get("reachable") == Some(&Value::Bool(true)))
                    .count();
                if up + 1 >= nodes {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(format!("{} reaches {up} nodes", place.slug).into());
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    /// Imports everybody everywhere and waits until all of it is published.
    fn fill(&self, at: &Path) -> Outcome<()> {
        let mut records = 0;
        let mut files = Vec::new();
        for (number, place) in self.places.iter().enumerate() {
            let file = at.join(format!("{}.ndjson", place.slug));
            let here = (0..self.people).filter(|person| held_at(*person, NODES).contains(&number));
            records += write_ndjson(&file, here, place, 1)?;
            files.push((place, file));
        }
        let started = Instant::now();
        for pair in files.chunks(2) {
            thread::scope(|scope| {
                let running: Vec<_> = pair
                    .iter()
                    .map(|(place, file)| {
                        scope.spawn(|| {
                            let done = self.stage.demand(*place, &["import", "fhir", &file.to_string_lossy()]);
                            done.map(|_| ()).map_err(|error| error.to_string())
                        })
                    })
                    .collect();
                running
                    .into_iter()
                    .try_for_each(|one| one.join().map_err(|_| "an import broke off".to_owned())?)
            })?;
        }
        let imported = started.elapsed().as_secs_f64();
        let deadline = Instant::now() + SETTLE;
        for place in &self.places {
            while self.status(place)?.get("publications_waiting").and_then(Value::as_u64) != Some(0) {
                if Instant::now() > deadline {
                    return Err(format!("{} does not end publishing", place.slug).into());
                }
                thread::sleep(Duration::from_millis(200));
            }
        }
        let all = started.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = records as f64 / all;
        println!(
            "imported           {records} records of {} people in {imported:.1} s; published {all:.1} s after the start, {rate:.1} patients/s over the region",
            self.people
        );
        Ok(())
    }

    fn weigh(&self, when: &str) {
        let pids: Vec<u32> = self
            .live()
            .filter_map(|(_, place)| self.stage.pid(place).ok())
            .collect();
        let memory: Vec<f64> = pids
            .iter()
            .map(|pid| f64::from(u32::try_from(memory_mib(*pid)).unwrap_or(u32::MAX)))
            .collect();
        let used: f64 = pids.iter().map(|pid| processor_seconds(*pid)).sum();
        println!(
            "memory             {when}: p50 {:.0} MiB, max {:.0} MiB, all {:.0} MiB; processor time so far {used:.0} s",
            percentile(&memory, 0.5),
            percentile(&memory, 1.0),
            memory.iter().sum::<f64>()
        );
    }

    fn choose_dead(&mut self) {
        let mut order: Vec<usize> = (0..NODES).collect();
        order.sort_by_key(|at| mixed(self.seed.wrapping_mul(1000).wrapping_add(*at as u64)));
        let (authorities, others): (Vec<usize>, Vec<usize>) = order.into_iter().partition(|at| *at < AUTHORITIES);
        let dead = authorities.into_iter().take(DEAD_AUTHORITIES);
        self.dead = dead.chain(others.into_iter().take(DEAD - DEAD_AUTHORITIES)).collect();
    }

    fn die(&mut self, how: &str) -> Outcome<()> {
        for at in self.dead.clone() {
            let place = self.places.get(at).ok_or("no such node")?.clone();
            if how == "KILL" {
                self.stage.kill(&place)?
            } else {
                self.stage.signal(&place, how)?
            }
        }
        Ok(())
    }

    fn revive(&mut self, how: &str) -> Outcome<()> {
        for at in self.dead.clone() {
            let place = self.places.get(at).ok_or("no such node")?.clone();
            if how == "KILL" {
                self.stage.start(&place)?
            } else {
                self.stage.signal(&place, "CONT")?
            }
        }
        let dead = std::mem::take(&mut self.dead);
        self.until_connected(NODES)?;
        // Records of theirs that waited for an answer are on their way again.
        thread::sleep(Duration::from_secs(5));
        self.dead = dead;
        Ok(())
    }

    /// Asks `count` questions, one after the other, each of another live node about one of its own patients.
    fn phase(&mut self, name: &str, count: usize, good: &mut bool) -> Outcome<Vec<f64>> {
        let dead = if name.starts_with("quiet") || name == "wide area, 50 ms" {
            BTreeSet::new()
        } else {
            self.dead.clone()
        };
        let askers: Vec<usize> = (0..NODES).filter(|at| !dead.contains(at)).collect();
        let (mut figures, mut partial, mut faults) = (Vec::new(), 0, Vec::new());
        let mut turn = self.seed.wrapping_mul(7919).wrapping_add(name.len() as u64);
        while figures.len() < count {
            turn = turn.wrapping_add(1);
            let person = mixed(turn) % self.people.max(1);
            let holders = held_at(person, NODES);
            let Some(asker) = holders
                .iter()
                .find(|at| askers.contains(at))
                .filter(|_| holders.len() > 1)
            else {
                continue;
            };
            let answered = self.ask(*asker, person, &dead)?;
            figures.push(answered.ms);
            partial += usize::from(answered.partial);
            faults.extend(answered.faults);
        }
        println!(
            "{name:<19}{}; {partial} partial, {} wrong",
            spread(&figures),
            faults.len()
        );
        for fault in faults.iter().take(5) {
            println!("WRONG              {fault}");
        }
        *good &= faults.is_empty();
        Ok(figures)
    }

    fn ask(&self, asker: usize, person: u64, dead: &BTreeSet<usize>) -> Outcome<Answered> {
        let place = self.places.get(asker).ok_or("no such node")?;
        let (base, token) = self.stage.api(place)?;
        let url = format!("{base}/DocumentReference?patient.identifier={REGIONAL_SYSTEM}%7CR{person:09}&_count=100");
        let request = self.client.get(url).bearer_auth(token).header("X-HIE-Purpose", "TREAT");
        let started = Instant::now();
        let answer = self
            .runtime
            .block_on(async { request.send().await?.error_for_status()?.json::<Value>().await })?;
        let ms = ms(started.elapsed());
        let holders = held_at(person, NODES);
        let urn = |at: &usize| self.places.get(*at).map(|place| place.urn.clone());
        let gone: BTreeSet<String> = dead.iter().filter_map(urn).collect();
        let expected: BTreeSet<String> = holders.difference(dead).filter_map(urn).collect();
        let missing: BTreeSet<String> = holders.intersection(dead).filter_map(urn).collect();
        let (shown, silent) = read(&answer);
        let mut faults = Vec::new();
        let who = format!("person {person} asked at {}", place.slug);
        if shown != expected {
            faults.push(format!("{who}: documents of {shown:?} where {expected:?} hold some"));
        }
        if let Some(live) = silent.iter().find(|org| !gone.contains(*org)) {
            faults.push(format!("{who}: {live} lives and is named silent"));
        }
        if let Some(unnamed) = missing.iter().find(|org| !silent.contains(*org)) {
            faults.push(format!("{who}: {unnamed} is dead, holds documents, and is not named"));
        }
        Ok(Answered {
            ms,
            faults,
            partial: !silent.is_empty(),
        })
    }
}

/// Custodians of the documents in an answer, and organisations that it names silent.
fn read(answer: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut shown, mut silent) = (BTreeSet::new(), BTreeSet::new());
    let entries = answer.get("entry").and_then(Value::as_array);
    for resource in entries.into_iter().flatten().filter_map(|entry| entry.get("resource")) {
        if let Some(org) = resource.pointer("/custodian/identifier/value").and_then(Value::as_str) {
            shown.insert(org.to_owned());
        }
        for issue in resource.get("issue").and_then(Value::as_array).into_iter().flatten() {
            let org = issue.pointer("/details/coding/0/code").and_then(Value::as_str);
            silent.insert(org.unwrap_or("nobody named").to_owned());
        }
    }
    (shown, silent)
}
