//! The parts of a node, built in one reading from top to bottom; each gets only what it uses.
//!
//! [`Trade`] is everything that needs no other node: enough for imports and audits while the node is stopped.
//! [`Region`] adds the channels, the index and the exchange.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use hie_node_core::account::Accounts;
use hie_node_core::audit::log::{AuditLog, LogIdentity};
use hie_node_core::catalogue::Table;
use hie_node_core::content::ContentStore;
use hie_node_core::exchange::attention::Attention;
use hie_node_core::exchange::authority::{self, Authority};
use hie_node_core::exchange::budget::{self, Budgets};
use hie_node_core::exchange::claim::{ClaimGate, ClaimMaker};
use hie_node_core::exchange::fanout::Fanout;
use hie_node_core::exchange::find::Finder;
use hie_node_core::exchange::keyring::Keyring;
use hie_node_core::exchange::lane::Lane;
use hie_node_core::exchange::local::Local;
use hie_node_core::exchange::reshare::Seat;
use hie_node_core::exchange::retrieve::Retriever;
use hie_node_core::exchange::serve::{Custodian, Server};
use hie_node_core::exchange::ticket::Tickets;
use hie_node_core::exchange::watch::Watch;
use hie_node_core::kv::Kv;
use hie_node_core::locator::driver::{self, Driver, IndexError, IndexHandle, Wire};
use hie_node_core::locator::remembered::Remembered;
use hie_node_core::locator::retoken::Retoken;
use hie_node_core::locator::sequence::Sequencer;
use hie_node_core::locator::state::LocatorStates;
use hie_node_core::locator::tokens::{RegistryView, TokenParts, WireTokens};
use hie_node_core::locator::worker::{self, Publisher};
use hie_node_core::patient::index::PatientIndex;
use hie_node_core::policy::store::Policies;
use hie_node_core::ports::{Clock, OsRandom, Random};
use hie_node_core::record::entry::Records;
use hie_node_core::record::publish::Intake;
use hie_node_core::record::release::Door;
use hie_node_core::vault::{Kek, Vault};
use hie_node_federation::port::Misbehaviour;
use hie_node_peer::handle::{InboundRequest, PeerConfig, Peers};
use hie_node_peer::lane::client::Lane as LaneClient;
use hie_node_peer::lane::server::LaneListener;
use hie_node_peer::lane::substream;
use hie_node_peer::ledger::{Ledger, Offence};
use hie_node_peer::trust::Trust;
use hie_node_pki::identity::{IdentityCell, NodeIdentity};
use hie_node_pki::key::Key;
use hie_node_pki::membership::{Membership as MemberCertificates, MembershipCell};
use hie_node_pki::pem;
use hie_node_store::contents::ObjectContents;
use hie_node_store::rocks::{OpenError, RocksStore};
use hie_protocol::id::{OrgId, PublicKey};
use hie_protocol::registry::{MemberRole, Registry};
use tokio::sync::{mpsc, watch};

use crate::alarm::Alarm;
use crate::board::Board;
use crate::clock::System;
use crate::config::Config;
use crate::fault::{Exit, Fault, Outcome, chain};
use crate::home::Home;
use crate::intake::dicom::{DicomIntake, Turns};
use crate::intake::fhir::FhirIntake;
use crate::join::Membership;
use crate::summary::Summary;
use crate::tokens::{TokenSide, import_share};
use crate::wire::{LanePort, LanesPort, WirePort};

/// Everything that needs no other node.
#[derive(Clone)]
pub struct Trade {
    /// This organisation.
    pub me: OrgId,
    /// Its name.
    pub name: String,
    /// Registry in force.
    pub registry: RegistryView,
    /// Key-value store.
    pub kv: Arc<dyn Kv>,
    /// Sealing.
    pub vault: Arc<Vault>,
    /// Patients.
    pub patients: Arc<PatientIndex>,
    /// Documents.
    pub records: Records,
    /// Taking in.
    pub intake: Arc<Intake>,
    /// Choices.
    pub policies: Arc<Policies>,
    /// Audit log.
    pub audit: Arc<AuditLog>,
    /// Whose log it is.
    pub log_identity: LogIdentity,
    /// Accounts.
    pub accounts: Arc<Accounts>,
    /// The custodian's side.
    pub custodian: Custodian,
    /// Own documents for own users.
    pub local: Local,
    /// FHIR in.
    pub fhir: FhirIntake,
    /// DICOM in.
    pub dicom: DicomIntake,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// The node's key.
    pub signer: Key,
    /// Raised when a store fails.
    pub alarm: Alarm,
    door: Door,
}

