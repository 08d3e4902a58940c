//! What the region office grants, and the officers' part in it: the one way by which a registry gains anything.
//!
//! ```text
//! grant(change) ── no officers ──────────────────────────> effect: draft, certificates, publish
//!        └──────── officers ──> pending ── m approvals ──┘
//! ```
//!
//! A change is kept as what is to be done, not as its result: its draft is made anew from the registry in force, so a
//! suspension in between is never undone. When another change takes effect first, the draft is another charter, and
//! what was approved of it counts no more.

use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::charter::{APPROVALS_MAX, Approval, Held};
use hie_protocol::id::{ContentHash, Millis, NodeKey, OrgId};
use hie_protocol::registry::{MemberRole, Officers, RegionPolicy, Registry, Standing, TokenParameters};
use hie_protocol::words::check_words;
use serde::{Deserialize, Serialize};

use super::enrol::sha256;
use super::{Authority, Decision, Invited, Requested, State};
use crate::fault::{Exit, Fault, Outcome};

/// Most changes that wait for officers.
pub const PENDING_MAX: usize = 256;

/// Something that the region office grants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A new member, or a further node or key of a member.
    Admit {
        /// Number of the request.
        request: u64,
    },
    /// A suspended member returns.
    Reinstate {
        /// The member.
        org: OrgId,
    },
    /// The roles of a member.
    Roles {
        /// The member.
        org: OrgId,
        /// All of its roles.
        roles: Vec<MemberRole>,
    },
    /// A node of a member leaves the registry, as after a change of keys.
    DropNode {
        /// The member.
        org: OrgId,
        /// The node.
        node: NodeKey,
    },
    /// The officers; none ends their part.
    Officers(Option<Officers>),
    /// Token parameters.
    Tokens {
        /// SHA-256 of the deterministic CBOR of the parameters that this follows: on others it is void.
        before: ContentHash,
        /// The parameters.
        after: Box<TokenParameters>,
    },
    /// Region policy but for tokens and officers.
    Policy(Box<RegionPolicy>),
}

impl Change {
    /// A change of the token parameters of a registry. Errors: parameters that cannot be written.
    pub fn tokens(of: &Registry, after: TokenParameters) -> Outcome<Self> {
        Ok(Self::Tokens {
            before: tokens_hash(&of.policy.tokens)?,
            after: Box::new(after),
        })
    }

    /// The kind of change, in a word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Admit { .. } => "admit",
            Self::Reinstate { .. } => "reinstate",
            Self::Roles { .. } => "roles",
            Self::DropNode { .. } => "drop-node",
            Self::Officers(_) => "officers",
            Self::Tokens { .. } => "tokens",
            Self::Policy(_) => "policy",
        }
    }
}

fn tokens_hash(tokens: &TokenParameters) -> Outcome<ContentHash> {
    let bytes = cbor::encode(tokens).map_err(Fault::because(
        Exit::Failed,
        "The token parameters cannot be written.",
        "Report this.",
    ))?;
    Ok(sha256(&bytes))
}

/// A change that waits for officers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Number.
    pub id: u64,
    /// What is to be done.
    pub change: Change,
    /// The charter that it makes of the registry in force.
    pub charter: ContentHash,
    /// Lowest registry version that approvals are for.
    pub from: u64,
    /// Officers' approvals.
    pub approvals: Vec<Bytes>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is in force with this registry version.
    Done(u64),
    /// It waits for officers under this number.
    Pending(u64),
}

fn void(why: impl std::fmt::Display) -> Fault {
    Fault::new(
        Exit::Refused,
        "This change is void.",
        why,
        "See `hie authority list`, and make it anew if it is still wanted.",
    )
}

fn charter(registry: &Registry) -> Outcome<ContentHash> {
    registry.charter().map_err(Fault::because(
        Exit::Failed,
        "The charter cannot be written.",
        "Report this.",
    ))
}

