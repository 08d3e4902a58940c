//! Carries out orders of the command line, on a running node or on the store of a stopped one.

mod ask;
mod fetch;
mod visible;

use std::sync::Arc;

use hie_gateway::ports::{Caller, Principal};
use hie_node_core::account::NewAccount;
use hie_node_core::audit::event::{Actor, AuditEvent, EventKind};
use hie_node_core::ids::PatientKey;
use hie_node_core::kv::Batch;
use hie_node_core::ports::{blocking, random_bytes};
use hie_node_core::record::publish::{Body, NewDocument, Occasion};
use hie_node_federation::owner::visible::Visibility;
use hie_protocol::claim::{BreakGlass, BreakGlassReason};
use hie_protocol::id::{Correlation, DocumentId, OrgId};
use hie_protocol::message::DocumentMeta;
use hie_protocol::registry::Registry;
use hie_protocol::vocabulary::{Confidentiality, DocumentClass, Purpose, Role, Sensitivity};
use serde_json::{Value, json};

use crate::assemble::{Region, Trade};
use crate::desk::records::RecordsDesk;
use crate::fault::{Exit, Fault, Outcome, chain};
use crate::intake::{dicom, fhir};
use crate::moment::write_words;
use crate::order::{Asker, Lines, Order};
use crate::renew;

/// Largest document imported, in bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Most entries of one search of the audit log.
pub const AUDIT_ENTRIES_MAX: usize = 500;

/// Carries out orders.
#[derive(Clone)]
pub struct Executor {
    trade: Trade,
    region: Option<Region>,
    records: Option<Arc<RecordsDesk>>,
}

fn broken(what: &str, error: &dyn std::error::Error) -> Fault {
    Fault::new(Exit::Failed, what, chain(error), "See the log; check the disk.")
}

/// Reads `system|value`.
fn pair(text: &str) -> Outcome<(&str, &str)> {
    text.split_once('|').ok_or_else(|| {
        Fault::new(
            Exit::Usage,
            "This is not an identifier.",
            "it has no |",
            "Write system|value, in quotes.",
        )
    })
}

impl Executor {
    /// On a trade, and on a region when the node runs.
    #[must_use]
    pub fn new(trade: Trade, region: Option<Region>, records: Option<Arc<RecordsDesk>>) -> Self {
        Self { trade, region, records }
    }

    /// Carries out an order.
    pub async fn execute(&self, order: Order, lines: Lines) -> Outcome<Exit> {
        match order {
            Order::Status => self.status(&lines).await,
            Order::Find { asker, demographics } => ask::find(self, &asker, demographics, &lines).await,
            Order::Get { asker, reference, out } => fetch::get(self, &asker, reference, &out, &lines).await,
            Order::ImportFhir { path, dry_run } => {
                let outcome = fhir::import(&self.trade.fhir, &path, dry_run, &self.occasion()?, &lines).await;
                self.wake();
                outcome
            }
            Order::ImportDicom { path, dry_run } => {
                let outcome = dicom::import(&self.trade.dicom, &path, dry_run, &self.occasion()?, &lines).await;
                self.wake();
                outcome
            }
            Order::ImportDocument {
                path,
                patient,
                title,
                content_type,
                sensitivity,
            } => {
                let outcome = self
                    .import_document(&path, &patient, title, content_type, &sensitivity, &lines)
                    .await;
                self.wake();
                outcome
            }
            Order::ConsentAdd { asker, path } => self.consent_add(&asker, &path, &lines).await,
            Order::ConsentList { asker, patient } => self.consent_list(&asker, &patient, &lines).await,
            Order::AuditVerify => self.audit_verify(&lines).await,
            Order::AuditSearch {
                asker,
                text,
                emergency,
                limit,
            } => self.audit_search(&asker, text, emergency, limit, &lines).await,
            Order::AccountAdd {
                account,
                name,
                department,
                roles,
                password,
                client,
            } => {
                let new = NewAccount {
                    name: account,
                    shown: name,
                    department,
                    roles: roles_of(&roles)?,
                };
                self.account_add(new, password, client, &lines).await
            }
            Order::AccountList => self.account_list(&lines).await,
        }
    }

    fn wake(&self) {
        if let Some(region) = &self.region {
            region.publisher.wake();
        }
    }

