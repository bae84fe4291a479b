//! The waiting half of the hub: a queue, a thread, and handles.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::core::{HubCore, HubOptions, Input, StreamId, StreamOptions};
use super::outbox::{Outbox, Waker};
use super::pace::Pace;
use super::stats::{Counters, HubStats};
use super::{CreateRequest, Frame, History};
use crate::EventBatch;

/// The watch hub: hears of every change and tells whoever watches. A handle; clones are the same hub.
///
/// Its thread ends with [`Hub::stop`] or when the last handle and stream are gone.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
    thread: Arc<HubThread>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Signalled when `queue` gets something while the hub sleeps.
    ready: Condvar,
    /// Watchers asked for and not known to have ended: while zero, batches need not be queued.
    watching: AtomicUsize,
    streams: AtomicU64,
    counters: Arc<Counters>,
    options: HubOptions,
}

#[derive(Default)]
struct Queue {
    inputs: Vec<Input>,
    /// Batches among the inputs.
    batches: usize,
    /// Batches were dropped after the inputs.
    overrun: bool,
    sleep: Sleep,
    stop: bool,
}

/// What the hub's thread waits for on the condition variable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sleep {
    /// It does not wait.
    #[default]
    Awake,
    /// For anything.
    Idle,
    /// For anything but batches, and for a moment: it gathers batches, see [`Pace`].
    Gathering,
}

/// Ends the thread when the last handle is gone.
struct HubThread {
    shared: Arc<Shared>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Hub {
    /// Starts the hub's thread over `history` (the store). `clock` tells the time since some fixed point and never goes back.
    ///
    /// # Panics
    /// If the system refuses a thread.
    #[must_use]
    pub fn start(
        history: impl History + 'static,
        options: HubOptions,
        clock: impl Fn() -> Duration + Send + 'static,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        let core = HubCore::new(Arc::new(history), options, counters.clone());
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            watching: AtomicUsize::new(0),
            streams: AtomicU64::new(0),
            counters,
            options,
        });
        let ours = shared.clone();
        let run = move || Self::run(&ours, core, clock);
        let handle =
            std::thread::Builder::new().name("watch-hub".into()).spawn(run).expect("a thread for the watch hub");
        Self { thread: Arc::new(HubThread { shared: shared.clone(), handle: Mutex::new(Some(handle)) }), shared }
    }

    /// Tells of a batch that the store has published. Called in order of revision, by one thread at a time.
    ///
    /// Never waits for watchers: if the hub is too far behind, the batch is dropped and the watchers read history instead. Costs
    /// one fence and one load while nobody watches.
    pub fn publish(&self, batch: Arc<EventBatch>) {
        // Pairs with the fence in `run`: either this load sees that somebody watches, or the hub sees the store's new revision
        // when it creates the watcher.
        fence(Ordering::SeqCst);
        if self.shared.watching.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut queue = self.shared.queue.lock();
        if queue.overrun || queue.batches >= self.shared.options.queue_batches {
            queue.overrun = true;
            return;
        }
        queue.batches += 1;
        queue.inputs.push(Input::Batch(batch));
        self.shared.wake(queue, true);
    }

    /// Tells that the store's content was replaced (a Raft snapshot was installed): every watcher goes on from its next revision.
    pub fn invalidate(&self) {
        self.shared.input(Input::Invalidate);
    }

    /// Opens a stream. `waker` is called on the hub's thread when the stream has frames again after it had none or all were taken;
    /// it must not block.
    #[must_use]
    pub fn open_stream(&self, waker: Waker, options: StreamOptions) -> Stream {
        let id = StreamId(self.shared.streams.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::new(self.shared.options.bounds, waker, self.shared.counters.clone()));
        self.shared.input(Input::Open(id, outbox.clone(), options));
        Stream { id, outbox, shared: self.shared.clone() }
    }

    /// Counts for metrics.
    #[must_use]
    pub fn stats(&self) -> HubStats {
        self.shared.counters.read()
    }

    /// Ends the thread, after what was queued has been delivered, and wakes every stream: [`Stream::is_ended`] is true then.
    /// Does nothing the second time. Not to be called from a waker.
    pub fn stop(&self) {
        self.shared.stop();
        let handle = self.thread.handle.lock().take();
        if let Some(handle) = handle
            && handle.join().is_err()
        {
            // The panic's own message has been printed by the thread.
            panic!("the watch hub has panicked");
        }
    }

    /// Inputs' worth of memory that the queue keeps, in each of the two places that change roles.
    const KEPT_INPUTS: usize = 1024;

    fn run(shared: &Shared, mut core: HubCore, clock: impl Fn() -> Duration) {
        let mut inputs = Vec::new();
        let mut pace = Pace::new(clock());
        loop {
            let mut queue = shared.queue.lock();
            while queue.is_empty() && !core.is_behind() {
                if queue.stop {
                    drop(queue);
                    return core.end();
                }
                queue.sleep = Sleep::Idle;
                shared.ready.wait(&mut queue);
                queue.sleep = Sleep::Awake;
            }
            // Who reads the past has something to do meanwhile, and whoever asks for something is not kept waiting.
            let wait = if core.is_behind() { Duration::ZERO } else { pace.wait(clock()) };
            while queue.is_batches_alone() && !wait.is_zero() {
                queue.sleep = Sleep::Gathering;
                let timed_out = shared.ready.wait_for(&mut queue, wait).timed_out();
                queue.sleep = Sleep::Awake;
                if timed_out {
                    break;
                }
            }
            mem::swap(&mut inputs, &mut queue.inputs);
            queue.batches = 0;
            let overrun = mem::take(&mut queue.overrun);
            let stop = queue.stop;
            drop(queue);
            fence(Ordering::SeqCst);
            for input in inputs.drain(..) {
                core.step(input);
            }
            if overrun {
                shared.counters.overruns.fetch_add(1, Ordering::Relaxed);
                core.step(Input::Invalidate);
            }
            if inputs.capacity() > Self::KEPT_INPUTS {
                inputs = Vec::new();
            }
            // What happens now is shown before the past is read for others.
            core.flush();
            core.catch_up();
            core.flush();
            shared.watching.fetch_sub(core.take_ended(), Ordering::SeqCst);
            match core.take_delivered() {
                0 => {}
                frames => pace.delivered(frames, clock()),
            }
            if stop {
                return core.end();
            }
        }
    }
}

