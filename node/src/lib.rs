//! The node: command line, configuration, assembly and the desk. It knows everyone and decides nothing.

pub mod alarm;
pub mod assemble;
pub mod authority;
pub mod board;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod demo;
pub mod desk;
pub mod doctor;
pub mod execute;
pub mod fault;
pub mod frames;
pub mod home;
pub mod intake;
pub mod join;
pub mod moment;
pub mod order;
pub mod registry;
pub mod renew;
pub mod run;
pub mod socket;
pub mod summary;
pub mod wire;
pub mod workers;
