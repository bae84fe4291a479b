//! Full disks: told before anything is written, and over when space comes back.

use std::io;

use milepost_env::{Disk, Fault};
use milepost_types::LogIndex;
use milepost_wal::{Wal, WalError};

use crate::common::{METADATA, arc, create, dir, disk, entries, small, state};

#[test]
fn a_full_disk_is_told_before_anything_is_written() {
    let disk = disk();
    let mut wal = create(&disk, small(10_000));
    disk.set_capacity(Some(10_000));
    wal.append(&entries(1..=9, 1, 1000), Some(&state(1, 1, 0))).unwrap();
    wal.sync().unwrap();
    let writes = disk.counts().writes;
    let error = wal.append(&entries(10..=12, 1, 1000), None).unwrap_err();
    assert!(matches!(error, WalError::NoSpace { .. }) && error.is_retryable(), "{error}");
    assert_eq!((disk.counts().writes, wal.last_index()), (writes, LogIndex(9)));
    assert!(wal.preallocate_next().unwrap_err().is_retryable());
    assert!(!wal.has_next() && !disk.exists(&dir().join("1.tmp")));

    disk.set_capacity(None);
    wal.append(&entries(10..=12, 1, 1000), None).unwrap();
    wal.sync().unwrap();
    assert_eq!(wal.segments(), 2);
    drop(wal);
    assert_eq!(Wal::open(arc(&disk), dir(), small(10_000)).unwrap().1.entries, entries(1..=12, 1, 1000));
}

#[test]
fn without_space_for_a_next_segment_the_tail_grows_and_is_closed_later() {
    let disk = disk();
    let mut wal = create(&disk, small(10_000));
    // Room for the tail to grow by 30 KB, not for both.
    disk.set_capacity(Some(10_000));
    wal.append(&entries(1..=9, 1, 1000), None).unwrap();
    wal.sync().unwrap();
    disk.set_capacity(Some(40_000));
    wal.append(&entries(10..=30, 1, 1000), None).unwrap();
    disk.set_capacity(Some(0));
    wal.sync().unwrap();
    assert_eq!(wal.segments(), 1, "synced, though not cut");
    disk.set_capacity(None);
    wal.append(&[], Some(&state(1, 1, 0))).unwrap();
    wal.sync().unwrap();
    assert_eq!(wal.segments(), 2);
    drop(wal);
    assert_eq!(Wal::open(arc(&disk), dir(), small(10_000)).unwrap().1.entries.len(), 30);
}

#[test]
fn a_failed_write_into_reserved_space_poisons() {
    let disk = disk();
    let mut wal = create(&disk, small(100_000));
    disk.fail(Fault::Write, 1, io::ErrorKind::StorageFull);
    wal.append(&entries(1..=3, 1, 1000), None).unwrap();
    let error = wal.sync().unwrap_err();
    assert!(matches!(error, WalError::Disk { .. }) && !error.is_retryable(), "{error}");
    let error = wal.append(&entries(4..=4, 1, 1), None).unwrap_err();
    assert!(error.to_string().contains("restart the member"), "{error}");
}

#[test]
fn a_log_opens_on_a_full_disk() {
    let disk = disk();
    let mut wal = create(&disk, small(2_000));
    wal.append(&entries(1..=3, 1, 500), None).unwrap();
    wal.sync().unwrap();
    drop(wal);
    disk.set_capacity(Some(0));
    let (mut wal, recovered) = Wal::open(arc(&disk), dir(), small(50_000)).unwrap();
    assert_eq!(recovered.entries.len(), 3);
    assert!(wal.append(&entries(4..=4, 1, 1000), None).unwrap_err().is_retryable());
}

#[test]
fn a_new_log_needs_room_for_its_segment() {
    let disk = disk();
    disk.set_capacity(Some(1000));
    let error = Wal::create(arc(&disk), dir(), METADATA, small(2_000)).err().unwrap();
    assert!(matches!(error, WalError::NoSpace { bytes: 2_000, .. }), "{error}");
    disk.set_capacity(None);
    assert!(Wal::create(arc(&disk), dir(), METADATA, small(2_000)).is_ok());
}
