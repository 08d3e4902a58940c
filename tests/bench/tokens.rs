//! The token authorities measured: first publication, a scraper with a member's certificate, and an index holder with
//! a full dump.
//!
//! ```text
//! cargo run --release -p hie-tests --example tokens [-- publication|scraper|dump]
//! ```
//!
//! Everything runs through the code of a node: real normalisation and tokens, claims, budgets, audit log on RocksDB,
//! proofs. CPU of all parties is counted, since all run in this process. The process ends with 1 when a bound breaks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::print_stdout
)]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::scalar::Scalar;
use futures::future::BoxFuture;
use hie_node_core::audit::log::{AuditLog, LogIdentity};
use hie_node_core::exchange::authority::{Authority, Parts};
use hie_node_core::exchange::budget::{Allowance, Budgets};
use hie_node_core::exchange::claim::{Asking, ClaimGate, ClaimMaker};
use hie_node_core::exchange::keyring::Keyring;
use hie_node_core::exchange::watch::Watch;
use hie_node_core::kv::Kv;
use hie_node_core::locator::driver::{Wire, WireFailure};
use hie_node_core::locator::tokens::{RegistryView, TokenAuthority, TokenParts, WireTokens};
use hie_node_core::patient::normalise::normalise;
use hie_node_core::patient::tokens;
use hie_node_core::ports::{Clock, OsRandom, Random};
use hie_node_core::vault::{Kek, Vault};
use hie_node_store::rocks::RocksStore;
use hie_protocol::claim::{CLAIM_LIFE_MS_MAX, Claim};
use hie_protocol::id::{Correlation, Millis, NodeKey, Nonce, OrgId, PublicKey, Signature};
use hie_protocol::message::{Demographics, PersonAddress, PersonIdentifier, PersonName, Request, Response};
use hie_protocol::oprf::client::{Blinding, Verified, combine};
use hie_protocol::oprf::key::{KeyShare, deal};
use hie_protocol::oprf::{BlindedElement, derive, server};
use hie_protocol::refusal::Refusal;
use hie_protocol::registry::{
    BreakGlassRules, ConsentModel, Member, MemberKind, MemberRole, NodeEntry, RegionPolicy, Registry, Standing,
    TokenAuthority as Entry, TokenParameters,
};
use hie_protocol::sign::Signer;
use hie_protocol::vocabulary::{Purpose, Role};
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tempfile::TempDir;
use tokio::sync::watch;

/// Authorities of the region and how many must answer.
const AUTHORITIES: u8 = 5;
const THRESHOLD: u16 = 3;
/// Patients of a first publication as measured.
const PATIENTS: u64 = 2000;
/// Identities that the scraper tries.
const SCRAPED: u64 = 100_000;
/// Most identities that one user gets before the first refusal.
const USER_MAX: u64 = 100;
/// Patients in the index, and people whose demographics the holder of a dump has.
const INDEXED: u64 = 1000;
const KNOWN: u64 = 1_000_000;

/// CPU seconds of this process, all threads.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// CPU seconds of this thread.
fn thread_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// A made person: the same for the same number.
fn person(number: u64) -> Demographics {
    const ONSETS: [&str; 16] = [
        "b", "br", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "w",
    ];
    const VOWELS: [&str; 6] = ["a", "e", "i", "o", "u", "ei"];
    const GIVEN: [&str; 24] = [
        "Anna", "Ben", "Clara", "David", "Elena", "Frank", "Grace", "Hugo", "Iris", "James", "Karen", "Luis", "Maria",
        "Noah", "Olga", "Paul", "Rosa", "Sam", "Tara", "Umar", "Vera", "Will", "Yara", "Zoe",
    ];
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bf0_3635;
    let mut draw = |below: u64| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        usize::try_from((state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below).unwrap()
    };
    let mut family = String::new();
    for _ in 0..3 {
        family.push_str(ONSETS[draw(16)]);
        family.push_str(VOWELS[draw(6)]);
    }
    let given = GIVEN[draw(24)];
    let phone = format!("617-5{:02}-{:04}", draw(100), draw(10_000));
    let mail = format!("{given}.{family}.{number}@example.org");
    Demographics {
        names: vec![PersonName {
            family,
            given: vec![given.to_owned()],
            prefix: None,
            suffix: None,
        }],
        birth_date: Some(format!("{}-{:02}-{:02}", 1930 + draw(90), 1 + draw(12), 1 + draw(28))),
        sex: Some(["female", "male"][draw(2)].to_owned()),
        identifiers: vec![
            PersonIdentifier {
                system: "http://hl7.org/fhir/sid/us-ssn".into(),
                value: format!("{:03}-{:02}-{:04}", 100 + draw(500), 10 + draw(80), 1000 + draw(9000)),
            },
            PersonIdentifier {
                system: "urn:oid:2.999.7.1.1".into(),
                value: format!("MRN-{number:08}"),
            },
        ],
        addresses: vec![PersonAddress {
            lines: vec![format!("{} Main Street", 1 + draw(400))],
            city: None,
            state: None,
            postal_code: Some(format!("0{}", 1000 + draw(2000))),
        }],
        telecoms: vec![phone, mail],
    }
}

