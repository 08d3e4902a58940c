//! The token key in a region of five authorities, three of which must answer: two are lost, all are replaced, and
//! at last the key itself, while questions go on.

use std::collections::BTreeSet;

use hie::clock;
use hie_gateway_dialect::fhir::fixture::Site;
use hie_protocol::registry::MemberKind;
use hie_tests::region::{Answer, Guise, Node, Region, grace, kind, until};
use serde_json::Value;

const LABORATORY: Guise<'static> = Guise {
    slug: "lab",
    name: "Lakeside Laboratory",
    urn: "urn:oid:2.999.7.50",
    kind: MemberKind::Laboratory,
    token_authority: true,
    outbound_only: false,
    relay: false,
    relays: &[],
};

fn gave(answer: &Answer, sites: &[Site]) -> bool {
    let givers = answer.givers();
    sites.iter().all(|site| givers.contains(site.name()))
}

async fn shares(nodes: &[Node]) -> BTreeSet<(u64, u64)> {
    let mut held = BTreeSet::new();
    for node in nodes {
        let status = node.status().await;
        let shares = status["tokens"]["shares"].as_array().unwrap().clone();
        held.extend(
            shares
                .iter()
                .map(|share: &Value| (share["epoch"].as_u64().unwrap(), share["generation"].as_u64().unwrap())),
        );
    }
    held
}

const FILLED: [Site; 2] = [Site::CityGeneral, Site::StAnne];

async fn answered(node: &Node, when: &str) {
    node.find_until(&grace(), when, |answer| gave(answer, &FILLED)).await;
}

/// Two authorities stop: three are left, and three are enough.
async fn lose_two(nodes: &mut [Node]) {
    for node in &mut nodes[3..] {
        node.stop().await;
    }
    answered(&nodes[0], "three authorities are enough").await;
    for node in &mut nodes[3..] {
        node.start().await;
    }
}

/// New shares of the same key.
async fn pass_on(region: &Region, nodes: &[Node]) {
    region
        .authority(|office| {
            office.reshare(Some(2), &[], &[], clock::now()).unwrap();
        })
        .await;
    until("every seat has its share", || {
        let seated = region.authority(|office| office.seat(clock::now()).is_ok());
        async { seated.await.then_some(()) }
    })
    .await;
    answered(&nodes[0], "the new authorities answer").await;
    region
        .authority(|office| {
            office.retire(clock::now()).unwrap();
        })
        .await;
    until("the old shares are destroyed", || async {
        (shares(nodes).await == BTreeSet::from([(1, 1)])).then_some(())
    })
    .await;
    answered(&nodes[0], "after the resharing").await;
}

/// A new key.
async fn replace(region: &Region, nodes: &[Node]) {
    let early = region
        .authority(|office| {
            office.new_epoch(Some(3), &[], clock::now()).unwrap();
            office.switch(clock::now()).is_err()
        })
        .await;
    assert!(early, "nobody has published under the new key yet");
    until("everybody has published under the new key", || {
        let switched = region.authority(|office| office.switch(clock::now()).is_ok());
        async { switched.await.then_some(()) }
    })
    .await;
    answered(&nodes[0], "under the new key").await;
    region
        .authority(|office| {
            office.retire(clock::now()).unwrap();
        })
        .await;
    until("only the new key is left", || async {
        (shares(nodes).await == BTreeSet::from([(2, 0)])).then_some(())
    })
    .await;
    let whole = |answer: &Answer| answer.complete && gave(answer, &FILLED);
    nodes[0].find_until(&grace(), "the old key is gone", whole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_x_epoch_the_region_replaces_its_authorities_and_its_key_while_questions_go_on() {
    let region = Region::with_tokens(3, 5).await;
    let mut nodes = Vec::new();
    for site in Site::ALL {
        let mut guise = Guise::from(site);
        guise.token_authority = true;
        nodes.push(region.join(guise).await);
    }
    nodes.push(region.join(LABORATORY).await);
    region.fill(&nodes[0], FILLED[0]).await;
    region.fill(&nodes[1], FILLED[1]).await;
    answered(&nodes[0], "both answer").await;

    // The office forgets the shares that it dealt once their members have them.
    until("the office holds no share", || {
        let left = region.authority(|office| office.state.shares.len());
        async { (left.await == 0).then_some(()) }
    })
    .await;
    lose_two(&mut nodes).await;
    pass_on(&region, &nodes).await;
    replace(&region, &nodes).await;

    for node in &mut nodes {
        let status = node.status().await;
        assert_eq!(status["tokens"]["epoch"], 2);
        assert_eq!(status["tokens"]["misbehaved"], Value::Array(Vec::new()), "{status:#}");
        let log = node.log().await;
        assert!(log.iter().all(|entry| kind(entry) != "peer-misbehaved"));
        node.verify().await;
        node.stop().await;
    }
}
