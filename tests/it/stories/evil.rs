//! A hostile member with a valid certificate: none of its scripts succeeds, each is counted and audited, nobody waits.

use hie_tests::evil::scripts;
use hie_tests::evil::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_p_counted_nothing_that_a_hostile_member_tries_succeeds() {
    assert!(scripts().len() >= 40);
    let stage = Stage::open().await;
    let before = (stage.city.verify().await, stage.anne.verify().await);
    let verdicts = stage.run().await;
    let faults: Vec<_> = verdicts
        .iter()
        .filter_map(|verdict| {
            Some(format!(
                "{} {}: {}",
                verdict.threat,
                verdict.name,
                verdict.fault.as_ref()?
            ))
        })
        .collect();
    assert!(
        faults.is_empty(),
        "{} of {}:\n{}",
        faults.len(),
        verdicts.len(),
        faults.join("\n")
    );
    stage.audited().await;
    assert!(stage.city.verify().await > before.0 && stage.anne.verify().await > before.1);
    assert!(stage.city.runs() && stage.anne.runs());
}
