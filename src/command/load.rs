//! Reads schemas, packs and prices from disk.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};

use super::UsageError;
use crate::config::{EventSettings, Settings, nearest};
use crate::event::EventType;
use crate::plan::{Plan, Sources, Text};

/// Compiles the plan from what the settings name.
///
/// # Errors
/// A file can't be read; or everything that is wrong with schemas, packs and prices.
pub fn plan(settings: &Settings) -> Result<Plan> {
    let sources = Sources { registry: settings.registry.url.is_some(), ..inputs(&settings.events)? };
    Plan::compile(&sources, settings.limits()).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow!("{}", lines.join("\n"))
    })
}

/// Reads all that the settings name. A directory of schemas without a schema is an error; one of packs may be empty.
///
/// # Errors
/// A directory or file is not there, can't be read, or is not UTF-8.
pub fn inputs(events: &EventSettings) -> Result<Sources> {
    Ok(Sources {
        schemas: schemas(&events.schemas)?,
        former: former(&events.schemas)?,
        packs: packs(&events.packs)?,
        prices: prices(events.prices.as_deref())?,
        registry: false,
    })
}

/// Reads the schema files of a directory.
///
/// # Errors
/// As [`inputs`].
pub fn schemas(path: &Path) -> Result<Vec<Text>> {
    let schemas = directory(path, "avsc").context("setting events.schemas")?;
    if schemas.is_empty() {
        bail!("setting events.schemas: {} has no *.avsc file; an event type needs its schema there", path.display());
    }
    Ok(schemas)
}

/// Reads the former schemas that stand in `former/` of that directory, if it is there.
///
/// # Errors
/// As [`inputs`].
pub fn former(schemas: &Path) -> Result<Vec<Text>> {
    let path = schemas.join("former");
    if !path.exists() {
        return Ok(Vec::new());
    }
    directory(&path, "avsc").context("setting events.schemas")
}

/// Reads the packs of a directory.
///
/// # Errors
/// As [`inputs`].
pub fn packs(path: &Path) -> Result<Vec<Text>> {
    directory(path, "toml").context("setting events.packs")
}

/// Reads the price list, if there is one.
///
/// # Errors
/// As [`inputs`].
pub fn prices(path: Option<&Path>) -> Result<Option<Text>> {
    path.map(text).transpose().context("setting events.prices (\"\" for none)")
}

/// Reads one event type by its name, from a schema file or from a directory of them.
///
/// # Errors
/// A file can't be read, a schema is wrong, or no schema has that name.
pub fn event_type(path: &Path, name: &str) -> Result<EventType> {
    let texts = if path.is_dir() { schemas(path)? } else { vec![text(path)?] };
    let mut names = Vec::new();
    for (file, json) in texts {
        let event = EventType::parse(&file, &json)?;
        if event.name == name {
            return Ok(event);
        }
        names.push(event.name);
    }
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", names.join(", ")),
    };
    Err(UsageError(format!("no schema in {} describes an event type `{name}`; {hint}", path.display())).into())
}

/// The files of a directory with this ending, sorted by name.
fn directory(path: &Path, ending: &str) -> Result<Vec<Text>> {
    let entries = std::fs::read_dir(path).with_context(|| format!("can't list the directory {}", path.display()))?;
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let file = entry.with_context(|| format!("can't list the directory {}", path.display()))?.path();
        // Editors leave hidden files beside those they edit.
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && file.extension().is_some_and(|found| found == ending) {
            files.push(file);
        }
    }
    files.sort();
    files.iter().map(|file| text(file)).collect()
}

/// Reads a file, with its name.
///
/// # Errors
/// It can't be read, or is not UTF-8.
pub fn text(path: &Path) -> Result<Text> {
    let bytes = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| error.utf8_error())
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok((path.display().to_string(), text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settings(root: &Path) -> EventSettings {
        let flags = ["schemas", "packs"].map(|name| format!("events.{name}={}", root.join(name).display()));
        let mut flags = flags.to_vec();
        flags.push(format!("events.prices={}", root.join("prices.toml").display()));
        crate::config::load(None, [], &flags).unwrap().events
    }

    #[test]
    fn files_come_sorted_with_their_names() {
        let root = tempfile::tempdir().unwrap();
        for name in ["schemas", "packs"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        assert!(former(&root.path().join("schemas")).unwrap().is_empty(), "there need be none");
        std::fs::create_dir(root.path().join("schemas/former")).unwrap();
        std::fs::write(root.path().join("schemas/former/a.1.avsc"), "former").unwrap();
        for name in
            ["schemas/b.avsc", "schemas/a.avsc", "schemas/.a.avsc", "schemas/README.md", "packs/p.toml", "prices.toml"]
        {
            std::fs::write(root.path().join(name), name).unwrap();
        }
        let found = inputs(&settings(root.path())).unwrap();
        let texts: Vec<&str> = found.schemas.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["schemas/a.avsc", "schemas/b.avsc"]);
        assert!(found.schemas[0].0.ends_with("schemas/a.avsc"));
        assert_eq!(found.former.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["former"]);
        assert_eq!(found.packs[0].1, "packs/p.toml");
        assert_eq!(found.prices.unwrap().1, "prices.toml");
    }

    #[test]
    fn what_is_missing_or_unreadable_is_named() {
        let root = tempfile::tempdir().unwrap();
        let message = || format!("{:#}", inputs(&settings(root.path())).unwrap_err());
        assert!(message().contains("events.schemas") && message().contains("can't list"), "{}", message());
        std::fs::create_dir(root.path().join("schemas")).unwrap();
        assert!(message().contains("no *.avsc"), "{}", message());
        std::fs::write(root.path().join("schemas/a.avsc"), [0xFF]).unwrap();
        assert!(message().contains("a.avsc is not UTF-8"), "{}", message());
        std::fs::write(root.path().join("schemas/a.avsc"), "{}").unwrap();
        assert!(message().contains("events.packs"), "{}", message());
        std::fs::create_dir(root.path().join("packs")).unwrap();
        assert!(message().contains("events.prices") && message().contains("prices.toml"), "{}", message());
    }
}
