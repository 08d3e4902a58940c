//! `hie authority ...` and `hie invite`.

use hie_protocol::id::OrgId;
use hie_protocol::registry::{ConsentModel, MemberKind, MemberRole, Standing};
use hie_protocol::words::check_words;
use serde_json::json;

use super::change::{Change, Effect};
use super::enrol::Guest;
use super::{Authority, Decision, RegionOptions, office, serve};
use crate::cli::arguments::{AuthorityCommand, AuthorityDir, AuthorityRevoke, Invite, Kind, MemberRoleArgument, Model};
use crate::cli::output::Output;
use crate::clock;
use crate::fault::{Exit, Fault, Outcome};
use crate::home::write_private;

/// Runs an authority verb.
pub async fn run(command: AuthorityCommand, output: &Output) -> Outcome<Exit> {
    match command {
        AuthorityCommand::Init(init) => {
            let options = RegionOptions {
                name: init.name,
                consent: match init.consent {
                    Model::OptIn => ConsentModel::OptIn,
                    Model::OptOut => ConsentModel::OptOut,
                },
                address: init.address,
                token_threshold: init.token_threshold,
                token_authorities: init.token_authorities,
                certificate_days: init.certificate_days,
            };
            let authority = Authority::init(&init.dir, options, clock::now())?;
            let root = super::enrol::sha256(authority.root.root());
            let text = format!("Region {}   root sha256 {root}", authority.state.registry.region);
            output.data(
                text,
                &json!({ "region": authority.state.registry.region, "root": root.to_hex() }),
            );
            output.say(format!("Next: hie authority serve --dir {}", init.dir.display()));
            Ok(Exit::Done)
        }
        AuthorityCommand::Serve(options) => {
            let running = serve::start(&options.dir, options.listen, options.auto_approve).await?;
            output.data(
                format!("Serving at {}", running.address),
                &json!({ "address": running.address.to_string() }),
            );
            running.until(crate::run::stop_signal()).await?;
            Ok(Exit::Done)
        }
        AuthorityCommand::Tokens(command) => super::tokens::run(command, output),
        AuthorityCommand::List(dir) => list(&dir, output),
        AuthorityCommand::Approve(approve) => match (&approve.dir, approve.number) {
            (Some(dir), Some(request)) if approve.officer_key.is_none() => decide(dir, request, true, output),
            _ => office::approve(approve, output),
        },
        AuthorityCommand::Reject(request) => decide(&request.dir, request.request, false, output),
        AuthorityCommand::Revoke(member) => fell(&member, "revoked", Standing::Revoked(clock::now()), output),
        AuthorityCommand::Suspend(member) => fell(&member, "suspended", Standing::Suspended(clock::now()), output),
        AuthorityCommand::Reinstate(member) => {
            let org = organisation(&member.organisation)?;
            let mut authority = Authority::open(&member.dir)?;
            Ok(office::say(
                authority.grant(Change::Reinstate { org }, clock::now())?,
                output,
            ))
        }
        AuthorityCommand::Roles(command) => office::roles(&command, output),
        AuthorityCommand::Node(command) => office::node(&command, output),
        AuthorityCommand::Officer(command) => office::officer(command, output),
        AuthorityCommand::Pending(command) => office::pending(command, output),
    }
}

/// Takes a member out, for now or for good.
fn fell(member: &AuthorityRevoke, word: &'static str, standing: Standing, output: &Output) -> Outcome<Exit> {
    let org = organisation(&member.organisation)?;
    let mut authority = Authority::open(&member.dir)?;
    authority.fell(&org, standing, clock::now())?;
    let version = authority.state.registry.version;
    output.data(
        format!("{org} is {word}; registry version {version}"),
        &json!({ word: org.as_str(), "registry": version }),
    );
    Ok(Exit::Done)
}

/// Reads an OID URN from the command line.
pub fn organisation(text: &str) -> Outcome<OrgId> {
    OrgId::parse(text).map_err(Fault::because(
        Exit::Usage,
        &format!("{text} is not an organisation id."),
        "Write urn:oid:1.2.3.",
    ))
}

