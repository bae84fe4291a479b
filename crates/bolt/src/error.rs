//! What can be wrong with a file, a plan or a stream.

use std::io;

use crate::layout::PageId;

/// A file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    /// The bytes could not be read.
    #[error("cannot read {length} bytes at offset {offset}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// How many.
        length: usize,
        /// The system's answer.
        source: io::Error,
    },
    /// Neither of the first two pages is a valid meta page.
    #[error("not a bbolt database, or damaged in both of its meta pages: {0}")]
    NoMeta(&'static str),
    /// The file ends before the pages that its meta page counts.
    #[error("the file has {length} bytes, but its {pages} pages of {page_bytes} bytes need more: it was cut off")]
    Short {
        /// Bytes in the file.
        length: u64,
        /// High-water mark.
        pages: u64,
        /// Size of a page.
        page_bytes: usize,
    },
    /// A page contradicts itself or the one that points to it.
    #[error("page {} is damaged: {what}", page.0)]
    Page {
        /// Which.
        page: PageId,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Data that the format cannot hold, or in the wrong order.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// Buckets and keys go in ascending order, each once.
    #[error("{what} {name:?} does not come after the one before it")]
    Order {
        /// "bucket" or "key".
        what: &'static str,
        /// Its bytes.
        name: Vec<u8>,
    },
    /// A key of no or too many bytes, or too large a value.
    #[error("a key of {key} bytes with a value of {value} bytes does not fit the format")]
    Size {
        /// Length of the key.
        key: usize,
        /// Length of the value.
        value: usize,
    },
    /// An item before the first bucket.
    #[error("an item outside of a bucket")]
    NoBucket,
}

/// The stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// The receiver failed.
    #[error("cannot write the stream: {0}")]
    Write(#[from] io::Error),
    /// The second pass saw other data than the first: what was written so far must be thrown away.
    #[error("the data changed between the two passes ({0})")]
    Diverged(&'static str),
}
