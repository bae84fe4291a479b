//! What a client may send how often.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::walk::{ACK, DATA, END_STREAM, HEADERS, Head, PING, RST_STREAM, SETTINGS};

/// A client that pings without calls is taken to keep nothing alive before this has passed. Source: grpc-go
/// `defaultPingTimeout`.
const IDLE_PING_EVERY: Duration = Duration::from_secs(2 * 3600);
/// Pings that come too early before the client is sent away. Source: grpc-go `maxPingStrikes`.
const STRIKES_MAX: u32 = 2;

/// Pings where etcd does not enforce a distance: probes of bandwidth come a few per second.
const PINGS: Allowance = Allowance::new(1000, 10);
/// Settings are sent once, changed rarely.
const SETTINGS_CHANGES: Allowance = Allowance::new(100, 1);
/// Calls that are given up: a program with thousands of deadlines at once is no attack.
const RESETS: Allowance = Allowance::new(20_000, 2_000);
/// Frames of data without data.
const EMPTY_DATA: Allowance = Allowance::new(10_000, 100);

/// Why a client is sent away; the debug data of the GOAWAY.
pub(super) type Verdict = &'static str;

/// So many at once, and so many more each second.
#[derive(Debug)]
struct Allowance {
    most: u32,
    per_second: u32,
    left: u32,
    /// When `left` was last filled up; `None`: never used.
    filled: Option<Instant>,
}

impl Allowance {
    const fn new(most: u32, per_second: u32) -> Self {
        Self { most, per_second, left: most, filled: None }
    }

    /// Takes one; false if there is none.
    fn take(&mut self, now: Instant) -> bool {
        let since = *self.filled.get_or_insert(now);
        let seconds = now.saturating_duration_since(since).as_secs();
        if seconds > 0 {
            let more = u64::from(self.per_second).saturating_mul(seconds);
            self.left = u32::try_from(more).map_or(self.most, |more| self.left.saturating_add(more).min(self.most));
            self.filled = Some(now);
        }
        self.left.checked_sub(1).inspect(|left| self.left = *left).is_some()
    }
}

/// What one client has done so far.
#[derive(Debug)]
pub(super) struct Rules {
    /// Least time between two pings; `None`: not enforced.
    ping_distance: Option<Duration>,
    last_ping: Option<Instant>,
    strikes: u32,
    /// We have sent something since the last ping: the client may measure how fast.
    has_answered: bool,
    /// Numbers of the calls under way. A client may have any number of them, and end them in any order.
    calls: HashSet<u32>,
    newest: u32,
    pings: Allowance,
    settings: Allowance,
    resets: Allowance,
    empty_data: Allowance,
}

impl Rules {
    pub(super) fn new(ping_distance: Option<Duration>) -> Self {
        Self {
            ping_distance,
            last_ping: None,
            strikes: 0,
            has_answered: false,
            calls: HashSet::new(),
            newest: 0,
            pings: PINGS,
            settings: SETTINGS_CHANGES,
            resets: RESETS,
            empty_data: EMPTY_DATA,
        }
    }

    /// The client sent this.
    pub(super) fn received(&mut self, head: Head) -> Option<Verdict> {
        match (head.kind, head.flags) {
            (HEADERS, _) if head.stream > self.newest => {
                self.newest = head.stream;
                self.calls.insert(head.stream);
                None
            }
            (PING, flags) if flags & ACK == 0 => self.pinged(Instant::now()),
            (SETTINGS, flags) if flags & ACK == 0 => refused(&mut self.settings, "too_many_settings"),
            (RST_STREAM, _) => {
                self.calls.remove(&head.stream);
                refused(&mut self.resets, "too_many_resets")
            }
            (DATA, flags) if head.payload == 0 && flags & END_STREAM == 0 => {
                refused(&mut self.empty_data, "too_many_empty_frames")
            }
            _ => None,
        }
    }

    /// We sent this.
    pub(super) fn sent(&mut self, head: Head) {
        match head.kind {
            DATA | HEADERS => {
                self.has_answered = true;
                if head.flags & END_STREAM != 0 {
                    self.calls.remove(&head.stream);
                }
            }
            RST_STREAM => {
                self.calls.remove(&head.stream);
            }
            _ => {}
        }
    }

