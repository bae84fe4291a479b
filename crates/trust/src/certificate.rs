//! What stands in certificates; rustls shows none of it.

use std::net::IpAddr;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The names that a certificate is for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Common name; the last one if there are several, as in Go.
    pub common_name: String,
    /// Addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// Host names that it is for.
    pub hosts: Vec<String>,
}

impl Subject {
    /// Reads `der`; `None` if it is no certificate, or one whose names cannot all be read: what it is for would be
    /// guesswork.
    #[must_use]
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let name = certificate.subject().iter_common_name().last().and_then(|name| name.as_str().ok());
        let mut subject = Self { common_name: name.unwrap_or_default().to_owned(), ..Self::default() };
        let names = certificate.subject_alternative_name().ok()?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(host) => subject.hosts.push((*host).to_owned()),
                GeneralName::IPAddress(bytes) => subject.addresses.push(address(bytes)?),
                GeneralName::Invalid(..) => return None,
                _ => {}
            }
        }
        Some(subject)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Whether the time of `certificate` has come and has not passed.
fn has_come(certificate: &X509Certificate<'_>, now: UnixTime) -> bool {
    let validity = certificate.validity();
    let now = now.as_secs().cast_signed();
    validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp()
}

/// Whether the time of `der` has come and has not passed.
pub(crate) fn is_current(der: &CertificateDer<'_>, now: UnixTime) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| has_come(&certificate, now))
}

/// Whether a client may show `der` now, its signature aside: its time has come, has not passed, and its use is not
/// another one.
#[must_use]
pub fn is_for_clients(der: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    let is_of_use = match certificate.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.any || usage.value.client_auth,
        Err(_) => false,
    };
    has_come(&certificate, now) && is_of_use
}

/// The names of which a certificate must have one, beside a chain to an authority; by default all are good. Source: etcd
/// `TLSInfo.baseConfig`.
#[derive(Clone, Debug, Default)]
pub struct Names {
    hosts: Vec<ServerName<'static>>,
    common_names: Vec<String>,
}

impl Names {
    /// Host names or addresses, and common names, which count where there are none of those; without any, all are good.
    ///
    /// # Errors
    /// The first of `hosts`, the value of the flag `flag`, that is neither.
    pub fn new(hosts: &[String], common_names: &[String], flag: &str) -> Result<Self, String> {
        let host = |name: &String| {
            ServerName::try_from(name.clone())
                .map_err(|_| format!("{flag}: {name:?} is no host name and no IP address"))
        };
        Ok(Self { hosts: hosts.iter().map(host).collect::<Result<_, _>>()?, common_names: common_names.to_vec() })
    }

    /// Whether the certificate is for one of them.
    #[must_use]
    pub fn admit(&self, leaf: &CertificateDer<'_>) -> bool {
        if !self.hosts.is_empty() {
            let Ok(parsed) = ParsedCertificate::try_from(leaf) else { return false };
            return self.hosts.iter().any(|host| verify_server_name(&parsed, host).is_ok());
        }
        self.common_names.is_empty()
            || Subject::read(leaf).is_some_and(|subject| self.common_names.contains(&subject.common_name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["a.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "alice");
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn one_of_the_names_is_enough() {
        let leaf = certificate(|_| ());
        let admitted =
            |hosts: &[&str], names: &[&str]| Names::new(&texts(hosts), &texts(names), "--flag").unwrap().admit(&leaf);
        assert!(admitted(&[], &[]));
        assert!(admitted(&["b.example", "a.example"], &[]));
        assert!(admitted(&["10.0.0.1"], &[]));
        assert!(admitted(&[], &["bob", "alice"]));
        assert!(!admitted(&["b.example"], &["alice"]), "host names decide where there are any");
        assert!(!admitted(&[], &["bob"]));
        assert!(!Names::new(&[], &texts(&["alice"]), "--flag").unwrap().admit(&b"no certificate".as_slice().into()));
        let refused = Names::new(&texts(&["a b"]), &[], "--flag").unwrap_err();
        assert_eq!(refused, "--flag: \"a b\" is no host name and no IP address");
    }

    #[test]
    fn a_client_shows_what_is_for_clients_and_in_time() {
        let leaf = certificate(|params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let (before, during, after) = (at(1_577_836_799), at(1_590_000_000), at(1_609_459_201));
        assert!(is_for_clients(&leaf, during) && is_current(&leaf, during));
        for moment in [before, after] {
            assert!(!is_for_clients(&leaf, moment) && !is_current(&leaf, moment));
        }
        let server = certificate(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        assert!(is_current(&server, at(2_000_000_000)) && !is_for_clients(&server, at(2_000_000_000)));
    }
}
