//! `hie doctor`: checks everything, says what is wrong and how to fix it.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use crate::assemble::{held_registry, identity};
use crate::authority::DAY_MS;
use crate::cli::output::Output;
use crate::clock;
use crate::config::Config;
use crate::fault::{Exit, Fault, Outcome};
use crate::home::Home;
use crate::join::{Membership, Patience, authority_client, newer_registry};
use crate::moment::write_words;
use crate::renew;
use crate::socket;

/// Grade of a check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Ok,
    Warn,
    Fail,
}

/// What was checked, and what was found.
struct Finding {
    grade: Grade,
    what: &'static str,
    words: String,
    fix: Option<String>,
}

fn ok(what: &'static str, words: impl Into<String>) -> Finding {
    Finding {
        grade: Grade::Ok,
        what,
        words: words.into(),
        fix: None,
    }
}

fn found(grade: Grade, what: &'static str, fault: Fault) -> Finding {
    Finding {
        grade,
        what,
        words: format!("{} {}", fault.what, fault.why),
        fix: Some(fault.fix),
    }
}

/// Runs the checks.
pub async fn run(home: &Home, output: &Output) -> Outcome<Exit> {
    let mut findings = Vec::new();
    let config = match Config::load(home) {
        Ok(config) => {
            findings.push(ok("config", home.config().display().to_string()));
            Some(config)
        }
        Err(fault) => {
            findings.push(found(Grade::Fail, "config", fault));
            None
        }
    };
    findings.push(private("node key", &home.node_key()));
    findings.push(private("store key", &home.kek()));
    membership(home, &mut findings).await;
    let running = socket::is_served(&home.socket()).await;
    findings.push(ok("node", if running { "runs" } else { "does not run" }));
    if let Some(config) = config.filter(|_| !running) {
        for (what, address) in [
            ("web", config.web.listen),
            ("control", config.peers.control),
            ("bulk", config.peers.bulk),
        ] {
            findings.push(match TcpListener::bind(address) {
                Ok(_) => ok(what, format!("{address} is free")),
                Err(error) => found(
                    Grade::Fail,
                    what,
                    Fault::new(
                        Exit::Failed,
                        format!("{address} cannot be used:"),
                        error,
                        "Choose another address in the configuration.",
                    ),
                ),
            });
        }
    }
    Ok(report(&findings, output))
}

async fn membership(home: &Home, findings: &mut Vec<Finding>) {
    let membership = match Membership::load(home) {
        Ok(membership) => membership,
        Err(fault) => return findings.push(found(Grade::Fail, "membership", fault)),
    };
    let registry = match held_registry(home, &membership) {
        Ok(registry) => registry,
        Err(fault) => return findings.push(found(Grade::Fail, "registry", fault)),
    };
    findings.push(ok(
        "registry",
        format!(
            "{}, version {}, {} members",
            registry.region,
            registry.version,
            registry.members.len()
        ),
    ));
    let key = hie_node_pki::key::Key::load(&home.node_key());
    let key = key.map_err(Fault::because(
        Exit::Config,
        "The node's key cannot be used.",
        "Restore it.",
    ));
    findings.push(match key.and_then(|key| identity(home, &key)) {
        Ok(identity) => {
            let (facts, now) = (identity.facts(), clock::now());
            let (left, until) = (facts.not_after.since(now), write_words(facts.not_after));
            match renew::outlook(facts, now) {
                None => ok(
                    "certificate",
                    format!(
                        "to {until}, {} days and {} hours left; renewed by itself from {}",
                        left / DAY_MS,
                        left / 3_600_000 % 24,
                        write_words(renew::due(facts))
                    ),
                ),
                Some(words) => {
                    let grade = if left == 0 { Grade::Fail } else { Grade::Warn };
                    let fix = "Check that the region authority is reachable; past the end, join with a new invitation.";
                    found(grade, "certificate", Fault::new(Exit::Config, words, "", fix))
                }
            }
        }
        Err(fault) => found(Grade::Fail, "certificate", fault),
    });
    let client = membership.fingerprint().and_then(authority_client);
    let asked = match client {
        Ok(client) => newer_registry(&client, &membership.authority, registry.version, Patience::None).await,
        Err(fault) => Err(fault),
    };
    findings.push(match asked {
        Ok(_) => ok("authority", format!("{} answers", membership.authority)),
        Err(fault) => found(Grade::Warn, "authority", fault),
    });
}

/// A secret file must exist and be readable by its owner only.
fn private(what: &'static str, path: &Path) -> Finding {
    let fix = format!("chmod 600 {}", path.display());
    match std::fs::metadata(path) {
        Ok(facts) if facts.permissions().mode() & 0o077 == 0 => ok(what, path.display().to_string()),
        Ok(_) => found(
            Grade::Fail,
            what,
            Fault::new(Exit::Config, "Others can read", path.display(), fix),
        ),
        Err(error) => found(
            Grade::Fail,
            what,
            Fault::new(
                Exit::Config,
                format!("{}:", path.display()),
                error,
                "Run `hie init`, or restore it from a backup.",
            ),
        ),
    }
}

fn report(findings: &[Finding], output: &Output) -> Exit {
    let count = |grade: Grade| findings.iter().filter(|finding| finding.grade == grade).count();
    for finding in findings {
        let grade = match finding.grade {
            Grade::Ok => "ok",
            Grade::Warn => "warn",
            Grade::Fail => "FAIL",
        };
        let fix = finding
            .fix
            .as_ref()
            .map_or_else(String::new, |fix| format!("\n        Fix: {fix}"));
        let text = format!("{grade:<5} {:<14} {}{fix}", finding.what, finding.words);
        output.data(
            text,
            &json!({ "check": finding.what, "grade": grade, "words": finding.words, "fix": finding.fix }),
        );
    }
    output.say(format!(
        "{} failed, {} warning(s), {} ok",
        count(Grade::Fail),
        count(Grade::Warn),
        count(Grade::Ok)
    ));
    if count(Grade::Fail) == 0 {
        Exit::Done
    } else {
        Exit::Failed
    }
}
