//! What one member feels while another floods the same node: its lookups quiet, against a thousand requests a second,
//! and against stores as fast as they are taken. Exits 1 when the 99th percentile more than doubles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hie_gateway_dialect::fhir::fixture::Site;
use hie_protocol::bytes::Bytes;
use hie_protocol::id::{ConsentEpoch, IndexKey, RecordHandle, Sequence};
use hie_protocol::message::{IndexMessage, Request, Response};
use hie_protocol::record::{IndexRecord, Label, RecordContent};
use hie_protocol::refusal::Refusal;
use hie_tests::evil::{Answer, Evil};
use hie_tests::region::{Node, Region};

/// Lookups measured in each part.
const LOOKUPS: usize = 600;
/// Records of the stores, sent again and again.
const RECORDS: usize = 6_400;
/// Largest ratio of the 99th percentiles.
const RATIO_MAX: f64 = 2.0;

#[derive(Default)]
struct Tally {
    taken: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

impl Tally {
    fn count(&self, answer: &Answer) {
        let refused = matches!(answer, Answer::Said(said) if **said == Response::Refused(Refusal::Budget));
        let which = if refused { &self.refused } else { &self.taken };
        which.fetch_add(1, Ordering::Relaxed);
    }
}

async fn member(region: &Region, mut node: Node, target: &Node, other: &Node) -> Arc<Evil> {
    node.stop().await;
    let registry = region.authority(|authority| authority.state.registry.clone()).await;
    let evil = Evil::new(&node.home, registry, Vec::new(), &target.org, &other.org);
    evil.line().await.unwrap();
    Arc::new(evil)
}

/// Times of lookups, question to answer, sorted; in microseconds.
async fn lookups(good: &Evil) -> Vec<u128> {
    let mut times = Vec::with_capacity(LOOKUPS);
    for _ in 0..LOOKUPS {
        let id = good.number();
        let keys = (0..4).map(|_| IndexKey::new(good.fresh())).collect();
        let begun = Instant::now();
        good.taken(IndexMessage::Lookup { id, keys, after: None })
            .await
            .unwrap();
        good.found(id).await.unwrap();
        times.push(begun.elapsed().as_micros());
        good.forget();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    times.sort_unstable();
    times
}

fn frame(message: IndexMessage) -> Vec<u8> {
    Request::Index(message).encode().unwrap()
}

/// A thousand requests a second, whatever comes back.
async fn asks(bad: Arc<Evil>, tally: Arc<Tally>) {
    let line = bad.line().await.unwrap();
    let mut every = tokio::time::interval(Duration::from_millis(1));
    let keys: Vec<_> = (0..64).map(|_| IndexKey::new(bad.fresh())).collect();
    let bytes = Arc::new(frame(IndexMessage::Lookup {
        id: bad.number(),
        keys,
        after: None,
    }));
    while !tally.stop.load(Ordering::Relaxed) {
        every.tick().await;
        let (line, bytes, tally) = (line.clone(), Arc::clone(&bytes), Arc::clone(&tally));
        tokio::spawn(async move { tally.count(&line.ask(&bytes).await) });
    }
}

/// Signed records in full stores, over and over, from as many hands as the budget has places.
async fn puts(bad: Arc<Evil>, tally: Arc<Tally>) {
    let mut records = Vec::with_capacity(RECORDS);
    for _ in 0..RECORDS {
        let record = IndexRecord {
            owner: bad.org.clone(),
            key: IndexKey::new(bad.fresh()),
            handle: RecordHandle::new(bad.fresh()),
            sequence: Sequence(bad.number()),
            label: Label::open(ConsentEpoch(1)),
            expires: bad.soon(),
            content: RecordContent::Live(Bytes(vec![7; 256])),
        };
        records.push(record.sign(&bad.key).unwrap().signed().clone());
    }
    let stores = records.chunks(64).map(|part| {
        frame(IndexMessage::Store {
            id: bad.number(),
            records: part.to_vec(),
        })
    });
    let stores: Arc<Vec<_>> = Arc::new(stores.collect());
    let line = bad.line().await.unwrap();
    let mut hands = tokio::task::JoinSet::new();
    for hand in 0..32 {
        let (line, stores, tally) = (line.clone(), Arc::clone(&stores), Arc::clone(&tally));
        hands.spawn(async move {
            let mut at = hand;
            while !tally.stop.load(Ordering::Relaxed) {
                tally.count(&line.ask(&stores[at % stores.len()]).await);
                at += 32;
            }
        });
    }
    hands.join_all().await;
}

fn shown(name: &str, times: &[u128], tally: Option<&Tally>, seconds: f64) -> u128 {
    let at = |part: usize| times[(times.len() * part / 1000).min(times.len() - 1)];
    let flood = tally.map_or_else(String::new, |tally| {
        let rate = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / seconds;
        format!(
            "   flood {:>6.0}/s taken {:>6.0}/s refused",
            rate(&tally.taken),
            rate(&tally.refused)
        )
    });
    println!(
        "{name:<34} p50 {:>7} us   p99 {:>7} us   max {:>7} us{flood}",
        at(500),
        at(990),
        at(999)
    );
    at(990)
}

async fn measured() -> bool {
    let region = Region::new().await;
    let city = region.join(Site::CityGeneral).await;
    let anne = region.join(Site::StAnne).await;
    let (good, bad) = (
        region.join(Site::HarbourGp).await,
        region.join(Site::NorthImaging).await,
    );
    let good = member(&region, good, &city, &anne).await;
    let bad = member(&region, bad, &city, &anne).await;
    lookups(&good).await;
    let quiet = shown("quiet", &lookups(&good).await, None, 1.0);
    let mut worst = 0_f64;
    for (name, puts_too) in [
        ("beside 1,000 lookups a second", false),
        ("beside stores without end", true),
    ] {
        let tally = Arc::new(Tally::default());
        let flood = if puts_too {
            tokio::spawn(puts(Arc::clone(&bad), Arc::clone(&tally)))
        } else {
            tokio::spawn(asks(Arc::clone(&bad), Arc::clone(&tally)))
        };
        // The burst that a member may have at once is over before anything is measured.
        tokio::time::sleep(Duration::from_secs(5)).await;
        tally.taken.store(0, Ordering::Relaxed);
        tally.refused.store(0, Ordering::Relaxed);
        let begun = Instant::now();
        let times = lookups(&good).await;
        let p99 = shown(name, &times, Some(&tally), begun.elapsed().as_secs_f64());
        tally.stop.store(true, Ordering::Relaxed);
        flood.await.unwrap();
        bad.forget();
        worst = worst.max(p99 as f64 / quiet as f64);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    println!("worst ratio of the 99th percentiles {worst:.2} (bound {RATIO_MAX})");
    worst <= RATIO_MAX
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let held = runtime.block_on(measured());
    ExitCode::from(u8::from(!held))
}
