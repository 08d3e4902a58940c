//! stub
use hie_gateway::ports::*; use futures::future::BoxFuture; use serde_json::Value; use crate::assemble::{Trade,Region}; use hie_node_core::locator::worker::Publisher;
pub struct StateDesk; impl StateDesk { pub fn new(_t: Trade,_r: Region,_n: String)->Self{Self} }
impl NodeState for StateDesk { fn health(&self) -> BoxFuture<'_, Health> { Box::pin(async { Health::default() }) }
fn organisations(&self) -> BoxFuture<'_, Vec<(hie_protocol::id::OrgId, String)>> { Box::pin(async { Vec::new() }) }
fn now(&self) -> hie_protocol::id::Millis { crate::clock::now() } fn random(&self) -> [u8; 32] { [0;32] } }