//! SIGKILL of a node chosen at random, during publication, retrieval and import of images by turns; after each restart
//! everything acknowledged must still be there and every audit log must verify. `kills [N [SEED]]`; ends with 1 on any
//! loss.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ExitCode};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use hie::demo::question;
use hie_gateway_dialect::dicom::fixture::CtSeries;
use hie_gateway_dialect::fhir::fixture::{FixtureRecord, Site, generate, region_population};
use hie_tests::stage::{CLINICIAN, CONSENT_OFFICE, DONE, Outcome, PARTIAL, Stage, documents_of};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const ASKER: Site = Site::CityGeneral;
const HOLDER: Site = Site::NorthImaging;
/// Kills when the command line names no number.
const KILLS: u64 = 50;
/// Patients of one import of Bundles.
const PATIENTS: u64 = 8;
/// Instances of the study that is retrieved, 256 x 256.
const RETRIEVED: u32 = 150;
/// Instances of each study that is imported, 128 x 128.
const IMPORTED: u32 = 40;
/// Most repetitions of a command after a kill.
const REPEATS_MAX: usize = 5;

/// A seeded generator (SplitMix64): the same seed kills the same nodes.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    fn site(&mut self) -> Site {
        if self.below(2) == 0 { ASKER } else { HOLDER }
    }
}

/// What one round came to.
#[derive(Default)]
struct Round {
    in_the_middle: bool,
    acknowledged: usize,
    lost: Vec<String>,
}

/// One line of the table.
#[derive(Default)]
struct Row {
    kills: usize,
    in_the_middle: usize,
    acknowledged: usize,
    lost: usize,
}

/// A patient whose documents were acknowledged at a site.
struct Kept {
    site: Site,
    patient: Value,
    documents: bool,
}

struct World {
    stage: Stage,
    dice: Dice,
    kept: Vec<Kept>,
    subject: FixtureRecord,
    retrieved: CtSeries,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (kills, seed) = (words.next(), words.next());
    let (Ok(kills), Ok(seed)) = (kills.unwrap_or(Ok(KILLS)), seed.unwrap_or(Ok(1))) else {
        eprintln!("kills [N [SEED]]: both are numbers");
        return ExitCode::FAILURE;
    };
    match run(kills, seed) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kills: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(kills: u64, seed: u64) -> Outcome<bool> {
    let folder = tempfile::tempdir()?;
    let mut world = World::open(folder.path(), seed)?;
    let mut table: BTreeMap<&str, Row> = BTreeMap::new();
    for number in 0..kills {
        let victim = world.dice.site();
        let at = folder.path().join(format!("round-{number}"));
        std::fs::create_dir_all(&at)?;
        let (kind, mut round) = match number % 3 {
            0 => ("publish", world.publish(number, victim, &at)?),
            1 => ("retrieve", world.retrieve(victim, &at)?),
            _ => ("import dicom", world.import(number, victim, &at)?),
        };
        world.verify(&mut round)?;
        for lost in &round.lost {
            println!("LOST  kill {number}, {kind}, {}: {lost}", victim.name());
        }
        let row = table.entry(kind).or_default();
        row.kills += 1;
        row.in_the_middle += usize::from(round.in_the_middle);
        row.acknowledged += round.acknowledged;
        row.lost += round.lost.len();
        std::fs::remove_dir_all(at)?;
    }
    let mut end = Round::default();
    for kept in &world.kept {
        world.check(kept, &mut end)?;
    }
    for lost in &end.lost {
        println!("LOST  at the end: {lost}");
    }
    println!(
        "seed {seed}\n{:<14}{:>7}{:>15}{:>14}{:>6}",
        "during", "kills", "in the middle", "acknowledged", "lost"
    );
    for (kind, row) in &table {
        println!(
            "{kind:<14}{:>7}{:>15}{:>14}{:>6}",
            row.kills, row.in_the_middle, row.acknowledged, row.lost
        );
    }
    println!(
        "{:<14}{:>7}{:>15}{:>14}{:>6}",
        "all again",
        "",
        "",
        world.kept.len(),
        end.lost.len()
    );
    Ok(end.lost.is_empty() && table.values().all(|row| row.lost == 0))
}

/// Lines of a child's JSON output as they come.
fn stream(child: &mut Child) -> Outcome<Receiver<Value>> {
    let out = child.stdout.take().ok_or("no pipe")?;
    let (sink, source) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Ok(value) = serde_json::from_str(&line) {
                // The reader is gone when the round is over.
                let _gone = sink.send(value);
            }
        }
    });
    Ok(source)
}

