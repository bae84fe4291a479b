//! A member as a process of its own, for tests that look at it from outside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// `host:port` that nobody listens on: the kernel's choice of port, on a loopback address that no other call is given, so that
/// the port is still free when it is wanted.
pub fn free_address() -> String {
    static GIVEN: AtomicU8 = AtomicU8::new(2);
    let host = Ipv4Addr::new(127, 0, 0, GIVEN.fetch_add(1, Ordering::Relaxed));
    let listener = TcpListener::bind((host, 0)).expect("loopback has free ports");
    listener.local_addr().expect("it is bound").to_string()
}

/// The flags that put a member on `client` and `peer` with its data in `dir`.
pub fn flags(dir: &Path, client: &str, peer: &str) -> Vec<String> {
    [
        format!("--data-dir={}", dir.display()),
        format!("--listen-client-urls=http://{client}"),
        format!("--advertise-client-urls=http://{client}"),
        format!("--listen-peer-urls=http://{peer}"),
        format!("--initial-advertise-peer-urls=http://{peer}"),
        format!("--initial-cluster=default=http://{peer}"),
    ]
    .to_vec()
}

/// The server's command without an `ETCD_*` environment.
pub fn command(args: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_milepost"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command line that is expected to end by itself.
pub fn run_to_end(args: &[String]) -> Output {
    command(args).output().expect("the binary can be started")
}

/// A running member; killed when dropped.
pub struct Member {
    child: Child,
    /// Lines of its log as they come.
    lines: Receiver<String>,
    seen: Vec<String>,
    pub client: String,
}

impl Member {
    /// Starts a member on `dir` and waits until it says that it serves.
    pub fn start(dir: &Path, more: &[&str]) -> Self {
        let mut member = Self::spawn(dir, more);
        member.wait_for("ready to serve client requests");
        member
    }

    /// Starts a member without waiting.
    pub fn spawn(dir: &Path, more: &[&str]) -> Self {
        let (client, peer) = (free_address(), free_address());
        let mut args = flags(dir, &client, &peer);
        args.extend(more.iter().map(ToString::to_string));
        let mut child =
            command(&args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary can be started");
        let stderr = child.stderr.take().expect("it was asked for");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new(), client }
    }

    /// Waits until a log line holds `text` and returns it.
    pub fn wait_for(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("the log never said {text:?}:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// SIGKILL: no goodbye.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM, then its end.
    pub fn terminate(mut self) -> (ExitStatus, Vec<String>) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there").success());
        let status = self.child.wait().expect("it ends");
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push(line);
        }
        (status, std::mem::take(&mut self.seen))
    }

    /// One HTTP/1.1 request to the client port: status line and body.
    pub fn http(&self, method: &str, path: &str) -> (String, String) {
        http(&self.client, method, path)
    }

    /// Runs `milepost bench` against this member.
    pub fn bench(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_milepost"));
        command.arg("bench").args(args).arg(format!("--endpoints=http://{}", self.client));
        command.output().expect("the binary can be started")
    }

    /// The newest revision that `/metrics` shows.
    pub fn revision(&self) -> i64 {
        let page = self.http("GET", "/metrics").1;
        let line = page.lines().find(|line| line.starts_with("etcd_debugging_mvcc_current_revision "));
        let number = line.and_then(|line| line.split(' ').nth(1)).expect("the revision is a metric");
        number.parse::<f64>().expect("it is a number") as i64
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP/1.1 request: status line and body.
pub fn http(address: &str, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer has a head");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// Every file below `dir` with its bytes, for before-and-after comparisons.
pub fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut queue = vec![dir.to_owned()];
    while let Some(dir) = queue.pop() {
        for entry in std::fs::read_dir(&dir).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                queue.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("it can be read");
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    found
}
