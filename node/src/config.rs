//! The node's configuration: one small TOML, every fault reported at once, unknown keys refused with a guess.
//!
//! Order: file, then `HIE_SECTION__KEY` from the environment. Secrets are only ever named by file path.

use std::net::SocketAddr;
use std::path::PathBuf;

use hie_node_core::exchange::budget::Allowance;
use hie_protocol::id::OrgId;
use hie_protocol::version::{ProtocolVersion, SPOKEN};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::fault::{Exit, Fault, Outcome};
use crate::home::Home;

/// Largest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 256 * 1024;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// This node.
    pub node: NodeSection,
    /// The web server.
    pub web: WebSection,
    /// The channels to other nodes.
    #[serde(default)]
    pub peers: PeersSection,
    /// Allowance that this node, as a token authority, answers other members and their users.
    #[serde(default, skip_serializing_if = "is_default")]
    pub budgets: Allowance,
}

fn is_default(budgets: &Allowance) -> bool {
    *budgets == Allowance::default()
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSection {
    /// Name as shown to others.
    pub name: String,
    /// OID URN of the organisation; written by `join`.
    pub organisation: Option<OrgId>,
}

/// `[web]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSection {
    /// Address of the FHIR, DICOMweb and console server.
    pub listen: SocketAddr,
    /// Public base URL; absolute links are made from it, never from a Host header.
    pub base: Option<String>,
    /// Plain HTTP; only on loopback.
    #[serde(default)]
    pub plain: bool,
    /// Certificate chain, PEM.
    pub certificate_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
}

/// `[peers]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersSection {
    /// Control channel.
    pub control: SocketAddr,
    /// Bulk lane.
    pub bulk: SocketAddr,
    /// Host name or address that others dial; the listen address where absent.
    pub host: Option<String>,
    /// Listen nowhere and dial everybody: for a node behind a firewall.
    #[serde(default)]
    pub outbound_only: bool,
    /// Members through which the node is reached by others that cannot be dialled either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<OrgId>,
    /// Protocol versions to speak; all where absent. Only to try out how an older node would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<Vec<u16>>,
}

impl PeersSection {
    /// Versions to speak, newest first.
    #[must_use]
    pub fn spoken(&self) -> Vec<ProtocolVersion> {
        let chosen = |version: &ProtocolVersion| self.versions.as_ref().is_none_or(|some| some.contains(&version.0));
        SPOKEN.into_iter().filter(chosen).collect()
    }
}

impl Default for PeersSection {
    fn default() -> Self {
        Self {
            control: SocketAddr::from(([0, 0, 0, 0], 8443)),
            bulk: SocketAddr::from(([0, 0, 0, 0], 8444)),
            host: None,
            outbound_only: false,
            relays: Vec::new(),
            versions: None,
        }
    }
}

/// Known keys by section, for the guess at unknown ones.
const KEYS: &[(&str, &[&str])] = &[
    ("node", &["name", "organisation"]),
    ("web", &["listen", "base", "plain", "certificate_file", "key_file"]),
    (
        "peers",
        &["control", "bulk", "host", "outbound_only", "relays", "versions"],
    ),
    (
        "budgets",
        &[
            "user_at_once",
            "user_per_hour",
            "member_at_once",
            "member_per_day",
            "outstanding",
        ],
    ),
];

impl Config {
    /// Reads and checks `<home>/hie.toml`; all faults in one [`Fault`].
    pub fn load(home: &Home) -> Outcome<Self> {
        let path = home.config();
        let fix = "Run `hie init` first, or name the folder with --home.";
        let size = std::fs::metadata(&path)
            .map_err(Fault::because(
                Exit::Config,
                &format!("Cannot read {}.", path.display()),
                fix,
            ))?
            .len();
        if size > CONFIG_BYTES_MAX {
            let why = format!("it has {size} bytes, the limit is {CONFIG_BYTES_MAX}");
            return Err(Fault::new(
                Exit::Config,
                format!("{} is too large.", path.display()),
                why,
                "Check the file.",
            ));
        }
        let text = std::fs::read_to_string(&path).map_err(Fault::because(
            Exit::Config,
            &format!("Cannot read {}.", path.display()),
            fix,
        ))?;
        Self::parse(&text, std::env::vars()).map_err(|faults| {
            Fault::new(
                Exit::Config,
                format!("{} has {} fault(s).", path.display(), faults.len()),
                faults.join("; "),
                "Correct the file, then run `hie config check`.",
            )
        })
    }

