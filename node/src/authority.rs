//! The region authority: root key, members, invitations, and the registry that it signs.
//!
//! Its folder is its whole state; every change is made under the folder's lock, signed, written whole and
//! synced before anybody is told. The command line and the running server work on the same folder.

pub mod command;
pub mod enrol;
pub mod serve;
pub mod tokens;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use hie_node_pki::authority::{RegionAuthority, Revoked, SERIAL_BYTES, Validity};
use hie_node_pki::key::Key;
use hie_node_pki::pem;
use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::id::{ContentHash, Millis, NodeKey, OrgId, PublicKey};
use hie_protocol::oprf::key as oprf;
use hie_protocol::registry::{
    BreakGlassRules, ConsentModel, Member, MemberKind, MemberRole, NodeEntry, RegionPolicy, Registry, Standing,
    TokenAuthority, TokenParameters,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::fault::{Exit, Fault, Outcome};
use crate::home::write_private;

/// Largest state file, in bytes.
pub const STATE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Life of a member certificate, in milliseconds.
pub const CERTIFICATE_LIFE_MS: u64 = 90 * 86_400_000;
/// Life of a revocation list, in milliseconds: the outage of the authority that members survive.
pub const CRL_LIFE_MS: u64 = 14 * 86_400_000;
/// Life of the root certificate, in milliseconds.
pub const ROOT_LIFE_MS: u64 = 10 * 365 * 86_400_000;
/// Most open invitations and requests.
pub const OPEN_MAX: usize = 1000;
/// A day, in milliseconds.
pub const DAY_MS: u64 = 86_400_000;

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Serial number.
    pub serial: Bytes,
    /// Whose.
    pub org: OrgId,
    /// Node.
    pub node: NodeKey,
    /// End of validity.
    pub until: Millis,
    /// When it was revoked.
    pub revoked: Option<Millis>,
}

/// An invitation as the authority remembers it: the secret only as its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// SHA-256 of the secret.
    pub secret: ContentHash,
    /// Organisation.
    pub org: OrgId,
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: MemberKind,
    /// Roles.
    pub roles: Vec<MemberRole>,
    /// Phone.
    pub phone: Option<String>,
    /// End.
    pub expires: Millis,
    /// Request that used it.
    pub used: Option<u64>,
}

/// Where a request stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Nobody decided yet.
    Waiting,
    /// Approved: the certificate chain as DER.
    Approved(Vec<Bytes>),
    /// Rejected.
    Rejected,
}

/// A request to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// Number.
    pub id: u64,
    /// The invitation's secret hash.
    pub secret: ContentHash,
    /// PKCS#10 request, DER.
    pub csr: Bytes,
    /// Node key of the request.
    pub node: NodeKey,
    /// Raw public key of the request.
    pub public: PublicKey,
    /// Addresses: control and bulk.
    pub control: Option<String>,
    /// Bulk lane.
    pub bulk: Option<String>,
    /// Decision.
    pub decision: Decision,
}

/// Everything the authority remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `host:port` under which members reach the authority.
    pub address: String,
    /// The registry in force.
    pub registry: Registry,
    /// Its signed form.
    pub signed: Bytes,
    /// Number of the last revocation list.
    pub crl_number: u64,
    /// Certificates.
    pub issued: Vec<Issued>,
    /// Invitations.
    pub invited: Vec<Invited>,
    /// Requests.
    pub requested: Vec<Requested>,
    /// Shares of the token key that no member has yet, by index.
    pub shares: Vec<(u16, Bytes)>,
    /// All points of the shares.
    pub points: Vec<(u16, PublicKey)>,
    /// Which share went to whom.
    pub dealt: Vec<(u16, OrgId)>,
}

/// An authority's folder, locked while this value lives.
pub struct Authority {
    folder: PathBuf,
    _lock: File,
    signer: Key,
    /// Root key and certificate.
    pub root: RegionAuthority,
    /// State; call [`Authority::save`] after a change.
    pub state: State,
}

/// What `init` needs.
pub struct RegionOptions {
    /// Name.
    pub name: String,
    /// Default consent model.
    pub consent: ConsentModel,
    /// Address.
    pub address: String,
    /// Threshold of the token key.
    pub token_threshold: u16,
    /// Number of its shares.
    pub token_authorities: u16,
}

/// Random bytes from the system.
pub fn random<const N: usize>() -> Outcome<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        Fault::new(
            Exit::Failed,
            "No random numbers.",
            "the system's source failed",
            "Check the system.",
        )
    })?;
    Ok(bytes)
}

fn lock(folder: &Path) -> Outcome<File> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Fault::because(
            Exit::Failed,
            &format!("Cannot open {}.", folder.display()),
            "Name the authority's folder with --dir; `hie authority init` makes one.",
        ))?;
    file.lock().map_err(Fault::because(
        Exit::Busy,
        "The authority's folder is in use.",
        "Wait, or stop the other program.",
    ))?;
    Ok(file)
}

