//! Files of the store that have been damaged behind the member's back, in every kind of page: each is refused, or read
//! right, or a read fails and says so. Never is anything else served, and never does the process end.
//!
//! More of them: `MILEPOST_DAMAGES=5000 cargo test -p milepost-mvcc --test damage`; the seed is printed, and
//! `MILEPOST_SEED` sets it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::EngineError;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_mvcc::{RangeOptions, Record, SmallTable, Store, StoreError, StoreOptions, Writer, is_sealed};
use milepost_types::{KeyRange, LeaseId, LogIndex, Revision, Term};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const PAGE: usize = 4096;

fn open(dir: &Path) -> Result<(Store, Writer), StoreError> {
    let lmdb = LmdbOptions { map_size: 1 << 30, check: Some(is_sealed), ..LmdbOptions::default() };
    let options = StoreOptions { background: false, behind_bytes: 0, ..StoreOptions::default() };
    let (store, writer, _) = Store::open(Arc::new(LmdbEngine::open(dir, lmdb)?), options)?;
    Ok((store, writer))
}

/// A store with everything in it: three levels, long keys, large values, old versions, tombstones, leases, free pages.
fn fill(dir: &Path) -> Answers {
    let (store, mut writer) = open(dir).expect("open");
    let mut rng = SmallRng::seed_from_u64(1);
    let mut index = 0;
    let mut entry = |work: &mut dyn FnMut(&mut milepost_mvcc::Change<'_>)| {
        index += 1;
        let mut change = writer.begin(LogIndex(index), Term(1));
        work(&mut change);
        change.finish().expect("finish");
        if index % 40 == 0 {
            while store.step(true).expect("step") {}
        }
    };
    for round in 0..3 {
        for group in 0..100 {
            entry(&mut |change| {
                for n in 0..20 {
                    let mut key = format!("key/{:05}", group * 20 + n).into_bytes();
                    if n == 7 {
                        key.resize(300 + 20 * group, b'k');
                    }
                    let len = *[0, 10, 100, 100, 100, 700, 900, 3000].choose(&mut rng).expect("some");
                    let value = vec![b'a' + round as u8; if n == 3 { 9000 } else { len }];
                    let lease = LeaseId(if n == 5 { 7 } else { 0 });
                    change.put(key.into(), value.into(), lease).expect("put");
                }
                change.table_put(SmallTable::Lease, format!("lease{group}").into(), vec![1; 50]);
            });
        }
        entry(&mut |change| {
            let range = KeyRange { start: b"key/00100", end: milepost_types::RangeEnd::Before(b"key/00160") };
            change.delete_range(range, false).expect("delete");
            let bound = change.revision() - 60;
            change.compact(bound).expect("compact");
        });
        while store.step(true).expect("step") {}
    }
    store.force_sync().expect("sync");
    Answers::of(&store, &mut Vec::new())
}

type Seen = Vec<(Bytes, Bytes, Revision, i64, i64)>;

/// What a store answers to many questions; those whose answer was an error are not in it.
#[derive(Default)]
struct Answers(BTreeMap<String, Seen>);

fn seen(records: &[Arc<Record>]) -> Seen {
    let seen = |record: &Arc<Record>| {
        (record.key.clone(), record.value.clone(), record.revision, record.version, record.create_revision)
    };
    records.iter().map(seen).collect()
}

