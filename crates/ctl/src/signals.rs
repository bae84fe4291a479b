//! Being asked to stop, by a command that has something to tidy up.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::outcome::{Failure, Outcome, exit};

/// From its making on, interrupts and terminations no longer end the process.
pub struct Stop {
    interrupt: Signal,
    /// `None`: the command cares about interrupts only.
    terminate: Option<Signal>,
}

impl Stop {
    /// Hears Ctrl-C and SIGTERM.
    ///
    /// # Errors
    /// The system lets us hear of no signals.
    pub fn new() -> Outcome<Stop> {
        Ok(Stop { terminate: Some(hear(SignalKind::terminate())?), ..Stop::on_interrupt()? })
    }

    /// Hears Ctrl-C alone.
    ///
    /// # Errors
    /// As [`Stop::new`].
    pub fn on_interrupt() -> Outcome<Stop> {
        Ok(Stop { interrupt: hear(SignalKind::interrupt())?, terminate: None })
    }

    /// Waits to be asked. Cancel-safe.
    pub async fn asked(&mut self) {
        match &mut self.terminate {
            None => {
                self.interrupt.recv().await;
            }
            Some(terminate) => tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = terminate.recv() => {}
            },
        }
    }
}

fn hear(kind: SignalKind) -> Outcome<Signal> {
    signal(kind).map_err(|error| Failure::new(exit::ERROR, format!("cannot listen for signals: {error}")))
}