fn inputs(number: u64) -> Vec<Vec<u8>> {
    let tokens = tokens::publish(&normalise(&person(number)), 1);
    tokens.into_iter().map(|token| token.input.into_bytes()).collect()
}

struct Key(Ed25519KeyPair, NodeKey);

impl Signer for Key {
    fn node(&self) -> NodeKey {
        self.1
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_slice(self.0.sign(message).as_ref()).unwrap()
    }
}

/// A clock that the measurement moves.
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

/// One token authority as a node runs it.
struct Party {
    org: OrgId,
    gate: ClaimGate,
    authority: Arc<Authority>,
    watch: Arc<Watch>,
    _folder: TempDir,
}

/// The region: five authorities, and member 9, who asks.
struct World {
    clock: Arc<Hands>,
    random: Arc<dyn Random>,
    registry: RegistryView,
    parties: Vec<Arc<Party>>,
    asker: Arc<Key>,
    shares: Vec<KeyShare>,
}

fn org(number: u8) -> OrgId {
    OrgId::parse(&format!("urn:oid:2.999.{number}")).unwrap()
}

fn key(number: u8) -> Arc<Key> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap();
    Arc::new(Key(pair, NodeKey::new([number; 32])))
}

const ASKER: u8 = 9;

fn member(number: u8) -> Member {
    Member {
        org: org(number),
        name: format!("Organisation {number}"),
        kind: MemberKind::Hospital,
        nodes: vec![NodeEntry {
            key: NodeKey::new([number; 32]),
            public: PublicKey::from_slice(key(number).0.public_key().as_ref()).unwrap(),
            control: None,
            bulk: None,
            relays: Vec::new(),
        }],
        roles: vec![MemberRole::IndexHolder, MemberRole::TokenAuthority],
        standing: Standing::Active,
        phone: None,
        term: 0,
    }
}

fn registry(shares: &[KeyShare]) -> Registry {
    let authority = |(share, number): (&KeyShare, u8)| Entry {
        index: share.index(),
        org: org(number),
        point: PublicKey::new(*share.public().point()),
    };
    Registry {
        region: "Bench".into(),
        version: 1,
        issued: Millis(1),
        root: Vec::new(),
        crl: Vec::new(),
        members: (1..=AUTHORITIES).chain([ASKER]).map(member).collect(),
        policy: RegionPolicy {
            consent: ConsentModel::OptOut,
            break_glass: BreakGlassRules {
                allowed: true,
                minutes: 60,
                tell_withheld: false,
            },
            replicas: 3,
            write_quorum: 2,
            record_life_ms: 86_400_000,
            tombstone_life_ms: 2 * 86_400_000,
            tokens: TokenParameters {
                profile: "norm-1".into(),
                epoch: 1,
                threshold: THRESHOLD,
                authorities: shares.iter().zip(1..).map(authority).collect(),
                resharing: None,
                beside: None,
            },
            officers: None,
        },
    }
}

impl World {
    fn new(published_turns_up: bool) -> Self {
        let random: Arc<dyn Random> = Arc::new(OsRandom::new());
        let clock = Arc::new(Hands(AtomicU64::new(1_780_000_000_000)));
        let mut fill = |out: &mut [u8]| random.fill(out).unwrap();
        let (_, shares) = deal(THRESHOLD, u16::from(AUTHORITIES), &mut fill).unwrap();
        let view = watch::channel(Arc::new(registry(&shares))).1;
        let parties = (1..=AUTHORITIES).zip(&shares).map(|(number, share)| {
            let share = KeyShare::from_bytes(&share.to_bytes()).unwrap();
            Arc::new(Party::new(number, share, &view, &clock, &random, published_turns_up))
        });
        Self {
            parties: parties.collect(),
            clock,
            random,
            registry: view,
            asker: key(ASKER),
            shares,
        }
    }

