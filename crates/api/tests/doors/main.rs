//! The doors from outside: bytes in, bytes out.

mod access;
mod authority;
mod defragment;
mod errors;
mod gateway;
mod keys;
mod leases;
mod lines;
mod pages;
mod sockets;
mod streams;
mod support;
mod transport;
mod watches;
