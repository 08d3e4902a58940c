//! stub
use hie_gateway::ports::*; use futures::future::BoxFuture; use serde_json::Value; use crate::assemble::{Trade,Region}; use hie_node_core::locator::worker::Publisher;
pub struct LogDesk; impl LogDesk { pub fn new(_t: Trade)->Self{Self} }
impl AccessLog for LogDesk {
fn search<'a>(&'a self, _c: &'a Caller, _q: AccessQuery) -> BoxFuture<'a, Answer<(Vec<AccessEntry>, AccessProof)>> { Box::pin(async move { Err(PortError { class: hie_protocol::refusal::Class::Broken, what: String::new() }) }) } }