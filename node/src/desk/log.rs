//! The access log for auditors: sentences, BALP events, and what can be proved about a page.
//!
//! The law: a search of the log is itself an entry of the log, durable before its answer is given; what was typed
//! is never written down.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use hie_gateway::ports::{AccessEntry, AccessLog, AccessProof, AccessQuery, Answer, Caller, PortError};
use hie_node_core::audit::event::{AuditEvent, EventKind, PatientRef};
use hie_node_core::audit::render::{Names, audit_event, sentence};
use hie_node_core::audit::search::{AuditEntry, AuditFilter, AuditPage, PAGE_ENTRIES_MAX};
use hie_node_core::ports::blocking;
use hie_protocol::id::{Correlation, OrgId};
use hie_protocol::registry::Registry;

use super::accounts::client_account;
use super::caller::{Classed, actor, correlation, told};
use crate::assemble::Trade;

/// Most patients that one search text stands for.
pub const PATIENTS_MAX: usize = 32;
/// Entries are in the order of the clock, up to this disorder, in milliseconds.
const DISORDER_MS: u64 = 24 * 60 * 60 * 1000;

/// The access log.
#[derive(Clone)]
pub struct LogDesk {
    trade: Trade,
}

/// Pages of several filters, joined.
#[derive(Default)]
struct Found {
    entries: BTreeMap<u64, AuditEntry>,
    size: u64,
    checkpoint: String,
    whole: bool,
}

impl LogDesk {
    /// Over the trade.
    #[must_use]
    pub const fn new(trade: Trade) -> Self {
        Self { trade }
    }

    fn broken<E: Classed>(&self) -> impl Fn(E) -> PortError + '_ {
        |error| told(&*self.trade.random, &error)
    }

    fn answer(&self, caller: &Caller, query: &AccessQuery) -> Answer<(Vec<AccessEntry>, AccessProof)> {
        let trade = &self.trade;
        let limit = query.limit.clamp(1, PAGE_ENTRIES_MAX);
        let filters = self.filters(query, limit)?;
        let mut found = Found {
            whole: true,
            ..Found::default()
        };
        // A text that nobody answers to finds nothing, and the page is proved all the same.
        let nothing = AuditFilter {
            before: Some(0),
            limit: 1,
            ..AuditFilter::default()
        };
        for filter in filters.iter().chain(filters.is_empty().then_some(&nothing)) {
            self.gather(filter, limit, &mut found)?;
        }
        let question = correlation(&*trade.random)?;
        let mut event = AuditEvent::new(
            EventKind::AuditSearched,
            trade.clock.now(),
            question,
            actor(trade, caller),
        );
        event.purpose = Some(caller.purpose);
        let patients: BTreeSet<PatientRef> = filters.iter().filter_map(|filter| filter.patient).collect();
        event.patient = patients.first().copied().filter(|_| patients.len() == 1);
        event.detail = Some(asked_words(query));
        let _receipt = trade.audit.append_one(event).map_err(self.broken())?;
        let registry = Arc::clone(&trade.registry.borrow());
        let mut known = HashMap::new();
        let mut entries = Vec::new();
        for entry in found.entries.into_values().rev().take(limit) {
            entries.push(self.shown(&entry, &registry, &mut known)?);
        }
        Ok((
            entries,
            AccessProof {
                size: found.size,
                checkpoint: found.checkpoint,
                whole: found.whole,
            },
        ))
    }

    /// What a search stands for: a question, an account here or elsewhere, a program, patients; all of them.
    fn filters(&self, query: &AccessQuery, limit: usize) -> Answer<Vec<AuditFilter>> {
        let trade = &self.trade;
        let plain = AuditFilter {
            emergency_only: query.emergency_only,
            period: query.period,
            before: query.before,
            limit,
            ..AuditFilter::default()
        };
        let text = query.text.as_deref().map(str::trim).unwrap_or_default();
        if text.is_empty() {
            return Ok(vec![plain]);
        }
        let mut filters = Vec::new();
        if let Some(question) = correlation_of(text) {
            filters.push(AuditFilter {
                correlation: Some(question),
                ..plain.clone()
            });
        }
        let name = text.to_lowercase();
        if !name.contains(char::is_whitespace) {
            let registry = trade.registry.borrow();
            let members = registry.members.iter().map(|member| member.org.clone());
            let orgs: BTreeSet<OrgId> = members.chain([trade.me.clone()]).collect();
            let users = orgs.into_iter().map(|org| Some((org, name.clone())));
            filters.extend(users.map(|user| AuditFilter { user, ..plain.clone() }));
        }
        for account in trade.accounts.list().map_err(self.broken())? {
            if account.shown.to_lowercase() == name && account.name != name {
                filters.push(AuditFilter {
                    user: Some((trade.me.clone(), account.name)),
                    ..plain.clone()
                });
            }
        }
        for client in trade.accounts.clients().map_err(self.broken())? {
            if client.name.to_lowercase() == name {
                filters.push(AuditFilter {
                    user: Some((trade.me.clone(), client_account(&client))),
                    ..plain.clone()
                });
            }
        }
        let people = trade.patients.find_text(text, PATIENTS_MAX).map_err(self.broken())?;
        let refs = people.into_iter().map(|person| trade.audit.patient_ref(person.key));
        filters.extend(refs.map(|patient| AuditFilter {
            patient: Some(patient),
            ..plain.clone()
        }));
        Ok(filters)
    }

    /// Adds the newest `limit` entries of a filter.
    fn gather(&self, filter: &AuditFilter, limit: usize, found: &mut Found) -> Answer<()> {
        let mut filter = filter.clone();
        let mut taken = 0_usize;
        loop {
            let page = self.trade.audit.search(&filter).map_err(self.broken())?;
            let AuditPage {
                entries,
                next,
                size,
                checkpoint,
                whole,
            } = page;
            found.whole &= whole;
            found.size = found.size.max(size);
            found.checkpoint = checkpoint.map(|signed| signed.to_text()).unwrap_or_default();
            taken = taken.saturating_add(entries.len());
            found
                .entries
                .extend(entries.into_iter().map(|entry| (entry.index, entry)));
            let Some(next) = next.filter(|_| taken < limit) else {
                return Ok(());
            };
            if let Some(from) = filter.period.0
                && self
                    .trade
                    .audit
                    .entry(next)
                    .map_err(self.broken())?
                    .event
                    .at
                    .plus(DISORDER_MS)
                    < from
            {
                return Ok(());
            }
            filter.before = Some(next);
        }
    }

    fn shown(
        &self,
        entry: &AuditEntry,
        registry: &Registry,
        known: &mut HashMap<PatientRef, Option<String>>,
    ) -> Answer<AccessEntry> {
        let event = &entry.event;
        let patient = match event.patient {
            None => None,
            Some(reference) => match known.get(&reference) {
                Some(name) => name.clone(),
                None => {
                    let name = self.patient_name(reference)?;
                    known.insert(reference, name.clone());
                    name
                }
            },
        };
        let org = |org: &OrgId| registry.member(org).map(|member| member.name.clone());
        let names = Names {
            here: &self.trade.me,
            org: &org,
            patient,
        };
        let emergency =
            event.emergency.is_some() || matches!(event.kind, EventKind::EmergencyDeclared | EventKind::EmergencyUsed);
        Ok(AccessEntry {
            index: entry.index,
            at: event.at,
            sentence: sentence(event, &names),
            emergency,
            correlation: event.correlation.to_hex(),
            event: audit_event(entry, &self.trade.me),
        })
    }

    /// A patient as the auditor may see her; none when she was erased.
    fn patient_name(&self, reference: PatientRef) -> Answer<Option<String>> {
        let key = self.trade.audit.patient_key(reference);
        let Some(person) = self.trade.patients.person(key).map_err(self.broken())? else {
            return Ok(None);
        };
        let who = &person.demographics;
        let name = who.names.first().map(|name| {
            let parts = name.given.iter().chain([&name.family]).filter(|part| !part.is_empty());
            parts.map(String::as_str).collect::<Vec<_>>().join(" ")
        });
        let name = name
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "a patient without a name".to_owned());
        Ok(Some(match &who.birth_date {
            Some(born) => format!("{name} (born {born})"),
            None => name,
        }))
    }
}

