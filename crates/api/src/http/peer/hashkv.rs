//! `/members/hashkv`: a hash of the keyspace for a member that compares. The request's JSON comes in the body of a GET.

use std::rc::Rc;
use std::time::Instant;

use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;
use milepost_mvcc::{HashKv, StoreError};
use milepost_node::log::Value;
use milepost_types::ClusterId;
use serde::Deserialize;

use super::CLUSTER_ID;
use crate::door::Door;
use crate::grpc::reply::Reply;
use crate::workers;

/// More than a number needs.
const BODY_MAX: usize = 64 * 1024;

#[derive(Deserialize)]
struct Question {
    /// 0: everything.
    #[serde(default)]
    revision: i64,
}

/// Hashes up to the revision that is asked for.
pub(super) async fn page(door: &Rc<Door>, headers: &HeaderMap, body: Incoming) -> Reply {
    let bad = |text: &'static str| super::super::error(StatusCode::BAD_REQUEST, text);
    let own = ClusterId(door.backend.standing().cluster_id).to_string();
    let theirs = headers.get(CLUSTER_ID).map_or(&b""[..], |id| id.as_bytes());
    if !theirs.is_empty() && theirs != own.as_bytes() {
        return super::super::error(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch\n");
    }
    let Ok(body) = super::read(body, BODY_MAX).await else { return bad("error reading body\n") };
    let Ok(Question { revision }) = serde_json::from_slice(&body) else {
        return bad("error unmarshalling request\n");
    };
    let (store, started) = (door.reader().store(), Instant::now());
    // All of history may be read for it.
    let hashed = workers::apart(move || Ok((store.hash_kv(revision)?, store.revision()))).await;
    door.metrics.hash_by_revision.observe(started.elapsed());
    let why = match hashed {
        Ok(Ok((hash, current))) => {
            return super::named(door, super::super::page(StatusCode::OK, "application/json", json(&hash, current)));
        }
        // In the words of etcd's store, by which the asking member knows them.
        Ok(Err(StoreError::Compacted { .. })) => "mvcc: required revision has been compacted".to_owned(),
        Ok(Err(StoreError::FutureRevision { .. })) => "mvcc: required revision is a future revision".to_owned(),
        Ok(Err(why)) => why.to_string(),
        Err(why) => return super::super::error(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", why.message)),
    };
    let fields = [("requested-revision", Value::Int(revision)), ("error", Value::from(why.as_str()))];
    door.config.log.warn("failed to get hashKV", &fields);
    super::super::error(StatusCode::BAD_REQUEST, format!("{why}\n"))
}

/// As Go encodes its message: what is zero is left out.
fn json(hash: &HashKv, current: i64) -> String {
    let fields = [
        ("hash", i64::from(hash.hash)),
        ("compact_revision", hash.compact_revision),
        ("hash_revision", hash.hash_revision),
    ];
    let mut text = format!(r#"{{"header":{{"revision":{current}}}"#);
    for (name, value) in fields.into_iter().filter(|(_, value)| *value != 0) {
        text += &format!(r#","{name}":{value}"#);
    }
    text + "}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_left_out() {
        let hash = |hash, compact_revision| HashKv { hash, compact_revision, hash_revision: 5 };
        let text = json(&hash(u32::MAX, -1), 6);
        assert_eq!(text, r#"{"header":{"revision":6},"hash":4294967295,"compact_revision":-1,"hash_revision":5}"#);
        assert_eq!(json(&hash(0, 0), 6), r#"{"header":{"revision":6},"hash_revision":5}"#);
    }
}
