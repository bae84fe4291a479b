//! Opening the bytes below HTTP/2: TCP or a Unix socket.

use std::io;
use std::time::Duration;

use milepost_types::refused::worded;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::endpoint::{Address, Endpoint};

/// A connected pipe, whatever it is made of.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// One attempt to connect may take so long, as in gRPC libraries.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);

/// Connects to `endpoint`. The error is what grpc-go logs about it.
pub(crate) async fn dial(endpoint: &Endpoint) -> Result<Box<dyn Pipe>, String> {
    let attempt = tokio::time::timeout(ATTEMPT_MAX, open(endpoint)).await;
    let (network, address) = match &endpoint.address {
        Address::Tcp(address) => ("tcp", address),
        Address::Unix(path) => ("unix", path),
    };
    let cause = match attempt {
        Ok(Ok(pipe)) => return Ok(pipe),
        Ok(Err(error)) => worded(&error),
        Err(_) => "i/o timeout".to_owned(),
    };
    Err(format!("connection error: desc = \"transport: Error while dialing: dial {network} {address}: {cause}\""))
}

async fn open(endpoint: &Endpoint) -> io::Result<Box<dyn Pipe>> {
    Ok(match &endpoint.address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}
