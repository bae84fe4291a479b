//! Leases: granted, kept alive on one stream per client, revoked after the run.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseRevokeResponse,
};

use super::{Talk, Work, append, decode, revision};

/// Time to live in seconds that is long enough that no lease ends during a run.
pub const NEVER: i64 = 3600;

/// The leases of one run: `count` ids from `first` up.
#[derive(Clone)]
pub struct Leases {
    /// Smallest id.
    pub first: i64,
    /// How many.
    pub count: u64,
    /// Time to live in seconds.
    pub ttl: i64,
}

impl Leases {
    /// Id of lease `n` mod count.
    pub fn id(&self, n: u64) -> i64 {
        self.first + (n % self.count) as i64
    }
}

/// Ticket n grants lease n.
pub struct Grant(pub Arc<Leases>);

impl Work for Grant {
    fn path(&self) -> &'static str {
        "/etcdserverpb.Lease/LeaseGrant"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        append(&LeaseGrantRequest { id: self.0.id(n), ttl: self.0.ttl }, out);
    }

    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String> {
        let answer: LeaseGrantResponse = decode(answer)?;
        if answer.id != self.0.id(n) || answer.ttl < self.0.ttl {
            return Err(format!("a lease of {} s was granted as {} s under another id", self.0.ttl, answer.ttl));
        }
        revision(answer.header.as_ref())
    }
}

/// Ticket n renews lease n mod count.
pub struct KeepAlive(pub Arc<Leases>);

impl Work for KeepAlive {
    fn path(&self) -> &'static str {
        "/etcdserverpb.Lease/LeaseKeepAlive"
    }

    fn talk(&self) -> Talk {
        Talk::Stream
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        append(&LeaseKeepAliveRequest { id: self.0.id(n) }, out);
    }

    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String> {
        let answer: LeaseKeepAliveResponse = decode(answer)?;
        if answer.id != self.0.id(n) || answer.ttl < self.0.ttl {
            return Err(format!("a living lease was renewed for {} s instead of {}", answer.ttl, self.0.ttl));
        }
        revision(answer.header.as_ref())
    }
}

/// Ticket n revokes lease n.
pub struct Revoke(pub Arc<Leases>);

impl Work for Revoke {
    fn path(&self) -> &'static str {
        "/etcdserverpb.Lease/LeaseRevoke"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        append(&LeaseRevokeRequest { id: self.0.id(n) }, out);
    }

    fn check(&self, _: u64, answer: Bytes) -> Result<i64, String> {
        revision(decode::<LeaseRevokeResponse>(answer)?.header.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_proto::Message;

    #[test]
    fn renewals_go_round_and_dead_leases_are_errors() {
        let leases = Arc::new(Leases { first: 1000, count: 3, ttl: NEVER });
        assert_eq!((0..5).map(|n| leases.id(n)).collect::<Vec<_>>(), [1000, 1001, 1002, 1000, 1001]);
        let header = Some(milepost_proto::etcdserverpb::ResponseHeader { revision: 1, ..Default::default() });
        let answer = |id, ttl| LeaseKeepAliveResponse { header, id, ttl }.encode_to_vec().into();
        assert_eq!(KeepAlive(leases.clone()).check(4, answer(1001, NEVER)), Ok(1));
        assert!(KeepAlive(leases.clone()).check(4, answer(1001, 0)).is_err());
        assert!(KeepAlive(leases).check(4, answer(1000, NEVER)).is_err());
    }
}
