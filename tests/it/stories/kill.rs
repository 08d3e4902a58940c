//! A node that is killed again and again in the middle of its work loses nothing that it acknowledged.

use std::path::PathBuf;
use std::process::Stdio;

use hie::cli::output::Output;
use hie::fault::Exit;
use hie::home::Home;
use hie::order::Order;
use hie::run::serve_until;
use hie_gateway_dialect::fhir::fixture::{FixtureRecord, Site, generate};
use hie_tests::region::{Node, Region, person, until, with_identifier};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

/// Names the home that the process serves, when the test starts itself again as a node to be killed.
const SERVED: &str = "HIE_STORY_HOME";
/// This test, as its own process calls it.
const ITSELF: &str = "stories::kill::what_was_acknowledged_survives_five_kills";
const KILLS: u32 = 5;
const SLICES: u64 = 12;

/// Starts this test binary again as a node, and waits until it takes orders.
async fn serve(region: &Region, node: &Node) -> Child {
    let words = region.path("killed.log");
    let log = std::fs::File::options().create(true).append(true).open(&words).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([ITSELF, "--exact", "--nocapture"])
        .env(SERVED, node.home.root());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let socket = node.home.socket();
    let ended = std::cell::RefCell::new(&mut child);
    until("the node takes orders", || async {
        assert!(
            ended.borrow_mut().try_wait().unwrap().is_none(),
            "the node ended while starting: {}",
            std::fs::read_to_string(&words).unwrap()
        );
        UnixStream::connect(&socket).await.ok()
    })
    .await;
    child
}

/// Gives an order, reads some lines of its answer, and kills the node without a word.
async fn kill_during(node: &Node, order: &Order, lines: u32, mut child: Child) {
    let (read, mut write) = UnixStream::connect(node.home.socket()).await.unwrap().into_split();
    let mut bytes = serde_json::to_vec(order).unwrap();
    bytes.push(b'\n');
    write.write_all(&bytes).await.unwrap();
    let mut answer = BufReader::new(read).lines();
    for _ in 0..lines {
        let line = answer.next_line().await.unwrap().unwrap();
        assert!(!line.contains("\"line\":\"done\""), "the order ended before the kill");
    }
    child.kill().await.unwrap();
    assert!(!child.wait().await.unwrap().success());
}

fn count(tally: &Value, key: &str) -> u64 {
    tally[key].as_u64().unwrap()
}

/// A file that was imported and acknowledged, with the number of its documents.
struct Acknowledged {
    record: FixtureRecord,
    file: PathBuf,
    documents: u64,
}

async fn import(region: &Region, node: &Node, seed: u64) -> Acknowledged {
    let record = generate(seed, Site::CityGeneral);
    let file = region.path(&format!("{}.json", record.mrn));
    std::fs::write(&file, record.bundle.to_string()).unwrap();
    let tally = node.import_fhir(&file).await.done().pop().unwrap();
    let documents = count(&tally, "documents");
    assert!(documents > 0 && count(&tally, "unchanged") == 0, "{tally}");
    Acknowledged {
        record,
        file,
        documents,
    }
}

/// Imports again what was acknowledged: all of it is here.
async fn nothing_is_lost(node: &Node, acknowledged: &[Acknowledged]) {
    for one in acknowledged {
        let tally = node.import_fhir(&one.file).await.done().pop().unwrap();
        assert_eq!(
            (count(&tally, "documents"), count(&tally, "unchanged")),
            (0, one.documents),
            "{}: {tally}",
            one.file.display()
        );
    }
}

/// A study of its own for each round, as a folder.
fn study(region: &Region, round: u32) -> PathBuf {
    let people = Region::population();
    let mut series = people
        .into_iter()
        .flat_map(|person| person.records)
        .find_map(|record| record.series)
        .unwrap();
    series.study_uid = format!("{}.{round}", series.study_uid);
    series.series_uid = format!("{}.{round}", series.series_uid);
    let folder = region.path(&format!("study-{round}"));
    std::fs::create_dir_all(&folder).unwrap();
    for (number, file) in series.files().enumerate() {
        std::fs::write(folder.join(format!("{number:02}.dcm")), file).unwrap();
    }
    folder
}

/// The other organisation sees what was acknowledged: publication went on behind the kills.
async fn the_region_sees(other: &Node, one: &Acknowledged) {
    let entries = one.record.bundle["entry"].as_array().unwrap().iter();
    let patient = entries
        .map(|entry| &entry["resource"])
        .find(|resource| resource["resourceType"] == "Patient")
        .unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let name = &patient["name"][0];
    let who = person(
        &text(&name["family"]),
        &text(&name["given"][0]),
        &text(&patient["birthDate"]),
        &text(&patient["gender"]),
    );
    let identifier = &patient["identifier"][0];
    let who = with_identifier(who, &text(&identifier["system"]), &text(&identifier["value"]));
    let city = Site::CityGeneral.name();
    other
        .find_until(&who, "the other organisation sees it", |answer| {
            answer.complete && answer.documents(city).len() as u64 >= one.documents
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_five_kills() {
    if let Some(home) = std::env::var_os(SERVED) {
        let ended = serve_until(&Home::at(home), &Output::new(true), std::future::pending()).await;
        panic!("the node ended by itself: {ended:?}");
    }
    let region = Region::new().await;
    let mut node = region.join(Site::CityGeneral).await;
    let mut other = region.join(Site::StAnne).await;
    node.stop().await;
    let mut acknowledged = Vec::new();
    let mut log = 0;
    for round in 0..KILLS {
        let child = serve(&region, &node).await;
        nothing_is_lost(&node, &acknowledged).await;
        let size = node.verify().await;
        assert!(size >= log, "the log shrank from {log} to {size} entries");
        for number in 0..3 {
            acknowledged.push(import(&region, &node, u64::from(round * 3 + number)).await);
        }
        log = node.verify().await;
        let path = study(&region, round);
        kill_during(
            &node,
            &Order::ImportDicom { path, dry_run: false },
            1 + 2 * round,
            child,
        )
        .await;
    }
    let mut child = serve(&region, &node).await;
    nothing_is_lost(&node, &acknowledged).await;
    assert!(node.verify().await >= log);
    let mut kept = 0;
    for round in 0..KILLS {
        let reply = node
            .import_dicom(&study(&region, round))
            .await
            .ended(Exit::Done)
            .pop()
            .unwrap();
        assert_eq!(
            count(&reply, "instances") + count(&reply, "unchanged"),
            SLICES,
            "{reply}"
        );
        kept += count(&reply, "unchanged");
    }
    assert!(kept > 0, "every kill came before the first instance");
    for one in acknowledged.iter().step_by(4) {
        the_region_sees(&other, one).await;
    }
    node.verify().await;
    other.verify().await;
    child.kill().await.unwrap();
    other.stop().await;
}
