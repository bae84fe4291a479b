//! The log, as this room needs it.

use std::panic::Location;

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who follow the protocol itself.
    Debug,
    /// The normal life of a member.
    Info,
    /// Something is slow, refused or lost, and the member goes on.
    Warn,
    /// Something failed that somebody must look at.
    Error,
}

/// Takes lines for the operator; from every thread, and must not wait.
pub trait Journal: Send + Sync {
    /// One line from `caller`; what operators match on is kept to the letter as etcd writes it.
    fn tell_at(&self, level: Level, caller: &'static Location<'static>, text: &str, fields: &[(&str, String)]);
}

impl dyn Journal + '_ {
    #[track_caller]
    pub(crate) fn debug(&self, text: &str, fields: &[(&str, String)]) {
        self.tell_at(Level::Debug, Location::caller(), text, fields);
    }

    #[track_caller]
    pub(crate) fn info(&self, text: &str, fields: &[(&str, String)]) {
        self.tell_at(Level::Info, Location::caller(), text, fields);
    }

    #[track_caller]
    pub(crate) fn warn(&self, text: &str, fields: &[(&str, String)]) {
        self.tell_at(Level::Warn, Location::caller(), text, fields);
    }

    #[track_caller]
    pub(crate) fn error(&self, text: &str, fields: &[(&str, String)]) {
        self.tell_at(Level::Error, Location::caller(), text, fields);
    }
}

/// Throws everything away; for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoJournal;

impl Journal for NoJournal {
    fn tell_at(&self, _: Level, _: &'static Location<'static>, _: &str, _: &[(&str, String)]) {}
}