    fn correlation(&self) -> Outcome<Correlation> {
        let bytes = random_bytes::<16>(&*self.trade.random).map_err(|error| broken("No random numbers.", &error))?;
        Ok(Correlation::new(bytes))
    }

    fn occasion(&self) -> Outcome<Occasion> {
        let actor = Actor::system(self.trade.me.clone(), "hie import");
        Ok(Occasion {
            actor,
            correlation: self.correlation()?,
            now: self.trade.clock.now(),
        })
    }

    /// The account in whose name an order is given, with its first role.
    fn caller(&self, asker: &Asker) -> Outcome<Caller> {
        let account = self
            .trade
            .accounts
            .account(&asker.account)
            .map_err(|error| broken("The account cannot be read.", &error))?;
        let account = account.filter(|account| account.enabled).ok_or_else(|| {
            let why = "this node has no such account, or it is closed";
            Fault::new(
                Exit::Refused,
                "Unknown account.",
                why,
                "See `hie account list`; name one with --as.",
            )
        })?;
        let purpose = Purpose::from_code(&asker.purpose);
        if purpose == Purpose::Unknown {
            let known: Vec<&str> = Purpose::ALL.iter().map(|purpose| purpose.code()).collect();
            return Err(Fault::new(
                Exit::Usage,
                "Unknown purpose of use.",
                "it is not in the list",
                format!("Use one of {}.", known.join(", ")),
            ));
        }
        let break_glass = match &asker.emergency {
            None => None,
            Some((reason, words)) => {
                let reason = match reason.as_str() {
                    "life-at-risk" => BreakGlassReason::LifeAtRisk,
                    "care-now" => BreakGlassReason::CareNow,
                    "risk-to-others" => BreakGlassReason::RiskToOthers,
                    _ => {
                        let fix = "Use life-at-risk, care-now or risk-to-others.";
                        return Err(Fault::new(
                            Exit::Usage,
                            "Unknown reason of emergency access.",
                            "it is not in the list",
                            fix,
                        ));
                    }
                };
                Some(BreakGlass {
                    reason,
                    words: words.clone(),
                    declared: self.trade.clock.now(),
                })
            }
        };
        let role = account.roles.first().copied().unwrap_or(Role::Unknown);
        let principal = Principal {
            account: account.name,
            name: account.shown,
            department: account.department,
            roles: account.roles,
        };
        Ok(Caller {
            principal,
            role,
            purpose,
            break_glass,
        })
    }

    /// Refuses an order for which the account lacks the role.
    fn demand(&self, asker: &Asker, role: Role) -> Outcome<Caller> {
        let mut caller = self.caller(asker)?;
        if !caller.principal.roles.contains(&role) {
            let why = format!("the account does not have the role {}", role.code());
            return Err(Fault::new(
                Exit::Refused,
                "Not allowed.",
                why,
                "Use an account with that role.",
            ));
        }
        caller.role = role;
        Ok(caller)
    }

    /// What is known of every other member's node, and how many are reachable.
    async fn peers(&self, registry: &Registry) -> (Vec<Value>, usize) {
        let mut peers = Vec::new();
        let mut reachable = 0_usize;
        if let Some(region) = &self.region {
            for peer in region.peers.status().await {
                let name = registry
                    .member(&peer.org)
                    .map_or_else(|| peer.org.to_string(), |member| member.name.clone());
                reachable = reachable.saturating_add(usize::from(peer.connected));
                peers.push(json!({
                    "name": name, "organisation": peer.org.as_str(), "reachable": peer.connected,
                    "why": peer.last_error.map(|error| error.to_string()), "rtt_ms": peer.rtt_ms,
                    "version": peer.version.map(|version| version.0),
                }));
            }
        }
        (peers, reachable)
    }

