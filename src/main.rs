//! The command line, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("t") { print!("{}", highwater::config::toml()) } else { print!("{}", highwater::config::markdown()) }
    ExitCode::SUCCESS
}
