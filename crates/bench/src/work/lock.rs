//! Locks that many want: taken by the server's lock service, given back at once, or after a look at the key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::{RangeRequest, RangeResponse};
use milepost_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

use super::{Leases, Next, Work, append, decode, revision};

/// Every so many operations the lock is held for the length of a read: while it lasts nobody else may get the lock.
const LOOK_EVERY: u64 = 8;

/// Ticket n takes lock n mod locks for its client's lease, and gives it back.
pub struct Lock {
    /// One lease per client: a lock belongs to a lease, and two clients with the same one would both have it.
    pub leases: Arc<Leases>,
    /// By lock: whether somebody looks at its key, and so has it.
    pub held: Box<[AtomicBool]>,
}

impl Lock {
    /// Nobody has any of `locks`.
    pub fn new(leases: Arc<Leases>, locks: u64) -> Lock {
        Lock { leases, held: (0..locks).map(|_| AtomicBool::new(false)).collect() }
    }

    fn number(&self, n: u64) -> usize {
        (n % self.held.len() as u64) as usize
    }
}

impl Work for Lock {
    fn path(&self) -> &'static str {
        "/v3lockpb.Lock/Lock"
    }

    fn encode(&self, _: u64, _: &mut BytesMut) {
        unreachable!("a lock is asked for by a client");
    }

    fn encode_for(&self, client: usize, n: u64, out: &mut BytesMut) {
        let name = format!("bench-lock/{}", self.number(n)).into();
        append(&LockRequest { name, lease: self.leases.id(client as u64) }, out);
    }

    fn check(&self, _: u64, answer: Bytes) -> Result<i64, String> {
        revision(decode::<UnlockResponse>(answer)?.header.as_ref())
    }

    fn answered(&self, _: usize, n: u64, call: usize, answer: Bytes) -> Result<Next, String> {
        let held = &self.held[self.number(n)];
        let looks = n.is_multiple_of(LOOK_EVERY);
        match call {
            0 => {
                let key = decode::<LockResponse>(answer)?.key;
                if held.load(Ordering::Acquire) {
                    return Err("a lock was given to two at once".into());
                }
                if !looks {
                    return Ok(unlock(key));
                }
                held.store(true, Ordering::Release);
                let mut look = BytesMut::new();
                append(&RangeRequest { key, ..RangeRequest::default() }, &mut look);
                Ok(Next::Call("/etcdserverpb.KV/Range", look))
            }
            1 if looks => {
                // Given back before the server hears of it: whoever is next cannot come earlier than that.
                held.store(false, Ordering::Release);
                match decode::<RangeResponse>(answer)?.kvs.pop() {
                    Some(kv) => Ok(unlock(kv.key)),
                    None => Err("the key of a held lock is not there".into()),
                }
            }
            _ => self.check(n, answer).map(Next::Done),
        }
    }
}

fn unlock(key: Bytes) -> Next {
    let mut message = BytesMut::new();
    append(&UnlockRequest { key }, &mut message);
    Next::Call("/v3lockpb.Lock/Unlock", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_proto::Message;
    use milepost_proto::mvccpb::KeyValue;

    #[test]
    fn one_client_one_lease_and_two_holders_are_an_error() {
        let leases = Arc::new(Leases { first: 50, count: 10, ttl: 60 });
        let lock = Lock::new(leases, 3);
        let mut out = BytesMut::new();
        lock.encode_for(4, 5, &mut out);
        let request = LockRequest::decode(out.freeze()).unwrap();
        assert_eq!((request.name, request.lease), (Bytes::from("bench-lock/2"), 54));
        let answer = || LockResponse { header: None, key: "k".into() }.encode_to_vec().into();
        let Ok(Next::Call(path, unlock)) = lock.answered(4, 5, 0, answer()) else { panic!("it is to be given back") };
        assert_eq!((path, UnlockRequest::decode(unlock.freeze()).unwrap().key), ("/v3lockpb.Lock/Unlock", "k".into()));
        let Ok(Next::Call(path, _)) = lock.answered(4, 8, 0, answer()) else { panic!("it is to be looked at") };
        assert_eq!(path, "/etcdserverpb.KV/Range");
        assert!(lock.answered(1, 5, 0, answer()).err().unwrap().contains("two at once"));
        let look = |kvs| RangeResponse { kvs, ..RangeResponse::default() }.encode_to_vec().into();
        assert!(matches!(lock.answered(4, 8, 1, look(vec![KeyValue::default()])), Ok(Next::Call(..))));
        assert!(matches!(lock.answered(1, 5, 0, answer()), Ok(Next::Call(..))));
        assert!(lock.answered(4, 8, 1, look(vec![])).err().unwrap().contains("not there"));
    }
}
