//! `hie init` and `hie join`: identity, configuration, enrolment; and taking newer registries from the authority.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hie_node_core::exchange::budget::Allowance;
use hie_node_core::ports::OsRandom;
use hie_node_core::vault::Kek;
use hie_node_pki::config as tls;
use hie_node_pki::csr;
use hie_node_pki::key::Key;
use hie_node_pki::pem;
use hie_node_pki::x509;
use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::charter::Handed;
use hie_protocol::id::{ContentHash, OrgId, PublicKey};
use hie_protocol::invitation::Invitation;
use hie_protocol::registry::{REGISTRY_BYTES_MAX, Registry};
use hie_protocol::words::check_words;
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::authority::enrol::{Admission, EnrolAnswer, EnrolRequest, sha256};
use crate::cli::arguments::{Init, Join};
use crate::cli::output::Output;
use crate::clock;
use crate::config::{Config, NodeSection, PeersSection, WebSection};
use crate::fault::{Exit, Fault, Outcome};
use crate::home::{Home, write_private};

/// Largest answer of the authority, in bytes.
pub const ANSWER_BYTES_MAX: usize = 2 * REGISTRY_BYTES_MAX;
/// How often a waiting request is asked after.
pub const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Deadline of one exchange with the authority.
pub const EXCHANGE_DEADLINE: Duration = Duration::from_secs(40);
/// Largest invitation file, in bytes.
pub const INVITATION_BYTES_MAX: usize = 8192;

/// Whether the authority may hold a question open until it has something newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It may.
    Long,
    /// It answers at once.
    None,
}

const CLIENT_FAILED: &str = "Cannot make the client for the region authority.";

/// What joining learnt, kept beside the identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// The region's name.
    pub region: String,
    /// SHA-256 of the root certificate, hex.
    pub root: String,
    /// `host:port` of the authority.
    pub authority: String,
    /// This organisation.
    pub organisation: OrgId,
}

impl Membership {
    /// Reads what `join` wrote.
    pub fn load(home: &Home) -> Outcome<Self> {
        let fix = "Run `hie join <invitation>`.";
        let bytes = std::fs::read(home.membership()).map_err(Fault::because(
            Exit::Config,
            "This node has not joined a region.",
            fix,
        ))?;
        serde_json::from_slice(&bytes).map_err(Fault::because(Exit::Config, "The membership file cannot be read.", fix))
    }

    /// The root fingerprint. Errors: a broken file.
    pub fn fingerprint(&self) -> Outcome<[u8; 32]> {
        ContentHash::from_hex(&self.root)
            .map(|hash| *hash.as_bytes())
            .map_err(Fault::because(
                Exit::Config,
                "The membership file is broken.",
                "Run `hie join` again.",
            ))
    }
}

/// Reads organisation ids from the command line, in their order and once each.
fn relays(texts: &[String]) -> Outcome<Vec<OrgId>> {
    let mut relays = Vec::with_capacity(texts.len());
    for text in texts {
        relays.push(crate::authority::command::organisation(text)?);
    }
    relays.sort();
    relays.dedup();
    Ok(relays)
}

/// The configuration that the options of `hie init` say, as text that reads back without a fault.
fn first_config(init: Init) -> Outcome<String> {
    let config = Config {
        node: NodeSection {
            name: init.name,
            organisation: None,
        },
        web: WebSection {
            listen: init.web,
            base: None,
            plain: init.plain,
            certificate_file: None,
            key_file: None,
        },
        peers: PeersSection {
            control: init.control,
            bulk: init.bulk,
            host: init.host,
            outbound_only: init.outbound_only,
            relays: relays(&init.relays)?,
            versions: None,
        },
        budgets: Allowance::default(),
    };
    let text = config.to_toml()?;
    Config::parse(&text, std::iter::empty()).map_err(|faults| {
        Fault::new(
            Exit::Usage,
            "These options do not fit together.",
            faults.join("; "),
            "See `hie init --help`.",
        )
    })?;
    Ok(text)
}

