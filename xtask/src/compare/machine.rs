//! The machine that measures, in words, and the little that is read of `/proc` here.

use std::process::Command;

use crate::bins;

/// Processor, memory, kernel and disk, in one line each.
pub fn described() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = field(&cpus, "model name").unwrap_or("unknown processor");
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let memory = kib(&read("/proc/meminfo"), "MemTotal").unwrap_or(0.0) / 1024.0 / 1024.0;
    let kernel = read("/proc/sys/kernel/osrelease");
    let disk = words("df", &["--output=fstype,source", &bins::target().to_string_lossy()]);
    let disk = disk.lines().nth(1).unwrap_or("unknown").split_whitespace().collect::<Vec<_>>().join(" on ");
    vec![
        format!("{count} cores, {model}; {memory:.0} GiB of memory; Linux {}", kernel.trim()),
        format!("data of both servers on one disk ({disk}), the load generator on the same machine"),
    ]
}

/// Today, the commit that is measured, and how busy the machine is with other things at this moment.
pub fn note() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let day = words("date", &["--utc", "+%Y-%m-%d"]);
    let commit = words("git", &["-C", &bins::root().to_string_lossy(), "rev-parse", "--short=9", "HEAD"]);
    format!("{} {} load {load}", day.trim(), commit.trim())
}

/// The load of a note.
pub fn load_of(note: &str) -> Option<f64> {
    note.rsplit_once("load ")?.1.trim().parse().ok()
}

/// Anonymous and file-backed memory of a process, in bytes.
///
/// # Errors
/// It is gone.
pub fn memory(pid: u32) -> Result<(f64, f64), String> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let bytes = |name: &str| -> Result<f64, String> {
        Ok(kib(&status, name).ok_or_else(|| format!("{path} has no {name}"))? * 1024.0)
    };
    Ok((bytes("RssAnon")?, bytes("RssFile")?))
}

/// What is printed by a program of the system; nothing if it is not there.
fn words(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':')).map(str::trim)
}

fn kib(text: &str, name: &str) -> Option<f64> {
    field(text, name)?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc() {
        let text = "model name\t: A CPU: fast\nRssAnon:\t    2048 kB\n";
        assert_eq!(field(text, "model name"), Some("A CPU: fast"));
        assert_eq!(kib(text, "RssAnon"), Some(2048.0));
        assert_eq!(kib(text, "RssFile"), None);
    }

    #[test]
    fn a_note_tells_how_busy_the_machine_was() {
        assert_eq!(load_of("2026-01-01 abcdef load 1.25"), Some(1.25));
        assert_eq!(load_of("nothing"), None);
        assert!(load_of(&note()).is_some());
    }

    #[test]
    fn this_machine_and_this_process_can_be_described() {
        assert_eq!(described().len(), 2);
        assert!(memory(std::process::id()).unwrap().0 > 0.0);
        assert!(memory(u32::MAX).is_err());
    }
}
