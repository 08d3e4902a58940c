//! `hie authority officer|pending|approve|roles|node`: the officers' part in what the region office grants.
//!
//! An officer's key stays on the officer's own machine. A change travels there as one line of text that holds the
//! registry in force and the one proposed, so that the officer sees the difference and signs the charter that this
//! machine computed by itself; the approval travels back as one line.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hie_node_pki::key::Key;
use hie_protocol::bytes::Bytes;
use hie_protocol::cbor;
use hie_protocol::charter::Approval;
use hie_protocol::id::{NodeKey, PublicKey};
use hie_protocol::registry::{MemberRole, Officer, Officers, REGISTRY_BYTES_MAX, Registry};
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Authority;
use super::change::{Change, Effect, differences};
use super::command::{member_roles, organisation};
use super::enrol::sha256;
use crate::cli::arguments::{AuthorityApprove, AuthorityPending, NodeCommand, OfficerCommand, RolesCommand};
use crate::cli::output::Output;
use crate::clock;
use crate::fault::{Exit, Fault, Outcome};
use crate::home::write_private;
use crate::join::root_public;

/// What an exported change begins with.
pub const CHANGE_PREFIX: &str = "hie-change1-";
/// What an exported approval begins with.
pub const APPROVAL_PREFIX: &str = "hie-approval1-";
/// Largest exported text, in bytes.
pub const TEXT_BYTES_MAX: usize = 4 * REGISTRY_BYTES_MAX;

/// A change on its way to an officer.
#[derive(Serialize, Deserialize)]
struct Exported {
    /// Its number at the region office.
    id: u64,
    /// Lowest registry version that the approval is for.
    from: u64,
    /// The registry in force, signed.
    before: Bytes,
    /// The registry proposed: deterministic CBOR, unsigned.
    after: Bytes,
}

/// An approval on its way back.
#[derive(Serialize, Deserialize)]
struct Returned {
    /// Number of the change.
    id: u64,
    /// The signed approval.
    approval: Bytes,
}

