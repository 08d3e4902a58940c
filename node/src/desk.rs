//! The desk: implements the gateway's ports on the node's parts. It delegates and decides nothing.

pub mod accounts;
pub mod archive;
pub mod caller;
pub mod consents;
pub mod log;
pub mod people;
pub mod pictures;
pub mod records;
pub mod references;
pub mod state;

use hie_gateway::ports::{OrgAnswer, OrgState, PortError};
use hie_node_core::exchange::fanout::Silence;
use hie_node_core::locator::tokens::RegistryView;
use hie_protocol::id::OrgId;
use hie_protocol::refusal::Class;

/// A port error: the story goes to the log, the words to the person.
pub fn port_error(class: Class, what: &str, error: &dyn std::error::Error) -> PortError {
    tracing::warn!(?class, what, why = %crate::fault::chain(error), "a request failed");
    PortError {
        class,
        what: what.to_owned(),
    }
}

/// Name and phone of an organisation, as the registry has them.
#[must_use]
pub fn organisation(registry: &RegistryView, org: &OrgId) -> (String, Option<String>) {
    let registry = registry.borrow();
    let member = registry.member(org);
    member.map_or_else(
        || (org.to_string(), None),
        |member| (member.name.clone(), member.phone.clone()),
    )
}

/// An organisation's part of an answer.
#[must_use]
pub fn org_answer(registry: &RegistryView, org: &OrgId, state: OrgState, elapsed_ms: Option<u64>) -> OrgAnswer {
    let (name, phone) = organisation(registry, org);
    OrgAnswer {
        org: org.clone(),
        name,
        state,
        elapsed_ms,
        phone,
    }
}

/// How a silence is shown.
#[must_use]
pub const fn silent_state(silence: Silence) -> OrgState {
    match silence {
        Silence::TimedOut(waited) => OrgState::TimedOut(waited),
        Silence::Unreachable | Silence::Misbehaved | Silence::Index(_) => OrgState::Offline(None),
    }
}
