//! The leader's clockwork over the leases.
//!
//! ```text
//!            apply: granted, revoked, checkpointed            api: renew, time_to_live, leases
//!                              │                                          │
//!                              ▼                                          ▼
//!   shell, each tick ──► deadlines by lease, timers by tick ──► expired(): propose LeaseRevoke
//!   promote, demote                                         └─► checkpoints(): propose LeaseCheckpoint
//! ```
//! A follower holds the same leases without deadlines. Time is the caller's monotonic clock, handed in with each call;
//! apply has none, so a lease granted by it starts to run with the next call that carries a time.
//!
//! **Timers are lazy.** A lease has one timer. A renewal only moves the deadline; when the timer fires too early it is
//! set again. So a renewal costs a map look-up, and 100 k leases ending together cost one bucket to move.
//!
//! **Checkpoints.** Without them a new leader would give every lease its whole TTL again. A lease that nobody renews is
//! checkpointed every min(TTL/4, interval); after a renewal the first one waits for min(TTL/2, interval), so that
//! clients renewing each third of the TTL, as etcd's do, never cause any. A renewal of a lease whose stored remaining
//! time is set must first clear it through the log ([`Renewal::clear_first`]): the client would otherwise be promised
//! a TTL that a crash of this leader takes back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use milepost_types::LeaseId;
use parking_lot::Mutex;

use super::wheel::Wheel;
use crate::error::Error;

/// No deadline, no checkpoint planned, no timer set.
const NEVER: u64 = u64::MAX;
/// How long until an expired lease that is still there is named again: its revoke may have been lost. Source: etcd
/// `defaultExpiredleaseRetryInterval`.
const RETRY_MS: u64 = 3000;
/// How long a checkpoint that was handed out may still turn up in the log: longer than a proposal lives.
const IN_FLIGHT_MS: u64 = 10_000;
/// Two checkpoints of one lease are never closer, however short its TTL or the interval.
const CHECKPOINT_MIN_MS: u64 = 250;
/// Checkpoints handed out per call, which become one entry. Source: etcd `maxLeaseCheckpointBatchSize`.
const CHECKPOINTS_MAX: usize = 1000;

/// What a renewal granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The TTL in seconds, counted from now.
    pub ttl: i64,
    /// Propose a checkpoint with remaining time 0 for this lease, and answer the client when it is applied.
    pub clear_first: bool,
}

/// How long a lease still has, on the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// Whole seconds left, rounded down.
    pub remaining: i64,
    /// The TTL it was granted, in seconds.
    pub granted: i64,
}

/// All leases of the cluster, with deadlines where this member leads. Shared; calls hold a short lock.
#[derive(Debug)]
pub struct Lessor {
    /// Longest time between two checkpoints of a lease in milliseconds; 0 = none are made.
    checkpoint_ms: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Does this member keep the deadlines?
    primary: bool,
    /// By id: what is iterated here ends in entries, so its order must not be chance.
    leases: BTreeMap<LeaseId, Slot>,
    timers: Wheel<LeaseId>,
    /// Granted by apply since the last call that brought a time.
    unstarted: Vec<LeaseId>,
    /// Past their deadline, to be handed out.
    expired: VecDeque<LeaseId>,
    /// Due for a checkpoint, to be handed out.
    due: BTreeSet<LeaseId>,
    /// Renewed while a checkpoint was on its way that has now overwritten the renewal: to be cleared.
    overwritten: BTreeSet<LeaseId>,
}

/// One lease. Times are milliseconds of the caller's clock.
#[derive(Debug)]
struct Slot {
    /// Granted TTL in seconds.
    ttl: i64,
    /// Replicated: seconds left at the newest checkpoint; 0 = none since the last renewal.
    remaining: i64,
    deadline: u64,
    /// When the next checkpoint is due.
    checkpoint: u64,
    /// The tick under which the timer that counts is set; others are stale.
    timer: u64,
    /// When a checkpoint was handed out that has not been applied yet.
    handed_out: u64,
    /// Renewed since `handed_out`.
    overtaken: bool,
}