/// Makes a fixture patient somebody whom no other patient resembles.
fn distinct(mut record: FixtureRecord, number: u64) -> FixtureRecord {
    let mut dice = Dice(number);
    let family: String = (0..9)
        .filter_map(|_| char::from_digit(10 + u32::try_from(dice.below(26)).ok()?, 36))
        .collect();
    let born = format!(
        "{}-{:02}-{:02}",
        1930 + dice.below(80),
        1 + dice.below(12),
        1 + dice.below(28)
    );
    let entries = record.bundle.get_mut("entry").and_then(Value::as_array_mut);
    for resource in entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.get_mut("resource"))
    {
        if resource.get("resourceType") != Some(&json!("Patient")) {
            continue;
        }
        if let Some(shown) = resource.pointer_mut("/name/0/family") {
            *shown = json!(family);
        }
        if let Some(shown) = resource.pointer_mut("/birthDate") {
            *shown = json!(born);
        }
    }
    record
}

fn write_series(series: &CtSeries, folder: &Path) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    for (number, file) in (1..).zip(series.files()) {
        let number: u32 = number;
        std::fs::write(folder.join(format!("{number:04}.dcm")), file)?;
    }
    Ok(())
}

impl World {
    fn open(at: &Path, seed: u64) -> Outcome<Self> {
        let stage = Stage::open(at, &[ASKER, HOLDER])?;
        let people = region_population();
        let records = people.first().map(|person| person.records.clone()).unwrap_or_default();
        let of = |site| records.iter().find(|record| record.site == site).cloned();
        let subject = of(HOLDER).ok_or("the fixture has no such record")?;
        for record in [of(ASKER).ok_or("the fixture has no such record")?, subject.clone()] {
            let path = at.join(format!("{}.json", record.mrn));
            std::fs::write(&path, record.bundle.to_string())?;
            stage.demand(record.site, &["import", "fhir", &path.to_string_lossy()])?;
        }
        let series = subject.series.clone().ok_or("the fixture has no series")?;
        let retrieved = CtSeries {
            slices: RETRIEVED,
            rows: 256,
            columns: 256,
            ..series
        };
        let dicom = at.join("retrieved");
        write_series(&retrieved, &dicom)?;
        stage.demand(HOLDER, &["import", "dicom", &dicom.to_string_lossy()])?;
        Ok(Self {
            stage,
            dice: Dice(seed),
            kept: Vec::new(),
            subject,
            retrieved,
        })
    }

    /// Kills a node after a short chance delay; answers whether the command still ran.
    fn kill_late(&mut self, victim: Site, running: &mut Child) -> Outcome<bool> {
        let delay = self.dice.below(40);
        thread::sleep(Duration::from_millis(delay));
        let in_the_middle = running.try_wait()?.is_none();
        self.stage.kill(victim)?;
        Ok(in_the_middle)
    }

