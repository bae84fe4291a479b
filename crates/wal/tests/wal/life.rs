//! A log's life without accidents: what goes in comes out.

use crate::common::{METADATA, arc, create, dir, disk, entries, entry, mark, small, state};
use milepost_env::{Disk, Open, OsDisk};
use milepost_proto::raftpb::Entry;
use milepost_types::{LogIndex, Term};
use milepost_wal::{Options, SnapshotMark, Wal, WalError};
use std::path::Path;
use std::sync::Arc;

fn reopen(disk: &milepost_env::SimDisk, wal: Wal, options: Options) -> (Wal, milepost_wal::Recovered) {
    drop(wal);
    Wal::open(arc(disk), dir(), options).unwrap()
}

#[test]
fn a_new_log_is_empty_and_durable() {
    let disk = disk();
    create(&disk, Options::default());
    disk.crash(7);
    let (wal, recovered) = Wal::open(arc(&disk), dir(), Options::default()).unwrap();
    assert_eq!(recovered.metadata, METADATA);
    assert_eq!(recovered.snapshot, SnapshotMark::default());
    assert_eq!(recovered.snapshots, [SnapshotMark::default()]);
    assert_eq!((recovered.entries.len(), recovered.last_index()), (0, LogIndex(0)));
    assert_eq!(recovered.repaired, None);
    assert_eq!(wal.metadata(), METADATA);
    assert_eq!(disk.list(Path::new("/member")).unwrap(), ["wal"]);
}

#[test]
fn entries_and_states_come_back_and_later_ones_win() {
    let disk = disk();
    let mut wal = create(&disk, Options::default());
    wal.append(&entries(1..=5, 1, 10), Some(&state(1, 9, 2))).unwrap();
    wal.sync().unwrap();
    let after = [entry(4, 2, b"other"), entry(5, 2, b"")];
    wal.append(&after, Some(&state(2, 9, 5))).unwrap();
    wal.sync().unwrap();
    let (mut wal, recovered) = reopen(&disk, wal, Options::default());
    let expected = [&entries(1..=3, 1, 10)[..], &after].concat();
    assert_eq!(recovered.entries, expected);
    assert_eq!(recovered.hard_state, state(2, 9, 5));
    wal.append(&[entry(6, 2, b"on")], None).unwrap();
    wal.sync().unwrap();
    let (wal, recovered) = reopen(&disk, wal, Options::default());
    assert_eq!(recovered.entries.len(), 6);
    assert_eq!(wal.read_entries(LogIndex(1), LogIndex(7), u64::MAX).unwrap(), recovered.entries);
}

#[test]
fn of_what_is_known_only_terms_are_told() {
    let disk = disk();
    let mut wal = create(&disk, small(4096));
    wal.append(&entries(1..=10, 1, 300), Some(&state(1, 1, 4))).unwrap();
    wal.sync().unwrap();
    wal.save_snapshot_mark(&mark(4, 1)).unwrap();
    // A new leader replaced the tail.
    wal.append(&entries(8..=12, 3, 200), Some(&state(3, 1, 9))).unwrap();
    wal.append(&entries(13..=30, 5, 300), Some(&state(5, 1, 20))).unwrap();
    wal.sync().unwrap();
    let whole = [entries(5..=7, 1, 300), entries(8..=12, 3, 200), entries(13..=30, 5, 300)].concat();
    drop(wal);
    for known in 0..=30_u64 {
        let options = Options { must_hold: LogIndex(known), ..small(4096) };
        let (wal, recovered) = Wal::open(arc(&disk.fork()), dir(), options).unwrap();
        let before = known.max(4);
        assert_eq!(recovered.before, LogIndex(before));
        assert_eq!(recovered.entries, whole[before as usize - 4..]);
        let term_at = |index: u64| whole[..index as usize - 4].last().map_or(1, Entry::term);
        assert_eq!((recovered.term_before(), recovered.last_index()), (Term(term_at(before)), LogIndex(30)));
        for index in 4..=before {
            let run = recovered.terms.partition_point(|(first, _)| first.0 <= index);
            assert_eq!(recovered.terms[run - 1].1, Term(term_at(index)), "of {index}, {known} known");
        }
        assert_eq!(wal.read_entries(LogIndex(5), LogIndex(31), u64::MAX).unwrap(), whole, "all can be read");
    }
}