impl Slot {
    fn new(ttl: i64, remaining: i64) -> Self {
        Self { ttl, remaining, deadline: NEVER, checkpoint: NEVER, timer: NEVER, handed_out: NEVER, overtaken: false }
    }

    fn ttl_ms(&self) -> u64 {
        seconds_to_ms(self.ttl)
    }

    /// What a new leader gives it.
    fn left_ms(&self) -> u64 {
        seconds_to_ms(if self.remaining > 0 { self.remaining } else { self.ttl })
    }

    fn in_flight(&self, now: u64) -> bool {
        self.handed_out != NEVER && now.saturating_sub(self.handed_out) < IN_FLIGHT_MS
    }

    fn forget_time(&mut self) {
        *self = Self::new(self.ttl, self.remaining);
    }
}

fn seconds_to_ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

fn ms(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(NEVER - 1)
}

impl Lessor {
    /// No leases; checkpoints at most `checkpoint_interval` apart (zero: none).
    pub(crate) fn new(checkpoint_interval: Duration) -> Self {
        Self { checkpoint_ms: ms(checkpoint_interval), inner: Mutex::default() }
    }

    /// Replaces all leases by stored ones (id, TTL, remaining), as after start; nothing runs until promotion.
    pub(crate) fn load(&self, leases: impl IntoIterator<Item = (LeaseId, i64, i64)>) {
        let mut inner = self.inner.lock();
        *inner = Inner::default();
        inner.leases = leases.into_iter().map(|(id, ttl, remaining)| (id, Slot::new(ttl, remaining))).collect();
    }

    // What apply says.

    /// A lease was granted.
    pub(crate) fn granted(&self, id: LeaseId, ttl: i64) {
        let mut inner = self.inner.lock();
        inner.leases.insert(id, Slot::new(ttl, 0));
        if inner.primary {
            inner.unstarted.push(id);
        }
    }

    /// A lease is gone.
    pub(crate) fn revoked(&self, id: LeaseId) {
        self.inner.lock().leases.remove(&id);
    }

