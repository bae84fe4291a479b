//! SIGTERM and SIGINT: caught, waited for, and died by. SIGHUP: files are read again.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Caught;

/// The signals that end a member, and the one that does not, caught from now on.
pub struct Signals {
    caught: Caught,
}

impl Signals {
    /// Catches SIGTERM, SIGINT and SIGHUP.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { caught: Caught::new([SIGTERM, SIGINT, SIGHUP])? })
    }

    /// A signal to end that has come already.
    pub fn pending(&mut self) -> Option<i32> {
        self.caught.pending().find(|signal| *signal != SIGHUP)
    }

    /// Blocks until one comes that ends the member; `on_hangup` is called for each SIGHUP.
    #[must_use]
    pub fn wait(mut self, on_hangup: impl Fn()) -> i32 {
        for signal in self.caught.forever() {
            match signal {
                SIGHUP => on_hangup(),
                signal => return signal,
            }
        }
        SIGTERM
    }
}

/// The name that etcd logs.
#[must_use]
pub fn name(signal: i32) -> &'static str {
    match signal {
        SIGINT => "interrupt",
        _ => "terminated",
    }
}

/// Ends the process by `signal`, so that who started it sees why; as process 1, where a signal without a handler does
/// nothing, returns 0 for an exit code. Source: etcd `pkg/osutil`.
#[must_use]
pub fn die_by(signal: i32) -> i32 {
    if std::process::id() != 1 {
        // Returns only if the system did not carry it out; leaving with 0 is the next best.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    0
}
