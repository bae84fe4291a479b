//! What the cluster has agreed on beside its members: its version, and whether it is being downgraded.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Fatal};
use crate::hex;

/// Key of the cluster version in the `cluster` table; the value is its text. Source: `facts/bbolt-format.md` §2.
pub(crate) const VERSION_KEY: &[u8] = b"clusterVersion";
/// Key of the downgrade job in the `cluster` table; the value is JSON.
pub(crate) const DOWNGRADE_KEY: &[u8] = b"downgrade";

/// Major, minor, patch. Pre-release and build parts are read and forgotten, since etcd compares without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u64,
    /// Second number.
    pub minor: u64,
    /// Third number.
    pub patch: u64,
}

impl Version {
    /// From `major.minor.patch`; `None` if `text` is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let core = text.split_once(['-', '+']).map_or(text, |(core, _)| core);
        let mut parts = core.split('.').map(|part| part.parse().ok());
        let version = Self { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        parts.next().is_none().then_some(version)
    }

    /// This version without its patch number, the grain at which clusters move.
    #[must_use]
    pub const fn minor_only(self) -> Self {
        Self { patch: 0, ..self }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A downgrade job. Not enabled: the target is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downgrade {
    /// Version to go down to.
    #[serde(rename = "target-version", default)]
    pub target: String,
    /// Is the job running?
    #[serde(default)]
    pub enabled: bool,
}

/// Cluster version and downgrade job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Lowest version that all members speak; `None` until the leader has set it.
    pub version: Option<Version>,
    /// The downgrade job.
    pub downgrade: Downgrade,
}

impl ClusterInfo {
    /// May the cluster be downgraded to `target` (`major.minor`, with or without a patch number)? Returns the version
    /// to propose. Asked before proposing only.
    ///
    /// # Errors
    /// [`Error::DowngradeFormat`], [`Error::NoClusterVersion`], [`Error::DowngradeTarget`],
    /// [`Error::DowngradeInProgress`], in this order. Source: etcd `downgradeValidate`.
    pub fn check_downgrade(&self, target: &str) -> Result<Version, Error> {
        let parsed = Version::parse(target).or_else(|| Version::parse(&format!("{target}.0")));
        let target = parsed.ok_or(Error::DowngradeFormat)?.minor_only();
        let current = self.version.ok_or(Error::NoClusterVersion)?;
        if target.major != current.major || target.minor + 1 != current.minor {
            return Err(Error::DowngradeTarget);
        }
        if self.downgrade.enabled { Err(Error::DowngradeInProgress) } else { Ok(target) }
    }

    /// From the records of the `cluster` table.
    pub(crate) fn load(table: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Self, Fatal> {
        let broken = |key: &[u8], why: String| Fatal::BrokenRecord { table: "cluster", key: hex(key), why };
        let version = match table.get(VERSION_KEY) {
            None => None,
            Some(text) => {
                let parsed = std::str::from_utf8(text).ok().and_then(Version::parse);
                Some(parsed.ok_or_else(|| broken(VERSION_KEY, "not a version".into()))?)
            }
        };
        let downgrade = match table.get(DOWNGRADE_KEY) {
            None => Downgrade::default(),
            Some(json) => serde_json::from_slice(json).map_err(|e| broken(DOWNGRADE_KEY, e.to_string()))?,
        };
        Ok(Self { version, downgrade })
    }
}

#[cfg(test)]
mod tests {
    use super::{ClusterInfo, Downgrade, Error, Version};

    #[test]
    fn versions() {
        let version = Version::parse("3.7.1").unwrap();
        assert_eq!((version.major, version.minor, version.patch), (3, 7, 1));
        assert_eq!(version.minor_only().to_string(), "3.7.0");
        assert_eq!(Version::parse("3.6.0-rc.1").unwrap().minor, 6);
        for bad in ["", "3", "3.7", "3.7.1.2", "a.b.c", "3.7.x", "-1.0.0"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
        assert!(Version::parse("3.10.0") > Version::parse("3.9.9"));
    }

    #[test]
    fn downgrades_go_one_minor_down() {
        let mut cluster = ClusterInfo::default();
        assert_eq!(cluster.check_downgrade("six"), Err(Error::DowngradeFormat));
        assert_eq!(cluster.check_downgrade("3.6"), Err(Error::NoClusterVersion));
        cluster.version = Version::parse("3.7.0");
        assert_eq!(cluster.check_downgrade("3.6"), Ok(Version::parse("3.6.0").unwrap()));
        assert_eq!(cluster.check_downgrade("3.6.9"), Ok(Version::parse("3.6.0").unwrap()));
        for other in ["3.5.0", "3.7", "3.8", "2.6", "4.6.0"] {
            assert_eq!(cluster.check_downgrade(other), Err(Error::DowngradeTarget), "{other}");
        }
        cluster.downgrade.enabled = true;
        assert_eq!(cluster.check_downgrade("3.6"), Err(Error::DowngradeInProgress));
    }

    #[test]
    fn downgrade_record_is_etcds_json() {
        let job = Downgrade { target: "3.6.0".into(), enabled: true };
        let json = serde_json::to_string(&job).unwrap();
        assert_eq!(json, r#"{"target-version":"3.6.0","enabled":true}"#);
        let table = [(b"downgrade".to_vec(), json.into_bytes()), (b"clusterVersion".to_vec(), b"3.6.0".to_vec())];
        let info = ClusterInfo::load(&table.into()).unwrap();
        assert_eq!((info.version, info.downgrade), (Version::parse("3.6.0"), job));
        assert!(ClusterInfo::load(&[(b"clusterVersion".to_vec(), b"x".to_vec())].into()).is_err());
    }
}
