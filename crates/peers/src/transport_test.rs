//! Transports that talk to each other over real sockets, and to others that misbehave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use milepost_env::OsClock;
use milepost_proto::{Message, raftpb};
use milepost_types::{ClusterId, MemberId};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::framing::{MSG_APP, MSG_APP_RESP, MSG_SNAP};
use crate::{Inbox, NoJournal, Patience, Service, TlsSettings, Transport, TransportConfig};

/// Long enough for any machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const HEARTBEAT: i32 = 8;

/// What an inbox was told.
#[derive(Debug, PartialEq)]
enum Told {
    Message(Box<raftpb::Message>),
    Unreachable(u64),
    SnapshotSent(u64, bool),
    SnapshotBegins(u64),
    Snapshot(u64, Result<Vec<u8>, String>),
    Removed,
}

struct Notes {
    told: Mutex<Sender<Told>>,
    /// What installing a snapshot answers.
    refuse: Option<&'static str>,
}

impl Notes {
    fn tell(&self, told: Told) {
        // A test that has seen enough listens no more.
        let _ = self.told.lock().send(told);
    }
}

impl Inbox for Notes {
    fn receive(&self, message: raftpb::Message) {
        self.tell(Told::Message(Box::new(message)));
    }

    fn unreachable(&self, peer: MemberId) {
        self.tell(Told::Unreachable(peer.0));
    }

    fn snapshot_sent(&self, peer: MemberId, ok: bool) {
        self.tell(Told::SnapshotSent(peer.0, ok));
    }

    fn snapshot(&self, message: raftpb::Message, body: &mut dyn Read) -> Result<(), String> {
        if let Some(why) = self.refuse {
            return Err(why.into());
        }
        self.tell(Told::SnapshotBegins(message.from()));
        let mut bytes = Vec::new();
        let read = body.read_to_end(&mut bytes).map(|_| bytes).map_err(|why| why.to_string());
        let result = read.as_ref().map(|_| ()).map_err(Clone::clone);
        self.tell(Told::Snapshot(message.from(), read));
        result
    }

    fn removed(&self) {
        self.tell(Told::Removed);
    }
}

/// A peer port as a door serves it. Dropped, it cuts every connection.
struct Port {
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Port {
    fn open(listener: TcpListener, service: Service) -> Self {
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::spawn(move || serve(listener, service, stopped));
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn serve(listener: TcpListener, service: Service, mut stopped: watch::Receiver<bool>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let accept = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (service, hang_up) = (Arc::clone(&service), Arc::<Notify>::default());
                tokio::spawn(async move {
                    let hung = Arc::clone(&hang_up);
                    let answer = service_fn(move |request| {
                        let answering = service(request, Arc::clone(&hang_up));
                        async move { Ok::<_, std::convert::Infallible>(answering.await) }
                    });
                    let serving =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                    tokio::select! {
                        _ = serving => {}
                        () = hung.notified() => {}
                    }
                });
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped.wait_for(|is| *is) => {}
        }
    });
}

/// A member that is nothing but a transport.
struct Member {
    id: u64,
    transport: Transport,
    told: Receiver<Told>,
    port: Option<Port>,
    address: SocketAddr,
}

impl Member {
    fn new(id: u64) -> Self {
        Self::with(id, 0xc1, None)
    }

