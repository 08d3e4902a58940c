//! `hie demo`: a region authority and four organisations as separate processes on loopback, and one question.
//!
//! Everything goes through the same program and verbs that a real region uses; nothing is prepared behind its back.

mod answer;
mod data;
mod stage;

pub use data::question;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hie_gateway_dialect::fhir::fixture::{Site, region_population};
use serde_json::Value;

use crate::cli::arguments::Demo;
use crate::cli::output::Output;
use crate::fault::{Exit, Fault, Outcome};
use answer::Answer;
use stage::{Organisation, Stage};

/// Who is asked about when the program's own patients are used.
pub const SUBJECT: [&str; 8] = [
    "--family",
    "Okafor",
    "--given",
    "Grace",
    "--birth-date",
    "1961-03-14",
    "--sex",
    "female",
];
/// File that marks a folder as a demonstration, so that only such a folder is ever emptied.
pub const MARK: &str = ".hie-demo";
/// Slices of the demonstration's study: enough to scroll, quick to make.
pub const SLICES: u32 = 48;
/// Longest wait until everything published is visible.
pub const SETTLE: Duration = Duration::from_secs(60);

/// Runs the demonstration.
pub async fn run(demo: Demo, output: &Output) -> Outcome<Exit> {
    let folder = prepare(&demo.dir)?;
    let mut stage = Stage::open(&folder, output).await?;
    for site in Site::ALL {
        stage.join(site, output).await?;
    }
    if let Some(folder) = &demo.data {
        let imported = stage.import_data(folder, output).await?;
        data::ask_about_all(&stage, &imported, output).await?;
        data::compare_studies(&stage, &imported, output).await?;
    } else {
        own_patients(&mut stage, &folder, output).await?;
    }
    verify_all(&stage, output).await?;
    if demo.once {
        stage.close().await;
        output.say("\nDone.");
        return Ok(Exit::Done);
    }
    if demo.data.is_none() {
        stage.start(Site::HarbourGp).await?;
    }
    stage.print_accounts(output);
    output.say("\nThe region stays up until Ctrl-C.");
    crate::run::stop_signal().await;
    stage.close().await;
    Ok(Exit::Done)
}

/// The program's own patients: the whole answer, a study, and the same question with a gap.
async fn own_patients(stage: &mut Stage, folder: &Path, output: &Output) -> Outcome<()> {
    import_own(stage, output).await?;
    let question: Vec<String> = SUBJECT.iter().map(|word| (*word).to_owned()).collect();
    output.say("\nAsking: who else holds something about this patient?");
    let whole = ask_until_whole(stage, stage.organisation(Site::CityGeneral)?, &question).await?;
    whole.print(output);
    whole.demand_from_others(3)?;
    fetch_study(stage, stage.organisation(Site::CityGeneral)?, &whole, folder, output).await?;
    // A holder that is new to a key counts as whole once every member announced its records: that takes a moment.
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage.stop(Site::HarbourGp).await?;
    output.say("\nHarbour GP Clinic is stopped on purpose. The same question again:");
    let partial = ask(stage, stage.organisation(Site::CityGeneral)?, &question).await?;
    partial.print(output);
    partial.demand_silent(Site::HarbourGp.name())
}

/// Empties a demonstration's folder, or makes a new one; never touches any other folder.
fn prepare(dir: &Path) -> Outcome<PathBuf> {
    let failed = || {
        Fault::because(
            Exit::Failed,
            "Cannot prepare the demonstration's folder.",
            "Choose another with --dir.",
        )
    };
    if dir.exists() {
        let empty = std::fs::read_dir(dir).map_err(failed())?.next().is_none();
        if !empty && !dir.join(MARK).exists() {
            return Err(Fault::new(
                Exit::Refused,
                format!("{} is not a demonstration's folder.", dir.display()),
                "it holds something else, which would be deleted",
                "Choose another with --dir.",
            ));
        }
        std::fs::remove_dir_all(dir).map_err(failed())?;
    }
    std::fs::create_dir_all(dir).map_err(failed())?;
    std::fs::write(dir.join(MARK), b"demonstration, may be deleted\n").map_err(failed())?;
    dir.canonicalize().map_err(failed())
}

