//! The log over a disk that loses power, against bytes made by hand and against a naive twin.

mod common;
mod crash;
mod damage;
mod golden;
mod life;
mod model;
mod space;
