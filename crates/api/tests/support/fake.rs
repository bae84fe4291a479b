//! A member that answers from memory, as told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use milepost_api::{Backend, Completion, Error, Reply, Standing, Waiter};
use milepost_proto::Message;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::internal_raft_request::Request;

/// Answers on a thread of its own, in batches, as the node does.
pub struct Fake {
    shared: Arc<Shared>,
    ids: AtomicU64,
    /// Where the member stands.
    pub standing: Mutex<Standing>,
}

struct Shared {
    mail: Mutex<VecDeque<(Bytes, Option<Waiter>)>>,
    posted: Condvar,
    revision: AtomicU64,
    puts: AtomicU64,
}

impl Fake {
    /// A member with one thread.
    pub fn new() -> Self {
        let shared = Arc::new(Shared { mail: Mutex::default(), posted: Condvar::new(), revision: AtomicU64::new(1), puts: AtomicU64::new(0) });
        let worker = shared.clone();
        std::thread::spawn(move || worker.answer());
        let standing = Standing { cluster_id: 7, member_id: 8, leader: 8, term: 2, ..Standing::default() };
        Self { shared, ids: AtomicU64::new(1), standing: Mutex::new(standing) }
    }

    /// Puts answered so far.
    pub fn puts(&self) -> u64 {
        self.shared.puts.load(Ordering::Relaxed)
    }

    fn post(&self, payload: Bytes, waiter: Waiter) {
        let mut mail = self.shared.mail.lock().unwrap();
        mail.push_back((payload, Some(waiter)));
        if mail.len() == 1 {
            self.shared.posted.notify_one();
        }
    }
}

impl Shared {
    fn answer(&self) {
        loop {
            let batch = {
                let mut mail = self.mail.lock().unwrap();
                while mail.is_empty() {
                    mail = self.posted.wait(mail).unwrap();
                }
                std::mem::take(&mut *mail)
            };
            let mut sinks: Vec<(Arc<dyn milepost_api::CompletionSink>, Vec<(u64, Completion)>)> = Vec::new();
            for (payload, waiter) in batch {
                let Some(waiter) = waiter else { return };
                let completion = if payload.is_empty() { Completion::ReadReady } else { self.apply(&payload) };
                match sinks.iter_mut().find(|(sink, _)| Arc::ptr_eq(sink, &waiter.sink)) {
                    Some((_, mail)) => mail.push((waiter.ticket, completion)),
                    None => sinks.push((waiter.sink, vec![(waiter.ticket, completion)])),
                }
            }
            for (sink, mut mail) in sinks {
                sink.complete(&mut mail);
            }
        }
    }

    fn apply(&self, payload: &[u8]) -> Completion {
        let entry = pb::InternalRaftRequest::decode(payload).unwrap();
        Completion::Reply(match entry.request {
            Some(Request::Put(_)) => {
                self.puts.fetch_add(1, Ordering::Relaxed);
                let revision = self.revision.fetch_add(1, Ordering::Relaxed) as i64 + 1;
                let header = Some(pb::ResponseHeader { revision, ..Default::default() });
                Ok(Reply::Put(pb::PutResponse { header, prev_kv: None }))
            }
            _ => Ok(Reply::Empty),
        })
    }
}

impl Drop for Fake {
    fn drop(&mut self) {}
}

impl Backend for Fake {
    fn next_request_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
    fn propose(&self, _: u64, payload: Bytes, waiter: Waiter) {
        self.post(payload, waiter);
    }
    fn read_index(&self, waiter: Waiter) {
        self.post(Bytes::new(), waiter);
    }
    fn standing(&self) -> Standing {
        *self.standing.lock().unwrap()
    }
    fn revision(&self) -> i64 {
        self.shared.revision.load(Ordering::Relaxed) as i64
    }
    fn range(&self, _: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        let _: BTreeMap<u8, u8> = BTreeMap::new();
        Ok(pb::RangeResponse { header: None, ..Default::default() })
    }
    fn cluster_version(&self) -> Option<String> {
        Some("3.7.0".into())
    }
}
