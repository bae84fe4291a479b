//! The watch hub from outside.

mod golden;
mod memory;
mod model;
mod past;
mod threads;
