//! Whether a whole file is sound: every page belongs to exactly one place.

use crate::error::BoltError;
use crate::layout::{PageId, leaf, page, u64_at};
use crate::read::{File, Page, ReadAt};
use crate::walk::Top;

/// What the pages of a sound file are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// Branches and leaves with their overflow, in pages.
    pub used: u64,
    /// Named by the freelist; without a stored one: those that nothing reaches.
    pub free: u64,
    /// Keys in all buckets.
    pub items: u64,
}

/// Who owns each page.
struct Owners<'a, R> {
    file: &'a File<R>,
    is_taken: Vec<bool>,
    pages: Pages,
}

impl<R: ReadAt> File<R> {
    /// Walks all trees and the freelist.
    ///
    /// # Errors
    /// A page is damaged, belongs to two places, or (with a stored freelist) to none; keys are out of order.
    pub fn check(&self) -> Result<Pages, BoltError> {
        let count = usize::try_from(self.high_water.0).unwrap_or(usize::MAX);
        let mut owners = Owners { file: self, is_taken: vec![false; count], pages: Pages::default() };
        owners.free()?;
        owners.tree(&self.page(self.root, &[page::BRANCH, page::LEAF])?, None, 0)?;
        owners.rest()
    }
}

impl<R: ReadAt> Owners<'_, R> {
    fn free(&mut self) -> Result<(), BoltError> {
        let Some(id) = self.file.freelist else { return Ok(()) };
        let list = self.file.page(id, &[page::FREELIST])?;
        self.take(&list)?;
        let damage = BoltError::Page { page: id, what: "its list of free pages is longer than it is" };
        // Beyond 65,534 the number stands in the first place of the list.
        let (count, first) = match list.count() {
            0xFFFF => (u64_at(&list.bytes, page::BODY).unwrap_or(u64::MAX), 1),
            count => (count as u64, 0),
        };
        let Some(count) = usize::try_from(count).ok().filter(|count| *count <= list.bytes.len() / 8) else {
            return Err(damage);
        };
        for number in first..first + count {
            let Some(free) = u64_at(&list.bytes, page::BODY + 8 * number) else { return Err(damage) };
            self.mark(PageId(free))?;
            self.pages.free += 1;
        }
        Ok(())
    }

    /// Counts `page` and what is below it; all its keys are at or after `least`.
    fn tree(&mut self, page: &Page, least: Option<&[u8]>, depth: usize) -> Result<(), BoltError> {
        self.take(page)?;
        let damage = |what| BoltError::Page { page: page.id, what };
        if depth > 64 {
            return Err(damage("the tree above it is too deep to be one"));
        }
        let mut last = least.map(<[u8]>::to_vec);
        for number in 0..page.count() {
            let key = if page.kind() == page::LEAF { page.element(number)?.1 } else { page.child(number)?.0 };
            let is_after = match &last {
                Some(last) if number == 0 => **last <= *key,
                Some(last) => **last < *key,
                None => true,
            };
            if !is_after {
                return Err(damage("its keys are not in ascending order"));
            }
            last = Some(key.to_vec());
            if page.kind() == page::LEAF {
                self.element(page, number)?;
            } else {
                let (key, child) = page.child(number)?;
                self.tree(&self.file.page(child, &[page::BRANCH, page::LEAF])?, Some(key), depth + 1)?;
            }
        }
        Ok(())
    }

    fn element(&mut self, page: &Page, number: usize) -> Result<(), BoltError> {
        let (flags, _, value) = page.element(number)?;
        if flags & leaf::BUCKET == 0 {
            self.pages.items += 1;
            return Ok(());
        }
        match self.file.top(value.to_vec())? {
            Top::Page(id) => self.tree(&self.file.page(id, &[page::BRANCH, page::LEAF])?, None, 0),
            Top::Inline(bytes) => {
                let small = Page { id: page.id, bytes };
                for number in 0..small.count() {
                    small.element(number)?;
                }
                self.pages.items += small.count() as u64;
                Ok(())
            }
        }
    }

    fn take(&mut self, page: &Page) -> Result<(), BoltError> {
        for number in 0..page.pages() {
            self.mark(PageId(page.id.0 + number))?;
        }
        if page.kind() != page::FREELIST {
            self.pages.used += page.pages();
        }
        Ok(())
    }

    fn mark(&mut self, id: PageId) -> Result<(), BoltError> {
        let place = usize::try_from(id.0).ok().and_then(|at| self.is_taken.get_mut(at));
        let Some(is_taken) = place else {
            return Err(BoltError::Page { page: id, what: "its number is beyond the end of the database" });
        };
        if id.0 < 2 || std::mem::replace(is_taken, true) {
            return Err(BoltError::Page { page: id, what: "it belongs to two places" });
        }
        Ok(())
    }

    fn rest(mut self) -> Result<Pages, BoltError> {
        for (number, is_taken) in self.is_taken.iter().enumerate().skip(2) {
            match (is_taken, self.file.freelist) {
                (true, _) => {}
                (false, None) => self.pages.free += 1,
                (false, Some(_)) => {
                    return Err(BoltError::Page { page: PageId(number as u64), what: "nothing points to it" });
                }
            }
        }
        Ok(self.pages)
    }
}
