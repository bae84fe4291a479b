//! Bad disks: a bit turns over, a file is cut, a sector is zeroed.

use std::path::{Path, PathBuf};

use milepost_env::{Disk, Open, SECTOR_BYTES, SimDisk};
use milepost_types::LogIndex;
use milepost_wal::{Options, Recovered, Wal, WalError};

use crate::common::{arc, create, dir, disk, entries, entry, small, state};
use crate::model::{Rec, View, view};

const FIRST: &str = "/member/wal/0000000000000000-0000000000000000.wal";

/// A synced log of several segments whose last record says that everything is committed.
fn committed_log(payload: impl Fn(u64, u64) -> u8) -> (SimDisk, View) {
    let disk = disk();
    let mut wal = create(&disk, small(4000));
    for index in 1..=12u64 {
        let data: Vec<u8> = (0..index * 131).map(|n| payload(n, index)).collect();
        wal.append(&[entry(index, 2, &data)], Some(&state(2, 3, index))).unwrap();
        wal.sync().unwrap();
    }
    assert!(wal.segments() > 1);
    drop(wal);
    let found = View::from(&Wal::inspect(&disk, dir()).unwrap());
    (disk, found)
}

fn noise(n: u64, index: u64) -> u8 {
    (n * index) as u8 | 1
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.list(dir()).unwrap();
    names.iter().filter(|name| name.ends_with(".wal")).map(|name| dir().join(name)).collect()
}

