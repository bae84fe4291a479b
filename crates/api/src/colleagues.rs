//! What the doors need from the other members: who is there, and questions that only the leader answers.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use milepost_proto::etcdserverpb as pb;
use milepost_types::{LeaseId, MemberId};

/// A question under way. It may be polled on any runtime; dropped, it is given up.
pub type Asked<T> = Pin<Box<dyn Future<Output = Result<T, Unheard>> + Send>>;

/// Why a question got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// The member refused it.
    #[error("status {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        body: String,
    },
    /// It could not be asked, or its answer made no sense.
    #[error("{0}")]
    Lost(String),
}

/// The other members of the cluster. No method blocks.
///
/// Questions go to one member by its peer URLs (`http://10.0.0.1:2380`), the first that answers, over connections that are
/// kept: thousands of leases are renewed this way each second. Source: `facts/peer-protocol.md` §3.
pub trait Colleagues: Send + Sync + 'static {
    /// For how long messages have gone to and come from `member` without a break; `None`: now they do not.
    fn active_for(&self, member: MemberId) -> Option<Duration>;

    /// `POST /members/promote/<id>`: the members afterwards.
    fn promote(&self, urls: &[String], id: MemberId) -> Asked<Vec<pb::Member>>;

    /// `POST /leases`: the TTL from now on, in seconds.
    fn renew_lease(&self, urls: &[String], id: LeaseId) -> Asked<i64>;

    /// `POST /leases/internal`: how long a lease still has.
    fn lease_time_to_live(
        &self,
        urls: &[String],
        request: pb::LeaseTimeToLiveRequest,
    ) -> Asked<pb::LeaseTimeToLiveResponse>;
}

/// A lone member has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoColleagues;

impl NoColleagues {
    fn nobody<T: Send + 'static>() -> Asked<T> {
        Box::pin(std::future::ready(Err(Unheard::Lost("this member knows no way to others".into()))))
    }
}

impl Colleagues for NoColleagues {
    fn active_for(&self, _: MemberId) -> Option<Duration> {
        None
    }

    fn promote(&self, _: &[String], _: MemberId) -> Asked<Vec<pb::Member>> {
        Self::nobody()
    }

    fn renew_lease(&self, _: &[String], _: LeaseId) -> Asked<i64> {
        Self::nobody()
    }

    fn lease_time_to_live(&self, _: &[String], _: pb::LeaseTimeToLiveRequest) -> Asked<pb::LeaseTimeToLiveResponse> {
        Self::nobody()
    }
}
