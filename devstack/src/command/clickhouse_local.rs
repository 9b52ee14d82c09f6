//! `devstack clickhouse-local`: ClickHouse itself, out of its library.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result};
use clap::Args;
use devstack::{Artifact, Home, sys};

/// Run `clickhouse local` with these arguments.
#[derive(Debug, Args)]
pub struct ClickhouseLocal {
    /// Arguments of `clickhouse local`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl ClickhouseLocal {
    /// Runs until ClickHouse ends.
    ///
    /// # Errors
    /// The library cannot be fetched or opened.
    pub fn run(self) -> Result<()> {
        let home = Home::locate()?;
        home.fetch(&[Artifact::ClickHouse])?;
        let arguments: Vec<CString> = self
            .arguments
            .into_iter()
            .map(|argument| CString::new(argument.into_vec()))
            .collect::<Result<_, _>>()
            .context("an argument holds a zero byte")?;
        sys::clickhouse_local(&home.path(Artifact::ClickHouse).join("libchdb.so"), &arguments)
    }
}
