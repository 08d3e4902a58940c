//! Who comes in, and as what.

use hie_gateway::guard::{EMERGENCY_REASON, EMERGENCY_WORDS};
use hie_gateway::routes::{Access, table};

use super::world::{Client, basic};

fn filled(path: &str) -> String {
    path.replace("{study}", "1.2.3")
        .replace("{series}", "1.2.3.4")
        .replace("{instance}", "1.2.3.4.1")
        .replace("{frames}", "1")
        .replace("{*place}", "pixeldata")
        .replace("{id}", "p1")
}

#[tokio::test]
async fn spec_g_entry_no_api_route_answers_without_a_credential() {
    let client = Client::new();
    let mut seen = 0;
    for route in table().iter().filter(|route| matches!(route.requires, Access::Api(_))) {
        let reply = client
            .call(route.method.as_str(), &filled(route.path), "", &[], "")
            .await;
        assert_eq!(reply.status, 401, "{} {}", route.method, route.path);
        let offered: Vec<&str> = reply
            .headers
            .get_all("www-authenticate")
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        assert!(
            offered.iter().any(|one| one.starts_with("Basic")) && offered.iter().any(|one| one.starts_with("Bearer")),
            "{}",
            route.path
        );
        seen += 1;
    }
    assert!(seen >= 28, "{seen} routes");
}

#[tokio::test]
async fn spec_g_entry_each_route_keeps_its_roles() {
    let client = Client::new();
    let accounts = [
        ("haddad", "physician"),
        ("office", "consent-administrator"),
        ("auditor", "auditor"),
        ("feed", "system"),
    ];
    for route in table() {
        let Access::Api(roles) = route.requires else { continue };
        assert!(!roles.is_empty(), "{}", route.path);
        for (account, role) in accounts {
            let may = roles.iter().any(|one| one.code() == role);
            let reply = client
                .call(route.method.as_str(), &filled(route.path), account, &[], "")
                .await;
            assert_eq!(
                reply.status == 403,
                !may,
                "{account} {} {}: {}",
                route.method,
                route.path,
                reply.status
            );
        }
    }
}

#[tokio::test]
async fn bearer_and_wrong_credentials() {
    let client = Client::new();
    let with = |value: String| {
        let client = &client;
        async move {
            client
                .call("GET", "/fhir/Patient/p1", "", &[("authorization", value.as_str())], "")
                .await
                .status
                .as_u16()
        }
    };
    assert_eq!(with("Bearer token-1".into()).await, 200);
    for wrong in ["Bearer token-2", "Basic !!", "Digest x", "", "Basic"] {
        assert_eq!(with(wrong.into()).await, 401, "{wrong}");
    }
    assert_eq!(with(basic("haddad")).await, 200);
}

#[tokio::test]
async fn purposes_are_closed_and_emergency_is_declared_whole() {
    let client = Client::new();
    let status = |headers: &'static [(&'static str, &'static str)]| {
        let client = &client;
        async move { client.get_with("/fhir/Patient/p1", headers).await.status.as_u16() }
    };
    assert_eq!(status(&[("x-hie-purpose", "TREAT")]).await, 200);
    assert_eq!(status(&[("x-hie-purpose", "curiosity")]).await, 400);
    assert_eq!(status(&[("x-hie-purpose", "BTG")]).await, 400);
    assert_eq!(
        status(&[
            ("x-hie-purpose", "BTG"),
            (EMERGENCY_REASON, "life-at-risk"),
            (EMERGENCY_WORDS, "unconscious")
        ])
        .await,
        200
    );
    assert_eq!(
        status(&[("x-hie-purpose", "BTG"), (EMERGENCY_REASON, "life-at-risk")]).await,
        400
    );
    assert_eq!(
        status(&[
            ("x-hie-purpose", "BTG"),
            (EMERGENCY_REASON, "curious"),
            (EMERGENCY_WORDS, "x")
        ])
        .await,
        400
    );
    assert_eq!(
        status(&[
            ("x-hie-purpose", "TREAT"),
            (EMERGENCY_REASON, "life-at-risk"),
            (EMERGENCY_WORDS, "x")
        ])
        .await,
        400
    );
}

#[tokio::test]
async fn the_request_id_comes_back_when_it_is_plain() {
    let client = Client::new();
    let reply = client
        .get_with("/fhir/metadata", &[("x-request-id", "a-1:b_2.c")])
        .await;
    assert_eq!(reply.header("x-request-id"), "a-1:b_2.c");
    let long = "x".repeat(129);
    for bad in ["<script>", "a b", long.as_str()] {
        let reply = client.get_with("/fhir/metadata", &[("x-request-id", bad)]).await;
        assert_eq!(reply.header("x-request-id"), "", "{bad}");
    }
}
