//! Members with made-up hashes.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::sync::Mutex;

use milepost_node::log::Level;

use super::*;

/// Member 1 asks members 2 and up. What they hold differs from `from` to `to` (exclusive).
struct Made {
    newest: Cell<i64>,
    compacted: Cell<i64>,
    kept: RefCell<Vec<HashKv>>,
    others: RefCell<Vec<(u64, Holds)>>,
    raised: RefCell<Vec<u64>>,
    asked: RefCell<Vec<i64>>,
    settled: Cell<bool>,
}

#[derive(Clone)]
enum Holds {
    Same,
    /// Other data at these revisions.
    Other(Vec<i64>),
    /// Other data everywhere, the same for all of this number.
    Always(u32),
    /// Other data, until it settles.
    Soon,
    CompactedAt(i64),
    Ahead,
    Not(Unknown),
}

fn hash(hash_revision: i64, compact_revision: i64) -> HashKv {
    HashKv { hash: 100 + u32::try_from(hash_revision).unwrap(), compact_revision, hash_revision }
}

impl Made {
    fn new(others: &[(u64, Holds)]) -> Self {
        Self {
            newest: Cell::new(10),
            compacted: Cell::new(4),
            kept: RefCell::new(vec![hash(4, 2), hash(2, -1)]),
            others: RefCell::new(others.to_vec()),
            raised: RefCell::default(),
            asked: RefCell::default(),
            settled: Cell::new(false),
        }
    }

    fn at(&self, revision: i64) -> HashKv {
        let kept = self.kept.borrow().iter().find(|kept| kept.hash_revision == revision).copied();
        kept.unwrap_or_else(|| hash(if revision == 0 { self.newest.get() } else { revision }, self.compacted.get()))
    }
}

impl Members for &Made {
    fn own_id(&self) -> MemberId {
        MemberId(1)
    }

    fn own(&self, revision: i64) -> Result<(HashKv, i64), String> {
        Ok((self.at(revision), self.newest.get()))
    }

    fn compactions(&self) -> Vec<HashKv> {
        self.kept.borrow().clone()
    }

    fn others(&self, revision: i64) -> Vec<Theirs> {
        self.asked.borrow_mut().push(revision);
        let right = self.at(revision);
        let answer = |(id, holds): &(u64, Holds)| {
            let wrong = |by: u32| (HashKv { hash: right.hash + 1000 * by, ..right }, self.newest.get());
            let hash = match holds {
                Holds::Other(revisions) if revisions.contains(&revision) => Ok(wrong(1)),
                Holds::Same | Holds::Other(_) => Ok((right, self.newest.get())),
                Holds::Always(number) => Ok(wrong(*number)),
                Holds::Soon => Ok(wrong(1)),
                Holds::CompactedAt(compact_revision) => {
                    Ok((HashKv { hash: 7, compact_revision: *compact_revision, ..right }, self.newest.get()))
                }
                Holds::Ahead => Ok((right, self.newest.get() + 1)),
                Holds::Not(why) => Err(why.clone()),
            };
            Theirs { member: MemberId(*id), urls: vec![format!("http://m{id}:2380")], hash }
        };
        self.others.borrow().iter().map(answer).collect()
    }

    fn read_barrier(&self) -> Result<(), String> {
        Ok(())
    }

    fn raise(&self, member: MemberId) {
        self.raised.borrow_mut().push(member.0);
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(7)
    }

    fn settle(&self) {
        self.settled.set(true);
        self.others.borrow_mut().iter_mut().filter(|(_, holds)| matches!(holds, Holds::Soon)).for_each(|(_, holds)| {
            *holds = Holds::Same;
        });
    }
}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Log for Lines {
    fn log_at(&self, _: Level, _: Option<&str>, _: &'static Location<'static>, msg: &str, _: &[(&str, Value)]) {
        self.0.lock().unwrap().push(msg.to_owned());
    }
}

impl Lines {
    fn has(&self, text: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.contains(text))
    }
}

