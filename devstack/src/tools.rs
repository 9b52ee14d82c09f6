//! The programs that a bare machine needs before anything can be fetched or
//! started.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Debian's and Ubuntu's packages of the programs that devstack calls.
const PACKAGES: [(&str, &str); 4] =
    [("java", "openjdk-17-jre-headless"), ("mvn", "maven"), ("npm", "npm"), ("tar", "tar")];

/// Makes sure that all `programs` are on the PATH.
///
/// # Errors
/// Names all that are missing, and the packages that hold them.
pub fn require(programs: &[&str]) -> Result<()> {
    require_on(env::var_os("PATH").as_deref(), programs)
}

fn require_on(path: Option<&OsStr>, programs: &[&str]) -> Result<()> {
    let folders: Vec<PathBuf> = path.map(env::split_paths).into_iter().flatten().collect();
    let missing: Vec<&str> =
        programs.iter().copied().filter(|program| !folders.iter().any(|folder| runs(&folder.join(program)))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> =
        PACKAGES.iter().filter(|(program, _)| missing.contains(program)).map(|(_, package)| *package).collect();
    bail!("not found on the PATH: {}; on Debian or Ubuntu: apt-get install {}", missing.join(", "), packages.join(" "));
}

fn runs(file: &Path) -> bool {
    file.is_absolute() && file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn all_missing_programs_are_named_at_once() {
        let error = require_on(Some(OsStr::new("")), &["java", "npm"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not found on the PATH: java, npm; on Debian or Ubuntu: apt-get install openjdk-17-jre-headless npm"
        );
        assert!(require_on(None, &["tar"]).is_err());
    }

    #[test]
    fn a_file_that_does_not_run_is_no_program() {
        let folder = tempfile::tempdir().unwrap();
        let java = folder.path().join("java");
        fs::write(&java, "").unwrap();
        assert!(require_on(Some(folder.path().as_os_str()), &["java"]).is_err());
        fs::set_permissions(&java, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(require_on(Some(folder.path().as_os_str()), &["java"]).is_ok());
    }
}
