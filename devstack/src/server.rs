//! One server process: started, waited for, killed, frozen, brought back.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;

use crate::holder::{Hold, Holder, Stop};
use crate::log;
use crate::sys::Signal;

/// Two busy cores and a cold disk are slow; a server that needs longer hangs.
const START_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Whether a server is ready, from what it has logged since it was started.
pub(crate) type Ready = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// Where a server keeps its data, configuration and log.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    temporary: Option<TempDir>,
}

impl Folder {
    /// `kept` made and kept, or else a temporary folder named after `title`.
    pub(crate) fn make(kept: Option<&Path>, title: &str) -> Result<Self> {
        if let Some(path) = kept {
            fs::create_dir_all(path)
                .and_then(|()| path.canonicalize())
                .map(|path| Folder { path, temporary: None })
                .with_context(|| format!("cannot make the folder {}", path.display()))
        } else {
            let temporary = tempfile::Builder::new()
                .prefix(&format!("devstack-{}-", title.to_lowercase().replace(' ', "-")))
                .tempdir()
                .context("cannot make a temporary folder")?;
            Ok(Folder { path: temporary.path().to_owned(), temporary: Some(temporary) })
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves a temporary folder behind.
    fn keep(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            let _path = temporary.keep();
        }
    }
}

/// How to start a server and see that it is ready.
pub(crate) struct Recipe {
    pub(crate) title: &'static str,
    pub(crate) command: Vec<OsString>,
    pub(crate) environment: Vec<(String, OsString)>,
    pub(crate) stop: Stop,
    pub(crate) ready: Ready,
}

/// A server that was started, whatever it is. It ends when this is dropped, and
/// also when the process that started it ends in any way, `kill -9` included.
pub struct Server {
    recipe: Recipe,
    holder: Mutex<Option<Holder>>,
    // After the holder: the server lets go of the folder first.
    folder: Folder,
}

impl Server {
    /// Starts the server and waits until it is ready.
    pub(crate) fn start(recipe: Recipe, folder: Folder) -> Result<Self> {
        let mut server = Server { recipe, holder: Mutex::new(None), folder };
        let started = server.launch(&mut server.holder());
        if started.is_err() {
            // The message names the log, so that it has to stay.
            server.folder.keep();
        }
        started.map(|()| server)
    }

    fn launch(&self, slot: &mut Option<Holder>) -> Result<()> {
        let title = self.recipe.title;
        let log = self.log();
        let logged = fs::metadata(&log).map_or(0, |found| found.len());
        let explain = |reason: String| {
            anyhow!("{title} {reason}; the end of {}:\n{}", log.display(), log::tail(&log::since(&log, logged)))
        };
        let held = Hold {
            command: self.recipe.command.clone(),
            stop: self.recipe.stop,
            remove: self.folder.temporary.is_some().then(|| self.folder.path.clone()),
        };
        let mut holder = Holder::start(&held, &self.recipe.environment, &self.folder.path, &log)
            .map_err(|error| explain(format!("did not start: {error:#}")))?;
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(status) = holder.ended()? {
                return Err(explain(format!("ended before it was ready ({status})")));
            }
            if (self.recipe.ready)(&log::since(&log, logged)) {
                *slot = Some(holder);
                return Ok(());
            }
            if Instant::now() > deadline {
                holder.kill()?;
                return Err(explain(format!("was not ready after {} s", START_DEADLINE.as_secs())));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process id of the server itself, `None` when it does not run.
    pub fn pid(&self) -> Option<u32> {
        let mut holder = self.holder();
        let holder = holder.as_mut()?;
        matches!(holder.ended(), Ok(None)).then(|| holder.server())
    }

    /// The folder with data, configuration and log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file that holds the server's output.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        log::tail(&log::since(&self.log(), 0))
    }

    /// Kills the server with SIGKILL, and returns when it is gone. Does nothing
    /// when it does not run.
    ///
    /// # Errors
    /// The system refuses the signal.
    pub fn kill(&self) -> Result<()> {
        match self.holder().take() {
            Some(mut holder) => holder.kill(),
            None => Ok(()),
        }
    }

    /// Ends the server in good order, and returns when it is gone. Does nothing
    /// when it does not run.
    ///
    /// # Errors
    /// It did not end within 30 s; it is killed then.
    pub fn stop(&self) -> Result<()> {
        let Some(mut holder) = self.holder().take() else {
            return Ok(());
        };
        if holder.stop(STOP_DEADLINE)? {
            return Ok(());
        }
        holder.kill()?;
        bail!(
            "{} did not stop within {} s and was killed; the end of {}:\n{}",
            self.recipe.title,
            STOP_DEADLINE.as_secs(),
            self.log().display(),
            self.log_tail()
        );
    }

    /// Brings the server back on the same ports and data, and waits until it is
    /// ready. One that still runs is stopped first.
    ///
    /// # Errors
    /// It does not stop, or does not start; the message holds the end of its log.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.launch(&mut self.holder())
    }

    /// Freezes the server (SIGSTOP): its ports stay open, nothing answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::Pause)
    }

    /// Lets a frozen server go on (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::Resume)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        match self.holder().as_mut() {
            Some(holder) => holder.signal(signal),
            None => bail!("{} does not run: no {signal:?}", self.recipe.title),
        }
    }

    fn holder(&self) -> MutexGuard<'_, Option<Holder>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(holder) = self.holder().take() {
            holder.release();
        }
    }
}
