//! `snapshot save`: one server's whole state as a file, from which etcdutl restores a cluster.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use milepost_client::{Client, Config, ConnectError, Deadline, Error};

use crate::call::Call;
use crate::frame::{Group, Spec};
use crate::go::{show_duration, si_bytes};
use crate::log;
use crate::out;
use crate::outcome::{Failure, Outcome, exit};

const EXAMPLE: &str = "  # A file for each day\n  \
    etcdctl snapshot save /backup/etcd-$(date +%F).db\n\n  \
    # From a server that wants certificates\n  \
    etcdctl --endpoints=https://10.0.0.1:2379 --cacert=ca.crt --cert=etcd.crt --key=etcd.key snapshot save /backup/etcd.db\n\n  \
    # With a bound of time; there is none otherwise\n  \
    etcdctl --command-timeout=10m snapshot save /backup/etcd.db";

/// The command.
pub const COMMAND: Spec = Spec {
    name: "snapshot",
    usage: "snapshot <subcommand>",
    short: "Saves a server's state as a file",
    example: EXAMPLE,
    group: Group::Maintenance,
    children: &[&SAVE],
    ..Spec::NEW
};

const SAVE: Spec = Spec {
    name: "save",
    usage: "save <filename>",
    short: "Saves one server's whole state as a file",
    example: EXAMPLE,
    run: Some(|call| Box::pin(save(call))),
    ..Spec::NEW
};

/// Bytes of the digest behind the database, whose own length is a multiple of [`SECTOR`].
const DIGEST: u64 = 32;
/// The smallest unit that databases are made of.
const SECTOR: u64 = 512;

async fn save(mut call: Call) -> Outcome {
    let [path] = call.args.as_slice() else {
        return Err(Failure::args("snapshot save expects one argument <filename>"));
    };
    let path = PathBuf::from(String::from_utf8_lossy(path).into_owned());
    let (config, _) = call.settle().await?;
    let deadline = if call.flags.changed("command-timeout") { call.deadline() } else { Deadline::NEVER };
    let interrupted = |why| Failure::new(exit::INTERRUPTED, why);
    let version = fetch(config, &path, deadline).await.map_err(interrupted)?;
    out::line(format_args!("Snapshot saved at {}", path.display()))?;
    if !version.is_empty() {
        out::line(format_args!("Server version {version}"))?;
    }
    Ok(())
}

/// Fetches into a file beside `path` and gives it this name when all of it is on the disk. Returns the server's version;
/// servers before 3.6 do not tell theirs.
async fn fetch(config: Config, path: &Path, deadline: Deadline) -> Result<String, String> {
    let [endpoint] = config.endpoints.as_slice() else {
        let all = config.endpoints.join(" ");
        return Err(format!("snapshot must be requested to one selected node, not multiple [{all}]"));
    };
    let endpoint = endpoint.clone();
    let client = Client::connect(config).await.map_err(|error| match error {
        ConnectError::Config(why) => why,
        ConnectError::Refused(error) => error.to_string(),
    })?;
    let part = Part::create(path)?;
    log::info("created temporary db file", vec![("path", part.name().into())]);
    let began = Instant::now();
    let (size, version) = part.fill(&client, &endpoint, deadline).await?;
    let fields = vec![
        ("endpoint", endpoint.as_str().into()),
        ("size", si_bytes(size).into()),
        ("took", show_duration(began.elapsed()).into()),
        ("etcd-version", version.as_str().into()),
    ];
    log::info("fetched snapshot", fields);
    part.become_whole(path)?;
    log::info("saved", vec![("path", path.display().to_string().into())]);
    Ok(version)
}

/// The file while it is incomplete. It goes with this value.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn create(whole: &Path) -> Result<Part, String> {
        let mut name = whole.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        // Secrets stand in it.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let shown = path.display().to_string();
        let file = file.map_err(|error| format!("could not open {shown} (open {shown}: {})", words(&error)))?;
        Ok(Part { path, file })
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Returns how many bytes came, and the server's version.
    async fn fill(&self, client: &Client, endpoint: &str, deadline: Deadline) -> Result<(u64, String), String> {
        let mut pieces = client.maintenance().snapshot(deadline).await.map_err(|error| {
            let fields = vec![("error", error.rpc_text().into())];
            log::error_of("client", "streamer failed to create ClientStream", fields);
            error.to_string()
        })?;
        log::info_of("client", "opened snapshot stream; downloading", Vec::new());
        let told = |error: Error| {
            let fields = vec![("error", error.rpc_text().into())];
            log::warn_of("client", "failed to receive from snapshot stream; closing", fields);
            error.to_string()
        };
        let mut piece = pieces.next().await.map_err(told)?;
        log::info("fetching snapshot", vec![("endpoint", endpoint.into())]);
        let version = piece.as_ref().map(|piece| piece.version.clone()).unwrap_or_default();
        let mut size = 0;
        let failed = |why: String| format!("could not write snapshot: {why}");
        while let Some(received) = piece {
            (&self.file).write_all(&received.blob).map_err(|error| failed(words(&error)))?;
            size += received.blob.len() as u64;
            piece = pieces.next().await.map_err(|error| failed(told(error)))?;
        }
        log::info_of("client", "completed snapshot read; closing", Vec::new());
        if size % SECTOR != DIGEST {
            return Err(format!("sha256 checksum not found [bytes: {size}]"));
        }
        Ok((size, version))
    }

    fn become_whole(&self, whole: &Path) -> Result<(), String> {
        self.file.sync_all().map_err(|error| format!("could not fsync snapshot: {}", words(&error)))?;
        let renamed = fs::rename(&self.path, whole);
        let (from, to) = (self.name(), whole.display());
        renamed.map_err(|error| format!("could not rename {from} to {to} (rename {from} {to}: {})", words(&error)))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::error("Failed to cleanup .part file", vec![("error", words(&error).into())]);
        }
    }
}

/// The system's words for an error, as Go gives them.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_file_goes_and_a_whole_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let whole = dir.path().join("x.db");
        drop(Part::create(&whole).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let part = Part::create(&whole).unwrap();
        (&part.file).write_all(b"all").unwrap();
        part.become_whole(&whole).unwrap();
        drop(part);
        assert_eq!(fs::read(&whole).unwrap(), b"all");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = Part::create(&dir.path().join("no/x.db")).err().unwrap();
        assert!(error.starts_with("could not open ") && error.ends_with(": no such file or directory)"), "{error}");
    }
}
