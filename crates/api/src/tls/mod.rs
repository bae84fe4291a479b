//! TLS of the client port. Source: `facts/http.md` §5 and §9.
//!
//! [`Keeper`] holds certificates and rules and reads them again when their files change; [`shake`] makes a socket a
//! stream of somebody who may call. What comes after the handshake knows nothing of either.

mod files;
mod gate;
mod handshake;
mod keeper;
mod remote;
mod revoked;
mod settings;
mod suites;

pub(crate) use handshake::{Demands, PATIENCE, shake};
pub(crate) use keeper::Keeper;
pub use settings::{TlsSettings, TlsVersion};
pub use suites::CipherSuite;
