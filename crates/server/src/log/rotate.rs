//! A log file that is put aside when it has grown large: `etcd.log` becomes `etcd-2026-01-31T12-00-00.000.log`, and `.gz`
//! behind it when it is compressed. Names as tools know them from etcd, which uses lumberjack.
//!
//! Compressing and deleting happen on a thread of their own, one round at a time; a line waits for a rename at most.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use milepost_env::Clock;
use milepost_node::log::Level;
use parking_lot::Mutex;

use super::Sink;
use crate::config::logging::Rotation;

/// The file, and what becomes of it.
pub struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    rules: Rotation,
    clock: Arc<dyn Clock>,
    /// Held while files put aside are tidied.
    tidying: Arc<Mutex<()>>,
}

impl Rotating {
    /// Opens `path` for appending; its directories are made.
    ///
    /// # Errors
    /// As the system has it.
    pub fn open(path: &Path, rules: Rotation, clock: Arc<dyn Clock>) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = super::append_to(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, rules, clock, tidying: Arc::default() })
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let mut at = self.clock.unix();
        let mut aside = self.aside(at);
        // Two in one millisecond.
        while aside.exists() {
            at += Duration::from_millis(1);
            aside = self.aside(at);
        }
        fs::rename(&self.path, aside)?;
        self.file = super::append_to(&self.path)?;
        self.bytes = 0;
        let tidy = Tidy { path: self.path.clone(), rules: self.rules, now: self.clock.unix() };
        let tidying = Arc::clone(&self.tidying);
        std::thread::Builder::new().name("log-tidy".into()).spawn(move || {
            let _one_at_a_time = tidying.lock();
            // What could not be deleted or compressed now is tried again the next time.
            let _ = tidy.run();
        })?;
        Ok(())
    }

    fn aside(&self, at: Duration) -> PathBuf {
        let (stem, extension) = stem_and_extension(&self.path);
        self.path.with_file_name(format!("{stem}-{}{extension}", stamp(at, self.rules.is_local_time)))
    }
}

impl Sink for Rotating {
    fn take(&mut self, _level: Level, _caller: &str, line: &str) -> io::Result<()> {
        let more = line.len() as u64;
        if self.bytes > 0 && self.bytes + more > self.rules.max_bytes {
            // Without a new file the old one grows on: lines are worth more than the limit.
            let _ = self.put_aside();
        }
        self.file.write_all(line.as_bytes())?;
        self.bytes += more;
        Ok(())
    }
}

/// `etcd` and `.log` of `/var/log/etcd.log`.
fn stem_and_extension(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.rfind('.') {
        Some(dot) => (name[..dot].to_owned(), name[dot..].to_owned()),
        None => (name.into_owned(), String::new()),
    }
}

/// `2026-01-31T12-00-00.000`.
fn stamp(at: Duration, is_local: bool) -> String {
    let zone = if is_local { jiff::tz::TimeZone::system() } else { jiff::tz::TimeZone::UTC };
    let at = jiff::Timestamp::try_from(std::time::UNIX_EPOCH + at).unwrap_or(jiff::Timestamp::MAX);
    at.to_zoned(zone).strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string()
}

/// One round over the files put aside.
struct Tidy {
    path: PathBuf,
    rules: Rotation,
    now: Duration,
}

impl Tidy {
    fn run(&self) -> io::Result<()> {
        let mut newest_first = self.backups()?;
        newest_first.sort_by(|one, other| other.cmp(one));
        for (place, path) in newest_first.into_iter().enumerate() {
            let too_many = self.rules.max_backups > 0 && place >= self.rules.max_backups;
            if too_many || self.is_too_old(&path)? {
                fs::remove_file(&path)?;
            } else if self.rules.is_compressed && !is_compressed(&path) {
                compress(&path)?;
            }
        }
        Ok(())
    }

    fn is_too_old(&self, path: &Path) -> io::Result<bool> {
        if self.rules.max_age_days == 0 {
            return Ok(false);
        }
        let written = fs::metadata(path)?.modified()?;
        let written = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(self.now.saturating_sub(written) > Duration::from_secs(u64::from(self.rules.max_age_days) * 86_400))
    }

