//! Servers by DNS: the SRV records of a service in a domain.
//!
//! ```text
//!  name ─► as it is, and below each domain of `search` ─► each server in turn, twice ─► records, the preferred first
//!                                                          (a datagram; a stream if the answer was cut)
//! ```
//! The C library resolves hosts, and does not know SRV records; these questions go to the servers of `/etc/resolv.conf`
//! directly, as Go's own resolver does. Its words for failures are kept.
//!
//! Sources: RFC 2782; Go `net.LookupSRV`; etcd `client/pkg/srv` for the names of services.

use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use resolv_conf::ScopedIp;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const DNS_PORT: u16 = 53;
/// Longest answer in a datagram: we ask without the extension that would allow more. RFC 1035, section 4.2.1.
const DATAGRAM_BYTES: usize = 512;

/// The name of a service: `-ssl` for the one with TLS, then the cluster's own suffix. Source: etcd `GetSRVService`.
#[must_use]
pub fn service(base: &str, has_tls: bool, suffix: &str) -> String {
    let ssl = if has_tls { "-ssl" } else { "" };
    let dash = if suffix.is_empty() { "" } else { "-" };
    format!("{base}{ssl}{dash}{suffix}")
}

/// One place where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Host, without the dot at its end.
    pub target: String,
    /// Its port.
    pub port: u16,
    /// Lower is preferred.
    pub priority: u16,
    /// Share among those of the same priority.
    pub weight: u16,
}

/// Why there are no records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lookup {name} on {server}: {why}")]
pub struct LookupError {
    /// What was asked for.
    pub name: String,
    /// Who was asked last.
    pub server: SocketAddr,
    /// In Go's words.
    pub why: String,
}

/// Asks DNS servers.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// In turn; never none.
    servers: Vec<SocketAddr>,
    /// Domains below which a name may be meant.
    search: Vec<String>,
    /// A name with fewer dots is looked for in `search` first.
    dots: usize,
    /// For each server, each time.
    patience: Duration,
    /// How often each server is asked.
    attempts: u32,
}

impl Resolver {
    /// As `/etc/resolv.conf` says; without that, or without a server in it, the one on this machine is asked.
    #[must_use]
    pub fn system() -> Resolver {
        Resolver::read(&std::fs::read("/etc/resolv.conf").unwrap_or_default())
    }

    /// Asks `servers`, at least one, alone.
    ///
    /// # Panics
    /// Without a server.
    #[must_use]
    pub fn new(servers: Vec<SocketAddr>) -> Resolver {
        assert!(!servers.is_empty(), "somebody must be asked");
        Resolver { servers, search: Vec::new(), dots: 1, patience: Duration::from_secs(5), attempts: 2 }
    }

    /// Lines that cannot be read are passed over, as every resolver does.
    fn read(text: &[u8]) -> Resolver {
        let (config, _) = resolv_conf::Config::parse_with_errors(text);
        let mut servers: Vec<SocketAddr> =
            config.nameservers.iter().map(|server| (ip(server), DNS_PORT).into()).collect();
        if servers.is_empty() {
            servers = vec![(Ipv4Addr::LOCALHOST, DNS_PORT).into(), (Ipv6Addr::LOCALHOST, DNS_PORT).into()];
        }
        Resolver {
            search: config.get_last_search_or_domain().cloned().collect(),
            dots: config.ndots as usize,
            patience: Duration::from_secs(config.timeout.max(1).into()),
            attempts: config.attempts.max(1),
            ..Resolver::new(servers)
        }
    }

    /// The places of `_service._tcp.domain`, those of the lowest priority first, heavier ones before lighter ones.
    ///
    /// # Errors
    /// There are no such records, or no server says so.
    pub async fn srv(&self, service: &str, domain: &str) -> Result<Vec<Srv>, LookupError> {
        let name = format!("_{service}._tcp.{domain}");
        let mut failed = (self.servers[0], Failure::NONE);
        for full in self.candidates(&name) {
            match self.ask_all(&full).await {
                Ok(mut found) => {
                    found.sort_by_key(|place| (place.priority, Reverse(place.weight)));
                    return Ok(found);
                }
                Err(why) => failed = why,
            }
        }
        let (server, Failure { why, .. }) = failed;
        Err(LookupError { name, server, why })
    }

