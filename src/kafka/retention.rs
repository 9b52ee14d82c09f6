//! How long topics keep their records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};

use super::observer::Quiet;
use super::settings::{ConsumerSettings, base};

/// Asks how long the settings' topics keep records by time; those that keep them for ever, and those whose settings this
/// client may not read, are left out.
///
/// # Errors
/// Kafka did not answer, or the client's settings are refused.
pub async fn keeps(settings: &ConsumerSettings, patience: Duration) -> Result<BTreeMap<Arc<str>, Duration>> {
    let mut config = base(&settings.brokers, &settings.client_id);
    for (key, value) in &settings.properties {
        config.set(key, value);
    }
    let admin: AdminClient<Quiet> =
        config.create_with_context(Quiet::default()).context("making a client for the topics' settings")?;
    let topics: Vec<_> = settings.topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let options = AdminOptions::new().request_timeout(Some(patience));
    let answers = admin.describe_configs(&topics, &options).await.context("asking for the topics' settings")?;
    let named = settings.topics.iter().zip(answers);
    let kept = named.filter_map(|(topic, answer)| match answer {
        Ok(found) => Some((Arc::from(topic.as_str()), kept(&found)?)),
        Err(error) => {
            tracing::debug!(topic, "may not read the topic's settings: {error}");
            None
        }
    });
    Ok(kept.collect())
}

fn kept(topic: &ConfigResource) -> Option<Duration> {
    let value = |name| topic.get(name).and_then(|entry| entry.value.as_deref());
    // A topic that is only compacted loses nothing by age.
    if !value("cleanup.policy").is_none_or(|policy| policy.contains("delete")) {
        return None;
    }
    value("retention.ms")?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};

    use super::*;

    #[test]
    fn topics_that_keep_all_have_no_retention() {
        let of = |settings: &[(&str, &str)]| {
            let entry = |(name, value): &(&str, &str)| ConfigEntry {
                name: (*name).to_owned(),
                value: Some((*value).to_owned()),
                source: ConfigSource::Default,
                is_read_only: false,
                is_default: true,
                is_sensitive: false,
            };
            let specifier = OwnedResourceSpecifier::Topic("t".to_owned());
            kept(&ConfigResource { specifier, entries: settings.iter().map(entry).collect() })
        };
        let day = "86400000";
        assert_eq!(of(&[("retention.ms", day)]), Some(Duration::from_secs(86_400)));
        assert_eq!(
            of(&[("retention.ms", day), ("cleanup.policy", "compact,delete")]),
            Some(Duration::from_secs(86_400))
        );
        assert_eq!(of(&[("retention.ms", day), ("cleanup.policy", "compact")]), None);
        assert_eq!(of(&[("retention.ms", "-1"), ("cleanup.policy", "delete")]), None);
        assert_eq!(of(&[]), None);
    }
}
