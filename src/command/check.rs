//! `highwater check`: everything that is wrong with settings, schemas, packs, prices and connections, in one list.
//!
//! It looks on past what is wrong: a schema that can't be read does not hide a wrong pack, nor a wrong setting a server that
//! does not answer. What merely follows from something else that is told is left out. Nothing is changed anywhere.

mod servers;

use std::io::Write;
use std::path::Path;

use anyhow::Result;

use super::load;
use super::report::Report;
use crate::config::{DEFAULT_FILE, Settings, Survey};
use crate::plan::{Plan, PlanError, Sources, Text};

/// What `highwater check` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Leave out connections: look only at files, the environment and the command line
    #[arg(long)]
    pub offline: bool,
}

/// Looks at everything and writes what it finds, as it finds it; false: something is wrong. `file` is the settings file
/// that was asked for.
///
/// # Errors
/// `out` can't be written to.
pub async fn run(survey: &Survey, file: Option<&Path>, args: &Args, out: impl Write) -> Result<bool> {
    let mut report = Report::new(out);
    look_at_settings(&mut report, survey, file)?;
    if let Some(settings) = &survey.settings {
        let plan = look_at_plan(&mut report, survey, settings)?;
        if !args.offline {
            servers::look(&mut report, survey, settings, plan.as_ref()).await?;
        }
    }
    report.end(if args.offline { " (connections were not looked at)" } else { "" })
}

fn look_at_settings(report: &mut Report<impl Write>, survey: &Survey, file: Option<&Path>) -> Result<()> {
    let default = Path::new(DEFAULT_FILE);
    let file = file.or_else(|| default.exists().then_some(default));
    let file = file.map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    report.about(&format!("settings: {file}, environment, command line"))?;
    for problem in &survey.problems {
        report.wrong(problem)?;
    }
    match &survey.settings {
        None => report.skipped("everything else, for the settings say where it is"),
        Some(_) if survey.problems.is_empty() => report.ok("all can be read, and fit together"),
        Some(_) => Ok(()),
    }
}

/// Schemas, packs and prices; answers the plan where all are right.
fn look_at_plan(report: &mut Report<impl Write>, survey: &Survey, settings: &Settings) -> Result<Option<Plan>> {
    let events = &settings.events;
    let sound = |key: &str| survey.is_sound(key);
    let schemas =
        sound("events.schemas").then(|| Ok((load::schemas(&events.schemas)?, load::former(&events.schemas)?)));
    let packs = sound("events.packs").then(|| load::packs(&events.packs));
    let prices = sound("events.prices").then(|| load::prices(events.prices.as_deref()));
    let given = |found: &Option<Result<Vec<Text>>>| match found {
        Some(Ok(texts)) => texts.clone(),
        _ => Vec::new(),
    };
    let (present, former) = match &schemas {
        Some(Ok(texts)) => texts.clone(),
        _ => (Vec::new(), Vec::new()),
    };
    let sources = Sources {
        schemas: present,
        former,
        packs: given(&packs),
        prices: prices.as_ref().and_then(|found| found.as_ref().ok().cloned().flatten()),
        registry: settings.registry.url.is_some(),
    };
    let complete = matches!((&schemas, &packs, &prices), (Some(Ok(_)), Some(Ok(_)), Some(Ok(_))));
    let (plan, mut errors) = match Plan::compile(&sources, settings.limits()) {
        Ok(plan) => (Some(plan), Vec::new()),
        Err(errors) => (None, errors),
    };
    // That there is none follows from a directory that can't be read, which is told.
    errors.retain(|error| !matches!(error, PlanError::NoTypes));
    let types = plan.iter().flat_map(|plan| plan.types.iter().map(|planned| planned.event.name.as_str()));
    let types: Vec<&str> = types.collect();
    let counted = |what: &str, texts: &[Text]| format!("{} {what}", texts.len());

    report.about(&format!("schemas: {}", events.schemas.display()))?;
    let is_schema = |error: &PlanError| {
        matches!(error, PlanError::Schema(_) | PlanError::SameType { .. } | PlanError::Former { .. })
    };
    let named = if types.is_empty() { String::new() } else { format!(": {}", types.join(", ")) };
    let kept =
        if sources.former.is_empty() { String::new() } else { format!("; former schemas: {}", sources.former.len()) };
    let found = counted("event types", &sources.schemas) + &named + &kept;
    tell(report, "events.schemas", schemas.as_ref(), errors.iter().filter(|error| is_schema(error)), &found)?;

    report.about(&format!("packs: {}", events.packs.display()))?;
    let is_pack = |error: &PlanError| matches!(error, PlanError::Pack(_) | PlanError::TableName(_));
    let made = plan
        .as_ref()
        .map_or_else(String::new, |plan| format!(": {} rollups, {} metrics", plan.rollups.len(), plan.metrics.len()));
    let found = counted("files", &sources.packs) + &made;
    tell(report, "events.packs", packs.as_ref(), errors.iter().filter(|error| is_pack(error)), &found)?;

    if let Some(unjudged) = plan.as_ref().and_then(|plan| settings.unjudged(plan)) {
        report.note(&unjudged)?;
    }

    report.about(&match &events.prices {
        Some(prices) => format!("prices: {}", prices.display()),
        None => "prices: none (setting events.prices)".to_owned(),
    })?;
    let is_price = |error: &PlanError| matches!(error, PlanError::Price(_));
    let found = if sources.prices.is_some() { "every price can be read" } else { "every call is unpriced" };
    tell(report, "events.prices", prices.as_ref(), errors.iter().filter(|error| is_price(error)), found)?;
    Ok(plan.filter(|_| complete))
}

/// What was found of one kind of files: that they can't be read, what is wrong with them, or that all is right.
fn tell<'a, T>(
    report: &mut Report<impl Write>,
    setting: &str,
    files: Option<&Result<T>>,
    errors: impl Iterator<Item = &'a PlanError>,
    found: &str,
) -> Result<()> {
    match files {
        None => return report.skipped(&format!("the setting {setting} is wrong")),
        Some(Err(error)) => return report.wrong(format!("{error:#}")),
        Some(Ok(_)) => {}
    }
    let mut sound = true;
    for error in errors {
        report.wrong(error)?;
        sound = false;
    }
    if sound { report.ok(found) } else { Ok(()) }
}