    /// Bundles are imported at one node and published to the other while one of them dies.
    fn publish(&mut self, number: u64, victim: Site, at: &Path) -> Outcome<Round> {
        let site = self.dice.site();
        for patient in 0..PATIENTS {
            let seed = 1_000 + number * PATIENTS + patient;
            let record = distinct(generate(seed, site), seed);
            std::fs::write(at.join(format!("{}.json", record.mrn)), record.bundle.to_string())?;
        }
        let mut child = self
            .stage
            .command(site, &["import", "fhir", &at.to_string_lossy()])?
            .spawn()?;
        let source = stream(&mut child)?;
        let wait_for = 1 + self.dice.below(PATIENTS - 1);
        let mut seen: Vec<Value> = source.iter().take(usize::try_from(wait_for)?).collect();
        let in_the_middle = self.kill_late(victim, &mut child)?;
        let code = child.wait()?.code();
        seen.extend(source.iter());
        self.stage.start(victim)?;
        let closed = seen.iter().any(|line| line.get("rejected_count").is_some());
        let patients: Vec<Value> = seen.iter().filter_map(|line| line.get("patient").cloned()).collect();
        let mut round = Round {
            in_the_middle,
            acknowledged: patients.len(),
            lost: Vec::new(),
        };
        if victim != site && !(closed && [Some(DONE), Some(PARTIAL)].contains(&code)) {
            round
                .lost
                .push(format!("the import ended with {code:?} although its own node lived"));
        }
        // A patient's line follows its registration; its documents are acknowledged by the next line.
        let whole = if closed {
            patients.len()
        } else {
            patients.len().saturating_sub(1)
        };
        for (place, patient) in patients.into_iter().enumerate() {
            let kept = Kept {
                site,
                patient,
                documents: place < whole,
            };
            self.check(&kept, &mut round)?;
            self.kept.push(kept);
        }
        Ok(round)
    }

    /// A patient is still known at its own node, and its documents are granted to the other.
    fn check(&self, kept: &Kept, round: &mut Round) -> Outcome<()> {
        let id = kept.patient.get("id").and_then(Value::as_str).unwrap_or_default();
        let known = ["consent", "list", "--as", CONSENT_OFFICE, "--patient", id];
        if self.stage.run(kept.site, &known)?.0 != DONE {
            round
                .lost
                .push(format!("patient {id} is not known at {}", kept.site.name()));
        }
        let other = if kept.site == ASKER { HOLDER } else { ASKER };
        let granted = |answer: &[Value]| {
            let documents = documents_of(answer, kept.site);
            documents
                .iter()
                .filter(|one| one.get("class").and_then(Value::as_str) == Some("note"))
                .count()
                == 2
        };
        if kept.documents && !self.stage.find_until(other, &question(&kept.patient), granted)?.0 {
            round
                .lost
                .push(format!("documents of {id} are not granted to {}", other.name()));
        }
        Ok(())
    }

    /// The study of that many instances as the asker sees it: its reference.
    fn reference(&self, title: &str, least: u64) -> Outcome<Option<String>> {
        let pick = |answer: &[Value]| {
            documents_of(answer, HOLDER)
                .into_iter()
                .filter(|one| one.get("title").and_then(Value::as_str) == Some(title))
                .filter(|one| {
                    one.get("instances")
                        .and_then(Value::as_u64)
                        .is_some_and(|count| count >= least)
                })
                .find_map(|one| one.get("reference")?.as_str().map(str::to_owned))
        };
        let words = [
            "--family",
            "Okafor",
            "--given",
            "Grace",
            "--birth-date",
            "1961-03-14",
            "--sex",
            "female",
        ];
        let words = words.map(str::to_owned);
        let (_, answer) = self.stage.find_until(ASKER, &words, |answer| pick(answer).is_some())?;
        Ok(pick(&answer))
    }

    fn identical(series: &CtSeries, out: &Path) -> usize {
        let same = |number: &u32| {
            let file = std::fs::read(out.join(format!("{}.dcm", series.sop_uid(*number))));
            file.is_ok_and(|bytes| Sha256::digest(bytes) == Sha256::digest(series.file(*number)))
        };
        (1..=series.slices).filter(same).count()
    }

