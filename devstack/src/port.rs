//! Free TCP ports of 127.0.0.1.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// Below the ports that Linux gives to outgoing connections (32768 and up). A
/// server that was killed needs its port again; from that range a client that
/// keeps calling the dead server can be handed the very port, even connect to
/// itself, and the server could not come back.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
const ATTEMPTS: usize = 1_000;

/// `N` different ports on which nobody listens now.
///
/// # Errors
/// None was found, which means that something fills the whole range.
pub fn free<const N: usize>() -> Result<[u16; N]> {
    // All are held until the last is found, so that they differ.
    let mut held = Vec::with_capacity(N);
    for _ in 0..ATTEMPTS {
        if held.len() == N {
            break;
        }
        let port = fastrand::u16(RANGE);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
    }
    if held.len() < N {
        bail!("no {N} free ports on 127.0.0.1 among {RANGE:?}: see `ss -tln` for who holds them");
    }
    Ok(std::array::from_fn(|index| held[index].0))
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
}
