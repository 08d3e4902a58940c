//! Channels between the nodes of a region: who may talk, how much, how long. It decides nothing else.
//!
//! ```text
//!            TCP (no delay)
//!             └─ TLS 1.3, both certificates judged, ALPN names the channel
//!                 └─ verdict byte of the acceptor
//!                     ├─ hie-control/1: yamux ─┬─ /hie/request/1: one frame each way; the first is Hello
//!                     │                        └─ /hie/bulk/1: frames of the lane, for who cannot be dialled
//!                     └─ hie-bulk/1: frames, one ask after the other
//! ```
//!
//! A node that cannot be dialled is reached through the channels that it opened, and two such nodes through a circuit
//! of a relay, which carries the same TLS from end to end ([`relay`]).
//!
//! Frames are bytes here and members are registry entries; what a request means is for others to know. A channel whose
//! certificate no longer holds is cut while it is open ([`live`]), not only refused when it is opened (SPEC P-TLS,
//! P-CHAN, P-BULK).

pub mod board;
pub mod budget;
pub mod codec;
mod doorman;
mod exchange;
pub mod failure;
mod gate;
pub mod greet;
pub mod handle;
pub mod lane;
pub mod ledger;
mod link;
pub mod live;
pub mod relay;
mod streams;
mod swarm;
mod transport;
pub mod trust;
pub mod upgrade;