/// What a running node has beside its trade.
#[derive(Clone)]
pub struct Region {
    /// Control channels.
    pub peers: Peers,
    /// Who of the members shows signs of life.
    pub attention: Attention,
    /// The index.
    pub index: IndexHandle,
    /// Publication.
    pub publisher: Publisher,
    /// Finding.
    pub finder: Finder,
    /// Asking custodians.
    pub fanout: Arc<Fanout>,
    /// Fetching.
    pub retriever: Retriever,
    /// Answering.
    pub server: Arc<Server>,
    /// Where a newer registry is announced.
    pub announce: Arc<watch::Sender<Arc<Registry>>>,
    /// Certificate and key in use.
    pub identity: Arc<IdentityCell>,
    /// What the node knows about its own trust.
    pub board: Arc<Board>,
    /// Token keys.
    pub tokens: TokenSide,
}

/// What ends with the node.
pub struct Running {
    /// Requests of other nodes.
    pub inbound: mpsc::Receiver<InboundRequest>,
    /// Bulk lane; none when the node only dials out.
    pub listener: Option<LaneListener>,
    /// The index's own thread.
    pub driver: JoinHandle<Result<(), IndexError>>,
}

fn open_fault(error: &OpenError) -> Fault {
    let exit = match error {
        OpenError::Busy { .. } => Exit::Busy,
        OpenError::Damaged { .. } => Exit::Integrity,
        _ => Exit::Failed,
    };
    Fault::new(
        exit,
        "The store cannot be opened.",
        chain(error),
        "Do what the reason says, then start again.",
    )
}

fn broken<E: std::error::Error>(what: &'static str) -> impl FnOnce(E) -> Fault {
    Fault::because(
        Exit::Integrity,
        what,
        "Restore the node from a backup; the log tells more.",
    )
}

fn failed<E: std::error::Error>(what: &'static str) -> impl FnOnce(E) -> Fault {
    Fault::because(Exit::Failed, what, "Check the addresses in the configuration.")
}

/// The registry that was last taken, verified against the region's root.
pub fn held_registry(home: &Home, membership: &Membership) -> Outcome<Registry> {
    let fix = "Run `hie join` again with a new invitation.";
    let chain = std::fs::read_to_string(home.node_certificate()).map_err(Fault::because(
        Exit::Config,
        "The node's certificate cannot be read.",
        fix,
    ))?;
    let chain = pem::read_all(pem::CERTIFICATE, &chain).map_err(Fault::because(
        Exit::Config,
        "The node's certificate cannot be read.",
        fix,
    ))?;
    let root = chain.last().cloned().unwrap_or_default();
    if hie_node_pki::x509::fingerprint(&root) != membership.fingerprint()? {
        return Err(Fault::new(
            Exit::Refused,
            "The region's root is not the one that was joined.",
            "its fingerprint differs",
            fix,
        ));
    }
    crate::registry::load(home, &root).map(|(registry, _)| registry)
}

/// The keys under which the organisation's log may be signed: this node's first, then those of its other nodes, which
/// had the store before or have it after.
fn signing_keys(registry: &Registry, signer: &Key) -> Vec<PublicKey> {
    let mut keys = vec![signer.public()];
    let member = registry.node(&signer.node_key()).map(|(member, _)| member);
    let others = member.into_iter().flat_map(|member| &member.nodes);
    keys.extend(others.map(|node| node.public).filter(|key| *key != signer.public()));
    keys
}

/// The folder behind links: two nodes that share it lock it under one name. A folder that is not there yet has no other.
fn real(folder: PathBuf) -> PathBuf {
    let parent = folder.parent().and_then(|parent| parent.canonicalize().ok());
    let found = parent.zip(folder.file_name()).map(|(parent, name)| parent.join(name));
    found.unwrap_or(folder)
}

