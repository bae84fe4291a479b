//! What Go's standard library does to text, as far as etcdctl's users see it: numbers, durations, quotes, sizes.
//!
//! Scripts compare these texts, error texts included, so they are Go's to the letter.

mod duration;
mod json;
mod number;
mod quote;
mod size;

pub use duration::{parse_duration, show_duration};
pub use json::Json;
pub use number::{parse_bool, parse_int, parse_uint};
pub use quote::{quote, unquote};
pub use size::si_bytes;
