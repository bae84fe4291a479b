//! A wire that can be cut.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

/// Passes connections on to a server.
pub struct Relay {
    address: SocketAddr,
    wires: Arc<Mutex<Vec<AbortHandle>>>,
    listener: JoinHandle<()>,
}

impl Relay {
    pub async fn to(server: SocketAddr) -> Relay {
        Relay::at("127.0.0.1:0".parse().unwrap(), server).await
    }

    pub async fn at(address: SocketAddr, server: SocketAddr) -> Relay {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(16).unwrap();
        let address = listener.local_addr().unwrap();
        let wires = Arc::default();
        let listener = tokio::spawn(pass(listener, server, Arc::clone(&wires)));
        Relay { address, wires, listener }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection; new ones are passed on.
    pub fn cut(&self) {
        for wire in self.wires.lock().unwrap().drain(..) {
            wire.abort();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

async fn pass(listener: TcpListener, server: SocketAddr, wires: Arc<Mutex<Vec<AbortHandle>>>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let wire = tokio::spawn(async move {
            let mut far = TcpStream::connect(server).await.expect("the server is there");
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        wires.lock().unwrap().push(wire.abort_handle());
    }
}
