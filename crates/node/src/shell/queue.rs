//! A mailbox for one thread that takes everything at once.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Many put, one takes. Unbounded by itself: each use says what bounds it.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { items: Vec::new(), closed: false }), arrived: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Puts one in; it comes back if the queue is closed.
    pub fn push(&self, item: T) -> Result<(), T> {
        self.lay(item)?;
        self.wake();
        Ok(())
    }

    /// As [`Queue::push`], but nobody is told: whoever lays it there takes it out again, or calls [`Queue::wake`].
    pub fn lay(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push(item);
        Ok(())
    }

    /// Tells the taker that something waits.
    pub fn wake(&self) {
        // Costs a system call only while the thread is parked.
        self.arrived.notify_one();
    }

    /// Nothing goes in any more; what is in can still be taken.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_one();
    }

    /// The taker gives up: nothing goes in any more, and what is in is dropped, so that whoever waits for an answer to it
    /// hears that none will come.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.items);
        drop(state);
        drop(dropped);
    }

    /// Does nothing wait?
    pub fn is_empty(&self) -> bool {
        self.state.lock().items.is_empty()
    }

    /// Looks at what waits.
    pub fn look<R>(&self, look: impl FnOnce(&[T]) -> R) -> R {
        look(&self.state.lock().items)
    }

    /// Swaps everything into `taken`, which must be empty; waits for something to come, or for `timeout`.
    ///
    /// False once the queue is closed and nothing is left.
    pub fn take(&self, taken: &mut Vec<T>, timeout: Option<Duration>) -> bool {
        let mut state = self.state.lock();
        self.wait_with(&mut state, timeout);
        std::mem::swap(&mut state.items, taken);
        !(taken.is_empty() && state.closed)
    }

    /// Waits until something can be taken, or for `timeout`; false once the queue is closed and nothing is left.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let mut state = self.state.lock();
        self.wait_with(&mut state, timeout);
        !(state.items.is_empty() && state.closed)
    }

    fn wait_with(&self, state: &mut MutexGuard<'_, State<T>>, timeout: Option<Duration>) {
        let is_idle = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        match timeout {
            None => self.arrived.wait_while(state, is_idle),
            Some(timeout) => _ = self.arrived.wait_while_for(state, is_idle, timeout),
        }
    }

    /// Swaps what is there into `taken`, which must be empty; false if it may not be all that was meant to go in, since the
    /// queue is closed.
    pub fn take_now(&self, taken: &mut Vec<T>) -> bool {
        let mut state = self.state.lock();
        std::mem::swap(&mut state.items, taken);
        !state.closed
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn everything_comes_in_order_until_closed() {
        let queue = Arc::new(Queue::default());
        let writer = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                for number in 0..10_000 {
                    queue.push(number).expect("open");
                }
                queue.close();
                assert_eq!(queue.push(0), Err(0));
            })
        };
        let (mut all, mut taken) = (Vec::new(), Vec::new());
        while queue.take(&mut taken, None) {
            all.append(&mut taken);
        }
        writer.join().expect("the writer ends");
        assert_eq!(all, (0..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_laid_there_is_found_by_who_comes_first() {
        let queue = Queue::default();
        queue.lay(1).expect("open");
        let mut taken = Vec::new();
        queue.take_now(&mut taken);
        assert_eq!(taken, [1]);
        queue.lay(2).expect("open");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| queue.wait(None));
            queue.wake();
            assert!(waits.join().expect("it ends"));
        });
        queue.close();
        assert!(queue.wait(None), "what is in can still be taken");
        taken.clear();
        queue.take_now(&mut taken);
        assert_eq!((taken, queue.wait(None), queue.lay(3)), (vec![2], false, Err(3)));
    }

    #[test]
    fn who_waits_for_an_abandoned_job_hears_of_it() {
        let queue = Queue::default();
        let (done, answer) = std::sync::mpsc::sync_channel::<()>(1);
        queue.push(done).expect("open");
        queue.abandon();
        assert!(answer.recv().is_err());
        let (done, _) = std::sync::mpsc::sync_channel::<()>(1);
        assert!(queue.push(done).is_err());
    }

    #[test]
    fn a_wait_ends_by_time() {
        let queue: Queue<u8> = Queue::default();
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken, Some(Duration::from_millis(1))));
        assert!(taken.is_empty());
    }
}