impl Answers {
    /// Asks everything; what fails goes to `errors`.
    fn of(store: &Store, errors: &mut Vec<StoreError>) -> Self {
        let mut answers = Self::default();
        let mut note = |question: String, answer: Result<Seen, StoreError>| match answer {
            Ok(seen) => _ = answers.0.insert(question, seen),
            Err(error) => errors.push(error),
        };
        let view = store.view();
        let (floor, newest) = (view.compact_revision(), view.revision());
        for at in [newest, newest - 30, floor] {
            for (limit, count) in [(0, false), (1, true)] {
                let options = RangeOptions { limit, count, values: true };
                let found = view.range(KeyRange::all(), at, options);
                let found = found.map(|found| {
                    let mut answer = seen(&found.records);
                    answer.push((Bytes::new(), Bytes::new(), Revision::ZERO, found.count, 0));
                    answer
                });
                note(format!("range at {at} limit {limit}"), found);
            }
            for n in (0..2000).step_by(3) {
                let mut key = format!("key/{n:05}").into_bytes();
                if n % 20 == 7 {
                    key.resize(300 + n / 20 * 20, b'k');
                }
                let found = view.get(&key, at).map(|found| seen(&found.into_iter().collect::<Vec<_>>()));
                note(format!("get {n} at {at}"), found);
            }
        }
        note("history".into(), store.history(Revision::new(floor, 0), usize::MAX, usize::MAX).map(|all| seen(&all)));
        let attached = view.attached(LeaseId(7));
        let attached =
            attached.map(|keys| keys.into_iter().map(|key| (key, Bytes::new(), Revision::ZERO, 0, 0)).collect());
        note("attached".into(), attached);
        answers
    }

    /// Asks `store` everything again: whatever it answers is what is known.
    fn compare(&self, store: &Store, what: &str) -> Vec<StoreError> {
        let mut errors = Vec::new();
        for (question, answer) in Self::of(store, &mut errors).0 {
            assert!(self.0[&question] == answer, "{what}: a wrong answer to {question}");
        }
        errors
    }
}

/// Where the pages of each kind are. Pages that are not in use look like the kind they were.
fn pages_of(file: &[u8]) -> BTreeMap<&'static str, Vec<usize>> {
    let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes")) as usize;
    let newest = if number(144) > number(PAGE + 144) { 0 } else { PAGE };
    let mut pages: BTreeMap<_, Vec<_>> = BTreeMap::new();
    pages.insert("meta", vec![0, 1]);
    pages.insert("free list", vec![number(newest + 80)]);
    pages.insert("list of tables", vec![number(newest + 128)]);
    for page in 2..file.len() / PAGE {
        let kind = match file[page * PAGE + 10] {
            1 => "branch",
            2 => "leaf",
            4 => "overflow",
            _ => continue,
        };
        pages.entry(kind).or_default().push(page);
    }
    pages
}

/// Changes something in a page; says what.
fn damage(file: &mut Vec<u8>, page: usize, kind: &str, rng: &mut SmallRng) -> String {
    let at = page * PAGE;
    match rng.random_range(0..20) {
        0 => {
            let sector = at + 512 * rng.random_range(0..8);
            file[sector..sector + 512].fill(0);
            format!("{kind} {page}: a sector of zeros")
        }
        1 => {
            file[at..at + PAGE].fill(0);
            format!("{kind} {page}: zeros")
        }
        2 => {
            let other = rng.random_range(2..file.len() / PAGE) * PAGE;
            file.copy_within(other..other + PAGE, at);
            format!("{kind} {page}: the page of {}", other / PAGE)
        }
        3 => {
            file.truncate(at + rng.random_range(0..PAGE));
            format!("{kind} {page}: the file ends there")
        }
        4..8 => {
            let bit = rng.random_range(0..16 * 8);
            file[at + bit / 8] ^= 1 << (bit % 8);
            format!("{kind} {page}: bit {bit} of its head")
        }
        _ => {
            // Of meta pages the part that is used.
            let bit = rng.random_range(0..8 * if kind == "meta" { 152 } else { PAGE });
            file[at + bit / 8] ^= 1 << (bit % 8);
            format!("{kind} {page}: bit {bit}")
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    all_right: u32,
    read_failed: u32,
    refused: u32,
    /// Of those that started: a write later stopped the store.
    stopped: u32,
}

fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Corrupt { .. } => true,
        StoreError::Engine(error) => error.is_damage(),
        _ => false,
    }
}

