//! A region with a hostile member, and what must hold after every script: nothing that was refused left a trace but
//! its count, and everybody else is served.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hie_gateway_dialect::fhir::fixture::Site;
use hie_protocol::registry::MemberKind;
use serde_json::Value;

use super::{Evil, scripts};
use crate::region::{Guise, Node, Region, grace, kind, until};

/// Longest time in which an honest member's question must be answered while scripts run.
pub const HONEST_MS_MAX: u64 = 5_000;
/// Name of the hostile member.
pub const EVIL: &str = "Evil Clinic";

/// What became of a script.
#[derive(Debug)]
pub struct Verdict {
    /// Script.
    pub name: &'static str,
    /// Threat.
    pub threat: &'static str,
    /// What it achieved, or what else went wrong; none when all is well.
    pub fault: Option<String>,
    /// How long an honest question took right after it, in milliseconds.
    pub honest_ms: u64,
    /// How long it ran, in milliseconds.
    pub ms: u64,
}

/// The stage.
pub struct Stage {
    /// The node under attack.
    pub city: Node,
    /// An honest member.
    pub anne: Node,
    /// The hostile one.
    pub evil: Arc<Evil>,
    _region: Region,
}

impl Stage {
    /// Makes the region; the hostile member joins first, so that it keeps an old registry.
    pub async fn open() -> Self {
        let region = Region::new().await;
        let guise = Guise {
            slug: "evil",
            name: EVIL,
            urn: "urn:oid:2.999.7.66",
            kind: MemberKind::Clinic,
            token_authority: false,
            relay: false,
            outbound_only: false,
            relays: &[],
        };
        let mut gone = region.join(guise).await;
        let older = std::fs::read(gone.home.registry()).unwrap();
        let (city, anne) = (region.join(Site::CityGeneral).await, region.join(Site::StAnne).await);
        region.fill(&city, Site::CityGeneral).await;
        region.fill(&anne, Site::StAnne).await;
        let both = |answer: &crate::region::Answer| answer.givers().len() == 2;
        anne.find_until(&grace(), "both answer", both).await;
        gone.stop().await;
        let registry = region.authority(|authority| authority.state.registry.clone()).await;
        let evil = Arc::new(Evil::new(&gone.home, registry, older, &city.org, &anne.org));
        Self {
            city,
            anne,
            evil,
            _region: region,
        }
    }

    /// How often the node has counted this kind of offence of the hostile member, by its status.
    async fn counted(&self, offence: &str) -> u64 {
        let status = self.city.status().await;
        let conduct = status["conduct"].as_array().cloned().unwrap_or_default();
        let its = |line: &&Value| line["organisation"] == self.evil.org.as_str() && line["offence"] == offence;
        conduct
            .iter()
            .find(its)
            .and_then(|line| line["times"].as_u64())
            .unwrap_or_default()
    }

    /// An honest question; its time, and what is wrong with it.
    async fn honest(&self) -> (u64, Option<String>) {
        let begun = Instant::now();
        let answer = self.anne.find(&grace(), crate::region::asker("haddad")).await;
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let wanted: BTreeSet<String> = [Site::CityGeneral, Site::StAnne]
            .map(|site| site.name().to_owned())
            .into();
        let fault = if answer.givers() != wanted {
            Some(format!("only {:?} answer an honest question", answer.givers()))
        } else if ms > HONEST_MS_MAX {
            Some(format!("an honest question took {ms} ms"))
        } else {
            None
        };
        (ms, fault)
    }

    /// Runs every script, one after the other.
    pub async fn run(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for script in scripts() {
            let before = match script.counted {
                Some(offence) => self.counted(offence).await,
                None => 0,
            };
            let begun = Instant::now();
            let found = tokio::time::timeout(Duration::from_secs(60), (script.act)(Arc::clone(&self.evil)));
            let found = found.await.unwrap_or_else(|_| Err("it does not end".to_owned()));
            let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let mut fault = found.err();
            if let (None, Some(offence)) = (&fault, script.counted)
                && self.counted(offence).await <= before
            {
                fault = Some(format!("it was not counted as {offence}"));
            }
            let (honest_ms, honest) = self.honest().await;
            verdicts.push(Verdict {
                name: script.name,
                threat: script.threat,
                fault: fault.or(honest),
                honest_ms,
                ms,
            });
        }
        verdicts
    }

    /// Every kind of offence that was counted is in the audit log, by name of the member.
    pub async fn audited(&self) -> BTreeSet<String> {
        let kinds: BTreeSet<&str> = scripts().iter().filter_map(|script| script.counted).collect();
        until("every kind of offence is in the audit log", || async {
            let log = self.city.log().await;
            let refusals = log.iter().filter(|entry| kind(entry) == "peer-refused");
            let words: Vec<String> = refusals.map(Value::to_string).collect();
            let there = |offence: &&&str| {
                words
                    .iter()
                    .any(|words| words.contains(&format!("{offence}, ")) && words.contains(self.evil.org.as_str()))
            };
            let found: BTreeSet<String> = kinds.iter().filter(there).map(|kind| (*kind).to_owned()).collect();
            (found.len() == kinds.len()).then_some(found)
        })
        .await
    }
}
