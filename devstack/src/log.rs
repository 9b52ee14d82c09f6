//! What a server or a download wrote, for the message when it failed.

use std::fs;
use std::path::Path;

const TAIL_LINES: usize = 25;
const ERROR_LINES: usize = 10;

/// The text of `log` from the byte `from`; empty when it cannot be read.
pub(crate) fn since(log: &Path, from: u64) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
}

/// The last lines of `text`, after the first errors before them: a server that gives up tidies up at length.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(TAIL_LINES));
    let is_error = |line: &&&str| ["ERROR", "FATAL", "Exception"].iter().any(|word| line.contains(word));
    let errors = before.iter().filter(is_error).take(ERROR_LINES);
    errors.chain(last).copied().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_end() {
        let text: String = (0..100).map(|line| format!("{line}\n")).collect();
        let tail = tail(&text);
        assert!(tail.starts_with("75\n") && tail.ends_with("\n99"), "{tail}");
        assert_eq!(super::tail(""), "");
        let text = format!("begun\nERROR in use\n{text}");
        assert!(super::tail(&text).starts_with("ERROR in use\n75\n"));
    }

    #[test]
    fn what_was_there_before_is_left_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "old new").unwrap();
        assert_eq!(since(file.path(), 4), "new");
        assert_eq!(since(file.path(), 400), "");
        assert_eq!(since(Path::new("/nowhere/log"), 0), "");
    }
}
