//! Leases that stay alive, and what is built on them.

use std::time::Duration;

use milepost_client::{Client, Deadline, Election, Mutex, Observer, Session};
use milepost_proto::etcdserverpb as pb;

use crate::support::relay::Relay;
use crate::support::{Server, client, get, nobody, run, soon};

async fn grant(client: &Client, ttl: i64) -> i64 {
    client.lease().grant(pb::LeaseGrantRequest { ttl, id: 0 }, soon()).await.unwrap().id
}

#[test]
fn a_lease_is_renewed_until_it_is_revoked() {
    run(async {
        let server = Server::start();
        let client = server.client().await;
        let group = client.keep_alives();
        let (first, second) = (grant(&client, 3).await, grant(&client, 3).await);
        let (mut a, mut b) = (group.add(first), group.add(second));
        for _ in 0..2 {
            let answers = (a.next().await.unwrap(), b.next().await.unwrap());
            assert_eq!((answers.0.id, answers.1.id, answers.0.ttl), (first, second, 3));
        }
        client.lease().revoke(pb::LeaseRevokeRequest { id: first }, soon()).await.unwrap();
        assert_eq!(a.next().await, None);
        assert_eq!(b.next().await.unwrap().id, second);
    });
}

#[test]
fn renewals_go_on_through_a_broken_wire() {
    run(async {
        let server = Server::start();
        let relay = Relay::to(server.address()).await;
        let client = client(&[&relay.address().to_string()]).await;
        let lease = grant(&client, 3).await;
        let mut kept = client.keep_alive(lease);
        for _ in 0..3 {
            assert_eq!(kept.next().await.unwrap().id, lease);
            relay.cut();
        }
    });
}

#[test]
fn a_lease_nobody_answers_for_is_given_up() {
    run(async {
        let config = milepost_client::Config {
            endpoints: vec![nobody()],
            dial_timeout: Duration::from_millis(10),
            ..Default::default()
        };
        let client = Client::connect(config).await.unwrap();
        assert_eq!(client.keep_alive(7).next().await, None);
    });
}

#[test]
fn one_renewal_of_a_lease_that_is_not_there_says_so() {
    run(async {
        let server = Server::start();
        let client = server.client().await;
        let lease = grant(&client, 30).await;
        assert_eq!(client.keep_alive_once(lease, soon()).await.unwrap().ttl, 30);
        let error = client.keep_alive_once(lease + 1, soon()).await.unwrap_err();
        assert_eq!(error.to_string(), "etcdserver: requested lease not found");
    });
}

#[test]
fn a_lock_passes_on_when_it_is_given_back() {
    run(async {
        let server = Server::start();
        let client = server.client().await;
        let (one, two) = (Session::new(&client, 30).await.unwrap(), Session::new(&client, 30).await.unwrap());
        let mut first = Mutex::new(&one, b"lock");
        first.lock().await.unwrap();
        assert_eq!(first.key(), &format!("lock/{:x}", one.lease()));
        // The same session holds it still.
        Mutex::new(&one, b"lock").lock().await.unwrap();
        let mut second = Mutex::new(&two, b"lock");
        let waiting = second.lock();
        tokio::pin!(waiting);
        let early = tokio::time::timeout(Duration::from_millis(100), waiting.as_mut()).await;
        assert!(early.is_err(), "two hold one lock");
        first.unlock().await.unwrap();
        waiting.await.unwrap();
        let error = first.unlock().await.unwrap_err();
        assert_eq!(error.to_string(), "mutex: lock has already been released");
    });
}

#[test]
fn who_gives_up_waiting_leaves_the_queue() {
    run(async {
        let server = Server::start();
        let client = server.client().await;
        let (one, two) = (Session::new(&client, 30).await.unwrap(), Session::new(&client, 30).await.unwrap());
        Mutex::new(&one, b"lock").lock().await.unwrap();
        let mut second = Mutex::new(&two, b"lock");
        let _ = tokio::time::timeout(Duration::from_millis(100), second.lock()).await;
        second.unlock().await.unwrap();
        let left = client.kv().range(get(&format!("lock/{:x}", two.lease())), soon()).await.unwrap();
        assert!(left.kvs.is_empty());
    });
}

#[test]
fn a_lock_passes_on_when_its_session_ends() {
    run(async {
        let server = Server::start();
        let client = server.client().await;
        let (one, two) = (Session::new(&client, 30).await.unwrap(), Session::new(&client, 3).await.unwrap());
        Mutex::new(&one, b"lock").lock().await.unwrap();
        let mut second = Mutex::new(&two, b"lock");
        let (locked, closed) = tokio::join!(second.lock(), one.close());
        closed.unwrap();
        locked.unwrap();
        // A lease that is revoked by others ends its session.
        client.lease().revoke(pb::LeaseRevokeRequest { id: two.lease() }, Deadline::NEVER).await.unwrap();
        drop(second);
        two.ended().await;
    });
}

#[test]
fn observers_hear_of_every_leader() {
    run(async {
        let server = Server::start();
        let client = server.client().await;
        let (one, two) = (Session::new(&client, 30).await.unwrap(), Session::new(&client, 30).await.unwrap());
        let mut observer = Observer::new(&client, b"e");
        let value = |answer: Option<pb::RangeResponse>| answer.unwrap().kvs.remove(0).value;
        let mut first = Election::new(&one, b"e");
        let (heard, won) = tokio::join!(observer.next(), first.campaign("a".into()));
        won.unwrap();
        assert_eq!(value(heard), "a");
        first.proclaim("b".into()).await.unwrap();
        assert_eq!(value(observer.next().await), "b");
        let mut second = Election::new(&two, b"e");
        let (won, resigned) = tokio::join!(second.campaign("c".into()), first.resign());
        resigned.unwrap();
        won.unwrap();
        assert_eq!(value(observer.next().await), "c");
        let error = first.proclaim("d".into()).await.unwrap_err();
        assert_eq!(error.to_string(), "election: not leader");
    });
}