impl State {
    /// The request and invitation behind an admission; a further key of a member stands in for an invitation.
    fn guest(&self, request: &Requested) -> Outcome<Invited> {
        if let Some(beside) = request.beside {
            let (member, _) = self
                .registry
                .node(&beside)
                .ok_or_else(|| void("the node that asked for a new key is no member's"))?;
            if member.standing != Standing::Active {
                return Err(void("the member takes no part"));
            }
            return Ok(Invited {
                secret: request.secret,
                org: member.org.clone(),
                name: member.name.clone(),
                kind: member.kind,
                roles: member.roles.clone(),
                phone: member.phone.clone(),
                expires: Millis(u64::MAX),
                used: Some(request.id),
            });
        }
        let invited = self.invited.iter().find(|invited| invited.used == Some(request.id));
        invited.cloned().ok_or_else(|| void("its invitation is gone"))
    }

    /// This state with the change made, unsigned.
    fn draft(&self, change: &Change) -> Outcome<Self> {
        let mut next = self.clone();
        let member = |next: &mut Self, org: &OrgId| {
            let found = next.registry.members.iter().position(|member| member.org == *org);
            found.ok_or_else(|| void(format!("{org} is not a member")))
        };
        match change {
            Change::Admit { request } => {
                let found = self.requested.iter().find(|known| known.id == *request);
                let request = found
                    .filter(|known| known.decision == Decision::Waiting)
                    .ok_or_else(|| void(format!("request {request} does not wait")))?;
                next.admit(&self.guest(request)?, request);
            }
            Change::Reinstate { org } => {
                let at = member(&mut next, org)?;
                if let Some(member) = next.registry.members.get_mut(at) {
                    if !matches!(member.standing, Standing::Suspended(_)) {
                        return Err(void(format!("{org} is not suspended")));
                    }
                    member.standing = Standing::Active;
                    member.term = member.term.saturating_add(1);
                }
            }
            Change::Roles { org, roles } => {
                let at = member(&mut next, org)?;
                if let Some(member) = next.registry.members.get_mut(at) {
                    member.roles.clone_from(roles);
                    member.roles.sort();
                    member.roles.dedup();
                }
            }
            Change::DropNode { org, node } => {
                let at = member(&mut next, org)?;
                if let Some(member) = next.registry.members.get_mut(at) {
                    let before = member.nodes.len();
                    member.nodes.retain(|known| known.key != *node);
                    if member.nodes.len() == before || member.nodes.is_empty() {
                        return Err(void(format!("{node} is no node of {org}, or its only one")));
                    }
                }
            }
            Change::Officers(officers) => next.registry.policy.officers.clone_from(officers),
            Change::Tokens { before, after } => {
                if tokens_hash(&next.registry.policy.tokens)? != *before {
                    return Err(void("the token parameters have changed since"));
                }
                next.registry.policy.tokens = (**after).clone();
            }
            Change::Policy(policy) => {
                let (tokens, officers) = (next.registry.policy.tokens, next.registry.policy.officers);
                next.registry.policy = (**policy).clone();
                next.registry.policy.tokens = tokens;
                next.registry.policy.officers = officers;
            }
        }
        next.registry.check().map_err(void)?;
        Ok(next)
    }
}

impl Authority {
    /// Makes a change that grants something: at once in a region without officers, else when they have approved.
    pub fn grant(&mut self, change: Change, now: Millis) -> Outcome<Effect> {
        let draft = self.state.draft(&change)?;
        let new = charter(&draft.registry)?;
        if self.state.registry.policy.officers.is_none() || new == charter(&self.state.registry)? {
            return self.effect(&change, draft, None, now);
        }
        if let Some(known) = self.state.pending.iter().find(|pending| pending.change == change) {
            return Ok(Effect::Pending(known.id));
        }
        if self.state.pending.len() >= PENDING_MAX {
            return Err(Fault::new(
                Exit::Busy,
                "Too many changes wait for officers.",
                format!("the limit is {PENDING_MAX}"),
                "See `hie authority pending`.",
            ));
        }
        let highest = self.state.pending.iter().map(|pending| pending.id).max();
        let id = highest.unwrap_or(0).max(self.state.registry.version).saturating_add(1);
        self.state.pending.push(Pending {
            id,
            change,
            charter: new,
            from: self.state.registry.version.saturating_add(1),
            approvals: Vec::new(),
        });
        self.save()?;
        Ok(Effect::Pending(id))
    }

