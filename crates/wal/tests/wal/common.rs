//! What the tests share: short ways to write entries and states.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use milepost_env::{Disk, SimDisk};
use milepost_proto::raftpb::{ConfState, Entry, HardState};
use milepost_types::{LogIndex, Term};
use milepost_wal::{Metadata, Options, SnapshotMark, Wal};

pub const DIR: &str = "/member/wal";
pub const METADATA: Metadata = Metadata { node_id: 0x1122_3344_5566_7788, cluster_id: 0x99aa };

pub fn dir() -> &'static Path {
    Path::new(DIR)
}

pub fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    Entry { index: Some(index), term: Some(term), r#type: Some(0), data: Some(Bytes::copy_from_slice(data)) }
}

pub fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64, bytes: usize) -> Vec<Entry> {
    indexes.map(|index| entry(index, term, &vec![index as u8 | 1; bytes])).collect()
}

pub fn state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term: Some(term), vote: Some(vote), commit: Some(commit) }
}

pub fn mark(index: u64, term: u64) -> SnapshotMark {
    let conf_state = ConfState { voters: vec![1, 2, u64::MAX], auto_leave: Some(false), ..Default::default() };
    SnapshotMark { index: LogIndex(index), term: Term(term), conf_state }
}

/// A disk with the parent of [`DIR`].
pub fn disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir_all(dir().parent().unwrap()).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

pub fn arc(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

pub fn small(segment_bytes: u64) -> Options {
    Options { segment_bytes, ..Options::default() }
}

pub fn create(disk: &SimDisk, options: Options) -> Wal {
    Wal::create(arc(disk), dir(), METADATA, options).unwrap()
}
