//! `devstack hold`: the process between a server and its owner.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use devstack::holder::{self, Stop};

/// Run a server until it ends or standard input does.
#[derive(Debug, Args)]
pub struct Hold {
    /// Stop the server by the end of its input instead of SIGTERM
    #[arg(long)]
    end_input: bool,
    /// Remove this folder when the owner is gone
    #[arg(long)]
    remove: Option<PathBuf>,
    /// The server and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Hold {
    /// Holds, and ends with the server's exit code.
    ///
    /// # Errors
    /// The server cannot be started.
    pub fn run(self) -> Result<ExitCode> {
        let held = holder::Hold {
            command: self.command,
            stop: if self.end_input { Stop::EndInput } else { Stop::Terminate },
            remove: self.remove,
        };
        holder::hold(&held).map(ExitCode::from)
    }
}