    /// A change that waits.
    pub fn pending(&self, id: u64) -> Outcome<&Pending> {
        let found = self.state.pending.iter().find(|pending| pending.id == id);
        found.ok_or_else(|| {
            Fault::new(
                Exit::Usage,
                format!("No change {id} waits."),
                "it is in force, withdrawn or void",
                "See `hie authority pending`.",
            )
        })
    }

    /// The registry that a waiting change would make.
    pub fn proposal(&self, id: u64) -> Outcome<Registry> {
        Ok(self.state.draft(&self.pending(id)?.change)?.registry)
    }

    /// Officers whose approval of a waiting change counts, and how many are needed.
    pub fn approvals(&self, pending: &Pending) -> (usize, usize) {
        let held = Held {
            registry: &self.state.registry,
            floor: self.state.floor,
        };
        let next = self.state.registry.version.saturating_add(1);
        let have = held.counted(next, pending.charter, &pending.approvals).len();
        let rule = self.state.registry.policy.officers.as_ref();
        (have, rule.map_or(0, |officers| usize::from(officers.approvals)))
    }

    /// Adds an officer's approval to a waiting change, which takes effect with the last one needed.
    pub fn approve(&mut self, id: u64, approval: Vec<u8>, now: Millis) -> Outcome<Effect> {
        let mut pending = self.pending(id)?.clone();
        let refused = |why: String| {
            Fault::new(
                Exit::Refused,
                format!("This approval does not count for change {id}."),
                why,
                "Export the change again and let an officer of this region approve it.",
            )
        };
        let rule = self.state.registry.policy.officers.as_ref();
        let keys: Vec<_> = rule
            .iter()
            .flat_map(|rule| rule.officers.iter().map(|officer| officer.public))
            .collect();
        let (read, officer) = Approval::verify(&approval, &keys).map_err(|error| refused(error.to_string()))?;
        if read.region != self.state.registry.region || read.charter != pending.charter || read.from != pending.from {
            return Err(refused(
                "it is for another charter, or for one that has changed since".into(),
            ));
        }
        pending
            .approvals
            .retain(|known| Approval::verify(&known.0, &keys).is_ok_and(|(_, signer)| signer != officer));
        pending.approvals.push(Bytes(approval));
        pending.approvals.truncate(APPROVALS_MAX);
        let (have, need) = self.approvals(&pending);
        if have >= need {
            let draft = self.state.draft(&pending.change)?;
            return self.effect(&pending.change, draft, Some(pending.approvals), now);
        }
        for known in self.state.pending.iter_mut().filter(|known| known.id == id) {
            *known = pending.clone();
        }
        self.save()?;
        Ok(Effect::Pending(id))
    }

    /// Withdraws a change that waits.
    pub fn withdraw(&mut self, id: u64) -> Outcome<()> {
        self.pending(id)?;
        self.state.pending.retain(|pending| pending.id != id);
        self.save()
    }

    /// Puts a draft in force.
    fn effect(&mut self, change: &Change, draft: State, approvals: Option<Vec<Bytes>>, now: Millis) -> Outcome<Effect> {
        let before = std::mem::replace(&mut self.state, draft);
        if let Some(approvals) = approvals {
            self.state.approvals = approvals;
        }
        if let Change::Admit { request } = change {
            let found = before.requested.iter().find(|known| known.id == *request);
            let request = found.ok_or_else(|| void("the request is gone"))?;
            let org = before.guest(request)?.org;
            let leaf = self.issue(
                &org,
                [request.control.as_ref(), request.bulk.as_ref()],
                &request.csr.0,
                now,
            )?;
            let chain = vec![Bytes(leaf), Bytes(self.root.root().to_vec())];
            for known in self.state.requested.iter_mut().filter(|known| known.id == request.id) {
                known.decision = Decision::Approved(chain.clone());
            }
        }
        if let Change::DropNode { node, .. } = change {
            for issued in self.state.issued.iter_mut().filter(|issued| issued.node == *node) {
                issued.revoked = issued.revoked.or(Some(now));
            }
        }
        self.state.pending.retain(|pending| pending.change != *change);
        self.publish(now)?;
        self.rebase()?;
        Ok(Effect::Done(self.state.registry.version))
    }

