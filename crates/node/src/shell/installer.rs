//! The one snapshot that is on its way in.

use crate::install::InstallError;
use milepost_mvcc::Imported;
use parking_lot::{Condvar, Mutex};

/// At most one is under way, from its first byte until the state machine works with it.
#[derive(Default)]
pub(crate) struct Installer {
    state: Mutex<State>,
    /// An import has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    under_way: bool,
    /// It is being read into a store beside the one that counts.
    importing: bool,
    /// It has been, and Raft has it or is about to.
    ready: Option<(u64, Imported)>,
    closed: bool,
}

/// Gives the place free again, unless it was handed on.
pub(crate) struct Begun<'i>(Option<&'i Installer>);

/// See [`Installer::importing`].
pub(crate) struct Importing<'i>(&'i Installer);

impl Installer {
    /// Takes the place.
    pub fn begin(&self) -> Result<Begun<'_>, InstallError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(InstallError::Stopped);
        }
        if std::mem::replace(&mut state.under_way, true) {
            return Err(InstallError::Busy);
        }
        Ok(Begun(Some(self)))
    }

    /// While it lives the node's end waits: files of the store are being written.
    pub fn importing(&self) -> Result<Importing<'_>, InstallError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(InstallError::Stopped);
        }
        state.importing = true;
        Ok(Importing(self))
    }

    /// The import of the snapshot at `index`, if that is what waits.
    pub fn take(&self, index: u64) -> Option<Imported> {
        let mut state = self.state.lock();
        if state.ready.as_ref().is_some_and(|(ready, _)| *ready == index) {
            return state.ready.take().map(|(_, imported)| imported);
        }
        None
    }

    /// The state machine works with it, or nobody wants it: the next may come.
    pub fn finish(&self) {
        self.state.lock().under_way = false;
    }

    /// No more; waits for the import under way, which ends by itself once its store is closed. What is ready is removed.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        while state.importing {
            self.ended.wait(&mut state);
        }
        let ready = state.ready.take();
        drop(state);
        drop(ready);
    }
}

impl Begun<'_> {
    /// Hands the place on: to whoever takes the import, or says [`Installer::finish`].
    pub fn ready(mut self, index: u64, imported: Option<Imported>) {
        let Some(installer) = self.0.take() else { return };
        let mut state = installer.state.lock();
        if !state.closed {
            state.ready = imported.map(|imported| (index, imported));
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(installer) = self.0 {
            installer.finish();
        }
    }
}

impl Drop for Importing<'_> {
    fn drop(&mut self) {
        self.0.state.lock().importing = false;
        self.0.ended.notify_all();
    }
}
