use simple_dns::ResourceRecord;
use simple_dns::rdata::SRV;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

use super::*;

/// A DNS server on a port of its own, with the same answers by datagram and by stream.
struct Server {
    address: SocketAddr,
    /// Names that were asked for, with how.
    asked: Arc<Mutex<Vec<String>>>,
}

/// What it says about a name.
type Zone = fn(&str) -> Answer;

enum Answer {
    Records(Vec<(u16, u16, u16, &'static str)>),
    Code(RCODE),
    /// Cut by datagram; these by stream.
    Long(usize),
    /// Nothing.
    Silence,
}

impl Server {
    async fn start(zone: Zone) -> Server {
        let (datagrams, streams) = loop {
            let streams = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // The same port may be taken there.
            if let Ok(datagrams) = UdpSocket::bind(streams.local_addr().unwrap()).await {
                break (datagrams, streams);
            }
        };
        let address = streams.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 600];
            loop {
                let (length, from) = datagrams.recv_from(&mut buffer).await.unwrap();
                let Some(answer) = answer(&buffer[..length], zone, &seen, "datagram") else { continue };
                // What is not for this question is passed over.
                let mut stray = answer.clone();
                stray[0] ^= 0x55;
                for bytes in [&b"x"[..], &stray, &answer] {
                    datagrams.send_to(bytes, from).await.unwrap();
                }
            }
        });
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = streams.accept().await.unwrap();
                let mut question = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut question).await.unwrap();
                if let Some(answer) = answer(&question, zone, &seen, "stream") {
                    stream.write_u16(answer.len() as u16).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            }
        });
        Server { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().drain(..).collect()
    }
}

fn answer(question: &[u8], zone: Zone, seen: &Mutex<Vec<String>>, way: &str) -> Option<Vec<u8>> {
    let question = Packet::parse(question).unwrap();
    let name = question.questions[0].qname.to_string();
    seen.lock().unwrap().push(format!("{way} {name}"));
    let mut reply = Packet::new_reply(question.id());
    reply.questions.push(question.questions[0].clone());
    let mut add = |(priority, weight, port, target): (u16, u16, u16, &'static str)| {
        let srv = SRV { priority, weight, port, target: Name::new(target).unwrap() };
        let owner = Name::new(&name).unwrap().into_owned();
        reply.answers.push(ResourceRecord::new(owner, CLASS::IN, 60, RData::SRV(srv)));
    };
    match zone(&name) {
        Answer::Records(records) => records.into_iter().for_each(add),
        Answer::Code(code) => *reply.rcode_mut() = code,
        Answer::Long(_) if way == "datagram" => reply.set_flags(PacketFlag::TRUNCATION),
        Answer::Long(count) => (0..count).for_each(|port| add((0, 0, port as u16, "h.example"))),
        Answer::Silence => return None,
    }
    Some(reply.build_bytes_vec().unwrap())
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn place(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
    Srv { target: target.into(), port, priority, weight }
}

#[test]
fn services_are_named_as_etcd_names_them() {
    assert_eq!(service("etcd-client", false, ""), "etcd-client");
    assert_eq!(service("etcd-client", true, ""), "etcd-client-ssl");
    assert_eq!(service("etcd-server", true, "blue"), "etcd-server-ssl-blue");
}

#[test]
fn the_preferred_places_come_first() {
    run(async {
        let server = Server::start(|_| {
            Answer::Records(vec![(2, 9, 1, "c.example"), (1, 0, 2, "b.example"), (1, 5, 3, "A.example")])
        });
        let server = server.await;
        let found = Resolver::new(vec![server.address]).srv("etcd-client", "example").await.unwrap();
        assert_eq!(found, [place(1, 5, 3, "A.example"), place(1, 0, 2, "b.example"), place(2, 9, 1, "c.example")]);
        assert_eq!(server.asked(), ["datagram _etcd-client._tcp.example"]);
    });
}

#[test]
fn an_answer_that_was_cut_is_asked_for_again() {
    run(async {
        let server = Server::start(|_| Answer::Long(100)).await;
        let found = Resolver::new(vec![server.address]).srv("etcd-client", "example").await.unwrap();
        assert_eq!(found.len(), 100);
        assert_eq!(server.asked().len(), 2);
    });
}

#[test]
fn what_is_not_there_is_told_in_gos_words() {
    run(async {
        let zone: Zone = |name| {
            if name.contains("none") { Answer::Records(Vec::new()) } else { Answer::Code(RCODE::NameError) }
        };
        let server = Server::start(zone).await;
        let resolver = Resolver::new(vec![server.address]);
        for domain in ["none.example", "other.example"] {
            let why = resolver.srv("etcd-client", domain).await.unwrap_err().to_string();
            assert_eq!(why, format!("lookup _etcd-client._tcp.{domain} on {}: no such host", server.address));
            assert_eq!(server.asked().len(), 1, "the word of one server is enough");
        }
        let long = "x".repeat(64);
        let why = resolver.srv("etcd-client", &long).await.unwrap_err().to_string();
        assert!(why.ends_with(": no such host"), "{why}");
        assert!(server.asked().is_empty(), "no such name can be asked for");
    });
}

#[test]
fn another_server_is_asked_when_one_fails() {
    run(async {
        let sick = Server::start(|_| Answer::Code(RCODE::ServerFailure)).await;
        let mute = Server::start(|_| Answer::Silence).await;
        let well = Server::start(|_| Answer::Records(vec![(0, 0, 1, "a")])).await;
        let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let resolver = |servers: &[SocketAddr]| Resolver {
            patience: Duration::from_millis(50),
            ..Resolver::new(servers.to_vec())
        };
        let all = resolver(&[sick.address, mute.address, gone, well.address]);
        assert_eq!(all.srv("etcd-client", "example").await.unwrap(), [place(0, 0, 1, "a")]);
        for (server, why) in
            [(sick.address, "server misbehaving"), (mute.address, "i/o timeout"), (gone, "connection refused")]
        {
            let error = resolver(&[server]).srv("s", "d").await.unwrap_err();
            assert_eq!((error.server, error.why.as_str()), (server, why));
        }
        assert_eq!((sick.asked().len(), mute.asked().len()), (3, 3), "each server is asked twice");
    });
}

#[test]
fn names_are_searched_as_resolv_conf_says() {
    let text = b"nameserver 192.0.2.1\nnameserver ::1\nsearch one.example two.example\noptions ndots:3 timeout:7 attempts:1\nrubbish\n";
    let resolver = Resolver::read(text);
    assert_eq!(resolver.servers, ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    assert_eq!((resolver.patience, resolver.attempts), (Duration::from_secs(7), 1));
    assert_eq!(resolver.candidates("_s._tcp.d"), ["_s._tcp.d.one.example.", "_s._tcp.d.two.example.", "_s._tcp.d."]);
    assert_eq!(resolver.candidates("_s._tcp.d.e")[0], "_s._tcp.d.e.");
    assert_eq!(resolver.candidates("_s._tcp.d."), ["_s._tcp.d."]);
    assert_eq!(Resolver::read(b"").servers.len(), 2, "this machine's");
    run(async {
        let zone: Zone = |name| match name {
            "_s._tcp.d.two.example" => Answer::Records(vec![(0, 0, 1, "a")]),
            _ => Answer::Code(RCODE::NameError),
        };
        let server = Server::start(zone).await;
        let resolver = Resolver { servers: vec![server.address], ..resolver };
        assert_eq!(resolver.srv("s", "d").await.unwrap().len(), 1);
        assert_eq!(server.asked(), ["datagram _s._tcp.d.one.example", "datagram _s._tcp.d.two.example"]);
    });
}