    /// Makes what still waits anew on the registry in force; what no longer fits is dropped.
    fn rebase(&mut self) -> Outcome<()> {
        let waiting = std::mem::take(&mut self.state.pending);
        if waiting.is_empty() {
            return Ok(());
        }
        for mut pending in waiting {
            match self
                .state
                .draft(&pending.change)
                .and_then(|draft| charter(&draft.registry))
            {
                Ok(new) => {
                    if new != pending.charter {
                        pending.charter = new;
                        pending.from = self.state.registry.version.saturating_add(1);
                        pending.approvals.clear();
                    }
                    self.state.pending.push(pending);
                }
                Err(fault) => tracing::warn!(change = pending.id, why = %fault.why, "a waiting change is void"),
            }
        }
        self.save()
    }
}

/// What differs between two registries of a region, for a person who is to approve it: one line each.
pub fn differences(before: &Registry, after: &Registry) -> Vec<String> {
    let mut lines = Vec::new();
    for member in &after.members {
        let name = &member.name;
        let Some(was) = before.member(&member.org) else {
            lines.push(format!("new member {name} ({}), roles {:?}", member.org, member.roles));
            lines.extend(member.nodes.iter().map(|node| {
                let words = check_words(node.key.as_bytes()).join(" ");
                format!("  its node: {words}")
            }));
            continue;
        };
        if was.roles != member.roles {
            lines.push(format!("roles of {name}: {:?} become {:?}", was.roles, member.roles));
        }
        if was.term != member.term {
            lines.push(format!("{name} returns (term {} becomes {})", was.term, member.term));
        }
        for node in member.nodes.iter().filter(|node| !was.nodes.contains(node)) {
            let words = check_words(node.key.as_bytes()).join(" ");
            lines.push(format!("node of {name} added or changed: {words}"));
        }
        for node in was
            .nodes
            .iter()
            .filter(|node| !member.nodes.iter().any(|is| is.key == node.key))
        {
            let words = check_words(node.key.as_bytes()).join(" ");
            lines.push(format!("node of {name} removed: {words}"));
        }
        if (&was.name, was.kind, &was.phone) != (name, member.kind, &member.phone) {
            lines.push(format!("name, kind or phone of {}: now {name}", member.org));
        }
    }
    for member in before
        .members
        .iter()
        .filter(|member| after.member(&member.org).is_none())
    {
        lines.push(format!("member {} removed", member.name));
    }
    let (was, is) = (&before.policy, &after.policy);
    if was.officers != is.officers {
        let names = is.officers.as_ref().map_or_else(
            || "none".to_owned(),
            |rule| {
                let names: Vec<&str> = rule.officers.iter().map(|officer| officer.name.as_str()).collect();
                format!("{} of {}", rule.approvals, names.join(", "))
            },
        );
        lines.push(format!("officers: {names}"));
    }
    if was.tokens != is.tokens {
        let holders: Vec<&str> = is.tokens.authorities.iter().map(|one| one.org.as_str()).collect();
        lines.push(format!(
            "tokens: epoch {}, {} of {}",
            is.tokens.epoch,
            is.tokens.threshold,
            holders.join(", ")
        ));
    }
    let mut rest = is.clone();
    rest.tokens.clone_from(&was.tokens);
    rest.officers.clone_from(&was.officers);
    if rest != *was {
        lines.push(format!(
            "policy: consent {:?}, emergency access {:?}, {} copies of which {} durable",
            is.consent, is.break_glass, is.replicas, is.write_quorum
        ));
    }
    lines
}