impl Authority {
    /// Makes a region in an empty folder.
    pub fn init(folder: &Path, options: RegionOptions, now: Millis) -> Outcome<Self> {
        if folder.join("state.cbor").exists() {
            return Err(Fault::new(
                Exit::Refused,
                format!("{} already holds a region.", folder.display()),
                "its root key must not be overwritten",
                "Choose another folder.",
            ));
        }
        std::fs::create_dir_all(folder).map_err(Fault::because(
            Exit::Failed,
            "Cannot make the folder.",
            "Check the path.",
        ))?;
        let lock = lock(folder)?;
        let broken = |what: &str| format!("Cannot make the region: {what}.");
        let key = Key::generate(&SystemRandom::new()).map_err(Fault::because(
            Exit::Failed,
            &broken("root key"),
            "Report this.",
        ))?;
        let validity = Validity {
            not_before: Millis(now.0.saturating_sub(DAY_MS)),
            not_after: now.plus(ROOT_LIFE_MS),
        };
        let root = RegionAuthority::create(key.clone(), &options.name, validity, random::<SERIAL_BYTES>()?).map_err(
            Fault::because(Exit::Failed, &broken("root certificate"), "Report this."),
        )?;
        let state = first_state(options, root.root(), now)?;
        key.save(&folder.join("root.key")).map_err(Fault::because(
            Exit::Failed,
            "Cannot write the root key.",
            "Check space and permissions.",
        ))?;
        write_private(
            &folder.join("root.pem"),
            pem::write(pem::CERTIFICATE, root.root()).as_bytes(),
        )
        .map_err(Fault::because(
            Exit::Failed,
            "Cannot write the root certificate.",
            "Check space and permissions.",
        ))?;
        let mut authority = Self {
            folder: folder.to_owned(),
            _lock: lock,
            signer: key,
            root,
            state,
        };
        authority.publish(now)?;
        Ok(authority)
    }

    /// Opens a region's folder, waiting for its lock.
    pub fn open(folder: &Path) -> Outcome<Self> {
        let lock = lock(folder)?;
        let fix = "Restore the folder from a backup, or name the right one with --dir.";
        let read = |name: &str| {
            std::fs::read(folder.join(name)).map_err(Fault::because(Exit::Config, &format!("Cannot read {name}."), fix))
        };
        let state: State = cbor::decode(&read("state.cbor")?, STATE_BYTES_MAX).map_err(Fault::because(
            Exit::Integrity,
            "The authority's state cannot be read.",
            fix,
        ))?;
        let key = Key::load(&folder.join("root.key")).map_err(Fault::because(
            Exit::Integrity,
            "The root key cannot be read.",
            fix,
        ))?;
        let certificate = String::from_utf8(read("root.pem")?).map_err(Fault::because(
            Exit::Integrity,
            "The root certificate cannot be read.",
            fix,
        ))?;
        let certificate = pem::read(pem::CERTIFICATE, &certificate).map_err(Fault::because(
            Exit::Integrity,
            "The root certificate cannot be read.",
            fix,
        ))?;
        let root = RegionAuthority::open(key.clone(), certificate).map_err(Fault::because(
            Exit::Integrity,
            "The root key cannot be used.",
            fix,
        ))?;
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
            signer: key,
            root,
            state,
        })
    }

    /// Writes the state durably.
    pub fn save(&self) -> Outcome<()> {
        let bytes = cbor::encode(&self.state).map_err(Fault::because(
            Exit::Failed,
            "The state cannot be encoded.",
            "Report this.",
        ))?;
        write_private(&self.folder.join("state.cbor"), &bytes).map_err(Fault::because(
            Exit::Failed,
            "Cannot write the state.",
            "Check space and permissions.",
        ))
    }

    /// Signs a new version of the registry with a fresh revocation list, and saves.
    pub fn publish(&mut self, now: Millis) -> Outcome<()> {
        self.state.crl_number = self.state.crl_number.saturating_add(1);
        let revoked: Vec<Revoked> = self
            .state
            .issued
            .iter()
            .filter_map(|issued| {
                let at = issued.revoked?;
                Some(Revoked {
                    serial: issued.serial.0.clone(),
                    at,
                    compromised: true,
                })
            })
            .collect();
        let validity = Validity {
            not_before: Millis(now.0.saturating_sub(DAY_MS)),
            not_after: now.plus(CRL_LIFE_MS),
        };
        let crl = self
            .root
            .revocation_list(&revoked, self.state.crl_number, validity)
            .map_err(Fault::because(
                Exit::Failed,
                "Cannot sign the revocation list.",
                "Report this.",
            ))?;
        let registry = &mut self.state.registry;
        registry.version = registry.version.saturating_add(1);
        registry.issued = now;
        registry.crl = crl;
        registry.members.sort_by(|left, right| left.org.cmp(&right.org));
        let signed = registry.sign(&self.signer).map_err(Fault::because(
            Exit::Failed,
            "Cannot sign the registry.",
            "Check the last change.",
        ))?;
        self.state.signed = Bytes(signed);
        self.save()
    }

    /// Revokes a member: its certificates, its standing. Takes effect with the registry published here.
    pub fn revoke(&mut self, org: &OrgId, now: Millis) -> Outcome<()> {
        let member = self
            .state
            .registry
            .members
            .iter_mut()
            .find(|member| member.org == *org)
            .ok_or_else(|| {
                Fault::new(
                    Exit::Usage,
                    format!("{org} is not a member."),
                    "the registry does not list it",
                    "See `hie authority list`.",
                )
            })?;
        member.standing = Standing::Revoked(now);
        for issued in self
            .state
            .issued
            .iter_mut()
            .filter(|issued| issued.org == *org && issued.revoked.is_none())
        {
            issued.revoked = Some(now);
        }
        self.publish(now)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds or renews a member's node in the registry.
    fn admit(&mut self, invited: &Invited, request: &Requested) {
        let node = NodeEntry {
            key: request.node,
            public: request.public,
            control: request.control.clone(),
            bulk: request.bulk.clone(),
            relays: Vec::new(),
        };
        let mut roles = invited.roles.clone();
        roles.sort();
        roles.dedup();
        let members = &mut self.state.registry.members;
        if let Some(member) = members.iter_mut().find(|member| member.org == invited.org) {
            member.nodes.retain(|known| known.key != node.key);
            member.nodes.push(node);
            member.standing = Standing::Active;
        } else {
            members.push(Member {
                org: invited.org.clone(),
                name: invited.name.clone(),
                kind: invited.kind,
                nodes: vec![node],
                roles: roles.clone(),
                standing: Standing::Active,
                phone: invited.phone.clone(),
                term: 0,
            });
        }
        let dealt = self.state.dealt.iter().any(|(_, org)| *org == invited.org);
        if roles.contains(&MemberRole::TokenAuthority) && !dealt {
            let taken: Vec<u16> = self.state.dealt.iter().map(|(index, _)| *index).collect();
            let free = self
                .state
                .points
                .iter()
                .find(|(index, _)| !taken.contains(index))
                .copied();
            if let Some((index, point)) = free {
                self.state.dealt.push((index, invited.org.clone()));
                let authority = TokenAuthority {
                    index,
                    org: invited.org.clone(),
                    point,
                };
                self.state.registry.policy.tokens.authorities.push(authority);
            }
        }
    }
}