    fn claim(&self, user: &str, role: Role, purpose: Purpose, audience: &OrgId) -> Claim {
        let now = self.clock.now();
        let mut nonce = [0; 16];
        self.random.fill(&mut nonce).unwrap();
        Claim {
            org: org(ASKER),
            node: self.asker.1,
            user: user.to_owned(),
            user_name: user.to_owned(),
            role,
            purpose,
            evidence: None,
            break_glass: None,
            audience: audience.clone(),
            correlation: Correlation::new([1; 16]),
            nonce: Nonce::new(nonce),
            issued: now,
            expires: now.plus(CLAIM_LIFE_MS_MAX),
        }
    }

    fn tokens(&self, folder: &TempDir) -> WireTokens {
        let kv: Arc<dyn Kv> = Arc::new(RocksStore::open(folder.path()).unwrap());
        let audit = audit(ASKER, &kv, &vault(&kv, &self.random));
        let clock: Arc<dyn Clock> = self.clock.clone();
        WireTokens::new(TokenParts {
            me: org(ASKER),
            wire: Arc::new(Cable {
                parties: self.parties.clone(),
                node: self.asker.1,
            }),
            registry: self.registry.clone(),
            claims: ClaimMaker::new(org(ASKER), self.asker.clone(), clock.clone(), self.random.clone()),
            own: None,
            audit,
            watch: Arc::new(Watch::default()),
            clock,
            random: self.random.clone(),
        })
    }
}

fn vault(kv: &Arc<dyn Kv>, random: &Arc<dyn Random>) -> Arc<Vault> {
    Arc::new(Vault::open(&Kek::generate(&**random).unwrap(), kv.clone(), random.clone()).unwrap())
}

fn audit(number: u8, kv: &Arc<dyn Kv>, vault: &Arc<Vault>) -> Arc<AuditLog> {
    let signer = key(number);
    let identity = LogIdentity {
        org: org(number),
        keys: vec![PublicKey::from_slice(signer.0.public_key().as_ref()).unwrap()],
    };
    Arc::new(AuditLog::open(&identity, signer, kv.clone(), vault.clone()).unwrap())
}

impl Party {
    fn new(
        number: u8,
        share: KeyShare,
        view: &RegistryView,
        clock: &Arc<Hands>,
        random: &Arc<dyn Random>,
        published_turns_up: bool,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kv: Arc<dyn Kv> = Arc::new(RocksStore::open(folder.path()).unwrap());
        let vault = vault(&kv, random);
        let keyring = Arc::new(Keyring::open(kv.clone(), vault.clone()).unwrap());
        keyring.add(1, 0, share).unwrap();
        let watch = Arc::new(Watch::default());
        // An honest owner's records keep turning up in the index; a scraper's never do.
        let seen = AtomicU64::new(0);
        let held = Arc::new(move |_: &OrgId| {
            let more = if published_turns_up { 1 << 20 } else { 0 };
            Some(seen.fetch_add(more, Ordering::SeqCst))
        });
        let clock: Arc<dyn Clock> = clock.clone();
        let authority = Authority::new(Parts {
            me: org(number),
            keyring,
            registry: view.clone(),
            audit: audit(number, &kv, &vault),
            budgets: Arc::new(Budgets::new(kv, vault, held, Allowance::default())),
            watch: watch.clone(),
            clock: clock.clone(),
            random: random.clone(),
        });
        Self {
            org: org(number),
            gate: ClaimGate::new(org(number), view.clone(), clock),
            authority: Arc::new(authority),
            watch,
            _folder: folder,
        }
    }
}

/// A wire without a network: frames are written and read on both sides.
struct Cable {
    parties: Vec<Arc<Party>>,
    node: NodeKey,
}

impl Wire for Cable {
    fn send(&self, org: OrgId, request: Request) -> BoxFuture<'static, Result<Response, WireFailure>> {
        let party = self.parties.iter().find(|party| party.org == org).cloned();
        let node = self.node;
        Box::pin(async move {
            let party = party.ok_or(WireFailure::Unreachable)?;
            let answer = tokio::task::spawn_blocking(move || {
                let Request::Evaluate {
                    claim,
                    epoch,
                    blinded,
                    share,
                } = Request::decode(&request.encode().unwrap()).unwrap()
                else {
                    return Response::Refused(Refusal::NotOffered);
                };
                match party.gate.take(&claim.0, &node) {
                    Ok(claim) => party.authority.serve(&claim, epoch, share, &blinded),
                    Err(refusal) => Response::Refused(refusal),
                }
            });
            let answer = answer.await.map_err(|_| WireFailure::Misbehaved)?;
            Ok(Response::decode(&answer.encode().unwrap()).unwrap())
        })
    }
}

