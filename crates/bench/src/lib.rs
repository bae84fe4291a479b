//! The instrument: `milepost bench` loads a server with requests, and says what they cost.
//!
//! What happens here: requests of one kind are made, sent over HTTP/2 and timed; what the server's process spent
//! meanwhile is read from `/proc`, its syncs from `/metrics`; a sample of the answers is compared with what they must
//! be. It works against any server that speaks etcd's client API.
//!
//! ```text
//!  args ──► options ──► plan: fill ─► warm up ─► measure ─► read back         (phases, one after the other)
//!                                        │
//!                 tickets 0,1,2,… ───────┤   one counter; in an open loop a pacer lets tickets out on time
//!                                        ▼
//!            thread ┬ connection ┬ client ── work.encode(n) ──► h2 ──► server
//!                   │            └ client ◄─ work.check(n)  ◄──  │
//!                   └ …            │ latency, errors, samples    │
//!                                  ▼                             ▼
//!                               outcome ──► report ◄── /proc/PID, /metrics before and after
//! ```
//!
//! The n-th request is a function of n, the seed and the sizes: nothing is remembered about what was sent, and the
//! read-back makes the same bytes again. Requests go straight onto the `h2` crate, one thread with one runtime by
//! default, because on a small machine every microsecond of the generator is one that the server does not get.
//!
//! What never happens here: a retry (an error is a failure of the run), a client-side cache, a sleep inside the
//! closed loop, TLS of its own (the client's dialler shakes hands, this room knows the pipe alone). Latency in an open
//! loop counts from the moment when a request was due, not from when a free client was found for it, so that a stalled
//! server cannot hide (no coordinated omission).

mod args;
mod commits;
mod endpoint;
mod expiry;
mod fanout;
mod gathered;
mod glance;
mod grpc;
mod keys;
mod load;
mod meter;
mod metrics;
mod options;
mod plan;
mod proc;
mod report;
mod table;
mod tickets;
mod work;

use std::ffi::OsString;

/// Exit status when a flag is wrong: nothing was sent.
const EXIT_USAGE: i32 = 2;

/// Runs `milepost bench`; `args` are the words after `bench`. Returns the exit status: 0 when every request was
/// answered and every compared answer was right, 1 after any error, 2 for a wrong flag.
pub fn run(args: Vec<OsString>) -> i32 {
    let options = match options::parse(args) {
        Ok(options::Asked::Run(options)) => options,
        Ok(options::Asked::Help(text)) => {
            println!("{text}");
            return 0;
        }
        Err(error) => {
            eprintln!("milepost bench: {error}");
            return EXIT_USAGE;
        }
    };
    match plan::execute(&options) {
        Ok(report) => {
            println!("{}", if options.json { report.json() } else { report.text() });
            i32::from(!report.clean())
        }
        Err(error) => {
            eprintln!("milepost bench: {error}");
            1
        }
    }
}
