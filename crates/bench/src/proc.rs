//! What a process has spent, as the kernel counts it: `/proc/PID/{stat,status,io,task}`.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// Length of one tick of `utime` and `stime` in `/proc/PID/stat`. Linux has shown 100 ticks a second to programs on
/// every architecture of today, whatever its own timer; see proc(5), sysconf(_SC_CLK_TCK).
const TICK: Duration = Duration::from_millis(10);

/// Counters of one process at one moment, or the difference of two moments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads, ended ones too. Resolution 10 ms.
    pub cpu: Duration,
    /// Bytes that it handed to write calls.
    pub written_by_calls: u64,
    /// Bytes that it caused to be sent to the disk. The kernel counts a mapped file's page when it gets dirty.
    pub written_to_disk: u64,
    /// Context switches, wanted and unwanted, by thread. Ended threads are forgotten by the kernel.
    pub switches: BTreeMap<u32, u64>,
    /// Memory that has no file behind it, in bytes.
    pub rss_anon: u64,
    /// Memory that mirrors files, in bytes: the program itself and mapped stores.
    pub rss_file: u64,
}

impl Usage {
    /// Reads the counters of process `pid` now.
    ///
    /// # Errors
    /// The process is gone, or belongs to another user (`io` is readable by its owner only).
    pub fn of(pid: u32) -> io::Result<Usage> {
        let file = |name: &str| read(&format!("/proc/{pid}/{name}"));
        let io_file = file("io")?;
        let mut usage = Usage {
            cpu: cpu(&file("stat")?).ok_or_else(|| odd(pid, "stat"))?,
            written_by_calls: field(&io_file, "wchar:").ok_or_else(|| odd(pid, "io"))?,
            written_to_disk: field(&io_file, "write_bytes:").ok_or_else(|| odd(pid, "io"))?,
            ..Usage::default()
        };
        (usage.rss_anon, usage.rss_file) = memory(pid)?;
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let Some(thread) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A thread may end between the listing and this.
            let Ok(status) = read(&format!("/proc/{pid}/task/{thread}/status")) else { continue };
            usage.switches.insert(thread, switches(&status));
        }
        Ok(usage)
    }

    /// What was spent between `earlier` and now. Memory is no counter and stays as it is now.
    pub fn since(&self, earlier: &Usage) -> Usage {
        let before = |thread: &u32| earlier.switches.get(thread).copied().unwrap_or(0);
        Usage {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            written_by_calls: self.written_by_calls.saturating_sub(earlier.written_by_calls),
            written_to_disk: self.written_to_disk.saturating_sub(earlier.written_to_disk),
            switches: self.switches.iter().map(|(id, now)| (*id, now.saturating_sub(before(id)))).collect(),
            rss_anon: self.rss_anon,
            rss_file: self.rss_file,
        }
    }

    /// Adds another process: the members of a cluster are measured as one.
    pub fn add(&mut self, other: &Usage) {
        self.cpu += other.cpu;
        self.written_by_calls += other.written_by_calls;
        self.written_to_disk += other.written_to_disk;
        self.switches.extend(&other.switches);
        self.rss_anon += other.rss_anon;
        self.rss_file += other.rss_file;
    }

    /// Context switches of all threads.
    pub fn switches_total(&self) -> u64 {
        self.switches.values().sum()
    }
}

/// Anonymous and file-backed resident memory of `pid` in bytes.
///
/// # Errors
/// The process is gone.
pub fn memory(pid: u32) -> io::Result<(u64, u64)> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let kib = |name| field(&status, name).ok_or_else(|| odd(pid, "status"));
    Ok((kib("RssAnon:")? * 1024, kib("RssFile:")? * 1024))
}

fn read(path: &str) -> io::Result<String> {
    std::fs::read_to_string(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

fn odd(pid: u32, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/{name} lacks an expected field"))
}

/// Fields 14 and 15 of `stat`. The second field, the command in parentheses, may hold blanks and parentheses.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u32>().ok()?.checked_add(fields.next()?.parse().ok()?)?;
    Some(TICK * ticks)
}

/// First number after the line head `name`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
}

fn switches(status: &str) -> u64 {
    let count = |name| field(status, name).unwrap_or(0);
    count("voluntary_ctxt_switches:") + count("nonvoluntary_ctxt_switches:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_found_behind_any_command_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3 0 100 0 0";
        for name in ["etcd", "a b", "x) S 9 (y", ")"] {
            assert_eq!(cpu(&format!("42 ({name}) {tail}")), Some(Duration::from_secs(2)), "{name}");
        }
        assert_eq!(cpu("42 (etcd) S 1 2"), None);
        assert_eq!(cpu(""), None);
    }

    #[test]
    fn status_and_io_fields() {
        let status = "Name:\tx\nRssAnon:\t    1234 kB\nRssFile:\t 8 kB\nvoluntary_ctxt_switches:\t7\n\
                      nonvoluntary_ctxt_switches:\t5\n";
        assert_eq!(field(status, "RssAnon:"), Some(1234));
        assert_eq!(field(status, "RssShmem:"), None);
        assert_eq!(switches(status), 12);
        assert_eq!(field("rchar: 1\nwchar: 2\nwrite_bytes: 4096\n", "write_bytes:"), Some(4096));
    }

    #[test]
    fn a_difference_counts_new_threads_whole_and_forgets_ended_ones() {
        let earlier = Usage {
            cpu: Duration::from_secs(1),
            written_by_calls: 10,
            switches: BTreeMap::from([(1, 100), (2, 50)]),
            ..Usage::default()
        };
        let later = Usage {
            cpu: Duration::from_secs(3),
            written_by_calls: 25,
            switches: BTreeMap::from([(1, 130), (3, 4)]),
            rss_anon: 9,
            ..Usage::default()
        };
        let spent = later.since(&earlier);
        assert_eq!(spent.cpu, Duration::from_secs(2));
        assert_eq!(spent.written_by_calls, 15);
        assert_eq!(spent.switches_total(), 34);
        assert_eq!(spent.rss_anon, 9);
        let mut both = spent.clone();
        both.add(&spent);
        assert_eq!((both.cpu, both.rss_anon), (Duration::from_secs(4), 18));
    }

    #[test]
    fn this_process_is_readable_and_a_missing_one_is_named() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_anon > 0 && usage.rss_file > 0 && !usage.switches.is_empty());
        let error = Usage::of(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295/"), "{error}");
    }
}
