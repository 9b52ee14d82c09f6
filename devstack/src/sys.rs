//! The few system calls that the standard library does not offer: signals to
//! a process, and a call into a library that is opened at run time.
#![allow(
    unsafe_code,
    reason = "signals and dlopen exist only as C functions; every unsafe block of this crate is in this file"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a server can be told by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL: end at once, without a chance to tidy up.
    Kill,
    /// SIGTERM: end in good order.
    Terminate,
    /// SIGSTOP: freeze, all threads of it.
    Pause,
    /// SIGCONT: go on after a freeze.
    Resume,
}

impl Signal {
    fn number(self) -> c_int {
        match self {
            Signal::Kill => libc::SIGKILL,
            Signal::Terminate => libc::SIGTERM,
            Signal::Pause => libc::SIGSTOP,
            Signal::Resume => libc::SIGCONT,
        }
    }
}

/// Threads of a process that is told to freeze stand still after so long, unless a disk keeps them.
const FREEZING: Duration = Duration::from_secs(5);

/// Sends `signal` to the process `pid`. What is to freeze stands still afterwards: the signal alone leaves each thread to find
/// out by itself, and one that is just running may answer somebody meanwhile.
///
/// # Errors
/// There is no such process, or it belongs to somebody else. Zero and numbers
/// that are no process id are refused, since they would mean a whole group.
pub fn send(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = match libc::pid_t::try_from(pid) {
        Ok(pid) if pid > 0 => pid,
        _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    // SAFETY: kill takes two integers and touches no memory of this process.
    if unsafe { libc::kill(pid, signal.number()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let begun = Instant::now();
    while signal == Signal::Pause && is_moving(pid) && begun.elapsed() < FREEZING {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether a thread of a process may still run: it is neither stopped (`T`) nor over (`Z`, `X`, or not there).
fn is_moving(pid: libc::pid_t) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok()).any(|stat| {
        // The state stands behind the name, which is in brackets and may have any character in it.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['T', 'Z', 'X']))
    })
}

/// Makes a command's process end by SIGTERM when the calling thread ends, which for the main thread is when the process
/// does, in whatever way; and puts it in a process group of its own, so that a terminal's Ctrl-C reaches only the caller.
pub fn end_with_this_thread(command: &mut Command) {
    command.process_group(0);
    let ask = || {
        // SAFETY: prctl with these arguments takes two integers and touches no memory.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(ask) };
}

/// Ends the process group of the caller at once, the caller included.
pub fn kill_own_group() {
    // SAFETY: kill takes two integers; 0 means the caller's own group.
    unsafe { libc::kill(0, libc::SIGKILL) };
}

/// Waits up to `timeout` for SIGINT or SIGTERM; true when one of them came.
/// From the first call on these two no longer end the process by themselves.
/// Call it from the only thread: others could still be ended by the signal.
pub fn termination_within(timeout: Duration) -> bool {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: a sigset_t is plain memory that sigemptyset initialises before
    // anything reads it; all pointers are to locals that outlive the calls, and
    // the null pointers are where the functions allow "not wanted".
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGINT);
        libc::sigaddset(&raw mut signals, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
        libc::sigtimedwait(&raw const signals, std::ptr::null_mut(), &raw const timeout) > 0
    }
}

/// Runs `clickhouse local` with `arguments` out of the `libchdb.so` at
/// `library`, and returns when it ends.
///
/// # Errors
/// The library cannot be opened, or has no such entry point.
pub fn clickhouse_local(library: &Path, arguments: &[CString]) -> Result<()> {
    type Main = unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut c_void;

    let path = CString::new(library.as_os_str().as_bytes())
        .with_context(|| format!("{} cannot be a file name", library.display()))?;
    let count = c_int::try_from(arguments.len() + 1).context("too many arguments")?;
    // The callee gets memory that it may write to, as main's argv is.
    let mut owned: Vec<Vec<u8>> = std::iter::once(c"clickhouse")
        .chain(arguments.iter().map(CString::as_c_str))
        .map(|argument| argument.to_bytes_with_nul().to_vec())
        .collect();
    let mut argv: Vec<*mut c_char> = owned
        .iter_mut()
        .map(|argument| argument.as_mut_ptr().cast())
        .chain(std::iter::once(std::ptr::null_mut()))
        .collect();

    // SAFETY: `path` ends in NUL. The library's initialisers run here; it is
    // the pinned one that `fetch` put there, made to be opened so.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        bail!("cannot open {}: {}; remove its folder and run `devstack fetch`", library.display(), link_error());
    }
    // SAFETY: `handle` is open and never closed, the name ends in NUL.
    let symbol = unsafe { libc::dlsym(handle, c"chdb_query_cmdline".as_ptr()) };
    if symbol.is_null() {
        bail!("{} has no chdb_query_cmdline: {}", library.display(), link_error());
    }
    // SAFETY: in this pinned version the symbol is a C function of an argument
    // count and a vector, like main, that returns a pointer to its result.
    let run = unsafe { std::mem::transmute::<*mut c_void, Main>(symbol) };
    // SAFETY: `argv` holds `count` strings that end in NUL and then a null
    // pointer; they live until the call is over. The result stays unread: the
    // process ends next.
    unsafe { run(count, argv.as_mut_ptr()) };
    Ok(())
}

/// What the dynamic linker says about its latest failure.
fn link_error() -> String {
    // SAFETY: dlerror returns null or a string that stays valid until this
    // thread's next call to the dynamic linker; it is copied before that.
    unsafe {
        let message = libc::dlerror();
        if message.is_null() {
            return "no reason given".to_owned();
        }
        CStr::from_ptr(message).to_string_lossy().into_owned()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frozen_stands_still_at_once() {
        // It never sleeps, so that a signal seldom finds it where it would notice by itself.
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        thread::sleep(Duration::from_millis(200));
        let pid = libc::pid_t::try_from(child.id()).unwrap();
        let moved = (0..200).filter(|_| {
            send(child.id(), Signal::Pause).unwrap();
            let is_moving = is_moving(pid);
            send(child.id(), Signal::Resume).unwrap();
            is_moving
        });
        let moved = moved.count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(moved, 0);
    }
}
