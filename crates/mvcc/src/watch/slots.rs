//! Numbered places for many small things.

use std::ops::{Index, IndexMut};

/// Things in one row. A power of two.
const ROW: usize = 256;

/// Things that are found by a number, which is used again after them.
///
/// Held in rows that never move: what is there is not copied when more comes, and at most one row is empty for the most part.
/// A plain array of a million watchers is copied to one of twice its size on the way, and half empty on average.
#[derive(Debug)]
pub(super) struct Slots<T> {
    rows: Vec<Vec<T>>,
    /// Slots that were used, and are not.
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Things there are.
    pub fn len(&self) -> usize {
        self.made() - self.free.len()
    }

    /// Adds a thing and returns its slot: the one that was released last, or a new one.
    ///
    /// # Panics
    /// With the four thousand millionth.
    pub fn add(&mut self, thing: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            self[slot] = thing;
            return slot;
        }
        let slot = u32::try_from(self.made()).expect("fewer than four thousand million slots");
        match self.rows.last_mut() {
            Some(row) if row.len() < ROW => row.push(thing),
            _ => {
                let mut row = Vec::with_capacity(ROW);
                row.push(thing);
                self.rows.push(row);
            }
        }
        slot
    }

    /// Says that the slot may be used again, and leaves there what is there. Not to be said twice.
    pub fn release(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// The slots in use, ascending.
    pub fn used(&self) -> Vec<u32> {
        let mut used = vec![true; self.made()];
        for &slot in &self.free {
            used[slot as usize] = false;
        }
        (0..).zip(used).filter(|&(_, used)| used).map(|(slot, _)| slot).collect()
    }

    /// Everything in the slots in use and in the others.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.rows.iter().flatten()
    }

    /// Slots that were ever used.
    pub fn made(&self) -> usize {
        self.rows.last().map_or(0, |last| (self.rows.len() - 1) * ROW + last.len())
    }

    /// Bytes held, what the things hold elsewhere apart.
    pub fn memory_bytes(&self) -> usize {
        let rows = self.rows.capacity() * size_of::<Vec<T>>() + self.rows.len() * ROW * size_of::<T>();
        rows + self.free.capacity() * size_of::<u32>()
    }
}

impl<T> Index<u32> for Slots<T> {
    type Output = T;

    fn index(&self, slot: u32) -> &T {
        &self.rows[slot as usize / ROW][slot as usize % ROW]
    }
}

impl<T> IndexMut<u32> for Slots<T> {
    fn index_mut(&mut self, slot: u32) -> &mut T {
        &mut self.rows[slot as usize / ROW][slot as usize % ROW]
    }
}

#[cfg(test)]
mod tests {
    use super::{ROW, Slots};

    #[test]
    fn slots_are_used_again_and_things_stay() {
        let mut slots = Slots::default();
        let most = 3 * ROW + 5;
        for n in 0..most {
            assert_eq!(slots.add(n) as usize, n);
        }
        slots.release(7);
        slots.release(300);
        assert_eq!((slots.len(), slots.made()), (most - 2, most));
        assert!(!slots.used().contains(&7) && !slots.used().contains(&300) && slots.used().len() == most - 2);
        assert_eq!((slots.add(1), slots.add(2)), (300, 7));
        assert_eq!((slots[300], slots[7], slots[301]), (1, 2, 301));
        slots[301] += 1;
        assert_eq!(slots[301], 302);
        assert_eq!(slots.add(0) as usize, most);
        assert_eq!(slots.all().count(), most + 1);
    }
}
