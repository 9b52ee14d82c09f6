//! `highwater schema check`: schemas of a service, held against those that highwater runs with and the registry's.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::UsageError;
use super::framing::{full_name, subject};
use super::load;
use super::report::Report;
use crate::columns::Decoder;
use crate::config::Settings;
use crate::event::EventType;
use crate::plan::Text;
use crate::ports::Registered;
use crate::registry::Client;

/// What `highwater schema check` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Annotated Avro schemas, one event type a file
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Hold them also against the latest versions in the registry at registry.url, under {topic}-{record's full name} for
    /// each of kafka.topics
    #[arg(long)]
    pub registry: bool,
}

/// Looks at each file and writes what it finds; false: something is wrong.
///
/// # Errors
/// A file or the directory events.schemas can't be read; there is no registry to ask; `out` can't be written to.
pub async fn run(settings: &Settings, args: &Args, out: impl Write) -> Result<bool> {
    let given = read(&args.files)?;
    let registry = match settings.registry()? {
        _ if !args.registry => None,
        Some(endpoint) => Some(Client::new(endpoint)),
        None => return Err(UsageError("--registry needs the address of a schema registry: registry.url".into()).into()),
    };
    let mut report = Report::new(out);
    let running = running(&mut report, settings, &args.files)?;
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (file, json) in &given {
        report.about(file)?;
        let event = match EventType::parse(file, json) {
            Ok(event) => event,
            Err(error) => {
                report.wrong(error)?;
                continue;
            }
        };
        if let Some(first) = seen.get(&event.name) {
            let name = &event.name;
            report.wrong(format!("it declares the event type {name}, as {first} does already; rename one of them"))?;
            continue;
        }
        hold_against_running(&mut report, &event, &running, settings)?;
        if let Some(registry) = &registry {
            hold_against_registry(&mut report, &event, registry, &settings.kafka.topics).await?;
        }
        seen.insert(event.name, file.clone());
    }
    report.end("")
}

/// The files that are to be checked; all that can't be read are told.
fn read(files: &[PathBuf]) -> Result<Vec<Text>, UsageError> {
    let (mut texts, mut errors) = (Vec::new(), Vec::new());
    for file in files {
        match load::text(file) {
            Ok(text) => texts.push(text),
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    if errors.is_empty() { Ok(texts) } else { Err(UsageError(errors.join("\n"))) }
}

/// The event types that highwater runs with, by their files. One that is wrong is told, unless it is to be checked itself.
fn running(
    report: &mut Report<impl Write>,
    settings: &Settings,
    files: &[PathBuf],
) -> Result<Vec<(String, EventType)>> {
    let place = |file: &Path| file.canonicalize().ok();
    let mut types = Vec::new();
    let mut errors = Vec::new();
    for (file, json) in load::schemas(&settings.events.schemas)? {
        match EventType::parse(&file, &json) {
            Ok(event) => types.push((file, event)),
            Err(error) if !files.iter().any(|given| place(given) == place(Path::new(&file))) => errors.push(error),
            Err(_) => {}
        }
    }
    if !errors.is_empty() {
        report.about(&format!("what highwater runs with: {}", settings.events.schemas.display()))?;
    }
    errors.iter().try_for_each(|error| report.wrong(error))?;
    Ok(types)
}

fn hold_against_running(
    report: &mut Report<impl Write>,
    event: &EventType,
    running: &[(String, EventType)],
    settings: &Settings,
) -> Result<()> {
    let reads =
        |reader: &EventType| reader.schema.record().is_some_and(|(record, _)| record.answers_to(full_name(event)));
    let schemas = settings.events.schemas.display();
    let Some((file, installed)) = running.iter().find(|(_, installed)| reads(installed)) else {
        return report.ok(&format!(
            "{} is a new event type; its messages are dead letters until it stands in {schemas}",
            event.name
        ));
    };
    if installed.fingerprint == event.fingerprint && installed.columns() == event.columns() {
        return report.ok(&format!("{} is what highwater runs with ({file})", event.name));
    }
    let mut wrong = Vec::new();
    for mismatch in Decoder::mismatches(&event.json, installed)? {
        wrong
            .push(format!("what is written with it can't be read with {file}, which highwater runs with:\n{mismatch}"));
    }
    for mismatch in Decoder::mismatches(&installed.json, event)? {
        wrong.push(format!("with it, what was written with {file} can't be read any more:\n{mismatch}"));
    }
    if installed.name == event.name {
        wrong.extend(changed_columns(event, installed));
    }
    wrong.iter().try_for_each(|problem| report.wrong(problem))?;
    if !wrong.is_empty() {
        return Ok(());
    }
    report.ok(&format!("{} is compatible with {file}, which highwater runs with", event.name))?;
    if settings.registry.url.is_none() && installed.fingerprint != event.fingerprint {
        // Without a registry the writer's schema is known only by the fingerprint of one in `schemas/`.
        report.note(&format!(
            "put it into {schemas} before anybody publishes with it, and {file} as it is into {schemas}/former: without a \
             schema registry highwater knows messages only by the fingerprint of a schema that it has, and all others are \
             dead letters"
        ))?;
    }
    Ok(())
}

/// Columns that would need another type, which `highwater migrate` gives to none.
fn changed_columns(event: &EventType, installed: &EventType) -> Vec<String> {
    let before: BTreeMap<String, String> =
        installed.columns().into_iter().map(|column| (column.name, column.clickhouse_type)).collect();
    let changed = event.columns().into_iter().filter_map(|column| {
        let was = before.get(&column.name).filter(|was| **was != column.clickhouse_type)?;
        Some(format!(
            "the column `{}` of the table {} is {was} and would have to be {}; columns that hold values are not converted: \
             give the field another name",
            column.name, event.name, column.clickhouse_type
        ))
    });
    changed.collect()
}

async fn hold_against_registry(
    report: &mut Report<impl Write>,
    event: &EventType,
    registry: &Client,
    topics: &[String],
) -> Result<()> {
    for topic in topics {
        let subject = subject(topic, full_name(event));
        match registry.latest(&subject).await {
            Err(error) => return report.wrong(error),
            Ok(Registered::Missing) => {
                report.ok(&format!("the registry has nothing under the subject {subject} yet"))?
            }
            Ok(Registered::Unusable(why)) => report.wrong(format!("under the subject {subject}: {why}"))?,
            Ok(Registered::Avro(json)) => match Decoder::mismatches(&json, event) {
                Err(error) => report.wrong(format!("under the subject {subject}: {error}"))?,
                Ok(mismatches) if mismatches.is_empty() => {
                    report.ok(&format!("it reads what is written with the registry's latest under {subject}"))?;
                }
                Ok(mismatches) => mismatches.iter().try_for_each(|mismatch| {
                    report.wrong(format!(
                        "with it, what is written with the registry's latest under {subject} can't be read:\n{mismatch}"
                    ))
                })?,
            },
        }
    }
    Ok(())
}
