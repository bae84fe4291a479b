//! The doors from outside: bytes in, bytes out.

mod access;
mod authority;
mod defragment;
mod errors;
mod gateway;
mod keys;
mod leases;
mod lines;
mod members;
mod misuse;
mod pages;
mod peers;
mod sockets;
mod streams;
mod support;
mod tls;
mod transport;
mod watches;
