//! Leases that are kept alive, across broken connections.
//!
//! One task holds one stream for all leases of a group: those that are due within a moment of each other are renewed in
//! one write. A lease is renewed every third of its time; while no answer comes, twice a second. It is given up when its
//! time has passed without an answer: then the server may have ended it, and pretending otherwise would be a lie to
//! whoever holds a lock by it.

use std::collections::BTreeMap;
use std::time::Duration;

use milepost_proto::etcdserverpb as pb;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Code, Error};
use crate::line::{Heard, Line};
use crate::method;

/// Answers that wait for a reader; one that lags behind loses the rest, not its lease.
const ANSWERS_MAX: usize = 16;

/// How often a request is repeated that got no answer, and the wait before a stream is opened again. etcd:
/// `client/v3/lease.go`.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// What is due so soon is sent at once, together with what is due now.
const TOGETHER: Duration = Duration::from_millis(50);

/// How long a lease may wait for its first answer if there is no dial timeout to go by. etcd: the same.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// Leases that share one stream to the server.
pub struct KeepAlives {
    commands: mpsc::UnboundedSender<Command>,
}

/// The answers for one lease. Dropping it ends the renewals; the lease then runs out by itself.
pub struct KeepAlive {
    lease: i64,
    answers: mpsc::Receiver<pb::LeaseKeepAliveResponse>,
    commands: mpsc::UnboundedSender<Command>,
}

enum Command {
    Add { lease: i64, answers: mpsc::Sender<pb::LeaseKeepAliveResponse> },
    Drop(i64),
}

impl Client {
    /// A group of leases to keep alive. Must be called inside of a runtime.
    #[must_use]
    pub fn keep_alives(&self) -> KeepAlives {
        let (commands, inbox) = mpsc::unbounded_channel();
        let keeper = Keeper { client: self.clone(), inbox, leases: BTreeMap::new(), line: Line::Idle, opener: 0 };
        tokio::spawn(keeper.run());
        KeepAlives { commands }
    }

    /// Keeps one lease alive, by a stream of its own.
    #[must_use]
    pub fn keep_alive(&self, lease: i64) -> KeepAlive {
        self.keep_alives().add(lease)
    }

    /// Renews a lease once.
    ///
    /// # Errors
    /// `etcdserver: requested lease not found`, or why the server could not be asked.
    pub async fn keep_alive_once(&self, lease: i64, deadline: Deadline) -> Result<pb::LeaseKeepAliveResponse, Error> {
        let request = pb::LeaseKeepAliveRequest { id: lease };
        loop {
            let answer = async {
                let mut stream = self.stream(&method::LEASE_KEEP_ALIVE, &request, true, false, deadline).await?;
                stream.next().await?.ok_or_else(|| Error::unavailable("EOF"))
            };
            match answer.await {
                Ok(pb::LeaseKeepAliveResponse { ttl: ..=0, .. }) => {
                    return Err(Error::status(Code::NotFound, "etcdserver: requested lease not found"));
                }
                Ok(answer) => return Ok(answer),
                // Renewing twice does no harm.
                Err(error) if matches!(error.code(), Code::Unavailable | Code::Internal) => {
                    let wait = async {
                        tokio::time::sleep(RETRY_EVERY).await;
                        Ok(())
                    };
                    deadline.bound(wait).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl KeepAlives {
    /// Keeps `lease` alive from now on. A lease must be added only once at a time.
    pub fn add(&self, lease: i64) -> KeepAlive {
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        // The keeper lives as long as anybody can send to it.
        let _ = self.commands.send(Command::Add { lease, answers: sender });
        KeepAlive { lease, answers, commands: self.commands.clone() }
    }
}

impl KeepAlive {
    /// The next answer of the server; `None` once the lease has ended or was not heard of for its time. Cancel-safe.
    pub async fn next(&mut self) -> Option<pb::LeaseKeepAliveResponse> {
        self.answers.recv().await
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Drop(self.lease));
    }
}

/// The task of a group.
struct Keeper {
    client: Client,
    inbox: mpsc::UnboundedReceiver<Command>,
    leases: BTreeMap<i64, Kept>,
    line: Line<pb::LeaseKeepAliveResponse>,
    /// The lease whose request opens the line.
    opener: i64,
}

struct Kept {
    answers: mpsc::Sender<pb::LeaseKeepAliveResponse>,
    /// When the lease counts as lost.
    end: Instant,
    /// When it is renewed next.
    next: Instant,
    /// It was due while the line was opening for another lease.
    is_missed: bool,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let wake = self.leases.values().map(|kept| kept.end.min(kept.next)).min();
            tokio::select! {
                command = self.inbox.recv() => match command {
                    Some(command) => self.asked(command),
                    None => return,
                },
                heard = self.line.hear() => match heard {
                    Heard::Opened => self.opened(),
                    Heard::Answer(answer) => self.answered(answer),
                    Heard::Ended(_) => self.pause(),
                },
                () = sleep_until(wake) => self.woken(Instant::now()),
            }
        }
    }

    fn asked(&mut self, command: Command) {
        match command {
            Command::Add { lease, answers } => {
                let now = Instant::now();
                let wait = match self.client.dial_timeout() {
                    Duration::ZERO => FIRST_WAIT,
                    dial => dial + Duration::from_secs(1),
                };
                self.leases.insert(lease, Kept { answers, end: now + wait, next: now, is_missed: false });
            }
            Command::Drop(lease) => {
                self.leases.remove(&lease);
            }
        }
    }

    fn answered(&mut self, answer: pb::LeaseKeepAliveResponse) {
        let Some(kept) = self.leases.get_mut(&answer.id) else { return };
        let Some(time) = u64::try_from(answer.ttl).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs) else {
            // It has ended; so does its reader's wait.
            self.leases.remove(&answer.id);
            return;
        };
        let now = Instant::now();
        kept.end = now + time;
        kept.next = now + time / 3;
        let _ = kept.answers.try_send(answer);
    }

    /// The stream broke: everybody's next renewal opens another, a little later.
    fn pause(&mut self) {
        let later = Instant::now() + RETRY_EVERY;
        for kept in self.leases.values_mut() {
            kept.next = kept.next.max(later);
        }
    }

    fn woken(&mut self, now: Instant) {
        self.leases.retain(|_, kept| kept.end > now);
        for (lease, kept) in &mut self.leases {
            if kept.next > now + TOGETHER {
                continue;
            }
            kept.next = now + RETRY_EVERY;
            let request = pb::LeaseKeepAliveRequest { id: *lease };
            match &mut self.line {
                Line::Idle => {
                    self.opener = *lease;
                    self.line.open(&self.client, &method::LEASE_KEEP_ALIVE, request, true, Duration::ZERO);
                }
                Line::Opening(_) => kept.is_missed = *lease != self.opener,
                line @ Line::Open(_) => line.send(&request),
            }
        }
    }

    /// Catches up on what was due meanwhile.
    fn opened(&mut self) {
        for (lease, kept) in &mut self.leases {
            if std::mem::take(&mut kept.is_missed) {
                self.line.send(&pb::LeaseKeepAliveRequest { id: *lease });
            }
        }
    }
}

/// For ever if there is nothing to wait for.
async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
