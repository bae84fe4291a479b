//! Propose → replicate → apply → reply.
pub mod core;
pub mod log;
