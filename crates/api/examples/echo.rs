//! Measures the doors alone: a member that answers every put from memory, on a thread of its own, in batches.
//!
//! `cargo run --release -p milepost-api --example echo -- 127.0.0.1:2379` serves until it is killed and prints CPU
//! microseconds per request once a second.

#[path = "../tests/support/fake.rs"]
mod fake;

use std::sync::Arc;
use std::time::Duration;

use milepost_api::{ApiConfig, Doors, Listen};

fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2379".into());
    let address: std::net::SocketAddr = address.parse().expect("an address like 127.0.0.1:2379");
    let listen = vec![Listen::Tcp { host: address.ip().to_string(), port: address.port() }];
    let fake = Arc::new(fake::Fake::new());
    let _doors = Doors::start(ApiConfig { listen, ..ApiConfig::default() }, fake.clone()).expect("the doors open");
    let mut before = (0, cpu());
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = (fake.puts(), cpu());
        let (puts, cpu) = (now.0 - before.0, now.1 - before.1);
        if puts > 0 {
            println!("{puts} puts/s, {:.1} us CPU each", cpu.as_secs_f64() * 1e6 / puts as f64);
        }
        before = now;
    }
}

/// CPU time of this process: fields utime and stime of /proc/self/stat, in hundredths of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let after_name = stat.rsplit(')').next().expect("a process has a name");
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}