#[test]
fn segments_are_cut_named_and_trimmed_as_etcd_does() {
    let disk = disk();
    let options = Options { max_wals: 2, ..small(4096) };
    let mut wal = create(&disk, options.clone());
    for index in 1..=100 {
        wal.append(&entries(index..=index, 3, 300), Some(&state(3, 1, index))).unwrap();
        wal.sync().unwrap();
        if wal.wants_next() {
            wal.preallocate_next().unwrap();
        }
    }
    let names = disk.list(dir()).unwrap();
    assert!(names.len() > 8, "{names:?}");
    assert_eq!(names[0], "0000000000000000-0000000000000000.wal");
    let first_bytes = disk.open(&dir().join(&names[0]), Open::Read).unwrap().len().unwrap();
    assert!((4096..4096 + 400).contains(&first_bytes), "closed at its real size, {first_bytes}");
    let second = u64::from_str_radix(&names[1][17..33], 16).unwrap();
    let (mut wal, recovered) = reopen(&disk, wal, options.clone());
    assert_eq!(recovered.entries, entries(1..=100, 3, 300));
    assert_eq!(wal.read_entries(LogIndex(second), LogIndex(second + 1), 0).unwrap(), entries(second..=second, 3, 300));

    wal.save_snapshot_mark(&mark(90, 3)).unwrap();
    let before = wal.segments();
    assert_eq!(wal.release_to(LogIndex(second)).unwrap(), 0, "the segment before still holds the neighbourhood");
    assert_eq!(wal.release_to(LogIndex(second + 1)).unwrap(), 1);
    wal.release_to(LogIndex(90)).unwrap();
    assert!(wal.segments() < before && wal.segments() >= 2);
    let error = wal.read_entries(LogIndex(1), LogIndex(5), u64::MAX).unwrap_err();
    assert!(matches!(error, WalError::NotHeld { .. }), "{error}");
    assert_eq!(wal.read_entries(LogIndex(90), LogIndex(101), u64::MAX).unwrap(), entries(90..=100, 3, 300));
    let (_, recovered) = reopen(&disk, wal, options);
    assert_eq!(recovered.snapshot, mark(90, 3));
    assert_eq!(recovered.entries, entries(91..=100, 3, 300));
}

#[test]
fn max_wals_keeps_released_segments() {
    let disk = disk();
    for (max_wals, left) in [(0, 11), (5, 5), (1, 3)] {
        let disk = disk.fork();
        let mut wal = create(&disk, Options { max_wals, ..small(1000) });
        for index in 1..=10 {
            wal.append(&entries(index..=index, 1, 1000), Some(&state(1, 1, index))).unwrap();
            wal.sync().unwrap();
        }
        wal.save_snapshot_mark(&mark(10, 1)).unwrap();
        assert_eq!(wal.segments(), 11);
        wal.release_to(LogIndex(10)).unwrap();
        assert_eq!(wal.segments(), left, "--max-wals {max_wals}");
    }
}

#[test]
fn a_snapshot_counts_once_it_is_committed() {
    let disk = disk();
    let mut wal = create(&disk, Options::default());
    wal.append(&entries(1..=10, 1, 4), Some(&state(1, 1, 5))).unwrap();
    wal.save_snapshot_mark(&mark(4, 1)).unwrap();
    wal.save_snapshot_mark(&mark(8, 1)).unwrap();
    let (mut wal, recovered) = reopen(&disk, wal, Options::default());
    assert_eq!(recovered.snapshot.index, LogIndex(4));
    assert_eq!(recovered.snapshots.len(), 3);
    assert_eq!(recovered.entries, entries(5..=10, 1, 4));
    wal.append(&[], Some(&state(1, 1, 9))).unwrap();
    wal.sync().unwrap();
    let (_, recovered) = reopen(&disk, wal, Options::default());
    assert_eq!(recovered.snapshot, mark(8, 1));
    assert_eq!(recovered.entries, entries(9..=10, 1, 4));
}