/// Runs `hie init`.
pub fn init(home: &Home, init: Init, output: &Output) -> Outcome<Exit> {
    if home.config().exists() || home.node_key().exists() {
        return Err(Fault::new(
            Exit::Refused,
            format!("{} already holds a node.", home.root().display()),
            "its key must not be overwritten",
            "Choose another folder with --home.",
        ));
    }
    home.create().map_err(Fault::because(
        Exit::Failed,
        "Cannot make the node's folder.",
        "Check --home and its permissions.",
    ))?;
    let text = first_config(init)?;
    let write = |path: &Path, bytes: &[u8]| {
        write_private(path, bytes).map_err(Fault::because(
            Exit::Failed,
            &format!("Cannot write {}.", path.display()),
            "Check space and permissions.",
        ))
    };
    let key = Key::generate(&SystemRandom::new()).map_err(Fault::because(
        Exit::Failed,
        "Cannot make the node's key.",
        "Report this.",
    ))?;
    key.save(&home.node_key()).map_err(Fault::because(
        Exit::Failed,
        "Cannot write the node's key.",
        "Check space and permissions.",
    ))?;
    let kek = Kek::generate(&OsRandom::new()).map_err(Fault::because(
        Exit::Failed,
        "Cannot make the store's key.",
        "Report this.",
    ))?;
    write(&home.kek(), kek.to_file_content().as_bytes())?;
    write(&home.config(), text.as_bytes())?;
    output.say(format!(
        "Made key and identity   {}      (private key never leaves this machine)",
        home.identity().display()
    ));
    output.say(format!("Wrote config            {}", home.config().display()));
    output.say(format!(
        "Keep a copy of          {}      (without it the store cannot be read)",
        home.kek().display()
    ));
    output.say("Next: hie join hie-inv1-...   (ask your region office for an invitation)");
    output.data(
        "Made",
        &json!({ "home": home.root().display().to_string(), "node": key.node_key().to_hex() }),
    );
    Ok(Exit::Done)
}

/// Runs `hie join`.
pub async fn join(home: &Home, join: Join, output: &Output) -> Outcome<Exit> {
    let mut config = Config::load(home)?;
    let invitation = read_invitation(&join.invitation)?;
    let key = Key::load(&home.node_key()).map_err(Fault::because(
        Exit::Config,
        "The node's key cannot be read.",
        "Run `hie init` first.",
    ))?;
    let organisation = crate::authority::command::organisation(invitation.organisation())?;
    let request = csr::make(&key, &organisation).map_err(Fault::because(
        Exit::Failed,
        "Cannot make the certificate request.",
        "Report this.",
    ))?;
    output.say(format!(
        "Region   {}   root sha256 {}",
        invitation.region(),
        hex::encode(invitation.root_fingerprint())
    ));
    output.say(format!(
        "They will see   {}   {}",
        invitation.organisation_name(),
        check_words(key.node_key().as_bytes()).join(" ")
    ));
    let enrol = EnrolRequest {
        secret: Bytes(invitation.secret().to_vec()),
        csr: Bytes(request),
        control: dialled(&config.peers, config.peers.control),
        bulk: dialled(&config.peers, config.peers.bulk),
        relays: config.peers.relays.clone(),
    };
    let client = authority_client(*invitation.root_fingerprint())?;
    let admission = wait_for_admission(&client, &invitation, &enrol, join.wait, output).await?;
    let registry = accept(&admission, &invitation, &organisation, &key)?;
    store(home, &admission, &invitation, &organisation)?;
    config.node.organisation = Some(organisation.clone());
    write_private(&home.config(), config.to_toml()?.as_bytes()).map_err(Fault::because(
        Exit::Failed,
        "Cannot write the configuration.",
        "Check space and permissions.",
    ))?;
    let members = registry.active().count();
    output.say(format!("Approved. The region has {members} member(s)."));
    output.data(
        format!("Joined {}. Next: hie serve", invitation.region()),
        &json!({ "region": invitation.region(), "organisation": organisation.as_str(), "members": members }),
    );
    Ok(Exit::Done)
}

/// Where others dial this node; nowhere when it only dials out itself.
fn dialled(peers: &PeersSection, listen: std::net::SocketAddr) -> Option<String> {
    let host = peers.host.as_ref();
    let address = host.map_or_else(|| listen.to_string(), |host| format!("{host}:{}", listen.port()));
    (!peers.outbound_only).then_some(address)
}

