//! The bytes on disk, written out by hand from etcd's format.

use crate::common::{METADATA, arc, create, dir, disk, entry, mark, small, state};
use bytes::Bytes;
use milepost_env::{Disk, Open, SimDisk};
use milepost_proto::raftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use milepost_types::{LogIndex, Term};
use milepost_wal::{Metadata, Options, Wal, WalError, snap};
use std::path::Path;

const FIRST: &str = "/member/wal/0000000000000000-0000000000000000.wal";

/// CRC-32C, bit by bit: the reference that the tests trust.
fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    let mut crc = !start;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// Builds a segment record by record.
struct Golden {
    bytes: Vec<u8>,
    crc: u32,
}

impl Golden {
    fn new(crc: u32) -> Self {
        let mut golden = Self { bytes: Vec::new(), crc };
        golden.record(4, &[]);
        golden
    }

    fn record(&mut self, kind: u8, data: &[u8]) -> &mut Self {
        self.crc = crc32c(self.crc, data);
        let mut record = [&[0x08, kind, 0x10][..], &varint(u64::from(self.crc))].concat();
        if !data.is_empty() {
            record.push(0x1a);
            record.extend(varint(data.len() as u64));
            record.extend(data);
        }
        let pad = (8 - record.len() % 8) % 8;
        let mut length = (record.len() as u64).to_le_bytes();
        if pad > 0 {
            length[7] = 0x80 | pad as u8;
        }
        self.bytes.extend(length);
        self.bytes.extend(record);
        self.bytes.extend(vec![0; pad]);
        self
    }
}

fn read(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), Open::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn write(disk: &SimDisk, path: &str, bytes: &[u8]) {
    disk.create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    disk.open(Path::new(path), Open::CreateOrTruncate).unwrap().write_at(bytes, 0).unwrap();
}

fn metadata() -> Vec<u8> {
    [&[0x08][..], &varint(METADATA.node_id), &[0x10], &varint(METADATA.cluster_id)].concat()
}

#[test]
fn the_reference_checksum_is_castagnolis() {
    assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
}

