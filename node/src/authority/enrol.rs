//! Enrolment at the authority: invite, request, approve, answer. Pure transitions over [`Authority`].

use hie_node_pki::authority::{Approved, SERIAL_BYTES, Validity};
use hie_node_pki::csr::CheckedCsr;
use hie_node_pki::x509;
use hie_protocol::bytes::Bytes;
use hie_protocol::id::{ContentHash, Millis, OrgId};
use hie_protocol::invitation::{Draft, Invitation};
use hie_protocol::registry::{MemberKind, MemberRole};
use hie_protocol::words::check_words;
use ring::digest;
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::{Authority, DAY_MS, Decision, Invited, Issued, OPEN_MAX, Requested, random};
use crate::fault::{Exit, Fault, Outcome};

/// Largest enrolment body, in bytes.
pub const ENROL_BYTES_MAX: usize = 64 * 1024;

/// What a joining node sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The invitation's secret.
    pub secret: Bytes,
    /// PKCS#10 request, DER.
    pub csr: Bytes,
    /// `host:port` of the control channel.
    pub control: Option<String>,
    /// `host:port` of the bulk lane.
    pub bulk: Option<String>,
    /// Members through which the node is reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<OrgId>,
}

/// What the authority answers, as often as asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnrolAnswer {
    /// Waiting for the region office; the check words it sees.
    Waiting(String),
    /// Rejected by the region office.
    Rejected,
    /// Approved.
    Approved(Box<Admission>),
}

/// Everything a new member needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Certificate chain, leaf first, DER.
    pub chain: Vec<Bytes>,
    /// Signed registry.
    pub registry: Bytes,
    /// Share of the token key, for a token authority.
    pub share: Option<Bytes>,
}

/// Whom to invite.
pub struct Guest {
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
    /// Days until it ends.
    pub days: u32,
}

/// The host of `host:port`.
pub fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// SHA-256 as an id.
pub fn sha256(bytes: &[u8]) -> ContentHash {
    let digest = digest::digest(&digest::SHA256, bytes);
    ContentHash::from_slice(digest.as_ref()).unwrap_or(ContentHash::new([0; 32]))
}

impl Authority {
    /// Makes an invitation; its secret is shown once and kept as a hash.
    pub fn invite(&mut self, guest: Guest, now: Millis) -> Outcome<Invitation> {
        self.state
            .invited
            .retain(|invited| invited.expires > now || invited.used.is_some());
        if self.state.invited.len() >= OPEN_MAX {
            return Err(Fault::new(
                Exit::Busy,
                "Too many open invitations.",
                format!("the limit is {OPEN_MAX}"),
                "Wait until some end.",
            ));
        }
        let secret = random::<16>()?;
        let expires = now.plus(u64::from(guest.days).saturating_mul(DAY_MS));
        let invitation = Invitation::new(Draft {
            region: self.state.registry.region.clone(),
            root_fingerprint: self.root.fingerprint(),
            address: self.state.address.clone(),
            secret,
            expires_at_s: expires.0 / 1000,
            organisation: guest.org.as_str().to_owned(),
            organisation_name: guest.name.clone(),
        })
        .map_err(Fault::because(
            Exit::Usage,
            "This invitation cannot be made.",
            "Check the name and the authority's address.",
        ))?;
        self.state.invited.push(Invited {
            secret: sha256(&secret),
            org: guest.org,
            name: guest.name,
            kind: guest.kind,
            roles: guest.roles,
            phone: guest.phone,
            expires,
            used: None,
        });
        self.save()?;
        Ok(invitation)
    }

    /// Takes a request to join, or answers one already known by its secret and key.
    pub fn enrol(&mut self, request: &EnrolRequest, auto_approve: bool, now: Millis) -> Outcome<EnrolAnswer> {
        let refused = |why: &str| {
            Fault::new(
                Exit::Refused,
                "The authority refused the request.",
                why,
                "Ask the region office for a new invitation.",
            )
        };
        let secret = sha256(&request.secret.0);
        let invited = self
            .state
            .invited
            .iter()
            .find(|invited| invited.secret == secret)
            .cloned();
        let invited = invited.ok_or_else(|| refused("the invitation is not known"))?;
        let facts = CheckedCsr::check(&request.csr.0).map_err(Fault::because(
            Exit::Refused,
            "The certificate request is not valid.",
            "Run `hie join` again.",
        ))?;
        if let Some(number) = invited.used {
            let known = self
                .state
                .requested
                .iter()
                .find(|known| known.id == number && known.node == facts.node());
            let known = known
                .cloned()
                .ok_or_else(|| refused("the invitation was used by another node"))?;
            return Ok(self.answer(&invited, &known));
        }
        if invited.expires < now {
            return Err(refused("the invitation has ended"));
        }
        let id = self.next_request()?;
        self.state.requested.push(Requested {
            id,
            secret,
            csr: request.csr.clone(),
            node: facts.node(),
            public: facts.public(),
            beside: None,
            control: request.control.clone(),
            bulk: request.bulk.clone(),
            relays: request.relays.clone(),
            decision: Decision::Waiting,
        });
        for open in self.state.invited.iter_mut().filter(|open| open.secret == secret) {
            open.used = Some(id);
        }
        self.save()?;
        if auto_approve {
            self.decide(id, true, now)?;
        }
        let known = self.state.requested.iter().find(|known| known.id == id).cloned();
        known
            .map(|known| self.answer(&invited, &known))
            .ok_or_else(|| refused("the request is gone"))
    }

