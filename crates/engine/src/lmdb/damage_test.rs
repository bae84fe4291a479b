//! Damage that comes while a store is open, and notes that do not belong to their meta page.

use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::*;

/// Enough for branches above branches.
const KEYS: u32 = 6000;

fn key(number: u32) -> Vec<u8> {
    format!("{number:08}").into_bytes().repeat(24)
}

/// Every value names its key.
fn names_its_key(key: &[u8], value: &[u8]) -> bool {
    value.ends_with(key)
}

fn options() -> LmdbOptions {
    LmdbOptions { map_size: 1 << 28, check: Some(names_its_key), ..LmdbOptions::default() }
}

struct Store {
    dir: TempDir,
    engine: LmdbEngine,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = LmdbEngine::open(dir.path(), options()).unwrap();
        let store = Self { dir, engine };
        store.put(0..KEYS).unwrap();
        store
    }

    fn put(&self, keys: std::ops::Range<u32>) -> Result<(), EngineError> {
        let mut txn = self.engine.write()?;
        for number in keys {
            txn.put(Table::Current, &key(number), &key(number))?;
        }
        txn.commit()
    }

    fn read_all(&self) -> Result<usize, EngineError> {
        let txn = self.engine.read()?;
        let mut cursor = txn.scan(Table::Current, Bound::Unbounded, Bound::Unbounded)?;
        let mut count = 0;
        while cursor.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn file(&self) -> File {
        file(&self.dir)
    }

    /// Pages on the way to a key, from the root of its table to its leaf.
    fn way(&self, number: u32) -> Vec<u64> {
        let state = *self.engine.newest.read();
        let (pages, tree) = (self.engine.pages(state.last_page), state.tables[Table::Current.slot()]);
        let mut way = vec![tree.root];
        for _ in 1..tree.depth {
            let branch = pages.page(*way.last().unwrap(), page::Kind::Branch).unwrap();
            way.push(branch.child(branch.way_to(&key(number)).unwrap()).unwrap());
        }
        way
    }

    /// Turns a bit over in the last byte of page `number`, which is of the first entry's key or value.
    fn damage(&self, number: u64) {
        let at = (number + 1) * self.engine.page_size as u64 - 1;
        let mut byte = [0];
        self.file().read_exact_at(&mut byte, at).unwrap();
        self.file().write_all_at(&[byte[0] ^ 1], at).unwrap();
    }

    fn close(self) -> TempDir {
        self.dir
    }
}

fn file(dir: &TempDir) -> File {
    OpenOptions::new().read(true).write(true).open(dir.path().join(DATA_FILE)).unwrap()
}

