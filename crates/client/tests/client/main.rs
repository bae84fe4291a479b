//! The client against real doors, and against servers that misbehave.

mod calls;
mod support;
