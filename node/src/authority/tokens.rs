//! The region office's side of the token keys: new keys, new authorities, and who is ready for the next step.
//!
//! ```text
//! new-epoch ──► members publish under both ──► switch ──► questions use the new key ──► retire
//! reshare   ──► each seat collects its share ──► seat ──► new authorities answer    ──► retire
//! ```
//!
//! No step is taken before the reports say that it breaks nothing. A share that the office dealt is destroyed here
//! when every node of its member holds it. What the office remembers beside the registry lies in `tokens.cbor`.

use std::collections::{BTreeMap, BTreeSet};

use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::id::{Millis, NodeKey, OrgId, PublicKey};
use hie_protocol::message::SecretBytes;
use hie_protocol::office::{DealtShare, HeldShare, SeatReport, TokenOrders, TokenReport};
use hie_protocol::oprf::key::{GroupKey, PublicShare, deal, public_key};
use hie_protocol::registry::{MemberRole, Resharing, ShareSeat, TokenAuthority, TokenEpoch, TokenParameters};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::change::{Change, Effect};
use super::command::organisation;
use super::{Authority, STATE_BYTES_MAX, State, filler, random};
use crate::cli::arguments::{TokensCommand, TokensReshare, TokensSeats};
use crate::cli::output::Output;
use crate::clock;
use crate::fault::{Exit, Fault, Outcome};
use crate::home::write_private;

const FILE: &str = "tokens.cbor";

/// A dealt share that some node of its member does not hold yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Dealt {
    epoch: u32,
    index: u16,
    org: OrgId,
    share: SecretBytes,
}

/// The last report of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reported {
    node: NodeKey,
    org: OrgId,
    at: Millis,
    published: Vec<u32>,
    held: Vec<HeldShare>,
    seat: Option<SeatReport>,
    lied: Option<OrgId>,
}

/// What the office remembers about the token keys beside the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Office {
    dealt: Vec<Dealt>,
    reports: Vec<Reported>,
    generation: u32,
}

fn refused(what: &str, why: impl std::fmt::Display, fix: &str) -> Fault {
    Fault::new(Exit::Refused, what, why, fix)
}

impl Authority {
    fn office(&self) -> Outcome<Office> {
        let path = self.folder().join(FILE);
        if !path.exists() {
            return Ok(Office::default());
        }
        let fix = "Restore the folder from a backup.";
        let bytes = std::fs::read(&path).map_err(Fault::because(Exit::Integrity, "Cannot read tokens.cbor.", fix))?;
        cbor::decode(&bytes, STATE_BYTES_MAX).map_err(Fault::because(
            Exit::Integrity,
            "The state of the token keys cannot be read.",
            fix,
        ))
    }

    fn keep_office(&self, office: &Office) -> Outcome<()> {
        let bytes = cbor::encode(office).map_err(Fault::because(
            Exit::Failed,
            "The state of the token keys cannot be encoded.",
            "Report this.",
        ))?;
        write_private(&self.folder().join(FILE), &bytes).map_err(Fault::because(
            Exit::Failed,
            "Cannot write tokens.cbor.",
            "Check space and permissions.",
        ))
    }

    /// Takes a node's report and gives it the shares that the registry seats at its member.
    pub fn report(&mut self, body: &[u8], now: Millis) -> Outcome<TokenOrders> {
        let (node, report) = TokenReport::verify(body, &self.state.registry, now).map_err(Fault::because(
            Exit::Refused,
            "A report on token keys is refused.",
            "Check the clock of the node, and that it is an active member's.",
        ))?;
        let mut office = self.office()?;
        let before = office.clone();
        let entry = Reported {
            node,
            org: report.org.clone(),
            // The time of a report alone is no change worth a write.
            at: office
                .reports
                .iter()
                .find(|known| known.node == node)
                .filter(|known| now.since(known.at) < super::DAY_MS)
                .map_or(now, |known| known.at),
            published: report.published,
            held: report.held.clone(),
            seat: report.seat,
            lied: report.lied,
        };
        let active = |node: &NodeKey| self.state.registry.active_key(node).is_some();
        office.reports.retain(|known| known.node != node && active(&known.node));
        office.reports.push(entry);
        self.destroy_held(&mut office)?;
        if office != before {
            self.keep_office(&office)?;
        }
        let wanted = office.dealt.iter().filter(|dealt| {
            let held = report
                .held
                .iter()
                .any(|held| held.epoch == dealt.epoch && held.index == dealt.index);
            dealt.org == report.org && !held
        });
        Ok(TokenOrders {
            shares: wanted
                .map(|dealt| DealtShare {
                    epoch: dealt.epoch,
                    share: dealt.share.clone(),
                })
                .collect(),
        })
    }

