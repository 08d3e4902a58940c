//! Serves the console over the invented region on loopback: `cargo run -p hie-gateway --example console -- 8080`.
//! Sign in as `haddad`, `ruiz`, `silva` or `okoye` with the password `correct horse`.
//!
//! Three people: Okafor (answers with conflicts and gaps), Mensah (all answered) and Lindqvist, whose answers arrive
//! one by one. `tests/console/run.mjs` drives a browser over it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hie_gateway::gate::{Gate, Settings};
use hie_gateway::ports::{AccessEntry, Completeness, ConsentRow, PersonHit, RecordEvent, SubjectRef};
use hie_gateway::routes::router;
use hie_gateway::server::{Edge, ServerError, start};
use hie_gateway::twins::region::{self, NAMES, NOW, Summary, answered, asking};
use hie_gateway::twins::{Twin, World};
use hie_gateway_dialect::dicom::fixture::CtSeries;
use hie_protocol::id::ContentHash;
use hie_protocol::retrieval::{InstanceEntry, SeriesEntry, StudyManifest};

/// Handle of the person about whom all answered.
const WHOLE: &str = "kofi-handle";
/// Handle of the person whose answers arrive one by one.
const PACED: &str = "astrid-handle";
/// Time between two answers about [`PACED`].
const PACE: Duration = Duration::from_millis(400);

#[tokio::main]
async fn main() -> Result<(), ServerError> {
    let port: u16 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let settings = Settings {
        organisation: "City General".to_owned(),
        secure: false,
        emergency_minutes: 60,
        utc_offset_minutes: 0,
        fhir_base: "http://127.0.0.1/fhir".to_owned(),
        tell_withheld: true,
    };
    let twin = Twin::new(region::world());
    furnish(&mut twin.world());
    tokio::spawn(pace(twin.clone()));
    let gate = Gate::new(twin.ports(), settings);
    let running = start(
        SocketAddr::from(([127, 0, 0, 1], port)),
        Edge::PlainLoopback,
        router(gate),
    )?;
    println!("http://{}", running.address);
    running.ended().await
}

/// Adds people, a study, a log and a node's state to the region.
fn furnish(world: &mut World) {
    world.people.push(person("Mensah", "Kofi", WHOLE));
    world.people.push(person("Lindqvist", "Astrid", PACED));
    let mut events: Vec<RecordEvent> = region::conflicting();
    events.truncate(3);
    if let Some(asked) = events.first_mut() {
        *asked = asking(&NAMES[..2]);
    }
    events.push(RecordEvent::Done(Completeness::Complete { as_of: NOW }));
    world.records.insert(SubjectRef(WHOLE.to_owned()), events);
    let series = series();
    let files: Vec<Bytes> = series.files().map(Bytes::from).collect();
    for held in world.documents.values_mut() {
        if held.card.meta.imaging.is_some() {
            held.study = Some(manifest(&series, &files));
            held.instances = files.iter().cloned().map(Some).chain([None]).collect();
        }
        if held.card.meta.content_type == "text/plain" {
            held.content = Bytes::from_static(LETTER.as_bytes());
        }
    }
    world.preview = [
        (
            "Physicians who treat, any organisation",
            "documents without a withheld label (9)",
            true,
            "the patient shares",
        ),
        (
            "Physicians who treat, any organisation",
            "substance-use treatment (3)",
            false,
            "the patient withholds it",
        ),
        (
            "Anybody at Lakeside Clinic",
            "everything (12)",
            false,
            "the patient named this organisation",
        ),
    ]
    .map(|(who, what, permitted, why)| ConsentRow {
        who: who.to_owned(),
        what: what.to_owned(),
        permitted,
        why: why.to_owned(),
    })
    .to_vec();
    world.accesses = (0..120)
        .rev()
        .map(|index| AccessEntry {
            index,
            at: NOW,
            sentence: "Dr P. Lin, Mercy Walk-in, opened the summary of patient 7f3a91 for treatment.".to_owned(),
            emergency: index % 40 == 0,
            correlation: String::new(),
            event: serde_json::Value::Null,
        })
        .collect();
    let health = &mut world.health;
    health.certificate_until = Some(NOW.plus(6 * 86_400_000));
    health.needs_you = vec!["North Imaging has not answered since 03:10. Call its IT, 555-0142.".to_owned()];
    health.peers = NAMES
        .iter()
        .map(|name| ((*name).to_owned(), *name != "North Imaging", "registry 7".to_owned()))
        .collect();
    health.counts = vec![("Patients".to_owned(), 4_120), ("Documents".to_owned(), 51_884)];
}