fn fill(random: &dyn Random) -> impl FnMut(&mut [u8]) + '_ {
    move |out: &mut [u8]| random.fill(out).unwrap()
}

/// Plain multiplications of a point by a scalar in a second of CPU.
fn baseline() -> f64 {
    let scalar = Scalar::from_bytes_mod_order([7; 32]);
    let mut point = RistrettoPoint::mul_base(&scalar);
    let (from, count) = (thread_cpu(), 20_000);
    for _ in 0..count {
        point *= scalar;
    }
    let per_second = f64::from(count) / (thread_cpu() - from);
    assert_ne!(point.compress().to_bytes(), [0; 32]);
    per_second
}

/// CPU seconds for each token: the member's, and all authorities' together.
fn by_batch(world: &World, all: &[Vec<u8>], size: usize) -> (f64, f64) {
    let (mut member, mut authorities, mut count) = (0.0, 0.0, 0_usize);
    for batch in all.chunks(size).filter(|batch| batch.len() == size) {
        let from = thread_cpu();
        let slices: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
        let (blinding, blinded): (Blinding, Vec<BlindedElement>) =
            Blinding::new(&slices, &mut fill(&*world.random)).unwrap();
        member += thread_cpu() - from;
        let from = thread_cpu();
        let shares = &world.shares[..usize::from(THRESHOLD)];
        let answers: Vec<_> = shares
            .iter()
            .map(|share| server::evaluate(share, &blinded, &mut fill(&*world.random)).unwrap())
            .collect();
        authorities += thread_cpu() - from;
        let from = thread_cpu();
        let verified: Vec<Verified> = shares
            .iter()
            .zip(&answers)
            .map(|(share, answer)| blinding.verify(&share.public(), answer).unwrap())
            .collect();
        let outputs = blinding.finalize(&combine(THRESHOLD, &verified).unwrap()).unwrap();
        member += thread_cpu() - from;
        count += outputs.len();
    }
    (member / count as f64, authorities / count as f64)
}

async fn publication() -> bool {
    println!("First publication ({THRESHOLD} of {AUTHORITIES} authorities)");
    let plain = baseline();
    println!("  baseline                 {plain:>9.0} multiplications of a point a second and core");
    let world = World::new(true);
    let from = thread_cpu();
    let all: Vec<Vec<u8>> = (0..PATIENTS).flat_map(inputs).collect();
    let tokenise = (thread_cpu() - from) / PATIENTS as f64;
    let per_patient = all.len() as f64 / PATIENTS as f64;
    println!(
        "  tokens of a patient      {per_patient:>9.1}   ({:.0} us to make them)",
        tokenise * 1e6
    );
    let sample = &all[..all.len().min(8192)];
    let mut best = (f64::MAX, f64::MAX);
    for size in [64, 256, 1024] {
        let (member, authorities) = by_batch(&world, sample, size);
        let together = member + authorities;
        println!(
            "  batches of {size:>4}          {:>9.0} patients a second and core, all parties (member {:.0} us, authorities \
             {:.0} us a token; {:.2} of the bare {} multiplications)",
            1.0 / (together * per_patient),
            member * 1e6,
            authorities * 1e6,
            f64::from(THRESHOLD + 2) / plain / together,
            THRESHOLD + 2,
        );
        best = (member, authorities);
    }
    let folder = tempfile::tempdir().unwrap();
    let wire = world.tokens(&folder);
    let asking = Asking::system(Purpose::Operations, Role::System, Correlation::new([2; 16]));
    let (from, wall) = (cpu(), Instant::now());
    let outputs = wire.evaluate(&asking, 1, all).await.unwrap();
    let (used, wall) = (cpu() - from, wall.elapsed().as_secs_f64());
    let speed = PATIENTS as f64 / used;
    println!(
        "  whole path, as nodes do  {speed:>9.0} patients a second and core, all parties ({} tokens, {used:.1} s CPU, {wall:.1} s \
         on this machine; claims, budgets, frames and audit included)",
        outputs.len(),
    );
    let overhead = used / PATIENTS as f64 / ((best.0 + best.1) * per_patient);
    for cores in [4.0, 8.0, 16.0] {
        let member = 1e6 * (best.0 * per_patient * overhead + tokenise) / cores;
        let authority = 1e6 * best.1 * per_patient * overhead / f64::from(AUTHORITIES) / cores;
        println!(
            "  a million patients       {:>9.2} h on a hospital of {cores:.0} cores ({:.2} h each authority, in parallel)",
            member.max(authority) / 3600.0,
            authority / 3600.0
        );
    }
    outputs.len() as f64 >= PATIENTS as f64
}

