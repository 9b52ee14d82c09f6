//! What is shipped for container engines and service managers: that it parses, that every path in it exists and that every
//! setting in it is one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn yaml(name: &str) -> Yaml {
    let mut documents = YamlLoader::load_from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}

/// Loads the settings from an environment, with a file in the place of each secret that is mounted.
fn accepted(place: &str, variables: Vec<(String, String)>) {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "secret").unwrap();
    let empty = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let ours = variables.into_iter().filter(|(name, _)| name.starts_with("HIGHWATER_")).map(|(name, value)| {
        let value = if name.ends_with("_FILE") { secret.path().display().to_string() } else { value };
        (name, value)
    });
    let ours: Vec<_> = ours.collect();
    assert!(ours.len() > 1, "{place} sets nothing");
    if let Err(error) = highwater::config::load(Some(empty.path()), ours, &[]) {
        panic!("{place}: {error}");
    }
}

fn scalar(value: &Yaml) -> String {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|number| number.to_string())).unwrap()
}

#[test]
fn compose_names_what_exists() {
    let compose = yaml("docker-compose.yml");
    let services = compose["services"].as_hash().unwrap();
    for name in ["kafka", "clickhouse", "registry", "highwater"] {
        assert!(services.contains_key(&Yaml::String(name.into())), "{name}");
    }
    for (name, service) in services {
        let name = name.as_str().unwrap();
        for volume in service["volumes"].as_vec().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let known = match source.strip_prefix("./") {
                Some(path) => root().join(path).exists(),
                None => compose["volumes"].as_hash().unwrap().contains_key(&Yaml::String(source.into())),
            };
            assert!(known, "{name} mounts {source}");
        }
        if let Some(build) = service["build"]["dockerfile"].as_str() {
            assert!(root().join(build).exists(), "{build}");
        }
        for (wanted, _) in service["depends_on"].as_hash().into_iter().flatten() {
            assert!(services.contains_key(wanted), "{name} depends on {wanted:?}");
        }
    }
    for name in ["highwater", "migrate"] {
        let environment = compose["services"][name]["environment"].as_hash().unwrap();
        let variables = environment.iter().map(|(name, value)| (scalar(name), scalar(value)));
        accepted(name, variables.collect());
    }
}

#[test]
fn kubernetes_sets_what_is_a_setting_and_probes_what_is_served() {
    let deployment = yaml("deploy/kubernetes.yaml");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], deployment["spec"]["template"]["metadata"]["labels"]);
    for container in ["containers", "initContainers"] {
        let container = &pod[container][0];
        let variables = container["env"].as_vec().unwrap().iter();
        accepted("kubernetes", variables.map(|set| (scalar(&set["name"]), scalar(&set["value"]))).collect());
        for mount in container["volumeMounts"].as_vec().unwrap() {
            let volumes = pod["volumes"].as_vec().unwrap();
            assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount:?}");
        }
    }
    let container = &pod["containers"][0];
    assert_eq!(container["livenessProbe"]["httpGet"]["path"].as_str(), Some("/livez"));
    assert_eq!(container["readinessProbe"]["httpGet"]["path"].as_str(), Some("/readyz"));
    assert_eq!(container["ports"][0]["containerPort"].as_i64(), Some(i64::from(telemetry_port())));
}

#[test]
fn systemd_sets_what_is_a_setting() {
    let unit = text("deploy/highwater.service");
    let variables = unit.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
    accepted("highwater.service", variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
}

/// The image's own steps, as far as they can be checked without building it.
#[test]
fn the_image_is_made_of_what_is_there() {
    let steps = text("deploy/Dockerfile");
    let toolchain = text("rust-toolchain.toml");
    let version = steps.lines().find_map(|line| line.strip_prefix("FROM rust:")?.split('-').next()).unwrap();
    assert!(toolchain.contains(&format!("\"{version}\"")), "the image builds with {version}");
    assert!(steps.contains(&format!("ENV RUSTUP_TOOLCHAIN={version}\n")), "rustup would fetch another one");
    for line in steps.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from=")) {
        let mut words: Vec<&str> = line.split_whitespace().skip(1).collect();
        words.pop();
        for source in words {
            assert!(Path::new(&root().join(source)).exists(), "{line}");
        }
    }
    assert!(steps.contains("cargo build --release --locked --package highwater --bin highwater"));
    assert!(steps.contains(&format!("EXPOSE {}", telemetry_port())));
}

fn telemetry_port() -> u16 {
    let empty = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    highwater::config::load(Some(empty.path()), [], &[]).unwrap().telemetry.listen.unwrap().port()
}

/// What lies between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn prometheus_rules_ask_for_metrics_that_there_are_and_point_at_what_the_runbook_has() {
    let documented = text("docs/metrics-of-highwater.md");
    let metrics: Vec<&str> = quoted(&documented).into_iter().filter(|name| name.starts_with("highwater_")).collect();
    let (runbook, rules) = (text("docs/runbook.md"), yaml("deploy/prometheus-rules.yml"));
    let mut names = std::collections::BTreeSet::new();
    for rule in rules["groups"].as_vec().unwrap().iter().flat_map(|group| group["rules"].as_vec().unwrap()) {
        let name = rule["alert"].as_str().unwrap();
        assert!(names.insert(name.to_owned()), "{name} stands there twice");
        let asked = rule["expr"].as_str().unwrap().split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        let asked: Vec<&str> = asked.filter(|word| word.starts_with("highwater_")).collect();
        assert!(!asked.is_empty() && asked.iter().all(|metric| metrics.contains(metric)), "{name}: {asked:?}");
        assert!(["page", "ticket"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
        assert!(rule["annotations"]["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{name}");
        for words in quoted(rule["annotations"]["action"].as_str().unwrap_or_default()) {
            assert!(words.starts_with("highwater ") || runbook.contains(&format!("`{words}`")), "{name}: {words}");
        }
    }
    assert!(names.contains("HighwaterAlertsUnjudged") && names.len() > 10, "{names:?}");
}
