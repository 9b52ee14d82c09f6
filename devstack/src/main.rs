<<<<<<< HEAD
//! x
fn main() {}
=======
//! The command line of devstack, nothing else.

mod command;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

fn main() -> Result<ExitCode> {
    command::Arguments::parse().run()
}
>>>>>>> main