fn read_invitation(text: &str) -> Outcome<Invitation> {
    let fix = "Copy the whole invitation, or name its file.";
    let path = Path::new(text);
    let text = if text.starts_with("hie-inv1-") {
        text.to_owned()
    } else {
        let bytes = std::fs::read(path).map_err(Fault::because(Exit::Usage, "The invitation cannot be read.", fix))?;
        let fitting = Some(bytes).filter(|bytes| bytes.len() <= INVITATION_BYTES_MAX);
        let bytes = fitting.ok_or_else(|| {
            Fault::new(
                Exit::Usage,
                "The invitation is too long.",
                "it is not an invitation",
                fix,
            )
        })?;
        String::from_utf8(bytes).map_err(Fault::because(Exit::Usage, "The invitation is not text.", fix))?
    };
    let invitation =
        Invitation::parse(&text).map_err(Fault::because(Exit::Usage, "This is not a valid invitation.", fix))?;
    if invitation.is_expired(clock::now().0 / 1000) {
        return Err(Fault::new(
            Exit::Refused,
            "The invitation has ended.",
            "it is past its last day",
            "Ask the region office for a new one.",
        ));
    }
    Ok(invitation)
}

/// A client for the authority: TLS 1.3, chain to the root with that fingerprint.
pub fn authority_client(root: [u8; 32]) -> Outcome<reqwest::Client> {
    let config = tls::enrolment_client(root, Arc::new(clock::System)).map_err(Fault::because(
        Exit::Failed,
        CLIENT_FAILED,
        "Report this.",
    ))?;
    authority_caller(config)
}

/// A client for the authority over a TLS configuration.
pub(crate) fn authority_caller(config: Arc<rustls::ClientConfig>) -> Outcome<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(Arc::unwrap_or_clone(config))
        .timeout(EXCHANGE_DEADLINE)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(Fault::because(Exit::Failed, CLIENT_FAILED, "Report this."))
}

/// Body of an answer, bounded.
pub(crate) async fn body(mut answer: reqwest::Response) -> Outcome<Vec<u8>> {
    let what = "The region authority's answer could not be read.";
    let mut bytes = Vec::new();
    while let Some(chunk) = answer
        .chunk()
        .await
        .map_err(Fault::because(Exit::Unreachable, what, "Try again."))?
    {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(Fault::new(
                Exit::Refused,
                what,
                "it is larger than any answer may be",
                "Ask the region office.",
            ));
        }
    }
    Ok(bytes)
}

