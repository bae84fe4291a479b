//! What members say about themselves in every request and answer. Source: etcd `rafthttp/util.go`.

/// The cluster, in hexadecimal.
pub(crate) const CLUSTER_ID: &str = "x-etcd-cluster-id";
