//! Whether the servers are there, let us in, and have what `highwater run` needs. Nothing is changed on them.

mod forward;

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;

use crate::clickhouse::schema::{self, Fault, SchemaError};
use crate::clickhouse::{Catalog, Client, Grants, grants, look as look_at_claim};
use crate::command::report::Report;
use crate::config::{Settings, Survey};
use crate::kafka::identity::IdentityError;
use crate::kafka::{Access, ConsumerSettings, Observer, Resource, TopicIdentity};
use crate::plan::Plan;
use crate::registry;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at ClickHouse, Kafka and the schema registry, as far as their settings are right.
pub(super) async fn look(
    report: &mut Report<impl Write>,
    survey: &Survey,
    settings: &Settings,
    plan: Option<&Plan>,
) -> Result<()> {
    let clickhouse = look_at_clickhouse(report, survey, settings, plan).await?;
    look_at_kafka(report, survey, settings, clickhouse.as_ref()).await?;
    look_at_alerts(report, survey, settings, plan).await?;
    forward::look(report, survey, settings).await?;
    look_at_registry(report, survey, settings).await
}

/// Answers a client where the tables are as they have to be.
async fn look_at_clickhouse(
    report: &mut Report<impl Write>,
    survey: &Survey,
    settings: &Settings,
    plan: Option<&Plan>,
) -> Result<Option<Client>> {
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }
    let endpoint = match settings.endpoint() {
        Ok(endpoint) if survey.is_sound("clickhouse") => endpoint,
        _ => {
            report.about("ClickHouse")?;
            report.skipped("a setting of [clickhouse] is wrong")?;
            return Ok(None);
        }
    };
    report.about(&format!("ClickHouse: {endpoint:?}"))?;
    let client = Client::new(endpoint).with_timeout(PATIENCE);
    match client.clone().outside().rows::<Version>("SELECT version() AS version").await {
        Ok(rows) => {
            let version = rows.into_iter().next().map(|row| row.version).unwrap_or_default();
            report.ok(&format!("it answers, and is of version {version}"))?;
        }
        Err(error) => {
            report.wrong(error)?;
            return Ok(None);
        }
    }
    let Some(plan) = plan else {
        report.skipped("tables: which there must be is said by schemas and packs")?;
        return Ok(None);
    };
    let catalog = Catalog::new(plan, &settings.tables(), client.database()).needed(settings.judges(plan));
    let usable = look_at_tables(report, &client, &catalog).await?;
    look_at_grants(report, &client, &catalog).await?;
    Ok(usable.then_some(client))
}

/// Whether a worker may write to the tables as they are.
async fn look_at_tables(report: &mut Report<impl Write>, client: &Client, catalog: &Catalog) -> Result<bool> {
    let existing = match schema::read(client).await {
        Ok(existing) => existing,
        Err(error) => {
            report.wrong(error)?;
            return Ok(false);
        }
    };
    if existing.is_empty() {
        let database = client.database();
        let user = &client.endpoint().user;
        report.wrong(format!(
            "the database {database} has no tables that the user {user} may see; make it and them with `highwater migrate`"
        ))?;
        return Ok(false);
    }
    let (missing, others): (Vec<Fault>, Vec<Fault>) =
        schema::faults(&existing, catalog).into_iter().partition(|fault| matches!(fault, Fault::Missing(_)));
    let missing: Vec<&str> = missing.iter().filter_map(Fault::missing).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        report.wrong(format!("these tables and views are missing: {missing}; make them with `highwater migrate`"))?;
    }
    for fault in &others {
        report.wrong(fault)?;
    }
    if !missing.is_empty() || !others.is_empty() {
        return Ok(false);
    }
    match schema::difference(&existing, catalog, client.database()) {
        Ok(statements) if statements.is_empty() => {
            let (tables, views) = (catalog.tables.len(), catalog.views.len());
            report.ok(&format!("{tables} tables and {views} views are as `highwater migrate` makes them"))?;
        }
        Ok(statements) => report.wrong(format!(
            "{} statements of `highwater migrate` have not been run since schemas, packs or retention were changed; \
             `highwater migrate --dry-run` shows them",
            statements.len()
        ))?,
        Err(faults) => report.wrong(SchemaError::Faults(faults))?,
    }
    Ok(true)
}

/// Whether our user may read and write the tables.
async fn look_at_grants(report: &mut Report<impl Write>, client: &Client, catalog: &Catalog) -> Result<()> {
    let user = &client.endpoint().user;
    match grants::look(client, catalog).await {
        Ok(Grants::Enough) => report.ok(&format!("the user {user} may read and insert")),
        Ok(Grants::Lacking(what)) => report.wrong(what),
        Ok(Grants::Unknown) => {
            report.skipped("permissions: this version of ClickHouse can't be asked for them (CHECK GRANT)")
        }
        Err(error) => report.wrong(format!("can't ask for the permissions of the user {user}: {error}")),
    }
}

