//! A member that the region revokes: its channels are cut, nobody names it, nobody answers it.

use std::collections::BTreeSet;

use hie::clock;
use hie::order::Order;
use hie_gateway_dialect::fhir::fixture::Site;
use hie_tests::region::{Region, asker, grace, reference, until};

fn names(sites: &[Site]) -> BTreeSet<String> {
    sites.iter().map(|site| site.name().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_member_is_cut_off_and_forgotten() {
    let (region, [city, anne, north], before) = Region::of_three().await;
    assert_eq!(city.reachable().await, names(&[Site::StAnne, Site::NorthImaging]));
    let citys = reference(&before.document(Site::CityGeneral.name(), "Discharge summary"));
    anne.get(&citys, asker("haddad"), &region.path("before")).await.done();

    let revoked = anne.org.clone();
    region
        .authority(move |authority| authority.revoke(&revoked, clock::now()).unwrap())
        .await;
    until("the others cut the channel", || async {
        let cut = city.reachable().await == names(&[Site::NorthImaging])
            && north.reachable().await == names(&[Site::CityGeneral]);
        cut.then_some(())
    })
    .await;

    // Nobody names it any more, and the answer is complete without it.
    let answer = city
        .find_until(&grace(), "the rest is complete", |answer| {
            answer.complete && answer.organisations.len() == 2
        })
        .await;
    assert_eq!(answer.givers(), names(&[Site::CityGeneral, Site::NorthImaging]));
    assert!(
        !serde_json::to_string(&answer.organisations)
            .unwrap()
            .contains(Site::StAnne.name())
    );
    assert!(!city.status().await["peers"].to_string().contains(Site::StAnne.name()));

    // It cannot ask: no channel, no answer, no document under a reference from before.
    assert!(anne.reachable().await.is_empty(), "{:?}", anne.reachable().await);
    let asked = anne
        .order(Order::Find {
            asker: asker("haddad"),
            demographics: grace(),
        })
        .await;
    for line in asked.data.iter().filter(|line| line["here"] == false) {
        assert_eq!(
            line["documents"].as_array().map_or(0, Vec::len),
            0,
            "a revoked member was answered: {line:#}"
        );
    }
    if asked.outcome.is_ok() {
        let closing = asked.data.iter().find(|line| line.get("complete").is_some()).unwrap();
        assert_eq!(closing["complete"], false, "{closing:#}");
        let silent: BTreeSet<String> = closing["silent"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line["name"].as_str().unwrap().to_owned())
            .collect();
        assert!(!silent.is_empty());
    }
    let after = anne.get(&citys, asker("haddad"), &region.path("after")).await;
    assert!(after.outcome.is_err() && !region.path("after").exists());
    for mut node in [city, anne, north] {
        assert!(node.runs(), "{} ended by itself", node.name);
        node.verify().await;
        node.stop().await;
    }
}
