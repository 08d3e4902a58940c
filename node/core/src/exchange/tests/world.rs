//! Three organisations in one process: real logic, real keys, a wire that is a function call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use hie_protocol::id::{Correlation, Millis, NodeKey, OrgId, PublicKey, Signature};
use hie_protocol::message::{Demographics, DocumentMeta, PersonName, Request, Response};
use hie_protocol::oprf::key::{KeyShare, deal};
use hie_protocol::registry::{
    BreakGlassRules, ConsentModel, Member, MemberKind, MemberRole, NodeEntry, RegionPolicy, Registry, Standing,
    TokenAuthority, TokenParameters,
};
use hie_protocol::retrieval::{Ask, InstanceEntry, SeriesEntry};
use hie_protocol::sign::Signer;
use hie_protocol::vocabulary::{Confidentiality, DocumentClass, Purpose, Role};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::audit::event::{Actor, AuditEvent, EventKind};
use crate::audit::log::{AuditLog, LogIdentity};
use crate::audit::search::AuditFilter;
use crate::content::memory::MemoryContents;
use crate::exchange::authority::{Authority, Parts as AuthorityParts};
use crate::exchange::budget::{Allowance, Budgets};
use crate::exchange::claim::{Asking, ClaimGate, ClaimMaker};
use crate::exchange::fanout::{AskEvent, Fanout};
use crate::exchange::find::Finder;
use crate::exchange::keyring::Keyring;
use crate::exchange::lane::{Frame, Frames, Lane, Lanes};
use crate::exchange::local::Local;
use crate::exchange::reshare::Seat;
use crate::exchange::retrieve::Retriever;
use crate::exchange::serve::{Custodian, Server};
use crate::exchange::ticket::Tickets;
use crate::exchange::watch::Watch;
use crate::ids::PatientKey;
use crate::kv::Kv;
use crate::kv::memory::MemoryKv;
use crate::locator::driver::{self, Driver, IndexHandle, Wire, WireFailure};
use crate::locator::retoken::Retoken;
use crate::locator::sequence::Sequencer;
use crate::locator::state::LocatorStates;
use crate::locator::tokens::{TokenParts, WireTokens};
use crate::locator::worker::{self, Publisher};
use crate::patient::index::PatientIndex;
use crate::policy::decide::Asker;
use crate::policy::store::Policies;
use crate::ports::{Clock, OsRandom, Random};
use crate::record::entry::Records;
use crate::record::publish::{Body, Intake, NewDocument, Occasion, StudyLabels, Taken};
use crate::record::release::Door;
use crate::record::study::NewInstance;
use crate::record::summary::{Summaries, SummaryError};
use crate::vault::{Kek, Vault};

/// Real time, which a test may move on.
pub struct TestClock {
    begun: Instant,
    ahead: AtomicU64,
}

