//! This member among others: how it finds them, and what it watches over.

pub mod ask;
pub mod colleagues;
pub mod corruption;
pub mod discovery;
pub mod forming;
pub mod letters;
pub mod ticks;
pub mod versions;