/// Writes the program's own patients as files and imports them at their organisations.
async fn import_own(stage: &Stage, output: &Output) -> Outcome<()> {
    let failed = || {
        Fault::because(
            Exit::Failed,
            "Cannot write the demonstration's patients.",
            "Check space and permissions.",
        )
    };
    for person in region_population() {
        for record in &person.records {
            let folder = stage.folder().join("data").join(record.site.slug());
            let (fhir, dicom) = (folder.join("fhir"), folder.join("dicom").join(&record.mrn));
            std::fs::create_dir_all(&fhir).map_err(failed())?;
            let text = record.bundle.to_string();
            std::fs::write(fhir.join(format!("{}.json", record.mrn)), text).map_err(failed())?;
            if let Some(mut series) = record.series.clone() {
                series.slices = series.slices.min(SLICES);
                std::fs::create_dir_all(&dicom).map_err(failed())?;
                for (number, file) in series.files().enumerate() {
                    std::fs::write(dicom.join(format!("{number:04}.dcm")), file).map_err(failed())?;
                }
            }
        }
    }
    for site in Site::ALL {
        let folder = stage.folder().join("data").join(site.slug());
        output.say(format!("Importing at {}", site.name()));
        let organisation = stage.organisation(site)?;
        for kind in ["fhir", "dicom"] {
            let path = folder.join(kind);
            if path.exists() {
                stage
                    .hie(organisation, &["import", kind, &path.to_string_lossy()])
                    .await?;
            }
        }
    }
    Ok(())
}

async fn ask(stage: &Stage, asker: &Organisation, question: &[String]) -> Outcome<Answer> {
    let mut words = vec!["--json", "find", "--as", "haddad"];
    words.extend(question.iter().map(String::as_str));
    let lines = stage.hie_lines(asker, &words).await?;
    Ok(Answer::read(&lines))
}

/// Asks until the answer is complete, for as long as publication may take.
async fn ask_until_whole(stage: &Stage, asker: &Organisation, question: &[String]) -> Outcome<Answer> {
    let deadline = tokio::time::Instant::now() + SETTLE;
    loop {
        let answer = ask(stage, asker, question).await?;
        if (answer.is_complete() && answer.answered() == Site::ALL.len()) || tokio::time::Instant::now() >= deadline {
            return Ok(answer);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Fetches the first study of the answer and compares every instance with the file that was imported.
async fn fetch_study(
    stage: &Stage,
    asker: &Organisation,
    answer: &Answer,
    folder: &Path,
    output: &Output,
) -> Outcome<()> {
    let Some((reference, holder)) = answer.study() else {
        return Err(Fault::new(
            Exit::Failed,
            "No study was answered.",
            "no organisation granted one",
            "See the logs.",
        ));
    };
    let out = folder.join("fetched");
    stage
        .hie(
            asker,
            &["get", &reference, "--as", "haddad", "--out", &out.to_string_lossy()],
        )
        .await?;
    let files = std::fs::read_dir(&out).map_or(0, Iterator::count);
    output.say(format!(
        "\nFetched a study of {files} instances from {holder} into {}",
        out.display()
    ));
    Ok(())
}

async fn verify_all(stage: &Stage, output: &Output) -> Outcome<()> {
    output.say("");
    for organisation in stage.running() {
        let lines = stage.hie_lines(organisation, &["--json", "audit", "verify"]).await?;
        let entries = lines
            .iter()
            .find_map(|line| line.get("to").and_then(Value::as_u64))
            .unwrap_or(0);
        output.say(format!(
            "Audit log of {}: {entries} entries, whole and unaltered",
            organisation.site.name()
        ));
    }
    Ok(())
}