    async fn status(&self, lines: &Lines) -> Outcome<Exit> {
        let registry = Arc::clone(&self.trade.registry.borrow());
        let (peers, reachable) = self.peers(&registry).await;
        let waiting = match &self.region {
            Some(region) => region
                .publisher
                .waiting()
                .map_err(|error| broken("The queue cannot be read.", &error))?
                .len(),
            None => 0,
        };
        let visibility = match &self.region {
            Some(region) => region.index.visibility().await.unwrap_or_default(),
            None => Visibility::default(),
        };
        let now = self.trade.clock.now();
        let facts = self
            .region
            .as_ref()
            .map(|region| region.identity.load().facts().clone());
        let certificate = facts.as_ref().map(|facts| write_words(facts.not_after));
        let left_hours = facts.as_ref().map(|facts| facts.not_after.since(now) / 3_600_000);
        let skew = self.region.as_ref().map(|region| region.board.skew());
        let mut needs_you: Vec<String> = facts.iter().filter_map(|facts| renew::outlook(facts, now)).collect();
        needs_you.extend(self.region.iter().flat_map(|region| region.board.needs_you(now)));
        let warnings: String = needs_you.iter().map(|words| format!("\n! {words}")).collect();
        let left = left_hours.unwrap_or(0);
        let (words, conduct) = self.conduct();
        let seen = visible::words(&visibility, &registry);
        let text = format!(
            "{} - member of {} - registry {} - certificate to {} ({} days {} hours left, renews itself)\nPeers {} of {} reachable   audit entries {}   patients waiting for publication {}   clock {:+} ms against {} member(s){warnings}{words}{seen}",
            self.trade.name,
            registry.region,
            registry.version,
            certificate.clone().unwrap_or_default(),
            left / 24,
            left % 24,
            reachable,
            peers.len(),
            self.trade.audit.size(),
            waiting,
            skew.map_or(0, |skew| skew.median_ms),
            skew.map_or(0, |skew| skew.members),
        );
        let value = json!({
            "name": self.trade.name, "organisation": self.trade.me.as_str(), "region": registry.region,
            "registry": registry.version, "certificate_until": certificate, "peers": peers,
            "audit_entries": self.trade.audit.size(), "publications_waiting": waiting,
            "tokens": self.region.as_ref().map(|region| crate::tokens::status(&self.trade, region)),
            "certificate_hours_left": left_hours, "needs_you": needs_you, "conduct": conduct,
            "visibility": visible::value(&visibility), "clock_off_ms": skew.map(|skew| skew.median_ms), "clock_members": skew.map(|skew| skew.members),
        });
        lines.data(text, value).await;
        if let Some(region) = &self.region {
            for words in crate::tokens::words(&registry, &region.tokens.watch) {
                lines.say(words).await;
            }
        }
        Ok(Exit::Done)
    }

    /// What members did against the rules since the start: words, and the same for programs.
    fn conduct(&self) -> (String, Vec<serde_json::Value>) {
        let registry = self.trade.registry.borrow();
        let counts = self.region.as_ref().map(|region| region.peers.ledger().counts());
        let (mut words, mut values) = (String::new(), Vec::new());
        for count in counts.unwrap_or_default() {
            let member = registry.member(&count.org);
            let name = member.map_or_else(|| count.org.to_string(), |member| member.name.clone());
            let (offence, last) = (count.offence.word(), write_words(count.last));
            words.push_str(&format!(
                "\nAgainst the rules: {name}, {offence}, {} times, last {last}",
                count.times
            ));
            values.push(json!({
                "name": name, "organisation": count.org.as_str(), "offence": offence,
                "times": count.times, "last": count.last.0,
            }));
        }
        (words, values)
    }

    async fn import_document(
        &self,
        path: &std::path::Path,
        patient: &str,
        title: String,
        content_type: Option<String>,
        sensitivity: &[String],
        lines: &Lines,
    ) -> Outcome<Exit> {
        let key = self.patient(patient)?;
        let bytes = document_bytes(path)?;
        let codes = sensitivity_of(sensitivity)?;
        let hash = crate::authority::enrol::sha256(&bytes);
        let meta = self.file_meta(path, title, content_type, codes);
        let source = format!("file|{}|{hash}", key.to_hex());
        let known = self
            .trade
            .records
            .by_source(&source)
            .map_err(|error| broken("The store cannot be read.", &error))?;
        if let Some(document) = known {
            lines
                .data(
                    "Already here.",
                    json!({ "document": document.to_hex(), "changed": false }),
                )
                .await;
            return Ok(Exit::Done);
        }
        let new = NewDocument {
            source,
            meta,
            body: Body::Bytes(bytes.into()),
            superseded: false,
            unknown_labels: false,
            author_org: Some(self.trade.me.clone()),
            authors: Vec::new(),
        };
        let taken = self
            .trade
            .intake
            .documents(key, vec![new], Vec::new(), &self.occasion()?)
            .await;
        let taken = taken.map_err(|error| broken("The document cannot be stored.", &error))?;
        for one in taken {
            lines
                .data(
                    "Stored.",
                    json!({ "document": one.document.to_hex(), "changed": one.changed }),
                )
                .await;
        }
        Ok(Exit::Done)
    }