/// Opens everything that needs no other node.
pub fn trade(home: &Home, config: &Config) -> Outcome<(Trade, watch::Sender<Arc<Registry>>)> {
    let membership = Membership::load(home)?;
    let registry = held_registry(home, &membership)?;
    let signer = Key::load(&home.node_key()).map_err(Fault::because(
        Exit::Config,
        "The node's key cannot be read.",
        "Restore it.",
    ))?;
    let signing = signing_keys(&registry, &signer);
    let (announce, view) = watch::channel(Arc::new(registry));
    let kek = std::fs::read(home.kek()).map_err(Fault::because(
        Exit::Config,
        "The store's key cannot be read.",
        "Restore secrets/kek.",
    ))?;
    let kek = Kek::from_file_content(&kek).map_err(Fault::because(
        Exit::Config,
        "The store's key cannot be read.",
        "Restore secrets/kek.",
    ))?;
    let kv: Arc<dyn Kv> = Arc::new(RocksStore::open(&real(home.store())).map_err(|error| open_fault(&error))?);
    let contents: Arc<dyn ContentStore> = Arc::new(
        ObjectContents::open_directory(&home.content()).map_err(broken("The content store cannot be opened."))?,
    );
    let clock: Arc<dyn Clock> = Arc::new(System);
    let random: Arc<dyn Random> = Arc::new(OsRandom::new());
    let vault =
        Vault::open(&kek, Arc::clone(&kv), Arc::clone(&random)).map_err(broken("The store cannot be unsealed."))?;
    let vault = Arc::new(vault);
    let me = membership.organisation.clone();
    let log_identity = LogIdentity {
        org: me.clone(),
        keys: signing,
    };
    let node_signer: Arc<dyn hie_node_core::ports::NodeSigner> = Arc::new(signer.clone());
    let audit = AuditLog::open(
        &log_identity,
        Arc::clone(&node_signer),
        Arc::clone(&kv),
        Arc::clone(&vault),
    )
    .map_err(broken("The audit log does not verify; the node does not run."))?;
    let audit = Arc::new(audit);
    let patients = Arc::new(PatientIndex::new(
        Arc::clone(&kv),
        Arc::clone(&vault),
        Arc::clone(&random),
    ));
    let resolve = Arc::new(resolver(view.clone()));
    let policies = Policies::new(
        Arc::clone(&kv),
        Arc::clone(&vault),
        Arc::clone(&random),
        Arc::clone(&audit),
        resolve,
    );
    let policies = Arc::new(policies);
    let records = Records::new(Arc::clone(&kv), Arc::clone(&vault));
    let intake = Intake::new(
        records.clone(),
        Arc::clone(&patients),
        Arc::clone(&contents),
        Arc::clone(&audit),
        Arc::clone(&random),
    );
    let intake = Arc::new(intake);
    let summaries = Arc::new(Summary {
        name: config.node.name.clone(),
        organisation: me.clone(),
    });
    let door = Door::new(
        records.clone(),
        contents,
        Arc::clone(&patients),
        Arc::clone(&policies),
        summaries,
        Arc::clone(&clock),
    );
    let custodian = Custodian {
        me: me.clone(),
        patients: Arc::clone(&patients),
        records: records.clone(),
        policies: Arc::clone(&policies),
        audit: Arc::clone(&audit),
        signer: node_signer,
        registry: view.clone(),
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
        tickets: Arc::new(Tickets::default()),
    };
    let accounts = Accounts::open(Arc::clone(&kv), Arc::clone(&vault), Arc::clone(&random));
    let accounts = Arc::new(accounts.map_err(broken("The accounts cannot be opened."))?);
    let name = config.node.name.clone();
    let alarm = Alarm::default();
    let fhir = FhirIntake {
        alarm: alarm.clone(),
        intake: Arc::clone(&intake),
        organisation: me.clone(),
        name: name.clone(),
    };
    let dicom = DicomIntake {
        alarm: alarm.clone(),
        intake: Arc::clone(&intake),
        records: records.clone(),
        patients: Arc::clone(&patients),
        organisation: me.clone(),
        name: name.clone(),
        turns: Arc::new(Turns::new()),
    };
    let local = Local::new(custodian.clone(), door.clone());
    let trade = Trade {
        me,
        name,
        registry: view,
        kv,
        vault,
        patients,
        records,
        intake,
        policies,
        audit,
        log_identity,
        accounts,
        custodian,
        local,
        fhir,
        dicom,
        clock,
        random,
        signer,
        alarm,
        door,
    };
    Ok((trade, announce))
}

/// Finds an organisation by what a FHIR reference says: an OID URN, or a member's name.
fn resolver(view: RegistryView) -> impl Fn(&str) -> Option<OrgId> + Send + Sync {
    move |text| {
        let bare = text.trim().trim_start_matches("Organization/");
        if let Ok(org) = OrgId::parse(bare) {
            return Some(org);
        }
        let registry = view.borrow();
        let found = registry
            .members
            .iter()
            .find(|member| member.name.eq_ignore_ascii_case(bare));
        found.map(|member| member.org.clone())
    }
}

