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

use config::builder::DefaultState;
use config::{Config, ConfigBuilder, Environment, File, FileFormat, Value, ValueKind};

pub use self::reader::Problem;
use self::reader::Reader;
pub use self::reference::{markdown, toml};
pub use self::settings::{
    AlertSettings, BatchSettings, ClickhouseSettings, EventSettings, ForwardSettings, KafkaSettings, LogSettings,
    MemorySettings, RegistrySettings, RetentionSettings, Settings,
};
pub use self::suggest::nearest;
pub use self::value::{ByteSize, KeepDays, Properties, Property, Secret, parse_duration};
pub use self::words::{AlertFraming, Compression, KafkaSecurity, LogFormat, LogLevel, OnLoss, Protocol, SaslMechanism};

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
    survey(file, environment, flags).sound()
}

/// The settings as far as they can be told, for whoever looks on past what is wrong with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// The settings; one that can't be read is at its default. `None`: the sources can't be read at all.
    pub settings: Option<Settings>,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

impl Survey {
    /// The settings, if nothing is wrong.
    ///
    /// # Errors
    /// Everything that is.
    pub fn sound(self) -> Result<Settings, ConfigError> {
        match self {
            Survey { settings: Some(settings), problems } if problems.is_empty() => Ok(settings),
            Survey { problems, .. } => Err(ConfigError(problems)),
        }
    }

    /// Whether nothing is wrong with a section (`kafka`) or a setting (`events.packs`).
    pub fn is_sound(&self, key: &str) -> bool {
        let within = |problem: &Problem| problem.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
        !self.problems.iter().any(|problem| problem.key == key || within(problem))
    }
}

/// The same as [`load`], with the settings also where something is wrong.
pub fn survey(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[String],
) -> Survey {
    let mut problems = Vec::new();
    let merged = match merge(file, environment, flags, &mut problems) {
        Ok(merged) => merged,
        Err(ConfigError(more)) => {
            problems.extend(more);
            return Survey { settings: None, problems };
        }
    };
    let mut reader = Reader::new(merged);
    reader.problems = problems;
    reader.unknown();
    if let Some(settings) = Settings::read(&mut reader) {
        let settings = check::check(settings, &mut reader);
        return Survey { settings: Some(settings), problems: reader.problems };
    }
    // Those that can be read are checked all the same, with the others at their defaults.
    let mut survey = Survey { settings: None, problems: std::mem::take(&mut reader.problems) };
    if let Ok(defaults) = defaults().and_then(|builder| builder.build()) {
        reader.reset(survey.problems.iter().map(|problem| problem.key.as_str()), &defaults.cache);
        survey.settings = Settings::read(&mut reader).map(|settings| check::check(settings, &mut reader));
    }
    let follows = |problem: &Problem| {
        let section = problem.key.split('.').next().unwrap_or_default();
        !survey.is_sound(section) || survey.problems.iter().any(|wrong| problem.message.contains(&wrong.key))
    };
    let more: Vec<Problem> = reader.problems.into_iter().filter(|problem| !follows(problem)).collect();
    survey.problems.extend(more);
    survey
}

type Sources = ConfigBuilder<DefaultState>;

fn defaults() -> Result<Sources, config::ConfigError> {
    let builder = Config::builder().add_source(File::from_str(&toml(), FileFormat::Toml));
    reference::secrets().try_fold(builder, |builder, (key, default)| builder.set_default(key, default))
}

/// All sources as one tree; a flag that is none is noted.
fn merge(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[String],
    problems: &mut Vec<Problem>,
) -> Result<Value, ConfigError> {
    let mut builder = defaults().map_err(|error| failed(file, &error))?;
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
    Ok(builder.build().map_err(|error| failed(file, &error))?.cache)
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