fn read(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, Open::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

/// Turns over every `step`th bit of a log, one at a time; how many were refused as damage, how many as lost log.
fn refusals(disk: &SimDisk, step: usize) -> (u64, u64) {
    let (mut corrupt, mut lost) = (0, 0);
    for path in segments(disk) {
        let bytes = read(disk, &path);
        for bit in (0..used(&bytes) as u64 * 8).step_by(step) {
            let disk = disk.fork();
            disk.flip_bit(&path, bit).unwrap();
            match Wal::open(arc(&disk), dir(), small(2000)).map(|(_, recovered)| recovered) {
                Err(WalError::Corrupt { .. }) => corrupt += 1,
                Err(WalError::LostLog { .. }) => lost += 1,
                other => panic!("{} bit {bit}: {other:?}", path.display()),
            }
            let mut flipped = bytes.clone();
            flipped[bit as usize / 8] ^= 1 << (bit % 8);
            assert!(read(&disk, &path) == flipped, "nothing is repaired");
        }
    }
    println!("{corrupt} flips refused as damage, {lost} as lost log");
    (corrupt, lost)
}

#[test]
fn a_turned_bit_anywhere_in_a_synced_log_is_refused() {
    let (disk, _) = committed_log(noise);
    let (corrupt, lost) = refusals(&disk, 3);
    assert!(corrupt > 10_000 && lost * 1000 < corrupt);
}

#[test]
fn among_payloads_of_zeros_as_well() {
    let (disk, _) = committed_log(|_, _| 0);
    let (corrupt, lost) = refusals(&disk, 5);
    assert!(corrupt > 10_000 && lost * 1000 < corrupt);
}

#[test]
fn a_turned_bit_is_never_read_back() {
    let (disk, view) = committed_log(noise);
    let (wal, _) = Wal::open(arc(&disk), dir(), small(2000)).unwrap();
    let mut refused = 0;
    let (from, to) = (LogIndex(1), LogIndex(13));
    for path in segments(&disk) {
        for bit in (0..used(&read(&disk, &path)) as u64 * 8).step_by(5) {
            disk.flip_bit(&path, bit).unwrap();
            match wal.read_entries(from, to, u64::MAX) {
                Ok(read) => {
                    assert_eq!(read, view.entries, "a bit of the head, of a state, of a length behind the last")
                }
                Err(error) => {
                    assert!(matches!(error, WalError::Corrupt { .. }), "{error}");
                    refused += 1;
                }
            }
            disk.flip_bit(&path, bit).unwrap();
        }
    }
    assert!(refused > 1000);
    assert_eq!(wal.read_entries(from, to, u64::MAX).unwrap(), view.entries);
}

/// One segment, nothing committed; the records' ends in the file.
fn uncommitted_log() -> (SimDisk, Vec<Rec>, Vec<u64>) {
    let disk = disk();
    let mut wal = create(&disk, small(1 << 20));
    let mut ends = vec![used_rounded(&disk)];
    let mut records = Vec::new();
    for index in 1..=15u64 {
        let bytes = [3, 700, 1, 1600, 200, 512][index as usize % 6];
        let new = entry(index, 1, &vec![index as u8 | 1; bytes]);
        wal.append(std::slice::from_ref(&new), None).unwrap();
        wal.sync().unwrap();
        records.push(Rec::Entry(new));
        ends.push(used_rounded(&disk));
    }
    drop(wal);
    (disk, records, ends)
}

fn used_rounded(disk: &SimDisk) -> u64 {
    (used(&read(disk, Path::new(FIRST))) as u64).next_multiple_of(8)
}

fn open(disk: &SimDisk) -> Result<Recovered, WalError> {
    Wal::open(arc(disk), dir(), small(1 << 20)).map(|(_, recovered)| recovered)
}

#[test]
fn a_file_cut_anywhere_in_its_tail_keeps_its_whole_records() {
    let (disk, records, ends) = uncommitted_log();
    let (mut whole, mut torn) = (0, 0);
    for len in ends[0]..*ends.last().unwrap() {
        let disk = disk.fork();
        disk.open(Path::new(FIRST), Open::ReadWrite).unwrap().set_len(len).unwrap();
        let before = read(&disk, Path::new(FIRST));
        let recovered = open(&disk).unwrap();
        let kept = ends.iter().filter(|&&end| end <= len).count() - 1;
        assert_eq!(View::from(&recovered), view(&records[..kept]), "cut at {len}");
        // Of a record cut in the zeros of its length field nothing is left to tell.
        match &recovered.repaired {
            None => whole += 1,
            Some(tail) => {
                assert_eq!((tail.offset, tail.record), (ends[kept], 3 + kept as u64));
                assert!(read(&disk, &tail.broken) == before, "the copy is what was found");
                torn += 1;
            }
        }
        assert_eq!(open(&disk).unwrap().repaired, None, "repaired once");
    }
    println!("{whole} cuts at a record's end, {torn} torn");
    assert!(whole >= 14 && torn > 1000);
}

#[test]
fn a_lost_sector_tears_the_tail_and_what_stood_behind_it_goes() {
    let (disk, records, ends) = uncommitted_log();
    let mut torn = 0;
    for sector in 1..ends.last().unwrap() / SECTOR_BYTES {
        let start = sector * SECTOR_BYTES;
        // Only sectors that begin in the unsynced part could be lost; here: any behind the head.
        let disk = disk.fork();
        disk.open(Path::new(FIRST), Open::ReadWrite).unwrap().write_at(&[0; SECTOR_BYTES as usize], start).unwrap();
        let kept = ends.iter().filter(|&&end| end <= start).count() - 1;
        let recovered = open(&disk).unwrap_or_else(|error| panic!("sector {sector}: {error}"));
        assert_eq!(View::from(&recovered), view(&records[..kept]), "sector {sector}");
        assert!(recovered.repaired.is_some(), "sector {sector}");
        assert!(used_rounded(&disk) <= ends[kept], "the rest is zeroed");
        torn += 1;
    }
    assert!(torn > 10);
}

/// What reached over into the lost sector may be one byte that is a 1: losing it looks like one bit turned over.
#[test]
fn a_lost_sector_that_held_one_bit_of_the_record_tears_the_tail() {
    let mut torn = 0;
    for len in 300..600 {
        let disk = disk();
        let mut wal = create(&disk, small(1 << 20));
        let mut data = vec![0xa5; len];
        data[len - 1] = 1;
        wal.append(&[entry(1, 2, &data)], None).unwrap();
        wal.sync().unwrap();
        drop(wal);
        let bytes = read(&disk, Path::new(FIRST));
        let last = bytes.iter().rposition(|&byte| byte != 0).unwrap() as u64;
        if !last.is_multiple_of(SECTOR_BYTES) {
            continue;
        }
        disk.open(Path::new(FIRST), Open::ReadWrite).unwrap().write_at(&[0], last).unwrap();
        let recovered = open(&disk).unwrap_or_else(|error| panic!("{len} bytes: {error}"));
        assert!(recovered.repaired.is_some() && recovered.entries.is_empty(), "{len} bytes");
        torn += 1;
    }
    assert!(torn > 0, "no record ended just behind a sector's start");
}

#[test]
fn a_tail_torn_below_the_commit_is_lost_log_and_left_alone() {
    let disk = disk();
    let mut wal = create(&disk, Options::default());
    wal.append(&entries(1..=3, 1, 100), Some(&state(1, 1, 2))).unwrap();
    wal.append(&entries(4..=6, 1, 2000), Some(&state(1, 1, 2))).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let bytes = read(&disk, Path::new(FIRST));
    let zero_from = |sector: u64| {
        let disk = disk.fork();
        let mut file = disk.open(Path::new(FIRST), Open::ReadWrite).unwrap();
        file.write_at(&[0; 512], sector * 512).unwrap();
        disk
    };
    let disk = zero_from(used(&bytes) as u64 / 512 - 2);
    let before = read(&disk, Path::new(FIRST));
    let options = Options { must_hold: LogIndex(6), ..Options::default() };
    let error = Wal::open(arc(&disk), dir(), options).err().unwrap();
    let text = "ends at index 5, but the store's applied index is 6";
    assert!(matches!(error, WalError::LostLog { .. }) && error.to_string().contains(text), "{error}");
    assert!(read(&disk, Path::new(FIRST)) == before && segments(&disk).len() == 1, "nothing is changed");
    let options = Options { must_hold: LogIndex(5), ..Options::default() };
    assert_eq!(Wal::open(arc(&disk), dir(), options).unwrap().1.last_index(), LogIndex(5));
}

#[test]
fn only_the_last_segment_can_be_torn() {
    let (disk, _) = committed_log(noise);
    let closed = &segments(&disk)[0];
    let bytes = read(&disk, closed);
    for len in (0..bytes.len() as u64).step_by(7) {
        let disk = disk.fork();
        disk.open(closed, Open::ReadWrite).unwrap().set_len(len).unwrap();
        assert!(matches!(open(&disk), Err(WalError::Corrupt { .. })), "cut at {len}");
    }
    for sector in 0..bytes.len() as u64 / SECTOR_BYTES {
        let disk = disk.fork();
        disk.open(closed, Open::ReadWrite).unwrap().write_at(&[0; 512], sector * SECTOR_BYTES).unwrap();
        assert!(matches!(open(&disk), Err(WalError::Corrupt { .. })), "sector {sector} lost");
    }
}

#[test]
fn junk_behind_the_end_is_set_aside_and_zeroed() {
    let (disk, records, ends) = uncommitted_log();
    let end = ends.last().unwrap();
    let junk_at = (end / SECTOR_BYTES + 2) * SECTOR_BYTES;
    disk.open(Path::new(FIRST), Open::ReadWrite).unwrap().write_at(b"junk", junk_at + 3).unwrap();
    let recovered = open(&disk).unwrap();
    assert_eq!(View::from(&recovered), view(&records));
    let torn = recovered.repaired.unwrap();
    assert_eq!(torn.offset, *end);
    assert_eq!(read(&disk, &torn.broken)[junk_at as usize + 3..][..4], *b"junk");
    assert_eq!(used_rounded(&disk), *end);
}

#[test]
fn the_last_record_damaged_in_place_is_not_a_torn_tail() {
    let (disk, _, ends) = uncommitted_log();
    let last = ends[ends.len() - 2];
    for bit in [last * 8 + 3, (last + 10) * 8, (last + 30) * 8 + 1, (last + 100) * 8] {
        let disk = disk.fork();
        disk.flip_bit(Path::new(FIRST), bit).unwrap();
        let error = open(&disk).expect_err("refused");
        let text = format!("is damaged at byte {last} (record 17 of the file)");
        assert!(error.to_string().contains(&text), "{error}");
    }
}