/// Opens a damaged store, asks it everything, writes to it, asks again, and opens it once more.
fn live(dir: &Path, known: &Answers, what: &str, tally: &mut Tally) {
    let (store, mut writer) = match open(dir) {
        Ok(opened) => opened,
        Err(error) => {
            let text = error.to_string();
            assert!(is_damage(&error) && text.contains("backup") | text.contains("rebuild"), "{what}: {text}");
            tally.refused += 1;
            return;
        }
    };
    let errors = known.compare(&store, what);
    if errors.is_empty() {
        tally.all_right += 1;
    } else {
        tally.read_failed += 1;
        assert!(errors.iter().all(is_damage), "{what}: {errors:?}");
        let missing = |error: &StoreError| matches!(error, StoreError::Corrupt { what: "missing", .. });
        assert!(store.corrupt().is_some() || errors.iter().all(missing), "{what}: nobody will hear of {errors:?}");
    }
    // Other keys than those that are asked for.
    for index in 0..60 {
        let mut change = writer.begin(LogIndex(10_000 + index), Term(1));
        let key = format!("key/{:05}+", index * 37 % 2000);
        let put = change.put(key.into(), Bytes::from(vec![b'z'; 50]), LeaseId(0));
        assert!(put.as_ref().err().is_none_or(is_damage), "{what}: {put:?}");
        drop(put);
        if change.finish().is_err() || (index % 20 == 19 && store.step(true).is_err()) {
            break;
        }
    }
    tally.stopped += u32::from(store.failed().is_some());
    let gets_only = Answers(known.0.clone().into_iter().filter(|(question, _)| question.starts_with("get")).collect());
    for (question, answer) in Answers::of(&store, &mut Vec::new()).0 {
        let known = gets_only.0.get(&question);
        assert!(known.is_none_or(|known| *known == answer), "{what}: a wrong answer to {question} after writes");
    }
    drop((store, writer));
    if let Err(error) = open(dir) {
        assert!(is_damage(&error), "{what}: {error}");
    }
}

#[test]
fn no_damaged_page_is_believed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (count, seed) = (number("MILEPOST_DAMAGES").unwrap_or(320), number("MILEPOST_SEED").unwrap_or(1));
    eprintln!("MILEPOST_SEED={seed} MILEPOST_DAMAGES={count}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let base = tempfile::tempdir().expect("directory");
    let known = fill(&base.path().join("sound"));
    let file = fs::read(base.path().join("sound/data.mdb")).expect("read");
    let pages = pages_of(&file);
    let kinds: Vec<_> = pages.keys().copied().collect();
    assert_eq!(kinds.len(), 6, "{kinds:?}");
    assert!(pages["branch"].len() >= 10 && pages["overflow"].len() >= 100, "{pages:?}");
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for round in 0..count {
        let kind = kinds[round as usize % kinds.len()];
        let page = *pages[kind].choose(&mut rng).expect("some");
        let mut damaged = file.clone();
        let what = format!("round {round}, {}", damage(&mut damaged, page, kind, &mut rng));
        let dir = base.path().join("damaged");
        fs::create_dir(&dir).expect("directory");
        fs::write(dir.join("data.mdb"), damaged).expect("write");
        live(&dir, &known, &what, tallies.entry(kind).or_default());
        fs::remove_dir_all(&dir).expect("remove");
    }
    for (kind, tally) in &tallies {
        eprintln!("{kind}: {tally:?}");
    }
    assert!(tallies["branch"].refused > 0 && tallies["leaf"].read_failed > 0 && tallies["meta"].refused > 0);
}

