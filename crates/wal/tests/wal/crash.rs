//! The power goes at every change of the disk; what was promised is there, and nothing else.

use std::path::Path;

use milepost_env::{CrashReport, Disk, Fault, SimDisk};
use milepost_wal::{Options, Wal, WalError};

use crate::common::{METADATA, arc, dir, disk, small};
use crate::model::{Caller, View, view};

const SEGMENT_BYTES: u64 = 6000;

fn options() -> Options {
    Options { max_wals: 2, ..small(SEGMENT_BYTES) }
}

/// What the runs met, printed at the end: a test that met nothing proves nothing.
#[derive(Debug, Default)]
struct Met {
    crashes: u64,
    torn_tails: u64,
    unsynced_records_kept: u64,
    unsynced_records_lost: u64,
    segments_cut: u64,
    cuts_during_recovery: u64,
    syncs_failed: u64,
    records: u64,
    disk: CrashReport,
}

impl Met {
    fn must_not_be_zero(&self, what: &[(&str, u64)]) {
        println!("{self:?}");
        for (name, count) in what {
            assert!(*count > 0, "no {name} in {self:?}");
        }
    }
}

/// Runs `steps` of the caller until the end or until the power is gone.
fn run(disk: &SimDisk, caller: &mut Caller, wal: &mut Wal, steps: u64) -> bool {
    for _ in 0..steps {
        if let Err(error) = caller.step(wal) {
            assert!(disk.power_is_off(), "{error}");
            return false;
        }
    }
    true
}

/// How many of the caller's records the log holds; panics if that is not at least the synced ones, in order.
fn kept(caller: &Caller, found: &View, replay: &str) -> usize {
    // The longest match: records that change nothing may or may not be there.
    let fits = (caller.synced..=caller.records.len()).rev().find(|&kept| view(&caller.records[..kept]) == *found);
    fits.unwrap_or_else(|| {
        panic!(
            "{replay}: found {found:?}\nwhich is none of {} to {} records, of which the shortest is\n{:?}",
            caller.synced,
            caller.records.len(),
            view(&caller.records[..caller.synced])
        )
    })
}

/// Opens after a crash, with another cut on the way if `cut` says so; checks; returns where the log stands.
fn recover(disk: &SimDisk, caller: &Caller, seed: u64, met: &mut Met, replay: &str) -> (Wal, usize, View) {
    if seed.is_multiple_of(3) {
        disk.cut_power_after(seed / 3 % 6);
        let opened = Wal::open(arc(disk), dir(), options());
        if opened.is_err() && disk.power_is_off() {
            met.cuts_during_recovery += 1;
        }
        drop(opened);
        met.disk.add(&disk.crash(seed ^ 0x5555));
    }
    let (wal, recovered) = Wal::open(arc(disk), dir(), options()).unwrap_or_else(|error| panic!("{replay}: {error}"));
    met.torn_tails += u64::from(recovered.repaired.is_some());
    if let Some(torn) = &recovered.repaired {
        assert!(disk.exists(&torn.broken), "{replay}: a copy is kept");
    }
    let found = View::from(&recovered);
    let kept = kept(caller, &found, replay);
    (wal, kept, found)
}

#[test]
fn what_was_synced_survives_a_power_cut_at_every_change() {
    let mut met = Met::default();
    for workload in 0..6 {
        let whole = disk();
        let mut wal = Wal::create(arc(&whole), dir(), METADATA, options()).unwrap();
        let start = whole.counts().changes();
        assert!(run(&whole, &mut Caller::new(workload), &mut wal, 60));
        let changes = whole.counts().changes() - start;
        for cut in 0..changes {
            power_cut(workload, cut, &mut met);
        }
    }
    met.must_not_be_zero(&[
        ("crash", met.crashes),
        ("torn tail", met.torn_tails),
        ("record kept", met.unsynced_records_kept),
        ("record lost", met.unsynced_records_lost),
        ("segment cut", met.segments_cut),
        ("cut during recovery", met.cuts_during_recovery),
        ("sector kept", met.disk.sectors_kept),
        ("sector dropped", met.disk.sectors_dropped),
        ("name lost", met.disk.names_dropped),
        ("length lost", met.disk.lengths_dropped),
    ]);
}

fn power_cut(workload: u64, cut: u64, met: &mut Met) {
    let disk = disk();
    let mut caller = Caller::new(workload);
    let mut wal = Wal::create(arc(&disk), dir(), METADATA, options()).unwrap();
    disk.cut_power_after(cut);
    assert!(!run(&disk, &mut caller, &mut wal, 60), "the run is the same as the whole one");
    met.segments_cut += wal.segments() as u64 - 1;
    drop(wal);
    for seed in 0..4 {
        let replay = format!("workload {workload} cut {cut} seed {seed}");
        let disk = disk.fork();
        let mut caller = caller.clone();
        met.disk.add(&disk.crash(cut * 31 + seed));
        met.crashes += 1;
        let (mut wal, kept, found) = recover(&disk, &caller, cut + seed, met, &replay);
        met.unsynced_records_kept += (kept - caller.synced) as u64;
        met.unsynced_records_lost += (caller.records.len() - kept) as u64;

        // What recovery handed out is durable: Raft counts on it from here.
        drop(wal);
        disk.crash(seed);
        let (again, recovered) = Wal::open(arc(&disk), dir(), options()).unwrap();
        assert_eq!((View::from(&recovered), &recovered.repaired), (found, &None), "{replay}");
        wal = again;

        // And the log goes on from there, over another crash.
        caller.resume(kept, &recovered);
        assert!(run(&disk, &mut caller, &mut wal, 10));
        met.records += caller.records.len() as u64;
        drop(wal);
        met.disk.add(&disk.crash(cut * 37 + seed));
        recover(&disk, &caller, 1, met, &format!("{replay}, second life"));
    }
}

