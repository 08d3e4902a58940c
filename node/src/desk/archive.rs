//! stub
use hie_gateway::ports::*; use futures::future::BoxFuture; use serde_json::Value; use crate::assemble::{Trade,Region}; use hie_node_core::locator::worker::Publisher;
pub struct ArchiveDesk; impl ArchiveDesk { pub fn new(_t: Trade,_p: Publisher)->Self{Self} }
impl Archive for ArchiveDesk {
fn store<'a>(&'a self, _c: &'a Caller, _s: Option<String>, _b: bytes::Bytes) -> BoxFuture<'a, Answer<StoredInstance>> { Box::pin(async move { Err(PortError { class: hie_protocol::refusal::Class::Broken, what: String::new() }) }) }
fn query<'a>(&'a self, _c: &'a Caller, _l: ImagingLevel, _q: ImagingQuery) -> BoxFuture<'a, Answer<(Vec<Value>, bool)>> { Box::pin(async move { Err(PortError { class: hie_protocol::refusal::Class::Broken, what: String::new() }) }) }
fn retrieve<'a>(&'a self, _c: &'a Caller, _q: ImagingQuery) -> BoxFuture<'a, Answer<Vec<InstanceContent>>> { Box::pin(async move { Err(PortError { class: hie_protocol::refusal::Class::Broken, what: String::new() }) }) } }