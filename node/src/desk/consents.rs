//! stub
use hie_gateway::ports::*; use futures::future::BoxFuture; use serde_json::Value; use crate::assemble::{Trade,Region}; use hie_node_core::locator::worker::Publisher;
pub struct ConsentDesk; impl ConsentDesk { pub fn new(_t: Trade,_p: Publisher)->Self{Self} pub fn for_orders(_t: Trade)->Self{Self} }
impl Consents for ConsentDesk {
fn create<'a>(&'a self, _c: &'a Caller, _v: Value) -> BoxFuture<'a, Answer<Value>> { Box::pin(async move { Err(PortError { class: hie_protocol::refusal::Class::Broken, what: String::new() }) }) }
fn search<'a>(&'a self, _c: &'a Caller, _p: Option<PatientSelector>, _s: Option<String>, _i: Option<String>) -> BoxFuture<'a, Answer<Vec<Value>>> { Box::pin(async move { Err(PortError { class: hie_protocol::refusal::Class::Broken, what: String::new() }) }) }
fn preview<'a>(&'a self, _c: &'a Caller, _p: PatientSelector, _d: Option<Value>) -> BoxFuture<'a, Answer<Vec<ConsentRow>>> { Box::pin(async move { Err(PortError { class: hie_protocol::refusal::Class::Broken, what: String::new() }) }) } }