    /// Destroys dealt shares that every node of their member holds, those of the first dealing too.
    fn destroy_held(&mut self, office: &mut Office) -> Outcome<()> {
        let registry = &self.state.registry;
        let held_by_all = |org: &OrgId, epoch: u32, index: u16| {
            registry.member(org).is_some_and(|member| {
                !member.nodes.is_empty()
                    && member.nodes.iter().all(|node| {
                        office.reports.iter().any(|report| {
                            report.node == node.key
                                && report
                                    .held
                                    .iter()
                                    .any(|held| held.epoch == epoch && held.index == index)
                        })
                    })
            })
        };
        let gone: Vec<(u32, u16)> = office
            .dealt
            .iter()
            .filter(|dealt| held_by_all(&dealt.org, dealt.epoch, dealt.index))
            .map(|dealt| (dealt.epoch, dealt.index))
            .collect();
        let first: Vec<u16> = self
            .state
            .dealt
            .iter()
            .filter(|(index, org)| held_by_all(org, FIRST_EPOCH, *index))
            .map(|(index, _)| *index)
            .collect();
        office.dealt.retain(|dealt| !gone.contains(&(dealt.epoch, dealt.index)));
        let before = self.state.shares.len();
        self.state.shares.retain(|(index, _)| !first.contains(index));
        if self.state.shares.len() == before {
            Ok(())
        } else {
            self.save()
        }
    }

    /// Deals a new key to the seats and publishes it beside the one in force.
    pub fn new_epoch(&mut self, threshold: Option<u16>, orgs: &[OrgId], now: Millis) -> Outcome<Effect> {
        let what = "No new token key can be dealt now.";
        let tokens = &self.state.registry.policy.tokens;
        if tokens.beside.is_some() || tokens.resharing.is_some() {
            let fix = "Finish it first: see `hie authority tokens status`.";
            return Err(refused(what, "another change of the key is under way", fix));
        }
        let epoch = tokens.epoch.saturating_add(1);
        let orgs = self.seats(orgs)?;
        let threshold = threshold.unwrap_or(tokens.threshold);
        let count = u16::try_from(orgs.len()).unwrap_or(u16::MAX);
        let mut fill = filler(random::<64>()?);
        let (_, shares) = deal(threshold, count, &mut fill).map_err(Fault::because(
            Exit::Usage,
            what,
            "Name enough organisations, or a lower --threshold.",
        ))?;
        let mut office = self.office()?;
        let mut authorities = Vec::new();
        for (org, share) in orgs.into_iter().zip(&shares) {
            authorities.push(TokenAuthority {
                index: share.index(),
                org: org.clone(),
                point: PublicKey::new(*share.public().point()),
            });
            office.dealt.push(Dealt {
                epoch,
                index: share.index(),
                org,
                share: SecretBytes(share.to_bytes().to_vec()),
            });
        }
        // The shares first: a registry that names an authority without a share would stop its members' publication.
        self.keep_office(&office)?;
        let mut tokens = self.state.registry.policy.tokens.clone();
        tokens.beside = Some(TokenEpoch {
            epoch,
            threshold,
            authorities,
        });
        self.grant_tokens(tokens, now)
    }

    /// Grants other token parameters; officers approve them where the region has officers.
    fn grant_tokens(&mut self, tokens: TokenParameters, now: Millis) -> Outcome<Effect> {
        let change = Change::tokens(&self.state.registry, tokens)?;
        self.grant(change, now)
    }

    /// Active members with the role, or exactly those named.
    fn seats(&self, orgs: &[OrgId]) -> Outcome<Vec<OrgId>> {
        let registry = &self.state.registry;
        let with_role = registry.with_role(MemberRole::TokenAuthority);
        let able: Vec<OrgId> = with_role.map(|member| member.org.clone()).collect();
        if orgs.is_empty() {
            return Ok(able);
        }
        match orgs.iter().find(|org| !able.contains(org)) {
            None => Ok(orgs.to_vec()),
            Some(org) => Err(refused(
                "This organisation cannot hold a share.",
                format!("{org} is no active member with the role token-authority"),
                "See `hie authority list`.",
            )),
        }
    }

