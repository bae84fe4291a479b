//! How items are dealt to pages. Both passes use this, so that they agree.

use crate::layout::{COUNT_MAX, page};

/// Pages of one kind, filled one after the other.
#[derive(Debug)]
pub struct Packer {
    page_bytes: usize,
    element_bytes: usize,
    count: usize,
    used: usize,
}

impl Packer {
    /// Pages of `page_bytes` whose elements have `element_bytes` beside their data.
    pub const fn new(page_bytes: usize, element_bytes: usize) -> Self {
        Self { page_bytes, element_bytes, count: 0, used: page::BODY }
    }

    /// Whether an item of `data_bytes` has room on the page that is being filled. The first item always has: its page
    /// grows by overflow.
    pub const fn has_room(&self, data_bytes: usize) -> bool {
        self.count == 0 || (self.count < COUNT_MAX && self.used + self.element_bytes + data_bytes <= self.page_bytes)
    }

    /// Puts the item on the page.
    pub const fn add(&mut self, data_bytes: usize) {
        self.count += 1;
        self.used += self.element_bytes + data_bytes;
    }

    /// How many pages the filled page takes, at least 1; begins the next.
    pub const fn close(&mut self) -> u64 {
        let pages = self.used.div_ceil(self.page_bytes) as u64;
        (self.count, self.used) = (0, page::BODY);
        pages
    }

    /// Whether nothing is on the page yet.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}