/// Topics, permissions, and who may write them to the database, where that has its tables.
async fn look_at_kafka(
    report: &mut Report<impl Write>,
    survey: &Survey,
    settings: &Settings,
    clickhouse: Option<&Client>,
) -> Result<()> {
    if !survey.is_sound("kafka") {
        report.about("Kafka")?;
        return report.skipped("a setting of [kafka] is wrong");
    }
    report.about(&format!("Kafka: {}", settings.kafka.brokers.join(",")))?;
    let (consumer, topics) = (settings.consumer("highwater-check"), settings.kafka.topics.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let observer = Observer::new(&consumer, PATIENCE)?;
        let mut found = Vec::new();
        for topic in &topics {
            found.push(observer.identity(topic));
            // Whoever does not answer for one topic will not for the next.
            if matches!(found.last(), Some(Err(IdentityError::Away { .. } | IdentityError::Credentials { .. }))) {
                return anyhow::Ok((found, Ok(Access::default()), Vec::new()));
            }
        }
        let access = observer.access();
        let may_read = access.as_ref().is_ok_and(|access| access.lacking.is_empty());
        let read = |(topic, found): (&String, &Result<_, _>)| {
            if found.is_ok() && may_read { observer.readable(topic) } else { Ok(()) }
        };
        let readable = topics.iter().zip(&found).map(read).collect();
        Ok((found, access, readable))
    });
    let (found, access, readable) = match asked.await? {
        Ok(answers) => answers,
        Err(error) => return report.wrong(error),
    };
    let access = match access {
        Ok(access) => access,
        Err(error) => {
            report.wrong(error)?;
            Access::default()
        }
    };
    for right in &access.lacking {
        report.wrong(right)?;
    }
    for right in &access.wished {
        report.note(&format!(
            "without it there is no metric of how long the log keeps what is not yet written: {right}"
        ))?;
    }
    let group = &settings.kafka.group;
    let mut partitions = 0;
    for (at, (topic, found)) in settings.kafka.topics.iter().zip(&found).enumerate() {
        let lacks = access.lacking.iter().any(|right| right.resource == Resource::Topic(topic.clone()));
        match found {
            // Which follows from the right that is missing.
            Err(IdentityError::Refused { .. }) if lacks => {}
            Err(error) => report.wrong(error)?,
            Ok(found) => {
                partitions += found.partitions;
                let count = found.partitions;
                match readable.get(at) {
                    Some(Err(error)) => report.wrong(error)?,
                    _ if !access.lacking.is_empty() => {
                        report.ok(&format!("the topic {topic} is there, with {count} partitions"))?;
                    }
                    _ => report.ok(&format!(
                        "the topic {topic} is there, with {count} partitions, and the group {group} may read it"
                    ))?,
                }
                if let Some(client) = clickhouse {
                    tell_claim(report, client, topic, found, group).await?;
                }
            }
        }
    }
    let sound = ["batch", "clickhouse", "memory"].iter().all(|section| survey.is_sound(section));
    if let Some(lacking) = settings.tokens_lacking(partitions).filter(|_| sound) {
        report.wrong(lacking)?;
    }
    Ok(())
}

/// Whether what is told of alerts can be published, where packs have any.
async fn look_at_alerts(
    report: &mut Report<impl Write>,
    survey: &Survey,
    settings: &Settings,
    plan: Option<&Plan>,
) -> Result<()> {
    let Some(plan) = plan else { return Ok(()) };
    let count = plan.alerts.rules.len() + plan.alerts.budgets.len();
    let Some(topic) = settings.alerts.topic.clone().filter(|_| count > 0) else { return Ok(()) };
    let topics = vec![topic, settings.alerts.budget_topic.clone()];
    report.about(&format!("alerts: {count} rules and budgets, to the topics {}", topics.join(" and ")))?;
    if !survey.is_sound("kafka") || !survey.is_sound("alerts") {
        return report.skipped("a setting of [kafka] or [alerts] is wrong");
    }
    let consumer = ConsumerSettings { topics, ..settings.consumer("highwater-check") };
    let asked = tokio::task::spawn_blocking(move || {
        let observer = Observer::new(&consumer, PATIENCE)?;
        let lacking = observer.unpublishable()?;
        let found: Vec<_> = consumer.topics.iter().map(|topic| (topic.clone(), observer.identity(topic))).collect();
        anyhow::Ok((lacking, found))
    });
    let (lacking, found) = match asked.await? {
        Ok(answers) => answers,
        Err(error) => return report.wrong(format!("{error:#}")),
    };
    for right in &lacking {
        report.wrong(right)?;
    }
    for (topic, found) in found {
        match found {
            Ok(_) if lacking.is_empty() => report.ok(&format!("the topic {topic} is there and can be written"))?,
            Ok(_) => {}
            Err(IdentityError::NotFound(_)) => {
                report.note(&format!("the topic {topic} is not there yet; `highwater run` makes it"))?;
            }
            // Which follows from the right that is missing.
            Err(IdentityError::Refused { .. }) if !lacking.is_empty() => {}
            Err(error) => report.wrong(error)?,
        }
    }
    Ok(())
}

/// Whether another group writes the topic to this database, or it is another topic than it was.
async fn tell_claim(
    report: &mut Report<impl Write>,
    client: &Client,
    topic: &str,
    found: &TopicIdentity,
    group: &str,
) -> Result<()> {
    match look_at_claim(client, topic, &found.cluster_id, &found.topic_id, group).await {
        Ok(Some(epoch)) => report.ok(&format!("it is the topic that this database knows, in epoch {epoch}")),
        Ok(None) => report.ok("nobody has written it to this database yet"),
        Err(error) => report.wrong(error),
    }
}

async fn look_at_registry(report: &mut Report<impl Write>, survey: &Survey, settings: &Settings) -> Result<()> {
    if !survey.is_sound("registry") {
        report.about("schema registry")?;
        return report.skipped("a setting of [registry] is wrong");
    }
    match settings.registry() {
        Ok(Some(endpoint)) => {
            report.about(&format!("schema registry: {endpoint:?}"))?;
            // Whatever it says of an id, it is a registry.
            match registry::Client::new(endpoint).schema(1).await {
                Ok(_) => report.ok("it answers"),
                Err(error) => report.wrong(error),
            }
        }
        Ok(None) => {
            report.about("schema registry: none (setting registry.url)")?;
            report.ok("events name their schemas by fingerprint")
        }
        Err(error) => {
            report.about("schema registry")?;
            report.wrong(error)
        }
    }
}