/// The state of a region without members.
fn first_state(options: RegionOptions, root: &[u8], now: Millis) -> Outcome<State> {
    let seed = random::<64>()?;
    let mut fill = filler(seed);
    let (group, shares) =
        oprf::deal(options.token_threshold, options.token_authorities, &mut fill).map_err(Fault::because(
            Exit::Usage,
            "Cannot make the region: token key.",
            "Check --token-threshold and --token-authorities.",
        ))?;
    let points = group
        .shares()
        .iter()
        .map(|share| (share.index(), PublicKey::new(*share.point())))
        .collect();
    let policy = RegionPolicy {
        consent: options.consent,
        break_glass: BreakGlassRules {
            allowed: true,
            minutes: 60,
            tell_withheld: true,
        },
        replicas: 3,
        write_quorum: 2,
        record_life_ms: 14 * DAY_MS,
        tombstone_life_ms: 45 * DAY_MS,
        tokens: TokenParameters {
            profile: "norm-1".into(),
            epoch: 1,
            threshold: options.token_threshold,
            authorities: Vec::new(),
            resharing: None,
            beside: None,
        },
        officers: None,
    };
    let registry = Registry {
        region: options.name,
        version: 0,
        issued: now,
        root: root.to_vec(),
        crl: Vec::new(),
        members: Vec::new(),
        policy,
    };
    Ok(State {
        address: options.address,
        registry,
        signed: Bytes::default(),
        crl_number: 0,
        issued: Vec::new(),
        invited: Vec::new(),
        requested: Vec::new(),
        shares: shares
            .iter()
            .map(|share| (share.index(), Bytes(share.to_bytes().to_vec())))
            .collect(),
        points,
        dealt: Vec::new(),
    })
}

/// A source of bytes for key dealing, expanded from a random seed by HKDF in counter blocks.
fn filler(seed: [u8; 64]) -> impl FnMut(&mut [u8]) {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA512, &seed);
    let mut counter = 0_u64;
    move |out: &mut [u8]| {
        for chunk in out.chunks_mut(64) {
            counter = counter.wrapping_add(1);
            let block = ring::hmac::sign(&key, &counter.to_be_bytes());
            for (to, from) in chunk.iter_mut().zip(block.as_ref()) {
                *to = *from;
            }
        }
    }
}