    fn with(id: u64, cluster: u64, refuse: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = channel();
        let config = TransportConfig {
            patience: Patience::default(),
            member: MemberId(id),
            cluster: ClusterId(cluster),
            peer_urls: vec![format!("http://{address}")],
            server_version: "3.7.1".into(),
            tls: TlsSettings::default(),
            dial_timeout: Duration::from_secs(2),
            clock: Arc::new(OsClock),
            journal: Arc::new(NoJournal),
        };
        let transport = Transport::new(config, Arc::new(Notes { told: Mutex::new(tell), refuse })).unwrap();
        let port = Some(Port::open(listener, transport.service()));
        Self { id, transport, told, port, address }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn entry(&self) -> (MemberId, Vec<String>) {
        (MemberId(self.id), vec![self.url()])
    }

    /// The next thing told that `wanted` wants.
    fn wait<T>(&self, mut wanted: impl FnMut(Told) -> Option<T>) -> T {
        loop {
            let told = self.told.recv_timeout(PATIENCE).expect("told in time");
            if let Some(found) = wanted(told) {
                return found;
            }
        }
    }

    fn message(&self) -> raftpb::Message {
        self.wait(|told| match told {
            Told::Message(message) => Some(*message),
            _ => None,
        })
    }

    /// Sends until `to` has heard of it: the streams may not stand yet.
    fn greet(&self, to: &Member) {
        for index in 1.. {
            self.transport.send(vec![message(HEARTBEAT, self.id, to.id, index)]);
            if let Ok(Told::Message(_)) = to.told.recv_timeout(Duration::from_millis(100)) {
                break;
            }
            assert!(index < 200, "nothing arrives");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.transport.stop();
    }
}

fn message(kind: i32, from: u64, to: u64, index: u64) -> raftpb::Message {
    raftpb::Message { r#type: Some(kind), from: Some(from), to: Some(to), index: Some(index), ..Default::default() }
}

fn append(from: u64, to: u64, index: u64, bytes: usize) -> raftpb::Message {
    let entry = raftpb::Entry {
        term: Some(1),
        index: Some(index + 1),
        r#type: Some(0),
        data: Some(vec![index as u8; bytes].into()),
    };
    let (term, log_term, commit) = (Some(1), Some(1), Some(index));
    raftpb::Message { entries: vec![entry], term, log_term, commit, ..message(MSG_APP, from, to, index) }
}

fn pair() -> (Member, Member) {
    let (a, b) = (Member::new(1), Member::new(2));
    introduce(&[&a, &b], []);
    (a, b)
}

fn introduce(members: &[&Member], removed: impl IntoIterator<Item = u64> + Clone) {
    let entries: Vec<_> = members.iter().map(|member| member.entry()).collect();
    for member in members {
        member.transport.set_members(&entries, removed.clone().into_iter().map(MemberId));
    }
}

/// Waits until both streams of `from` to `to` stand.
fn streams(from: &Member, to: &Member) {
    let ready = || {
        let peer = from.transport.shared_for_tests().peer(MemberId(to.id)).unwrap();
        crate::framing::Kind::BOTH.iter().all(|kind| peer.outbox(*kind).is_open())
    };
    for _ in 0..2000 {
        if ready() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("no streams");
}

#[test]
fn messages_arrive_in_order_and_whole() {
    let (a, b) = pair();
    streams(&a, &b);
    // More than the sockets hold.
    let sent: Vec<_> = (0..300).map(|index| append(1, 2, index, 40_000)).collect();
    for batch in sent.chunks(7) {
        a.transport.send(batch.to_vec());
    }
    for message in sent {
        assert_eq!(b.message(), message);
    }
    assert!(a.transport.active_since(MemberId(2)).is_some());
    let page = a.transport.metrics();
    assert!(page.contains("etcd_network_active_peers{Local=\"1\",Remote=\"2\"} 1"), "{page}");
}

#[test]
fn of_several_responses_only_the_last_is_sent() {
    let (a, b) = pair();
    streams(&a, &b);
    let response = |index| message(MSG_APP_RESP, 1, 2, index);
    a.transport.send(vec![response(1), message(HEARTBEAT, 1, 2, 9), response(2), message(MSG_APP_RESP, 1, 7, 5)]);
    assert_eq!(b.message(), message(HEARTBEAT, 1, 2, 9));
    assert_eq!(b.message(), response(2));
    a.transport.send(vec![response(3)]);
    assert_eq!(b.message(), response(3), "one alone is sent");
}

#[test]
fn cut_streams_come_again() {
    let (a, mut b) = pair();
    streams(&a, &b);
    // B's port dies with everything on it, and comes back.
    let address = b.address;
    b.port = None;
    let listener = TcpListener::bind(address).unwrap();
    b.port = Some(Port::open(listener, b.transport.service()));
    a.greet(&b);
    b.greet(&a);
    streams(&a, &b);
    streams(&b, &a);
}

#[test]
fn a_dead_member_is_reported_and_delays_nobody() {
    let (a, b) = (Member::new(1), Member::new(2));
    // No test listens on this address.
    let dead = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
    let entries = [a.entry(), b.entry(), (MemberId(3), vec![format!("http://{dead}")])];
    a.transport.set_members(&entries, []);
    b.transport.set_members(&entries, []);
    streams(&a, &b);
    for index in 0..100 {
        a.transport.send(vec![message(HEARTBEAT, 1, 3, index), message(HEARTBEAT, 1, 2, index)]);
        assert_eq!(b.message().index(), index);
    }
    assert_eq!(a.wait(|told| matches!(told, Told::Unreachable(_)).then_some(told)), Told::Unreachable(3));
}

#[test]
fn a_member_that_reads_nothing_is_hung_up_and_reported() {
    let a = Member::new(1);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    a.transport.set_members(&[a.entry(), (MemberId(2), vec![format!("http://{}", silent.local_addr().unwrap())])], []);
    // It asks for a stream, and never reads it.
    let mut stream = TcpStream::connect(a.address).unwrap();
    stream.write_all(&ask("/raft/stream/msgapp/2", "c1", "3.7.1", Some("1"))).unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    while a.transport.shared_for_tests().peer(MemberId(2)).unwrap().outbox(crate::framing::Kind::MsgApp).is_open() {
        a.transport.send(vec![append(1, 2, 1, 1 << 20)]);
        std::thread::park_timeout(Duration::from_millis(20));
    }
    a.wait(|told| (told == Told::Unreachable(2)).then_some(()));
}

fn ask(path: &str, cluster: &str, version: &str, to: Option<&str>) -> Vec<u8> {
    let to = to.map(|to| format!("X-Raft-To: {to}\r\n")).unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Server-From: 2\r\nX-Server-Version: {version}\r\n\
         X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {cluster}\r\n{to}\r\n"
    )
    .into_bytes()
}

/// Status and text of the answer to `request`.
fn answer(address: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(text.to_lowercase().contains("x-etcd-cluster-id: c1\r\n"), "{text}");
    (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn streams_are_refused_as_etcd_refuses_them() {
    let a = Member::new(1);
    a.transport.set_members(&[a.entry(), (MemberId(3), vec!["http://127.0.0.1:1".into()])], [MemberId(4)]);
    let of = |path, cluster, version, to| answer(a.address, &ask(path, cluster, version, to));
    let refused = |status, text: &str| (status, format!("{text}\n"));
    assert_eq!(of("/raft/stream/msgapp/3", "c2", "3.7.1", Some("1")), refused(412, "cluster ID mismatch"));
    assert_eq!(of("/raft/stream/msgapp/3", "c1", "2.3.0", Some("1")), refused(412, "incompatible version"));
    assert_eq!(of("/raft/stream/msgapp/3", "c1", "3.7.1", Some("2")), refused(412, "to field mismatch"));
    assert_eq!(of("/raft/stream/msgapp/3", "c1", "3.7.1", None), refused(412, "to field mismatch"));
    assert_eq!(of("/raft/stream/msgapp/5", "c1", "3.7.1", Some("1")), refused(404, "error sender not found"));
    assert_eq!(of("/raft/stream/msgapp/x", "c1", "3.7.1", Some("1")), refused(404, "invalid from"));
    assert_eq!(of("/raft/stream/other/3", "c1", "3.7.1", Some("1")), refused(404, "invalid path"));
    // Removed for good, and only then.
    assert_eq!(of("/raft/stream/msgapp/4", "c1", "3.7.1", Some("1")), refused(410, "removed member"));
    assert_eq!(of("/raft", "c1", "3.7.1", None).0, 405);
    assert_eq!(of("/raftx", "c1", "3.7.1", None).0, 404);
    let (status, probe) = of("/raft/probing", "c2", "x", None);
    assert!(status == 200 && probe.starts_with("{\"OK\":true,\"Now\":\"2"), "{probe}");
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Server-From: 2\r\nX-Server-Version: 3.7.1\r\n\
         X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: c1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

#[test]
fn posts_are_taken_and_refused() {
    let a = Member::new(1);
    a.transport.set_members(&[a.entry()], [MemberId(4)]);
    let of = |message: raftpb::Message| answer(a.address, &post("/raft", &message.encode_to_vec())).0;
    assert_eq!(of(message(HEARTBEAT, 2, 1, 3)), 204);
    assert_eq!(a.message().index(), 3);
    assert_eq!(of(message(HEARTBEAT, 4, 1, 3)), 403, "removed for good");
    assert_eq!(of(message(HEARTBEAT, 2, 9, 3)), 412, "for somebody else; 403 would end an etcd");
    assert_eq!(answer(a.address, &post("/raft", &[0xff])).0, 400);
    let mut wrong = Vec::from(0u64.to_be_bytes());
    assert_eq!(answer(a.address, &post("/raft/snapshot", &wrong)).0, 400, "no MsgSnap");
    wrong.fill(0xff);
    assert_eq!(answer(a.address, &post("/raft/snapshot", &wrong)).0, 400, "too long a message");
}

#[test]
fn garbage_on_a_stream_ends_it_and_nothing_else() {
    let a = Member::new(1);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    a.transport.set_members(&[a.entry(), (MemberId(2), vec![format!("http://{}", other.local_addr().unwrap())])], []);
    // Whatever is asked for gets one good message, and then nonsense; again and again.
    let good = message(HEARTBEAT, 2, 1, 7).encode_to_vec();
    let mut seen = 0;
    while seen < 2 {
        let (mut stream, _) = other.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            request.push(byte[0]);
        }
        if !String::from_utf8_lossy(&request).starts_with("GET /raft/stream/message/1 ") {
            continue;
        }
        seen += 1;
        let mut answer = b"HTTP/1.1 200 OK\r\nX-Server-Version: 3.5.9\r\n\r\n".to_vec();
        answer.extend((good.len() as u64).to_be_bytes());
        answer.extend(&good);
        answer.extend([0xff; 16]);
        stream.write_all(&answer).unwrap();
        assert_eq!(a.message().index(), 7);
    }
}

#[test]
fn strangers_are_answered_where_they_say_they_are() {
    // A knows nobody; B knows A and sends.
    let (a, b) = (Member::new(1), Member::new(2));
    a.transport.set_members(&[a.entry()], []);
    b.transport.set_members(&[a.entry(), b.entry()], []);
    b.greet(&a);
    a.transport.send(vec![message(HEARTBEAT, 1, 2, 77)]);
    assert_eq!(b.message().index(), 77);
    // Once it is removed it is not.
    a.transport.set_members(&[a.entry()], [MemberId(2)]);
    a.transport.send(vec![message(HEARTBEAT, 1, 2, 78)]);
    b.wait(|told| (told == Told::Removed).then_some(()));
}

#[test]
fn a_member_that_moved_is_found_and_one_that_left_is_not() {
    let (a, b) = pair();
    a.greet(&b);
    // B's twin has the same id at another place.
    let twin = Member::new(2);
    twin.transport.set_members(&[a.entry(), twin.entry()], []);
    a.transport.set_members(&[a.entry(), twin.entry()], []);
    drop(b);
    a.greet(&twin);
    a.transport.set_members(&[a.entry()], []);
    assert!(a.transport.active_since(MemberId(2)).is_none());
    assert!(!a.transport.metrics().contains("etcd_network_active_peers{Local=\"1\",Remote=\"2\"} 1"));
}

fn snapshot_message(from: u64, to: u64) -> raftpb::Message {
    let metadata = raftpb::SnapshotMetadata { index: Some(9), term: Some(2), ..Default::default() };
    let snapshot = raftpb::Snapshot { data: Some("{}".into()), metadata: Some(metadata) };
    raftpb::Message { snapshot: Some(snapshot), ..message(MSG_SNAP, from, to, 0) }
}

#[test]
fn snapshots_arrive_whole_and_their_end_is_told() {
    let (a, b) = pair();
    let body: Vec<u8> = (0..5_000_000u32).map(|n| n as u8).collect();
    let sent = body.clone();
    a.transport.send_snapshot(snapshot_message(1, 2), body.len() as u64, Box::new(move |out| out.write_all(&sent)));
    b.wait(|told| (told == Told::Snapshot(1, Ok(body.clone()))).then_some(()));
    a.wait(|told| (told == Told::SnapshotSent(2, true)).then_some(()));
    let page = b.transport.metrics();
    assert!(page.contains("etcd_network_snapshot_receive_success{From=\"1\"} 1"), "{page}");
}

#[test]
fn half_a_snapshot_is_none() {
    let (a, b) = pair();
    let (begun, has_begun) = channel();
    let write = move |out: &mut dyn Write| {
        out.write_all(&[7; 300_000])?;
        // A request that breaks off before it has left was never one.
        has_begun.recv_timeout(PATIENCE).unwrap();
        Err(std::io::Error::other("the store is broken"))
    };
    a.transport.send_snapshot(snapshot_message(1, 2), 500_000, Box::new(write));
    b.wait(|told| (told == Told::SnapshotBegins(1)).then_some(()));
    begun.send(()).unwrap();
    b.wait(|told| match told {
        Told::Snapshot(1, result) => {
            result.unwrap_err();
            Some(())
        }
        _ => None,
    });
    a.wait(|told| (told == Told::SnapshotSent(2, false)).then_some(()));
}

#[test]
fn a_refused_snapshot_is_told_and_lets_the_writer_go() {
    let a = Member::new(1);
    let b = Member::with(2, 0xc1, Some("no room"));
    introduce(&[&a, &b], []);
    let (ended, end) = channel();
    let write = move |out: &mut dyn Write| {
        let result = (0..4000).try_for_each(|_| out.write_all(&[1; 65536]));
        ended.send(result.is_err()).unwrap();
        result
    };
    a.transport.send_snapshot(snapshot_message(1, 2), 1, Box::new(write));
    a.wait(|told| (told == Told::SnapshotSent(2, false)).then_some(()));
    assert!(end.recv_timeout(PATIENCE).unwrap(), "the writer hears that nobody listens");
}

#[test]
fn a_snapshot_to_nobody_is_told_at_once() {
    let a = Member::new(1);
    a.transport.send_snapshot(snapshot_message(1, 2), 1, Box::new(|_| Ok(())));
    assert_eq!(a.told.recv_timeout(PATIENCE).unwrap(), Told::SnapshotSent(2, false));
}

#[test]
fn nothing_moves_after_the_stop() {
    let (a, b) = pair();
    a.greet(&b);
    a.transport.stop();
    a.transport.set_members(&[a.entry(), b.entry()], []);
    a.transport.send(vec![message(HEARTBEAT, 1, 2, 1)]);
    a.transport.send_snapshot(snapshot_message(1, 2), 1, Box::new(|_| Ok(())));
    a.wait(|told| (told == Told::SnapshotSent(2, false)).then_some(()));
    a.transport.stop();
}