/// What a scraper got.
#[derive(Default)]
struct Scrape {
    identities: u64,
    first_refused: Option<u64>,
    first_alarm: Option<(u64, u64)>,
    hour: u64,
}

/// Tries identities, one question or batch a second at most, over whichever authorities still answer.
fn scrape(
    world: &World,
    guesses_each: u64,
    tokens_each: usize,
    who: impl Fn(u64) -> (String, Role, Purpose),
) -> Scrape {
    let mut scrape = Scrape::default();
    let begun = world.clock.now();
    let mut tried = 0;
    // The authority does not look at what a point hides: one point stands for every guess.
    let point = PublicKey::new(*world.shares[0].public().point());
    let blinded = vec![point; tokens_each];
    let mut turn = 0;
    while tried < SCRAPED {
        let (user, role, purpose) = who(tried);
        let mut answered = 0;
        for at in 0..world.parties.len() {
            let party = &world.parties[(turn + at) % world.parties.len()];
            let claim = world.claim(&user, role, purpose, &party.org);
            match party.authority.serve(&claim, 1, None, &blinded) {
                Response::Evaluated { .. } => answered += 1,
                Response::Refused(Refusal::Budget) => {}
                other => panic!("{other:?}"),
            }
            if answered == THRESHOLD {
                break;
            }
        }
        turn += usize::from(THRESHOLD);
        tried += guesses_each;
        let seconds = world.clock.now().since(begun) / 1000;
        if answered == THRESHOLD {
            scrape.identities += guesses_each;
            if seconds < 3600 {
                scrape.hour += guesses_each;
            }
        } else {
            scrape.first_refused.get_or_insert(scrape.identities);
        }
        if scrape.first_alarm.is_none() && world.parties.iter().any(|party| party.watch.alarms().1 > 0) {
            scrape.first_alarm = Some((scrape.identities, seconds));
        }
        world.clock.0.fetch_add(1000, Ordering::SeqCst);
    }
    scrape
}

fn scraper() -> bool {
    println!(
        "A scraper with a valid member certificate, {SCRAPED} identities, a try a second, any three of five authorities"
    );
    let question = usize::try_from(hie_node_core::exchange::budget::QUESTION_TOKENS).unwrap();
    let user = |_: u64| ("eve".to_owned(), Role::Physician, Purpose::Treatment);
    let users = |tried: u64| (format!("user {tried}"), Role::Physician, Purpose::Treatment);
    let program = |_: u64| (String::new(), Role::System, Purpose::Operations);
    let mut held = true;
    let mut show = |name: &str, scrape: &Scrape, bound: Option<u64>| {
        let refused = scrape.first_refused.unwrap_or(u64::MAX);
        let (alarm, seconds) = scrape.first_alarm.unwrap_or((u64::MAX, 0));
        println!(
            "  {name:<44} stopped after {refused:>6}, alarmed after {alarm:>6} ({seconds} s), {:>6} in the first hour, {:>6} of \
             {SCRAPED}",
            scrape.hour, scrape.identities
        );
        held &= bound.is_none_or(|bound| refused <= bound && alarm <= refused);
    };
    show(
        "one user, whole questions",
        &scrape(&World::new(false), 1, question, user),
        Some(USER_MAX),
    );
    show(
        "a new user for each question",
        &scrape(&World::new(false), 1, question, users),
        Some(500),
    );
    show(
        "one user, a token for each guess, 64 at once",
        &scrape(&World::new(false), 64, 64, user),
        Some(2000),
    );
    show(
        "guesses called a publication, 1024 at once",
        &scrape(&World::new(false), 1024, 1024, program),
        Some(40_000),
    );
    held
}

