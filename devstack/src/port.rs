//! Free TCP ports of 127.0.0.1.
//!
//! Between the moment a port is found free and the one its server listens on it, and again while a server that was
//! killed is away, anybody else could be given it. So whoever finds a port holds a lock on a file of that name until its
//! process ends: no two processes that ask here ever share one.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

/// Below the ports that Linux gives to outgoing connections (32768 and up). A
/// server that was killed needs its port again; from that range a client that
/// keeps calling the dead server can be handed the very port, even connect to
/// itself, and the server could not come back.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
const ATTEMPTS: usize = 1_000;

/// The ports of this process, held until it ends.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// `N` different ports on which nobody listens now, and which nobody else is given while this process lives.
///
/// # Errors
/// None was found, which means that something fills the whole range; or the folder of locks can't be written.
pub fn free<const N: usize>() -> Result<[u16; N]> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut ports = Vec::with_capacity(N);
    for _ in 0..ATTEMPTS {
        if ports.len() == N {
            break;
        }
        let port = fastrand::u16(RANGE);
        let Some(lock) = lock(&folder, port)? else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            ports.push(port);
        }
    }
    if ports.len() < N {
        bail!("no {N} free ports on 127.0.0.1 among {RANGE:?}: see `ss -tln` for who holds them");
    }
    Ok(std::array::from_fn(|index| ports[index]))
}

/// One for each user, who could not lock another's files.
fn folder() -> PathBuf {
    let user = fs::metadata("/proc/self").map_or(0, |process| process.uid());
    std::env::temp_dir().join(format!("devstack-ports-{user}"))
}

/// The lock on a port, unless somebody has it, this process included.
fn lock(folder: &Path, port: u16) -> Result<Option<File>> {
    let path = folder.join(port.to_string());
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.try_lock().is_ok().then_some(file))
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
        assert!(all.iter().all(|port| lock(&folder(), *port).unwrap().is_none()));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 400);
    }
}