impl TestClock {
    pub fn advance(&self, milliseconds: u64) {
        self.ahead.fetch_add(milliseconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Millis {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap();
        Millis(1_780_000_000_000 + elapsed + self.ahead.load(Ordering::SeqCst))
    }
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

struct Lists;

impl Summaries for Lists {
    fn assemble(&self, patient: &Value, resources: &[Value], _now: Millis) -> Result<Vec<u8>, SummaryError> {
        Ok(json!({"patient": patient["id"], "resources": resources})
            .to_string()
            .into_bytes())
    }
}

/// Everything between the organisations.
#[derive(Default)]
pub struct Net {
    nodes: Mutex<BTreeMap<OrgId, (Arc<Server>, Lane)>>,
    down: Mutex<BTreeSet<OrgId>>,
    /// Changes what an organisation answers.
    #[allow(clippy::type_complexity)]
    pub lie: Mutex<Option<(OrgId, fn(Response) -> Response)>>,
    /// Frames after which a lane breaks, once.
    pub break_after: Mutex<Option<usize>>,
    /// Changes the frames of every answer on their way.
    pub change: Mutex<Option<fn(&mut Frame)>>,
    /// Requests that went over the wire, for replays.
    pub seen: Mutex<Vec<(OrgId, NodeKey, Request)>>,
}

impl Net {
    pub fn silence(&self, org: &OrgId) {
        self.down.lock().unwrap().insert(org.clone());
    }

    pub fn restore(&self, org: &OrgId) {
        self.down.lock().unwrap().remove(org);
    }

    fn is_down(&self, org: &OrgId) -> bool {
        self.down.lock().unwrap().contains(org) || !self.nodes.lock().unwrap().contains_key(org)
    }

    pub async fn deliver(&self, to: &OrgId, from: NodeKey, request: Request) -> Response {
        let server = self
            .nodes
            .lock()
            .unwrap()
            .get(to)
            .map(|(server, _)| server.clone())
            .unwrap();
        server.answer(from, request).await
    }

    pub fn lane(&self, org: &OrgId) -> Lane {
        self.nodes
            .lock()
            .unwrap()
            .get(org)
            .map(|(_, lane)| lane.clone())
            .unwrap()
    }
}

struct Cable {
    net: Arc<Net>,
    me: OrgId,
    node: NodeKey,
}

impl Wire for Cable {
    fn send(&self, org: OrgId, request: Request) -> BoxFuture<'static, Result<Response, WireFailure>> {
        let (net, node, me) = (self.net.clone(), self.node, self.me.clone());
        Box::pin(async move {
            if net.is_down(&org) || net.is_down(&me) {
                return Err(WireFailure::Unreachable);
            }
            if matches!(request, Request::Open(_)) {
                net.seen.lock().unwrap().push((org.clone(), node, request.clone()));
            }
            let request = Request::decode(&request.encode().unwrap()).unwrap();
            let mut response = net.deliver(&org, node, request).await;
            let lie = net.lie.lock().unwrap().clone();
            if let Some((_, lie)) = lie.filter(|(liar, _)| *liar == org) {
                response = lie(response);
            }
            Ok(Response::decode(&response.encode().unwrap()).unwrap())
        })
    }
}

impl Lanes for Cable {
    fn ask(&self, org: OrgId, ask: Ask) -> BoxFuture<'static, Result<Frames, WireFailure>> {
        let (net, node) = (self.net.clone(), self.node);
        Box::pin(async move {
            if net.is_down(&org) {
                return Err(WireFailure::Unreachable);
            }
            let limit = net.break_after.lock().unwrap().take().unwrap_or(usize::MAX);
            let change = *net.change.lock().unwrap();
            let changed = move |mut frame| {
                change.iter().for_each(|change| change(&mut frame));
                Ok(frame)
            };
            Ok(net.lane(&org).serve(node, ask).take(limit).map(changed).boxed())
        })
    }
}

/// One organisation.
pub struct Org {
    pub id: OrgId,
    pub node: NodeKey,
    pub audit: Arc<AuditLog>,
    pub policies: Arc<Policies>,
    pub intake: Arc<Intake>,
    pub publisher: Publisher,
    pub finder: Finder,
    pub fanout: Fanout,
    pub retriever: Retriever,
    pub local: Local,
    pub lane: Lane,
    pub index: IndexHandle,
    pub keyring: Arc<Keyring>,
    pub tokens: Arc<WireTokens>,
    pub watch: Arc<Watch>,
    pub seat: Seat,
    pub retoken: Retoken,
    announce: watch::Sender<Arc<Registry>>,
    clock: Arc<TestClock>,
}

impl Drop for Org {
    fn drop(&mut self) {
        let _stopped = self.index.stop();
    }
}

/// Three organisations: A asks, B and C hold.
pub struct World {
    pub net: Arc<Net>,
    pub clock: Arc<TestClock>,
    pub orgs: Vec<Org>,
}

pub fn org_id(arc: u8) -> OrgId {
    OrgId::parse(&format!("urn:oid:2.999.{arc}")).unwrap()
}

fn registry(keys: &[Arc<Key>], shares: &[KeyShare]) -> Registry {
    let member = |(at, key): (usize, &Arc<Key>)| Member {
        org: org_id(u8::try_from(at + 1).unwrap()),
        name: format!("Organisation {}", at + 1),
        kind: MemberKind::Hospital,
        nodes: vec![NodeEntry {
            key: key.1,
            public: PublicKey::from_slice(key.0.public_key().as_ref()).unwrap(),
            control: None,
            bulk: None,
            relays: Vec::new(),
        }],
        roles: vec![MemberRole::IndexHolder, MemberRole::TokenAuthority],
        standing: Standing::Active,
        phone: None,
        term: 0,
    };
    let authority = |(at, share): (usize, &KeyShare)| TokenAuthority {
        index: share.index(),
        org: org_id(u8::try_from(at + 1).unwrap()),
        point: PublicKey::new(*share.public().point()),
    };
    let registry = Registry {
        region: "Test".into(),
        version: 1,
        issued: Millis(1),
        root: Vec::new(),
        crl: Vec::new(),
        members: keys.iter().enumerate().map(member).collect(),
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
                threshold: 2,
                authorities: shares.iter().enumerate().map(authority).collect(),
                resharing: None,
                beside: None,
            },
            officers: None,
        },
    };
    registry.check().unwrap();
    registry
}

