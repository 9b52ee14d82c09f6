//! Secrets, where they may come from, and the settings of secure connections that must fit together.

use std::path::{Path, PathBuf};

use super::reader::{Reader, dotted};
use super::value::Secret;
use super::{KafkaSettings, Settings, variable};
use crate::clickhouse::EndpointError;
use crate::forward::{AddressError, Kind};
use crate::registry;
use crate::tls::{self, TlsFiles};

/// Takes every secret from the environment or from its file.
pub(super) fn fetch(settings: &mut Settings, reader: &mut Reader) {
    let Settings { kafka, clickhouse, registry, forward, .. } = settings;
    let secrets = [
        ("kafka", "password", &mut kafka.password, &kafka.password_file),
        ("kafka", "key_password", &mut kafka.key_password, &kafka.key_password_file),
        ("clickhouse", "password", &mut clickhouse.password, &clickhouse.password_file),
        ("registry", "password", &mut registry.password, &registry.password_file),
        ("forward", "webhook_url", &mut forward.webhook_url, &forward.webhook_url_file),
        ("forward", "slack_url", &mut forward.slack_url, &forward.slack_url_file),
        ("forward", "alertmanager_url", &mut forward.alertmanager_url, &forward.alertmanager_url_file),
    ];
    for (section, key, secret, file) in secrets {
        if let Some(found) = secret_of(section, key, secret, file.as_deref(), reader) {
            *secret = found;
        }
    }
}

/// A secret from the environment or from its file.
fn secret_of(section: &str, key: &str, given: &Secret, file: Option<&Path>, reader: &mut Reader) -> Option<Secret> {
    let name = dotted(section, key);
    let (variable, by_file) = (variable(&name), format!("{name}_file"));
    let is_given = !given.reveal().is_empty();
    let origin = reader.origin(section, key);
    if is_given && !origin.contains(&variable) {
        let message = format!(
            "found in {origin}, where others can read it; allowed are the environment variable {variable} and {by_file}"
        );
        reader.problem(name, message);
        return None;
    }
    let file = file?;
    if is_given {
        reader.problem(name, format!("set as {variable} and by {by_file}; allowed is one of them"));
        return None;
    }
    let problem = match std::fs::read_to_string(file) {
        Ok(text) => match text.trim_end_matches(['\r', '\n']) {
            "" => format!("{} is empty", file.display()),
            secret => return Some(Secret::new(secret)),
        },
        Err(error) => format!("can't read {}: {error}", file.display()),
    };
    reader.problem(by_file, problem);
    None
}

/// What is set and used, and what is used and set.
pub(super) fn check_kafka(kafka: &KafkaSettings, reader: &mut Reader) {
    let security = kafka.security;
    let name = security.as_str();
    let has_password = !kafka.password.reveal().is_empty() || kafka.password_file.is_some();
    for (key, is_set) in [("username", kafka.username.is_some()), ("password", has_password)] {
        if security.is_sasl() && !is_set {
            let variable = variable(&dotted("kafka", key));
            let file = if key == "password" { " or kafka.password_file" } else { "" };
            reader.problem(
                dotted("kafka", key),
                format!("missing, and security {name:?} needs it: set {variable}{file}"),
            );
        } else if is_set && !security.is_sasl() {
            reader.problem(
                dotted("kafka", key),
                format!("set, and not used by security {name:?}; \"sasl_ssl\" uses it (setting kafka.security)"),
            );
        }
    }
    let certificates = [("ca_file", &kafka.ca_file), ("certificate_file", &kafka.certificate_file)];
    for (key, file) in certificates.into_iter().chain([("key_file", &kafka.key_file)]) {
        let Some(file) = file else { continue };
        if !security.is_tls() {
            reader.problem(
                dotted("kafka", key),
                format!(
                    "set, and not used by security {name:?}; \"ssl\" and \"sasl_ssl\" use it (setting kafka.security)"
                ),
            );
        } else if let Err(problem) = readable(key, file) {
            reader.problem(dotted("kafka", key), problem);
        }
    }
    match (&kafka.certificate_file, &kafka.key_file) {
        (Some(_), None) => reader.problem("kafka.key_file", "missing, and certificate_file needs it"),
        (None, Some(_)) => reader.problem("kafka.certificate_file", "missing, and key_file belongs to one"),
        _ => {}
    }
    let has_key_password = !kafka.key_password.reveal().is_empty() || kafka.key_password_file.is_some();
    if has_key_password && kafka.key_file.is_none() {
        reader.problem("kafka.key_password", "set, and there is no kafka.key_file that it could open");
    }
}

/// The key may be encrypted, so that only librdkafka can tell whether it is one.
fn readable(key: &str, file: &Path) -> Result<(), String> {
    if key == "key_file" {
        return std::fs::File::open(file).map(drop).map_err(|error| format!("can't read {}: {error}", file.display()));
    }
    tls::certificates(file).map(drop)
}

