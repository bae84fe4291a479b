//! `/version`.

use http::StatusCode;

use crate::door::Door;
use crate::grpc::reply::Reply;

/// Versions of server, cluster and storage, in etcd's JSON: no blanks, no newline.
pub(crate) fn page(door: &Door) -> Reply {
    let cluster = door.reader().cluster_version().map(|version| version.minor_only().to_string());
    let (cluster, storage) = (cluster.as_deref().unwrap_or("not_decided"), cluster.as_deref().unwrap_or("unknown"));
    let server = &door.config.server_version;
    let json = format!(r#"{{"etcdserver":"{server}","etcdcluster":"{cluster}","storage":"{storage}"}}"#);
    super::page(StatusCode::OK, "application/json", json)
}
