//! Records on their way to watchers: who gets which, encoded once for all who get the same.

use std::collections::HashMap;
use std::sync::Arc;

use super::History;
use super::encode::{Encoded, append_event};
use super::interest::Interest;
use super::registry::Wishes;
use crate::Record;

/// Records `.0` up to but without `.1` of those at hand.
type Run = (u32, u32);

/// The scratch of one delivery. Lives on between deliveries for its memory's sake alone.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    touched: Vec<Touched>,
    /// Entries of `touched` in use; the rest wait with their memory.
    used: usize,
    /// What was encoded for interests that see the same records.
    shared: HashMap<(Vec<Run>, Wishes), Encoded>,
    previous: Vec<Earlier>,
}

/// An interest that the records concern.
#[derive(Debug, Default)]
struct Touched {
    interest: u32,
    /// Which records, ascending and apart from each other.
    runs: Vec<Run>,
    /// By the first record wanted and the wishes.
    encoded: Vec<(u32, Wishes, Encoded)>,
}

/// What the key of a record held before; looked up at most once in a delivery.
#[derive(Clone, Debug, Default)]
enum Earlier {
    #[default]
    NotAsked,
    Known(Option<Arc<Record>>),
}

impl Delivery {
    /// Starts over, with this many records at hand.
    pub fn begin(&mut self, records: usize) {
        self.used = 0;
        self.shared.clear();
        self.previous.clear();
        self.previous.resize(records, Earlier::NotAsked);
    }

    /// Interests touched, numbered from 0.
    pub fn len(&self) -> usize {
        self.used
    }

    /// The slot of the touched interest `number`.
    pub fn interest(&self, number: usize) -> u32 {
        self.touched[number].interest
    }

    /// The number of an interest, if it is touched.
    pub fn number(&self, slot: u32, interest: &Interest) -> Option<usize> {
        let mark = interest.mark as usize;
        (mark < self.used && self.touched[mark].interest == slot).then_some(mark)
    }

    /// The number of an interest; touches it if it is not.
    pub fn touch(&mut self, slot: u32, interest: &mut Interest) -> usize {
        if let Some(number) = self.number(slot, interest) {
            return number;
        }
        let number = self.used;
        if number == self.touched.len() {
            self.touched.push(Touched::default());
        }
        let touched = &mut self.touched[number];
        touched.interest = slot;
        touched.runs.clear();
        touched.encoded.clear();
        self.used += 1;
        interest.mark = u32::try_from(number).expect("fewer than four thousand million interests");
        number
    }

    /// Notes that record `index` concerns the touched interest `number`. Indexes come in ascending order.
    pub fn concerns(&mut self, number: usize, index: usize) {
        let index = u32::try_from(index).expect("fewer than four thousand million records");
        let runs = &mut self.touched[number].runs;
        match runs.last_mut() {
            Some(run) if run.1 == index => run.1 += 1,
            _ => runs.push((index, index + 1)),
        }
    }

    /// The events of the touched interest `number`, from record `first` on, as `wishes` would have them; possibly none.
    pub fn encoded(
        &mut self,
        number: usize,
        first: usize,
        wishes: Wishes,
        records: &[Arc<Record>],
        history: &dyn History,
    ) -> Encoded {
        let (first, wishes) = (u32::try_from(first).expect("an index of a record"), wishes.of_events());
        let touched = &self.touched[number];
        if let Some((_, _, encoded)) = touched.encoded.iter().find(|known| (known.0, known.1) == (first, wishes)) {
            return encoded.clone();
        }
        let runs: Vec<Run> =
            touched.runs.iter().filter(|run| run.1 > first).map(|run| (run.0.max(first), run.1)).collect();
        let encoded = match self.shared.get(&(runs.clone(), wishes)) {
            Some(encoded) => encoded.clone(),
            None => {
                let encoded = self.encode(&runs, wishes, records, history);
                self.shared.insert((runs, wishes), encoded.clone());
                encoded
            }
        };
        self.touched[number].encoded.push((first, wishes, encoded.clone()));
        encoded
    }

    fn encode(&mut self, runs: &[Run], wishes: Wishes, records: &[Arc<Record>], history: &dyn History) -> Encoded {
        let (mut out, mut count) = (Vec::new(), 0);
        for index in runs.iter().flat_map(|run| run.0..run.1) {
            let record = &records[index as usize];
            let unwanted = if record.is_tombstone() { Wishes::NO_DELETE } else { Wishes::NO_PUT };
            if wishes.has(unwanted) {
                continue;
            }
            let previous =
                if wishes.has(Wishes::PREV_KV) { self.earlier(index as usize, record, history) } else { None };
            append_event(record, previous.as_deref(), &mut out);
            count += 1;
        }
        Encoded { events: out.into(), count }
    }

    /// What the key of record `index` held before. Nothing if it was created here, if that is compacted away, or if it cannot be
    /// read: an event without it is worth more than none (etcd's `sendLoop` likewise).
    fn earlier(&mut self, index: usize, record: &Record, history: &dyn History) -> Option<Arc<Record>> {
        if let Earlier::Known(earlier) = &self.previous[index] {
            return earlier.clone();
        }
        let earlier = history.previous(record).unwrap_or(None);
        self.previous[index] = Earlier::Known(earlier.clone());
        earlier
    }
}
