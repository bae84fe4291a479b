//! Lists of certificates that are no longer good.

use std::collections::HashSet;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

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
