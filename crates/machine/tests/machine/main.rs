//! The machine as its callers see it: golden scripts, a naive twin, the same log twice.

mod common;
mod golden;
mod import;
mod model;
mod reader;
mod twin;
