//! A region in one process: an authority and nodes on loopback, joined and asked through the doors that everybody uses.
//!
//! The law: nothing is prepared behind a node's back. Members are invited and join, records are imported, questions
//! go over the command socket or over HTTP. Every region has its own folder, root and ports; waiting is for a
//! condition and bounded.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hie::authority::enrol::Guest;
use hie::authority::{Authority, RegionOptions, serve};
use hie::cli::arguments::{Init, Join};
use hie::cli::output::Output;
use hie::fault::{Exit, Fault};
use hie::home::Home;
use hie::order::{Asker, Line, Order, exit_of};
use hie::{clock, join, run};
use hie_gateway_dialect::fhir::fixture::{FixturePatient, Site, region_population};
use hie_protocol::id::OrgId;
use hie_protocol::message::{Demographics, PersonIdentifier, PersonName};
use hie_protocol::registry::{ConsentModel, MemberKind, MemberRole};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
pub const LOOK: Duration = Duration::from_millis(100);
/// Slices of a study in the stories.
pub const SLICES: u32 = 12;
/// Password of every account.
pub const PASSWORD: &str = "correct horse battery";
/// Accounts of every organisation: account, name, department, role.
pub const ACCOUNTS: [(&str, &str, &str, &str); 4] = [
    ("haddad", "Dr A. Haddad", "Emergency", "physician"),
    ("ruiz", "M. Ruiz", "Consent office", "consent-administrator"),
    ("silva", "R. Silva", "Privacy office", "auditor"),
    ("it", "K. Moen", "IT", "operator"),
];

/// First port given to a node. The ports stay below those that the system gives to outgoing connections, so that a
/// node that stops finds its own again when it comes back.
const PORTS_FROM: u32 = 10_000;
/// Ports given in all.
const PORTS: u32 = 20_000;
/// Ports that one process begins apart from the next.
const PORTS_OF_A_PROCESS: u32 = 32;

/// A loopback address that is free now and that this process gives only once.
pub fn free() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let from = std::process::id().wrapping_mul(PORTS_OF_A_PROCESS);
    let mut ports = (0..PORTS).map(|_| PORTS_FROM + from.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS);
    let free = ports.find_map(|port| TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).ok());
    free.expect("a port is free").local_addr().unwrap()
}