/// Roles as the command line names them.
pub(super) fn member_roles(roles: &[MemberRoleArgument]) -> Vec<MemberRole> {
    let read = roles.iter().map(|role| match role {
        MemberRoleArgument::IndexHolder => MemberRole::IndexHolder,
        MemberRoleArgument::TokenAuthority => MemberRole::TokenAuthority,
        MemberRoleArgument::Witness => MemberRole::Witness,
        MemberRoleArgument::Relay => MemberRole::Relay,
    });
    read.collect()
}

fn decide(dir: &std::path::Path, request: u64, approve: bool, output: &Output) -> Outcome<Exit> {
    let mut authority = Authority::open(dir)?;
    if approve {
        let effect = authority.grant(Change::Admit { request }, clock::now())?;
        if let Effect::Pending(_) = effect {
            return Ok(office::say(effect, output));
        }
    } else {
        authority.decide(request, false, clock::now())?;
    }
    let word = if approve { "Approved" } else { "Rejected" };
    output.data(
        format!("{word} request {request}"),
        &json!({ "request": request, "approved": approve }),
    );
    Ok(Exit::Done)
}

fn list(dir: &AuthorityDir, output: &Output) -> Outcome<Exit> {
    let authority = Authority::open(&dir.dir)?;
    for member in &authority.state.registry.members {
        let standing = match member.standing {
            Standing::Active => "active",
            Standing::Suspended(_) => "suspended",
            Standing::Revoked(_) => "revoked",
        };
        let roles: Vec<&str> = member
            .roles
            .iter()
            .map(|role| match role {
                MemberRole::IndexHolder => "index-holder",
                MemberRole::TokenAuthority => "token-authority",
                MemberRole::Witness => "witness",
                MemberRole::Relay => "relay",
            })
            .collect();
        output.data(
            format!(
                "member   {}  {}  {standing}  {}",
                member.org,
                member.name,
                roles.join(", ")
            ),
            &json!({
                "member": member.org.as_str(), "name": member.name, "standing": standing, "roles": roles,
                "nodes": member.nodes.iter().map(|node| node.key.to_hex()).collect::<Vec<_>>(),
            }),
        );
    }
    for request in authority
        .state
        .requested
        .iter()
        .filter(|request| request.decision == Decision::Waiting)
    {
        let name = authority
            .state
            .invited
            .iter()
            .find(|invited| invited.used == Some(request.id))
            .map(|invited| invited.name.clone())
            .or_else(|| {
                let (member, _) = authority.state.registry.node(&request.beside?)?;
                Some(format!("{} (new key)", member.name))
            });
        let words = check_words(request.node.as_bytes()).join(" ");
        output.data(
            format!("request  {}  {}  {words}", request.id, name.clone().unwrap_or_default()),
            &json!({ "request": request.id, "name": name, "words": words }),
        );
    }
    Ok(Exit::Done)
}

/// Runs `hie invite`.
pub fn invite(invite: Invite, output: &Output) -> Outcome<Exit> {
    let guest = Guest {
        org: organisation(&invite.organisation)?,
        name: invite.name,
        kind: match invite.kind {
            Kind::Hospital => MemberKind::Hospital,
            Kind::Clinic => MemberKind::Clinic,
            Kind::ImagingCentre => MemberKind::ImagingCentre,
            Kind::Laboratory => MemberKind::Laboratory,
            Kind::Other => MemberKind::Other,
        },
        roles: member_roles(&invite.roles),
        phone: invite.phone,
        days: invite.days,
    };
    let invitation = Authority::open(&invite.dir)?.invite(guest, clock::now())?;
    let text = invitation.to_text().to_string();
    if let Some(path) = invite.out {
        write_private(&path, text.as_bytes()).map_err(Fault::because(
            Exit::Failed,
            "Cannot write the invitation.",
            "Check --out.",
        ))?;
        output.say(format!("Wrote {}", path.display()));
    } else {
        output.data(&text, &json!({ "invitation": text }));
    }
    Ok(Exit::Done)
}
