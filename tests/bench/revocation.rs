//! How long a revoked member keeps a channel: real processes, from `hie authority revoke` to the last cut and to the
//! first refusal that the revoked node hears. `revocation [N]`; ends with 1 when a cut takes longer than a minute.

use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use hie_gateway_dialect::fhir::fixture::Site;
use hie_tests::figures::{ms, percentile};
use hie_tests::stage::{Outcome, Place, Stage};
use serde_json::Value;

/// Revocations when the command line names no number.
const REVOCATIONS: usize = 10;
/// Longest time that a channel of a revoked member may live.
const BOUND: Duration = Duration::from_secs(60);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(90);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);
const OTHERS: [Site; 3] = [Site::CityGeneral, Site::StAnne, Site::NorthImaging];

fn main() -> ExitCode {
    match measure() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("a channel of a revoked member lived longer than {} s", BOUND.as_secs());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Outcome<bool> {
    let times = std::env::args().nth(1).map_or(Ok(REVOCATIONS), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::open(folder.path(), &OTHERS)?;
    let (mut command, mut cut, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..times {
        let place = Place {
            slug: format!("guest-{number}"),
            name: format!("Guest {number}"),
            urn: format!("urn:oid:2.999.77.{number}"),
            kind: "clinic".to_owned(),
            authority: false,
            holder: true,
        };
        stage.join(place.clone())?;
        stage.start(&place)?;
        wait(|| connected(&stage, &place))?;
        let [was, gone, heard] = revoke(&stage, folder.path(), &place)?;
        println!(
            "revocation {number}: command {:.0} ms, cut {:.0} ms, refused {:.0} ms",
            ms(was),
            ms(gone),
            ms(heard)
        );
        command.push(ms(was));
        cut.push(ms(gone));
        refused.push(ms(heard));
        stage.kill(&place)?;
    }
    for (name, figures) in [("command", &command), ("cut", &cut), ("refused", &refused)] {
        println!(
            "{name:<8} p50 {:.0} ms, p95 {:.0} ms, max {:.0} ms ({} revocations, {} nodes)",
            percentile(figures, 0.5),
            percentile(figures, 0.95),
            percentile(figures, 1.0),
            figures.len(),
            OTHERS.len() + 1
        );
    }
    println!("bound    {} s", BOUND.as_secs());
    Ok(percentile(&cut, 1.0) <= ms(BOUND))
}

/// Revokes a member; the time of the command, until the last channel is cut, until the member hears a refusal.
fn revoke(stage: &Stage, folder: &Path, place: &Place) -> Outcome<[Duration; 3]> {
    let region = folder.join("region").to_string_lossy().into_owned();
    let started = Instant::now();
    stage.demand(place, &["authority", "revoke", "--dir", &region, &place.urn])?;
    let command = started.elapsed();
    let (mut cut, mut refused) = (None, None);
    wait(|| {
        if cut.is_none() && all(stage, |peers| !reaches(peers, &place.urn))? {
            cut = Some(started.elapsed());
        }
        if refused.is_none() && hears_refusal(stage, place)? {
            refused = Some(started.elapsed());
        }
        Ok(cut.is_some() && refused.is_some())
    })?;
    Ok([command, cut.unwrap_or(PATIENCE), refused.unwrap_or(PATIENCE)])
}

fn wait(mut look: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let deadline = Instant::now() + PATIENCE;
    while !look()? {
        if Instant::now() >= deadline {
            return Err("waited in vain".into());
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether every other node and the guest have channels to each other.
fn connected(stage: &Stage, place: &Place) -> Outcome<bool> {
    let own = peers(&stage.run(place, &["status"])?.1);
    let mine = OTHERS.iter().all(|site| reaches(&own, site.urn()));
    Ok(mine && all(stage, |peers| reaches(peers, &place.urn))?)
}

fn all(stage: &Stage, holds: impl Fn(&[Value]) -> bool) -> Outcome<bool> {
    for site in OTHERS {
        if !holds(&peers(&stage.run(site, &["status"])?.1)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the revoked node has no channel left and was told why by at least one member.
fn hears_refusal(stage: &Stage, place: &Place) -> Outcome<bool> {
    let own = peers(&stage.run(place, &["status"])?.1);
    let up = own.iter().any(|peer| peer.get("reachable") == Some(&Value::Bool(true)));
    let why = |peer: &Value| peer.get("why")?.as_str().map(|why| why.contains("revoked"));
    // A node that took the registry that revokes it dials nobody: then its list of peers says so by itself.
    Ok(!up && own.iter().any(|peer| why(peer).unwrap_or(false)))
}

fn peers(lines: &[Value]) -> Vec<Value> {
    let found = lines.iter().find_map(|line| line.get("peers")?.as_array().cloned());
    found.unwrap_or_default()
}

fn reaches(peers: &[Value], urn: &str) -> bool {
    peers.iter().any(|peer| {
        peer.get("organisation").and_then(Value::as_str) == Some(urn)
            && peer.get("reachable") == Some(&Value::Bool(true))
    })
}