    /// Parses the text and applies the environment. Errors: every fault found.
    pub fn parse(text: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Self, Vec<String>> {
        let mut table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| vec![error.message().to_owned()])?;
        let mut faults = Vec::new();
        for (name, value) in environment {
            let Some(rest) = name.strip_prefix("HIE_") else {
                continue;
            };
            let Some((section, key)) = rest.split_once("__") else {
                continue;
            };
            let entry = table
                .entry(section.to_lowercase())
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(keys) = entry {
                let parsed = match (value.parse::<bool>(), value.parse::<i64>()) {
                    (Ok(word), _) => Value::Boolean(word),
                    // Only budgets are numbers: a name or a port may look like one.
                    (_, Ok(number)) if section.eq_ignore_ascii_case("budgets") => Value::Integer(number),
                    _ => Value::String(value),
                };
                keys.insert(key.to_lowercase(), parsed);
            }
        }
        unknown_keys(&table, &mut faults);
        let config = match Value::Table(table).try_into::<Self>() {
            Ok(config) => {
                config.rules(&mut faults);
                Some(config)
            }
            Err(error) => {
                faults.push(error.message().to_owned());
                None
            }
        };
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(faults),
        }
    }

    fn rules(&self, faults: &mut Vec<String>) {
        if self.node.name.trim().is_empty() {
            faults.push("node.name is empty: write the organisation's name".into());
        }
        if self.web.plain && !self.web.listen.ip().is_loopback() {
            faults.push("web.plain needs a loopback address in web.listen: use TLS elsewhere".into());
        }
        if self.web.certificate_file.is_some() != self.web.key_file.is_some() {
            faults.push("web.certificate_file and web.key_file go together".into());
        }
    }

    /// The configuration as TOML text.
    pub fn to_toml(&self) -> Outcome<String> {
        toml::to_string(self).map_err(Fault::because(
            Exit::Config,
            "Cannot write the configuration.",
            "Report this.",
        ))
    }
}

fn unknown_keys(table: &Table, faults: &mut Vec<String>) {
    let sections: Vec<&str> = KEYS.iter().map(|(section, _)| *section).collect();
    for (section, value) in table {
        let Some((_, keys)) = KEYS.iter().find(|(known, _)| known == section) else {
            faults.push(format!("unknown section [{section}]{}", guess(section, &sections)));
            continue;
        };
        for key in value.as_table().into_iter().flat_map(Table::keys) {
            if !keys.contains(&key.as_str()) {
                faults.push(format!("unknown key {section}.{key}{}", guess(key, keys)));
            }
        }
    }
}

/// `, did you mean x?` for the closest known word within three edits.
fn guess(word: &str, known: &[&str]) -> String {
    let best = known
        .iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .min();
    match best {
        Some((edits, candidate)) if edits <= 3 => format!(", did you mean {candidate}?"),
        _ => String::new(),
    }
}

/// Levenshtein distance in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, from) in left.chars().enumerate() {
        let mut diagonal = line;
        let mut before = line + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&right) {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = *cell;
            before = substituted.min(diagonal + 1).min(before + 1);
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Config, distance};

    const GOOD: &str = "[node]\nname = \"Harbour GP\"\n[web]\nlisten = \"127.0.0.1:8080\"\nplain = true\n";

    #[test]
    fn a_small_file_is_enough_and_is_written_back() {
        let config = Config::parse(GOOD, std::iter::empty()).unwrap();
        assert_eq!(
            Config::parse(&config.to_toml().unwrap(), std::iter::empty()).unwrap(),
            config
        );
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let environment = [
            ("HIE_NODE__NAME".to_owned(), "Other".to_owned()),
            ("PATH".to_owned(), "x".to_owned()),
        ];
        assert_eq!(Config::parse(GOOD, environment.into_iter()).unwrap().node.name, "Other");
        let environment = [("HIE_BUDGETS__USER_AT_ONCE".to_owned(), "5".to_owned())];
        let budgets = Config::parse(GOOD, environment.into_iter()).unwrap().budgets;
        assert_eq!((budgets.user_at_once, budgets.user_per_hour), (5, 60));
    }

    #[test]
    fn all_faults_come_at_once_with_a_guess() {
        let text = "[node]\nname = \"\"\nnmae = \"x\"\n[wb]\n[web]\nlisten = \"10.0.0.1:80\"\nplain = true\n";
        let faults = Config::parse(text, std::iter::empty()).unwrap_err().join("\n");
        for part in [
            "unknown key node.nmae, did you mean name?",
            "unknown section [wb], did you mean web?",
            "loopback",
            "node.name is empty",
        ] {
            assert!(faults.contains(part), "{part} in {faults}");
        }
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(
            (
                distance("kitten", "sitting"),
                distance("", "abc"),
                distance("same", "same")
            ),
            (3, 3, 0)
        );
    }
}