    /// What is said about a document that comes as a file.
    fn file_meta(
        &self,
        path: &std::path::Path,
        title: String,
        content_type: Option<String>,
        codes: Vec<Sensitivity>,
    ) -> DocumentMeta {
        DocumentMeta {
            id: DocumentId::new([0; 16]),
            class: DocumentClass::Note,
            kind: None,
            category: None,
            format: None,
            title,
            author: Some(self.trade.name.clone()),
            content_type: content_type.unwrap_or_else(|| guess_type(path).to_owned()),
            created: Some(self.trade.clock.now()),
            period: None,
            size: None,
            hash: None,
            confidentiality: if codes.is_empty() {
                Confidentiality::Normal
            } else {
                Confidentiality::Restricted
            },
            sensitivity: codes,
            imaging: None,
        }
    }

    /// The patient of an identifier or of the node's own id.
    fn patient(&self, text: &str) -> Outcome<PatientKey> {
        let unknown = || {
            Fault::new(
                Exit::Usage,
                "No such patient.",
                "nobody here has this identifier",
                "Import the patient first.",
            )
        };
        if let Some(key) = PatientKey::from_hex(text) {
            let person = self
                .trade
                .patients
                .person(key)
                .map_err(|error| broken("The store cannot be read.", &error))?;
            return person.map(|_| key).ok_or_else(unknown);
        }
        let (system, value) = pair(text)?;
        let found = self
            .trade
            .patients
            .by_identifier(system, value)
            .map_err(|error| broken("The store cannot be read.", &error))?;
        match found.as_slice() {
            [only] => Ok(*only),
            [] => Err(unknown()),
            _ => Err(Fault::new(
                Exit::Refused,
                "Several patients have this identifier.",
                "sources disagree",
                "Name the node's patient id.",
            )),
        }
    }

    async fn consent_add(&self, asker: &Asker, path: &std::path::Path, lines: &Lines) -> Outcome<Exit> {
        let caller = self.demand(asker, Role::ConsentAdministrator)?;
        let bytes = std::fs::read(path).map_err(Fault::because(
            Exit::Usage,
            "The file cannot be read.",
            "Check the path.",
        ))?;
        let limits = hie_gateway_dialect::fhir::guard::Limits::default();
        let value = hie_gateway_dialect::fhir::guard::parse(&bytes, &limits).map_err(Fault::because(
            Exit::Usage,
            "This is not valid FHIR JSON.",
            "Mend what the reason names.",
        ))?;
        let consents: Vec<Value> = match value.get("resourceType").and_then(Value::as_str) {
            Some("Consent") => vec![value],
            Some("Bundle") => {
                let entries = value
                    .get("entry")
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default();
                let resources = entries.into_iter().filter_map(|entry| entry.get("resource").cloned());
                resources
                    .filter(|resource| resource.get("resourceType").and_then(Value::as_str) == Some("Consent"))
                    .collect()
            }
            _ => {
                return Err(Fault::new(
                    Exit::Usage,
                    "This file has no Consent.",
                    "its resourceType is another",
                    "Give a Consent or a Bundle of them.",
                ));
            }
        };
        let desk = crate::desk::consents::ConsentDesk::new(
            self.trade.clone(),
            self.region.as_ref().map(|region| region.publisher.clone()),
        );
        let mut refused = false;
        for consent in consents {
            match hie_gateway::ports::Consents::create(&desk, &caller, consent).await {
                Ok(stored) => {
                    let id = stored.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
                    lines.data(format!("Recorded consent {id}"), stored).await;
                }
                Err(error) => {
                    refused = true;
                    lines
                        .data(format!("rejected  {}", error.what), json!({ "rejected": error.what }))
                        .await;
                }
            }
        }
        self.wake();
        Ok(if refused { Exit::Partial } else { Exit::Done })
    }

