//! The region authority: root key, members, invitations, and the registry that it signs.
//!
//! Its folder is its whole state; every change is made under the folder's lock, signed, written whole and
//! synced before anybody is told. The command line and the running server work on the same folder.
//!
//! INVARIANT: every change that grants something goes through [`Authority::grant`] as a [`change::Change`], which waits
//! for the officers where the region has them; [`Authority::fell`] takes away at once. Both end in
//! [`Authority::publish`], which judges the new registry as every member will, and refuses what they would refuse.

pub mod change;
pub mod command;
pub mod enrol;
pub mod est;
pub mod office;
pub mod serve;
pub mod tokens;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use hie_node_pki::authority::{CRL_LIFE_MS, ROOT_LIFE_MS, RegionAuthority, Revoked, SERIAL_BYTES, Validity};
use hie_node_pki::key::Key;
use hie_node_pki::pem;
use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::charter::{Handed, Held, Verdict};
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
/// Life of a member certificate where `hie authority init` does not say otherwise, in days.
pub const CERTIFICATE_DAYS: u32 = 7;
/// Shortest and longest life of a member certificate, in days.
pub const CERTIFICATE_DAYS_ALLOWED: std::ops::RangeInclusive<u32> = 1..=90;
/// Life of the certificate of the authority's own server, in milliseconds; it is renewed when a third is left.
pub const SERVER_LIFE_MS: u64 = 30 * DAY_MS;
/// Age at which the revocation list is signed anew, in milliseconds. What is left of [`CRL_LIFE_MS`] is the outage of
/// the authority that members survive: 72 h at least.
pub const CRL_RENEW_MS: u64 = 12 * 60 * 60 * 1000;
/// Most hand-overs between officers that are kept for members who are behind.
pub const LINKS_MAX: usize = 256;
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
    /// The member's node that asked for a certificate with this new key; none for a new member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<NodeKey>,
    /// Addresses: control and bulk.
    pub control: Option<String>,
    /// Bulk lane.
    pub bulk: Option<String>,
    /// Members through which the node is reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<OrgId>,
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
    /// Life of member certificates, in days; 0 is [`CERTIFICATE_DAYS`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub certificate_days: u32,
    /// Officers' approvals of the charter in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Bytes>,
    /// Approvals count only when their lowest version is above this.
    #[serde(default, skip_serializing_if = "is_nil")]
    pub floor: u64,
    /// Registries in which the officers changed, with their versions, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<(u64, Handed)>,
    /// Changes that wait for officers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<change::Pending>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde calls")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde calls")]
const fn is_nil(value: &u64) -> bool {
    *value == 0
}

impl State {
    /// Life of member certificates, in milliseconds.
    pub fn certificate_life_ms(&self) -> u64 {
        let days = if self.certificate_days == 0 {
            CERTIFICATE_DAYS
        } else {
            self.certificate_days
        };
        u64::from(days).saturating_mul(DAY_MS)
    }

    /// What a member who has that version is given: the next hand-over between officers, or else the latest registry.
    pub fn handed(&self, have: u64) -> Option<Handed> {
        if self.registry.version <= have {
            return None;
        }
        let link = self.links.iter().find(|(version, _)| *version > have);
        Some(link.map_or_else(|| self.latest(), |(_, handed)| handed.clone()))
    }

