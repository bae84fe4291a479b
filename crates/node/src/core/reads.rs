//! Linearizable reads: who waits, and for which confirmation.
//!
//! All reads that wait share one request to the leader. While it is under way, new ones gather for the next. A request may
//! be lost (the crate drops it while a leader has not committed in its term; the network drops anything), so it is
//! repeated, each time under a new number: a leader answers one number once.

/// Ticks after which an unanswered request is repeated: 500 ms at etcd's default of 100 ms per tick.
const RESEND_TICKS: u64 = 5;

/// See the module.
#[derive(Debug)]
pub struct Reads {
    /// Number of the next request.
    next_context: u64,
    /// Newest batch that asked.
    asked: u64,
    /// Newest batch covered by the request under way; equal to `confirmed` when there is none.
    sent: u64,
    /// Newest batch that was confirmed.
    confirmed: u64,
    /// First number used for the batch under way: any answer from it on counts.
    first_context: u64,
    /// When the request was last sent.
    sent_at: u64,
    /// Requests that were repeated because time went by.
    resent: u64,
}

impl Reads {
    pub fn new(first_context: u64) -> Self {
        Self { next_context: first_context, asked: 0, sent: 0, confirmed: 0, first_context, sent_at: 0, resent: 0 }
    }

    /// A batch waits from now on; true if its request is to be sent.
    pub fn ask(&mut self, batch: u64) -> bool {
        self.asked = self.asked.max(batch);
        self.start_next()
    }

    /// Starts the next request if none is under way and somebody waits; true if it is to be sent.
    pub fn start_next(&mut self) -> bool {
        if self.sent > self.confirmed || self.asked == self.sent {
            return false;
        }
        self.sent = self.asked;
        self.first_context = self.next_context;
        true
    }

    /// Is a request under way?
    pub fn is_waiting(&self) -> bool {
        self.sent > self.confirmed
    }

    /// The number to send the request under.
    pub fn next_context(&mut self, now: u64) -> u64 {
        self.sent_at = now;
        self.next_context += 1;
        self.next_context - 1
    }

    /// An answer; returns the newest batch that it confirms.
    pub fn confirm(&mut self, context: u64) -> Option<u64> {
        if !self.is_waiting() || !(self.first_context..self.next_context).contains(&context) {
            return None;
        }
        self.confirmed = self.sent;
        Some(self.confirmed)
    }

    /// True if the request is to be repeated.
    pub fn tick(&mut self, now: u64) -> bool {
        let late = self.is_waiting() && now >= self.sent_at + RESEND_TICKS;
        self.resent += u64::from(late);
        late
    }

    /// Requests repeated so far.
    pub fn resent(&self) -> u64 {
        self.resent
    }
}

#[cfg(test)]
mod tests {
    use super::{RESEND_TICKS, Reads};

    #[test]
    fn one_request_for_all_that_wait() {
        let mut reads = Reads::new(100);
        assert!(reads.ask(1));
        assert_eq!(reads.next_context(0), 100);
        assert!(!reads.ask(2) && !reads.ask(3), "they gather");
        assert!(!reads.tick(RESEND_TICKS - 1) && reads.tick(RESEND_TICKS));
        assert_eq!(reads.next_context(RESEND_TICKS), 101);
        assert_eq!(reads.confirm(99), None);
        assert_eq!(reads.confirm(100), Some(1), "an answer to the first try is as good");
        assert_eq!(reads.confirm(101), None);
        assert!(reads.start_next());
        assert_eq!(reads.next_context(9), 102);
        assert_eq!(reads.confirm(101), None, "an answer from before they asked says nothing");
        assert_eq!(reads.confirm(102), Some(3));
        assert!(!reads.start_next());
    }
}