#[test]
fn a_restart_is_refused_beside_other_data_only() {
    let silent = || Holds::Not(Unknown::Silent("dial tcp: connection refused".into()));
    let fine = [
        (2, Holds::Same),
        (3, Holds::CompactedAt(9)),
        (4, Holds::Not(Unknown::Future)),
        (5, Holds::Not(Unknown::Compacted)),
        (6, Holds::Not(Unknown::OtherCluster)),
        (7, silent()),
    ];
    let (made, log) = (Made::new(&fine), Lines::default());
    assert_eq!(Checker::new(&made, &log).initial(), Ok(()));
    for text in [
        "starting initial corruption check",
        "found different compact revision values from remote peer",
        "cannot fetch hash from slow remote peer",
        "cannot fetch hash from remote peer; local member is behind",
        "cluster ID mismatch",
        "initial corruption checking passed; no corruption",
    ] {
        assert!(log.has(text), "{text}: {:?}", log.0);
    }
    let everybody_away = Made::new(&[(2, silent()), (3, silent())]);
    assert_eq!(Checker::new(&everybody_away, &log).initial(), Ok(()));
    assert!(!everybody_away.settled.get());
    let settling = Made::new(&[(2, Holds::Soon)]);
    assert_eq!(Checker::new(&settling, &log).initial(), Ok(()));
    assert!(settling.settled.get());
    let made = Made::new(&[(2, Holds::Same), (3, Holds::Other(vec![10]))]);
    let why = Checker::new(&made, &log).initial().unwrap_err();
    assert_eq!(why, "1 found data inconsistency with peers");
    assert!(log.has("found different hash values from remote peer") && made.raised.borrow().is_empty());
}

#[test]
fn what_differs_once_raises_no_alarm() {
    for (holds, raised) in [
        (Holds::Same, &[][..]),
        (Holds::Other(vec![10]), &[]),
        (Holds::Other(vec![9, 10]), &[2]),
        (Holds::Always(1), &[2]),
        (Holds::Ahead, &[2]),
        (Holds::CompactedAt(5), &[2]),
        (Holds::CompactedAt(3), &[]),
        (Holds::Not(Unknown::Future), &[]),
    ] {
        let (made, log) = (Made::new(&[(2, holds), (3, Holds::Same)]), Lines::default());
        Checker::new(&made, &log).periodic().unwrap();
        assert_eq!(*made.raised.borrow(), raised);
        assert!(log.has("finished peer corruption check"));
    }
    // Nothing else is left to compare: the next round may.
    let (made, log) = (Made::new(&[(2, Holds::Always(1))]), Lines::default());
    made.compacted.set(9);
    made.kept.borrow_mut().clear();
    Checker::new(&made, &log).periodic().unwrap();
    assert!(made.raised.borrow().is_empty() && log.has("comparing again"));
}

#[test]
fn compactions_are_compared_once() {
    let (made, log) = (Made::new(&[(2, Holds::Same), (3, Holds::Same)]), Lines::default());
    let mut checker = Checker::new(&made, &log);
    checker.compactions();
    checker.compactions();
    assert_eq!(*made.asked.borrow(), [4], "the newest is the same everywhere");
    made.kept.borrow_mut().insert(0, hash(8, 4));
    made.others.borrow_mut()[1].1 = Holds::Not(Unknown::Silent("away".into()));
    checker.compactions();
    checker.compactions();
    assert_eq!(*made.asked.borrow(), [4, 8, 8], "until everybody has answered");
    assert!(log.has("skipped revision in compaction hash check; was not able to check all peers"));
    assert!(made.raised.borrow().is_empty());
}

#[test]
fn the_minority_is_wrong_if_there_is_one() {
    let always = |id, number| (id, Holds::Always(number));
    for (others, raised) in [
        // The leader's data count with the majority only.
        (vec![always(2, 1), (3, Holds::Same)], &[2][..]),
        (vec![always(2, 1), always(3, 1)], &[1]),
        (vec![always(2, 1), always(3, 2)], &[0]),
        (vec![always(2, 1)], &[0]),
        (vec![(2, Holds::Other(vec![4])), (3, Holds::Same)], &[]),
    ] {
        let (made, log) = (Made::new(&others), Lines::default());
        Checker::new(&made, &log).compactions();
        assert_eq!(*made.raised.borrow(), raised);
        assert!(log.has("Detected compaction hash mismatch") && log.has("comparing again"));
    }
}

/// Each compaction is up to the newest revision, so that there is no other one to compare.
#[test]
fn an_earlier_compaction_confirms_a_later_one() {
    let round = |made: &Made, checker: &mut Checker<'_, &Made>, revision: i64, holds: Holds| {
        made.newest.set(revision);
        made.compacted.set(revision - 1);
        *made.kept.borrow_mut() = vec![hash(revision, revision - 1)];
        made.others.borrow_mut()[0].1 = holds;
        checker.compactions();
    };
    let (made, log) = (Made::new(&[(2, Holds::Same), (3, Holds::Same)]), Lines::default());
    let mut checker = Checker::new(&made, &log);
    for revision in [11, 11] {
        round(&made, &mut checker, revision, Holds::Always(1));
        assert!(made.raised.borrow().is_empty(), "one revision alone");
    }
    round(&made, &mut checker, 12, Holds::Same);
    round(&made, &mut checker, 13, Holds::Always(1));
    assert!(made.raised.borrow().is_empty(), "it was the same in between");
    round(&made, &mut checker, 14, Holds::Always(1));
    assert_eq!(*made.raised.borrow(), [2]);
}
