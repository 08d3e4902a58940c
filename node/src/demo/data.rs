//! `hie demo --data`: a question about every imported patient, and every stored instance compared byte by byte.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hie_gateway_dialect::dicom::instance;
use hie_gateway_dialect::fhir::fixture::Site;
use hie_gateway_dialect::multipart::{self, MultipartType};
use serde_json::{Value, json};

use super::stage::{Imported, Stage};
use super::{SETTLE, answer::Answer, ask};
use crate::cli::output::Output;
use crate::fault::{Exit, Fault, Outcome};

/// Most parts of one retrieved study.
pub const PARTS_MAX: usize = 20_000;

/// The words after `hie find --as` that name a patient as an import showed it: everything that names her.
#[must_use]
pub fn question(patient: &Value) -> Vec<String> {
    let mut words = Vec::new();
    for (flag, key) in [
        ("--family", "family"),
        ("--given", "given"),
        ("--birth-date", "birth_date"),
        ("--sex", "sex"),
    ] {
        if let Some(text) = patient.get(key).and_then(Value::as_str) {
            words.extend([flag.to_owned(), text.to_owned()]);
        }
    }
    let identifiers = patient.get("identifiers").and_then(Value::as_array);
    for identifier in identifiers.into_iter().flatten().filter_map(Value::as_str) {
        words.extend(["--identifier".to_owned(), identifier.to_owned()]);
    }
    words
}

/// Asks from the first hospital about every patient; the answers are kept as `answers.ndjson`.
pub async fn ask_about_all(stage: &Stage, imported: &Imported, output: &Output) -> Outcome<()> {
    let path = stage.folder().join("answers.ndjson");
    let failed = || Fault::because(Exit::Failed, "Cannot keep the answers.", "Check space and permissions.");
    let mut kept = std::fs::File::create(&path).map_err(failed())?;
    let asker = stage.organisation(Site::CityGeneral)?;
    let mut unanswered = 0_usize;
    for patient in &imported.patients {
        let words = question(patient);
        let deadline = tokio::time::Instant::now() + SETTLE;
        let answer: Answer = loop {
            let answer = ask(stage, asker, &words).await?;
            if (answer.is_complete() && answer.answered() > 0) || tokio::time::Instant::now() >= deadline {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        let text = |key: &str| patient.get(key).and_then(Value::as_str).unwrap_or_default();
        output.say(format!(
            "\n{}, {}   born {}",
            text("family"),
            text("given"),
            text("birth_date")
        ));
        answer.print(output);
        unanswered = unanswered.saturating_add(usize::from(answer.answered() == 0));
        let line = json!({ "patient": patient, "organisations": answer.organisations(), "closing": answer.closing() });
        writeln!(kept, "{line}").map_err(failed())?;
    }
    output.say(format!(
        "\nAsked about {} patient(s); {unanswered} without documents. Answers: {}",
        imported.patients.len(),
        path.display()
    ));
    Ok(())
}

fn malformed<E: std::error::Error>() -> impl FnOnce(E) -> Fault {
    Fault::because(
        Exit::Failed,
        "A study came back malformed.",
        "See the logs in the demonstration's folder.",
    )
}

/// A client for the plain HTTP of loopback; it trusts no certificate at all.
fn loopback_client() -> Outcome<reqwest::Client> {
    let what = "Cannot make a client.";
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Fault::because(Exit::Failed, what, "Report this."))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .build()
        .map_err(Fault::because(Exit::Failed, what, "Report this."))
}

/// Retrieves every imported study over WADO-RS and compares each instance with the file it came from.
pub async fn compare_studies(stage: &Stage, imported: &Imported, output: &Output) -> Outcome<()> {
    let unreachable = || {
        Fault::because(
            Exit::Unreachable,
            "A study could not be retrieved.",
            "See the logs in the demonstration's folder.",
        )
    };
    let client = loopback_client()?;
    let (mut same, mut different) = (0_usize, 0_usize);
    for study in &imported.studies {
        let url = format!("{}/dicom-web/studies/{study}", stage.web(Site::NorthImaging)?);
        let request = client.get(url).basic_auth("haddad", Some(stage.password()));
        let request = request.header(
            "Accept",
            "multipart/related; type=\"application/dicom\"; transfer-syntax=*",
        );
        let answer = request
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(unreachable())?;
        let kind = answer
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let body = answer.bytes().await.map_err(unreachable())?;
        let boundary = MultipartType::parse(&kind).map_err(malformed())?.boundary;
        for (_, bytes) in multipart::parse(&body, &boundary, PARTS_MAX).map_err(malformed())? {
            let uid = instance::read(&bytes).map_err(malformed())?.sop_uid;
            let source = imported.dicom_files.iter().filter_map(|path| std::fs::read(path).ok());
            let found = source.into_iter().any(|file| file == bytes);
            let count = if found { &mut same } else { &mut different };
            *count = count.saturating_add(1);
            if !found {
                output.say(format!("different  {uid}"));
            }
        }
    }
    if different > 0 {
        return Err(Fault::new(
            Exit::Integrity,
            "Retrieved instances differ from their files.",
            format!("{different} of them"),
            "Report this.",
        ));
    }
    if !imported.studies.is_empty() {
        output.say(format!(
            "Retrieved {same} DICOM instance(s), each byte-identical to its file"
        ));
    }
    Ok(())
}