    fn latest(&self) -> Handed {
        Handed {
            signed: self.signed.clone(),
            approvals: self.approvals.clone(),
        }
    }
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
    /// Life of member certificates, in days ([`CERTIFICATE_DAYS_ALLOWED`]).
    pub certificate_days: u32,
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
        if !CERTIFICATE_DAYS_ALLOWED.contains(&options.certificate_days) {
            return Err(Fault::new(
                Exit::Usage,
                "Certificates cannot live that long.",
                format!("{CERTIFICATE_DAYS_ALLOWED:?} days are allowed"),
                "Choose --certificate-days in these bounds.",
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

    /// Signs a new version of the registry with a fresh revocation list, judges it as members will, and saves.
    pub fn publish(&mut self, now: Millis) -> Outcome<()> {
        self.state.crl_number = self.state.crl_number.saturating_add(1);
        // Who is past its end is refused without a list.
        self.state.issued.retain(|issued| issued.until.plus(DAY_MS) > now);
        let revoked = self.state.issued.iter().filter_map(|issued| {
            Some(Revoked {
                serial: issued.serial.0.clone(),
                at: issued.revoked?,
                compromised: true,
            })
        });
        let validity = Validity {
            not_before: Millis(now.0.saturating_sub(DAY_MS)),
            not_after: now.plus(CRL_LIFE_MS),
        };
        let crl = self
            .root
            .revocation_list(&revoked.collect::<Vec<_>>(), self.state.crl_number, validity)
            .map_err(Fault::because(
                Exit::Failed,
                "Cannot sign the revocation list.",
                "Report this.",
            ))?;
        let before = (!self.state.signed.0.is_empty())
            .then(|| Registry::verify(&self.state.signed.0, self.root.public(), None))
            .transpose()
            .map_err(Fault::because(
                Exit::Integrity,
                "The registry in force cannot be read.",
                "Restore the authority's folder from a backup.",
            ))?;
        let registry = &mut self.state.registry;
        registry.version = registry.version.saturating_add(1);
        // INVARIANT: the time of a registry never goes back, even when this machine's clock does.
        registry.issued = now.max(registry.issued);
        registry.crl = crl;
        registry.members.sort_by(|left, right| left.org.cmp(&right.org));
        let signed = registry.sign(&self.signer).map_err(Fault::because(
            Exit::Failed,
            "Cannot sign the registry.",
            "Check the last change.",
        ))?;
        self.state.signed = Bytes(signed);
        if let Some(before) = before {
            self.judge(&before)?;
        }
        self.save()
    }

    /// Judges the new registry as a member that holds the one before; remembers a hand-over between officers.
    fn judge(&mut self, before: &Registry) -> Outcome<()> {
        let held = Held {
            registry: before,
            floor: self.state.floor,
        };
        let latest = self.state.latest();
        let verdict = held.judge(&latest, self.root.public()).map_err(Fault::because(
            Exit::Refused,
            "No member would take this registry.",
            "Let the officers approve the change.",
        ))?;
        if let Verdict::Newer { floor, hand_over, .. } = verdict {
            self.state.floor = floor;
            if hand_over {
                self.state.links.push((self.state.registry.version, latest));
                let over = self.state.links.len().saturating_sub(LINKS_MAX);
                self.state.links.drain(..over);
            }
        }
        Ok(())
    }

    /// Whether the revocation list is due to be signed anew.
    pub fn is_stale(&self, now: Millis) -> bool {
        now.since(self.state.registry.issued) >= CRL_RENEW_MS
    }

    /// Takes a member out, for now ([`Standing::Suspended`]) or for good ([`Standing::Revoked`], with its
    /// certificates). Holds at once, without officers.
    pub fn fell(&mut self, org: &OrgId, standing: Standing, now: Millis) -> Outcome<()> {
        let members = &mut self.state.registry.members;
        let member = members.iter_mut().find(|member| member.org == *org).ok_or_else(|| {
            Fault::new(
                Exit::Usage,
                format!("{org} is not a member."),
                "the registry does not list it",
                "See `hie authority list`.",
            )
        })?;
        let falls = match (member.standing, standing) {
            (Standing::Active, _) => true,
            (Standing::Suspended(_), to) => matches!(to, Standing::Revoked(_)),
            (Standing::Revoked(_), _) => false,
        };
        if !falls {
            return Err(Fault::new(
                Exit::Refused,
                format!("{org} is out already."),
                "it is suspended or revoked",
                "See `hie authority list`.",
            ));
        }
        member.standing = standing;
        if matches!(standing, Standing::Revoked(_)) {
            let its = self.state.issued.iter_mut().filter(|issued| issued.org == *org);
            for issued in its.filter(|issued| issued.revoked.is_none()) {
                issued.revoked = Some(now);
            }
        }
        self.publish(now)
    }

    /// Revokes a member: its certificates, its standing. Takes effect with the registry published here.
    pub fn revoke(&mut self, org: &OrgId, now: Millis) -> Outcome<()> {
        self.fell(org, Standing::Revoked(now), now)
    }

    /// Suspends a member: its standing only. Takes effect with the registry published here.
    pub fn suspend(&mut self, org: &OrgId, now: Millis) -> Outcome<()> {
        self.fell(org, Standing::Suspended(now), now)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl State {
    /// Adds a new member, or a node to a known one, in the registry.
    fn admit(&mut self, invited: &Invited, request: &Requested) {
        let node = NodeEntry {
            key: request.node,
            public: request.public,
            control: request.control.clone(),
            bulk: request.bulk.clone(),
            relays: sorted(&request.relays),
        };
        let mut roles = invited.roles.clone();
        roles.sort();
        roles.dedup();
        let members = &mut self.registry.members;
        if let Some(member) = members.iter_mut().find(|member| member.org == invited.org) {
            member.nodes.retain(|known| known.key != node.key);
            member.nodes.push(node);
            if member.standing != Standing::Active {
                member.standing = Standing::Active;
                member.term = member.term.saturating_add(1);
            }
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
            members.sort_by(|left, right| left.org.cmp(&right.org));
        }
        let dealt = self.dealt.iter().any(|(_, org)| *org == invited.org);
        if roles.contains(&MemberRole::TokenAuthority) && !dealt && self.deals_first() {
            let taken: Vec<u16> = self.dealt.iter().map(|(index, _)| *index).collect();
            let free = self.points.iter().find(|(index, _)| !taken.contains(index)).copied();
            if let Some((index, point)) = free {
                self.dealt.push((index, invited.org.clone()));
                let authority = TokenAuthority {
                    index,
                    org: invited.org.clone(),
                    point,
                };
                self.registry.policy.tokens.authorities.push(authority);
            }
        }
    }
}

/// Organisations in their order, once each.
fn sorted(orgs: &[OrgId]) -> Vec<OrgId> {
    let mut orgs = orgs.to_vec();
    orgs.sort();
    orgs.dedup();
    orgs
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
        certificate_days: options.certificate_days,
        approvals: Vec::new(),
        floor: 0,
        links: Vec::new(),
        pending: Vec::new(),
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

#[cfg(test)]
mod tests;