/// The registry of the three, with a key of its own.
pub fn test_registry() -> Registry {
    let random = OsRandom::new();
    let mut fill = |out: &mut [u8]| random.fill(out).unwrap();
    registry(&keys(), &deal(2, 3, &mut fill).unwrap().1)
}

fn keys() -> Vec<Arc<Key>> {
    let key = |seed: u8| {
        Key(
            Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(),
            NodeKey::new([seed; 32]),
        )
    };
    (1..=3).map(|seed| Arc::new(key(seed))).collect()
}

impl World {
    pub fn new() -> Self {
        let random: Arc<dyn Random> = Arc::new(OsRandom::new());
        let clock = Arc::new(TestClock {
            begun: Instant::now(),
            ahead: AtomicU64::new(0),
        });
        let keys = keys();
        let mut fill = |out: &mut [u8]| random.fill(out).unwrap();
        let (_, shares) = deal(2, 3, &mut fill).unwrap();
        let registry = Arc::new(registry(&keys, &shares));
        let net = Arc::new(Net::default());
        let orgs = keys.into_iter().zip(shares).enumerate().map(|(at, (key, share))| {
            let id = org_id(u8::try_from(at + 1).unwrap());
            Org::new(
                id,
                key,
                share,
                registry.clone(),
                net.clone(),
                clock.clone(),
                random.clone(),
            )
        });
        Self {
            orgs: orgs.collect(),
            net,
            clock,
        }
    }

    pub fn a(&self) -> &Org {
        &self.orgs[0]
    }

    pub fn b(&self) -> &Org {
        &self.orgs[1]
    }

    pub fn c(&self) -> &Org {
        &self.orgs[2]
    }

    /// Everybody takes the next registry.
    pub fn take(&self, change: impl Fn(&mut Registry)) {
        self.take_some(&self.orgs, change);
    }

    /// Some take the next registry.
    pub fn take_some(&self, orgs: &[Org], change: impl Fn(&mut Registry)) {
        let newest = self.orgs.iter().map(|org| org.announce.borrow().clone());
        let mut registry = Registry::clone(&newest.max_by_key(|registry| registry.version).unwrap());
        registry.version += 1;
        change(&mut registry);
        registry.check().unwrap();
        for org in orgs {
            org.announce.send_replace(Arc::new(registry.clone()));
            org.index.registry(registry.clone()).unwrap();
        }
    }

    /// Publishes everything that is marked, everywhere.
    pub async fn publish(&self) {
        for org in &self.orgs {
            let (_, failed) = org.publisher.round().await.unwrap();
            assert!(failed.is_none(), "{failed:?}");
            assert!(org.publisher.waiting().unwrap().is_empty());
        }
    }
}

