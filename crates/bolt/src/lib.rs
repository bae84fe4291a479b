//! The file format of bbolt, etcd's store: read from etcd's files, written as a stream.
//!
//! ```text
//!  page 0      page 1      2 …                                          high water
//!  ┌──────────┬──────────┬────────┬────────┬───┬────────┬───┬──────┬──────────┐
//!  │ meta T   │ meta T-1 │ leaf   │ leaf   │ … │ branch │ … │ root │ freelist │
//!  └────┬─────┴──────────┴────────┴────────┴───┴────────┴───┴──┬───┴──────────┘
//!       └──────────── root ────────────────────────────────────┘
//!  root: bucket name ──► page of the bucket's top; buckets one after the other in the order of their names
//! ```
//! A member streams its store to others, and to `snapshot save`, in this format. Nothing is held but one key per leaf
//! page: a first pass over the data ([`Plan`]) learns the sizes, so that the length of the whole and every page number
//! are known before the first byte; a second pass ([`Emitter`]) over the same data writes the pages in order.
//!
//! [`File`] reads any such file, also etcd's own (whose list of free pages is not stored), through positioned reads, and
//! trusts nothing in it: every offset is checked before it is followed.
//!
//! What never happens here: no memory map, no change of an existing file, no knowledge of what the buckets mean.
//!
//! Source: bbolt's file format version 2, as etcd 3.5 to 3.7 write it.

mod check;
mod emit;
mod error;
mod layout;
mod pack;
mod plan;
mod read;
#[cfg(test)]
mod round_trip_test;
mod walk;

pub use check::Pages;
pub use emit::Emitter;
pub use error::{BoltError, EmitError, PlanError};
pub use layout::PageId;
pub use plan::{Plan, Planner};
pub use read::{File, ReadAt};
pub use walk::Items;
