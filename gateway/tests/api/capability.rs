use std::collections::{BTreeMap, BTreeSet};

use hie_gateway::routes::table;
use serde_json::Value;

use super::world::Client;

type Declared = BTreeMap<String, (BTreeSet<String>, BTreeSet<(String, String)>)>;

fn of_table() -> Declared {
    let mut all = Declared::new();
    for declares in table().iter().filter_map(|route| route.declares) {
        let entry = all.entry(declares.resource.to_owned()).or_default();
        entry.0.insert(declares.interaction.to_owned());
        entry.1.extend(
            declares
                .search
                .iter()
                .map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())),
        );
    }
    all
}

fn of_statement(statement: &Value) -> Declared {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let resources = list(&statement["rest"][0], "resource");
    let declared = |resource: &Value| {
        let interactions = list(resource, "interaction")
            .iter()
            .map(|one| text(&one["code"]))
            .collect();
        let search = list(resource, "searchParam")
            .iter()
            .map(|one| (text(&one["name"]), text(&one["type"])))
            .collect();
        (text(&resource["type"]), (interactions, search))
    };
    resources.iter().map(declared).collect()
}

#[tokio::test]
async fn spec_g_declare_the_capability_statement_is_the_routing_table() {
    let client = Client::new();
    let reply = client.call("GET", "/fhir/metadata", "", &[], "").await;
    assert_eq!(reply.status, 200);
    let statement = reply.json();
    assert_eq!(statement["resourceType"], "CapabilityStatement");
    assert_eq!(statement["fhirVersion"], "4.0.1");
    assert_eq!(statement["implementation"]["url"], super::world::BASE);
    assert_eq!(of_statement(&statement), of_table());
    assert!(of_table().len() >= 4);
}

#[test]
fn every_fhir_route_declares_what_it_does() {
    for route in table()
        .iter()
        .filter(|route| route.path.starts_with("/fhir/") && route.path != "/fhir/metadata")
    {
        assert!(
            route
                .declares
                .is_some_and(|declares| route.path.contains(declares.resource)),
            "{}",
            route.path
        );
    }
}

#[tokio::test]
async fn json_only_is_said_plainly() {
    let client = Client::new();
    for (path, accept) in [
        ("/fhir/metadata", "application/fhir+xml"),
        ("/fhir/metadata?_format=xml", "*/*"),
        ("/fhir/Patient/p1", "application/xml"),
        ("/fhir/Patient?family=x", "text/html"),
    ] {
        let reply = client.get_with(path, &[("accept", accept)]).await;
        assert_eq!(
            (reply.status.as_u16(), reply.issue().as_str()),
            (406, "not-supported"),
            "{path} {accept}"
        );
    }
    for (path, accept) in [
        ("/fhir/metadata?_format=json", "text/html"),
        ("/fhir/metadata?_format=application/fhir+json", "x/y"),
        ("/fhir/metadata", "application/fhir+xml;q=0.1, application/fhir+json"),
        ("/fhir/metadata", "application/fhir+json; fhirVersion=4.0"),
    ] {
        assert_eq!(
            client.get_with(path, &[("accept", accept)]).await.status,
            200,
            "{path} {accept}"
        );
    }
}
