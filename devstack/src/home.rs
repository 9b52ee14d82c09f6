//! The folder with everything that is fetched, each thing once.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::artifact::Artifact;
use crate::progress::{self, say};
use crate::tools;

/// The environment variable that moves the folder elsewhere.
pub const VARIABLE: &str = "DEVSTACK_HOME";

const PARTIAL: &str = "partial-";

/// The folder of fetched programs: `.devstack` in the workspace, or the one
/// that `DEVSTACK_HOME` names.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The folder for this process.
    ///
    /// # Errors
    /// `DEVSTACK_HOME` is relative and the current folder is gone.
    pub fn locate() -> Result<Self> {
        let root = match env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            Some(named) => PathBuf::from(named),
            None => {
                let package = Path::new(env!("CARGO_MANIFEST_DIR"));
                package.parent().unwrap_or(package).join(".devstack")
            }
        };
        std::path::absolute(&root).map(|root| Home { root }).with_context(|| format!("cannot find {}", root.display()))
    }

    /// Where `artifact` is, once it was fetched.
    pub fn path(&self, artifact: Artifact) -> PathBuf {
        self.root.join(artifact.folder())
    }

    /// The setting that gives a child process this folder.
    pub(crate) fn environment(&self) -> (String, OsString) {
        (VARIABLE.to_owned(), self.root.clone().into_os_string())
    }

    /// Fetches those of `wanted` that are not there yet. Two processes that want
    /// the same do it once; a fetch that was interrupted is done again.
    ///
    /// # Errors
    /// Programs are missing (all are named), or a download fails.
    pub fn fetch(&self, wanted: &[Artifact]) -> Result<()> {
        if self.missing(wanted).is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&self.root).with_context(|| format!("cannot make {}", self.root.display()))?;
        let _lock = self.lock()?;
        let missing = self.missing(wanted);
        let mut programs: Vec<&str> = Vec::new();
        for program in missing.iter().flat_map(|artifact| artifact.tools()) {
            if !programs.contains(program) {
                programs.push(program);
            }
        }
        tools::require(&programs)?;
        self.sweep();
        missing.into_iter().try_for_each(|artifact| self.fetch_one(artifact))
    }

    fn missing(&self, wanted: &[Artifact]) -> Vec<Artifact> {
        let gone = |artifact: &Artifact| !self.path(*artifact).is_dir();
        wanted.iter().copied().filter(gone).collect()
    }

    /// Held until the file is dropped; the system lets go of it when the process
    /// ends in whatever way.
    fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let locked = || -> std::io::Result<File> {
            let file = File::create(&path)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    say("another process is fetching: waiting for it");
                    file.lock()?;
                }
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) => {}
            }
            Ok(file)
        };
        locked().with_context(|| format!("cannot lock {}", path.display()))
    }

    /// Removes what interrupted fetches left, with the lock held. A package
    /// manager that outlived its fetch may still be writing there: what cannot
    /// be removed now waits for the next time.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn fetch_one(&self, artifact: Artifact) -> Result<()> {
        let started = progress::Clock::start(artifact.title());
        let partial = tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempdir_in(&self.root)
            .with_context(|| format!("cannot write to {}", self.root.display()))?;
        artifact.download(partial.path(), &started).with_context(|| format!("cannot fetch {}", artifact.title()))?;
        started.done(partial.path());
        let whole = self.path(artifact);
        fs::rename(partial.path(), &whole)
            .with_context(|| format!("cannot move the download to {}", whole.display()))?;
        artifact.prepare(self)
    }
}
