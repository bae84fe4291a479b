//! All items of one tree, from left to right.

use crate::error::BoltError;
use crate::layout::{PageId, page};
use crate::read::{File, Page, ReadAt};

/// A tree deeper than this is a loop: with two children per branch it would have more leaves than a file has pages.
const DEPTH_MAX: usize = 64;

/// Key and value.
type Item = (Vec<u8>, Vec<u8>);

/// Where a tree begins.
#[derive(Debug)]
pub enum Top {
    /// At a page of the file.
    Page(PageId),
    /// In a bucket's own value: the bytes of one small leaf.
    Inline(Vec<u8>),
}

/// Iterator over (key, value) of one bucket. After an error it is at its end.
#[derive(Debug)]
pub struct Items<'a, R> {
    file: &'a File<R>,
    start: Option<Top>,
    /// From the top down to the leaf, each with its next element.
    path: Vec<(Page, usize)>,
    last: Option<Vec<u8>>,
}

impl<'a, R: ReadAt> Items<'a, R> {
    pub(crate) const fn new(file: &'a File<R>, top: Top) -> Self {
        Self { file, start: Some(top), path: Vec::new(), last: None }
    }

    fn step(&mut self) -> Result<Option<Item>, BoltError> {
        match self.start.take() {
            Some(Top::Page(id)) => self.descend(id)?,
            Some(Top::Inline(bytes)) => self.path.push((inline(bytes, self.file.root)?, 0)),
            None => {}
        }
        while let Some((page, next)) = self.path.last_mut() {
            let (number, is_leaf) = (*next, page.kind() == page::LEAF);
            if number >= page.count() {
                self.path.pop();
                continue;
            }
            *next += 1;
            if is_leaf {
                return self.element(number).map(Some);
            }
            let child = page.child(number)?.1;
            self.descend(child)?;
        }
        Ok(None)
    }

    fn descend(&mut self, id: PageId) -> Result<(), BoltError> {
        if self.path.len() >= DEPTH_MAX {
            return Err(BoltError::Page { page: id, what: "the tree above it is too deep to be one" });
        }
        let page = self.file.page(id, &[page::BRANCH, page::LEAF])?;
        self.path.push((page, 0));
        Ok(())
    }

    fn element(&mut self, number: usize) -> Result<Item, BoltError> {
        let (page, _) = self.path.last().expect("an element lies on a page");
        let (_, key, value) = page.element(number)?;
        // The rest of the order follows: a loop in the tree or a page in the wrong place breaks it.
        if self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(BoltError::Page { page: page.id, what: "its keys are not in ascending order" });
        }
        let (key, value) = (key.to_vec(), value.to_vec());
        self.last = Some(key.clone());
        Ok((key, value))
    }
}

impl<R: ReadAt> Iterator for Items<'_, R> {
    type Item = Result<Item, BoltError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.path.clear();
        }
        step.transpose()
    }
}

/// The leaf inside of a bucket's value; `owner` is named when it is damaged.
fn inline(bytes: Vec<u8>, owner: PageId) -> Result<Page, BoltError> {
    let page = Page { id: owner, bytes };
    if page.kind() != page::LEAF {
        return Err(BoltError::Page { page: owner, what: "a small bucket in it is no leaf" });
    }
    Ok(page)
}
