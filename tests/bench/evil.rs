//! Runs every script of the hostile member against a node and prints a table; exits 1 when one of them succeeds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::ExitCode;

use hie_tests::evil::stage::Stage;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stage = Stage::open().await;
        let verdicts = stage.run().await;
        println!(
            "{:<6} {:<58} {:>8} {:>10}  outcome",
            "threat", "script", "ran ms", "honest ms"
        );
        for verdict in &verdicts {
            println!(
                "{:<6} {:<58} {:>8} {:>10}  {}",
                verdict.threat,
                verdict.name,
                verdict.ms,
                verdict.honest_ms,
                verdict.fault.as_deref().unwrap_or("refused")
            );
        }
        let failed = verdicts.iter().filter(|verdict| verdict.fault.is_some()).count();
        let audited = stage.audited().await;
        let slowest = verdicts
            .iter()
            .map(|verdict| verdict.honest_ms)
            .max()
            .unwrap_or_default();
        println!(
            "{} scripts, {failed} with a fault; kinds in the audit log: {}; slowest honest question {slowest} ms",
            verdicts.len(),
            audited.into_iter().collect::<Vec<_>>().join(", ")
        );
        ExitCode::from(u8::from(failed > 0))
    })
}