/// Counts what the index says of members.
fn notice(ledger: Ledger) -> driver::Notice {
    Arc::new(move |org, what| {
        let offence = match what {
            Misbehaviour::Forged => Offence::Forged,
            _ => Offence::Unasked,
        };
        ledger.count(org, offence, System.now());
    })
}

/// Certificate and key as joined.
pub fn identity(home: &Home, signer: &Key) -> Outcome<NodeIdentity> {
    let fix = "Run `hie join` again with a new invitation.";
    let text = std::fs::read_to_string(home.node_certificate()).map_err(Fault::because(
        Exit::Config,
        "The node's certificate cannot be read.",
        fix,
    ))?;
    let chain = pem::read_all(pem::CERTIFICATE, &text).map_err(Fault::because(
        Exit::Config,
        "The node's certificate cannot be read.",
        fix,
    ))?;
    NodeIdentity::new(signer.clone(), chain).map_err(Fault::because(
        Exit::Config,
        "The node's certificate cannot be used.",
        fix,
    ))
}

/// Counts the records held here for an owner, while this node is an index holder.
fn held_counter(me: OrgId, kv: Arc<dyn Kv>, registry: RegistryView) -> budget::Held {
    Arc::new(move |owner| {
        let holds = {
            let registry = registry.borrow();
            let mut holders = registry.with_role(MemberRole::IndexHolder);
            holders.any(|member| member.org == me)
        };
        let count = holds.then(|| kv.get(Table::HeldByOwnerCount, owner.as_str().as_bytes()));
        let count = count?.inspect_err(|error| tracing::warn!(%error, "the records of an owner cannot be counted"));
        let count = count.ok()?.and_then(|bytes| bytes.try_into().ok());
        Some(count.map_or(0, u64::from_be_bytes))
    })
}

