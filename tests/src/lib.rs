//! The harness of the project: what the tests share.

pub mod crowd;
pub mod delay;
pub mod evil;
pub mod figures;
pub mod observer;
pub mod region;
pub mod sim;
pub mod stage;
