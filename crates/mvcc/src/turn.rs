//! Whose turn it is to fill the engine's successor: there is one, for a defragmentation or for an import.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// A lock that may be let go of by another thread than the one that took it.
#[derive(Default)]
pub(crate) struct Turn {
    taken: Mutex<bool>,
    free: Condvar,
}

/// The turn is somebody's while this lives.
pub(crate) struct TurnTaken(Arc<Turn>);

impl Turn {
    /// Waits for it.
    pub fn take(self: &Arc<Self>) -> TurnTaken {
        let mut taken = self.taken.lock();
        while std::mem::replace(&mut *taken, true) {
            self.free.wait(&mut taken);
        }
        TurnTaken(Arc::clone(self))
    }
}

impl Drop for TurnTaken {
    fn drop(&mut self) {
        *self.0.taken.lock() = false;
        self.0.free.notify_one();
    }
}
