//! What clients asked and heard, and whether one order of events explains it.
//!
//! etcd's answers carry a revision: the place in one common order that the answer claims for itself. So nothing has to be
//! searched for: the claimed order is checked. A history is linearizable if
//! - what each answer says is what the twin ([`Model`]) has at that place (puts and deletes with what was there before,
//!   compare-and-swap, reads of one key and of all), and an acknowledged write is in the log, once;
//! - the claimed places agree with time: whatever began after another request had ended comes at or after its place, and
//!   strictly after it if it changed something.
//!
//! Places tie only where a read or a write without effect stands behind the write of its revision, where any order of
//! theirs is the same. So a history that passes is linearizable, and one that is linearizable in another order than the
//! claimed one fails rightly: etcd promises the claimed one. The order is over all keys together, which is more than
//! linearizability of each key. A serializable read may be old, but must be a state that was.

use crate::model::{Heard, Model, Text};

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A write under this request id.
    Write(u64),
    /// A linearizable read of one key, or of all keys.
    Read(Option<Text>),
    /// A serializable one.
    Serializable(Option<Text>),
}

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a write: at which revision, and what. A revision of `None` claims no place but says that it is done.
    Written(Option<i64>, Option<Heard>),
    /// To a read: the revision, and the keys that were there with their values.
    Found(i64, Vec<(Text, Text)>),
}

/// A request's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Who asked.
    pub client: usize,
    /// What for.
    pub ask: Ask,
    /// When it was asked: a number of the simulation that grows with each event.
    pub began: u64,
    /// When it was answered, and what; `None`: never, so that it may have happened or not.
    pub end: Option<(u64, Answer)>,
}

/// Checks a history against the log that the cluster agreed on.
///
/// # Errors
/// The first request that cannot be explained, and why not.
pub fn check(ops: &[Op], model: &Model) -> Result<(), String> {
    let mut placed = Vec::new();
    for (number, op) in ops.iter().enumerate() {
        let place = look_up(op, model).map_err(|why| format!("request {number} of the history: {why}: {op:?}"))?;
        placed.extend(place.map(|place| (op, place, number)));
    }
    in_time(&placed)
}

/// The place of a request in the order, if it takes part in it: revision, and whether it changed something.
fn look_up(op: &Op, model: &Model) -> Result<Option<(i64, bool)>, String> {
    match (&op.ask, &op.end) {
        (Ask::Write(id), end) => {
            let Some(effect) = model.effect(*id) else {
                return if end.is_some() { Err("an acknowledged write is not in the log".into()) } else { Ok(None) };
            };
            if let Some((_, answer)) = end {
                let Answer::Written(revision, heard) = answer else { return Err("a read's answer to a write".into()) };
                if revision.is_some_and(|revision| revision != effect.revision) {
                    return Err(format!("it happened at revision {}, {effect:?}", effect.revision));
                }
                if heard.as_ref().is_some_and(|heard| *heard != effect.heard) {
                    return Err(format!("the answer should have been {:?}", effect.heard));
                }
            }
            Ok(Some((effect.revision, effect.changed)))
        }
        (Ask::Read(_) | Ask::Serializable(_), None) => Ok(None),
        (Ask::Read(key) | Ask::Serializable(key), Some((_, Answer::Found(revision, found)))) => {
            if *revision > model.revision {
                return Err(format!("revision {revision} never was"));
            }
            let there = match key {
                Some(key) => {
                    model.value_at(key, *revision).map(|value| (key.clone(), value.clone())).into_iter().collect()
                }
                None => model.state_at(*revision),
            };
            if there != *found {
                return Err(format!("at revision {revision} there was {there:?}"));
            }
            Ok(matches!(op.ask, Ask::Read(_)).then_some((*revision, false)))
        }
        (_, Some(_)) => Err("a write's answer to a read".into()),
    }
}