#[test]
fn a_first_segment_is_these_bytes() {
    let disk = disk();
    let mut wal = create(&disk, Options::default());
    let conf_change = Entry { r#type: Some(1), term: Some(1), index: Some(1), data: Some(Bytes::from_static(b"cc")) };
    let empty = Entry { r#type: Some(0), term: Some(2), index: Some(2), data: None };
    let long = entry(3, 2, &[7; 300]);
    wal.append(&[conf_change, empty, long], Some(&state(2, 0x99, 1))).unwrap();
    wal.save_snapshot_mark(&mark(1, 1)).unwrap();

    let mut golden = Golden::new(0);
    golden.record(1, &metadata()).record(5, &[0x08, 0, 0x10, 0]);
    golden.record(2, &[0x08, 1, 0x10, 1, 0x18, 1, 0x22, 2, b'c', b'c']);
    golden.record(2, &[0x08, 0, 0x10, 2, 0x18, 2]);
    golden.record(2, &[&[0x08, 0, 0x10, 2, 0x18, 3, 0x22, 0xac, 0x02][..], &[7; 300]].concat());
    golden.record(3, &[0x08, 2, 0x10, 0x99, 0x01, 0x18, 1]);
    let conf_state = [&[0x08, 1, 0x08, 2, 0x08][..], &[0xff; 9], &[1, 0x28, 0]].concat();
    golden.record(5, &[&[0x08, 1, 0x10, 1, 0x1a, conf_state.len() as u8][..], &conf_state].concat());

    let bytes = read(&disk, FIRST);
    assert_eq!(bytes.len(), 64_000_000);
    assert_eq!(bytes[..golden.bytes.len()], golden.bytes);
    assert!(bytes[golden.bytes.len()..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_second_segment_carries_checksum_metadata_and_state_over() {
    let disk = disk();
    let mut wal = create(&disk, small(100));
    wal.append(&[entry(1, 5, &[1; 100])], Some(&state(5, 6, 1))).unwrap();
    wal.sync().unwrap();
    wal.append(&[entry(2, 5, b"x")], None).unwrap();
    wal.sync().unwrap();

    let mut first = Golden::new(0);
    first.record(1, &metadata()).record(5, &[0x08, 0, 0x10, 0]);
    first.record(2, &[&[0x08, 0, 0x10, 5, 0x18, 1, 0x22, 100][..], &[1; 100]].concat());
    first.record(3, &[0x08, 5, 0x10, 6, 0x18, 1]);
    assert_eq!(read(&disk, FIRST), first.bytes, "closed at its real size");
    let mut second = Golden::new(first.crc);
    second.record(1, &metadata()).record(3, &[0x08, 5, 0x10, 6, 0x18, 1]);
    second.record(2, &[0x08, 0, 0x10, 5, 0x18, 2, 0x22, 1, b'x']);
    let path = "/member/wal/0000000000000001-0000000000000002.wal";
    let third = "/member/wal/0000000000000002-0000000000000003.wal";
    assert_eq!(read(&disk, path), second.bytes);
    assert!(disk.exists(Path::new(third)), "the second one was full as well");
}

#[test]
fn a_log_of_etcd_3_7_with_zeros_left_out_is_read() {
    let disk = disk();
    let mut golden = Golden::new(0);
    golden.record(1, &[0x08, 3, 0x10, 4]).record(5, &[0x08, 0, 0x10, 0]);
    golden.record(2, &[0x10, 1, 0x18, 1]).record(2, &[0x10, 1, 0x18, 2, 0x22, 0]).record(3, &[0x08, 1, 0x18, 2]);
    write(&disk, FIRST, &golden.bytes);
    let recovered = Wal::inspect(&disk, dir()).unwrap();
    assert_eq!(recovered.metadata, Metadata { node_id: 3, cluster_id: 4 });
    assert_eq!(recovered.hard_state, HardState { term: Some(1), vote: None, commit: Some(2) });
    assert_eq!(recovered.entries[1], Entry { term: Some(1), index: Some(2), r#type: None, data: Some(Bytes::new()) });
}

#[test]
fn a_log_that_begins_with_a_later_segment_is_read() {
    let disk = disk();
    let mut golden = Golden::new(0xdead_beef);
    golden.record(1, &[0x08, 3, 0x10, 4]).record(3, &[0x08, 2, 0x10, 1, 0x18, 100]);
    golden.record(2, &[0x08, 0, 0x10, 2, 0x18, 101]).record(5, &[0x08, 100, 0x10, 2, 0x1a, 2, 0x08, 1]);
    write(&disk, "/member/wal/0000000000000007-0000000000000065.wal", &golden.bytes);
    let (mut wal, recovered) = Wal::open(arc(&disk), dir(), Options::default()).unwrap();
    assert_eq!(recovered.snapshot.index, LogIndex(100));
    assert_eq!(recovered.entries.len(), 1);
    wal.append(&[entry(102, 2, b"")], None).unwrap();
    wal.sync().unwrap();
    assert_eq!(wal.read_entries(LogIndex(101), LogIndex(103), 99).unwrap().len(), 2);
}

/// Writes one segment with these records behind the head and tells why it is refused.
fn refusal(records: &[(u8, &[u8])]) -> String {
    let disk = disk();
    let mut golden = Golden::new(0);
    golden.record(1, &[0x08, 3, 0x10, 4]).record(5, &[0x08, 0, 0x10, 0]);
    for (kind, data) in records {
        golden.record(*kind, data);
    }
    write(&disk, FIRST, &golden.bytes);
    let error = Wal::open(arc(&disk), dir(), Options::default()).err().expect("refused").to_string();
    assert_eq!(read(&disk, FIRST), golden.bytes, "untouched");
    assert!(!error.contains('\n') && error.contains("/member/wal"), "{error}");
    error
}

#[test]
fn records_that_make_no_log_are_refused_in_words() {
    type Record = (u8, &'static [u8]);
    const ENTRY_1: Record = (2, &[0x08, 0, 0x10, 2, 0x18, 1]);
    let cases: [(&[Record], &str); 9] = [
        (&[ENTRY_1, (2, &[0x08, 0, 0x10, 2, 0x18, 3])], "(record 4 of the file): entry 3 follows entry 1"),
        (&[ENTRY_1, (2, &[0x08, 0, 0x10, 1, 0x18, 2])], "entry 2 has term 1 after an entry of term 2"),
        (&[ENTRY_1, (3, &[0x08, 2, 0x10, 0, 0x18, 1]), ENTRY_1], "entry 1 is written again after commit 1"),
        (&[(3, &[0x08, 5]), (3, &[0x08, 4])], "the term goes back from 5 to 4"),
        (&[(2, &[0x08, 1, 0x10, 1, 0x18, 1])], "entry 1 of term 1: it is a conf change that changes nothing"),
        (&[(1, &[0x08, 3, 0x10, 5])], "goes on as that of member 3 of cluster 5"),
        (&[(4, &[])], "a checksum record in the middle"),
        (&[(6, &[1])], "unknown record type"),
        (&[ENTRY_1, (3, &[0x08, 2, 0x18, 2])], "ends at index 1, but the commit index is 2"),
    ];
    for (records, expected) in cases {
        let error = refusal(records);
        assert!(error.contains(expected), "{error}\nlacks: {expected}");
        assert!(error.contains("wipe its data directory and add it again"), "names a remedy: {error}");
    }
}

#[test]
fn a_missing_segment_is_named() {
    let disk = disk();
    for name in ["0000000000000000-0000000000000000", "0000000000000002-0000000000000009"] {
        write(&disk, &format!("/member/wal/{name}.wal"), b"");
    }
    let error = Wal::open(arc(&disk), dir(), Options::default()).err().unwrap();
    assert!(matches!(error, WalError::MissingSegment { missing: 1, .. }), "{error}");
}

#[test]
fn a_snap_file_is_these_bytes() {
    let disk = SimDisk::new(1);
    let dir = Path::new("/snap");
    disk.create_dir_all(dir).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let snapshot = Snapshot {
        data: Some(Bytes::from_static(b"{}")),
        metadata: Some(SnapshotMetadata {
            conf_state: Some(ConfState { voters: vec![1], auto_leave: Some(false), ..Default::default() }),
            index: Some(0x1_0000),
            term: Some(3),
        }),
    };
    let path = snap::write(&disk, dir, &snapshot).unwrap();
    assert_eq!(path, Path::new("/snap/0000000000000003-0000000000010000.snap"));
    let inner =
        [&[0x0a, 2][..], b"{}", &[0x12, 12, 0x0a, 4, 0x08, 1, 0x28, 0, 0x10, 0x80, 0x80, 0x04, 0x18, 3]].concat();
    let golden = [&[0x08][..], &varint(u64::from(crc32c(0, &inner))), &[0x12, inner.len() as u8], &inner].concat();
    assert_eq!(read(&disk, path.to_str().unwrap()), golden);
    disk.crash(1);
    assert_eq!(snap::read(&disk, &path).unwrap(), snapshot);
}

#[test]
fn broken_snap_files_are_set_aside_and_old_ones_purged() {
    let disk = SimDisk::new(1);
    let dir = Path::new("/snap");
    disk.create_dir_all(dir).unwrap();
    let snapshot = |term, index| Snapshot {
        data: Some(Bytes::from_static(b"{}")),
        metadata: Some(SnapshotMetadata { conf_state: None, index: Some(index), term: Some(term) }),
    };
    for (term, index) in [(1, 100), (2, 50), (2, 200), (3, 150)] {
        snap::write(&disk, dir, &snapshot(term, index)).unwrap();
    }
    assert!(snap::write(&disk, dir, &snapshot(0, 5)).is_err());
    write(&disk, "/snap/0000000000000004-0000000000000200.snap", b"");
    write(&disk, "/snap/tmp0000000000000009-0000000000000200.snap", b"half");
    disk.flip_bit(Path::new("/snap/0000000000000003-0000000000000096.snap"), 100).unwrap();

    let mut broken = Vec::new();
    let newest = snap::newest(&disk, dir, |_, _| true, &mut broken).unwrap();
    assert_eq!(newest, Some(snapshot(2, 200)));
    assert_eq!(broken.len(), 2);
    let names = disk.list(dir).unwrap();
    assert!(names.contains(&"0000000000000003-0000000000000096.snap.broken".to_owned()), "{names:?}");
    let admitted =
        snap::newest(&disk, dir, |term, index| (term, index) == (Term(2), LogIndex(50)), &mut broken).unwrap();
    assert_eq!(admitted, Some(snapshot(2, 50)));
    assert_eq!(snap::newest(&disk, dir, |_, _| false, &mut broken).unwrap(), None);

    assert_eq!(snap::purge(&disk, dir, 2).unwrap(), 2, "the oldest, and the half-written one");
    let left: Vec<_> =
        snap::list_newest_first(&disk, dir).unwrap().iter().map(|file| (file.term.0, file.index.0)).collect();
    assert_eq!(left, [(2, 200), (2, 50)]);
}
