//! The spine: who holds what about a patient, all of it, fetched byte for byte, with gaps named and both sides logged.

use std::collections::{BTreeMap, BTreeSet};

use hie_gateway_dialect::dicom::fixture::CtSeries;
use hie_gateway_dialect::fhir::fixture::Site;
use hie_tests::region::{Node, Region, asker, grace, kind, receipt, reference};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The four organisations with their records; the first is City General.
async fn filled() -> (Region, Vec<Node>) {
    let region = Region::new().await;
    let mut nodes = Vec::new();
    for site in Site::ALL {
        nodes.push(region.join(site).await);
    }
    for (node, site) in nodes.iter().zip(Site::ALL) {
        region.fill(node, site).await;
    }
    (region, nodes)
}

fn names() -> BTreeSet<String> {
    Site::ALL.iter().map(|site| site.name().to_owned()).collect()
}

fn study_of_grace() -> CtSeries {
    let people = Region::population();
    let grace = people
        .into_iter()
        .find(|person| person.person.family == "Okafor")
        .unwrap();
    grace.records.into_iter().find_map(|record| record.series).unwrap()
}

/// The entries of one kind that name another log's entry: that entry, and its leaf.
fn referenced(log: &[Value], wanted: &str) -> Vec<(String, String)> {
    log.iter()
        .filter(|entry| kind(entry) == wanted)
        .filter_map(|entry| receipt(entry, false))
        .collect()
}

/// Every disclosure that the receiver logged is the entry that the discloser has, by position and leaf.
async fn logs_agree(receiver: &Node, givers: &[&Node]) {
    let mine = receiver.log().await;
    let received = referenced(&mine, "disclosure-received");
    for giver in givers {
        let theirs = giver.log().await;
        let sent: BTreeMap<String, String> = theirs
            .iter()
            .filter(|entry| kind(entry) == "disclosure-sent")
            .filter_map(|entry| receipt(entry, true))
            .map(|(place, leaf)| (format!("{}{place}", giver.org.as_str()), leaf))
            .collect();
        let prefix = format!("{}#", giver.org.as_str());
        let from: Vec<_> = received
            .iter()
            .filter(|(place, _)| place.starts_with(&prefix))
            .collect();
        assert!(
            !from.is_empty(),
            "{} logged nothing received from {}",
            receiver.name,
            giver.name
        );
        for (place, leaf) in from {
            assert_eq!(
                sent.get(place),
                Some(leaf),
                "{} names an entry that {} does not have",
                receiver.name,
                giver.name
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_find_the_whole_region_answers_and_a_stopped_one_is_named() {
    let (region, mut nodes) = filled().await;
    let city = &nodes[0];
    let whole = city
        .find_until(&grace(), "all four answer", |answer| {
            answer.complete && answer.givers() == names()
        })
        .await;
    assert_eq!(whole.organisations.len(), 4);
    assert!(whole.silent.is_empty());
    assert!(
        whole
            .titles(Site::StAnne.name())
            .contains("Emergency department summary"),
        "{:?}",
        whole.titles(Site::StAnne.name())
    );
    assert!(whole.titles(Site::HarbourGp.name()).contains("Clinic visit"));
    assert!(whole.titles(Site::NorthImaging.name()).contains("CT head report"));

    // The study, instance by instance.
    let studies: Vec<Value> = whole
        .documents(Site::NorthImaging.name())
        .into_iter()
        .filter(|document| document["class"] == "imaging")
        .collect();
    assert_eq!(studies.len(), 1, "{studies:#?}");
    let out = region.path("study");
    let fetched = city.get(&reference(&studies[0]), asker("haddad"), &out).await.done();
    let series = study_of_grace();
    assert_eq!(fetched.last().unwrap()["instances"], series.slices);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), series.slices as usize);
    for (number, original) in (1..).zip(series.files()) {
        let file = out.join(format!("{}.dcm", series.sop_uid(number)));
        assert!(std::fs::read(&file).unwrap() == original, "{} differs", file.display());
    }
    // What is here whole is not fetched again.
    let again = city.get(&reference(&studies[0]), asker("haddad"), &out).await.done();
    assert_eq!(again.last().unwrap()["bytes"], 0);

    // A document, by the hash that was announced.
    let report = whole.document(Site::NorthImaging.name(), "CT head report");
    let file = region.path("report.pdf");
    let told = city.get(&reference(&report), asker("haddad"), &file).await.done();
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"%PDF"));
    let hash = hex::encode(Sha256::digest(&bytes));
    assert_eq!(
        (report["sha256"].as_str(), told[0]["sha256"].as_str()),
        (Some(hash.as_str()), Some(hash.as_str()))
    );

    let others: Vec<&Node> = nodes.iter().skip(1).collect();
    logs_agree(city, &others).await;

    // One stops: the answer says so, and nothing more.
    nodes[2].stop().await;
    let city = &nodes[0];
    let partial = city
        .find_until(&grace(), "the stopped one is named", |answer| !answer.complete)
        .await;
    assert_eq!(partial.silent, [Site::HarbourGp.name()]);
    assert!(partial.words.contains(Site::HarbourGp.name()), "{}", partial.words);
    let mut rest = names();
    rest.remove(Site::HarbourGp.name());
    assert_eq!(partial.givers(), rest);

    // It comes back, and the answer is whole again without anybody doing anything.
    nodes[2].start().await;
    let city = &nodes[0];
    city.find_until(&grace(), "it is back", |answer| {
        answer.complete && answer.givers() == names()
    })
    .await;
    for node in &nodes {
        assert!(node.verify().await > 5);
    }
    for node in &mut nodes {
        node.stop().await;
    }
}