/// Places against time.
fn in_time(placed: &[(&Op, (i64, bool), usize)]) -> Result<(), String> {
    let mut begins: Vec<_> = placed.iter().collect();
    begins.sort_by_key(|(op, ..)| op.began);
    let mut ends: Vec<_> =
        placed.iter().filter_map(|(op, place, number)| Some((op.end.as_ref()?.0, place.0, *number))).collect();
    ends.sort_unstable();
    let mut ends = ends.into_iter().peekable();
    // The highest place among the requests that have ended.
    let mut floor = (0, 0);
    for (op, (revision, changed), number) in begins {
        while let Some((_, place, other)) = ends.next_if(|&(at, ..)| at < op.began) {
            floor = floor.max((place, other));
        }
        let (place, other) = floor;
        if *revision < place || (*changed && *revision == place) {
            return Err(format!(
                "request {number} at revision {revision} began after request {other} at revision {place} had ended: {op:?}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Answer, Ask, Op, check};
    use crate::model::{Heard, Model};
    use milepost_proto::etcdserverpb::internal_raft_request::Request;
    use milepost_proto::etcdserverpb::{DeleteRangeRequest, PutRequest};

    fn put(model: &mut Model, id: u64, key: &'static str, value: &'static str) {
        let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        model.request(id, &Request::Put(put)).expect("a put");
    }

    fn delete(model: &mut Model, id: u64, key: &'static str) {
        let delete = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
        model.request(id, &Request::DeleteRange(delete)).expect("a delete");
    }

    /// Revision 2: a=1, 3: a=2, 4: b=1, 5: a gone; then a delete without effect.
    fn log() -> Model {
        let mut model = Model::default();
        put(&mut model, 1, "a", "1");
        put(&mut model, 2, "a", "2");
        put(&mut model, 3, "b", "1");
        delete(&mut model, 4, "a");
        delete(&mut model, 5, "a");
        model
    }

    fn write(began: u64, ended: u64, id: u64, revision: i64, heard: Heard) -> Op {
        let end = Some((ended, Answer::Written(Some(revision), Some(heard))));
        Op { client: 0, ask: Ask::Write(id), began, end }
    }

    fn found(pairs: &[(&str, &str)], revision: i64) -> Answer {
        let pairs = pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()));
        Answer::Found(revision, pairs.collect())
    }

    fn read(began: u64, ended: u64, answer: Answer) -> Op {
        Op { client: 0, ask: Ask::Read(Some(b"a".to_vec())), began, end: Some((ended, answer)) }
    }

    fn refused(ops: &[Op], because: &str) {
        let why = check(ops, &log()).expect_err("a bad history");
        assert!(why.contains(because), "{why}");
    }

    #[test]
    fn a_history_that_was() {
        let ops = [
            write(0, 10, 1, 2, Heard::Put(None)),
            read(5, 12, found(&[("a", "1")], 2)),
            read(6, 7, found(&[], 1)),
            write(11, 20, 2, 3, Heard::Put(Some(b"1".to_vec()))),
            Op { client: 1, ask: Ask::Write(3), began: 21, end: None },
            Op { client: 1, ask: Ask::Write(99), began: 21, end: None },
            write(22, 30, 4, 5, Heard::Deleted(1)),
            write(31, 40, 5, 5, Heard::Deleted(0)),
            read(32, 33, found(&[], 5)),
            Op {
                client: 1,
                ask: Ask::Serializable(None),
                began: 50,
                end: Some((51, found(&[("a", "2"), ("b", "1")], 4))),
            },
        ];
        check(&ops, &log()).expect("linearizable");
    }

    #[test]
    fn a_stale_read() {
        let ops = [write(0, 10, 2, 3, Heard::Put(Some(b"1".to_vec()))), read(11, 12, found(&[("a", "1")], 2))];
        refused(&ops, "had ended");
        // It may be old while the write is under way, and if it says so.
        let ops = [write(0, 12, 2, 3, Heard::Put(Some(b"1".to_vec()))), read(11, 12, found(&[("a", "1")], 2))];
        check(&ops, &log()).expect("concurrent");
    }

    #[test]
    fn a_read_that_goes_back_behind_another() {
        let ops = [read(0, 10, found(&[("a", "2")], 3)), read(11, 12, found(&[("a", "1")], 2))];
        refused(&ops, "had ended");
    }

    #[test]
    fn a_lost_write() {
        refused(&[write(0, 10, 99, 3, Heard::Put(None))], "not in the log");
    }

    #[test]
    fn a_write_at_another_place_or_with_another_answer() {
        refused(&[write(0, 10, 1, 3, Heard::Put(None))], "it happened at revision 2");
        refused(&[write(0, 10, 1, 2, Heard::Put(Some(b"0".to_vec())))], "should have been");
        refused(&[write(0, 10, 4, 5, Heard::Deleted(0))], "should have been");
        refused(&[write(0, 10, 2, 3, Heard::Kept(Some(b"1".to_vec())))], "should have been");
    }

    #[test]
    fn a_write_that_happened_before_it_was_asked_for() {
        let ops = [write(0, 10, 3, 4, Heard::Put(None)), write(11, 20, 2, 3, Heard::Put(Some(b"1".to_vec())))];
        refused(&ops, "had ended");
        // Also one that nobody heard of.
        let ops = [write(0, 10, 3, 4, Heard::Put(None)), Op { client: 1, ask: Ask::Write(2), began: 11, end: None }];
        refused(&ops, "had ended");
        // Also two at one place.
        let ops = [read(0, 10, found(&[("a", "2")], 3)), write(11, 20, 2, 3, Heard::Put(Some(b"1".to_vec())))];
        refused(&ops, "had ended");
    }

    #[test]
    fn a_value_that_was_not_there() {
        refused(&[read(0, 1, found(&[("a", "1")], 3))], "there was");
        refused(&[read(0, 1, found(&[], 3))], "there was");
        refused(&[read(0, 1, found(&[("a", "2")], 5))], "there was");
        refused(&[read(0, 1, found(&[("a", "2")], 6))], "never was");
        let all = Op { client: 0, ask: Ask::Serializable(None), began: 0, end: Some((1, found(&[("a", "2")], 4))) };
        refused(&[all], "there was");
    }

    #[test]
    fn a_write_that_happened_twice() {
        let mut model = log();
        let put = PutRequest { key: "a".into(), ..PutRequest::default() };
        assert!(model.request(1, &Request::Put(put)).is_err_and(|why| why.contains("twice")));
    }
}