    /// Nodes of active members that have not published their whole population under an epoch.
    fn not_published(&self, office: &Office, epoch: u32) -> Vec<OrgId> {
        let nodes = self
            .state
            .registry
            .active()
            .flat_map(|member| member.nodes.iter().map(|node| (&member.org, node.key)));
        let late = nodes.filter(|(_, node)| {
            !office
                .reports
                .iter()
                .any(|report| report.node == *node && report.published.contains(&epoch))
        });
        late.map(|(org, _)| org.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Lets questions use the new key.
    pub fn switch(&mut self, now: Millis) -> Outcome<Effect> {
        let what = "The key is not switched.";
        let office = self.office()?;
        let tokens = &self.state.registry.policy.tokens;
        let coming = tokens.beside.clone().filter(|beside| beside.epoch > tokens.epoch);
        let Some(coming) = coming else {
            return Err(refused(
                what,
                "no new key is coming",
                "Run `hie authority tokens new-epoch` first.",
            ));
        };
        let late = self.not_published(&office, coming.epoch);
        if !late.is_empty() {
            let names: Vec<&str> = late.iter().map(OrgId::as_str).collect();
            let why = format!("not yet published under epoch {}: {}", coming.epoch, names.join(", "));
            return Err(refused(what, why, "Wait for them, or revoke those that are gone."));
        }
        let mut tokens = tokens.clone();
        tokens.beside = Some(TokenEpoch {
            epoch: core::mem::replace(&mut tokens.epoch, coming.epoch),
            threshold: core::mem::replace(&mut tokens.threshold, coming.threshold),
            authorities: core::mem::replace(&mut tokens.authorities, coming.authorities),
        });
        self.grant_tokens(tokens, now)
    }

    /// Ends what is left beside: the old key after a switch, the old shares after new authorities were seated.
    pub fn retire(&mut self, now: Millis) -> Outcome<(&'static str, Effect)> {
        let mut tokens = self.state.registry.policy.tokens.clone();
        let seated = tokens.resharing.as_ref().is_some_and(|resharing| {
            let indices: Vec<u16> = tokens.authorities.iter().map(|entry| entry.index).collect();
            resharing.seats.iter().all(|seat| indices.contains(&seat.index))
        });
        let done = if seated {
            tokens.resharing = None;
            "the old shares"
        } else if tokens.beside.as_ref().is_some_and(|beside| beside.epoch < tokens.epoch) {
            tokens.beside = None;
            "the old key"
        } else {
            let fix = "See `hie authority tokens status`.";
            return Err(refused("Nothing is retired.", "nothing old is left beside", fix));
        };
        Ok((done, self.grant_tokens(tokens, now)?))
    }

    /// Describes a resharing of the key in force; a new attempt replaces one that is not seated.
    pub fn reshare(
        &mut self,
        threshold: Option<u16>,
        orgs: &[OrgId],
        without: &[OrgId],
        now: Millis,
    ) -> Outcome<(Resharing, Effect)> {
        let what = "The key cannot be passed on now.";
        let orgs = self.seats(orgs)?;
        let mut office = self.office()?;
        let registry = &self.state.registry;
        let tokens = &registry.policy.tokens;
        if tokens.beside.is_some() {
            let fix = "Finish it first: see `hie authority tokens status`.";
            return Err(refused(what, "the key itself is being replaced", fix));
        }
        let active: BTreeSet<&OrgId> = registry.active().map(|member| &member.org).collect();
        let mut dealers: Vec<u16> = tokens
            .authorities
            .iter()
            .filter(|entry| active.contains(&entry.org) && !without.contains(&entry.org))
            .map(|entry| entry.index)
            .collect();
        dealers.sort_unstable();
        dealers.truncate(usize::from(tokens.threshold));
        if dealers.len() < usize::from(tokens.threshold) {
            let why = format!("{} dealers are left, {} are needed", dealers.len(), tokens.threshold);
            return Err(refused(what, why, "Deal a new key: `hie authority tokens new-epoch`."));
        }
        let taken: Vec<u16> = tokens.authorities.iter().map(|entry| entry.index).collect();
        let free = (1..=hie_protocol::oprf::SHARES_MAX).filter(|index| !taken.contains(index));
        let seats: Vec<ShareSeat> = free.zip(orgs).map(|(index, org)| ShareSeat { index, org }).collect();
        office.generation = office.generation.saturating_add(1);
        let resharing = Resharing {
            generation: office.generation,
            threshold: threshold.unwrap_or(tokens.threshold),
            dealers,
            seats,
        };
        hie_protocol::oprf::reshare::Plan::new(tokens.epoch, &resharing).map_err(Fault::because(
            Exit::Usage,
            what,
            "Name enough organisations, or a lower --threshold.",
        ))?;
        self.keep_office(&office)?;
        let mut tokens = self.state.registry.policy.tokens.clone();
        tokens.resharing = Some(resharing.clone());
        Ok((resharing, self.grant_tokens(tokens, now)?))
    }

    /// Lets the new authorities answer, once their points are those of one sharing of the same key.
    pub fn seat(&mut self, now: Millis) -> Outcome<Effect> {
        let what = "The new authorities are not seated.";
        let office = self.office()?;
        let tokens = &self.state.registry.policy.tokens;
        let Some(resharing) = tokens.resharing.clone() else {
            let fix = "Run `hie authority tokens reshare` first.";
            return Err(refused(what, "no resharing is under way", fix));
        };
        let points = seated(&office, &resharing);
        let missing: Vec<&str> = resharing
            .seats
            .iter()
            .filter(|seat| !points.contains_key(&seat.index))
            .map(|seat| seat.org.as_str())
            .collect();
        if !missing.is_empty() {
            let mut why = format!("without a share yet: {}", missing.join(", "));
            for liar in office.reports.iter().filter_map(|report| report.lied.as_ref()) {
                why.push_str(&format!("; {liar} dealt a part that does not fit"));
            }
            let fix = "Wait, or begin again without a dealer: `hie authority tokens reshare --without ...`.";
            return Err(refused(what, why, fix));
        }
        if let Some(dealer) = two_faced(&office, &resharing) {
            let org = tokens.authorities.iter().find(|entry| entry.index == dealer);
            let org = org.map_or_else(|| dealer.to_string(), |entry| entry.org.to_string());
            let fix = "Begin again without it: `hie authority tokens reshare --without ...`.";
            return Err(refused(what, format!("{org} dealt two polynomials"), fix));
        }
        let broken = Fault::because(
            Exit::Refused,
            what,
            "Begin again: `hie authority tokens reshare`; name the dealers that are not trusted with --without.",
        );
        let check = || {
            let share = |index: u16, point: &PublicKey| PublicShare::new(index, point.as_bytes());
            let old = tokens.authorities.iter().map(|entry| share(entry.index, &entry.point));
            let public = public_key(tokens.threshold, &old.collect::<Result<Vec<_>, _>>()?)?;
            let new = points.iter().map(|(index, point)| share(*index, point));
            GroupKey::new(resharing.threshold, new.collect::<Result<Vec<_>, _>>()?, public)
        };
        check().map_err(broken)?;
        let seats = resharing.seats.iter().filter_map(|seat| {
            let point = points.get(&seat.index)?;
            Some(TokenAuthority {
                index: seat.index,
                org: seat.org.clone(),
                point: *point,
            })
        });
        let authorities: Vec<TokenAuthority> = seats.collect();
        let mut tokens = tokens.clone();
        tokens.authorities = authorities;
        tokens.threshold = resharing.threshold;
        // The description stays until `retire`: while it stands, both sharings answer.
        self.grant_tokens(tokens, now)
    }
}

impl State {
    /// Whether the first dealing is still the one in force: then a member that joins with the role gets its next share.
    pub(super) fn deals_first(&self) -> bool {
        let tokens = &self.registry.policy.tokens;
        let first = |entry: &TokenAuthority| self.points.contains(&(entry.index, entry.point));
        tokens.epoch == FIRST_EPOCH && tokens.resharing.is_none() && tokens.authorities.iter().all(first)
    }
}

/// Epoch of the key that a region begins with.
const FIRST_EPOCH: u32 = 1;

/// The reported points of a resharing's seats.
fn seated(office: &Office, resharing: &Resharing) -> BTreeMap<u16, PublicKey> {
    let reports = office.reports.iter().filter_map(|report| {
        let seat = report.seat.as_ref()?;
        let own = resharing
            .seats
            .iter()
            .any(|entry| entry.index == seat.index && entry.org == report.org);
        (own && seat.generation == resharing.generation).then_some((seat.index, seat.point))
    });
    reports.collect()
}

/// A dealer that committed to different polynomials before different seats.
fn two_faced(office: &Office, resharing: &Resharing) -> Option<u16> {
    let mut seen: BTreeMap<u16, &Bytes> = BTreeMap::new();
    let seats = office.reports.iter().filter_map(|report| report.seat.as_ref());
    for seat in seats.filter(|seat| seat.generation == resharing.generation) {
        for digest in &seat.commitments {
            if seen
                .insert(digest.dealer, &digest.digest)
                .is_some_and(|known| *known != digest.digest)
            {
                return Some(digest.dealer);
            }
        }
    }
    None
}

fn orgs(texts: &[String]) -> Outcome<Vec<OrgId>> {
    texts.iter().map(|text| organisation(text)).collect()
}

/// Runs `hie authority tokens ...`.
pub fn run(command: TokensCommand, output: &Output) -> Outcome<Exit> {
    let now = clock::now();
    match command {
        TokensCommand::Status(dir) => status(&Authority::open(&dir.dir)?, output),
        TokensCommand::NewEpoch(TokensSeats {
            dir,
            threshold,
            organisation,
        }) => {
            let effect = Authority::open(&dir)?.new_epoch(threshold, &orgs(&organisation)?, now)?;
            Ok(tell(
                output,
                "dealt",
                effect,
                "Next, when all have published under both keys: hie authority tokens switch",
            ))
        }
        TokensCommand::Switch(dir) => {
            let effect = Authority::open(&dir.dir)?.switch(now)?;
            Ok(tell(
                output,
                "switched",
                effect,
                "Next, when nobody uses an older registry: hie authority tokens retire",
            ))
        }
        TokensCommand::Reshare(TokensReshare { seats, without }) => {
            let mut authority = Authority::open(&seats.dir)?;
            let named = orgs(&seats.organisation)?;
            let (resharing, effect) = authority.reshare(seats.threshold, &named, &orgs(&without)?, now)?;
            output.say(format!(
                "Resharing {}: {} dealers, {} seats, threshold {}",
                resharing.generation,
                resharing.dealers.len(),
                resharing.seats.len(),
                resharing.threshold
            ));
            Ok(tell(
                output,
                "reshared",
                effect,
                "Next, when every seat has its share: hie authority tokens seat",
            ))
        }
        TokensCommand::Seat(dir) => {
            let effect = Authority::open(&dir.dir)?.seat(now)?;
            Ok(tell(
                output,
                "seated",
                effect,
                "Next, when nobody uses an older registry: hie authority tokens retire",
            ))
        }
        TokensCommand::Retire(dir) => {
            let (what, effect) = Authority::open(&dir.dir)?.retire(now)?;
            Ok(tell(output, "retired", effect, &format!("Retired: {what}")))
        }
    }
}

/// Says what became of a step.
fn tell(output: &Output, step: &str, effect: Effect, next: &str) -> Exit {
    match effect {
        Effect::Done(version) => {
            output.data(
                format!("Done ({step}); registry version {version}"),
                &json!({ "step": step, "registry": version }),
            );
            output.say(next);
        }
        Effect::Pending(id) => {
            output.data(
                format!("Change {id} waits for officers: see `hie authority pending`"),
                &json!({ "step": step, "pending": id }),
            );
        }
    }
    Exit::Done
}

fn status(authority: &Authority, output: &Output) -> Outcome<Exit> {
    let office = authority.office()?;
    let tokens = &authority.state.registry.policy.tokens;
    let key = |name: &str, epoch: u32, threshold: u16, entries: &[TokenAuthority]| {
        let orgs: Vec<&str> = entries.iter().map(|entry| entry.org.as_str()).collect();
        let late = authority.not_published(&office, epoch);
        let late: Vec<&str> = late.iter().map(OrgId::as_str).collect();
        let text = format!(
            "{name}  epoch {epoch}  {threshold} of {}: {}\n         not published under it yet: {}",
            orgs.len(),
            orgs.join(", "),
            if late.is_empty() {
                "nobody".to_owned()
            } else {
                late.join(", ")
            }
        );
        output.data(
            text,
            &json!({ "key": name, "epoch": epoch, "threshold": threshold, "authorities": orgs, "not_published": late }),
        );
    };
    key("in force", tokens.epoch, tokens.threshold, &tokens.authorities);
    if let Some(beside) = &tokens.beside {
        let name = if beside.epoch > tokens.epoch { "coming" } else { "going" };
        key(name, beside.epoch, beside.threshold, &beside.authorities);
    }
    if let Some(resharing) = &tokens.resharing {
        let points = seated(&office, resharing);
        let waiting: Vec<&str> = resharing
            .seats
            .iter()
            .filter(|seat| !points.contains_key(&seat.index))
            .map(|seat| seat.org.as_str())
            .collect();
        let text = format!(
            "resharing {}  threshold {}  seats without a share: {}",
            resharing.generation,
            resharing.threshold,
            if waiting.is_empty() {
                "none".to_owned()
            } else {
                waiting.join(", ")
            }
        );
        output.data(text, &json!({ "resharing": resharing.generation, "waiting": waiting }));
    }
    for dealt in &office.dealt {
        output.data(
            format!("share    epoch {}  {}  not fetched yet", dealt.epoch, dealt.org),
            &json!({ "share_waiting": dealt.org.as_str(), "epoch": dealt.epoch }),
        );
    }
    Ok(Exit::Done)
}
