//! The doors from outside: bytes in, bytes out.

mod authority;
mod defragment;
mod errors;
mod keys;
mod leases;
mod lines;
mod pages;
mod streams;
mod support;
mod transport;
mod watches;
