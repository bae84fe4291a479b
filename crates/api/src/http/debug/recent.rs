//! `/debug/requests`: calls under way and the last ones, by method. Kept only when the log is at `debug`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::grpc::Method;
use crate::status::Code;

/// Calls that are remembered for each method and speed. Source: as many as golang.org/x/net/trace.
const KEPT: usize = 10;

/// Slower calls than each of these are kept for themselves, so that fast ones do not drive them out.
const SPEEDS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(500), Duration::from_secs(10)];

/// Calls of all doors.
#[derive(Default)]
pub(crate) struct Recent {
    // Held for an insertion, or while the page is written; never across an await.
    methods: Mutex<BTreeMap<&'static str, Calls>>,
}

#[derive(Default)]
struct Calls {
    count: u64,
    /// By number.
    active: BTreeMap<u64, Instant>,
    /// The last ones, for each of [`SPEEDS`].
    done: [VecDeque<Done>; SPEEDS.len()],
    failed: VecDeque<Done>,
}

#[derive(Clone, Copy)]
struct Done {
    ended: Instant,
    took: Duration,
    code: Code,
}

impl Recent {
    /// A call begins; the number is for [`Recent::end`].
    pub(crate) fn begin(&self, method: Method, now: Instant) -> u64 {
        let mut methods = self.methods.lock();
        let calls = methods.entry(method.names().path).or_default();
        calls.count += 1;
        calls.active.insert(calls.count, now);
        calls.count
    }

    /// The call has ended.
    pub(crate) fn end(&self, method: Method, number: u64, now: Instant, code: Code) {
        let mut methods = self.methods.lock();
        let calls = methods.entry(method.names().path).or_default();
        let Some(began) = calls.active.remove(&number) else { return };
        let done = Done { ended: now, took: now - began, code };
        let speed = SPEEDS.iter().rposition(|least| done.took >= *least).unwrap_or(0);
        keep(&mut calls.done[speed], done);
        if code != Code::Ok {
            keep(&mut calls.failed, done);
        }
    }

    /// The page, in HTML.
    pub(crate) fn render(&self) -> String {
        let (methods, now) = (self.methods.lock(), Instant::now());
        let mut text = String::from("<html>\n<head><title>/debug/requests</title></head>\n<body>\n<pre>\n");
        for (path, calls) in &*methods {
            line(&mut text, format_args!("<b>{path}</b>  {} calls, {} active", calls.count, calls.active.len()));
            for began in calls.active.values().take(KEPT) {
                line(&mut text, format_args!("  active for {:?}", now - *began));
            }
            for (least, done) in SPEEDS.iter().zip(&calls.done).filter(|(_, done)| !done.is_empty()) {
                list(&mut text, format_args!("took {least:?} or more"), done, now);
            }
            if !calls.failed.is_empty() {
                list(&mut text, format_args!("failed"), &calls.failed, now);
            }
        }
        text + "</pre>\n</body>\n</html>\n"
    }
}

fn keep(list: &mut VecDeque<Done>, done: Done) {
    if list.len() == KEPT {
        list.pop_front();
    }
    list.push_back(done);
}

fn list(text: &mut String, title: std::fmt::Arguments<'_>, calls: &VecDeque<Done>, now: Instant) {
    line(text, format_args!("  {title}:"));
    for done in calls.iter().rev() {
        line(text, format_args!("    {:?} ago  {}  took {:?}", now - done.ended, done.code.name(), done.took));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_failed_and_open_calls_stay_in_sight() {
        let (recent, start) = (Recent::default(), Instant::now());
        let call = |took: u64, code| {
            let number = recent.begin(Method::Put, start);
            recent.end(Method::Put, number, start + Duration::from_millis(took), code);
        };
        call(70, Code::Ok);
        call(3, Code::InvalidArgument);
        (0..50).for_each(|_| call(1, Code::Ok));
        recent.begin(Method::Watch, start);
        let page = recent.render();
        for part in [
            "<b>/etcdserverpb.KV/Put</b>  52 calls, 0 active",
            "<b>/etcdserverpb.Watch/Watch</b>  1 calls, 1 active",
            "took 50ms or more:\n",
            "OK  took 70ms",
            "failed:\n",
            "InvalidArgument  took 3ms",
        ] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        assert_eq!(page.matches("took 1ms").count(), KEPT);
    }
}