    /// The names that `name` may stand for, in the order in which they are tried.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut names: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{}.", domain.trim_matches('.'))).collect();
        let itself = format!("{name}.");
        if name.matches('.').count() >= self.dots {
            names.insert(0, itself);
        } else {
            names.push(itself);
        }
        names
    }

    /// The first word of a server that knows.
    async fn ask_all(&self, name: &str) -> Result<Vec<Srv>, (SocketAddr, Failure)> {
        let mut failed = (self.servers[0], Failure::NONE);
        for _ in 0..self.attempts {
            for server in &self.servers {
                let answer = tokio::time::timeout(self.patience, ask(*server, name)).await;
                match answer.unwrap_or_else(|_| Err(Failure::of("i/o timeout"))) {
                    Ok(found) => return Ok(found),
                    Err(why) if why.is_final => return Err((*server, why)),
                    Err(why) => failed = (*server, why),
                }
            }
        }
        Err(failed)
    }
}

fn ip(server: &ScopedIp) -> IpAddr {
    server.clone().into()
}

struct Failure {
    why: String,
    /// No other server will know better.
    is_final: bool,
}

impl Failure {
    const NONE: Failure = Failure { why: String::new(), is_final: false };

    fn of(why: impl Into<String>) -> Failure {
        Failure { why: why.into(), is_final: false }
    }

    fn unknown() -> Failure {
        Failure { why: "no such host".into(), is_final: true }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::of("connection refused"),
            io::ErrorKind::UnexpectedEof => Failure::of("EOF"),
            _ => Failure::of(error.to_string()),
        }
    }
}

impl From<simple_dns::SimpleDnsError> for Failure {
    fn from(_: simple_dns::SimpleDnsError) -> Failure {
        Failure::of("cannot unmarshal DNS message")
    }
}

async fn ask(server: SocketAddr, name: &str) -> Result<Vec<Srv>, Failure> {
    // A name that cannot be written in a question does not exist.
    let known = Name::new(name.trim_end_matches('.')).map_err(|_| Failure::unknown())?;
    // Whoever answers for somebody else would have to guess this, and the port that the kernel chose.
    let id = (RandomState::new().hash_one(name) & 0xffff) as u16;
    let mut question = Packet::new_query(id);
    question.set_flags(PacketFlag::RECURSION_DESIRED);
    question.questions.push(Question::new(known, QTYPE::TYPE(TYPE::SRV), QCLASS::CLASS(CLASS::IN), false));
    let question = question.build_bytes_vec()?;
    match by_datagram(server, &question).await? {
        Some(found) => Ok(found),
        None => by_stream(server, &question).await,
    }
}

/// The answer, or `None` if it was too long for a datagram.
async fn by_datagram(server: SocketAddr, question: &[u8]) -> Result<Option<Vec<Srv>>, Failure> {
    let here: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((here, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = [0; DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Something else, or for somebody else: the answer may still come.
        let Ok(packet) = Packet::parse(&answer[..length]) else { continue };
        if !is_answer(&packet, question) {
            continue;
        }
        let is_cut = packet.has_flags(PacketFlag::TRUNCATION);
        return if is_cut { Ok(None) } else { places(&packet).map(Some) };
    }
}

async fn by_stream(server: SocketAddr, question: &[u8]) -> Result<Vec<Srv>, Failure> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).expect("a question is short");
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    let packet = Packet::parse(&answer)?;
    if is_answer(&packet, question) { places(&packet) } else { Err(Failure::of("invalid DNS response")) }
}

/// Is `packet` what was asked for?
fn is_answer(packet: &Packet<'_>, question: &[u8]) -> bool {
    let Ok(asked) = Packet::parse(question) else { return false };
    let same_name = |one: &Name<'_>, other: &Name<'_>| one.to_string().eq_ignore_ascii_case(&other.to_string());
    let [asked_for] = &asked.questions[..] else { return false };
    let [answered] = &packet.questions[..] else { return false };
    packet.has_flags(PacketFlag::RESPONSE)
        && packet.id() == asked.id()
        && answered.qtype == asked_for.qtype
        && same_name(&answered.qname, &asked_for.qname)
}

fn places(packet: &Packet<'_>) -> Result<Vec<Srv>, Failure> {
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Err(Failure::unknown()),
        _ => return Err(Failure::of("server misbehaving")),
    }
    let found: Vec<Srv> = packet
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::SRV(srv) => {
                Some(Srv { target: srv.target.to_string(), port: srv.port, priority: srv.priority, weight: srv.weight })
            }
            // On the way from an alias.
            _ => None,
        })
        .collect();
    if found.is_empty() { Err(Failure::unknown()) } else { Ok(found) }
}

#[cfg(test)]
#[path = "discover_test.rs"]
mod tests;
