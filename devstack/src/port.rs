//! Free TCP ports of 127.0.0.1.
//!
//! Between the moment a port is found free and the one its server listens on it, and again while a server that was
//! killed is away, anybody else could be given it. So whoever finds a port binds an abstract socket with its number for a
//! name and keeps that until its process ends: no two processes that ask here ever share one.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

/// Below the ports that Linux gives to outgoing connections (32768 and up). A
/// server that was killed needs its port again; from that range a client that
/// keeps calling the dead server can be handed the very port, even connect to
/// itself, and the server could not come back.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
const ATTEMPTS: usize = 1_000;

/// The ports of this process, held until it ends.
static HELD: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());

/// `N` different ports on which nobody listens now, and which nobody else is given while this process lives.
///
/// # Errors
/// None was found, which means that something fills the whole range.
pub fn free<const N: usize>() -> Result<[u16; N]> {
    let mut ports = Vec::with_capacity(N);
    for _ in 0..ATTEMPTS {
        if ports.len() == N {
            break;
        }
        let port = fastrand::u16(RANGE);
        let Some(claim) = claim(port) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
            ports.push(port);
        }
    }
    if ports.len() < N {
        bail!("no {N} free ports on 127.0.0.1 among {RANGE:?}: see `ss -tln` for who holds them");
    }
    Ok(std::array::from_fn(|index| ports[index]))
}

/// What is kept for as long as a port is, unless somebody has it, this process included.
fn claim(port: u16) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("devstack-port-{port}")).ok()?;
    UnixDatagram::bind_addr(&name).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_can_be_bound() {
        let ports = free::<8>().unwrap();
        let _listeners: Vec<TcpListener> =
            ports.iter().map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).unwrap()).collect();
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }

    #[test]
    fn what_one_was_given_nobody_else_is() {
        let mut all: Vec<u16> = (0..100).flat_map(|_| free::<4>().unwrap()).collect();
        assert!(all.iter().all(|port| claim(*port).is_none()));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 400);
    }
}
