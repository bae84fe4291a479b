//! What Kubernetes' API server does all day, in the mix of a busy cluster's control plane.
//!
//! ```text
//!  of 100: 70 updates   read a key, then write it if its revision is still the one read (else read it again)
//!          20 reads     of one key
//!           7 pages     of --page keys, from a drawn key on
//!           3 counts    of all keys, nothing else
//! ```
//! Source: etcd's client as `k8s.io/apiserver/pkg/storage/etcd3` uses it; the shares are ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use milepost_proto::etcdserverpb::{
    Compare, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, request_op::Request,
};

use super::put::put;
use super::{Next, Work, append, decode, revision};
use crate::fanout::Stamps;
use crate::keys::{Keys, mix};

/// What the updates came to.
#[derive(Default)]
pub struct Tally {
    /// Updates that were written: each is one event for one watcher.
    pub written: AtomicU64,
    /// Updates that somebody else had overtaken.
    pub overtaken: AtomicU64,
}

/// Ticket n is one operation of the mix.
pub struct Kube {
    /// Which keys, which values.
    pub keys: Arc<Keys>,
    /// Keys per page.
    pub page: u64,
    /// When each update was sent.
    pub stamps: Arc<Stamps>,
    /// Counted on the way.
    pub tally: Arc<Tally>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Update,
    Read,
    Page,
    Count,
}

impl Kube {
    fn kind(n: u64) -> Kind {
        // Drawn apart from the key, or each kind would meet its own keys alone.
        match mix(n ^ 0x6b75_6265) % 100 {
            0..70 => Kind::Update,
            70..90 => Kind::Read,
            90..97 => Kind::Page,
            _ => Kind::Count,
        }
    }

    fn update(&self, n: u64, mod_revision: i64) -> TxnRequest {
        let number = self.keys.number(n);
        let key = self.keys.key(number);
        let unchanged = Compare {
            key: key.clone(),
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            target_union: Some(TargetUnion::ModRevision(mod_revision)),
            ..Compare::default()
        };
        let write = RequestOp { request: Some(Request::RequestPut(put(&self.keys, number, n))) };
        let read = RequestOp { request: Some(Request::RequestRange(RangeRequest { key, ..RangeRequest::default() })) };
        TxnRequest { compare: vec![unchanged], success: vec![write], failure: vec![read] }
    }
}

