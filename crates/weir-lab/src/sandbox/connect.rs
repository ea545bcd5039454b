// SPDX-License-Identifier: Apache-2.0
//! Connections of clients, also from a port that had one before.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::sleep};

use super::socket;
use crate::protocol::{Path, Protocol};

/// How long the last connection from the same port may take to be closed, and how often it is looked at.
const CLOSING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// A connection. From a port that the caller names there is none to the same place before the last one is closed at both
/// ends (Linux allows it from `TIME_WAIT` on), and a busy server takes its time.
pub(crate) async fn connect(path: &Path, protocol: Protocol) -> io::Result<TcpStream> {
    let end = Instant::now() + CLOSING;
    loop {
        match socket::open_client(protocol, path) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrNotAvailable
                    && path.source_port.is_some()
                    && Instant::now() < end =>
            {
                sleep(LOOK).await;
            }
            opened => return socket::connected(opened?).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_that_is_named_is_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let server = TcpListener::bind(any).await.unwrap();
            let free = TcpListener::bind(any).await.unwrap().local_addr().unwrap();
            let path = Path {
                destination: server.local_addr().unwrap(),
                source: Some(free.ip()),
                source_port: Some(free.port()),
                timeout_ms: 1000,
            };
            let first = connect(&path, Protocol::Tcp).await.unwrap();
            let (at_server, _) = server.accept().await.unwrap();
            drop(first);
            let refused = socket::open_client(Protocol::Tcp, &path).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AddrNotAvailable);
            let closes = async {
                sleep(LOOK * 3).await;
                drop(at_server);
            };
            let (again, ()) = tokio::join!(connect(&path, Protocol::Tcp), closes);
            again.unwrap();
        });
    }
}
