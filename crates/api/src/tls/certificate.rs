//! What stands in certificates and lists of revoked ones.

use std::collections::HashSet;
use std::net::IpAddr;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

/// The first certificate that a client showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    /// Common name; the last one if there are several, as in Go.
    pub(crate) common_name: String,
    /// Addresses that it is for.
    pub(crate) addresses: Vec<IpAddr>,
    /// Host names that it is for.
    pub(crate) hosts: Vec<String>,
}

impl Subject {
    /// Reads `der`; `None` if it is no certificate, or one whose names cannot all be read: what it is for would be
    /// guesswork.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Option<Self> {
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

/// Whether a client may show `der` now, its signature aside: its time has come, has not passed, and its use is not
/// another one.
pub(super) fn is_for_clients(der: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    let now = now.as_secs().cast_signed();
    let validity = certificate.validity();
    let is_of_use = match certificate.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.any || usage.value.client_auth,
        Err(_) => false,
    };
    validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp() && is_of_use
}

/// Serial numbers that are no longer good.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Revoked {
    serials: HashSet<Vec<u8>>,
}

impl Revoked {
    /// Reads a list, DER or PEM.
    ///
    /// # Errors
    /// It is neither.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let pem = bytes.starts_with(b"-----BEGIN").then(|| CertificateRevocationListDer::from_pem_slice(bytes));
        let der = match &pem {
            None => bytes,
            Some(Ok(der)) => der.as_ref(),
            Some(Err(why)) => return Err(format!("no revocation list in PEM: {why}")),
        };
        let (rest, list) = CertificateRevocationList::from_der(der)
            .map_err(|why| format!("no revocation list in DER (openssl crl -outform DER makes one): {why}"))?;
        if !rest.is_empty() {
            return Err(format!("{} bytes follow the revocation list", rest.len()));
        }
        let serials = list.iter_revoked_certificates().map(|revoked| magnitude(revoked.raw_serial()).to_vec());
        Ok(Self { serials: serials.collect() })
    }

    /// The serial number of the first of `certificates` that is listed, in hexadecimal; also of one that cannot be read.
    pub(super) fn find(&self, certificates: &[CertificateDer<'_>]) -> Option<String> {
        certificates.iter().find_map(|der| {
            let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Some("unreadable".into()) };
            let serial = magnitude(certificate.raw_serial());
            self.serials.contains(serial).then(|| serial.iter().map(|byte| format!("{byte:02x}")).collect())
        })
    }
}

/// A number without its leading zeros.
fn magnitude(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}
