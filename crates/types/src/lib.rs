//! The words that every room shares, as types: positions, identities, ranges. No behaviour beyond their own arithmetic.
//!
//! Two bare integers of different meaning never share a signature; each word here is defined in `ARCHITECTURE.md`.

mod code;
mod ids;
mod range;
pub mod refused;
mod revision;
pub mod url;

pub use code::Code;
pub use ids::{ClusterId, LeaseId, LogIndex, MemberId, Term};
pub use range::{KeyRange, RangeEnd};
pub use revision::Revision;
