//! Rewriting the store when somebody asks: one run at a time, on a thread of its own.

use super::shared::Shared;
use crate::log::{Log, Value};
use milepost_mvcc::{Store, StoreError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Told how a defragmentation ended, or why it did not, on its thread: must be short.
pub type DefragmentDone = Box<dyn FnOnce(Result<(), String>) + Send>;

/// Who wants the store rewritten.
#[derive(Default)]
pub(crate) struct Defragmenter(Mutex<State>);

#[derive(Default)]
struct State {
    /// Not yet begun with; the next run is for all of them.
    waiting: Vec<DefragmentDone>,
    /// A run is under way, or about to begin.
    running: bool,
    thread: Option<JoinHandle<()>>,
    stopped: bool,
}

impl Defragmenter {
    /// Rewrites the store, after the run that is under way if there is one, and says so to `done`.
    pub fn ask(&self, shared: &Arc<Shared>, done: DefragmentDone) {
        let mut state = self.0.lock();
        if state.stopped {
            drop(state);
            return done(Err(StoreError::Closed.to_string()));
        }
        state.waiting.push(done);
        // A thread that panicked looks at nothing any more.
        if state.running && state.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let ours = Arc::clone(shared);
        match std::thread::Builder::new().name("defragment".into()).spawn(move || ours.defragmenter.run(&ours)) {
            Ok(thread) => {
                state.running = true;
                // The one before has ended, or is about to.
                state.thread = Some(thread);
            }
            Err(error) => {
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                tell(
                    waiting,
                    &Err(format!("cannot start a thread: {error}; raise the limit of processes (ulimit -u)")),
                );
            }
        }
    }

    fn run(&self, shared: &Shared) {
        loop {
            let waiting = {
                let mut state = self.0.lock();
                state.running = !state.waiting.is_empty();
                if !state.running {
                    return;
                }
                std::mem::take(&mut state.waiting)
            };
            tell(waiting, &defragment(&shared.store(), &*shared.log).map_err(|error| error.to_string()));
        }
    }

    /// Takes no more wishes, and waits for the run under way. The store must be closed: that ends it.
    pub fn stop(&self) {
        let (waiting, thread) = {
            let mut state = self.0.lock();
            state.stopped = true;
            (std::mem::take(&mut state.waiting), state.thread.take())
        };
        tell(waiting, &Err(StoreError::Closed.to_string()));
        // The last handle to the node may be held by who was told, on that very thread. A thread that panicked has said so.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

fn tell(waiting: Vec<DefragmentDone>, result: &Result<(), String>) {
    waiting.into_iter().for_each(|done| done(result.clone()));
}

fn defragment(store: &Store, log: &dyn Log) -> Result<(), StoreError> {
    let before = store.sizes();
    log.info("defragmenting", &sizes(before));
    match store.defragment() {
        Ok(()) => {
            let after = store.sizes();
            let mut fields = sizes(after).to_vec();
            fields.push(("current-db-size-bytes-diff", difference(before.file, after.file)));
            fields.push(("current-db-size-in-use-bytes-diff", difference(before.in_use, after.in_use)));
            log.info("finished defragmenting directory", &fields);
            Ok(())
        }
        Err(error) => {
            log.warn("failed to defragment", &[("error", error.to_string().into())]);
            Err(error)
        }
    }
}

/// Rewrites the store if that gives back at least `threshold` bytes; 0: never. Source: etcd `maybeDefragBackend`.
pub(crate) fn at_start(store: &Store, threshold: u64, log: &dyn Log) -> Result<(), StoreError> {
    if threshold == 0 {
        return Ok(());
    }
    let now = store.sizes();
    if now.file.saturating_sub(now.in_use) >= threshold {
        return defragment(store, log);
    }
    let mut fields = sizes(now).to_vec();
    fields.push(("bootstrap-defrag-threshold-bytes", threshold.into()));
    log.info("Skipping defragmentation", &fields);
    Ok(())
}

fn sizes(sizes: milepost_mvcc::Sizes) -> [(&'static str, Value); 2] {
    [("current-db-size-bytes", sizes.file.into()), ("current-db-size-in-use-bytes", sizes.in_use.into())]
}

fn difference(before: u64, after: u64) -> Value {
    Value::Int(after.cast_signed().wrapping_sub(before.cast_signed()))
}
