//! Writing keys from many clients at once, at a given pace, and measuring how long each write takes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{IsTerminal as _, Write as _};
use std::rc::Rc;
use std::time::{Duration, Instant};

use milepost_client::{Client, Deadline};
use milepost_proto::etcdserverpb::PutRequest;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

/// What is written.
pub(super) struct Load<'a> {
    pub prefix: &'a str,
    /// Bytes of a key behind the prefix: a random number, then zeros.
    pub key_bytes: usize,
    /// Bytes of a value, all zeros.
    pub value_bytes: usize,
    /// When it ends.
    pub until: Until,
}

/// When a load ends.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// After so long, with so many writes begun in a second.
    Time { duration: Duration, per_second: u32 },
    /// After so many writes, each begun as soon as a client is free.
    Count(usize),
}

/// What came of it.
pub(super) struct Measured {
    /// Seconds of each write that succeeded.
    latencies: Vec<f64>,
    /// Errors in etcdctl's words, and how often each came.
    pub errors: BTreeMap<String, usize>,
    elapsed: Duration,
}

impl Measured {
    pub(super) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Seconds of the slowest write.
    pub(super) fn slowest(&self) -> f64 {
        self.latencies.iter().copied().fold(0.0, f64::max)
    }

    /// Standard deviation in seconds.
    pub(super) fn deviation(&self) -> f64 {
        let count = self.latencies.len().max(1) as f64;
        let mean = self.latencies.iter().sum::<f64>() / count;
        (self.latencies.iter().map(|latency| (latency - mean).powi(2)).sum::<f64>() / count).sqrt()
    }
}

/// Writes until the load ends or the user interrupts; writes that have begun are waited for.
pub(super) async fn run(load: &Load<'_>, clients: Vec<Client>) -> Measured {
    let state = Rc::new(State {
        // Nobody may begin a write without a permit.
        pace: Semaphore::new(0),
        done: Cell::new(0),
        results: RefCell::new((Vec::new(), BTreeMap::new())),
    });
    let random = Rc::new(RandomState::new());
    let value = vec![0; load.value_bytes];
    let began = Instant::now();
    let workers = LocalSet::new();
    for (place, client) in clients.into_iter().enumerate() {
        let (state, random, value) = (state.clone(), random.clone(), value.clone());
        let (prefix, key_bytes) = (load.prefix.as_bytes().to_vec(), load.key_bytes);
        workers.spawn_local(async move {
            let mut writes = 0u64;
            while let Ok(permit) = state.pace.acquire().await {
                permit.forget();
                writes += 1;
                let key = key(&prefix, random.hash_one((place, writes)), key_bytes);
                state.write(&client, key, value.clone()).await;
            }
        });
    }
    let shown = state.clone();
    workers
        .run_until(async {
            tokio::select! {
                () = state.permit(load.until, began) => {}
                // Whoever interrupts wants the keys gone and the figures so far.
                _ = tokio::signal::ctrl_c() => {}
                () = show_progress(&shown, load.until, began) => {}
            }
            state.pace.close();
        })
        .await;
    workers.await;
    end_progress();
    let elapsed = began.elapsed();
    let (latencies, errors) = state.results.take();
    Measured { latencies, errors, elapsed }
}

struct State {
    pace: Semaphore,
    done: Cell<usize>,
    results: RefCell<(Vec<f64>, BTreeMap<String, usize>)>,
}

impl State {
    async fn write(&self, client: &Client, key: Vec<u8>, value: Vec<u8>) {
        let request = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        let began = Instant::now();
        let answer = client.kv().put(request, Deadline::NEVER).await;
        let took = began.elapsed().as_secs_f64();
        let mut results = self.results.borrow_mut();
        match answer {
            Ok(_) => results.0.push(took),
            Err(error) => *results.1.entry(error.to_string()).or_default() += 1,
        }
        self.done.set(self.done.get() + 1);
    }

    /// Hands out permits as the load wants them, and returns when it is over.
    async fn permit(&self, until: Until, began: Instant) {
        match until {
            Until::Count(count) => {
                self.pace.add_permits(count);
                while self.done.get() < count {
                    tokio::time::sleep(TICK).await;
                }
            }
            Until::Time { duration, per_second } => {
                let mut given = 0;
                while began.elapsed() < duration {
                    // Timers are coarser than the pace: what has become due since the last look is given at once.
                    let due = (began.elapsed().as_secs_f64() * f64::from(per_second)) as usize;
                    // A server that is too slow is not owed what it missed.
                    if self.pace.available_permits() == 0 {
                        self.pace.add_permits(due.saturating_sub(given));
                    }
                    given = given.max(due);
                    tokio::time::sleep(TICK).await;
                }
            }
        }
    }
}

/// How often the pace is looked at.
const TICK: Duration = Duration::from_millis(1);

/// How often the progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// `prefix`, a number in seven-bit groups, zeros.
fn key(prefix: &[u8], number: u64, bytes: usize) -> Vec<u8> {
    let mut key = prefix.to_vec();
    let mut rest = number >> 1;
    while rest >= 0x80 {
        key.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    key.push(rest as u8);
    key.resize(prefix.len() + bytes, 0);
    key
}

/// Shows on a terminal how far it is; never returns.
async fn show_progress(state: &State, until: Until, began: Instant) {
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    loop {
        let (now, end) = match until {
            Until::Count(count) => (state.done.get(), count),
            Until::Time { duration, .. } => (began.elapsed().as_secs() as usize, duration.as_secs() as usize),
        };
        let percent = now * 100 / end.max(1);
        let _ = write!(std::io::stderr(), "\r {now} / {end} {percent:>3}% ");
        tokio::time::sleep(SHOW_EVERY).await;
    }
}

fn end_progress() {
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_what_was_measured() {
        let measured =
            Measured { latencies: vec![0.1, 0.3, 0.2, 0.2], errors: BTreeMap::new(), elapsed: Duration::from_secs(2) };
        assert_eq!(measured.per_second(), 2.0);
        assert_eq!(measured.slowest(), 0.3);
        assert!((measured.deviation() - 0.070_710).abs() < 1e-5);
    }

    #[test]
    fn keys_have_their_length() {
        let long = key(b"/p/", u64::MAX, 256);
        assert_eq!((long.len(), &long[..3]), (259, &b"/p/"[..]));
        assert_ne!(key(b"", 2, 8), key(b"", 4, 8));
    }
}