    /// Source: grpc-go `http2Server.handlePing`.
    fn pinged(&mut self, now: Instant) -> Option<Verdict> {
        const TOO_MANY: Verdict = "too_many_pings";
        let Some(distance) = self.ping_distance else { return (!self.pings.take(now)).then_some(TOO_MANY) };
        let last = self.last_ping.replace(now);
        if std::mem::take(&mut self.has_answered) {
            self.strikes = 0;
            return None;
        }
        let distance = if self.calls.is_empty() { IDLE_PING_EVERY } else { distance };
        if last.is_some_and(|last| now < last + distance) {
            self.strikes += 1;
        }
        (self.strikes > STRIKES_MAX).then_some(TOO_MANY)
    }
}

fn refused(allowance: &mut Allowance, verdict: Verdict) -> Option<Verdict> {
    (!allowance.take(Instant::now())).then_some(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn head(kind: u8, flags: u8, stream: u32) -> Head {
        Head { payload: 1, kind, flags, stream }
    }

    #[test]
    fn pings_are_judged_as_in_grpc_go() {
        let start = Instant::now();
        let mut rules = Rules::new(Some(5 * SECOND));
        // Without calls every ping is too early.
        assert_eq!([0, 10, 20].map(|at| rules.pinged(start + at * SECOND)), [None; 3]);
        assert_eq!(rules.pinged(start + 30 * SECOND), Some("too_many_pings"));
        // With a call the distance counts.
        let mut rules = Rules::new(Some(5 * SECOND));
        assert_eq!(rules.received(head(HEADERS, 0, 1)), None);
        assert!((0..10).all(|n| rules.pinged(start + n * 5 * SECOND).is_none()));
        let soon = start + 46 * SECOND;
        assert_eq!([soon; 3].map(|at| rules.pinged(at)), [None, None, Some("too_many_pings")]);
        // What we send wipes the slate.
        let mut rules = Rules::new(Some(5 * SECOND));
        for _ in 0..100 {
            rules.sent(head(DATA, 0, 1));
            assert_eq!(rules.pinged(start), None);
        }
        // The end of a call is the end of its right to ping.
        assert_eq!(rules.received(head(HEADERS, 0, 3)), None);
        rules.sent(head(HEADERS, END_STREAM, 3));
        assert!(rules.calls.is_empty());
    }

    /// In any order; a list would take a minute to be emptied from its front.
    #[test]
    fn very_many_calls_end() {
        const CALLS: u32 = 1_000_000;
        let mut rules = Rules::new(None);
        let streams = || (0..CALLS).map(|call| 2 * call + 1);
        assert!(streams().all(|stream| rules.received(head(HEADERS, 0, stream)).is_none()));
        assert_eq!(rules.calls.len(), CALLS as usize);
        streams().for_each(|stream| rules.sent(head(HEADERS, END_STREAM, stream)));
        assert!(rules.calls.is_empty());
    }

    #[test]
    fn allowances_fill_up_again() {
        let start = Instant::now();
        let mut allowance = Allowance::new(3, 2);
        assert_eq!([start; 4].map(|at| allowance.take(at)), [true, true, true, false]);
        assert_eq!([start + SECOND; 3].map(|at| allowance.take(at)), [true, true, false]);
        assert_eq!([start + 100 * SECOND; 4].map(|at| allowance.take(at)), [true, true, true, false]);
    }

    #[test]
    fn floods_end() {
        for (frame, verdict) in [
            (head(PING, 0, 0), "too_many_pings"),
            (head(SETTINGS, 0, 0), "too_many_settings"),
            (head(RST_STREAM, 0, 1), "too_many_resets"),
            (Head { payload: 0, ..head(DATA, 0, 1) }, "too_many_empty_frames"),
        ] {
            let mut rules = Rules::new(None);
            let found = (0..100_000).find_map(|_| rules.received(frame));
            assert_eq!(found, Some(verdict));
        }
        let mut rules = Rules::new(None);
        let acknowledged = [head(PING, ACK, 0), head(SETTINGS, ACK, 0)];
        assert!((0..100_000).all(|n| rules.received(acknowledged[n % 2]).is_none()));
    }
}
