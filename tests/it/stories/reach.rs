//! Organisations behind a firewall: they listen nowhere, dial out, and take full part; two of them over a relay.

use hie::assemble;
use hie::join::Membership;
use hie_gateway_dialect::fhir::fixture::Site;
use hie_protocol::registry::MemberKind;
use hie_tests::region::{Guise, Node, Region, asker, grace, reference, until};
use sha2::{Digest as _, Sha256};

const CITY: &str = "urn:oid:2.999.7.11";

/// A site whose node listens nowhere.
fn hidden(site: Site, relays: &'static [&'static str]) -> Guise<'static> {
    Guise {
        outbound_only: true,
        relays,
        ..Guise::from(site)
    }
}

/// Starts a node again as soon as its store is free: in one process the stopped one may still be letting go of it.
async fn restart(node: &mut Node) {
    node.stand_by();
    node.serves().await;
}

/// Fetches a document of another organisation and compares it with what was announced.
async fn fetch(region: &Region, from: &Node, answer: &hie_tests::region::Answer, site: Site, title: &str) {
    let document = answer.document(site.name(), title);
    let out = region.path(&format!("{}-{title}", from.name));
    from.get(&reference(&document), asker("haddad"), &out).await.done();
    let bytes = std::fs::read(&out).unwrap();
    assert_eq!(
        document["sha256"].as_str().unwrap(),
        hex::encode(Sha256::digest(&bytes))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_p_outbound_hidden_organisations_take_full_part_over_a_relay() {
    let region = Region::new().await;
    let relay = Guise {
        relay: true,
        ..Guise::from(Site::CityGeneral)
    };
    assert_eq!((relay.urn, relay.kind), (CITY, MemberKind::Hospital));
    let mut city = region.join(relay).await;
    let mut anne = region.join(hidden(Site::StAnne, &[CITY])).await;
    let mut north = region.join(hidden(Site::NorthImaging, &[CITY])).await;
    for (node, site) in [
        (&city, Site::CityGeneral),
        (&anne, Site::StAnne),
        (&north, Site::NorthImaging),
    ] {
        region.fill(node, site).await;
    }
    let registry = region.authority(|authority| authority.state.registry.clone()).await;
    for node in [&anne, &north] {
        let entry = &registry.member(&node.org).unwrap().nodes[0];
        assert_eq!((&entry.control, &entry.bulk, entry.relays.len()), (&None, &None, 1));
    }

    // Everybody reaches everybody, and every organisation answers each of the others.
    for node in [&city, &anne, &north] {
        until("all are connected", || async {
            (node.reachable().await.len() == 2).then_some(())
        })
        .await;
    }
    let whole = |answer: &hie_tests::region::Answer| answer.complete && answer.givers().len() == 3;
    let at_city = city.find_until(&grace(), "City General asks all", whole).await;
    let at_anne = anne.find_until(&grace(), "St Anne asks all", whole).await;
    let at_north = north.find_until(&grace(), "North Imaging asks all", whole).await;

    // Content: of a hidden one to an open one, of an open one to a hidden one, and between hidden ones.
    fetch(&region, &city, &at_city, Site::StAnne, "Emergency department summary").await;
    fetch(&region, &anne, &at_anne, Site::CityGeneral, "Discharge summary").await;
    fetch(&region, &anne, &at_anne, Site::NorthImaging, "CT head report").await;
    fetch(&region, &north, &at_north, Site::StAnne, "Emergency department summary").await;

    // The relay goes: the hidden ones lose each other and say so; when it is back, so are they.
    city.stop().await;
    let alone = anne
        .find_until(&grace(), "the others are named as silent", |answer| !answer.complete)
        .await;
    assert!(
        alone.silent.contains(&Site::CityGeneral.name().to_owned()),
        "{:?}",
        alone.silent
    );
    restart(&mut city).await;
    anne.find_until(&grace(), "all are back", whole).await;
    for node in [&mut city, &mut anne, &mut north] {
        node.verify().await;
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_p_version_a_node_of_version_1_and_one_of_version_2_serve_each_other() {
    let region = Region::new().await;
    let (mut old, mut new) = (region.join(Site::CityGeneral).await, region.join(Site::StAnne).await);
    old.stop().await;
    let config = std::fs::read_to_string(old.home.config()).unwrap();
    std::fs::write(
        old.home.config(),
        config.replace("[peers]\n", "[peers]\nversions = [1]\n"),
    )
    .unwrap();
    restart(&mut old).await;
    region.fill(&old, Site::CityGeneral).await;
    region.fill(&new, Site::StAnne).await;
    let whole = |answer: &hie_tests::region::Answer| answer.complete && answer.givers().len() == 2;
    let at_old = old.find_until(&grace(), "the older asks", whole).await;
    let at_new = new.find_until(&grace(), "the newer asks", whole).await;
    fetch(&region, &old, &at_old, Site::StAnne, "Emergency department summary").await;
    fetch(&region, &new, &at_new, Site::CityGeneral, "Discharge summary").await;
    for node in [&old, &new] {
        let status = node.status().await;
        assert_eq!(status["peers"][0]["version"], 1, "{status:#}");
        assert_eq!(status["conduct"].as_array().map(Vec::len), Some(0), "{status:#}");
    }
    // It is upgraded, and the same channel speaks the newer version.
    old.stop().await;
    let config = std::fs::read_to_string(old.home.config()).unwrap();
    std::fs::write(old.home.config(), config.replace("versions = [1]\n", "")).unwrap();
    restart(&mut old).await;
    until("both speak version 2", || async {
        let status = new.status().await;
        (status["peers"][0]["version"] == 2).then_some(())
    })
    .await;
    for node in [&mut old, &mut new] {
        node.verify().await;
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_p_nodes_a_standby_takes_over_with_its_own_key() {
    let region = Region::new().await;
    let mut city = region.join(Site::CityGeneral).await;
    let mut first = region.join(Site::StAnne).await;
    region.fill(&city, Site::CityGeneral).await;
    region.fill(&first, Site::StAnne).await;
    // Another machine of the same organisation: its own key, the same storage.
    let guise = Guise {
        slug: "st-anne-2",
        ..Guise::from(Site::StAnne)
    };
    let mut second = region.enrol(guise).await;
    let data = second.home.root().join("data");
    std::fs::remove_dir_all(&data).unwrap();
    std::os::unix::fs::symlink(first.home.root().join("data"), &data).unwrap();
    std::fs::copy(first.home.kek(), second.home.kek()).unwrap();
    let registry = region.authority(|authority| authority.state.registry.clone()).await;
    assert_eq!(
        registry.member(&first.org).unwrap().nodes.len(),
        2,
        "one organisation, two nodes"
    );

    let membership = Membership::load(&first.home).unwrap();
    until("the first knows of the second", || async {
        let held = assemble::held_registry(&first.home, &membership).unwrap();
        (held.version >= registry.version).then_some(())
    })
    .await;
    second.stand_by();
    let both = |answer: &hie_tests::region::Answer| answer.complete && answer.givers().len() == 2;
    city.find_until(&grace(), "the first serves", both).await;
    assert!(second.runs() && !second.is_serving().await, "it waits for the store");
    let entries = first.verify().await;
    first.stop().await;

    second.serves().await;
    let answer = city.find_until(&grace(), "the second serves", both).await;
    fetch(&region, &city, &answer, Site::StAnne, "Emergency department summary").await;
    assert!(second.verify().await > entries, "one log, signed by both keys");
    second.find_until(&grace(), "the second asks", both).await;

    // And back: the first stands by in its turn.
    first.stand_by();
    second.stop().await;
    first.serves().await;
    city.find_until(&grace(), "the first serves again", both).await;
    for node in [&mut city, &mut first] {
        node.verify().await;
        node.stop().await;
    }
}
