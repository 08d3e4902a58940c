//! Trust over time: a member that is suspended and returns, certificates that renew, registries that never go back.

use std::collections::BTreeSet;
use std::sync::Arc;

use hie::authority::change::Change;
use hie::board::Board;
use hie::cli::output::Output;
use hie::fault::Exit;
use hie::home::Home;
use hie::join::Membership;
use hie::renew::{Renewer, due};
use hie::{assemble, clock, run};
use hie_gateway_dialect::fhir::fixture::Site;
use hie_node_pki::identity::IdentityCell;
use hie_node_pki::key::Key;
use hie_tests::region::{Node, Region, asker, free, grace, reference, until};
use serde_json::Value;

fn names(sites: &[Site]) -> BTreeSet<String> {
    sites.iter().map(|site| site.name().to_owned()).collect()
}

/// Sentences of the status that need somebody.
async fn needs_you(node: &Node) -> String {
    node.status().await["needs_you"].to_string()
}

/// Points a stopped node at an authority, there or not.
fn point(home: &Home, address: &str) {
    let mut membership: Value = serde_json::from_slice(&std::fs::read(home.membership()).unwrap()).unwrap();
    membership["authority"] = Value::from(address);
    std::fs::write(home.membership(), membership.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_p_suspend_a_suspended_member_is_a_named_gap_until_it_returns() {
    let (region, [city, anne, north], before) = Region::of_three().await;
    let citys = reference(&before.document(Site::CityGeneral.name(), "Discharge summary"));

    let org = anne.org.clone();
    region
        .authority(move |authority| authority.suspend(&org, clock::now()).unwrap())
        .await;
    until("the others cut the channel", || async {
        let cut = city.reachable().await == names(&[Site::NorthImaging])
            && north.reachable().await == names(&[Site::CityGeneral]);
        cut.then_some(())
    })
    .await;
    // What it published stays: the answer names it as the gap.
    let answer = city
        .find_until(&grace(), "the gap has a name", |answer| {
            answer.silent == [Site::StAnne.name().to_owned()]
        })
        .await;
    assert!(!answer.complete);
    assert_eq!(answer.givers(), names(&[Site::CityGeneral, Site::NorthImaging]));
    // It neither asks nor fetches.
    assert!(anne.reachable().await.is_empty());
    let fetched = anne.get(&citys, asker("haddad"), &region.path("out")).await;
    assert!(fetched.outcome.is_err() && !region.path("out").exists());

    let org = anne.org.clone();
    region
        .authority(move |authority| {
            let back = authority.grant(Change::Reinstate { org }, clock::now());
            back.unwrap();
        })
        .await;
    let whole = |answer: &hie_tests::region::Answer| answer.complete && answer.givers().len() == 3;
    city.find_until(&grace(), "City General asks all again", whole).await;
    anne.find_until(&grace(), "St Anne asks all again", whole).await;
    anne.get(&citys, asker("haddad"), &region.path("out")).await.done();
    for mut node in [city, anne, north] {
        node.verify().await;
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_p_reg_a_restored_registry_is_brought_up_to_date_or_not_served() {
    let region = Region::new().await;
    let mut city = region.join(Site::CityGeneral).await;
    let version = || region.authority(|authority| authority.state.registry.version);
    let held = |home: &Home| {
        let membership = Membership::load(home).unwrap();
        assemble::held_registry(home, &membership).unwrap().version
    };
    let old = std::fs::read(city.home.registry()).unwrap();
    region
        .authority(|authority| authority.publish(clock::now()).unwrap())
        .await;
    let newest = version().await;
    until("the node takes it", || async {
        (held(&city.home) == newest).then_some(())
    })
    .await;
    city.stop().await;

    // The identity comes from an old copy, and nobody can bring it up to date.
    std::fs::write(city.home.registry(), &old).unwrap();
    let (there, gone) = (region.address().to_string(), free().to_string());
    point(&city.home, &gone);
    let home = city.home.clone();
    // A runtime of its own, so that nothing of the refused start lives on.
    let served = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(run::serve_until(&home, &Output::new(true), std::future::pending()))
    });
    let fault = served.await.unwrap().unwrap_err();
    assert_eq!(fault.exit, Exit::Refused, "{fault}");
    assert!(fault.why.contains(&format!("version {newest} was in force")), "{fault}");

    // With the authority it is up to date before it serves.
    point(&city.home, &there);
    city.start().await;
    assert_eq!(held(&city.home), newest);
    city.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_p_reg_two_registries_of_one_version_raise_the_alarm() {
    let region = Region::new().await;
    let mut city = region.join(Site::CityGeneral).await;
    let state = region.path("region").join("state.cbor");
    let before = std::fs::read(&state).unwrap();
    region
        .authority(|authority| authority.publish(clock::now()).unwrap())
        .await;
    let version = region.authority(|authority| authority.state.registry.version).await;
    let membership = Membership::load(&city.home).unwrap();
    until("the node takes the first", || async {
        let held = assemble::held_registry(&city.home, &membership).unwrap();
        (held.version == version).then_some(())
    })
    .await;
    let first = std::fs::read(city.home.registry()).unwrap();
    city.stop().await;
    // The office goes back and signs another registry of that version.
    std::fs::write(&state, before).unwrap();
    region
        .authority(|authority| authority.publish(clock::now()).unwrap())
        .await;
    city.start().await;
    let words = needs_you(&city).await;
    assert!(
        words.contains("ALARM") && words.contains(&format!("version {version}")),
        "{words}"
    );
    assert!(
        city.home
            .identity()
            .join(format!("equivocation-{version}.cbor"))
            .exists()
    );
    assert_eq!(std::fs::read(city.home.registry()).unwrap(), first);
    city.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_p_renew_a_certificate_renews_itself_when_due() {
    let region = Region::new().await;
    let mut city = region.join(Site::CityGeneral).await;
    let signer = Key::load(&city.home.node_key()).unwrap();
    let identity = assemble::identity(&city.home, &signer).unwrap();
    let (cell, board) = (Arc::new(IdentityCell::new(identity)), Arc::new(Board::default()));
    let facts = cell.load().facts().clone();
    let due = due(&facts);
    let renewer = |authority: String| {
        let mut membership = Membership::load(&city.home).unwrap();
        membership.authority = authority;
        Renewer::with(
            &city.home,
            &city.org,
            &membership,
            Arc::clone(&cell),
            Arc::clone(&board),
        )
        .unwrap()
    };
    // Nothing happens before it is due.
    let early = hie_protocol::id::Millis(due.0 - 1);
    assert!(!renewer(region.address().to_string()).step(early).await.unwrap());
    // An authority that is away is a failure that the status counts.
    let failed = renewer(free().to_string()).step(due).await.unwrap_err();
    assert_eq!(failed.exit, Exit::Unreachable);
    let later = due.plus(2 * 86_400_000);
    assert!(board.needs_you(later).join("").contains("(2 days)"));
    // With the authority the cell and the file have a fresh certificate for the same key.
    let renewer = renewer(region.address().to_string());
    until("it is renewed", || async {
        renewer.step(due).await.is_ok().then_some(())
    })
    .await;
    let fresh = cell.load().facts().clone();
    assert!(fresh.not_after > facts.not_after && fresh.serial != facts.serial && fresh.node == facts.node);
    assert!(board.needs_you(later).is_empty());
    let on_disk = assemble::identity(&city.home, &signer).unwrap();
    assert_eq!(on_disk.facts(), &fresh);
    // The node starts with it, and members accept it.
    city.stop().await;
    city.start().await;
    let anne = region.join(Site::StAnne).await;
    until("the others accept it", || async {
        (anne.reachable().await == names(&[Site::CityGeneral])).then_some(())
    })
    .await;
    for mut node in [city, anne] {
        node.stop().await;
    }
}
