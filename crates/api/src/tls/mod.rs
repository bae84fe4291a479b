//! TLS of the client port.

mod settings;
mod suites;

pub use settings::{TlsSettings, TlsVersion};
pub use suites::CipherSuite;
