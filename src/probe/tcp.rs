//! Whether a connection can be made, and if not, in which way it fails: Cloudflare's error follows from that.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, time::timeout};

/// What became of a connection.
#[derive(Debug)]
pub enum Connection {
    /// It is established; this says nothing about a program having accepted it.
    Open(TcpStream),
    /// Refused: by a reset, or by an ICMP message that says so. Cloudflare: 521.
    Refused,
    /// No answer in time. Cloudflare: 522.
    Silent,
    /// There is no way to that address. Cloudflare: 523.
    NoRoute,
    /// Something else went wrong here, and what.
    Failed(String),
}

/// Tries to connect for this long at most.
pub async fn connect(to: SocketAddr, limit: Duration) -> Connection {
    match timeout(limit, TcpStream::connect(to)).await {
        Err(_) => Connection::Silent,
        Ok(Ok(stream)) => Connection::Open(stream),
        Ok(Err(e)) => failed(&e),
    }
}

fn failed(e: &io::Error) -> Connection {
    match e.raw_os_error() {
        // EACCES and EPERM: a rule on the way out, or an ICMP message of that meaning (net/ipv4/icmp.c).
        Some(libc::ECONNREFUSED | libc::EACCES | libc::EPERM | libc::EPROTO) => Connection::Refused,
        Some(libc::ETIMEDOUT) => Connection::Silent,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL) => Connection::NoRoute,
        _ => Connection::Failed(crate::error::io_reason(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_without_a_server_refuses() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let limit = Duration::from_secs(5);
        assert!(matches!(crate::probe::wait(connect(address, limit)).unwrap(), Connection::Open(_)));
        // It listens no more, and nobody else gets its port.
        rustix::net::shutdown(&server, rustix::net::Shutdown::Both).unwrap();
        assert!(matches!(crate::probe::wait(connect(address, limit)).unwrap(), Connection::Refused));
    }
}