impl Org {
    #[allow(clippy::too_many_lines)]
    fn new(
        id: OrgId,
        key: Arc<Key>,
        share: KeyShare,
        registry: Arc<Registry>,
        net: Arc<Net>,
        clock: Arc<TestClock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let kv = Arc::new(MemoryKv::new());
        let store: Arc<dyn Kv> = kv.clone();
        let contents = Arc::new(MemoryContents::new());
        let vault = Arc::new(Vault::open(&Kek::generate(&*random).unwrap(), store.clone(), random.clone()).unwrap());
        let identity = LogIdentity {
            org: id.clone(),
            keys: vec![PublicKey::from_slice(key.0.public_key().as_ref()).unwrap()],
        };
        let audit = Arc::new(AuditLog::open(&identity, key.clone(), store.clone(), vault.clone()).unwrap());
        let (announce, view) = watch::channel(registry.clone());
        let patients = Arc::new(PatientIndex::new(store.clone(), vault.clone(), random.clone()));
        let resolve = Arc::new(|name: &str| OrgId::parse(name).ok());
        let policies = Arc::new(Policies::new(
            store.clone(),
            vault.clone(),
            random.clone(),
            audit.clone(),
            resolve,
        ));
        let records = Records::new(store.clone(), vault.clone());
        let intake = Arc::new(Intake::new(
            records.clone(),
            patients.clone(),
            contents.clone(),
            audit.clone(),
            random.clone(),
        ));
        let door = Door::new(
            records.clone(),
            contents.clone(),
            patients.clone(),
            policies.clone(),
            Arc::new(Lists),
            clock.clone(),
        );
        let wire = Arc::new(Cable {
            net: net.clone(),
            me: id.clone(),
            node: key.1,
        });
        let sequencer = Arc::new(Sequencer::open(store.clone()).unwrap());
        let parts = driver::Parts {
            me: id.clone(),
            registry: Registry::clone(&registry),
            kv: store.clone(),
            signer: key.clone(),
            sequencer: sequencer.clone(),
            clock: clock.clone(),
            wire: wire.clone(),
            runtime: tokio::runtime::Handle::current(),
            notice: Arc::new(|org, what| panic!("{org}: {what}")),
        };
        let (machine, index) = Driver::new(parts, &*random).unwrap();
        std::thread::spawn(move || machine.run().unwrap());
        let keyring = Arc::new(Keyring::open(store.clone(), vault.clone()).unwrap());
        keyring.add(1, 0, share).unwrap();
        let watch = Arc::new(Watch::default());
        let authority_parts = AuthorityParts {
            me: id.clone(),
            keyring: keyring.clone(),
            registry: view.clone(),
            audit: audit.clone(),
            budgets: Arc::new(Budgets::new(
                store.clone(),
                vault.clone(),
                Arc::new(|_: &OrgId| None),
                Allowance::default(),
            )),
            watch: watch.clone(),
            clock: clock.clone(),
            random: random.clone(),
        };
        let authority = Arc::new(Authority::new(authority_parts.clone()));
        let claims = ClaimMaker::new(id.clone(), key.clone(), clock.clone(), random.clone());
        let tokens = Arc::new(WireTokens::new(TokenParts {
            me: id.clone(),
            wire: wire.clone(),
            registry: view.clone(),
            claims: claims.clone(),
            own: Some(authority.clone()),
            audit: audit.clone(),
            watch: watch.clone(),
            clock: clock.clone(),
            random: random.clone(),
        }));
        let seat = Seat::new(authority_parts, wire.clone());
        let retoken = Retoken::new(store.clone(), view.clone(), random.clone());
        let custodian = Custodian {
            me: id.clone(),
            patients: patients.clone(),
            records: records.clone(),
            policies: policies.clone(),
            audit: audit.clone(),
            signer: key.clone(),
            registry: view.clone(),
            clock: clock.clone(),
            random: random.clone(),
            tickets: Arc::new(Tickets::default()),
        };
        let gate = ClaimGate::new(id.clone(), view.clone(), clock.clone());
        let server = Arc::new(Server::new(custodian.clone(), gate, Some(authority), index.clone()));
        let lane = Lane::new(custodian.clone(), door.clone());
        net.nodes.lock().unwrap().insert(id.clone(), (server, lane.clone()));
        let publisher = Publisher::new(worker::Parts {
            me: id.clone(),
            kv: store.clone(),
            patients: patients.clone(),
            records,
            policies: policies.clone(),
            states: LocatorStates::new(store, vault),
            authority: tokens.clone(),
            index: index.clone(),
            signer: key.clone(),
            sequencer,
            registry: view.clone(),
            clock: clock.clone(),
            random,
        });
        let finder = Finder {
            me: id.clone(),
            patients: patients.clone(),
            audit: audit.clone(),
            tokens: tokens.clone(),
            index: index.clone(),
            registry: view.clone(),
            clock: clock.clone(),
        };
        let fanout = Fanout::new(finder.clone(), custodian.clone(), wire.clone(), claims);
        let retriever = Retriever::new(id.clone(), wire, audit.clone(), view, clock.clone());
        let local = Local::new(custodian, door);
        Self {
            id,
            node: key.1,
            audit,
            policies,
            intake,
            publisher,
            finder,
            fanout,
            retriever,
            local,
            lane,
            index,
            keyring,
            tokens,
            watch,
            seat,
            retoken,
            announce,
            clock,
        }
    }

    pub fn occasion(&self) -> Occasion {
        Occasion {
            actor: Actor::system(self.id.clone(), "feed"),
            correlation: Correlation::new([9; 16]),
            now: self.clock.now(),
        }
    }

    pub async fn hold(&self, person: &Demographics, documents: &[(&str, &[u8])]) -> (PatientKey, Vec<Taken>) {
        let patient = json!({"resourceType": "Patient"});
        let registered = self
            .intake
            .patient("mrn|1", &patient, person, &self.occasion())
            .unwrap();
        let documents = documents
            .iter()
            .map(|(source, bytes)| document(source, bytes))
            .collect();
        let taken = self
            .intake
            .documents(registered.patient, documents, Vec::new(), &self.occasion())
            .await
            .unwrap();
        (registered.patient, taken)
    }

