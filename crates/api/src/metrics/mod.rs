//! What is counted, and the page that shows it.

mod background;
mod door;
mod member;
mod node;
mod page;
mod process;
mod tally;
mod text;

pub(crate) use door::DoorMetrics;
pub(crate) use page::Page;
pub(crate) use process::descriptors_max;
