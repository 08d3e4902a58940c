//! Serves the API over in-memory twins on loopback, to try FHIR and DICOMweb clients against it:
//! `cargo run -p hie-gateway --example api_on_twins -- 127.0.0.1:8098`. Account `demo`, password `demo`.
#![allow(clippy::expect_used)]

use std::net::SocketAddr;

use hie_gateway::gate::{Gate, Settings};
use hie_gateway::ports::Principal;
use hie_gateway::routes::router;
use hie_gateway::server::{Edge, start};
use hie_gateway::twins::{Twin, World};
use hie_protocol::id::Millis;
use hie_protocol::vocabulary::Role;
use serde_json::json;

#[tokio::main]
async fn main() {
    let address: SocketAddr = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:8098".to_owned())
        .parse()
        .expect("an address");
    let mut world = World::default();
    world.now = Millis(1_772_359_200_000);
    let roles = vec![Role::System, Role::ConsentAdministrator];
    let principal = Principal {
        account: "demo".to_owned(),
        name: "Demo".to_owned(),
        department: None,
        roles,
    };
    world.accounts.push(("demo".to_owned(), "demo".to_owned(), principal));
    world.patients.push(
        json!({ "resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1961-03-14",
        "name": [{ "family": "Okafor", "given": ["Grace"] }] }),
    );
    let settings = Settings {
        organisation: "North Hospital".to_owned(),
        secure: false,
        emergency_minutes: 60,
        utc_offset_minutes: 0,
        fhir_base: format!("http://{address}/fhir"),
        tell_withheld: false,
    };
    let running = start(
        address,
        Edge::PlainLoopback,
        router(Gate::new(Twin::new(world).ports(), settings)),
    )
    .expect("a free address");
    println!("listening on {}", running.address);
    std::future::pending::<()>().await;
}
