//! One whole member: flags → config → open or form → wire → listen → shut down.
pub mod config;
mod logline;
