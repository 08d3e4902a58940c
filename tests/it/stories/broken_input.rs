//! Files as the world has them: the broken are named with a reason, the rest is stored, and once is enough.

use std::collections::BTreeSet;
use std::path::Path;

use hie::fault::Exit;
use hie_gateway_dialect::dicom::fixture::CtSeries;
use hie_gateway_dialect::fhir::fixture::{FixtureRecord, Site, generate};
use hie_tests::region::{Node, Region};
use serde_json::Value;

fn numbers(tally: &Value) -> (u64, u64, u64, u64, u64) {
    let number = |key: &str| tally[key].as_u64().unwrap();
    (
        number("patients"),
        number("documents"),
        number("instances"),
        number("unchanged"),
        number("rejected_count"),
    )
}

/// Names of the rejected files; each has a reason, and none repeats what the file says.
fn rejected(data: &[Value], secrets: &[&str]) -> BTreeSet<String> {
    let lines = data.iter().filter(|line| line.get("rejected").is_some());
    lines
        .map(|line| {
            let reason = line["reason"].as_str().unwrap();
            assert!(reason.len() > 10, "{line}");
            assert!(!secrets.iter().any(|secret| reason.contains(secret)), "{line}");
            let place = line["rejected"].as_str().unwrap();
            Path::new(place).file_name().unwrap().to_str().unwrap().to_owned()
        })
        .collect()
}

fn write_fhir(folder: &Path, good: &FixtureRecord, other: &FixtureRecord) -> BTreeSet<String> {
    std::fs::create_dir_all(folder).unwrap();
    let (text, other) = (good.bundle.to_string(), other.bundle.to_string());
    std::fs::write(folder.join("a-good.json"), &text).unwrap();
    let deep = format!("{}1{}", "{\"resourceType\":".repeat(200), "}".repeat(200));
    let twice = text.replacen(
        "\"resourceType\":\"Bundle\"",
        "\"resourceType\":\"Bundle\",\"resourceType\":\"Patient\"",
        1,
    );
    assert_ne!(twice, text);
    let broken: [(&str, Vec<u8>); 8] = [
        (
            "b-malformed.json",
            b"{\"resourceType\": \"Bundle\", \"entry\": [}".to_vec(),
        ),
        ("c-deep.json", deep.into_bytes()),
        ("d-truncated.json", other.as_bytes()[..other.len() / 2].to_vec()),
        ("e-empty.json", Vec::new()),
        (
            "f-latin1.json",
            b"{\"resourceType\":\"Patient\",\"name\":[{\"family\":\"M\xfcller\"}]}".to_vec(),
        ),
        ("g-twice.json", twice.into_bytes()),
        ("h-cut.json.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\x56\x2a".to_vec()),
        ("i-array.json", b"[1, 2, 3]".to_vec()),
    ];
    for (name, bytes) in &broken {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    broken.iter().map(|(name, _)| (*name).to_owned()).collect()
}

fn write_dicom(folder: &Path, series: &CtSeries) -> BTreeSet<String> {
    std::fs::create_dir_all(folder).unwrap();
    for number in 1..=3 {
        std::fs::write(folder.join(format!("good-{number}.dcm")), series.file(number)).unwrap();
    }
    let (fourth, mut changed) = (series.file(4), series.file(2));
    *changed.last_mut().unwrap() ^= 1;
    let mut endless = series.file(5)[..400].to_vec();
    endless.extend_from_slice(&[0xe0, 0x7f, 0x10, 0x00, b'O', b'W', 0, 0, 0xf0, 0xff, 0xff, 0xff]);
    let broken: [(&str, Vec<u8>); 6] = [
        ("x-changed.dcm", changed),
        ("x-cut-header.dcm", fourth[..300].to_vec()),
        ("x-cut-pixels.dcm", fourth[..fourth.len() - 1000].to_vec()),
        ("x-empty.dcm", Vec::new()),
        ("x-endless.dcm", endless),
        ("x-text.dcm", b"This is a letter, not an image.".repeat(20)),
    ];
    for (name, bytes) in &broken {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    broken.iter().map(|(name, _)| (*name).to_owned()).collect()
}

async fn twice(node: &Node, folder: &Path, dicom: bool, broken: &BTreeSet<String>, secrets: &[&str]) -> (Value, Value) {
    let mut tallies = Vec::new();
    for _ in 0..2 {
        let reply = if dicom {
            node.import_dicom(folder).await
        } else {
            node.import_fhir(folder).await
        };
        let mut data = reply.ended(Exit::Partial);
        tallies.push(data.pop().unwrap());
        assert_eq!(rejected(&data, secrets), *broken);
    }
    (tallies.remove(0), tallies.remove(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_files_are_named_the_rest_is_stored_and_nothing_twice() {
    let region = Region::new().await;
    let mut node = region.join(Site::CityGeneral).await;
    let good = generate(7, Site::CityGeneral);
    let broken = write_fhir(&region.path("fhir"), &good, &generate(8, Site::CityGeneral));
    let family = good.bundle["entry"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|entry| entry["resource"]["name"][0]["family"].as_str())
        .unwrap();
    let (first, second) = twice(&node, &region.path("fhir"), false, &broken, &[family, "ller"]).await;
    let (patients, documents, _, unchanged, count) = numbers(&first);
    assert_eq!((patients, unchanged, count), (1, 0, broken.len() as u64));
    assert!(documents >= 3, "{first}");
    assert_eq!(numbers(&second), (1, 0, 0, documents, count));

    let people = Region::population();
    let series = people
        .into_iter()
        .flat_map(|person| person.records)
        .find_map(|record| record.series)
        .unwrap();
    let broken = write_dicom(&region.path("dicom"), &series);
    let (first, second) = twice(&node, &region.path("dicom"), true, &broken, &["Okafor"]).await;
    assert_eq!(numbers(&first), (0, 0, 3, 0, broken.len() as u64));
    assert_eq!(numbers(&second), (0, 0, 0, 3, broken.len() as u64));

    // A restart finds the same.
    node.stop().await;
    node.start().await;
    let third = node
        .import_fhir(&region.path("fhir"))
        .await
        .ended(Exit::Partial)
        .pop()
        .unwrap();
    assert_eq!(numbers(&third), (1, 0, 0, documents, count));
    node.verify().await;
    node.stop().await;
}
