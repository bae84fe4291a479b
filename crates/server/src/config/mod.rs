//! What the member is told: flags and environment, checked once, then plain values.

pub mod settings;
pub mod spelling;
pub mod table;

mod checked;
mod help;

pub use checked::{CompactionMode, Config, LEVELS};
pub use help::{page, usage};
