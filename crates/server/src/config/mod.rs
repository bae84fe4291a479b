//! What the member is told: flags, environment or file, checked once, then plain values.
//!
//! ```text
//!   words, ETCD_* ─► words ─┐                ┌─► logging   LogPlan, first of all
//!   (table, old)            ├─► settings ────┤
//!   YAML or JSON  ─► file  ─┘   one text     └─► checked   Config: addresses, security, gates …
//!                               per flag
//! ```

pub mod addresses;
pub mod cluster;
pub mod discovery;
pub mod gates;
pub mod logging;
pub mod security;
pub mod settings;
pub mod spelling;
pub mod table;
pub use milepost_types::url;
pub mod words;

mod checked;
mod compaction;
mod file;
mod help;
mod old;
mod scalar;

#[cfg(test)]
mod checked_test;
#[cfg(test)]
mod file_test;

pub use checked::{Config, NOT_ADVERTISED};
pub use compaction::CompactionMode;
pub use file::read as read_file;
pub use help::{page, usage};

/// What the system says about a file, as Go says it: without the number, in small letters.
#[must_use]
pub fn system_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
