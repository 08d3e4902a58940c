//! Stories of a region, end to end: real nodes, real channels, every story in a world of its own.

mod broken_input;
mod corpora;
mod evil;
mod kill;
mod lifecycle;
mod reach;
mod spine;
mod tokens;
mod trust;
mod web;
mod withheld;
