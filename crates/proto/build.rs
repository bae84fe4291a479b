//! Turns the .proto files into Rust. protox parses them: no protoc is needed.

use std::path::{Path, PathBuf};

use prost::Message;

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
    let mut bare = descriptors.clone();
    // Comments and positions are a third of the bytes.
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), bare.encode_to_vec())?;
    prost_build::Config::new()
        // Keys, values and log payloads are slices of the buffer that they arrived in.
        .bytes(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