    /// A checkpoint was applied; the deadlines of a leader do not follow it.
    pub(crate) fn checkpointed(&self, id: LeaseId, remaining: i64) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let Some(slot) = inner.leases.get_mut(&id) else { return };
        slot.remaining = remaining;
        if remaining > 0 {
            slot.handed_out = NEVER;
            if std::mem::take(&mut slot.overtaken) && inner.primary {
                inner.overwritten.insert(id);
            }
        }
    }

    // What everyone may ask.

    /// Is there such a lease?
    #[must_use]
    pub fn exists(&self, id: LeaseId) -> bool {
        self.inner.lock().leases.contains_key(&id)
    }

    /// The granted TTL of a lease in seconds and its replicated remaining time (0 = none).
    #[must_use]
    pub fn replicated(&self, id: LeaseId) -> Option<(i64, i64)> {
        self.inner.lock().leases.get(&id).map(|slot| (slot.ttl, slot.remaining))
    }

    /// How many leases there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.lock().leases.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All leases, those that end soonest first; on a follower by id.
    #[must_use]
    pub fn ids(&self) -> Vec<LeaseId> {
        let collect = |inner: &Inner| inner.leases.iter().map(|(&id, slot)| (slot.deadline, id)).collect();
        // Sorted without the lock: there may be a million.
        let mut ids: Vec<_> = collect(&self.inner.lock());
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Does this member keep the deadlines?
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.inner.lock().primary
    }

    // What the leader does.

    /// This member leads and has applied all entries of earlier terms: every lease runs from now, for its checkpointed
    /// remaining time or its TTL, plus `extend` (an election timeout: the time the cluster may have been without a
    /// leader to renew at). O(leases), once per leadership.
    pub fn promote(&self, now: Duration, extend: Duration) {
        let (now, extend) = (ms(now), ms(extend));
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        inner.stop();
        inner.primary = true;
        for (&id, slot) in &mut inner.leases {
            slot.forget_time();
            slot.deadline = now.saturating_add(slot.left_ms()).saturating_add(extend);
            slot.checkpoint = self.next_checkpoint(slot.ttl, now, 4);
            set_timer(&mut inner.timers, id, slot);
        }
    }

    /// This member no longer leads: nothing expires here until promoted again.
    pub fn demote(&self) {
        let mut inner = self.inner.lock();
        if !inner.primary {
            return;
        }
        inner.stop();
        inner.primary = false;
        inner.leases.values_mut().for_each(Slot::forget_time);
    }

    /// Gives the lease its whole TTL again, from `now` on; what it was given at a promotion is not taken back, since a leader
    /// of before that does not know yet that it is none may be giving it as much.
    ///
    /// # Errors
    /// [`Error::NotPrimary`] on a follower: ask the leader. [`Error::LeaseNotFound`]: no such lease, or it has ended and
    /// is about to be revoked.
    pub fn renew(&self, id: LeaseId, now: Duration) -> Result<Renewal, Error> {
        let now = ms(now);
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if !inner.primary {
            return Err(Error::NotPrimary);
        }
        self.start(inner, now);
        let slot = inner.leases.get_mut(&id).filter(|slot| slot.deadline > now).ok_or(Error::LeaseNotFound)?;
        slot.deadline = slot.deadline.max(now.saturating_add(slot.ttl_ms()));
        slot.checkpoint = self.next_checkpoint(slot.ttl, now, 2);
        slot.overtaken = slot.in_flight(now);
        let renewal = Renewal { ttl: slot.ttl, clear_first: slot.remaining > 0 || slot.overtaken };
        set_timer(&mut inner.timers, id, slot);
        Ok(renewal)
    }

    /// How long the lease still has.
    ///
    /// # Errors
    /// As [`Lessor::renew`], except that an ended lease which is not revoked yet has 0 seconds.
    pub fn time_to_live(&self, id: LeaseId, now: Duration) -> Result<TimeToLive, Error> {
        let now = ms(now);
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if !inner.primary {
            return Err(Error::NotPrimary);
        }
        self.start(inner, now);
        let slot = inner.leases.get(&id).ok_or(Error::LeaseNotFound)?;
        let remaining = slot.deadline.saturating_sub(now) / 1000;
        Ok(TimeToLive { remaining: i64::try_from(remaining).unwrap_or(i64::MAX), granted: slot.ttl })
    }

    /// At most `max` leases that have ended, to be revoked through the log, in the order in which that was noticed. One
    /// that is still there after 3 s is named again.
    pub fn expired(&self, now: Duration, max: usize) -> Vec<LeaseId> {
        let now = ms(now);
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        self.advance(inner, now);
        let mut out = Vec::with_capacity(max.min(inner.expired.len()));
        while out.len() < max {
            let Some(id) = inner.expired.pop_front() else { break };
            let Some(slot) = inner.leases.get_mut(&id) else { continue };
            slot.timer = Wheel::<LeaseId>::tick_of(now + RETRY_MS);
            inner.timers.insert(slot.timer, id);
            out.push(id);
        }
        out
    }

    /// Remaining times in seconds, rounded up, to be replicated: at most 1000 per call, one entry; call again until
    /// none are left. Zero clears an earlier one.
    pub fn checkpoints(&self, now: Duration) -> Vec<(LeaseId, i64)> {
        let now = ms(now);
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        self.advance(inner, now);
        let mut out = Vec::new();
        while out.len() < CHECKPOINTS_MAX {
            let Some(id) = inner.overwritten.pop_first() else { break };
            out.push((id, 0));
        }
        while out.len() < CHECKPOINTS_MAX {
            let Some(id) = inner.due.pop_first() else { break };
            let Some(slot) = inner.leases.get_mut(&id).filter(|slot| slot.deadline > now) else { continue };
            let left = i64::try_from((slot.deadline - now).div_ceil(1000)).unwrap_or(i64::MAX);
            // Not if renewed meanwhile, nor while the extension after a promotion lasts.
            if left < slot.ttl && left != slot.remaining {
                (slot.handed_out, slot.overtaken) = (now, false);
                out.push((id, left));
            }
        }
        out
    }

    /// When [`Lessor::expired`] or [`Lessor::checkpoints`] will next have something to do, at the earliest; `None`:
    /// nothing is running. Grants may bring it forward.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let inner = self.inner.lock();
        let idle = inner.expired.is_empty() && inner.due.is_empty() && inner.overwritten.is_empty();
        if !idle || !inner.unstarted.is_empty() {
            return Some(Duration::ZERO);
        }
        inner.timers.next_due_ms().map(Duration::from_millis)
    }

    /// Says what does not hold: on the leader every started lease has a deadline and something that will look at it in
    /// time; elsewhere nothing runs.
    pub(crate) fn check(&self) -> Result<(), String> {
        let inner = self.inner.lock();
        for (id, slot) in &inner.leases {
            let waits = slot.timer != NEVER || inner.expired.contains(id);
            let runs = slot.deadline != NEVER;
            if runs != waits || (runs && !inner.primary) {
                return Err(format!("lease {id}: primary {}, {slot:?}", inner.primary));
            }
            if !runs && inner.primary && !inner.unstarted.contains(id) {
                return Err(format!("lease {id} never starts"));
            }
        }
        Ok(())
    }

    /// Fires the timers that are due. O(due).
    fn advance(&self, inner: &mut Inner, now: u64) {
        self.start(inner, now);
        while let Some((tick, ids)) = inner.timers.pop_due(now) {
            for id in ids {
                let Some(slot) = inner.leases.get_mut(&id).filter(|slot| slot.timer == tick) else { continue };
                slot.timer = NEVER;
                if slot.deadline <= now {
                    // For good: a renewal may come with a clock that was read before this one.
                    slot.deadline = 0;
                    inner.expired.push_back(id);
                    continue;
                }
                if slot.checkpoint <= now {
                    slot.checkpoint = self.next_checkpoint(slot.ttl, now, 4);
                    inner.due.insert(id);
                }
                set_timer(&mut inner.timers, id, slot);
            }
        }
    }

    /// Starts the clocks of leases that apply has granted.
    fn start(&self, inner: &mut Inner, now: u64) {
        for id in std::mem::take(&mut inner.unstarted) {
            let Some(slot) = inner.leases.get_mut(&id).filter(|slot| slot.deadline == NEVER) else { continue };
            slot.deadline = now.saturating_add(slot.ttl_ms());
            slot.checkpoint = self.next_checkpoint(slot.ttl, now, 4);
            set_timer(&mut inner.timers, id, slot);
        }
    }

    /// `now` plus min(TTL / `part`, interval).
    fn next_checkpoint(&self, ttl: i64, now: u64, part: u64) -> u64 {
        match self.checkpoint_ms {
            0 => NEVER,
            interval => now.saturating_add(interval.min(seconds_to_ms(ttl) / part).max(CHECKPOINT_MIN_MS)),
        }
    }
}

impl Inner {
    fn stop(&mut self) {
        self.timers.clear();
        self.unstarted.clear();
        self.expired.clear();
        self.due.clear();
        self.overwritten.clear();
    }
}

/// Makes sure that a timer fires no later than the lease needs it; an earlier one stays.
fn set_timer(timers: &mut Wheel<LeaseId>, id: LeaseId, slot: &mut Slot) {
    let tick = Wheel::<LeaseId>::tick_of(slot.deadline.min(slot.checkpoint));
    if tick < slot.timer {
        slot.timer = tick;
        timers.insert(tick, id);
    }
}

#[cfg(test)]
#[path = "lessor_test.rs"]
mod tests;
