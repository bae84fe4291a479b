//! One server process on loopback, ours or etcd: started with the same flags, asked over HTTP, killed at the end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::bins;

/// How long a start may take before it counts as failed.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long one question may take: a server that accepts and is silent must not stop the loop.
const ASK_PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts to connect. Each costs the starting server nothing: nobody listens yet.
const RETRY_EVERY: Duration = Duration::from_micros(500);

/// A folder below the target folder, so on the same disk for all candidates; gone with the value.
pub struct Place(PathBuf);

impl Place {
    /// An empty folder whose name tells `what` is in it.
    ///
    /// # Errors
    /// It could not be made.
    pub fn new(what: &str) -> Result<Place, String> {
        let path = bins::target().join("xtask").join(format!("{what}-{}", std::process::id()));
        let fail = |error| format!("{}: {error}", path.display());
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(fail)?;
        }
        std::fs::create_dir_all(&path).map_err(fail)?;
        Ok(Place(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Left-over bytes below target are no harm; there is nobody to tell.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How a member speaks with its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// As it is by default.
    Plain,
    /// With a certificate that it makes for itself.
    Tls,
}

/// A running server. Dropping it kills it as `kill -9` does.
pub struct Member {
    child: Child,
    client: SocketAddr,
    /// Where its health is asked for, without TLS.
    health: SocketAddr,
    wire: Wire,
    log: PathBuf,
    /// From the start of the process to the first answered request.
    pub start: Duration,
}

/// Where a member listens, and what it is called.
struct Seat {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
}

impl Member {
    /// Starts `program` alone, with its data in `place` (fresh or used before), and waits until it has answered a
    /// request.
    ///
    /// # Errors
    /// It ended, or did not answer in time; the end of its log is in the text.
    pub fn start(program: &Path, place: &Place) -> Result<Member, String> {
        Member::start_on(program, place, Wire::Plain)
    }

    /// The same, with more words for the program.
    ///
    /// # Errors
    /// As [`Member::start`].
    pub fn start_with(program: &Path, place: &Place, words: &[&str]) -> Result<Member, String> {
        Member::start_as(program, place, Wire::Plain, words)
    }

    /// The same, on `wire`.
    ///
    /// # Errors
    /// As [`Member::start`].
    pub fn start_on(program: &Path, place: &Place, wire: Wire) -> Result<Member, String> {
        Member::start_as(program, place, wire, &[])
    }

    fn start_as(program: &Path, place: &Place, wire: Wire, words: &[&str]) -> Result<Member, String> {
        let seat = seat("default".to_owned())?;
        let began = Instant::now();
        let mut member = Member::spawn(program, place.path(), &seat, std::slice::from_ref(&seat), wire, words)?;
        member.wait(began).map_err(|problem| format!("{} {problem}", program.display()))?;
        Ok(member)
    }

    fn spawn(
        program: &Path,
        dir: &Path,
        seat: &Seat,
        all: &[Seat],
        wire: Wire,
        words: &[&str],
    ) -> Result<Member, String> {
        let log = dir.join("log");
        let file = std::fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let url = |address: SocketAddr| format!("http://{address}");
        let cluster: Vec<String> = all.iter().map(|seat| format!("{}={}", seat.name, url(seat.peer))).collect();
        let mut command = Command::new(program);
        let mut health = seat.client;
        let client = match wire {
            Wire::Plain => url(seat.client),
            Wire::Tls => {
                [health, _] = free_ports().map_err(|error| format!("no free port on 127.0.0.1: {error}"))?;
                command.args(["--auto-tls", "--listen-metrics-urls", &url(health)]);
                format!("https://{}", seat.client)
            }
        };
        let child = command
            .args(["--name", &seat.name, "--data-dir"])
            .arg(dir.join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &url(seat.peer), "--initial-advertise-peer-urls", &url(seat.peer)])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Member { child, client: seat.client, health, wire, log, start: Duration::ZERO })
    }

    fn wait(&mut self, began: Instant) -> Result<(), String> {
        self.wait_healthy(began).map_err(|problem| format!("{problem}; its log ends:\n{}", tail(&self.log)))?;
        self.start = began.elapsed();
        Ok(())
    }