#[test]
fn a_received_snapshot_takes_the_place_of_the_log() {
    let disk = disk();
    let mut wal = create(&disk, Options::default());
    wal.append(&entries(1..=10, 1, 4), Some(&state(1, 1, 5))).unwrap();
    wal.save_snapshot_mark(&mark(50, 2)).unwrap();
    // Entries behind the snapshot may be written before the HardState that commits it.
    wal.append(&entries(51..=53, 2, 4), Some(&state(2, 0, 50))).unwrap();
    wal.sync().unwrap();
    let (wal, recovered) = reopen(&disk, wal, Options::default());
    assert_eq!(recovered.snapshot, mark(50, 2));
    assert_eq!(recovered.entries, entries(51..=53, 2, 4));
    assert_eq!(wal.reader().held(), (LogIndex(51), LogIndex(53)));
    assert_eq!(wal.last_index(), LogIndex(53));
}

/// The power went after the mark and before the commit that goes with it; then the same entries came one by one.
#[test]
fn a_received_snapshot_that_was_never_installed_does_not_count_later() {
    let disk = disk();
    let mut wal = create(&disk, Options::default());
    wal.append(&entries(1..=10, 1, 4), Some(&state(1, 1, 10))).unwrap();
    wal.save_snapshot_mark(&mark(20, 2)).unwrap();
    wal.sync().unwrap();
    let (mut wal, recovered) = reopen(&disk, wal, Options::default());
    assert_eq!((recovered.last_index(), recovered.snapshots.len()), (LogIndex(10), 2));
    wal.append(&entries(11..=30, 2, 4), Some(&state(2, 1, 30))).unwrap();
    wal.sync().unwrap();
    let (_, recovered) = reopen(&disk, wal, Options::default());
    assert_eq!(recovered.snapshot.index, LogIndex(0));
    assert_eq!(recovered.entries, [entries(1..=10, 1, 4), entries(11..=30, 2, 4)].concat());
}

#[test]
fn a_received_snapshot_inside_a_conflicting_tail_ends_it() {
    let disk = disk();
    let mut wal = create(&disk, Options::default());
    wal.append(&entries(1..=10, 1, 4), Some(&state(1, 1, 5))).unwrap();
    wal.save_snapshot_mark(&mark(8, 2)).unwrap();
    wal.append(&[], Some(&state(2, 1, 8))).unwrap();
    wal.sync().unwrap();
    let (_, recovered) = reopen(&disk, wal, Options::default());
    assert_eq!((recovered.entries.len(), recovered.last_index()), (0, LogIndex(8)));
}

#[test]
fn older_entries_are_read_from_any_place() {
    let disk = disk();
    let mut wal = create(&disk, small(50_000));
    let mut expected = Vec::new();
    for index in 1..=400u64 {
        if index % 50 == 0 {
            // A new leader replaces the last three.
            let term = index / 50 + 1;
            expected.truncate(index as usize - 3);
            let new: Vec<_> = (index - 2..=index).map(|index| entry(index, term, &[term as u8; 700])).collect();
            wal.append(&new, Some(&state(term, 1, 0))).unwrap();
            expected.extend(new);
        } else {
            let term = expected.last().map_or(1, Entry::term);
            let new = entry(index, term, &vec![1; index as usize]);
            wal.append(std::slice::from_ref(&new), None).unwrap();
            expected.push(new);
        }
        wal.sync().unwrap();
    }
    let reader = wal.reader();
    let (_again, recovered) = {
        let check = |reader: &milepost_wal::WalReader| {
            for from in (1..=400usize).step_by(7) {
                let to = (from + 40).min(401);
                let read = reader.read_entries(LogIndex(from as u64), LogIndex(to as u64), u64::MAX).unwrap();
                assert_eq!(read, expected[from - 1..to - 1]);
                let few = reader.read_entries(LogIndex(from as u64), LogIndex(to as u64), 1500).unwrap();
                assert!(!few.is_empty() && few[..] == expected[from - 1..from - 1 + few.len()]);
            }
        };
        check(&reader);
        let (again, recovered) = reopen(&disk, wal, small(50_000));
        check(&again.reader());
        (again, recovered)
    };
    assert_eq!(recovered.entries, expected);
}

#[test]
fn the_log_knows_how_much_follows_an_entry() {
    let disk = disk();
    let mut wal = create(&disk, small(100_000));
    for index in 1..=300 {
        wal.append(&entries(index..=index, 1, 1000), None).unwrap();
        wal.sync().unwrap();
    }
    let (again, _) = Wal::open(arc(&disk.fork()), dir(), small(100_000)).unwrap();
    for wal in [&wal, &again] {
        let bytes = wal.bytes_since(LogIndex(101));
        assert!((200_000..230_000).contains(&bytes), "{bytes}");
    }
    assert_eq!(wal.bytes_since(LogIndex(301)), 0);
}