    /// Files whose names say that they were put aside by us.
    fn backups(&self) -> io::Result<Vec<PathBuf>> {
        let (stem, extension) = stem_and_extension(&self.path);
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut backups = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = name.strip_suffix(".gz").unwrap_or(&name);
            let stamp = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
            if stamp.is_some_and(is_stamp) {
                backups.push(path);
            }
        }
        Ok(backups)
    }
}

fn is_stamp(text: &str) -> bool {
    const SHAPE: &str = "0000-00-00T00-00-00.000";
    text.len() == SHAPE.len()
        && text.chars().zip(SHAPE.chars()).all(|(c, shape)| if shape == '0' { c.is_ascii_digit() } else { c == shape })
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// Replaces `path` by its compressed form, which gets its name only when it is whole.
fn compress(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (whole, part) = (path.with_file_name(format!("{name}.gz")), path.with_file_name(format!("{name}.gz.part")));
    let mut encoder = GzEncoder::new(File::create(&part)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?;
    fs::set_permissions(&part, fs::metadata(path)?.permissions())?;
    fs::rename(part, whole)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_env::SimClock;
    use std::io::Read;

    const RULES: Rotation =
        Rotation { max_bytes: 10, max_age_days: 0, max_backups: 0, is_local_time: false, is_compressed: false };

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Writes `lines`, waiting for the tidying after each; the names left.
    fn written(rules: Rotation, lines: &[&str]) -> (tempfile::TempDir, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimClock::new(Duration::ZERO));
        let path = dir.path().join("sub/etcd.log");
        let mut log = Rotating::open(&path, rules, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        for line in lines {
            log.take(Level::Info, "", line).unwrap();
            clock.advance(Duration::from_secs(1));
            // The thread holds a share of the lock until it is done.
            while Arc::strong_count(&log.tidying) > 1 {
                std::thread::yield_now();
            }
        }
        let names = names(&dir.path().join("sub"));
        (dir, names)
    }

    #[test]
    fn a_line_that_does_not_fit_begins_a_new_file() {
        let (dir, names) = written(RULES, &["12345\n", "1\n", "abcdef\n", "longer than the limit\n"]);
        let aside: Vec<&String> = names.iter().filter(|name| *name != "etcd.log").collect();
        assert_eq!(aside.len(), 2);
        assert!(is_stamp(aside[0].strip_prefix("etcd-").unwrap().strip_suffix(".log").unwrap()), "{aside:?}");
        let read = |name: &str| fs::read_to_string(dir.path().join("sub").join(name)).unwrap();
        assert_eq!((read(aside[0]), read(aside[1])), ("12345\n1\n".to_owned(), "abcdef\n".to_owned()));
        assert_eq!(read("etcd.log"), "longer than the limit\n");
    }

    #[test]
    fn only_so_many_are_kept_and_compressed() {
        let rules = Rotation { max_backups: 2, is_compressed: true, ..RULES };
        let (dir, names) = written(rules, &["first....\n", "second...\n", "third....\n", "fourth...\n"]);
        assert_eq!(names.len(), 3, "{names:?}");
        let older = names.iter().find(|name| name.ends_with(".gz")).unwrap();
        let mut text = String::new();
        let file = File::open(dir.path().join("sub").join(older)).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "second...\n");
    }

    #[test]
    fn old_ones_go_and_strangers_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["etcd-2020-01-01T00-00-00.000.log", "etcd-notes.log", "etcd.log", "other-2020-01-01T00-00-00.000.log"]
        {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let rules = Rotation { max_age_days: 1, ..RULES };
        let tidy = |now| Tidy { path: dir.path().join("etcd.log"), rules, now }.run().unwrap();
        tidy(now);
        assert_eq!(names(dir.path()).len(), 4);
        tidy(now + Duration::from_secs(90_000));
        assert_eq!(names(dir.path()), ["etcd-notes.log", "etcd.log", "other-2020-01-01T00-00-00.000.log"]);
    }

    #[test]
    fn stamps_are_utc_or_local() {
        assert_eq!(stamp(Duration::from_millis(951_782_399_007), false), "2000-02-28T23-59-59.007");
        assert!(is_stamp(&stamp(Duration::from_secs(1), true)));
        assert!(!is_stamp("2000-02-28T23-59-59"));
    }
}