fn write_text<T: Serialize>(prefix: &str, value: &T) -> Outcome<String> {
    let bytes = cbor::encode(value).map_err(Fault::because(Exit::Failed, "It cannot be written.", "Report this."))?;
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Reads what [`write_text`] wrote, from a file.
fn read_text<T: Serialize + serde::de::DeserializeOwned>(prefix: &str, path: &Path) -> Outcome<T> {
    let what = format!("{} cannot be used.", path.display());
    let fix = "Copy the whole line as `hie authority` printed it.";
    let size = std::fs::metadata(path)
        .map_err(Fault::because(Exit::Usage, &what, fix))?
        .len();
    if size > u64::try_from(TEXT_BYTES_MAX).unwrap_or(u64::MAX) {
        return Err(Fault::new(Exit::Usage, what, "it is too large", fix));
    }
    let text = std::fs::read_to_string(path).map_err(Fault::because(Exit::Usage, &what, fix))?;
    let encoded = text.trim().strip_prefix(prefix).ok_or_else(|| {
        Fault::new(
            Exit::Usage,
            what.clone(),
            format!("it does not begin with {prefix}"),
            fix,
        )
    })?;
    let bytes = URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(Fault::because(Exit::Usage, &what, fix))?;
    cbor::decode(&bytes, TEXT_BYTES_MAX).map_err(Fault::because(Exit::Usage, &what, fix))
}

fn give(text: &str, out: Option<PathBuf>, output: &Output) -> Outcome<()> {
    match out {
        Some(path) => {
            write_private(&path, text.as_bytes()).map_err(Fault::because(
                Exit::Failed,
                "Cannot write the file.",
                "Check --out.",
            ))?;
            output.say(format!("Wrote {}", path.display()));
        }
        None => output.data(text, &json!({ "text": text })),
    }
    Ok(())
}

/// Says what became of a change.
pub(super) fn say(effect: Effect, output: &Output) -> Exit {
    match effect {
        Effect::Done(version) => output.data(
            format!("In force with registry version {version}"),
            &json!({ "registry": version }),
        ),
        Effect::Pending(id) => {
            output.data(format!("Change {id} waits for officers"), &json!({ "change": id }));
            output.say(format!("Next: hie authority pending --export {id}"));
        }
    }
    Exit::Done
}

/// Reads `NAME=PUBLIC KEY IN HEX`.
fn read_officer(text: &str) -> Outcome<Officer> {
    let wrong = |why: String| {
        Fault::new(
            Exit::Usage,
            format!("{text} is no officer."),
            why,
            "Write NAME=KEY with the key that `hie authority officer key` printed.",
        )
    };
    let (name, key) = text.rsplit_once('=').ok_or_else(|| wrong("it has no =".into()))?;
    let public = PublicKey::from_hex(key.trim()).map_err(|error| wrong(error.to_string()))?;
    Ok(Officer {
        name: name.trim().to_owned(),
        public,
    })
}

/// Runs `hie authority officer`.
pub fn officer(command: OfficerCommand, output: &Output) -> Outcome<Exit> {
    match command {
        OfficerCommand::Key { out } => {
            let failed = "Cannot make the officer's key.";
            let key =
                Key::generate(&SystemRandom::new()).map_err(Fault::because(Exit::Failed, failed, "Report this."))?;
            key.save(&out)
                .map_err(Fault::because(Exit::Failed, failed, "Choose another file."))?;
            output.say("Keep this file on the officer's own machine.");
            let public = key.public().to_hex();
            output.data(&public, &json!({ "public": public }));
            Ok(Exit::Done)
        }
        OfficerCommand::Add {
            dir,
            officers,
            approvals,
        } => {
            let mut authority = Authority::open(&dir)?;
            let mut rule = authority.state.registry.policy.officers.clone().unwrap_or(Officers {
                approvals: 1,
                officers: Vec::new(),
            });
            for text in &officers {
                rule.officers.push(read_officer(text)?);
            }
            rule.approvals = approvals.unwrap_or(rule.approvals);
            Ok(say(
                authority.grant(Change::Officers(Some(rule)), clock::now())?,
                output,
            ))
        }
        OfficerCommand::Remove { dir, name, approvals } => {
            let mut authority = Authority::open(&dir)?;
            let mut rule = authority.state.registry.policy.officers.clone();
            if let Some(rule) = &mut rule {
                rule.officers.retain(|officer| officer.name != name);
                rule.approvals = approvals.unwrap_or(rule.approvals);
            }
            let rule = rule.filter(|rule| !rule.officers.is_empty());
            Ok(say(authority.grant(Change::Officers(rule), clock::now())?, output))
        }
        OfficerCommand::List(dir) => {
            let authority = Authority::open(&dir.dir)?;
            let Some(rule) = &authority.state.registry.policy.officers else {
                output.data("No officers: the region office acts alone", &json!({ "approvals": 0 }));
                return Ok(Exit::Done);
            };
            for officer in &rule.officers {
                let key = officer.public.to_hex();
                output.data(
                    format!("officer  {}  {key}", officer.name),
                    &json!({ "officer": officer.name, "public": key }),
                );
            }
            output.data(
                format!("{} of {} approve", rule.approvals, rule.officers.len()),
                &json!({ "approvals": rule.approvals, "officers": rule.officers.len() }),
            );
            Ok(Exit::Done)
        }
    }
}

/// Runs `hie authority roles`.
pub fn roles(command: &RolesCommand, output: &Output) -> Outcome<Exit> {
    let roles: Vec<MemberRole> = member_roles(&command.roles);
    let org = organisation(&command.organisation)?;
    let mut authority = Authority::open(&command.dir)?;
    Ok(say(
        authority.grant(Change::Roles { org, roles }, clock::now())?,
        output,
    ))
}

/// Runs `hie authority node`.
pub fn node(command: &NodeCommand, output: &Output) -> Outcome<Exit> {
    let NodeCommand::Remove {
        dir,
        organisation: org,
        node,
    } = command;
    let org = organisation(org)?;
    let node = NodeKey::from_hex(node).map_err(Fault::because(
        Exit::Usage,
        "This is no node key.",
        "Write the 64 hex digits that `hie authority list --json` shows.",
    ))?;
    let mut authority = Authority::open(dir)?;
    Ok(say(
        authority.grant(Change::DropNode { org, node }, clock::now())?,
        output,
    ))
}

/// Runs `hie authority pending`.
pub fn pending(command: AuthorityPending, output: &Output) -> Outcome<Exit> {
    let mut authority = Authority::open(&command.dir)?;
    if let Some(id) = command.withdraw {
        authority.withdraw(id)?;
        output.data(format!("Withdrew change {id}"), &json!({ "withdrawn": id }));
        return Ok(Exit::Done);
    }
    if let Some(id) = command.export {
        let after = authority.proposal(id)?;
        let after = cbor::encode(&after).map_err(Fault::because(
            Exit::Failed,
            "The change cannot be written.",
            "Report this.",
        ))?;
        let exported = Exported {
            id,
            from: authority.pending(id)?.from,
            before: authority.state.signed.clone(),
            after: Bytes(after),
        };
        give(&write_text(CHANGE_PREFIX, &exported)?, command.out, output)?;
        return Ok(Exit::Done);
    }
    for pending in &authority.state.pending {
        let (have, need) = authority.approvals(pending);
        let lines = authority
            .proposal(pending.id)
            .map(|after| differences(&authority.state.registry, &after))?;
        output.data(
            format!(
                "change {}  {have} of {need} approvals\n  {}",
                pending.id,
                lines.join("\n  ")
            ),
            &json!({
                "change": pending.id, "kind": pending.change.word(), "have": have, "need": need, "says": lines,
            }),
        );
    }
    Ok(Exit::Done)
}

/// Runs `hie authority approve` for a change, at the region office or on an officer's machine.
pub fn approve(command: AuthorityApprove, output: &Output) -> Outcome<Exit> {
    let usage = |why: &str| {
        Fault::new(
            Exit::Usage,
            "It is not clear what to approve.",
            why,
            "See `hie authority approve --help`.",
        )
    };
    if let Some(path) = &command.approval {
        let dir = command.dir.as_ref().ok_or_else(|| usage("--approval needs --dir"))?;
        let returned: Returned = read_text(APPROVAL_PREFIX, path)?;
        let mut authority = Authority::open(dir)?;
        let effect = authority.approve(returned.id, returned.approval.0, clock::now())?;
        return Ok(say(effect, output));
    }
    let path = command
        .officer_key
        .as_ref()
        .ok_or_else(|| usage("no officer's key is named"))?;
    let key = Key::load(path).map_err(Fault::because(
        Exit::Config,
        "The officer's key cannot be used.",
        "Name the file that `hie authority officer key` wrote.",
    ))?;
    match (&command.dir, command.number, &command.change) {
        (Some(dir), Some(id), None) => {
            let mut authority = Authority::open(dir)?;
            let pending = authority.pending(id)?;
            let approval = Approval {
                region: authority.state.registry.region.clone(),
                charter: pending.charter,
                from: pending.from,
            };
            let signed = sign(&approval, &key)?;
            Ok(say(authority.approve(id, signed, clock::now())?, output))
        }
        (None, None, Some(file)) => sign_exported(file, &key, command.out, output),
        _ => Err(usage("name --dir and the number of a change, or --change and its file")),
    }
}

fn sign(approval: &Approval, key: &Key) -> Outcome<Vec<u8>> {
    approval.sign(key).map_err(Fault::because(
        Exit::Failed,
        "The approval cannot be signed.",
        "Report this.",
    ))
}

/// On an officer's machine: shows what a change does, and signs the charter computed from it here.
fn sign_exported(file: &Path, key: &Key, out: Option<PathBuf>, output: &Output) -> Outcome<Exit> {
    let untrusted = |error: &dyn std::error::Error| {
        Fault::new(
            Exit::Refused,
            "This change is not to be trusted.",
            crate::fault::chain(error),
            "Ask the region office to export it again.",
        )
    };
    let exported: Exported = read_text(CHANGE_PREFIX, file)?;
    let after: Registry = cbor::decode(&exported.after.0, REGISTRY_BYTES_MAX).map_err(|error| untrusted(&error))?;
    let root = root_public(&after.root)?;
    let before = Registry::verify(&exported.before.0, root, None).map_err(|error| untrusted(&error))?;
    let charter = after.charter().map_err(|error| untrusted(&error))?;
    output.say(format!(
        "Region   {}   root sha256 {}",
        before.region,
        sha256(&before.root)
    ));
    for line in differences(&before, &after) {
        output.say(format!("  {line}"));
    }
    let approval = Approval {
        region: before.region,
        charter,
        from: exported.from,
    };
    let returned = Returned {
        id: exported.id,
        approval: Bytes(sign(&approval, key)?),
    };
    give(&write_text(APPROVAL_PREFIX, &returned)?, out, output)?;
    Ok(Exit::Done)
}
