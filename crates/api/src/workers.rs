//! Threads for work that would keep a door's clients waiting: long reads, long answers, look-ups of names.
//!
//! One pool for all doors. A thread is made when all others are busy, and leaves when it has had nothing to do for a
//! while. Unlike tokio's own pool, which panics – and so ends the member – when the system gives it no first thread,
//! this one says no.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::door::confused;
use crate::ration;
use crate::status::{Code, Status};

/// Threads at most; more work waits for one. As many as tokio would make.
const THREADS_MAX: usize = 512;
/// How long a thread waits for more work before it leaves. As in tokio.
const IDLE: Duration = Duration::from_secs(10);

static POOL: Pool = Pool::new(|pool| {
    let thread = std::thread::Builder::new().name("worker".into());
    let work = || {
        pool.work();
        // Nobody has listed much for a while.
        ration::rest();
    };
    thread.spawn(work).map(drop)
});

/// Does `work` on a thread of the pool. A caller that is dropped does not stop it.
///
/// # Errors
/// The system gives no thread, and nothing was done; or `work` panicked.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    POOL.run(work).await
}

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    /// Starts a thread that calls [`Pool::work`].
    spawn: fn(&'static Pool) -> io::Result<()>,
    /// Held for moments, never across work.
    state: Mutex<State>,
    /// Told when there is work for a thread that has none.
    more: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Those of them that wait for work.
    idle: usize,
}

impl Pool {
    const fn new(spawn: fn(&'static Pool) -> io::Result<()>) -> Self {
        Self { spawn, state: Mutex::new(State { jobs: VecDeque::new(), threads: 0, idle: 0 }), more: Condvar::new() }
    }

    async fn run<T: Send + 'static>(&'static self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
        let (done, is_done) = oneshot::channel();
        // Who has stopped waiting does not want the result.
        let given = self.give(Box::new(move || drop(done.send(work()))));
        given.map_err(|why| {
            let text =
                format!("etcdserver: no thread for the request: {why}; raise the limit of processes (ulimit -u)");
            Status::with(Code::ResourceExhausted, text)
        })?;
        is_done.await.map_err(|_| confused("a thread broke off"))
    }

    /// # Errors
    /// No thread is there, and none can be had.
    fn give(&'static self, job: Job) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.idle <= state.jobs.len() && state.threads < THREADS_MAX {
            match (self.spawn)(self) {
                Ok(()) => state.threads += 1,
                Err(why) if state.threads == 0 => return Err(why),
                // One that is busy will come to it.
                Err(_) => {}
            }
        }
        state.jobs.push_back(job);
        self.more.notify_one();
        Ok(())
    }

    /// What a thread does.
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                // A panic has said so already; whoever waits for the job hears that it broke off.
                let _ = MutexGuard::unlocked(&mut state, || catch_unwind(AssertUnwindSafe(job)));
                continue;
            }
            state.idle += 1;
            let is_late = self.more.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if is_late && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn pool(spawn: fn(&'static Pool) -> io::Result<()>) -> &'static Pool {
        Box::leak(Box::new(Pool::new(spawn)))
    }

    fn new_thread(pool: &'static Pool) -> io::Result<()> {
        std::thread::Builder::new().spawn(|| pool.work()).map(drop)
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn without_any_thread_the_request_is_refused() {
        let pool = pool(|_| Err(io::ErrorKind::WouldBlock.into()));
        let why = wait(pool.run(|| unreachable!("there is no thread"))).map(|()| 0).unwrap_err();
        assert_eq!(why.code, Code::ResourceExhausted);
        assert!(why.message.contains("raise the limit of processes"), "{}", why.message);
        assert!(pool.state.lock().jobs.is_empty(), "what was refused is not done later");
    }

    #[test]
    fn without_another_thread_work_waits_for_one() {
        static MADE: std::sync::Once = std::sync::Once::new();
        let pool = pool(|pool| {
            let mut made = Err(io::ErrorKind::WouldBlock.into());
            MADE.call_once(|| made = new_thread(pool));
            made
        });
        let (free, is_free) = mpsc::channel::<()>();
        wait(async {
            let held = pool.run(move || is_free.recv().is_err());
            let next = pool.run(|| std::thread::current().id());
            // Polled in this order: both are handed over before the first is let go.
            let (held, next, ()) = tokio::join!(held, next, async { drop(free) });
            assert_eq!(held, Ok(true));
            next.unwrap();
        });
        assert_eq!(pool.state.lock().threads, 1);
    }

    #[test]
    fn panics_reach_who_waits() {
        let pool = pool(new_thread);
        let broken = wait(pool.run(|| panic!("on purpose")));
        assert_eq!(broken.map(|()| 0).unwrap_err().code, Code::Internal);
        assert_eq!(wait(pool.run(|| 7)), Ok(7));
    }

    #[test]
    fn busy_threads_keep_nobody_waiting() {
        let pool = pool(new_thread);
        let (first, second) = mpsc::channel();
        wait(async {
            // Each waits for the other.
            let (there, here) = mpsc::channel();
            let one = pool.run(move || (first.send(1).unwrap(), here.recv().unwrap()).1);
            let other = pool.run(move || (there.send(2).unwrap(), second.recv().unwrap()).1);
            assert_eq!(tokio::join!(one, other), (Ok(2), Ok(1)));
        });
        assert_eq!(pool.state.lock().threads, 2);
    }
}