    async fn consent_list(&self, asker: &Asker, patient: &str, lines: &Lines) -> Outcome<Exit> {
        self.demand(asker, Role::ConsentAdministrator)?;
        let key = self.patient(patient)?;
        let consents = self
            .trade
            .policies
            .consents(key)
            .map_err(|error| broken("The consents cannot be read.", &error))?;
        for consent in consents {
            let id = consent.get("id").and_then(Value::as_str).unwrap_or_default();
            let status = consent.get("status").and_then(Value::as_str).unwrap_or_default();
            lines.data(format!("{id}  {status}"), consent.clone()).await;
        }
        Ok(Exit::Done)
    }

    async fn audit_verify(&self, lines: &Lines) -> Outcome<Exit> {
        let trade = self.trade.clone();
        let started = self.trade.clock.now();
        let report = blocking(move || {
            let snapshot = trade
                .kv
                .snapshot()
                .map_err(|error| broken("The store cannot be read.", &error))?;
            hie_node_core::audit::verify::verify(&*snapshot, &trade.vault, &trade.log_identity, &[])
                .map_err(|error| broken("The audit log cannot be read.", &error))
        });
        let report = report.await?;
        let ms = self.trade.clock.now().since(started);
        let value = json!({
            "from": 0, "to": report.size, "complete": report.is_whole(), "altered": !report.is_whole(),
            "first_altered": report.altered.as_ref().map(|altered| altered.first),
            "checkpoint": report.checkpoint_size, "checkpoints": report.checkpoints, "root": report.root.to_hex(), "ms": ms,
        });
        lines.data(report.to_string(), value).await;
        Ok(if report.is_whole() { Exit::Done } else { Exit::Integrity })
    }

    async fn audit_search(
        &self,
        asker: &Asker,
        text: Option<String>,
        emergency: bool,
        limit: usize,
        lines: &Lines,
    ) -> Outcome<Exit> {
        let caller = self.demand(asker, Role::Auditor)?;
        let desk = crate::desk::log::LogDesk::new(self.trade.clone());
        let query = hie_gateway::ports::AccessQuery {
            text,
            emergency_only: emergency,
            period: (None, None),
            before: None,
            limit: limit.min(AUDIT_ENTRIES_MAX),
        };
        let found = hie_gateway::ports::AccessLog::search(&desk, &caller, query).await;
        let (entries, proof) =
            found.map_err(|error| Fault::new(Exit::Failed, "The log cannot be searched.", error.what, "Try again."))?;
        for entry in entries {
            let at = crate::moment::write_fhir(entry.at);
            let value = json!({ "index": entry.index, "at": at, "sentence": entry.sentence, "emergency": entry.emergency, "correlation": entry.correlation, "event": entry.event });
            lines
                .data(format!("{:>8}  {at}  {}", entry.index, entry.sentence), value)
                .await;
        }
        lines
            .say(format!(
                "Log of {} entries, {}",
                proof.size,
                if proof.whole {
                    "every entry shown is proved"
                } else {
                    "NOT every entry shown is proved"
                }
            ))
            .await;
        Ok(if proof.whole { Exit::Done } else { Exit::Integrity })
    }

    async fn account_add(
        &self,
        new: NewAccount,
        password: Option<String>,
        client: bool,
        lines: &Lines,
    ) -> Outcome<Exit> {
        let (trade, correlation) = (self.trade.clone(), self.correlation()?);
        let work = blocking(move || {
            let now = trade.clock.now();
            let failed = |error: hie_node_core::account::AccountError| {
                Fault::new(
                    Exit::Usage,
                    "The account cannot be made.",
                    chain(&error),
                    "Mend what the reason says.",
                )
            };
            let mut batch = Batch::new();
            let name = new.name.clone();
            let shown = if client {
                let (id, token) = trade
                    .accounts
                    .create_client(&new.shown, new.roles.clone(), now, &mut batch)
                    .map_err(failed)?;
                json!({ "client": hex::encode(id), "token": token.as_str() })
            } else {
                let made = trade
                    .accounts
                    .create(new, password.as_deref(), now, &mut batch)
                    .map_err(failed)?;
                json!({ "account": name, "password": made.as_ref().map(|made| made.as_str()) })
            };
            let mut event = AuditEvent::new(
                EventKind::AccountChanged,
                now,
                correlation,
                Actor::system(trade.me.clone(), "hie account"),
            );
            event.detail = Some("account made".to_owned());
            trade
                .audit
                .append(vec![event], batch)
                .map_err(|error| broken("The account cannot be stored.", &error))?;
            Ok::<Value, Fault>(shown)
        });
        let shown = work.await?;
        let secret = shown
            .get("token")
            .or_else(|| shown.get("password"))
            .and_then(Value::as_str);
        let text = secret.map_or_else(|| "Made.".to_owned(), |secret| format!("Made. Shown once: {secret}"));
        lines.data(text, shown.clone()).await;
        Ok(Exit::Done)
    }

