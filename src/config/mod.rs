//! Settings: defaults, `highwater.toml`, environment and command line, merged in this order and checked as a whole.
//!
//! All that is wrong is told at once, each with its key, what was found where, and what is allowed.

mod check;
mod reader;
mod reference;
mod secure;
mod settings;
mod suggest;
mod value;
mod words;

use std::fmt;
use std::path::Path;

use config::{Config, Environment, File, FileFormat, Value, ValueKind};

pub use self::reader::Problem;
use self::reader::Reader;
pub use self::reference::{markdown, toml};
pub use self::settings::{
    BatchSettings, ClickhouseSettings, EventSettings, KafkaSettings, LogSettings, MemorySettings, RetentionSettings,
    Settings,
};
pub use self::suggest::nearest;
pub use self::value::{ByteSize, KeepDays, Properties, Property, Secret, parse_duration};
pub use self::words::{KafkaSecurity, LogFormat, LogLevel, OnLoss, Protocol, SaslMechanism};

/// The file that is read where none is named, if it is there.
pub const DEFAULT_FILE: &str = "highwater.toml";

/// What environment variables begin with.
const PREFIX: &str = "HIGHWATER";

/// The origin of values from the environment, as crate `config` calls it.
const ENVIRONMENT: &str = "the environment";

/// The origin of values from the command line.
const FLAG: &str = "the command line";

/// All that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "one setting is wrong: {one}"),
            many => {
                write!(f, "{} settings are wrong:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Reads and checks the settings.
///
/// `file` is the file that was asked for and must be there; without it [`DEFAULT_FILE`] is read if it is there.
/// `environment` are all variables of the process; `HIGHWATER_SECTION__KEY` are those that count. `flags` are
/// `section.key=value`.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[String],
) -> Result<Settings, ConfigError> {
    let mut problems = Vec::new();
    let mut builder = Config::builder().add_source(File::from_str(&toml(), FileFormat::Toml));
    for (key, default) in reference::secrets() {
        builder = builder.set_default(key, default).map_err(|error| failed(file, &error))?;
    }
    if let Some(source) = file_source(file) {
        builder = builder.add_source(source);
    }
    let variables = environment.into_iter().filter(|(name, _)| is_setting(name)).collect();
    builder = builder
        .add_source(Environment::with_prefix(PREFIX).prefix_separator("_").separator("__").source(Some(variables)));
    for flag in flags {
        let Some((key, value)) = flag.split_once('=') else {
            let message = "the flag --setting takes section.key=value".to_owned();
            problems.push(Problem { key: flag.clone(), message });
            continue;
        };
        let value = Value::new(Some(&FLAG.to_owned()), ValueKind::String(value.to_owned()));
        builder = builder.set_override(key.trim(), value).map_err(|error| {
            let message = format!("the flag --setting takes section.key=value: {error}");
            ConfigError(vec![Problem { key: key.to_owned(), message }])
        })?;
    }
    let merged = builder.build().map_err(|error| failed(file, &error))?;
    let mut reader = Reader::new(merged.cache);
    reader.problems = problems;
    reader.unknown();
    let settings = Settings::read(&mut reader).map(|settings| check::check(settings, &mut reader));
    match settings {
        Some(settings) if reader.problems.is_empty() => Ok(settings),
        _ => Err(ConfigError(reader.problems)),
    }
}

/// The sources can't be merged, which only a file can cause.
fn failed(file: Option<&Path>, error: &config::ConfigError) -> ConfigError {
    let key = file.unwrap_or(Path::new(DEFAULT_FILE)).display().to_string();
    // The parser quotes the line that it does not understand, between bars; there may be a secret in it.
    let message = error.to_string();
    let quoted = |line: &&str| {
        !line.trim_start_matches([' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']).starts_with('|')
    };
    ConfigError(vec![Problem { key, message: message.lines().filter(quoted).collect::<Vec<_>>().join("; ") }])
}

fn file_source(file: Option<&Path>) -> Option<File<config::FileSourceFile, FileFormat>> {
    let (path, required) = match file {
        Some(path) => (path, true),
        None => (Path::new(DEFAULT_FILE), false),
    };
    // Only this very file: the crate would also take one of the same name with another ending.
    (required || path.exists()).then(|| File::new(&path.to_string_lossy(), FileFormat::Toml))
}

/// Whether a variable is meant for us. `HIGHWATER_CONFIG` names the file; Kubernetes sets `HIGHWATER_PORT…` and
/// `HIGHWATER_SERVICE_…` in every pod beside a service called highwater.
fn is_setting(name: &str) -> bool {
    let ours = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('_'));
    ours.is_some_and(|rest| {
        rest != "CONFIG" && rest != "PORT" && !rest.starts_with("PORT_") && !rest.starts_with("SERVICE_")
    })
}

/// The environment variable of a setting.
fn variable(key: &str) -> String {
    format!("{PREFIX}_{}", key.replace('.', "__").to_uppercase())
}

#[cfg(test)]
mod tests;
