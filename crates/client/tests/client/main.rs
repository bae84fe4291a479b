//! The client against real doors, and against servers that misbehave.

mod calls;
mod leases;
mod retries;
mod support;
mod tls;
mod watches;
