//! Who watches one set of keys.

/// Slots of watchers, in an order of the caller's. Most often there is one, which then costs nothing more.
#[derive(Debug, Default)]
pub(super) enum Members {
    #[default]
    None,
    One(u32),
    #[expect(clippy::box_collection, reason = "two words instead of three, in each of perhaps a million interests")]
    Many(Box<Vec<u32>>),
}

const _: () = assert!(size_of::<Members>() == 16, "an interest is small");

impl Members {
    /// All of them.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(slot) => std::slice::from_ref(slot),
            Self::Many(slots) => slots,
        }
    }

    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, seat: u32) -> Option<u32> {
        self.as_slice().get(seat as usize).copied()
    }

    pub fn push(&mut self, slot: u32) {
        match self {
            Self::None => *self = Self::One(slot),
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, slot])),
            Self::Many(slots) => slots.push(slot),
        }
    }

    /// Removes the one in this seat; the last one takes it.
    ///
    /// # Panics
    /// If there is no such seat.
    pub fn swap_remove(&mut self, seat: u32) {
        match self {
            Self::Many(slots) => {
                slots.swap_remove(seat as usize);
                if let [last] = slots[..] {
                    *self = Self::One(last);
                }
            }
            Self::None | Self::One(_) => {
                assert!((seat as usize) < self.len(), "seat {seat} of {}", self.len());
                *self = Self::None;
            }
        }
    }

    /// Lets two change seats.
    ///
    /// # Panics
    /// If there is no such seat.
    pub fn swap(&mut self, one: u32, other: u32) {
        match self {
            Self::Many(slots) => slots.swap(one as usize, other as usize),
            Self::None | Self::One(_) => assert!(one == other && (one as usize) < self.len(), "seats {one}, {other}"),
        }
    }

    /// Bytes held beside the value itself.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::None | Self::One(_) => 0,
            Self::Many(slots) => size_of::<Vec<u32>>() + slots.capacity() * size_of::<u32>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Members;

    #[test]
    fn agrees_with_a_list() {
        let mut members = Members::default();
        let mut list = Vec::new();
        // Up to three and down again, several times, from each seat.
        for (step, grows) in [1, 1, 1, 0, 0, 1, 0, 0, 1, 1, 0, 0].into_iter().enumerate() {
            if grows == 1 {
                members.push(step as u32);
                list.push(step as u32);
                let last = list.len() - 1;
                members.swap(0, last as u32);
                list.swap(0, last);
            } else {
                let seat = step % list.len();
                members.swap_remove(seat as u32);
                list.swap_remove(seat);
            }
            assert_eq!((members.as_slice(), members.len()), (&list[..], list.len()), "step {step}");
            assert_eq!(members.is_empty(), list.is_empty());
            assert_eq!((members.get(0), members.get(9)), (list.first().copied(), None));
        }
    }
}