/// Starts the channels and joins the trade to the region.
pub async fn region(
    home: &Home,
    config: &Config,
    trade: &Trade,
    announce: watch::Sender<Arc<Registry>>,
) -> Outcome<(Region, Running)> {
    let registry = Arc::clone(&trade.registry.borrow());
    let identity = Arc::new(IdentityCell::new(identity(home, &trade.signer)?));
    let members = MemberCertificates::from_registry(&registry).map_err(Fault::because(
        Exit::Refused,
        "The registry's certificates cannot be used.",
        "Ask the region office.",
    ))?;
    let trust = Trust::new(
        Arc::clone(&identity),
        Arc::new(MembershipCell::new(members)),
        Arc::new(System),
    );
    let listen = (!config.peers.outbound_only).then_some(config.peers.control);
    let (peers, inbound) = Peers::start(PeerConfig {
        listen,
        trust: Arc::clone(&trust),
        keep_connected: true,
        versions: config.peers.spoken(),
    })
    .await
    .map_err(failed("The control channel cannot be opened."))?;
    let attention = Attention::new(Arc::new(WirePort::new(peers.clone(), trade.registry.clone())));
    let wire: Arc<dyn Wire> = Arc::new(attention.clone());
    let lanes = LaneClient::new(Arc::clone(&trust), Some(peers.clone()))
        .map_err(failed("The bulk lane cannot be prepared."))?;
    let lanes = Arc::new(LanesPort::new(lanes, peers.clone(), trade.registry.clone()));
    let node_signer = Arc::clone(&trade.custodian.signer);
    let sequencer = Sequencer::open(Arc::clone(&trade.kv)).map_err(failed("The sequences cannot be read."))?;
    let sequencer = Arc::new(sequencer);
    let parts = driver::Parts {
        me: trade.me.clone(),
        registry: (*registry).clone(),
        kv: Arc::clone(&trade.kv),
        signer: Arc::clone(&node_signer),
        sequencer: Arc::clone(&sequencer),
        clock: Arc::clone(&trade.clock),
        wire: Arc::clone(&wire),
        runtime: tokio::runtime::Handle::current(),
        notice: notice(peers.ledger().clone()),
    };
    let (index_driver, index) = Driver::new(parts, &*trade.random).map_err(failed("The index cannot be restored."))?;
    let driver = std::thread::Builder::new()
        .name("index".into())
        .spawn(move || index_driver.run())
        .map_err(failed("The index cannot be started."))?;
    let keyring = Keyring::open(Arc::clone(&trade.kv), Arc::clone(&trade.vault))
        .map_err(broken("The shares of the token key cannot be opened."))?;
    let keyring = Arc::new(keyring);
    import_share(home, &keyring, &registry, &trade.me)?;
    let watch = Arc::new(Watch::default());
    let held = held_counter(trade.me.clone(), Arc::clone(&trade.kv), trade.registry.clone());
    let budgets = Budgets::new(Arc::clone(&trade.kv), Arc::clone(&trade.vault), held, config.budgets);
    let parts = authority::Parts {
        me: trade.me.clone(),
        keyring: Arc::clone(&keyring),
        registry: trade.registry.clone(),
        audit: Arc::clone(&trade.audit),
        budgets: Arc::new(budgets),
        watch: Arc::clone(&watch),
        clock: Arc::clone(&trade.clock),
        random: Arc::clone(&trade.random),
    };
    let authority = Arc::new(Authority::new(parts.clone()));
    let token_side = TokenSide {
        keyring,
        authority: Arc::clone(&authority),
        watch: Arc::clone(&watch),
        seat: Arc::new(Seat::new(parts, Arc::clone(&wire))),
        retoken: Retoken::new(Arc::clone(&trade.kv), trade.registry.clone(), Arc::clone(&trade.random)),
    };
    let claims = ClaimMaker::new(
        trade.me.clone(),
        Arc::clone(&node_signer),
        Arc::clone(&trade.clock),
        Arc::clone(&trade.random),
    );
    let board = Arc::new(Board::default());
    let claims = claims.gated(Arc::clone(&board) as _);
    let tokens = WireTokens::new(TokenParts {
        me: trade.me.clone(),
        wire: Arc::clone(&wire),
        registry: trade.registry.clone(),
        claims: claims.clone(),
        own: Some(Arc::clone(&authority)),
        audit: Arc::clone(&trade.audit),
        watch,
        clock: Arc::clone(&trade.clock),
        random: Arc::clone(&trade.random),
    });
    let tokens = Arc::new(tokens);
    let publisher = Publisher::new(worker::Parts {
        me: trade.me.clone(),
        kv: Arc::clone(&trade.kv),
        patients: Arc::clone(&trade.patients),
        records: trade.records.clone(),
        policies: Arc::clone(&trade.policies),
        states: LocatorStates::new(Arc::clone(&trade.kv), Arc::clone(&trade.vault)),
        authority: Arc::clone(&tokens) as _,
        index: index.clone(),
        signer: node_signer,
        sequencer,
        registry: trade.registry.clone(),
        clock: Arc::clone(&trade.clock),
        random: Arc::clone(&trade.random),
    });
    let finder = Finder {
        me: trade.me.clone(),
        patients: Arc::clone(&trade.patients),
        audit: Arc::clone(&trade.audit),
        tokens: Arc::new(Remembered::new(tokens, Arc::clone(&trade.clock))),
        index: index.clone(),
        registry: trade.registry.clone(),
        clock: Arc::clone(&trade.clock),
    };
    let gate = ClaimGate::new(trade.me.clone(), trade.registry.clone(), Arc::clone(&trade.clock));
    let server = Arc::new(Server::new(
        trade.custodian.clone(),
        gate,
        Some(authority),
        index.clone(),
    ));
    let lane = Arc::new(LanePort::new(
        Lane::new(trade.custodian.clone(), trade.door.clone()),
        peers.ledger().clone(),
    ));
    substream::start(&peers, Arc::clone(&lane) as _);
    let listener = match config.peers.outbound_only {
        true => None,
        false => Some(
            LaneListener::start(config.peers.bulk, trust, lane)
                .await
                .map_err(failed("The bulk lane cannot be opened."))?,
        ),
    };
    let fanout = Fanout::new(finder.clone(), trade.custodian.clone(), wire, claims);
    let retriever = Retriever::new(
        trade.me.clone(),
        lanes,
        Arc::clone(&trade.audit),
        trade.registry.clone(),
        Arc::clone(&trade.clock),
    );
    let region = Region {
        peers,
        attention,
        index,
        publisher,
        finder,
        fanout: Arc::new(fanout),
        retriever,
        server,
        announce: Arc::new(announce),
        identity,
        board,
        tokens: token_side,
    };
    Ok((
        region,
        Running {
            inbound,
            listener,
            driver,
        },
    ))
}