fn person(family: &str, given: &str, handle: &str) -> PersonHit {
    let mut hit = region::grace();
    if let Some(name) = hit.demographics.names.first_mut() {
        name.family = family.to_owned();
        name.given = vec![given.to_owned()];
    }
    hit.subject = SubjectRef(handle.to_owned());
    hit
}

/// Feeds [`PACED`] anew each time it is opened.
async fn pace(twin: Arc<Twin>) {
    let subject = SubjectRef(PACED.to_owned());
    loop {
        let seen = twin.world().opened.len();
        let feed = twin.feed(&subject);
        while !twin
            .world()
            .opened
            .iter()
            .skip(seen)
            .any(|(_, opened)| *opened == subject)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let allergy = Summary::new().allergy("91936005", "Penicillin", Some(("anaphylaxis", "severe")), "2021-05-01");
        let problem = Summary::new().problem("195967001", "Asthma", "1974-01-01", None);
        let events = [
            asking(&NAMES[..2]),
            answered(1, NAMES[1], &problem),
            answered(0, NAMES[0], &allergy),
            RecordEvent::Done(Completeness::Complete { as_of: NOW }),
        ];
        for event in events {
            tokio::time::sleep(PACE).await;
            if feed.send(event).await.is_err() {
                break;
            }
        }
    }
}

fn series() -> CtSeries {
    CtSeries {
        study_uid: "2.999.7.1".to_owned(),
        series_uid: "2.999.7.1.1".to_owned(),
        patient_id: "482 193 0075".to_owned(),
        patient_id_issuer: "CITY".to_owned(),
        patient_name: "OKAFOR^Grace".to_owned(),
        birth_date: "19610314".to_owned(),
        sex: "F".to_owned(),
        accession: "A1".to_owned(),
        study_date: "20261119".to_owned(),
        study_time: "101500".to_owned(),
        study_description: "CT head".to_owned(),
        series_description: "axial".to_owned(),
        rows: 256,
        columns: 256,
        slices: 5,
        seed: 7,
    }
}

/// The manifest of the files, and one instance more that never arrives.
fn manifest(series: &CtSeries, files: &[Bytes]) -> StudyManifest {
    let instances = (1..)
        .zip(files.iter().map(Bytes::len).chain([1]))
        .map(|(number, size)| InstanceEntry {
            sop_uid: series.sop_uid(number),
            sop_class: "1.2.840.10008.5.1.4.1.1.2".to_owned(),
            transfer_syntax: "1.2.840.10008.1.2.1".to_owned(),
            number: Some(i64::from(number)),
            extent: (series.rows.into(), series.columns.into(), 1),
            size: size as u64,
            hash: ContentHash::new([0; 32]),
        })
        .collect();
    StudyManifest {
        study_uid: series.study_uid.clone(),
        description: Some(series.study_description.clone()),
        date: Some(series.study_date.clone()),
        series: vec![SeriesEntry {
            series_uid: series.series_uid.clone(),
            modality: "CT".to_owned(),
            number: Some(1),
            description: Some(series.series_description.clone()),
            body_part: None,
            instances,
        }],
    }
}

const LETTER: &str = "Dear colleague,\n\nGrace Okafor was with us for three days with atrial fibrillation.\n\
    <script>this is text and never runs</script>\n\nMedication on discharge: warfarin 5 mg once a day.\n";
