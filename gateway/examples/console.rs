//! Serves the console over the invented region on loopback: `cargo run -p hie-gateway --example console -- 8080`.
//! Sign in as `haddad`, `ruiz`, `silva` or `okoye` with the password `correct horse`.

use std::net::SocketAddr;

use hie_gateway::gate::{Gate, Settings};
use hie_gateway::routes::router;
use hie_gateway::server::{Edge, ServerError, start};
use hie_gateway::twins::{Twin, region};

#[tokio::main]
async fn main() -> Result<(), ServerError> {
    let port: u16 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let settings = Settings {
        organisation: "City General".to_owned(),
        secure: false,
        emergency_minutes: 60,
        utc_offset_minutes: 0,
        fhir_base: "http://127.0.0.1/fhir".to_owned(),
        tell_withheld: true,
    };
    let gate = Gate::new(Twin::new(region::world()).ports(), settings);
    let running = start(
        SocketAddr::from(([127, 0, 0, 1], port)),
        Edge::PlainLoopback,
        router(gate),
    )?;
    println!("http://{}", running.address);
    running.ended().await
}
