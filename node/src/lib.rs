//! The node: command line, configuration, assembly and the desk. It knows everyone and decides nothing.

pub mod cli;
pub mod config;
pub mod fault;
pub mod home;
