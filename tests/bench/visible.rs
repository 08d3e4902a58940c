//! How long after its acknowledgement a record is at every replica that must hold it, and how long until another
//! organisation finds it. `visible [PUBLISHES [NODES]]`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hie::order::Order;
use hie_node_core::locator::tokens::Output;
use hie_protocol::id::{IndexKey, OrgId};
use hie_protocol::oprf::derive;
use hie_tests::crowd::{demographics, mixed, places, write_ndjson};
use hie_tests::figures::{ms, spread};
use hie_tests::observer::{Observer, order};
use hie_tests::stage::{Outcome, Place, Plan, Stage};

/// Nodes of the region when the command line names no number.
const NODES: usize = 6;
/// Publishes when the command line names no number.
const PUBLISHES: u64 = 300;
/// Longest wait for one publish.
const VISIBLE: Duration = Duration::from_secs(60);
/// Pause between two looks at the holders.
const LOOK: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let mut next = |default: u64| words.next().unwrap_or(Ok(default));
    let (Ok(publishes), Ok(nodes)) = (next(PUBLISHES), next(NODES as u64)) else {
        eprintln!("visible [PUBLISHES [NODES]]: both are numbers");
        return ExitCode::FAILURE;
    };
    match run(publishes, usize::try_from(nodes).unwrap_or(NODES)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("visible: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(publishes: u64, nodes: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let mut all = places(nodes + 1, 3.min(nodes));
    let mut looks = all.pop().ok_or("no nodes")?;
    looks.holder = false;
    let plan = Plan {
        threshold: 2,
        host: None,
        people: false,
    };
    let mut stage = Stage::region(folder.path(), &all, plan)?;
    stage.start_all()?;
    stage.join(looks.clone())?;
    let home = stage.home(&looks)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let observer = Observer::open(&home).await?;
        let measured = measure(&stage, &observer, folder.path(), &all, publishes).await;
        observer.close().await;
        measured
    })
}

async fn measure(stage: &Stage, observer: &Observer, at: &Path, all: &[Place], publishes: u64) -> Outcome<()> {
    let (mut first, mut everywhere, mut findable) = (Vec::new(), Vec::new(), Vec::new());
    let mut records = 0;
    for number in 0..publishes {
        let turn = usize::try_from(mixed(number) % all.len() as u64)?;
        let place = all.get(turn).ok_or("no such node")?;
        let owner = OrgId::parse(&place.urn)?;
        let file = at.join("one.ndjson");
        write_ndjson(&file, core::iter::once(number), place, 1)?;
        let person = demographics(number)?;
        let outputs = observer.outputs(&person).await?;
        let import = Order::ImportFhir {
            path: file,
            dry_run: false,
        };
        order(&stage.home(place)?, &import).await?;
        let acknowledged = Instant::now();
        if number.is_multiple_of(3) {
            while !observer.finds(&person, &owner).await? {
                if acknowledged.elapsed() > VISIBLE {
                    return Err(format!("person {number} is not found at {}", place.slug).into());
                }
                tokio::time::sleep(LOOK).await;
            }
            findable.push(ms(acknowledged.elapsed()));
            continue;
        }
        let seen = replicas(observer, &owner, &outputs, acknowledged).await?;
        first.push(seen.0);
        everywhere.push(seen.1);
        records += seen.2;
    }
    println!("first replica      {}", spread(&first));
    println!(
        "every replica      {}; {records} records looked at",
        spread(&everywhere)
    );
    println!("found by another   {}", spread(&findable));
    Ok(())
}

/// Milliseconds until the first and until the last of the places has its record, and how many there were.
async fn replicas(
    observer: &Observer,
    owner: &OrgId,
    outputs: &[Output],
    since: Instant,
) -> Outcome<(f64, f64, usize)> {
    let key = |output: &Output| IndexKey::new(derive::index_key(output));
    let places = |key: IndexKey| observer.holders(&key).into_iter().map(move |holder| (holder, key));
    let mut missing: BTreeSet<(OrgId, IndexKey)> = outputs.iter().flat_map(|output| places(key(output))).collect();
    let (mut first, mut all, mut locators) = (f64::NAN, missing.len(), None);
    while !missing.is_empty() {
        if since.elapsed() > VISIBLE {
            return Err(format!("{} of {all} places have no record", missing.len()).into());
        }
        let holders: BTreeSet<OrgId> = missing.iter().map(|(holder, _)| holder.clone()).collect();
        for holder in holders {
            let keys: Vec<IndexKey> = missing
                .iter()
                .filter(|(of, _)| *of == holder)
                .map(|(_, key)| *key)
                .collect();
            let Some((found, _)) = observer.held(&holder, &keys).await else {
                continue;
            };
            for (at, under) in keys.iter().zip(&found) {
                let Some(record) = observer.of_owner(under, owner) else {
                    continue;
                };
                if first.is_nan() {
                    first = ms(since.elapsed());
                }
                missing.remove(&(holder.clone(), *at));
                if locators.is_none() {
                    let output = outputs.iter().find(|output| key(output) == *at);
                    locators = output.and_then(|output| Observer::locators(output, &record));
                    let more: Vec<_> = locators.into_iter().flat_map(places).collect();
                    all += more.len();
                    missing.extend(more);
                }
            }
        }
        if !missing.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok((first, ms(since.elapsed()), all))
}