impl Work for Kube {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Range"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        let mut request = RangeRequest { key: self.keys.key(self.keys.number(n)), ..RangeRequest::default() };
        match Kube::kind(n) {
            Kind::Update | Kind::Read => {}
            Kind::Page => (request.range_end, request.limit) = (self.keys.end(), self.page as i64),
            Kind::Count => {
                (request.key, request.range_end, request.count_only) = (self.keys.key(0), self.keys.end(), true);
            }
        }
        append(&request, out);
    }

    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String> {
        let answer: RangeResponse = decode(answer)?;
        let there = self.keys.space - self.keys.number(n);
        let (kvs, count) = match Kube::kind(n) {
            Kind::Update | Kind::Read => (1, 1),
            Kind::Page => (self.page.min(there), there),
            Kind::Count => (0, self.keys.space),
        };
        if (answer.kvs.len() as u64, answer.count as u64) != (kvs, count) {
            let found = format!("{} keys and a count of {}", answer.kvs.len(), answer.count);
            return Err(format!("a read of {kvs} keys and a count of {count} has {found}"));
        }
        revision(answer.header.as_ref())
    }

    fn answered(&self, _: usize, n: u64, call: usize, answer: Bytes) -> Result<Next, String> {
        if Kube::kind(n) != Kind::Update {
            return self.check(n, answer).map(Next::Done);
        }
        if call == 0 {
            let found: RangeResponse = decode(answer)?;
            let Some(kv) = found.kvs.first() else { return Err("a loaded key is not there".into()) };
            if !self.keys.is_ours(self.keys.number(n), &kv.value) {
                return Err("a read found a value that this tool never wrote to the key: is the server fresh?".into());
            }
            let mut update = BytesMut::new();
            append(&self.update(n, kv.mod_revision), &mut update);
            self.stamps.set(n);
            return Ok(Next::Call("/etcdserverpb.KV/Txn", update));
        }
        let answer: TxnResponse = decode(answer)?;
        if answer.responses.len() != 1 {
            return Err(format!("a transaction of one request has {} answers", answer.responses.len()));
        }
        let counter = if answer.succeeded { &self.tally.written } else { &self.tally.overtaken };
        counter.fetch_add(1, Ordering::Relaxed);
        revision(answer.header.as_ref()).map(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_proto::Message;
    use milepost_proto::etcdserverpb::{ResponseHeader, ResponseOp};
    use milepost_proto::mvccpb::KeyValue;

    fn kube() -> Kube {
        let keys = Arc::new(Keys::new(8, 16, 1000, false, 1));
        Kube { keys, page: 10, stamps: Arc::new(Stamps::new()), tally: Arc::default() }
    }

    fn first(kind: Kind) -> u64 {
        (0..).find(|n| Kube::kind(*n) == kind).unwrap()
    }

    #[test]
    fn the_mix_has_its_shares() {
        let share = |kind| (0..100_000).filter(|n| Kube::kind(*n) == kind).count() as f64 / 1000.0;
        for (kind, wanted) in [(Kind::Update, 70.0), (Kind::Read, 20.0), (Kind::Page, 7.0), (Kind::Count, 3.0)] {
            assert!((share(kind) - wanted).abs() < 1.0, "{kind:?}: {}", share(kind));
        }
    }

    #[test]
    fn an_update_compares_the_revision_it_read_and_is_counted() {
        let kube = kube();
        let n = first(Kind::Update);
        let header = Some(ResponseHeader { revision: 9, ..ResponseHeader::default() });
        let value = kube.keys.value(kube.keys.number(n), 3);
        let kvs = vec![KeyValue { value, mod_revision: 7, ..KeyValue::default() }];
        let read = RangeResponse { header, kvs, count: 1, ..RangeResponse::default() };
        let Ok(Next::Call(_, update)) = kube.answered(0, n, 0, read.encode_to_vec().into()) else {
            panic!("an update follows")
        };
        let update = TxnRequest::decode(update.freeze()).unwrap();
        assert_eq!(update.compare[0].target_union, Some(TargetUnion::ModRevision(7)));
        let done = |succeeded| {
            let answer = TxnResponse { header, succeeded, responses: vec![ResponseOp::default()] };
            matches!(kube.answered(0, n, 1, answer.encode_to_vec().into()), Ok(Next::Done(9)))
        };
        assert!(done(true) && done(false) && done(true));
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((count(&kube.tally.written), count(&kube.tally.overtaken)), (2, 1));
        let strange =
            RangeResponse { kvs: vec![KeyValue { value: "not ours at all".into(), ..Default::default() }], ..read };
        assert!(kube.answered(0, n, 0, strange.encode_to_vec().into()).is_err());
    }

    #[test]
    fn pages_and_counts_must_be_whole() {
        let kube = kube();
        let header = Some(ResponseHeader { revision: 9, ..ResponseHeader::default() });
        let check = |n: u64, kvs: usize, count: u64| {
            let kvs = vec![KeyValue::default(); kvs];
            let answer = RangeResponse { header, kvs, count: count as i64, ..RangeResponse::default() };
            kube.check(n, answer.encode_to_vec().into()).is_ok()
        };
        let (count, page) = (first(Kind::Count), first(Kind::Page));
        let there = kube.keys.space - kube.keys.number(page);
        assert!(check(count, 0, 1000) && !check(count, 0, 999) && !check(count, 1, 1000));
        assert!(check(page, there.min(10) as usize, there) && !check(page, 0, there));
    }
}