/// How many of the known people an attacker finds in a dump, given what it derives an index key from.
fn attack(dump: &HashSet<[u8; 32]>, guess: impl Fn(&[u8]) -> [u8; 32] + Sync) -> (u64, u64) {
    let (found, tried) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (found, tried, guess) = (&found, &tried, &guess);
            scope.spawn(move || {
                for number in (thread as u64..KNOWN).step_by(threads) {
                    let tokens = inputs(number);
                    let mut hit = false;
                    for input in &tokens {
                        tried.fetch_add(1, Ordering::Relaxed);
                        hit |= dump.contains(&guess(input));
                    }
                    if hit {
                        found.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    (found.into_inner(), tried.into_inner())
}

async fn dump() -> bool {
    println!(
        "An index holder with a dump of {INDEXED} patients, the demographics of {KNOWN} people, and {} shares",
        THRESHOLD - 1
    );
    let world = World::new(true);
    let folder = tempfile::tempdir().unwrap();
    let wire = world.tokens(&folder);
    let step = KNOWN / INDEXED;
    let indexed: Vec<Vec<u8>> = (0..INDEXED).flat_map(|at| inputs(at * step)).collect();
    let asking = Asking::system(Purpose::Operations, Role::System, Correlation::new([2; 16]));
    let outputs = wire.evaluate(&asking, 1, indexed.clone()).await.unwrap();
    let dump: HashSet<[u8; 32]> = outputs.iter().map(|output| derive::index_key(output)).collect();
    println!("  index keys in the dump                        {}", dump.len());

    let regional = hmac::Key::new(hmac::HMAC_SHA512, b"a key that every member of the region has");
    let keyed = |input: &[u8]| -> [u8; 32] {
        let output: [u8; 64] = hmac::sign(&regional, input).as_ref().try_into().unwrap();
        derive::index_key(&output)
    };
    let weak: HashSet<[u8; 32]> = indexed.iter().map(|input| keyed(input)).collect();
    let (found, tried) = attack(&weak, keyed);
    println!("  baseline, HMAC with a key of the region       {found} of {INDEXED} people found ({tried} guesses)");
    let baseline = found;

    let (found_keyed, tried) = attack(&dump, keyed);
    println!("  the same attack on this index                 {found_keyed} found ({tried} guesses)");
    // The shares it has, combined as if they were enough.
    let few: Vec<&KeyShare> = world.shares.iter().take(usize::from(THRESHOLD) - 1).collect();
    let guess = |input: &[u8]| -> [u8; 32] {
        let mut random = fill(&*world.random);
        let (blinding, blinded) = Blinding::new(&[input], &mut random).unwrap();
        let verified: Vec<Verified> = few
            .iter()
            .map(|share| {
                let answer = server::evaluate(share, &blinded, &mut random).unwrap();
                blinding.verify(&share.public(), &answer).unwrap()
            })
            .collect();
        let combined = combine(THRESHOLD - 1, &verified).unwrap();
        derive::index_key(&blinding.finalize(&combined).unwrap()[0])
    };
    let sample = &indexed[0];
    let mut probe: HashSet<[u8; 32]> = HashSet::new();
    probe.insert(guess(sample));
    assert!(probe.contains(&guess(sample)), "the attack derives the same key again");
    let (found_shares, tried) = attack_some(&dump, guess);
    println!(
        "  with {} shares                                 {found_shares} found ({tried} guesses)",
        THRESHOLD - 1
    );
    let held = baseline == INDEXED && found_keyed == 0 && found_shares == 0;
    println!(
        "  tokens matched                                {}",
        found_keyed + found_shares
    );
    held
}

/// The attack with shares over the people who are in the dump for certain: each guess is a full evaluation, and the
/// likeliest people come first.
fn attack_some(dump: &HashSet<[u8; 32]>, guess: impl Fn(&[u8]) -> [u8; 32] + Sync) -> (u64, u64) {
    let step = KNOWN / INDEXED;
    let (mut found, mut tried) = (0, 0);
    for number in (0..INDEXED).map(|at| at * step) {
        let tokens = inputs(number);
        let mut hit = false;
        for input in &tokens {
            tried += 1;
            hit |= dump.contains(&guess(input));
        }
        found += u64::from(hit);
    }
    (found, tried)
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let only = std::env::args().nth(1);
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let mut held = true;
    if wanted("publication") {
        held &= publication().await;
    }
    if wanted("scraper") {
        held &= tokio::task::spawn_blocking(scraper).await.unwrap();
    }
    if wanted("dump") {
        held &= dump().await;
    }
    if held {
        std::process::ExitCode::SUCCESS
    } else {
        println!("A bound that must hold is broken.");
        std::process::ExitCode::FAILURE
    }
}