    /// A study is fetched while one of the nodes dies; the same command then completes it.
    fn retrieve(&mut self, victim: Site, at: &Path) -> Outcome<Round> {
        let series = self.retrieved.clone();
        let (title, least) = (series.study_description.clone(), u64::from(series.slices));
        let mut round = Round {
            acknowledged: 1,
            ..Round::default()
        };
        let Some(study) = self.reference(&title, least)? else {
            round.lost.push("the study is not granted".to_owned());
            return Ok(round);
        };
        let out = at.to_string_lossy().into_owned();
        let mut child = self
            .stage
            .command(ASKER, &["get", &study, "--as", CLINICIAN, "--out", &out])?
            .spawn()?;
        let wait_for = self.dice.below(u64::from(RETRIEVED));
        let files = || std::fs::read_dir(at).map_or(0, Iterator::count) as u64;
        while files() < wait_for && child.try_wait()?.is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        round.in_the_middle = child.try_wait()?.is_none();
        self.stage.kill(victim)?;
        let broken = child.wait()?.code();
        round.in_the_middle &= broken != Some(DONE);
        self.stage.start(victim)?;
        let Some(study) = self.reference(&title, least)? else {
            round.lost.push("the study is not granted after the restart".to_owned());
            return Ok(round);
        };
        let (mut code, mut repeats) = (-1, 0);
        while code != DONE && repeats < REPEATS_MAX {
            code = self
                .stage
                .run(ASKER, &["get", &study, "--as", CLINICIAN, "--out", &out])?
                .0;
            repeats += 1;
        }
        let same = Self::identical(&series, at);
        if code != DONE || same != usize::try_from(series.slices)? {
            round.lost.push(format!(
                "the study came with exit {code} and {same} of {} instances",
                series.slices
            ));
        }
        Ok(round)
    }

    /// Images are imported while one of the nodes dies; what is run again finds what was stored.
    fn import(&mut self, number: u64, victim: Site, at: &Path) -> Outcome<Round> {
        let base = self.subject.series.clone().ok_or("the fixture has no series")?;
        let study_uid = format!("2.25.7700{number}");
        let series = CtSeries {
            series_uid: format!("{study_uid}.1"),
            study_uid,
            study_description: format!("CT of round {number}"),
            slices: IMPORTED,
            rows: 128,
            columns: 128,
            seed: number,
            ..base
        };
        let (dicom, out) = (at.join("dicom"), at.join("out"));
        write_series(&series, &dicom)?;
        let words = ["import", "dicom", &dicom.to_string_lossy()];
        let mut child = self.stage.command(HOLDER, &words)?.spawn()?;
        let source = stream(&mut child)?;
        let mut seen: Vec<Value> = source.iter().take(1).collect();
        let delay = self.dice.below(200);
        thread::sleep(Duration::from_millis(delay));
        let in_the_middle = self.kill_late(victim, &mut child)?;
        child.wait()?;
        seen.extend(source.iter());
        self.stage.start(victim)?;
        let closed = seen.iter().any(|line| line.get("rejected_count").is_some());
        let begun = seen.iter().any(|line| line.get("study").is_some());
        let acknowledged = match (closed, begun) {
            (true, _) => u64::from(IMPORTED),
            (false, true) => 1,
            (false, false) => 0,
        };
        let mut round = Round {
            in_the_middle,
            acknowledged: usize::try_from(acknowledged)?,
            ..Round::default()
        };
        let again = self.stage.demand(HOLDER, &words)?;
        let unchanged = again
            .iter()
            .find_map(|line| line.get("unchanged")?.as_u64())
            .unwrap_or(0);
        if unchanged < acknowledged {
            round
                .lost
                .push(format!("{acknowledged} instances acknowledged, {unchanged} there"));
        }
        let Some(study) = self.reference(&series.study_description, u64::from(IMPORTED))? else {
            round.lost.push("the imported study is not granted".to_owned());
            return Ok(round);
        };
        let code = self
            .stage
            .run(
                ASKER,
                &["get", &study, "--as", CLINICIAN, "--out", &out.to_string_lossy()],
            )?
            .0;
        let same = Self::identical(&series, &out);
        if code != DONE || same != usize::try_from(IMPORTED)? {
            round.lost.push(format!(
                "the imported study came with exit {code} and {same} of {IMPORTED} instances"
            ));
        }
        Ok(round)
    }

    /// Every audit log is whole.
    fn verify(&self, round: &mut Round) -> Outcome<()> {
        for site in [ASKER, HOLDER] {
            if self.stage.run(site, &["audit", "verify"])?.0 != DONE {
                round
                    .lost
                    .push(format!("the audit log of {} does not verify", site.name()));
            }
        }
        Ok(())
    }
}
