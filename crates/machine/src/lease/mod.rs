//! Leases.
//!
//! The replicated part is small: a lease exists, with the TTL it was granted and the remaining time of its newest
//! checkpoint; grants, revokes and checkpoints are entries of the log. Which keys hang on a lease is known to `mvcc`
//! and not held here. *When* a lease ends is known to the leader alone: [`Lessor`] keeps the deadlines there, from
//! clock readings that callers hand in, and says what to propose. Nothing is ever deleted because of a local clock.
//!
//! Record: table `lease`, key = id as 8 bytes big endian, value = `leasepb.Lease`, both as etcd's bucket has them.
//! Source: `facts/apply-semantics.md` §4.

mod lessor;
mod wheel;

use std::collections::BTreeMap;

use milepost_proto::{Message, leasepb};
use milepost_types::LeaseId;

pub use lessor::{Lessor, Renewal, TimeToLive};

use crate::error::Fatal;
use crate::hex;

/// Key of a lease in its table.
pub(crate) fn key(id: LeaseId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

/// The stored form of a lease.
pub(crate) fn record(id: LeaseId, ttl: i64, remaining_ttl: i64) -> Vec<u8> {
    leasepb::Lease { id: id.0, ttl, remaining_ttl }.encode_to_vec()
}

/// Reads the table: id, TTL, remaining time.
pub(crate) fn load(table: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Vec<(LeaseId, i64, i64)>, Fatal> {
    let mut leases = Vec::with_capacity(table.len());
    for (key, value) in table {
        let broken = |why: String| Fatal::BrokenRecord { table: "lease", key: hex(key), why };
        let id: [u8; 8] = key[..].try_into().map_err(|_| broken("the key has not 8 bytes".into()))?;
        let lease = leasepb::Lease::decode(&value[..]).map_err(|e| broken(e.to_string()))?;
        leases.push((LeaseId(i64::from_be_bytes(id)), lease.ttl, lease.remaining_ttl));
    }
    Ok(leases)
}
