//! stub
use hie_gateway::ports::*; use futures::future::BoxFuture; use serde_json::Value; use crate::assemble::{Trade,Region}; use hie_node_core::locator::worker::Publisher;
pub struct AccountDesk; impl AccountDesk { pub fn new(_t: Trade)->Self{Self} }
impl Accounts for AccountDesk { fn authenticate(&self, _c: Credential) -> BoxFuture<'_, Answer<Principal>> { Box::pin(async move { Err(PortError { class: hie_protocol::refusal::Class::Broken, what: String::new() }) }) } }