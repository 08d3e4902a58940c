//! Channels between the nodes of a region: who may talk, how much, how long. It decides nothing else.
//!
//! ```text
//!            TCP (no delay)
//!             └─ TLS 1.3, both certificates judged, ALPN names the channel
//!                 └─ verdict byte of the acceptor
//!                     ├─ hie-control/1: yamux ─ request-response, one frame each way
//!                     └─ hie-bulk/1: frames, one ask after the other
//! ```
//!
//! Frames are bytes here and members are registry entries; what a request means is for others to know. A channel whose
//! certificate no longer holds is cut while it is open ([`live`]), not only refused when it is opened (SPEC P-TLS,
//! P-CHAN, P-BULK).

pub mod budget;
pub mod codec;
pub mod failure;
pub mod handle;
pub mod lane;
mod link;
pub mod live;
mod swarm;
pub mod trust;
pub mod upgrade;
