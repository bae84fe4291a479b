//! What members say about themselves in every request and answer. Source: etcd `rafthttp/util.go`.

use http::header::HOST;
use http::request::Builder;
use http::{HeaderMap, Method, Request};
use milepost_types::{ClusterId, MemberId};

use crate::url::PeerUrl;

/// The cluster, in hexadecimal.
pub(crate) const CLUSTER_ID: &str = "x-etcd-cluster-id";
/// The sender, in hexadecimal.
pub(crate) const FROM: &str = "x-server-from";
/// The member that a stream is asked of, in hexadecimal.
pub(crate) const TO: &str = "x-raft-to";
/// Version of the sender's program.
pub(crate) const VERSION: &str = "x-server-version";
/// The sender's peer URLs with commas between.
const PEER_URLS: &str = "x-peerurls";
/// The oldest cluster that the sender could be in.
const MIN_CLUSTER_VERSION: &str = "x-min-cluster-version";

/// What stands in [`MIN_CLUSTER_VERSION`]; members of versions before it are refused.
const OLDEST: &str = "3.0.0";
/// What a member without a version is taken for.
const ANCIENT: &str = "2.0.0";

/// etcd's text for a member of another time.
pub(crate) const INCOMPATIBLE: &str = "incompatible version";
/// etcd's text for a member of another cluster.
pub(crate) const OTHER_CLUSTER: &str = "cluster ID mismatch";

/// Who we are.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) member: MemberId,
    pub(crate) cluster: ClusterId,
    /// Where others reach us.
    pub(crate) peer_urls: Vec<String>,
    /// The version of etcd that we speak.
    pub(crate) version: String,
}

impl Identity {
    /// A request to `path` of the member at `url`.
    pub(crate) fn request(&self, method: Method, url: &PeerUrl, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &url.authority)
            .header(FROM, self.member.to_string())
            .header(VERSION, &self.version)
            .header(MIN_CLUSTER_VERSION, OLDEST)
            .header(CLUSTER_ID, self.cluster.to_string())
            .header(PEER_URLS, self.peer_urls.join(","))
    }

    /// Whether who sent these may talk to us.
    ///
    /// # Errors
    /// etcd's text.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let version = |name| minor(text(headers, name).unwrap_or(ANCIENT));
        let (Some(ours), Some(oldest)) = (minor(&self.version), minor(OLDEST)) else { return Err(INCOMPATIBLE) };
        let fits = version(VERSION).is_some_and(|theirs| theirs >= oldest)
            && version(MIN_CLUSTER_VERSION).is_some_and(|least| least <= ours);
        if !fits {
            return Err(INCOMPATIBLE);
        }
        if text(headers, CLUSTER_ID) != Some(self.cluster.to_string().as_str()) {
            return Err(OTHER_CLUSTER);
        }
        Ok(())
    }

    /// Whether a stream that was answered with these can be read. A member that is older than us must be of a version
    /// that is known to have the streams; a newer one decides for itself. Source: etcd `streamReader.dial`.
    pub(crate) fn can_read(&self, headers: &HeaderMap) -> bool {
        let theirs = minor(text(headers, VERSION).unwrap_or(ANCIENT));
        // The streams as they are came with 2.1.
        theirs.is_some_and(|theirs| theirs >= (2, 1))
    }
}

/// Major and minor version.
fn minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}

/// Who sent these and where that is, if they tell.
pub(crate) fn sender(headers: &HeaderMap) -> Option<(MemberId, Vec<String>)> {
    let from = member(text(headers, FROM)?)?;
    Some((from, peer_urls(headers)?))
}

/// The sender's own URLs.
pub(crate) fn peer_urls(headers: &HeaderMap) -> Option<Vec<String>> {
    Some(text(headers, PEER_URLS)?.split(',').map(str::to_owned).collect())
}

/// A member's id in hexadecimal.
pub(crate) fn member(text: &str) -> Option<MemberId> {
    // A sign is no digit, though Rust takes it.
    let is_number = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_number { u64::from_str_radix(text, 16).ok().map(MemberId) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { member: MemberId(1), cluster: ClusterId(0xab), peer_urls: vec![], version: "3.7.1".into() }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn versions_and_clusters_are_checked_in_etcds_order() {
        let with = |version: &str, least: &str, cluster: &str| {
            identity().check(&headers(&[(VERSION, version), (MIN_CLUSTER_VERSION, least), (CLUSTER_ID, cluster)]))
        };
        assert_eq!(with("3.7.1", "3.0.0", "ab"), Ok(()));
        assert_eq!(with("3.0.0", "3.0.0", "ab"), Ok(()));
        assert_eq!(with("4.1.0-rc.1+git", "3.7.9", "ab"), Ok(()));
        assert_eq!(with("2.3.8", "3.0.0", "ab"), Err(INCOMPATIBLE));
        assert_eq!(with("3.9.0", "3.8.0", "ab"), Err(INCOMPATIBLE));
        assert_eq!(with("nonsense", "3.0.0", "ab"), Err(INCOMPATIBLE));
        assert_eq!(with("3.7.1", "3.0.0", "ac"), Err(OTHER_CLUSTER));
        assert_eq!(identity().check(&headers(&[(CLUSTER_ID, "ab")])), Err(INCOMPATIBLE));
    }

    #[test]
    fn our_own_words_pass_our_own_check() {
        let url = PeerUrl::parse("http://h:1").unwrap();
        let request = identity().request(Method::GET, &url, "/raft").body(()).unwrap();
        assert_eq!(identity().check(request.headers()), Ok(()));
        assert!(identity().can_read(request.headers()) && !identity().can_read(&HeaderMap::new()));
    }

    #[test]
    fn ids_are_hexadecimal() {
        assert_eq!(member("8e9e05c52164694d"), Some(MemberId(0x8e9e_05c5_2164_694d)));
        assert_eq!(["", "+1", "g", "10000000000000000"].map(member), [None; 4]);
    }
}