    async fn account_list(&self, lines: &Lines) -> Outcome<Exit> {
        let accounts = self
            .trade
            .accounts
            .list()
            .map_err(|error| broken("The accounts cannot be read.", &error))?;
        for account in accounts {
            let roles: Vec<&str> = account.roles.iter().map(|role| role.code()).collect();
            let state = if account.enabled { "open" } else { "closed" };
            let value =
                json!({ "account": account.name, "name": account.shown, "roles": roles, "enabled": account.enabled });
            lines
                .data(
                    format!(
                        "{:<16} {:<24} {state:<7} {}",
                        account.name,
                        account.shown,
                        roles.join(", ")
                    ),
                    value,
                )
                .await;
        }
        let clients = self
            .trade
            .accounts
            .clients()
            .map_err(|error| broken("The clients cannot be read.", &error))?;
        for client in clients {
            let roles: Vec<&str> = client.roles.iter().map(|role| role.code()).collect();
            lines
                .data(
                    format!("{:<16} client", client.name),
                    json!({ "client": client.name, "roles": roles, "enabled": client.enabled }),
                )
                .await;
        }
        Ok(Exit::Done)
    }

    /// Name of an organisation.
    fn name(&self, org: &OrgId) -> String {
        crate::desk::organisation(&self.trade.registry, org).0
    }
}

fn roles_of(texts: &[String]) -> Outcome<Vec<Role>> {
    let roles: Vec<Role> = texts.iter().map(|text| Role::from_code(text)).collect();
    if roles.contains(&Role::Unknown) {
        let known: Vec<&str> = Role::ALL.iter().map(|role| role.code()).collect();
        return Err(Fault::new(
            Exit::Usage,
            "Unknown role.",
            "it is not in the list",
            format!("Use {}.", known.join(", ")),
        ));
    }
    Ok(roles)
}

/// Reads a document's file, bounded.
fn document_bytes(path: &std::path::Path) -> Outcome<Vec<u8>> {
    let size = std::fs::metadata(path)
        .map_err(Fault::because(
            Exit::Usage,
            "The file cannot be read.",
            "Check the path.",
        ))?
        .len();
    if size > DOCUMENT_BYTES_MAX {
        return Err(Fault::new(
            Exit::Usage,
            "The file is too large.",
            format!("the limit is {DOCUMENT_BYTES_MAX} bytes"),
            "Import studies with `hie import dicom`.",
        ));
    }
    let bytes = std::fs::read(path).map_err(Fault::because(
        Exit::Usage,
        "The file cannot be read.",
        "Check the path.",
    ))?;
    Ok(bytes)
}

/// Reads sensitivity codes; an unknown one is refused.
fn sensitivity_of(sensitivity: &[String]) -> Outcome<Vec<Sensitivity>> {
    let codes: Vec<Sensitivity> = sensitivity.iter().map(|code| Sensitivity::from_code(code)).collect();
    if codes.contains(&Sensitivity::Unknown) {
        let known: Vec<&str> = Sensitivity::ALL.iter().map(|code| code.code()).collect();
        return Err(Fault::new(
            Exit::Usage,
            "Unknown sensitivity code.",
            "it is not in the list",
            format!("Use {}.", known.join(", ")),
        ));
    }
    Ok(codes)
}

/// MIME type by the file's ending.
fn guess_type(path: &std::path::Path) -> &'static str {
    match path
        .extension()
        .and_then(|ending| ending.to_str())
        .map(str::to_lowercase)
        .as_deref()
    {
        Some("pdf") => "application/pdf",
        Some("txt") => "text/plain",
        Some("xml" | "ccda" | "cda") => "application/xml",
        Some("json") => "application/fhir+json",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        _ => "application/octet-stream",
    }
}
