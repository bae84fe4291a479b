//! The watch hub from outside.

mod fairness;
mod golden;
mod memory;
mod model;
mod past;
mod threads;