#[test]
fn entries_that_do_not_follow_are_refused_and_nothing_is_written() {
    let disk = disk();
    let mut wal = create(&disk, Options::default());
    wal.append(&entries(1..=3, 1, 4), Some(&state(1, 1, 2))).unwrap();
    wal.sync().unwrap();
    let gap = [entry(4, 1, b"a"), entry(6, 1, b"b")];
    let old_term = [entry(4, 2, b"a"), entry(5, 1, b"b")];
    let no_change = Entry { r#type: Some(1), data: None, ..entry(4, 1, b"") };
    let no_type = Entry { r#type: Some(3), ..entry(4, 1, b"x") };
    let wrong: [&[Entry]; 7] =
        [&entries(5..=5, 1, 1), &entries(2..=2, 1, 1), &gap, &[entry(4, 0, b"")], &old_term, &[no_change], &[no_type]];
    for wrong in wrong {
        assert!(matches!(wal.append(wrong, None), Err(WalError::Misplaced { .. })));
    }
    assert!(matches!(wal.append(&[], Some(&state(0, 0, 0))), Err(WalError::TermGoesBack { .. })));
    let (_, recovered) = reopen(&disk, wal, Options::default());
    assert_eq!(recovered.entries, entries(1..=3, 1, 4));
}

#[test]
fn one_log_has_one_writer() {
    let disk = disk();
    let wal = create(&disk, Options::default());
    assert!(matches!(Wal::open(arc(&disk), dir(), Options::default()), Err(WalError::Locked { .. })));
    assert!(matches!(
        Wal::create(arc(&disk), dir(), METADATA, Options::default()),
        Err(WalError::AlreadyExists { .. })
    ));
    assert!(Wal::inspect(&disk, dir()).is_ok(), "looking is free");
    drop(wal);
    assert!(Wal::open(arc(&disk), dir(), Options::default()).is_ok());
    let missing = Path::new("/member/nothing");
    disk.create_dir_all(missing).unwrap();
    assert!(matches!(Wal::open(arc(&disk), missing, Options::default()), Err(WalError::NotFound { .. })));
}

#[test]
fn only_the_commit_may_wait() {
    let before = state(1, 2, 3);
    assert!(!Wal::must_sync(&before, &state(1, 2, 9), &[]));
    assert!(Wal::must_sync(&before, &state(2, 2, 3), &[]));
    assert!(Wal::must_sync(&before, &state(1, 3, 3), &[]));
    assert!(Wal::must_sync(&before, &before, &entries(1..=1, 1, 0)));
}

#[test]
fn a_batch_is_one_write_and_one_sync() {
    let disk = disk();
    let mut wal = create(&disk, Options::default());
    let before = disk.counts();
    wal.append(&entries(1..=500, 1, 100), Some(&state(1, 1, 0))).unwrap();
    wal.append(&entries(501..=1000, 1, 100), Some(&state(1, 1, 0))).unwrap();
    wal.sync().unwrap();
    wal.sync().unwrap();
    let after = disk.counts();
    assert_eq!((after.writes - before.writes, after.syncs - before.syncs), (1, 1));
}

#[test]
fn on_the_real_disk() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("wal");
    let os: Arc<dyn Disk> = Arc::new(OsDisk);
    let mut wal = Wal::create(Arc::clone(&os), &dir, METADATA, small(100_000)).unwrap();
    for first in (1..=1000).step_by(10) {
        wal.append(&entries(first..=first + 9, 1, 100), Some(&state(1, 1, first - 1))).unwrap();
        wal.sync().unwrap();
        if wal.wants_next() {
            wal.preallocate_next().unwrap();
        }
    }
    assert!(wal.segments() > 1);
    drop(wal);
    let (wal, recovered) = Wal::open(os, &dir, small(100_000)).unwrap();
    assert_eq!(recovered.entries, entries(1..=1000, 1, 100));
    assert_eq!(wal.read_entries(LogIndex(17), LogIndex(900), u64::MAX).unwrap(), entries(17..=899, 1, 100));
}
