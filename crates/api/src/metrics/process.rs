//! `process_*` and `os_fd_*`: what the kernel counts about this process.

use super::text::Text;

/// Bytes of a memory page and clock ticks in a second, as `/proc` counts them on the platforms that we build for.
const PAGE_BYTES: u64 = 4096;
const TICKS: f64 = 100.0;

const OPEN_FILES: &str = "Max open files";

/// How many descriptors this process may have.
pub(crate) fn descriptors_max() -> u64 {
    limit(&std::fs::read_to_string("/proc/self/limits").unwrap_or_default(), OPEN_FILES)
}

/// Appends what can be read; what cannot is left out.
pub(crate) fn render(text: &mut Text) {
    let open_fds = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let max_fds = limit(&limits, OPEN_FILES);
    text.gauge("os_fd_used", "The number of used file descriptors.", open_fds);
    text.gauge("os_fd_limit", "The file descriptor limit.", max_fds);
    text.gauge("process_open_fds", "Number of open file descriptors.", open_fds);
    text.gauge("process_max_fds", "Maximum number of open file descriptors.", max_fds);
    let virtual_max = limit(&limits, "Max address space");
    text.gauge("process_virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes.", virtual_max);
    if let Some(stat) = Stat::read() {
        text.counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", stat.cpu_seconds);
        text.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", stat.resident_bytes);
        text.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", stat.virtual_bytes);
        text.gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            stat.started,
        );
    }
    if let Some((received, sent)) = network() {
        text.counter(
            "process_network_receive_bytes_total",
            "Number of bytes received by the process over the network.",
            received,
        );
        text.counter(
            "process_network_transmit_bytes_total",
            "Number of bytes sent by the process over the network.",
            sent,
        );
    }
}

/// The soft limit of that name; the largest number if there is none.
fn limit(limits: &str, name: &str) -> u64 {
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(u64::MAX)
}

struct Stat {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    started: f64,
}

impl Stat {
    /// Fields of `/proc/self/stat`, counted from behind the name: utime 11, stime 12, starttime 19, vsize 20, rss 21.
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<u64> =
            stat.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        let boot = std::fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(Self {
            cpu_seconds: (fields.get(11)? + fields.get(12)?) as f64 / TICKS,
            started: boot + *fields.get(19)? as f64 / TICKS,
            virtual_bytes: *fields.get(20)?,
            resident_bytes: fields.get(21)? * PAGE_BYTES,
        })
    }
}

/// Bytes in and out of the network namespace: lines in pairs, names above values.
fn network() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/net/netstat").ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        names.split_whitespace().zip(values.split_whitespace()).find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Some((value("InOctets")?, value("OutOctets")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let mut text = Text::default();
        render(&mut text);
        let page = text.finish();
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "os_fd_used ",
            "process_start_time_seconds ",
        ] {
            let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} is missing"));
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value > 0.0 || name.contains("cpu"), "{line}");
        }
    }

    #[test]
    fn limits() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
            Max open files            1024                 4096                 files\n\
            Max address space         unlimited            unlimited            bytes\n";
        assert_eq!((limit(text, "Max open files"), limit(text, "Max address space")), (1024, u64::MAX));
    }
}