async fn wait_for_admission(
    client: &reqwest::Client,
    invitation: &Invitation,
    request: &EnrolRequest,
    wait_seconds: u64,
    output: &Output,
) -> Outcome<Admission> {
    let frame = cbor::encode(request).map_err(Fault::because(
        Exit::Failed,
        "Cannot encode the request.",
        "Report this.",
    ))?;
    let url = format!("https://{}/hie/enrol", invitation.address());
    let unreachable = "The region authority could not be reached.";
    let fix = "Check the network and the address in the invitation.";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait_seconds);
    let mut said = false;
    loop {
        let answer = client
            .post(&url)
            .body(frame.clone())
            .send()
            .await
            .map_err(Fault::because(Exit::Unreachable, unreachable, fix))?;
        if !answer.status().is_success() {
            let why = format!("it answered {}", answer.status());
            return Err(Fault::new(
                Exit::Refused,
                "The region authority refused the invitation.",
                why,
                "Ask the region office for a new one.",
            ));
        }
        let answer: EnrolAnswer = cbor::decode(&body(answer).await?, ANSWER_BYTES_MAX).map_err(Fault::because(
            Exit::Refused,
            "The region authority's answer is malformed.",
            "Ask the region office.",
        ))?;
        match answer {
            EnrolAnswer::Approved(admission) => return Ok(*admission),
            EnrolAnswer::Rejected => {
                return Err(Fault::new(
                    Exit::Refused,
                    "The region office rejected the request.",
                    "a person decided so",
                    "Call the region office.",
                ));
            }
            EnrolAnswer::Waiting(words) => {
                if !said {
                    output.say(format!(
                        "Waiting for {} to approve. They see: {}, {words}",
                        invitation.region(),
                        invitation.organisation_name()
                    ));
                    said = true;
                }
                if tokio::time::Instant::now() >= deadline {
                    return Err(Fault::new(
                        Exit::Unreachable,
                        "Not approved yet.",
                        "the region office has not decided",
                        "Run the same command again later.",
                    ));
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}

/// Checks that the admission is for this key, from the root of the invitation, and that the registry lists us.
fn accept(admission: &Admission, invitation: &Invitation, organisation: &OrgId, key: &Key) -> Outcome<Registry> {
    let distrust = |why: &str| {
        Fault::new(
            Exit::Refused,
            "The region authority's answer is not trusted.",
            why,
            "Ask the region office; do not go on.",
        )
    };
    let root = admission
        .chain
        .last()
        .ok_or_else(|| distrust("it has no certificate"))?;
    if sha256(&root.0).as_bytes() != invitation.root_fingerprint() {
        return Err(distrust("its root is not the root of the invitation"));
    }
    let authority = root_public(&root.0)?;
    let registry = Registry::verify(&admission.registry.0, authority, None).map_err(Fault::because(
        Exit::Refused,
        "The registry is not trusted.",
        "Ask the region office; do not go on.",
    ))?;
    let listed = registry
        .node(&key.node_key())
        .is_some_and(|(member, _)| member.org == *organisation);
    if listed {
        Ok(registry)
    } else {
        Err(distrust("the registry does not list this node"))
    }
}

/// The raw Ed25519 key of a root certificate.
pub fn root_public(root: &[u8]) -> Outcome<PublicKey> {
    let what = "The root certificate cannot be read.";
    let facts = x509::certificate(root).map_err(Fault::because(Exit::Refused, what, "Ask the region office."))?;
    facts
        .public
        .ok_or_else(|| Fault::new(Exit::Refused, what, "its key is not Ed25519", "Ask the region office."))
}

fn store(home: &Home, admission: &Admission, invitation: &Invitation, organisation: &OrgId) -> Outcome<()> {
    let membership = Membership {
        region: invitation.region().to_owned(),
        root: hex::encode(invitation.root_fingerprint()),
        authority: invitation.address().to_owned(),
        organisation: organisation.clone(),
    };
    if Membership::load(home).is_ok_and(|before| before.root != membership.root) {
        // Another region counts its registries anew.
        let _absent = std::fs::remove_file(home.registry_mark());
    }
    let text = serde_json::to_vec_pretty(&membership).map_err(Fault::because(
        Exit::Failed,
        "Cannot write the membership.",
        "Report this.",
    ))?;
    let chain: String = admission
        .chain
        .iter()
        .map(|certificate| pem::write(pem::CERTIFICATE, &certificate.0))
        .collect();
    let mut files = vec![
        (home.node_certificate(), chain.into_bytes()),
        (home.registry(), admission.registry.0.clone()),
    ];
    if let Some(share) = &admission.share {
        files.push((home.token_share(), hex::encode(&share.0).into_bytes()));
    }
    // The membership comes last: with it the node counts as joined.
    files.push((home.membership(), text));
    for (path, bytes) in files {
        write_private(&path, &bytes).map_err(Fault::because(
            Exit::Failed,
            &format!("Cannot write {}.", path.display()),
            "Check space and permissions.",
        ))?;
    }
    Ok(())
}

/// Asks the authority for a registry newer than `have`, with its approvals: none after its patience, or at once.
pub async fn newer_registry(
    client: &reqwest::Client,
    authority: &str,
    have: u64,
    patience: Patience,
) -> Outcome<Option<Handed>> {
    let now = patience == Patience::None;
    let url = format!("https://{authority}/hie/registry?have={have}&approvals=true&now={now}");
    let answer = client.get(url).send().await.map_err(Fault::because(
        Exit::Unreachable,
        "The region authority could not be reached.",
        "It is asked again by itself.",
    ))?;
    match answer.status().as_u16() {
        200 => {
            let bytes = body(answer).await?;
            let handed = cbor::decode(&bytes, ANSWER_BYTES_MAX).map_err(Fault::because(
                Exit::Refused,
                "The region authority's answer is malformed.",
                "Ask the region office.",
            ))?;
            Ok(Some(handed))
        }
        204 => Ok(None),
        status => Err(Fault::new(
            Exit::Unreachable,
            "The region authority failed.",
            format!("it answered {status}"),
            "It is asked again by itself.",
        )),
    }
}
