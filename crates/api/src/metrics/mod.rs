//! What is counted, and the page that shows it.

mod door;
mod page;
mod tally;

pub(crate) use door::DoorMetrics;
pub(crate) use page::Page;