/// Looks again and again until the condition gives a value.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let mut every = tokio::time::interval(LOOK);
    let waiting = async {
        loop {
            every.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Waits until somebody takes orders there.
async fn listens(socket: &Path) {
    until("the node takes orders", || async {
        UnixStream::connect(socket).await.ok()
    })
    .await;
}

/// In whose name, for treatment.
pub fn asker(account: &str) -> Asker {
    Asker {
        account: account.to_owned(),
        purpose: "TREAT".to_owned(),
        emergency: None,
    }
}

/// The physician in an emergency.
pub fn emergency(words: &str) -> Asker {
    let emergency = Some(("life-at-risk".to_owned(), words.to_owned()));
    Asker {
        account: "haddad".to_owned(),
        purpose: "BTG".to_owned(),
        emergency,
    }
}

/// A person by name, birth date and sex.
pub fn person(family: &str, given: &str, born: &str, sex: &str) -> Demographics {
    let name = PersonName {
        family: family.to_owned(),
        given: vec![given.to_owned()],
        prefix: None,
        suffix: None,
    };
    Demographics {
        names: vec![name],
        birth_date: Some(born.to_owned()),
        sex: Some(sex.to_owned()),
        identifiers: Vec::new(),
        addresses: Vec::new(),
        telecoms: Vec::new(),
    }
}

/// Grace Okafor, whom all four organisations of the fixture know.
pub fn grace() -> Demographics {
    person("Okafor", "Grace", "1961-03-14", "female")
}

/// Adds an identifier.
pub fn with_identifier(mut who: Demographics, system: &str, value: &str) -> Demographics {
    who.identifiers.push(PersonIdentifier {
        system: system.to_owned(),
        value: value.to_owned(),
    });
    who
}

/// What an order gave.
#[derive(Debug)]
pub struct Reply {
    /// Exit code, or the fault.
    pub outcome: Result<Exit, Fault>,
    /// Results in order.
    pub data: Vec<Value>,
}

impl Reply {
    /// The results of an order that must end so.
    #[track_caller]
    pub fn ended(self, exit: Exit) -> Vec<Value> {
        assert_eq!(
            self.outcome.as_ref().map_or_else(|fault| fault.exit, |exit| *exit),
            exit,
            "{:?} {:#?}",
            self.outcome,
            self.data
        );
        self.data
    }

    /// The results of an order that must be done.
    #[track_caller]
    pub fn done(self) -> Vec<Value> {
        self.ended(Exit::Done)
    }
}

/// Gives an order over a node's socket and collects what comes back.
pub async fn give(socket: &Path, order: &Order) -> std::io::Result<Reply> {
    let (read, mut write) = UnixStream::connect(socket).await?.into_split();
    let mut bytes = serde_json::to_vec(order)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await?;
    let mut lines = BufReader::new(read).lines();
    let mut data = Vec::new();
    while let Some(text) = lines.next_line().await? {
        match serde_json::from_str(&text)? {
            Line::Progress { .. } | Line::Say { .. } => {}
            Line::Data { value, .. } => data.push(value),
            Line::Done { exit } => {
                return Ok(Reply {
                    outcome: Ok(exit_of(exit)),
                    data,
                });
            }
            Line::Fault { exit, what, why, fix } => {
                return Ok(Reply {
                    outcome: Err(Fault {
                        exit: exit_of(exit),
                        what,
                        why,
                        fix,
                    }),
                    data,
                });
            }
        }
    }
    Err(std::io::Error::other("the answer broke off"))
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub struct Answer {
    /// One line for each organisation.
    pub organisations: Vec<Value>,
    /// Whether nobody was silent.
    pub complete: bool,
    /// Names of the silent.
    pub silent: Vec<String>,
    /// The closing words.
    pub words: String,
}

impl Answer {
    fn read(data: &[Value]) -> Self {
        let closing = data
            .iter()
            .find(|line| line.get("complete").is_some())
            .unwrap_or_else(|| panic!("no closing line: {data:#?}"));
        let silent = closing["silent"].as_array().unwrap().iter();
        Self {
            organisations: data
                .iter()
                .filter(|line| line.get("organisation").is_some())
                .cloned()
                .collect(),
            complete: closing["complete"].as_bool().unwrap(),
            silent: silent.map(|line| line["name"].as_str().unwrap().to_owned()).collect(),
            words: closing["words"].as_str().unwrap().to_owned(),
        }
    }

    /// What one organisation said.
    pub fn of(&self, name: &str) -> Option<&Value> {
        self.organisations.iter().find(|line| line["name"] == name)
    }

    /// Documents of one organisation.
    pub fn documents(&self, name: &str) -> Vec<Value> {
        self.of(name)
            .and_then(|line| line["documents"].as_array().cloned())
            .unwrap_or_default()
    }

    /// Titles of one organisation's documents, as a set.
    pub fn titles(&self, name: &str) -> BTreeSet<String> {
        self.documents(name)
            .iter()
            .map(|document| document["title"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Names of the organisations that gave documents.
    pub fn givers(&self) -> BTreeSet<String> {
        let gave = self
            .organisations
            .iter()
            .filter(|line| !line["documents"].as_array().unwrap().is_empty());
        gave.map(|line| line["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The document of one organisation that has this title.
    #[track_caller]
    pub fn document(&self, name: &str, title: &str) -> Value {
        let found = self
            .documents(name)
            .into_iter()
            .find(|document| document["title"] == title);
        found.unwrap_or_else(|| panic!("{name} gave no {title}: {:#?}", self.of(name)))
    }
}

/// Reference of a document.
pub fn reference(document: &Value) -> String {
    document["reference"].as_str().unwrap().to_owned()
}

/// A member to be.
pub struct Guise<'a> {
    pub slug: &'a str,
    pub name: &'a str,
    pub urn: &'a str,
    pub kind: MemberKind,
    pub token_authority: bool,
    /// Whether it relays for others.
    pub relay: bool,
    /// Whether it only dials out.
    pub outbound_only: bool,
    /// Its relays.
    pub relays: &'a [&'a str],
}

impl From<Site> for Guise<'static> {
    fn from(site: Site) -> Self {
        let kind = match site {
            Site::CityGeneral | Site::StAnne => MemberKind::Hospital,
            Site::HarbourGp => MemberKind::Clinic,
            Site::NorthImaging => MemberKind::ImagingCentre,
        };
        Self {
            slug: site.slug(),
            name: site.name(),
            urn: site.urn(),
            kind,
            token_authority: site == Site::CityGeneral,
            relay: false,
            outbound_only: false,
            relays: &[],
        }
    }
}

/// One organisation's node.
pub struct Node {
    /// Name.
    pub name: String,
    /// Organisation.
    pub org: OrgId,
    /// Its folder.
    pub home: Home,
    /// Its web server.
    pub web: SocketAddr,
    running: Option<Running>,
}

/// A node that was started in this process.
struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Exit, Fault>>,
}

impl Node {
    /// Starts it and waits until it takes orders.
    pub async fn start(&mut self) {
        // What ran here before may still be letting go of the store: it was no process of its own.
        let started = until("the store is free", || {
            let before = self.running.take();
            assert!(before.is_none(), "{} runs already", self.name);
            self.begin(false);
            let (mut running, socket) = (self.running.take(), self.home.socket());
            async move {
                let node = running.as_mut()?;
                let ended = tokio::select! {
                    ended = &mut node.task => Some(ended),
                    () = listens(&socket) => None,
                };
                match ended {
                    None => running,
                    Some(Ok(Err(fault))) if fault.exit == Exit::Busy => None,
                    Some(ended) => panic!("a node ended while starting: {ended:?}"),
                }
            }
        });
        self.running = Some(started.await);
    }

    /// Lets it stand by for another node with the same store.
    pub fn stand_by(&mut self) {
        self.begin(true);
    }

    fn begin(&mut self, standby: bool) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        let (stop, stopped) = oneshot::channel::<()>();
        let home = self.home.clone();
        let task = tokio::spawn(async move {
            let output = Output::new(true);
            let stop = async move {
                let _stopped_or_dropped = stopped.await;
            };
            if standby {
                run::stand_by(&home, &output, stop).await
            } else {
                run::serve_until(&home, &output, stop).await
            }
        });
        self.running = Some(Running { stop, task });
    }

    /// Waits until it takes orders.
    pub async fn serves(&mut self) {
        let socket = self.home.socket();
        let serves = until("the node takes orders", || async {
            if !self.runs() {
                return Some(false);
            }
            UnixStream::connect(&socket).await.ok().map(|_| true)
        })
        .await;
        if !serves {
            let ended = self.running.take().expect("the node was started").task.await;
            panic!("{} ended while starting: {ended:?}", self.name);
        }
    }

    /// Whether it takes orders now.
    pub async fn is_serving(&self) -> bool {
        UnixStream::connect(self.home.socket()).await.is_ok()
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        let Running { stop, task } = self.running.take().expect("the node runs");
        stop.send(()).expect("the node still listens");
        let ended = tokio::time::timeout(PATIENCE, task)
            .await
            .expect("the node stops")
            .expect("the node does not panic");
        assert_eq!(ended.unwrap(), Exit::Done);
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.task.is_finished())
    }

    /// Gives an order.
    pub async fn order(&self, order: Order) -> Reply {
        let given = tokio::time::timeout(PATIENCE, give(&self.home.socket(), &order)).await;
        given
            .expect("the order ends")
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Asks the region.
    pub async fn find(&self, who: &Demographics, asker: Asker) -> Answer {
        let reply = self
            .order(Order::Find {
                asker,
                demographics: who.clone(),
            })
            .await;
        let outcome = reply
            .outcome
            .as_ref()
            .unwrap_or_else(|fault| panic!("{}: {fault}", self.name));
        let answer = Answer::read(&reply.data);
        assert_eq!(
            *outcome == Exit::Done,
            answer.complete,
            "the exit code tells whether the answer is complete"
        );
        answer
    }

    /// Asks until the answer is as wanted.
    pub async fn find_until(&self, who: &Demographics, what: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let last = std::cell::RefCell::new(None);
        let asking = until(what, || async {
            let answer = self.find(who, asker("haddad")).await;
            if wanted(&answer) {
                return Some(answer);
            }
            last.replace(Some(answer));
            None
        });
        match tokio::time::timeout(PATIENCE - LOOK, asking).await {
            Ok(answer) => answer,
            Err(_) => panic!("waited in vain at {}: {what}; last: {:#?}", self.name, last.borrow()),
        }
    }

    /// Fetches a document or study.
    pub async fn get(&self, reference: &str, asker: Asker, out: &Path) -> Reply {
        self.order(Order::Get {
            asker,
            reference: reference.to_owned(),
            out: out.to_owned(),
        })
        .await
    }

    /// Imports FHIR.
    pub async fn import_fhir(&self, path: &Path) -> Reply {
        self.order(Order::ImportFhir {
            path: path.to_owned(),
            dry_run: false,
        })
        .await
    }

    /// Imports DICOM.
    pub async fn import_dicom(&self, path: &Path) -> Reply {
        self.order(Order::ImportDicom {
            path: path.to_owned(),
            dry_run: false,
        })
        .await
    }

    /// Entries of the audit log as IHE BALP AuditEvents, newest first.
    pub async fn log(&self) -> Vec<Value> {
        let order = Order::AuditSearch {
            asker: asker_for("silva", "HOPERAT"),
            text: None,
            emergency: false,
            limit: 500,
        };
        self.order(order).await.done()
    }

    /// Proves the audit log; its size.
    pub async fn verify(&self) -> u64 {
        let report = self.order(Order::AuditVerify).await.done();
        assert_eq!(
            (&report[0]["complete"], &report[0]["altered"]),
            (&Value::Bool(true), &Value::Bool(false)),
            "{report:#?}"
        );
        report[0]["to"].as_u64().unwrap()
    }

    /// Health.
    pub async fn status(&self) -> Value {
        self.order(Order::Status).await.done().remove(0)
    }

    /// The other organisations that a channel reaches.
    pub async fn reachable(&self) -> BTreeSet<String> {
        let status = self.status().await;
        let peers = status["peers"].as_array().unwrap().iter();
        peers
            .filter(|peer| peer["reachable"] == true)
            .map(|peer| peer["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// In whose name, for another purpose.
pub fn asker_for(account: &str, purpose: &str) -> Asker {
    Asker {
        purpose: purpose.to_owned(),
        ..asker(account)
    }
}

/// Kind of an entry that [`Node::log`] gave.
pub fn kind(entry: &Value) -> &str {
    let codes = entry["event"]["subtype"].as_array().unwrap().iter();
    let mut kinds = codes.filter(|code| code["system"] == "urn:hie:audit-kind");
    kinds.next().unwrap()["code"].as_str().unwrap()
}

/// A receipt inside an entry: `organisation#index` (`#index` is the entry itself) and its leaf.
pub fn receipt(entry: &Value, own: bool) -> Option<(String, String)> {
    entry["event"]["entity"].as_array().unwrap().iter().find_map(|entity| {
        let identifier = &entity["what"]["identifier"];
        let place = identifier["value"].as_str()?;
        if identifier["system"] != "urn:hie:audit-receipt" || place.starts_with('#') != own {
            return None;
        }
        let leaf = entity["detail"]
            .as_array()?
            .iter()
            .find(|detail| detail["type"] == "leaf")?;
        Some((place.to_owned(), leaf["valueString"].as_str()?.to_owned()))
    })
}

/// A region.
pub struct Region {
    folder: TempDir,
    address: SocketAddr,
    _authority: oneshot::Sender<()>,
}

impl Region {
    /// A region of City General, St Anne and North Imaging, each with its records of Grace, and what St Anne got when
    /// it asked all of them.
    pub async fn of_three() -> (Self, [Node; 3], Answer) {
        let region = Self::new().await;
        let sites = [Site::CityGeneral, Site::StAnne, Site::NorthImaging];
        let nodes = [
            region.join(sites[0]).await,
            region.join(sites[1]).await,
            region.join(sites[2]).await,
        ];
        for (node, site) in nodes.iter().zip(sites) {
            region.fill(node, site).await;
        }
        let whole = |answer: &Answer| answer.complete && answer.givers().len() == 3;
        let answer = nodes[1].find_until(&grace(), "St Anne asks all", whole).await;
        nodes[0].find_until(&grace(), "City General asks all", whole).await;
        (region, nodes, answer)
    }

    /// Makes a region with one token authority and starts its office.
    pub async fn new() -> Self {
        Self::with_tokens(1, 1).await
    }

    /// Makes a region whose token key needs so many of so many authorities, and starts its office.
    pub async fn with_tokens(token_threshold: u16, token_authorities: u16) -> Self {
        if std::env::var_os("HIE_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_env("HIE_LOG");
            let _kept = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_test_writer()
                .try_init();
        }
        let folder = tempfile::tempdir().unwrap();
        let address = free();
        let options = RegionOptions {
            name: "Northport Region".to_owned(),
            consent: ConsentModel::OptOut,
            address: address.to_string(),
            token_threshold,
            token_authorities,
            certificate_days: hie::authority::CERTIFICATE_DAYS,
        };
        drop(Authority::init(&folder.path().join("region"), options, clock::now()).unwrap());
        let running = serve::start(&folder.path().join("region"), address, true)
            .await
            .unwrap();
        let (authority, stopped) = oneshot::channel::<()>();
        tokio::spawn(running.until(async move {
            let _dropped = stopped.await;
        }));
        Self {
            folder,
            address,
            _authority: authority,
        }
    }

    /// A path in the region's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Address of the authority.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the authority's state, as its command line does beside the running server.
    pub async fn authority<T: Send + 'static>(&self, work: impl FnOnce(&mut Authority) -> T + Send + 'static) -> T {
        let folder = self.path("region");
        tokio::task::spawn_blocking(move || work(&mut Authority::open(&folder).unwrap()))
            .await
            .unwrap()
    }

    /// Invites an organisation and lets it join, but does not start its node.
    pub async fn enrol(&self, guise: impl Into<Guise<'_>>) -> Node {
        let guise = guise.into();
        let org = OrgId::parse(guise.urn).unwrap();
        let home = Home::at(self.path(guise.slug));
        let output = Output::new(true);
        let web = free();
        let init = Init {
            name: guise.name.to_owned(),
            host: None,
            web,
            plain: true,
            control: free(),
            bulk: free(),
            outbound_only: guise.outbound_only,
            relays: guise.relays.iter().map(|relay| (*relay).to_owned()).collect(),
        };
        join::init(&home, init, &output).unwrap();
        let mut roles = vec![MemberRole::IndexHolder];
        roles.extend(guise.token_authority.then_some(MemberRole::TokenAuthority));
        roles.extend(guise.relay.then_some(MemberRole::Relay));
        let guest = Guest {
            org: org.clone(),
            name: guise.name.to_owned(),
            kind: guise.kind,
            roles,
            phone: Some("555-0142".to_owned()),
            days: 7,
        };
        let invitation = self
            .authority(move |authority| authority.invite(guest, clock::now()).unwrap().to_text().to_string())
            .await;
        join::join(&home, Join { invitation, wait: 30 }, &output).await.unwrap();
        Node {
            name: guise.name.to_owned(),
            org,
            home,
            web,
            running: None,
        }
    }

    /// Invites an organisation, lets it join, starts its node, makes its accounts.
    pub async fn join(&self, guise: impl Into<Guise<'_>>) -> Node {
        let mut node = self.enrol(guise).await;
        node.start().await;
        for (account, name, department, role) in ACCOUNTS {
            let order = Order::AccountAdd {
                account: account.to_owned(),
                name: name.to_owned(),
                department: Some(department.to_owned()),
                roles: vec![role.to_owned()],
                password: Some(PASSWORD.to_owned()),
                client: false,
            };
            node.order(order).await.done();
        }
        node
    }

    /// The fixture population with short studies.
    pub fn population() -> Vec<FixturePatient> {
        let mut people = region_population();
        for series in people
            .iter_mut()
            .flat_map(|person| &mut person.records)
            .filter_map(|record| record.series.as_mut())
        {
            series.slices = series.slices.min(SLICES);
        }
        people
    }

    /// Imports at a node what the fixture says that its organisation holds.
    pub async fn fill(&self, node: &Node, site: Site) {
        let folder = self.path(&format!("data-{}", site.slug()));
        let (fhir, dicom) = (folder.join("fhir"), folder.join("dicom"));
        std::fs::create_dir_all(&fhir).unwrap();
        std::fs::create_dir_all(&dicom).unwrap();
        let (mut people, mut images) = (0_u64, 0_u64);
        for record in Self::population()
            .iter()
            .flat_map(|person| &person.records)
            .filter(|record| record.site == site)
        {
            std::fs::write(fhir.join(format!("{}.json", record.mrn)), record.bundle.to_string()).unwrap();
            people += 1;
            for (number, file) in record.series.iter().flat_map(|series| series.files().enumerate()) {
                std::fs::write(dicom.join(format!("{}-{number:04}.dcm", record.mrn)), file).unwrap();
                images += 1;
            }
        }
        let tally = node.import_fhir(&fhir).await.done().pop().unwrap();
        assert_eq!(
            (tally["patients"].as_u64(), tally["rejected_count"].as_u64()),
            (Some(people), Some(0)),
            "{tally}"
        );
        if images > 0 {
            let tally = node.import_dicom(&dicom).await.done().pop().unwrap();
            assert_eq!(tally["instances"].as_u64(), Some(images), "{tally}");
        }
    }
}
