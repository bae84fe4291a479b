//! The disk keeps its promises, breaks what it never promised, and does both by the seed.

use std::io;
use std::path::Path;

use super::{CrashReport, Fault, SimDisk};
use crate::disk::{Disk, Open};

const FILE: &str = "/d/f";

fn disk_with_synced_file(bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let mut file = disk.open(Path::new(FILE), Open::Create).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    disk
}

fn read(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

#[test]
fn synced_bytes_survive_every_crash() {
    for seed in 0..50 {
        let disk = disk_with_synced_file(&[7; 2000]);
        disk.crash(seed);
        assert_eq!(read(&disk, FILE), [7; 2000]);
    }
}

#[test]
fn unsynced_sectors_are_kept_or_dropped_one_by_one() {
    let mut total = CrashReport::default();
    let mut mixed = 0;
    for seed in 0..200 {
        let disk = disk_with_synced_file(&[1; 8 * 512]);
        disk.open(Path::new(FILE), Open::ReadWrite).unwrap().write_at(&[2; 8 * 512], 0).unwrap();
        total.add(&disk.crash(seed));
        let bytes = read(&disk, FILE);
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        for (sector, kind) in bytes.chunks(512).zip(&sectors) {
            assert!(sector.iter().all(|byte| byte == kind), "a sector is whole");
        }
        mixed += u64::from(sectors.contains(&1) && sectors.contains(&2));
    }
    assert!(total.sectors_kept > 100 && total.sectors_dropped > 100 && mixed > 20, "{total:?}, mixed {mixed}");
}

#[test]
fn an_unsynced_length_may_be_lost() {
    let (mut long, mut short) = (0, 0);
    for seed in 0..100 {
        let disk = disk_with_synced_file(b"abc");
        disk.open(Path::new(FILE), Open::ReadWrite).unwrap().write_at(b"defg", 3).unwrap();
        disk.crash(seed);
        match read(&disk, FILE).as_slice() {
            b"abc" => short += 1,
            [b'a', b'b', b'c', rest @ ..] if rest.len() == 4 => long += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(long > 10 && short > 10);
}

#[test]
fn unsynced_names_are_lost_from_the_end() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = disk_with_synced_file(b"x");
        disk.rename(Path::new(FILE), Path::new("/d/g")).unwrap();
        disk.open(Path::new("/d/h"), Open::Create).unwrap();
        disk.crash(seed);
        seen.insert(disk.list(Path::new("/d")).unwrap());
    }
    let expected = [vec!["f"], vec!["g"], vec!["g", "h"]].map(|names| names.into_iter().map(String::from).collect());
    assert_eq!(seen, expected.into());
}

#[test]
fn syncing_one_directory_leaves_another_in_memory() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/a")).unwrap();
    disk.create_dir_all(Path::new("/b")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk.open(Path::new("/a/1"), Open::Create).unwrap();
    disk.open(Path::new("/b/1"), Open::Create).unwrap();
    disk.sync_dir(Path::new("/b")).unwrap();
    let lost = (0..50).filter(|&seed| {
        let disk = disk.fork();
        disk.crash(seed);
        assert!(disk.exists(Path::new("/b/1")));
        !disk.exists(Path::new("/a/1"))
    });
    assert!(lost.count() > 5);
}

#[test]
fn a_failed_sync_lies_until_the_cache_is_forgotten() {
    let mut lied = 0;
    for seed in 0..40 {
        let disk = disk_with_synced_file(&[1; 512]);
        let disk = SimDisk(disk.0);
        disk.0.lock().rng.0 = seed;
        let mut file = disk.open(Path::new(FILE), Open::ReadWrite).unwrap();
        file.write_at(&[2; 512], 0).unwrap();
        disk.fail(Fault::Sync, 1, io::ErrorKind::Other);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(read(&disk, FILE), [2; 512], "the cache still shows it");
        file.forget_cached().unwrap();
        let truth = read(&disk, FILE);
        disk.crash(seed);
        assert_eq!(read(&disk, FILE), truth);
        lied += u64::from(truth == [1; 512]);
    }
    assert!(lied > 5 && lied < 35, "{lied}");
}

#[test]
fn the_same_seed_gives_the_same_crash() {
    let disk = disk_with_synced_file(&[1; 9000]);
    let mut file = disk.open(Path::new(FILE), Open::ReadWrite).unwrap();
    for n in 0..20 {
        file.write_at(&[n; 700], u64::from(n) * 512).unwrap();
    }
    let (one, two, other) = (disk.fork(), disk.fork(), disk.fork());
    assert_eq!(one.crash(5), two.crash(5));
    assert_eq!(read(&one, FILE), read(&two, FILE));
    other.crash(6);
    assert_ne!(read(&one, FILE), read(&other, FILE));
}

#[test]
fn power_goes_at_the_asked_change_and_old_handles_die() {
    let disk = disk_with_synced_file(b"x");
    let mut file = disk.open(Path::new(FILE), Open::ReadWrite).unwrap();
    let lock = disk.try_lock(Path::new(FILE)).unwrap();
    assert!(lock.is_some() && disk.try_lock(Path::new(FILE)).unwrap().is_none());
    disk.cut_power_after(1);
    file.write_at(b"y", 0).unwrap();
    assert!(file.sync_data().is_err() && disk.power_is_off());
    assert!(disk.list(Path::new("/d")).is_err() && !disk.exists(Path::new(FILE)));
    disk.crash(0);
    assert!(file.write_at(b"z", 0).is_err(), "a handle of the life before");
    assert!(disk.try_lock(Path::new(FILE)).unwrap().is_some(), "the lock went with the power");
    drop(lock);
    assert_eq!(disk.counts().crashes, 1);
}

#[test]
fn a_full_disk_refuses_and_a_reserved_place_does_not() {
    let disk = disk_with_synced_file(b"x");
    let mut file = disk.open(Path::new(FILE), Open::ReadWrite).unwrap();
    file.allocate(0, 4096).unwrap();
    disk.set_capacity(Some(4096));
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 0);
    file.write_at(&[1; 4096], 0).unwrap();
    assert_eq!(file.write_at(&[1], 4096).unwrap_err().kind(), io::ErrorKind::StorageFull);
    let mut other = disk.open(Path::new("/d/g"), Open::Create).unwrap();
    assert_eq!(other.allocate(0, 1).unwrap_err().kind(), io::ErrorKind::StorageFull);
    // Removing frees the space once the name is gone from the platter and nobody has it open.
    disk.remove_file(Path::new(FILE)).unwrap();
    drop(file);
    disk.sync_dir(Path::new("/d")).unwrap();
    other.allocate(0, 4096).unwrap();
}