    fn wait_healthy(&mut self, began: Instant) -> Result<(), String> {
        while !healthy(self.health) {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Err(format!("ended by itself ({status})"));
            }
            if began.elapsed() > START_PATIENCE {
                return Err(format!("did not answer /health within {START_PATIENCE:?}"));
            }
            std::thread::sleep(RETRY_EVERY);
        }
        Ok(())
    }

    /// Its client address; with its scheme if that is https.
    pub fn client(&self) -> String {
        match self.wire {
            Wire::Plain => self.client.to_string(),
            Wire::Tls => format!("https://{}", self.client),
        }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets servers be for so long, for what only time brings about: idle timers, a load that has begun.
pub fn leave_alone(length: Duration) {
    std::thread::sleep(length);
}

/// Members of one cluster, all on this machine.
pub struct Cluster(Vec<Member>);

impl Cluster {
    /// Starts `count` fresh members of a new cluster, each with a folder of its own below `place`, and waits until each
    /// has answered a request.
    ///
    /// # Errors
    /// One ended, or did not answer in time; the end of its log is in the text.
    pub fn start(program: &Path, place: &Place, count: u64) -> Result<Cluster, String> {
        let seats = (1..=count).map(|number| seat(format!("m{number}"))).collect::<Result<Vec<_>, _>>()?;
        let began = Instant::now();
        let mut members = Vec::new();
        for seat in &seats {
            let dir = place.path().join(&seat.name);
            std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
            members.push(Member::spawn(program, &dir, seat, &seats, Wire::Plain, &[])?);
        }
        for (member, seat) in members.iter_mut().zip(&seats) {
            member.wait(began).map_err(|problem| format!("{}, {} {problem}", program.display(), seat.name))?;
        }
        Ok(Cluster(members))
    }

    /// The client addresses of all, with commas.
    pub fn clients(&self) -> String {
        self.joined(Member::client)
    }

    /// The process numbers of all, with commas.
    pub fn pids(&self) -> String {
        self.joined(|member| member.pid().to_string())
    }

    fn joined(&self, text: impl Fn(&Member) -> String) -> String {
        self.0.iter().map(text).collect::<Vec<_>>().join(",")
    }
}

fn seat(name: String) -> Result<Seat, String> {
    let [client, peer] = free_ports().map_err(|error| format!("no free port on 127.0.0.1: {error}"))?;
    Ok(Seat { name, client, peer })
}

/// Two ports of loopback that nobody listens on now.
///
/// # Errors
/// No socket, or no port is left.
pub fn free_ports() -> std::io::Result<[SocketAddr; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?, listeners[1].local_addr()?])
}

/// Whether `/health` says yes. Both servers answer it with a linearizable read of their own: there is a leader, and
/// the log up to it is applied.
fn healthy(address: SocketAddr) -> bool {
    get(address, "/health").is_ok_and(|answer| {
        let fine = answer.lines().next().is_some_and(|line| line.contains(" 200"));
        fine && answer.contains("\"health\":\"true\"")
    })
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ASK_PATIENCE)?;
    stream.set_read_timeout(Some(ASK_PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    const LINES: usize = 5;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(place: &Place, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = place.path().join("server");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_server_that_ends_is_reported_with_its_log() {
        let place = Place::new("test-ends").unwrap();
        let error = Member::start(&script(&place, "echo cannot listen >&2; exit 3"), &place).err().unwrap();
        assert!(error.contains("ended by itself (exit status: 3)") && error.contains("cannot listen"), "{error}");
    }

    #[test]
    fn places_are_empty_at_first_and_gone_afterwards() {
        let place = Place::new("test-place").unwrap();
        let path = place.path().to_path_buf();
        std::fs::write(path.join("left over"), "x").unwrap();
        drop(place);
        assert!(!path.exists());
    }

    #[test]
    fn health_is_a_status_and_a_word() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for answer in [
                "200 OK\r\n\r\n{\"health\":\"true\"}",
                "503 No\r\n\r\n{\"health\":\"true\"}",
                "200 OK\r\n\r\n{\"health\":\"false\"}",
            ] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 256];
                assert!(stream.read(&mut request).unwrap() > 0);
                stream.write_all(format!("HTTP/1.0 {answer}").as_bytes()).unwrap();
            }
        });
        assert_eq!([healthy(address), healthy(address), healthy(address)], [true, false, false]);
        server.join().unwrap();
        assert!(!healthy(address), "nobody listens any more");
    }
}