/// Pages that a power cut took back to what they held before, sound in themselves: what a life without syncs may leave.
#[test]
fn a_life_without_syncs_that_never_ended_is_compared_as_a_whole() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path();
    let lmdb = LmdbOptions { map_size: 1 << 30, no_sync: true, check: Some(is_sealed), ..LmdbOptions::default() };
    let mark = path.join("UNSYNCED");
    let engine = LmdbEngine::open(path, lmdb).expect("open");
    assert!(!engine.is_in_doubt() && mark.exists());
    drop(engine);
    assert!(!mark.exists(), "an orderly end takes it back");
    let known = fill(path);
    fs::write(&mark, "").expect("write");
    let synced = LmdbOptions { no_sync: false, ..lmdb };
    let engine = LmdbEngine::open(path, synced).expect("open");
    assert!(engine.is_in_doubt());
    milepost_mvcc::verify(&engine).expect("sound");
    engine.settle().expect("settle");
    drop(engine);
    assert!(!mark.exists());
    assert!(known.compare(&open(path).expect("open").0, "settled").is_empty());
    // One page of each kind, as it was some commits ago.
    let old = fs::read(path.join("data.mdb")).expect("read");
    let (store, mut writer) = open(path).expect("open");
    for index in 0..200_u64 {
        let mut change = writer.begin(LogIndex(20_000 + index), Term(1));
        let key = format!("key/{:05}", index * 10);
        change.put(key.into(), Bytes::from_static(b"new"), LeaseId(0)).expect("put");
        change.finish().expect("finish");
        if index % 10 == 0 {
            store.force_sync().expect("sync");
        }
    }
    store.force_sync().expect("sync");
    drop((store, writer));
    let new = fs::read(path.join("data.mdb")).expect("read");
    let changed = (2..old.len() / PAGE).filter(|page| old[page * PAGE..][..PAGE] != new[page * PAGE..][..PAGE]);
    let (mut refused, mut sound) = (0, 0);
    // Every ninth: each is read as a whole.
    for page in changed.step_by(9) {
        let mut lost = new.clone();
        lost[page * PAGE..][..PAGE].copy_from_slice(&old[page * PAGE..][..PAGE]);
        fs::write(path.join("data.mdb"), lost).expect("write");
        fs::write(&mark, "").expect("write");
        let outcome = LmdbEngine::open(path, synced).map_err(StoreError::from).and_then(|engine| {
            milepost_mvcc::verify(&engine)?;
            engine.settle().map_err(StoreError::from)
        });
        match outcome {
            Err(error) => {
                assert!(is_damage(&error), "page {page}: {error}");
                refused += 1;
            }
            // A page that nothing leads to any more.
            Ok(()) => {
                let (store, _writer) = open(path).expect("open");
                let count =
                    store.view().range(KeyRange::all(), 0, RangeOptions::default()).expect("range").records.len();
                for n in 0..200 {
                    let key = format!("key/{:05}", n * 10);
                    let found = store.view().get(key.as_bytes(), 0).expect("get").expect("there");
                    assert_eq!(&found.value[..], b"new", "page {page}, {count} keys");
                }
                sound += 1;
            }
        }
    }
    eprintln!("pages lost: {refused} refused, {sound} were not in use");
    assert!(refused > 10);
}

#[test]
fn the_sentence_names_file_and_remedy() {
    let dir = tempfile::tempdir().expect("directory");
    drop(fill(dir.path()));
    let data = dir.path().join("data.mdb");
    let mut file = fs::read(&data).expect("read");
    let branch = pages_of(&file)["branch"].last().copied().expect("some");
    for page in pages_of(&file)["branch"].clone() {
        file[page * PAGE + PAGE - 3] ^= 1;
    }
    fs::write(&data, file).expect("write");
    let error = open(dir.path()).map(drop).expect_err("refused").to_string();
    assert!(error.contains("data.mdb is damaged: page ") && error.contains("from a backup"), "{branch}: {error}");
    assert!(matches!(LmdbEngine::open(dir.path(), LmdbOptions::default()), Err(EngineError::Damaged { .. })));
}

/// A number of pages that no file has: the walk that looks for the damage must not believe it either.
#[test]
fn an_absurd_last_page_is_refused() {
    let dir = tempfile::tempdir().expect("directory");
    drop(fill(dir.path()));
    let data = dir.path().join("data.mdb");
    let file = fs::read(&data).expect("read");
    for bit in [20, 40, 54, 63] {
        let mut damaged = file.clone();
        for meta in [0, PAGE] {
            damaged[meta + 136 + bit / 8] |= 1 << (bit % 8);
        }
        fs::write(&data, damaged).expect("write");
        let error = open(dir.path()).map(drop).expect_err("refused");
        assert!(is_damage(&error), "bit {bit}: {error}");
    }
}
