//! What the kernel tells about this process.

use std::fmt::Write;

/// One line per thread: number, name, state, seconds of the processor, what it waits for.
pub(super) fn threads() -> String {
    let mut numbers: Vec<u32> = std::fs::read_dir("/proc/self/task")
        .map(|entries| entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
        .unwrap_or_default();
    numbers.sort_unstable();
    let mut text = format!("{} threads\n", numbers.len());
    for number in numbers {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/task/{number}/{name}")).unwrap_or_default();
        // A thread that ended meanwhile has nothing to show.
        if let Some((name, state, seconds)) = stat(&read("stat")) {
            let waits = read("wchan");
            let waits = if waits.is_empty() || waits == "0" { "" } else { &waits };
            writeln!(text, "{number:>8} {name:<16} {state} {seconds:>9.2} s {waits}")
                .expect("a String takes everything");
        }
    }
    text
}

/// Name, state and processor seconds. Source: proc(5), fields 2, 3, 14 and 15; the name may hold anything.
fn stat(stat: &str) -> Option<(&str, &str, f64)> {
    let (before, behind) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = behind.split(' ').collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some((before.split_once('(')?.1, fields.first()?, ticks as f64 / 100.0))
}

/// Memory by kind.
pub(super) fn memory() -> String {
    let wanted = |line: &&str| line.starts_with("Vm") || line.starts_with("Rss") || line.starts_with("Threads");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let status = status.lines().filter(wanted);
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    // Its first line is a range of addresses.
    status.chain(rollup.lines().skip(1)).flat_map(|line| [line, "\n"]).collect()
}

/// The bytes that `/proc/self/status` says of `name`.
pub(super) fn bytes_of(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    kilobytes * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let threads = std::thread::Builder::new().name("a (b) c".into()).spawn(threads).unwrap().join().unwrap();
        assert!(threads.lines().any(|line| line.contains(" a (b) c ") && line.contains(" R ")), "{threads}");
        assert!(memory().contains("VmRSS:"), "{}", memory());
        assert!(bytes_of("VmRSS") > 100_000 && bytes_of("VmNothing") == 0);
    }
}
