//! The doors from outside: bytes in, bytes out.

mod errors;
mod keys;
mod leases;
mod pages;
mod streams;
mod support;
mod transport;
mod watches;
