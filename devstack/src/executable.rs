//! Where the `devstack` program is. The library needs it to hold servers and
//! to host ClickHouse, also when it runs inside another package's test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

const NAME: &str = "devstack";

/// The `devstack` program that was built with the running program: itself, or
/// the one in the same `target/<profile>` folder (tests live in `deps/` below
/// it, examples in `examples/`). Cargo does not build the program of a package
/// that is only depended on, so that a missing one is built here, once.
///
/// # Errors
/// The program is not there and cannot be built.
pub fn locate() -> Result<PathBuf> {
    let current = env::current_exe().context("cannot find the path of the running program")?;
    if let Some(found) = beside(&current) {
        return Ok(found);
    }
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock();
    if let Some(found) = beside(&current) {
        return Ok(found);
    }
    build(&current).and_then(|()| beside(&current).context("it is still missing")).with_context(|| {
        format!(
            "no `{NAME}` program beside {}: build it with `cargo build --workspace` in the same profile",
            current.display()
        )
    })
}

fn beside(current: &Path) -> Option<PathBuf> {
    current.ancestors().skip(1).take(2).map(|folder| folder.join(NAME)).find(|file| file.is_file())
}

fn build(current: &Path) -> Result<()> {
    let profile_folder = current
        .parent()
        .filter(|folder| folder.ends_with("deps") || folder.ends_with("examples"))
        .and_then(Path::parent)
        .context("the running program is not in a folder of cargo's")?;
    let target = profile_folder.parent().context("no target folder")?;
    let profile = match profile_folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => bail!("the profile has no name"),
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", NAME, "--bin", NAME])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo build of {NAME} failed ({status})");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn found_from_a_test_and_from_a_program_of_the_same_profile() {
        let target = tempfile::tempdir().unwrap();
        let debug = target.path().join("debug");
        fs::create_dir_all(debug.join("deps")).unwrap();
        let test = debug.join("deps/protocol-0123");
        assert_eq!(beside(&test), None);
        let program = debug.join(NAME);
        fs::write(&program, "").unwrap();
        for current in [test, debug.join("highwater"), program.clone()] {
            assert_eq!(beside(&current), Some(program.clone()));
        }
        assert_eq!(beside(&target.path().join("release/deps/bench-1")), None);
    }
}