    /// A number for a new request, while there is room.
    pub(super) fn next_request(&self) -> Outcome<u64> {
        let waiting = |known: &&Requested| known.decision == Decision::Waiting;
        if self.state.requested.iter().filter(waiting).count() >= OPEN_MAX {
            return Err(Fault::new(
                Exit::Busy,
                "Too many requests wait.",
                format!("the limit is {OPEN_MAX}"),
                "Decide on some, then let the node ask again.",
            ));
        }
        let highest = self.state.requested.iter().map(|known| known.id).max();
        Ok(highest.unwrap_or(0).saturating_add(1))
    }

    /// Approves or rejects a request. An approval is a grant: where the region has officers it waits for them.
    pub fn decide(&mut self, id: u64, approve: bool, now: Millis) -> Outcome<()> {
        if approve {
            return self.grant(Change::Admit { request: id }, now).map(|_| ());
        }
        self.waiting(id)?;
        for known in self.state.requested.iter_mut().filter(|known| known.id == id) {
            known.decision = Decision::Rejected;
        }
        self.state
            .pending
            .retain(|pending| pending.change != Change::Admit { request: id });
        self.save()
    }

    /// A request that waits.
    pub(super) fn waiting(&self, id: u64) -> Outcome<Requested> {
        let found = self.state.requested.iter().find(|known| known.id == id);
        let waits = found.filter(|known| known.decision == Decision::Waiting);
        waits.cloned().ok_or_else(|| {
            Fault::new(
                Exit::Usage,
                format!("There is no waiting request {id}."),
                "its number is not known",
                "See `hie authority list`.",
            )
        })
    }

    /// Issues a leaf for the key of a request, and remembers it.
    pub(super) fn issue(
        &mut self,
        org: &OrgId,
        addresses: [Option<&String>; 2],
        csr: &[u8],
        now: Millis,
    ) -> Outcome<Vec<u8>> {
        let what = "Cannot issue the certificate.";
        let until = now.plus(self.state.certificate_life_ms());
        let not_before = Millis(now.0.saturating_sub(hie_protocol::claim::CLOCK_SKEW_MS_MAX));
        let mut hosts: Vec<String> = addresses
            .into_iter()
            .flatten()
            .map(|address| host(address).to_owned())
            .collect();
        hosts.sort();
        hosts.dedup();
        let approved = Approved {
            org: org.clone(),
            hosts,
            validity: Validity {
                not_before,
                not_after: until,
            },
            serial: random::<SERIAL_BYTES>()?,
        };
        let checked = CheckedCsr::check(csr).map_err(Fault::because(Exit::Failed, what, "Check the request."))?;
        let leaf =
            self.root
                .issue(&checked, &approved)
                .map_err(Fault::because(Exit::Failed, what, "Check the request."))?;
        let facts = x509::certificate(&leaf).map_err(Fault::because(Exit::Failed, what, "Report this."))?;
        self.state.issued.push(Issued {
            serial: Bytes(facts.serial),
            org: org.clone(),
            node: checked.node(),
            until,
            revoked: None,
        });
        Ok(leaf)
    }

    fn answer(&self, invited: &Invited, request: &Requested) -> EnrolAnswer {
        match &request.decision {
            Decision::Waiting => EnrolAnswer::Waiting(check_words(request.node.as_bytes()).join(" ")),
            Decision::Rejected => EnrolAnswer::Rejected,
            Decision::Approved(chain) => {
                let index = self
                    .state
                    .dealt
                    .iter()
                    .find(|(_, org)| *org == invited.org)
                    .map(|(index, _)| *index);
                let share = index.and_then(|index| {
                    self.state
                        .shares
                        .iter()
                        .find(|(held, _)| *held == index)
                        .map(|(_, share)| share.clone())
                });
                EnrolAnswer::Approved(Box::new(Admission {
                    chain: chain.clone(),
                    registry: self.state.signed.clone(),
                    share,
                }))
            }
        }
    }
}
