//! Nothing outlives the program that started it, also when that one is killed
//! and can tidy up nothing.
//!
//! Each server has a *holder* between it and its owner: the hidden subcommand
//! `devstack hold`, in a process group of its own (so that Ctrl-C at the
//! owner's terminal does not reach it). The owner holds the only writing end of
//! a pipe to it. Whatever ends the owner closes that end; the holder then kills
//! the server, removes its temporary folder, and ends its own group. The pipe
//! is close-on-exec, as all of the standard library's, so that no other child
//! of the owner keeps it open.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::sys::{self, Signal};

const STOP: &str = "stop";

/// How a server is asked to end in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// By SIGTERM.
    Terminate,
    /// By the end of its standard input.
    EndInput,
}

/// A program to hold.
#[derive(Debug)]
pub struct Hold {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// How to ask it to end.
    pub stop: Stop,
    /// A folder to remove when the owner is gone.
    pub remove: Option<PathBuf>,
}

/// The owner's side: a holder that runs, and through it one server.
#[derive(Debug)]
pub(crate) struct Holder {
    process: Child,
    pipe: ChildStdin,
    server: u32,
}

impl Holder {
    /// Starts `held` under a holder, with its output appended to `log`.
    pub(crate) fn start(held: &Hold, environment: &[(String, OsString)], folder: &Path, log: &Path) -> Result<Self> {
        let program = crate::executable::locate()?;
        let output = File::options()
            .append(true)
            .create(true)
            .open(log)
            .with_context(|| format!("cannot write the log {}", log.display()))?;
        let mut command = Command::new(&program);
        command.arg("hold");
        if held.stop == Stop::EndInput {
            command.arg("--end-input");
        }
        if let Some(folder) = &held.remove {
            command.arg("--remove").arg(folder);
        }
        let mut process = command
            .arg("--")
            .args(&held.command)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (Some(pipe), Some(report)) = (process.stdin.take(), process.stdout.take()) else {
            anyhow::bail!("the holder came without pipes");
        };
        let mut line = String::new();
        BufReader::new(report).read_line(&mut line).context("cannot read the server's process id")?;
        let server = match line.trim().parse() {
            Ok(server) => server,
            Err(_) => {
                drop(pipe);
                let status = process.wait()?;
                anyhow::bail!("the holder could not start the server ({status})");
            }
        };
        Ok(Holder { process, pipe, server })
    }

    /// The server's process id.
    pub(crate) fn server(&self) -> u32 {
        self.server
    }

    /// How the server ended, or `None` while it runs.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.try_wait().context("cannot wait for the holder")
    }

    /// Sends a signal to the server, if it still runs.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        match sys::send(self.server, signal) {
            // It has ended, only its holder has not yet.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            sent => sent.with_context(|| format!("cannot signal process {}", self.server)),
        }
    }

    /// Asks the server to end in good order and waits; false when it still runs
    /// after `patience`.
    pub(crate) fn stop(&mut self, patience: Duration) -> Result<bool> {
        // A frozen server could not obey.
        self.signal(Signal::Resume)?;
        match writeln!(self.pipe, "{STOP}") {
            // The holder is gone, and so is the server.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.context("cannot reach the holder")?,
        }
        let deadline = Instant::now() + patience;
        while self.ended()?.is_none() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(true)
    }

    /// Kills the server and waits until it is gone, and its ports with it.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.signal(Signal::Kill)?;
        self.process.wait().context("cannot wait for the holder")?;
        Ok(())
    }

    /// Lets go as if the owner had ended: the holder ends the server and
    /// removes what it was told to remove.
    pub(crate) fn release(self) {
        let Holder { mut process, pipe, .. } = self;
        drop(pipe);
        // There is no way to wait better, and no one to tell.
        let _ = process.wait();
    }
}

/// The holder's side: runs the server until it ends or the pipe on standard
/// input does. Prints the server's process id; returns its exit code (128 and
/// more for a signal).
///
/// # Errors
/// The server cannot be started or waited for.
pub fn hold(held: &Hold) -> Result<u8> {
    let (program, arguments) = held.command.split_first().context("no program to hold")?;
    let mut server = Command::new(program)
        .args(arguments)
        .stdin(match held.stop {
            Stop::EndInput => Stdio::piped(),
            Stop::Terminate => Stdio::null(),
        })
        .stdout(io::stderr().as_fd().try_clone_to_owned()?)
        .spawn()
        .with_context(|| format!("cannot start {}", Path::new(program).display()))?;
    let pid = server.id();
    // Taken out, since waiting would close it.
    let input = server.stdin.take();
    let owner_gone = Arc::new(AtomicBool::new(false));
    let watcher = Arc::clone(&owner_gone);
    thread::spawn(move || watch(io::stdin().lock(), input, pid, &watcher));
    let mut output = io::stdout();
    // An owner that is gone already shows at the pipe.
    let _ = writeln!(output, "{pid}").and_then(|()| output.flush());

    let status = server.wait().context("cannot wait for the server")?;
    if owner_gone.load(Ordering::SeqCst) {
        if let Some(folder) = &held.remove {
            // Nobody is left to hear of a failure.
            let _ = fs::remove_dir_all(folder);
        }
        sys::kill_own_group();
    }
    let signal = status.signal().unwrap_or(0);
    Ok(u8::try_from(status.code().unwrap_or(128 + signal)).unwrap_or(u8::MAX))
}

/// Obeys the owner, and ends the server when the owner is gone.
fn watch(owner: impl Read, mut input: Option<ChildStdin>, pid: u32, owner_gone: &AtomicBool) {
    let lines = BufReader::new(owner).lines().map_while(Result::ok);
    for _stop in lines.filter(|line| line == STOP) {
        if input.take().is_none() {
            // It may have ended by itself: that is as good.
            let _ = sys::send(pid, Signal::Terminate);
        }
    }
    owner_gone.store(true, Ordering::SeqCst);
    let _ = sys::send(pid, Signal::Kill);
}
