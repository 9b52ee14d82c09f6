//! Whether alerts can be handed on: the topic can be read in the groups of the targets, and somebody listens there.

use std::io::Write;

use anyhow::Result;

use super::PATIENCE;
use crate::command::report::Report;
use crate::config::{Settings, Survey};
use crate::forward::{Kind, Target};
use crate::kafka::{ConsumerSettings, Observer};

/// Looks at all targets that are set.
pub(super) async fn look(report: &mut Report<impl Write>, survey: &Survey, settings: &Settings) -> Result<()> {
    if !survey.is_sound("forward") {
        report.about("alerts forward")?;
        return report.skipped("a setting of [forward] is wrong");
    }
    for kind in Kind::ALL {
        let Some(target) = settings.target(kind)? else { continue };
        report.about(&format!("alerts forward: {target}"))?;
        for address in &target.addresses {
            match address.reach(PATIENCE).await {
                Ok(()) => report.ok(&format!("somebody listens at {address:?}"))?,
                Err(reason) => report.wrong(format!("{address:?}: {reason}"))?,
            }
        }
        look_at_rights(report, survey, settings, &target).await?;
    }
    Ok(())
}

async fn look_at_rights(
    report: &mut Report<impl Write>,
    survey: &Survey,
    settings: &Settings,
    target: &Target,
) -> Result<()> {
    let Some(topic) = settings.alerts.topic.clone().filter(|_| survey.is_sound("kafka")) else {
        return report
            .skipped("what is to be handed on: alerts.topic names no topic, or a setting of [kafka] is wrong");
    };
    let group = target.group(&settings.forward.group);
    let consumer = ConsumerSettings { topics: vec![topic], group, ..settings.consumer("highwater-check") };
    let asked = tokio::task::spawn_blocking(move || anyhow::Ok(Observer::new(&consumer, PATIENCE)?.access()?));
    match asked.await? {
        Err(error) => report.wrong(format!("{error:#}")),
        Ok(access) => access.lacking.iter().try_for_each(|right| report.wrong(right)),
    }
}
