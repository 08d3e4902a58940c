//! DICOM part 10 files (PS3.10): a guard in front of every library, the facts of an instance, frames and pictures.

pub mod attribute;
pub mod fixture;
pub mod guard;
pub mod instance;
pub mod render;