/// The address and what TLS needs; nothing of the address is repeated, for it may hold a password.
pub(super) fn check_clickhouse(settings: &Settings, reader: &mut Reader) {
    let origin = reader.origin("clickhouse", "url");
    match settings.endpoint() {
        Err(EndpointError::Malformed) => reader.problem(
            "clickhouse.url",
            format!("found something else in {origin}; allowed is http://host:port or https://host:port, and no more"),
        ),
        Err(EndpointError::Credentials) => {
            let variable = variable("clickhouse.password");
            reader.problem(
                "clickhouse.url",
                format!(
                    "found a user or a password in {origin}, where logs would show it; allowed are clickhouse.user, and {variable} \
                     or clickhouse.password_file"
                ),
            );
        }
        Err(EndpointError::Tls(error)) => reader.problem(dotted("clickhouse", error.key), error.what),
        Ok(endpoint) if !endpoint.https => unused("clickhouse", &settings.clickhouse.files(), reader),
        Ok(_) => {}
    }
}

/// The same for the schema registry.
pub(super) fn check_registry(settings: &Settings, reader: &mut Reader) {
    match settings.registry() {
        Err(registry::EndpointError::Malformed) => {
            let message = format!(
                "found something else in {}; allowed is http://host:port or https://host:port, with a path or without, and \
                 no more: user and password have settings of their own",
                reader.origin("registry", "url")
            );
            reader.problem("registry.url", message);
        }
        Err(registry::EndpointError::Tls(error)) => reader.problem(dotted("registry", error.key), error.what),
        Ok(Some(endpoint)) if endpoint.https => {}
        Ok(_) => unused("registry", &settings.registry.files(), reader),
    }
}

/// The same for whoever alerts are handed on to, once the secrets are fetched.
pub(super) fn check_forward(settings: &Settings, reader: &mut Reader) {
    let (mut https, mut is_known) = (false, true);
    for kind in Kind::ALL {
        match settings.target(kind) {
            Ok(target) => https |= target.iter().flat_map(|target| &target.addresses).any(|address| address.https),
            Err(AddressError::Tls(error)) => {
                let key = dotted("forward", error.key);
                if !reader.problems.iter().any(|problem| problem.key == key) {
                    reader.problem(key, error.what);
                }
                is_known = false;
            }
            Err(error) => {
                let several = match kind {
                    Kind::Alertmanager => {
                        "one or more of http://host:port or https://host:port, with a path or without"
                    }
                    Kind::Webhook | Kind::Slack => "one of http://host/path or https://host/path",
                };
                reader.problem(kind.section().address, format!("{error}; allowed is {several}"));
                is_known = false;
            }
        }
    }
    if !https && is_known {
        let files = settings.forward.files();
        for (key, _) in files_set(&files) {
            reader.problem(dotted("forward", key), "set, and used only by https://, which no URL of [forward] is");
        }
    }
    let link = settings.forward.link.as_deref().unwrap_or_default();
    let rest = link.replace("{alert_id}", "").replace("{rule}", "");
    let is_page = link.is_empty() || link.starts_with("http://") || link.starts_with("https://");
    if !is_page || rest.contains(['{', '}', ' ', '<', '>', '|']) {
        let message = format!(
            "found something else in {}; allowed is http://… or https://…, with {{alert_id}} and {{rule}} as its only places",
            reader.origin("forward", "link")
        );
        reader.problem("forward.link", message);
    }
}

/// Files that TLS would need, and there is none.
fn unused(section: &str, files: &TlsFiles, reader: &mut Reader) {
    for (key, _) in files_set(files) {
        reader.problem(dotted(section, key), format!("set, and used only by https:// (setting {section}.url)"));
    }
}

fn files_set(files: &TlsFiles) -> impl Iterator<Item = (&'static str, &PathBuf)> {
    let files =
        [("ca_file", &files.ca_file), ("certificate_file", &files.certificate_file), ("key_file", &files.key_file)];
    files.into_iter().filter_map(|(key, file)| Some((key, file.as_ref()?)))
}

/// How to get in, as librdkafka's properties.
pub(super) fn properties(kafka: &KafkaSettings) -> impl Iterator<Item = (String, String)> + use<> {
    let security = kafka.security;
    let path = |file: &Option<PathBuf>| file.as_ref().map(|file| file.display().to_string());
    let secret = |secret: &Secret| (!secret.reveal().is_empty()).then(|| secret.reveal().to_owned());
    let mut all = vec![("security.protocol", Some(security.as_str().to_owned()))];
    if security.is_sasl() {
        all.push(("sasl.mechanism", Some(kafka.sasl_mechanism.as_str().to_owned())));
        all.push(("sasl.username", kafka.username.clone()));
        all.push(("sasl.password", secret(&kafka.password)));
    }
    if security.is_tls() {
        // An OpenSSL of our own does not know where this system keeps its CAs.
        let system = cfg!(feature = "vendored-openssl").then(|| "probe".to_owned());
        all.push(("ssl.ca.location", path(&kafka.ca_file).or(system)));
        all.push(("ssl.certificate.location", path(&kafka.certificate_file)));
        all.push(("ssl.key.location", path(&kafka.key_file)));
        all.push(("ssl.key.password", secret(&kafka.key_password)));
    }
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)))
}