#[test]
fn the_nth_call_fails() {
    let disk = disk_with_synced_file(b"x");
    let mut file = disk.open(Path::new(FILE), Open::ReadWrite).unwrap();
    disk.fail(Fault::Write, 2, io::ErrorKind::Other);
    disk.fail(Fault::Allocate, 1, io::ErrorKind::StorageFull);
    disk.fail(Fault::Name, 1, io::ErrorKind::Other);
    disk.fail(Fault::SyncDir, 1, io::ErrorKind::Other);
    disk.fail(Fault::Read, 1, io::ErrorKind::Other);
    file.write_at(b"ab", 0).unwrap();
    assert!(file.write_at(&[b'c'; 2000], 2).is_err());
    assert!(file.allocate(0, 10).is_err());
    assert!(disk.remove_file(Path::new(FILE)).is_err());
    assert!(disk.sync_dir(Path::new("/d")).is_err());
    assert!(file.read_at(&mut [0], 0).is_err());
    let bytes = read(&disk, FILE);
    assert!(bytes.len() == 512 && bytes.starts_with(b"abc"), "a part of the failed write is there");
    assert_eq!(disk.counts().faults, 5);
}

#[test]
fn a_truncated_tail_reads_as_zeros_when_the_file_grows_again() {
    let disk = disk_with_synced_file(&[9; 1500]);
    let mut file = disk.open(Path::new(FILE), Open::ReadWrite).unwrap();
    file.set_len(700).unwrap();
    file.set_len(1500).unwrap();
    file.sync_data().unwrap();
    let bytes = read(&disk, FILE);
    assert!(bytes[..700].iter().all(|&byte| byte == 9) && bytes[700..].iter().all(|&byte| byte == 0));
}

#[test]
fn directories_move_with_what_they_hold() {
    let disk = disk_with_synced_file(b"x");
    disk.rename(Path::new("/d"), Path::new("/e")).unwrap();
    assert_eq!(read(&disk, "/e/f"), b"x");
    disk.sync_dir(Path::new("/")).unwrap();
    disk.crash(3);
    assert_eq!(read(&disk, "e/f"), b"x");
    disk.create_dir_all(Path::new("/g")).unwrap();
    assert!(disk.rename(Path::new("/g"), Path::new("/e")).is_err(), "not onto a directory that holds something");
    disk.remove_dir_all(Path::new("/e")).unwrap();
    assert!(!disk.exists(Path::new("/e")));
}
