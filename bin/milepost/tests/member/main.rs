//! The built executable, looked at from outside: its command line, and a member's life.

mod command_line;
mod life;
mod support;
