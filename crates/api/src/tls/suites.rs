//! Cipher suites under the names that Go gives them.

use std::str::FromStr;

/// A suite that operators may ask for and that we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherSuite {
    /// Its number in the TLS registry.
    pub(crate) number: u16,
}

impl CipherSuite {
    /// Its number in the TLS registry.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.number
    }
}

/// What we have. Those of TLS 1.3 may be named, as in Go, and are on anyway.
const OURS: &[(&str, u16)] = &[
    ("TLS_AES_128_GCM_SHA256", 0x1301),
    ("TLS_AES_256_GCM_SHA384", 0x1302),
    ("TLS_CHACHA20_POLY1305_SHA256", 0x1303),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xc02b),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xc02c),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xc02f),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xc030),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca8),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca9),
    // Names that Go had before the RFC's.
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", 0xcca8),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", 0xcca9),
];

/// What Go has besides: CBC and RC4 without authenticated encryption, RSA without forward secrecy.
const WEAK: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

impl FromStr for CipherSuite {
    type Err = String;

    /// # Errors
    /// etcd's text for a name that Go does not know either, and a sentence for one that only Go has.
    fn from_str(name: &str) -> Result<Self, String> {
        if let Some((_, number)) = OURS.iter().find(|(ours, _)| *ours == name) {
            return Ok(Self { number: *number });
        }
        if WEAK.contains(&name) {
            return Err(format!(
                "TLS cipher suite {name:?} is not offered by Milepost: it lacks forward secrecy or authenticated encryption; use an ECDHE suite with GCM or CHACHA20_POLY1305"
            ));
        }
        Err(format!("unexpected TLS cipher suite {name:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_gos() {
        let suite = |name: &str| name.parse::<CipherSuite>();
        assert_eq!(suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").unwrap().number, 0xc02f);
        assert_eq!(suite("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"), suite("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"));
        assert_eq!(suite("TLS_X").unwrap_err(), "unexpected TLS cipher suite \"TLS_X\"");
        assert!(suite("TLS_RSA_WITH_AES_128_CBC_SHA").unwrap_err().contains("forward secrecy"));
    }
}
