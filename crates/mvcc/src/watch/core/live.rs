//! Changes as they happen.

use std::sync::Arc;

use super::HubCore;
use crate::{EventBatch, Record};

impl HubCore {
    /// Offers a batch to every synced watcher of its keys.
    pub(super) fn live(&mut self, batch: &EventBatch) {
        let revision = batch.revision;
        if revision <= self.seen {
            return;
        }
        if self.registry.len() > 0 {
            if revision > self.seen + 1 {
                // A hole. Those who would fall into it read history instead.
                self.all_fall_behind(revision - 1);
            }
            self.match_live(&batch.records);
            self.offer_live(revision, &batch.records);
        }
        self.seen = revision;
        self.pass_barriers();
    }

    /// What was seen so far may not be all there was: everybody goes on from history.
    pub(super) fn invalidate(&mut self) {
        let revision = self.history.revision();
        self.all_fall_behind(revision);
        self.seen = self.seen.max(revision);
        self.pass_barriers();
    }

    /// Makes every synced watcher that was not offered all of its events up to `revision` read history. Who starts later stays.
    fn all_fall_behind(&mut self, revision: i64) {
        for slot in self.registry.synced() {
            let next = self.registry.get(slot).next.max(self.seen + 1);
            if next <= revision {
                self.fall_behind(slot, next);
            }
        }
    }

    fn match_live(&mut self, records: &[Arc<Record>]) {
        self.delivery.begin(records.len());
        let mut hits = std::mem::take(&mut self.hits);
        for (index, record) in records.iter().enumerate() {
            self.registry.interests.matching(&record.key, &mut |slot| hits.push(slot));
            for slot in hits.drain(..) {
                let interest = self.registry.interests.get_mut(slot);
                if interest.synced > 0 {
                    let number = self.delivery.touch(slot, interest);
                    self.delivery.concerns(number, index);
                }
            }
        }
        self.hits = hits;
    }

    fn offer_live(&mut self, revision: i64, records: &[Arc<Record>]) {
        for number in 0..self.delivery.len() {
            let interest = self.delivery.interest(number);
            let mut seat = 0;
            while let Some(slot) = self.synced_member(interest, seat) {
                let watcher = self.registry.get(slot);
                if watcher.next <= revision {
                    let wishes = watcher.wishes;
                    let events = self.delivery.encoded(number, 0, wishes, records, &*self.history);
                    if events.count > 0 && !self.offer(slot, revision, events) {
                        // Its seat now belongs to another.
                        self.park(slot, revision);
                        continue;
                    }
                }
                seat += 1;
            }
            if self.staged >= super::STAGED_MAX {
                self.flush();
            }
        }
    }

    fn synced_member(&self, interest: u32, seat: u32) -> Option<u32> {
        let interest = self.registry.interests.get(interest);
        (seat < interest.synced).then(|| interest.members.as_slice()[seat as usize])
    }
}