    pub async fn hold_instance(&self, patient: PatientKey, number: i64, bytes: Vec<u8>) -> Taken {
        let size = bytes.len() as u64;
        let plain = futures::stream::iter([Ok(Bytes::from(bytes))]).boxed();
        let content = self.intake.store(patient, plain).await.unwrap();
        let instance = InstanceEntry {
            sop_uid: format!("1.2.3.{number}"),
            sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
            transfer_syntax: "1.2.840.10008.1.2.1".into(),
            number: Some(number),
            extent: (1, 1, 1),
            size,
            hash: content.hash,
        };
        let series = SeriesEntry {
            series_uid: "1.2.3".into(),
            modality: "CT".into(),
            number: Some(1),
            description: None,
            body_part: None,
            instances: Vec::new(),
        };
        let new = NewInstance {
            study_uid: "1.2".into(),
            study_description: None,
            study_date: Some("20260101".into()),
            series,
            instance,
            content,
            attributes: [b"{}".to_vec(), b"{}".to_vec(), b"{}".to_vec()],
        };
        let labels = StudyLabels {
            title: "CT".into(),
            author: None,
            confidentiality: Confidentiality::Normal,
            author_org: None,
        };
        self.intake.instance(patient, &new, &labels, &self.occasion()).unwrap()
    }

    pub fn asker(&self, role: Role) -> Asker {
        Asker {
            org: self.id.clone(),
            user: "dr-own".into(),
            user_name: "Dr Own".into(),
            role,
            purpose: Purpose::Treatment,
            break_glass: None,
            evidence: false,
            is_patient: false,
        }
    }

    /// The patient excludes an organisation here.
    pub fn exclude(&self, patient: PatientKey, org: &OrgId) {
        let consent = json!({
            "resourceType": "Consent",
            "status": "active",
            "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]},
            "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
            "patient": {"reference": "Patient/1"},
            "dateTime": "2026-01-01",
            "policy": [{"uri": "https://profiles.ihe.net/ITI/PCF/Policy-basic-normal"}],
            "provision": {"type": "permit", "provision": [{"type": "deny", "actor": [{
                "role": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "IRCP"}]},
                "reference": {"identifier": {"system": "urn:ietf:rfc:3986", "value": org.as_str()}},
            }]}]},
        });
        let actor = Actor::system(self.id.clone(), "consent desk");
        let stored = self
            .policies
            .accept(patient, &consent, actor, Correlation::new([8; 16]), self.clock.now())
            .unwrap();
        assert_eq!(stored["meta"]["versionId"], json!("1"));
    }

    pub async fn ask(&self, asking: &Asking, person: &Demographics) -> Vec<AskEvent> {
        let events = self.fanout.question(asking.clone(), person.clone()).await.unwrap();
        events.collect().await
    }

    /// Audit entries of a kind, oldest first.
    pub fn entries(&self, kind: EventKind) -> Vec<AuditEvent> {
        let filter = AuditFilter {
            kinds: vec![kind],
            limit: 100,
            ..AuditFilter::default()
        };
        let mut entries: Vec<_> = self
            .audit
            .search(&filter)
            .unwrap()
            .entries
            .into_iter()
            .map(|entry| entry.event)
            .collect();
        entries.reverse();
        entries
    }
}

pub fn document(source: &str, bytes: &[u8]) -> NewDocument {
    NewDocument {
        source: source.into(),
        meta: DocumentMeta {
            id: hie_protocol::id::DocumentId::new([0; 16]),
            class: DocumentClass::Note,
            kind: None,
            category: None,
            format: None,
            title: format!("Note {source}"),
            author: None,
            content_type: "text/plain".into(),
            created: Some(Millis(1_700_000_000_000)),
            period: None,
            size: None,
            hash: None,
            confidentiality: Confidentiality::Normal,
            sensitivity: Vec::new(),
            imaging: None,
        },
        body: Body::Bytes(Bytes::copy_from_slice(bytes)),
        superseded: false,
        unknown_labels: false,
        author_org: None,
        authors: Vec::new(),
    }
}

pub fn robert() -> Demographics {
    Demographics {
        names: vec![PersonName {
            family: "Smith".into(),
            given: vec!["Robert".into()],
            prefix: None,
            suffix: None,
        }],
        birth_date: Some("1961-03-14".into()),
        sex: Some("male".into()),
        telecoms: vec!["617-555-0123".into()],
        ..Demographics::default()
    }
}

pub fn asking(correlation: u8, purpose: Purpose) -> Asking {
    Asking {
        user: "dr-grey".into(),
        user_name: "Dr Grey".into(),
        role: Role::Physician,
        purpose,
        break_glass: None,
        evidence: None,
        correlation: Correlation::new([correlation; 16]),
    }
}
