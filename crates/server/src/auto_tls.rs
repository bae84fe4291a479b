//! `--auto-tls`: a certificate that the member makes for itself, for encryption without authentication.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use milepost_node::log::Log;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P521_SHA512, SanType, date_time_ymd,
};

/// A certificate's years are 365 days long, as in etcd.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// The date in a certificate has four digits for its year.
const YEARS_MAX: u64 = 290;

/// Where a certificate and its key lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// `cert.pem`
    pub cert: PathBuf,
    /// `key.pem`, readable by its owner alone.
    pub key: PathBuf,
}

/// The certificate in `dir`, made now for `hosts` and `years` if it is not there yet.
///
/// What it says is what etcd's says: a key on P-521, organisation `etcd`, its own authority, for servers.
///
/// # Errors
/// Zero or too many years, a host that is no name, or a file that cannot be written.
///
/// Source: etcd `transport.SelfCert`.
pub fn pair(dir: &Path, hosts: &[String], years: u64, log: &dyn Log) -> Result<Pair, String> {
    if years == 0 {
        return Err("selfSignedCertValidity is invalid,it should be greater than 0".into());
    }
    if years > YEARS_MAX {
        return Err(format!("--self-signed-cert-validity={years} is too long: give at most {YEARS_MAX} years"));
    }
    let full = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let pair = Pair { cert: full.join("cert.pem"), key: full.join("key.pem") };
    if pair.cert.exists() && pair.key.exists() {
        return Ok(pair);
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).map_err(|why| format!("cannot make a key: {why}"))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let certificate = params(hosts, now, years)?
        .self_signed(&key)
        .map_err(|why| format!("cannot make a certificate for {hosts:?}: {why}"))?;
    let days = (years * YEAR.as_secs() / 86400).to_string();
    log.warn("automatically generate certificates", &[("valid-days", days.into())]);
    let failed =
        |why: io::Error| format!("cannot write {}: {why}; auto TLS needs a directory of its own", full.display());
    DirBuilder::new().recursive(true).mode(0o700).create(&full).map_err(failed)?;
    for (path, text, mode, message) in [
        (&pair.key, key.serialize_pem(), 0o600, "created key file"),
        (&pair.cert, certificate.pem(), 0o644, "created cert file"),
    ] {
        write(path, &text, mode).map_err(failed)?;
        log.info(message, &[("path", path.display().to_string().into())]);
    }
    Ok(pair)
}

fn params(hosts: &[String], now: Duration, years: u64) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.not_before = date_time_ymd(1970, 1, 1) + now;
    params.not_after = params.not_before + YEAR * u32::try_from(years).unwrap_or(u32::MAX);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for host in hosts.iter().filter(|host| !host.is_empty()) {
        let name = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(
                host.as_str().try_into().map_err(|_| format!("no certificate can be made for host {host:?}"))?,
            ),
        };
        if !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    Ok(params)
}

/// The whole file or none.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let next = path.with_extension("tmp");
    // One that is left over may be readable by others.
    match fs::remove_file(&next) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_node::log::NoLog;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn made_once_and_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("fixtures/client");
        let hosts = ["localhost".to_owned(), "::1".to_owned(), "localhost".to_owned(), String::new()];
        let made = pair(&dir, &hosts, 1, &NoLog).unwrap();
        assert_eq!(fs::metadata(&made.key).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read(&made.cert).unwrap();
        assert_eq!(pair(&dir, &[], 1, &NoLog).unwrap(), made);
        assert_eq!(fs::read(&made.cert).unwrap(), before, "what is there is kept");
        // Half a pair is no pair.
        fs::remove_file(&made.key).unwrap();
        pair(&dir, &hosts, 1, &NoLog).unwrap();
        assert_ne!(fs::read(&made.cert).unwrap(), before);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
    }

    #[test]
    fn it_says_what_etcds_says() {
        let made = params(&["10.0.0.1".into(), "h.example".into()], YEAR * 50, 2).unwrap();
        assert_eq!(made.subject_alt_names.len(), 2);
        assert_eq!((made.not_after - made.not_before).whole_days(), 730);
        let dir = tempfile::tempdir().unwrap();
        assert!(pair(dir.path(), &[], 0, &NoLog).unwrap_err().contains("greater than 0"));
        assert!(pair(dir.path(), &[], 1000, &NoLog).unwrap_err().contains("1000"));
        assert!(pair(dir.path(), &["ü".into()], 1, &NoLog).unwrap_err().contains("ü"));
    }
}
