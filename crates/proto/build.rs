//! Turns the .proto files into Rust. protox parses them: no protoc is needed.

use std::path::Path;

const FILES: [&str; 11] = [
    "rpc.proto",
    "raft_internal.proto",
    "kv.proto",
    "auth.proto",
    "membership.proto",
    "lock.proto",
    "election.proto",
    "lease.proto",
    "health.proto",
    "raft.proto",
    "wal.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, [Path::new("proto")])?;
    prost_build::Config::new()
        // Keys, values and log payloads are slices of the buffer that they arrived in.
        .bytes(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