impl AccessLog for LogDesk {
    fn search<'a>(
        &'a self,
        caller: &'a Caller,
        query: AccessQuery,
    ) -> BoxFuture<'a, Answer<(Vec<AccessEntry>, AccessProof)>> {
        let (this, caller) = (self.clone(), caller.clone());
        blocking(move || this.answer(&caller, &query)).boxed()
    }
}

/// The question that a text of 32 hexadecimal digits names.
fn correlation_of(text: &str) -> Option<Correlation> {
    let bytes: [u8; 16] = hex::decode(text).ok()?.try_into().ok()?;
    Some(Correlation::new(bytes))
}

/// How the log was searched, without what was typed.
fn asked_words(query: &AccessQuery) -> String {
    let parts = [
        (
            query.text.as_deref().is_some_and(|text| !text.trim().is_empty()),
            "by a text",
        ),
        (query.emergency_only, "emergency access only"),
        (query.period.0.is_some() || query.period.1.is_some(), "in a period"),
        (query.before.is_some(), "a further page"),
    ];
    let parts: Vec<&str> = parts
        .into_iter()
        .filter_map(|(given, words)| given.then_some(words))
        .collect();
    if parts.is_empty() {
        "everything".to_owned()
    } else {
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use hie_gateway::ports::AccessQuery;

    use super::{asked_words, correlation_of};

    #[test]
    fn what_was_typed_is_not_written_down() {
        let query = AccessQuery {
            text: Some("Lopez".to_owned()),
            emergency_only: true,
            ..AccessQuery::default()
        };
        assert_eq!(asked_words(&query), "by a text, emergency access only");
        assert_eq!(asked_words(&AccessQuery::default()), "everything");
    }

    #[test]
    fn a_question_is_named_by_32_digits() {
        assert!(correlation_of("00112233445566778899aabbccddeeff").is_some());
        assert!(correlation_of("00112233").is_none() && correlation_of("lopez").is_none());
    }
}
