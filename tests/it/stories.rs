//! Stories of a region, end to end: real nodes, real channels, every story in a world of its own.

mod broken_input;
mod corpora;
mod kill;
mod lifecycle;
mod spine;
mod trust;
mod web;
mod withheld;