impl Shared {
    fn input(&self, input: Input) {
        let mut queue = self.queue.lock();
        queue.inputs.push(input);
        self.wake(queue, false);
    }

    /// Wakes the hub's thread, if it waits for what was just queued: a batch or something else.
    fn wake(&self, mut queue: MutexGuard<'_, Queue>, is_batch: bool) {
        let wake = match queue.sleep {
            Sleep::Awake => false,
            Sleep::Idle => true,
            Sleep::Gathering => !is_batch,
        };
        if wake {
            queue.sleep = Sleep::Awake;
        }
        drop(queue);
        if wake {
            self.ready.notify_one();
        }
    }

    fn stop(&self) {
        self.queue.lock().stop = true;
        self.ready.notify_one();
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.inputs.is_empty() && !self.overrun
    }

    fn is_batches_alone(&self) -> bool {
        self.inputs.len() == self.batches && !self.overrun && !self.stop
    }
}

impl Drop for HubThread {
    fn drop(&mut self) {
        // Not joined: the last handle may be dropped by a waker, on that very thread.
        self.shared.stop();
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// One client's watch stream: requests go in, frames come out. Dropping it ends its watchers.
///
/// None of the calls waits. Answers come as frames, in the order of the requests.
pub struct Stream {
    id: StreamId,
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
}

impl Stream {
    /// Asks for a watcher; answered by a frame with `created`.
    ///
    /// Answers are not bounded: whoever reads requests from a client stops reading while [`Stream::waiting`] is high.
    pub fn create(&self, request: CreateRequest) {
        self.shared.watching.fetch_add(1, Ordering::SeqCst);
        self.shared.input(Input::Create(self.id, request));
    }

    /// Ends a watcher; answered by a frame with `canceled`, or not at all if there is none of that id. Its events may still come
    /// before the answer.
    pub fn cancel(&self, watch_id: i64) {
        self.shared.input(Input::Cancel(self.id, watch_id));
    }

    /// Answers a create that failed elsewhere (permission), in its turn.
    pub fn refuse(&self, reason: &'static str) {
        self.shared.input(Input::Refuse(self.id, reason));
    }

    /// Asks how far the stream is; answered if all its watchers are synced.
    pub fn progress_request(&self) {
        self.shared.input(Input::ProgressRequest(self.id));
    }

    /// Says that the stream's progress interval has passed (etcd: 10 minutes and up to a tenth).
    pub fn progress_tick(&self) {
        self.shared.input(Input::ProgressTick(self.id));
    }

    /// Moves what is ready to the end of `out`. Call it when woken, and when everything taken before has been passed on, not
    /// earlier: what was taken no longer counts against the stream's bounds.
    pub fn take(&self, out: &mut Vec<Frame>) {
        if self.outbox.take(out) {
            self.shared.input(Input::Drained(self.id));
        }
    }

    /// Frames that wait to be taken.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// The hub was stopped: nothing comes after what waits.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.outbox.is_ended()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.input(Input::Close(self.id));
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}
