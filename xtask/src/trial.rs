//! What a person does with a release tarball: unpack it, run each name, put and get, stop the server.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bins;
use crate::member::{Place, free_ports};

/// How long a start may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Unpacks `tarball`, whose one folder is `name`, into an empty place and uses what is in it.
///
/// # Errors
/// Something does not do what the documents say; the text says what.
pub fn run(tarball: &Path, name: &str) -> Result<(), String> {
    let place = Place::new("trial")?;
    bins::run(Command::new("tar").arg("--extract").arg("--file").arg(tarball).arg("--directory").arg(place.path()))?;
    let folder = place.path().join(name);
    for file in
        ["README.md", "LICENSE", "CHANGELOG.md", "milepost.service", "docs/operations.md", "completions/_etcdctl"]
    {
        if !folder.join(file).is_file() {
            return Err(format!("{file} is not in the tarball"));
        }
    }
    says(&folder, "etcd", &["--version"], "etcd Version: 3.7.1")?;
    says(&folder, "milepost", &["version"], env!("CARGO_PKG_VERSION"))?;
    says(&folder, "etcdctl", &["version"], "etcdctl version: 3.7.1")?;
    let server = Server::start(&folder, place.path())?;
    let endpoint = format!("--endpoints={}", server.client);
    says(&folder, "etcdctl", &[&endpoint, "put", "greeting", "hello"], "OK")?;
    says(&folder, "etcdctl", &[&endpoint, "get", "greeting"], "greeting\nhello")?;
    server.stop()
}

/// Runs `program` of the folder and wants `wanted` in what it prints.
fn says(folder: &Path, program: &str, words: &[&str], wanted: &str) -> Result<(), String> {
    let mut command = Command::new(folder.join(program));
    command.args(words);
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && printed.contains(wanted) {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{}` ({}) printed {printed:?} {complaint:?}, not {wanted:?}", bins::words(&command), output.status))
}

/// A server of the tarball, started as systemd would: it reports to a socket when it is ready.
struct Server {
    child: Child,
    client: String,
}

impl Server {
    fn start(folder: &Path, place: &Path) -> Result<Server, String> {
        let [client, peer] = free_ports().map_err(|error| format!("no free port on 127.0.0.1: {error}"))?;
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let socket: PathBuf = place.join("notify");
        let notify = UnixDatagram::bind(&socket).map_err(|error| format!("{}: {error}", socket.display()))?;
        notify.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        let mut child = Command::new(folder.join("etcd"))
            .env("NOTIFY_SOCKET", &socket)
            .env("ETCD_DATA_DIR", place.join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("etcd: {error}"))?;
        let mut letter = [0; 64];
        match notify.recv(&mut letter) {
            Ok(length) if letter[..length].starts_with(b"READY=1") => Ok(Server { child, client }),
            other => {
                // What it said is worth more than how it ended.
                let _ = child.kill();
                let mut log = String::new();
                let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut log));
                let _ = child.wait();
                Err(format!("the server did not report READY=1 ({other:?}); its log:\n{log}"))
            }
        }
    }

    /// Stops it as a service manager does and wants it gone by that signal.
    fn stop(mut self) -> Result<(), String> {
        bins::run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        // Reading to the end also keeps the pipe from filling up.
        let mut log = String::new();
        let _ = self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut log));
        let status = self.child.wait().map_err(|error| error.to_string())?;
        match std::os::unix::process::ExitStatusExt::signal(&status) {
            Some(15) if log.contains("closed etcd server") => Ok(()),
            _ => Err(format!("SIGTERM did not end the server cleanly ({status}); its log:\n{log}")),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
