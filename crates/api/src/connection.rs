//! What is known of a connection before its first request.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::config::Role;

/// One client's connection. Shared by its requests; whoever goes on using the socket after them (a WebSocket) keeps a
/// clone, so that the connection stays counted.
pub(crate) struct Connection {
    /// What its listener serves.
    pub(crate) role: Role,
    /// It came through TLS.
    pub(crate) is_tls: bool,
    /// Closes the connection at once.
    pub(crate) hang_up: Arc<Notify>,
    _seat: Seat,
}

impl Connection {
    pub(crate) fn new(role: Role, is_tls: bool, seat: Seat) -> Self {
        Self { role, is_tls, hang_up: Arc::default(), _seat: seat }
    }
}

/// A place among the connections of a door.
pub(crate) struct Seat {
    seats: Rc<Seats>,
    /// One of the sockets that clients may have open; given back with the seat.
    _socket: OwnedSemaphorePermit,
}

/// How many connections a door has.
#[derive(Default)]
pub(crate) struct Seats {
    taken: Cell<usize>,
    /// Told when a connection has ended.
    left: Notify,
}

impl Seats {
    pub(crate) fn take(self: &Rc<Self>, socket: OwnedSemaphorePermit) -> Seat {
        self.taken.set(self.taken.get() + 1);
        Seat { seats: Rc::clone(self), _socket: socket }
    }

    /// Waits until nobody is here.
    pub(crate) async fn everyone_left(&self) {
        while self.taken.get() > 0 {
            self.left.notified().await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.set(self.seats.taken.get() - 1);
        self.seats.left.notify_one();
    }
}
