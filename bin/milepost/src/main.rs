//! One executable, many names: the name it is called by, or its first word, says which program it is.
//!
//! `milepost` and `etcd` are the server; `etcdctl` is the command line; `milepost bench` loads a server; `milepost version`
//! tells which Milepost this is.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Programs that come with later versions; their names are taken already.
const PLANNED: [&str; 1] = ["etcdutl"];

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    let called = Path::new(&called).file_name().and_then(OsStr::to_str).unwrap_or("milepost").to_owned();
    let words: Vec<OsString> = words.collect();
    let first = words.first().and_then(|word| word.to_str()).unwrap_or("");
    let (program, rest) = match (called.as_str(), first) {
        ("etcd", _) => ("server", &words[..]),
        ("etcdctl", _) => ("etcdctl", &words[..]),
        (name, _) if PLANNED.contains(&name) => (name, &words[..]),
        (_, "server" | "etcd") => ("server", &words[1..]),
        (_, "bench" | "version" | "etcdctl" | "etcdutl") => (first, &words[1..]),
        _ => ("server", &words[..]),
    };
    let code = match program {
        "bench" => milepost_bench::run(rest.to_vec()),
        "etcdctl" => milepost_ctl::run(rest.to_vec()),
        "version" => {
            println!("milepost {}\nspeaks etcd {}", env!("CARGO_PKG_VERSION"), milepost_server::ETCD_VERSION);
            0
        }
        "server" => milepost_server::run(rest),
        planned => {
            eprintln!(
                "Error: {planned} is not part of this version of Milepost; use etcd's own {planned} 3.7 with this server"
            );
            1
        }
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