#[test]
fn after_a_failed_sync_or_write_nothing_more_is_written_and_the_next_life_believes_the_disk() {
    let mut met = Met::default();
    for workload in 0..200 {
        let disk = disk();
        let mut caller = Caller::new(workload);
        let mut wal = Wal::create(arc(&disk), dir(), METADATA, options()).unwrap();
        let fault = if workload % 3 == 0 { Fault::Write } else { Fault::Sync };
        disk.fail(fault, 1 + workload % 12, std::io::ErrorKind::Other);
        let failed = (0..80).find_map(|_| caller.step(&mut wal).err());
        let Some(failed) = failed else { continue };
        assert!(matches!(failed, WalError::Disk { .. }), "{failed}");
        met.syncs_failed += 1;
        let writes = disk.counts().writes;
        for result in [wal.append(&[], None), wal.sync(), wal.flush(), wal.preallocate_next()] {
            assert!(matches!(result, Err(WalError::Poisoned { .. })));
        }
        assert_eq!(disk.counts().writes, writes);
        drop(wal);

        // A restart of the process, not of the machine: the cache still shows what the disk may have lost.
        let replay = format!("workload {workload}");
        let (wal, kept, found) = recover(&disk, &caller, 1, &mut met, &replay);
        drop(wal);
        met.disk.add(&disk.crash(workload));
        let (_, recovered) = Wal::open(arc(&disk), dir(), options()).unwrap();
        assert_eq!(View::from(&recovered), found, "{replay}: what the restart believed is what the disk held");
        met.unsynced_records_lost += (caller.records.len() - kept) as u64;
    }
    met.must_not_be_zero(&[("failed sync", met.syncs_failed), ("record lost", met.unsynced_records_lost)]);
    assert!(met.syncs_failed > 100);
}

#[test]
fn a_log_is_born_whole_or_not_at_all() {
    let (mut born, mut unborn) = (0, 0);
    let whole = disk();
    let start = whole.counts().changes();
    drop(Wal::create(arc(&whole), dir(), METADATA, options()).unwrap());
    let changes = whole.counts().changes() - start;
    for cut in 0..changes {
        for seed in 0..30 {
            let disk = disk();
            disk.cut_power_after(cut);
            assert!(Wal::create(arc(&disk), dir(), METADATA, options()).is_err());
            disk.crash(seed);
            match Wal::open(arc(&disk), dir(), options()) {
                Ok((_, recovered)) => {
                    assert_eq!(recovered.metadata, METADATA);
                    born += 1;
                }
                Err(_) => {
                    assert!(!disk.exists(dir()), "cut {cut} seed {seed}: half a log");
                    Wal::create(arc(&disk), dir(), METADATA, options()).unwrap();
                    unborn += 1;
                }
            }
        }
    }
    println!("{changes} changes, born {born}, unborn {unborn}");
    assert!(born > 0 && unborn > 0);
}

#[test]
fn a_removed_tmp_segment_does_not_confuse_anybody() {
    let disk = disk();
    let mut wal = Wal::create(arc(&disk), dir(), METADATA, options()).unwrap();
    wal.preallocate_next().unwrap();
    assert!(wal.has_next() && disk.exists(&dir().join("1.tmp")));
    drop(wal);
    let (mut wal, _) = Wal::open(arc(&disk), dir(), options()).unwrap();
    assert!(!wal.has_next());
    wal.preallocate_next().unwrap();
    disk.remove_file(Path::new("/member/wal/1.tmp")).unwrap();
    wal.append(&crate::common::entries(1..=7, 1, 1000), None).unwrap();
    assert!(matches!(wal.sync(), Err(WalError::Disk { action: "rename into place", .. })));
    assert!(matches!(wal.sync(), Err(WalError::Poisoned { .. })));
    drop(wal);
    let (_, recovered) = Wal::open(arc(&disk), dir(), options()).unwrap();
    assert_eq!(recovered.entries.len(), 7);
}

#[test]
fn what_a_killed_process_left_in_the_cache_is_made_durable_before_anybody_counts_on_it() {
    let mut more_than_synced = 0;
    for workload in 0..100 {
        let disk = disk();
        let mut caller = Caller::new(workload);
        let mut wal = Wal::create(arc(&disk), dir(), METADATA, options()).unwrap();
        assert!(run(&disk, &mut caller, &mut wal, 5 + workload % 20));
        wal.flush().unwrap();
        drop(wal);
        let (wal, recovered) = Wal::open(arc(&disk), dir(), options()).unwrap();
        assert_eq!(View::from(&recovered), view(&caller.records), "workload {workload}: all that was written is there");
        more_than_synced += u64::from(caller.synced < caller.records.len());
        drop(wal);
        disk.crash(workload);
        let (_, after) = Wal::open(arc(&disk), dir(), options()).unwrap();
        assert_eq!(after, recovered, "workload {workload}");
    }
    assert!(more_than_synced > 30, "{more_than_synced}");
}
