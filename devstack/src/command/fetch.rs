//! `devstack fetch`: everything that the other subcommands would fetch first.

use anyhow::Result;
use clap::Args;
use devstack::{Artifact, Home};

/// Fetch all servers now, so that later starts need no network.
#[derive(Debug, Args)]
pub struct Fetch {}

impl Fetch {
    /// Fetches and says where everything is.
    ///
    /// # Errors
    /// Programs are missing, or a download fails.
    pub fn run(self) -> Result<()> {
        let home = Home::locate()?;
        home.fetch(&Artifact::ALL)?;
        for artifact in Artifact::ALL {
            println!("{:24} {}", artifact.title(), home.path(artifact).display());
        }
        Ok(())
    }
}
