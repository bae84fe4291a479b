//! `snapshot save`: one server's whole state as a file, from which etcdutl restores a cluster.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use milepost_client::{Client, Config, ConnectError, Deadline, Error};
use sha2::{Digest as _, Sha256};

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
        let mut sum = Sum::default();
        let failed = |why: String| format!("could not write snapshot: {why}");
        while let Some(received) = piece {
            (&self.file).write_all(&received.blob).map_err(|error| failed(words(&error)))?;
            sum.take(&received.blob);
            piece = pieces.next().await.map_err(|error| failed(told(error)))?;
        }
        log::info_of("client", "completed snapshot read; closing", Vec::new());
        let size = sum.check()?;
        Ok((size, version))
    }

    fn become_whole(&self, whole: &Path) -> Result<(), String> {
        self.file.sync_all().map_err(|error| format!("could not fsync snapshot: {}", words(&error)))?;
        let renamed = fs::rename(&self.path, whole);
        let (from, to) = (self.name(), whole.display());
        renamed.map_err(|error| format!("could not rename {from} to {to} (rename {from} {to}: {})", words(&error)))?;
        // A name that a power cut takes back was never given.
        let parent = whole.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(parent).and_then(|directory| directory.sync_all());
        synced.map_err(|error| format!("could not fsync {}: {}", parent.display(), words(&error)))
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

/// The digest of a database as it comes, and the digest that stands behind it.
#[derive(Default)]
struct Sum {
    bytes: u64,
    hasher: Sha256,
    /// The last bytes so far, no more than a digest has: not hashed yet.
    tail: Vec<u8>,
}

impl Sum {
    fn take(&mut self, blob: &[u8]) {
        self.bytes += blob.len() as u64;
        self.tail.extend_from_slice(blob);
        let surplus = self.tail.len().saturating_sub(DIGEST as usize);
        self.hasher.update(&self.tail[..surplus]);
        self.tail.drain(..surplus);
    }

    /// How long the file is, if it ends with its digest. etcdctl looks at the length alone.
    fn check(self) -> Result<u64, String> {
        if self.bytes % SECTOR != DIGEST {
            return Err(format!("sha256 checksum not found [bytes: {}]", self.bytes));
        }
        if self.hasher.finalize()[..] != self.tail[..] {
            return Err("the snapshot was damaged on its way: its sha256 checksum does not match; save it again".into());
        }
        Ok(self.bytes)
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

    fn checked(pieces: &[&[u8]]) -> Result<u64, String> {
        let mut sum = Sum::default();
        pieces.iter().for_each(|piece| sum.take(piece));
        sum.check()
    }

    #[test]
    fn a_file_ends_with_its_digest_however_it_is_cut() {
        let data = [7; 1024];
        let digest = Sha256::digest(data);
        assert_eq!(checked(&[&data, &digest]), Ok(1056));
        assert_eq!(checked(&[&data[..1000], &data[1000..], &digest[..5], &digest[5..]]), Ok(1056));
        assert_eq!(checked(&[&data[..600], &[&data[600..], &digest[..]].concat()]), Ok(1056));
    }

    #[test]
    fn a_file_without_its_digest_or_with_another_is_none() {
        assert_eq!(checked(&[&[7; 1024]]), Err("sha256 checksum not found [bytes: 1024]".into()));
        assert_eq!(checked(&[]), Err("sha256 checksum not found [bytes: 0]".into()));
        assert!(checked(&[&[7; 1024], &[0; 32]]).unwrap_err().contains("damaged"));
    }

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