fn damaged_page(result: Result<(), EngineError>) -> u64 {
    match result {
        Err(EngineError::Damaged { page, what, .. }) => {
            assert!(what.contains("has changed since it was written"), "{what}");
            page
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_damaged_branch_is_not_copied() {
    let depth = Store::new().way(0).len();
    assert!(depth >= 4, "branches above branches above leaves, not {depth} levels");
    for level in 0..depth - 1 {
        let store = Store::new();
        let branch = store.way(KEYS / 2)[level];
        store.damage(branch);
        assert_eq!(damaged_page(store.put(KEYS / 2..KEYS / 2 + 1)), branch, "level {level}");
        let mut txn = store.engine.write().unwrap();
        let deleted = txn.delete(Table::Current, &key(KEYS / 2)).map(drop);
        assert_eq!(damaged_page(deleted), branch, "level {level}");
    }
}

#[test]
fn no_note_vouches_for_a_damaged_branch() {
    let store = Store::new();
    let (first, last) = (store.way(0), store.way(KEYS - 1));
    // Beside the way that the change takes.
    let branch = last[1];
    assert_ne!(first[1], branch);
    store.damage(branch);
    assert_eq!(damaged_page(store.put(0..1)), branch);
    // The commit has happened, and nothing vouches for it: the next start reads every page.
    let dir = store.close();
    assert!(LmdbEngine::open(dir.path(), options()).is_err(), "its keys do not lie where the branch says");

    // One that lies above leaves keeps the checksum that it had.
    let store = Store::new();
    let way = store.way(KEYS - 1);
    let branch = way[way.len() - 2];
    assert_ne!(store.way(0)[way.len() - 2], branch);
    store.damage(branch);
    store.put(0..1).unwrap();
    let dir = store.close();
    assert!(LmdbEngine::open(dir.path(), options()).is_err());
}

#[test]
fn lists_are_compared_before_they_are_trusted() {
    let store = Store::new();
    // Frees pages.
    store.put(0..KEYS).unwrap();
    let (meta, _) = store.engine.meta(store.engine.newest.read().transaction % 2).unwrap();
    assert!(!meta.free.is_empty());
    for root in [meta.free.root, meta.main.root] {
        store.damage(root);
        assert_eq!(damaged_page(store.engine.write().map(drop)), root);
        store.damage(root);
        store.engine.write().map(drop).unwrap();
    }
}

#[test]
fn a_leaf_in_the_place_of_another_is_looked_at() {
    let store = Store::new();
    assert_eq!(store.read_all().unwrap(), KEYS as usize);
    let seen: Vec<u64> = (0..KEYS).map(|number| *store.way(number).last().unwrap()).collect();
    assert!(seen.iter().all(|page| store.engine.seen.has(*page)));
    // Pages that one commit frees are used again by the second after it, some of them for leaves.
    let reused = (0..9).find_map(|_| {
        store.put(0..KEYS).unwrap();
        (0..KEYS).find(|number| seen.contains(store.way(*number).last().unwrap()))
    });
    let reused = reused.expect("a leaf lies where another lay");
    let leaf = *store.way(reused).last().unwrap();
    assert!(!store.engine.seen.has(leaf), "it has not been looked at in its new life");
    store.damage(leaf);
    assert!(store.read_all().is_err());
}

#[test]
fn the_note_of_a_commit_that_never_was_is_taken_away() {
    let store = Store::new();
    let (transaction, size) = (store.engine.newest.read().transaction, store.engine.page_size);
    let dir = store.close();
    // What a power cut leaves: of the page that the next commit wrote, the half with the note.
    let orphan = Note { transaction: transaction + 1, checksum: 7 };
    orphan.write(&file(&dir), size).unwrap();
    drop(LmdbEngine::open(dir.path(), options()).unwrap());
    let mut page = vec![0; size];
    file(&dir).read_exact_at(&mut page, (transaction + 1) % 2 * size as u64).unwrap();
    assert_eq!(Note::parse(&page), None);
    // The one that counts is still there.
    file(&dir).read_exact_at(&mut page, transaction % 2 * size as u64).unwrap();
    assert_eq!(Note::parse(&page).map(|note| note.transaction), Some(transaction));
}

#[test]
fn an_old_note_says_nothing_and_one_from_afar_that_something_is_gone() {
    for (distance, opens) in [(-2, true), (-4, true), (-6, true), (4, false)] {
        let store = Store::new();
        store.put(0..1).unwrap();
        store.put(0..1).unwrap();
        store.put(0..1).unwrap();
        store.put(0..1).unwrap();
        let (transaction, size) = (store.engine.newest.read().transaction, store.engine.page_size);
        let dir = store.close();
        let note = Note { transaction: transaction.checked_add_signed(distance).unwrap(), checksum: 7 };
        note.write(&file(&dir), size).unwrap();
        let opened = LmdbEngine::open(dir.path(), options()).map(drop);
        assert_eq!(opened.is_ok(), opens, "{distance}: {opened:?}");
    }
}

#[test]
fn many_keys_at_once_are_found_as_one_by_one() {
    let store = Store::new();
    // Neighbours, the same twice, across the ends of branches, far apart and back, and keys that are not there.
    let near = (0..KEYS).flat_map(|number| [key(number), key(number / 2 * 2), [&key(number)[..], b"x"].concat()]);
    let far = (0..KEYS).map(|number| key(number * 2477 % (KEYS + 50)));
    let asked: Vec<Vec<u8>> = near.chain(far).collect();
    let each = |txn: &dyn ReadTxn, keys: &[Vec<u8>]| {
        let (keys, mut found) = (keys.iter().map(|key| &key[..]).collect::<Vec<_>>(), Vec::new());
        txn.get_each(Table::Current, &keys, &mut found)?;
        Ok::<_, EngineError>(found.into_iter().map(|value| value.map(<[u8]>::to_vec)).collect::<Vec<_>>())
    };
    let one = |txn: &dyn ReadTxn, key: &[u8]| txn.get(Table::Current, key).map(|value| value.map(<[u8]>::to_vec));
    let txn = store.engine.read().unwrap();
    for keys in asked.chunks(23) {
        let expected: Vec<_> = keys.iter().map(|key| one(&*txn, key).unwrap()).collect();
        assert_eq!(each(&*txn, keys).unwrap(), expected);
    }
    drop(txn);

    // A leaf with a bad record serves the others, and tells of no absence; nor do many at once.
    let store = Store::new();
    store.damage(*store.way(KEYS / 2).last().unwrap());
    let txn = store.engine.read().unwrap();
    let mut refused = 0;
    for key in &asked {
        match (one(&*txn, key), each(&*txn, std::slice::from_ref(key))) {
            (Ok(one), Ok(each)) => assert_eq!(each, [one]),
            (Err(_), Err(_)) => refused += 1,
            (one, each) => panic!("{one:?} and {each:?}"),
        }
    }
    assert!(refused > 0);
}
