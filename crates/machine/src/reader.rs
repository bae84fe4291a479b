//! Local reads, from any thread.

use std::sync::Arc;
use std::time::Duration;

use milepost_mvcc::watch::History;
use milepost_mvcc::{HashKv, Record, Sizes, Store, StoreError, View};
use milepost_proto::etcdserverpb as pb;
use milepost_types::{LeaseId, Revision};

use crate::alarm::Alarms;
use crate::cluster::{ClusterInfo, Version};
use crate::config::Config;
use crate::error::{Error, Fault};
use crate::kv::{self, stream, txn};
use crate::lease::Lessor;
use crate::machine::Shared;
use crate::member::Membership;

/// Reads of the state after the entry applied last. Cheap to clone.
///
/// Each call sees one consistent state; waiting until that state is recent enough (ReadIndex) is `node`'s part.
/// Errors of the store itself come as [`Error::Storage`].
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Shared {
    /// Is there room for a write of `cost` bytes, by the local quota on live bytes? What waits to be committed counts:
    /// it may be many times a small quota.
    pub(crate) fn fits_quota(&self, cost: u64) -> bool {
        let Some(quota) = self.config.quota() else { return true };
        let sizes = self.store.load().sizes();
        sizes.in_use.saturating_add(sizes.waiting).saturating_add(cost) < quota
    }
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn view(&self) -> View {
        self.shared.store.load().view()
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.shared.store.load().revision()
    }

    /// The store under it, for watches, snapshots and figures.
    #[must_use]
    pub fn store(&self) -> Store {
        Store::clone(&self.shared.store.load())
    }

    /// The local configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Answers a range whose shape is valid.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`].
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        Ok(kv::range::range(&self.view(), request, true)?)
    }

    /// Answers the same, encoded, in memory that `room` gives; the request [`crate::is_list`].
    ///
    /// # Errors
    /// As [`Reader::range`].
    pub fn list(&self, request: &pb::RangeRequest, room: kv::list::ListRoom<'_>) -> Result<kv::list::List, Error> {
        Ok(kv::list::list(&self.view(), request, room)?)
    }

    /// Answers the same in pieces; the request has passed [`crate::validate::range_stream`].
    #[must_use]
    pub fn range_stream(&self, request: pb::RangeRequest) -> RangeStream {
        let plan = stream::Plan::new(request, self.shared.config.max_request_bytes);
        RangeStream { reader: self.clone(), plan }
    }

    /// Answers a transaction of ranges alone ([`crate::is_txn_readonly`]).
    ///
    /// # Errors
    /// As [`Reader::range`].
    pub fn txn_readonly(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        Ok(txn::readonly(&self.view(), request)?)
    }

    /// How long a lease still has, and its keys, sorted, if asked. An unknown lease has TTL −1.
    ///
    /// # Errors
    /// [`Error::NotPrimary`] on a follower: ask the leader.
    pub fn lease_time_to_live(
        &self,
        request: &pb::LeaseTimeToLiveRequest,
        now: Duration,
    ) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        let id = LeaseId(request.id);
        let mut response = pb::LeaseTimeToLiveResponse { id: id.0, ttl: -1, ..Default::default() };
        match self.shared.lessor.time_to_live(id, now) {
            Ok(left) => (response.ttl, response.granted_ttl) = (left.remaining, left.granted),
            Err(Error::LeaseNotFound) => return Ok(pb::LeaseTimeToLiveResponse { header: self.header(), ..response }),
            Err(error) => return Err(error),
        }
        if request.keys {
            response.keys = self.view().attached(id).map_err(Fault::from)?;
        }
        Ok(pb::LeaseTimeToLiveResponse { header: self.header(), ..response })
    }

    /// All leases: on the leader those that end soonest first, elsewhere by id.
    #[must_use]
    pub fn leases(&self) -> pb::LeaseLeasesResponse {
        let leases = self.shared.lessor.ids().into_iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
        pb::LeaseLeasesResponse { header: self.header(), leases }
    }

    /// The leases, for renewals.
    #[must_use]
    pub fn lessor(&self) -> &Lessor {
        &self.shared.lessor
    }

    /// The members, as the client API lists them: sorted by id.
    #[must_use]
    pub fn members(&self) -> Vec<pb::Member> {
        self.shared.membership.load().to_wire()
    }

    /// Members and removed ids.
    #[must_use]
    pub fn membership(&self) -> Arc<Membership> {
        self.shared.membership.load_full()
    }

    /// Alarms in force.
    #[must_use]
    pub fn alarms(&self) -> Arc<Alarms> {
        self.shared.alarms.load_full()
    }

    /// The revision of users and roles, which nobody can change yet.
    #[must_use]
    pub fn auth_revision(&self) -> u64 {
        crate::step::FIRST_AUTH_REVISION
    }

    /// Lowest version that all members speak; `None` until it is decided.
    #[must_use]
    pub fn cluster_version(&self) -> Option<Version> {
        self.shared.cluster.load().version
    }

    /// Cluster version and downgrade job.
    #[must_use]
    pub fn cluster(&self) -> Arc<ClusterInfo> {
        self.shared.cluster.load_full()
    }

    /// The hash that members compare, over the history up to `revision` (0: now).
    ///
    /// # Errors
    /// As [`Reader::range`].
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, Error> {
        Ok(self.store().hash_kv(revision).map_err(Fault::from)?)
    }

    /// A hash over everything stored; a test aid, not comparable between versions.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn hash(&self) -> Result<u32, Error> {
        Ok(self.store().hash().map_err(Fault::from)?)
    }

    /// Bytes on disk and bytes in use.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        self.shared.store.load().sizes()
    }

    /// May a write of this cost ([`crate::cost`]) be proposed?
    ///
    /// # Errors
    /// [`Error::NoSpace`]: then this member also proposes the NOSPACE alarm.
    pub fn check_quota(&self, cost: u64) -> Result<(), Error> {
        if cost == 0 || self.shared.fits_quota(cost) { Ok(()) } else { Err(Error::NoSpace) }
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        kv::header(self.revision())
    }
}

/// The store that counts, whichever that is: watches go on when a received snapshot brings another.
impl History for Reader {
    fn revision(&self) -> i64 {
        self.revision()
    }

    fn compact_revision(&self) -> i64 {
        self.shared.store.load().compact_revision()
    }

    fn history(&self, from: Revision, max_records: usize, max_bytes: usize) -> Result<Vec<Arc<Record>>, StoreError> {
        self.shared.store.load().history(from, max_records, max_bytes)
    }

    fn previous(&self, record: &Record) -> Result<Option<Arc<Record>>, StoreError> {
        self.shared.store.load().previous(record)
    }
}

/// The pieces of one range.
pub struct RangeStream {
    reader: Reader,
    plan: stream::Plan,
}

impl RangeStream {
    /// The next piece, `None` after the last one. Only the last has a header, count and `more`.
    ///
    /// # Errors
    /// As [`Reader::range`]; [`Error::Compacted`] also later, when the revision of the stream has been compacted since
    /// it began. The stream is over then.
    pub fn next_piece(&mut self) -> Result<Option<pb::RangeResponse>, Error> {
        Ok(self.plan.next(&self.reader.view())?)
    }
}
