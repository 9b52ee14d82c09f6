//! Precedence, errors and secrets, through the same door as the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod survey;

use std::io::Write as _;
use std::time::Duration;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn flags(flags: &[&str]) -> Vec<String> {
    flags.iter().map(|flag| (*flag).to_owned()).collect()
}

fn problems(text: &str, environment: &[(&str, &str)], given: &[&str]) -> Vec<Problem> {
    let file = file(text);
    let error = load(Some(file.path()), variables(environment), &flags(given)).unwrap_err();
    error.0
}

fn defaults() -> Settings {
    let empty = file("");
    load(Some(empty.path()), [], &[]).unwrap()
}

#[test]
fn each_source_wins_over_the_one_before() {
    let file = file("workers = 2\n[batch]\nrows = 20\ninterval = \"2s\"\nbytes = \"2MiB\"\n");
    let environment = variables(&[("HIGHWATER_BATCH__ROWS", "30"), ("HIGHWATER_BATCH__INTERVAL", "3s")]);
    let settings = load(Some(file.path()), environment, &flags(&["batch.interval=4s"])).unwrap();
    assert_eq!(settings.workers, 2);
    assert_eq!(settings.batch.bytes, ByteSize(2 << 20));
    assert_eq!(settings.batch.rows, 30);
    assert_eq!(settings.batch.interval, Duration::from_secs(4));
    assert_eq!(settings.kafka.group, "highwater");
}

/// The tokens that so many partitions need, and whether as many are remembered.
fn tokens(partitions: usize, set: &[&str]) -> (u64, bool) {
    let file = file("");
    let settings = load(Some(file.path()), [], &flags(set)).unwrap();
    let (needed, lacking) = (settings.tokens_needed(partitions), settings.tokens_lacking(partitions));
    assert!(lacking.iter().all(|said| said.contains(&format!("remember {needed} tokens"))), "{lacking:?}");
    (needed, lacking.is_none())
}

#[test]
fn many_partitions_and_small_batches_need_more_tokens() {
    // By default librdkafka's session time-out is 45 s: 450 s are counted, 45,000 MiB. Batches are sealed every 5 s, and
    // 352 MiB of memory are full of two of each partition's for every 176 MiB.
    let early = |partitions: u64| (45_000 * 2 * partitions).div_ceil(176);
    assert_eq!(tokens(8, &[]), (8 * 90 + early(8), true));
    assert_eq!(tokens(166, &[]), (166 * 90 + early(166), true));
    assert_eq!(tokens(167, &[]), (167 * 90 + early(167), false));
    // With one partition they are full of 100,000 events, of 256 bytes at least, more often.
    let full = 45_000 * (1 << 20) / 25_600_000 + 1;
    assert_eq!(tokens(1, &[]), (90 + full, true));
    assert_eq!(tokens(1, &["batch.rows=1000"]), (90 + 184_320, false));
    assert_eq!(tokens(1, &["batch.bytes=256KiB"]), (90 + 180_000, false));
    // Half of the memory that is less than a batch is full that much more often.
    assert_eq!(tokens(4, &["batch.bytes=8MiB", "memory.limit=16MiB"]), (4 * 90 + 45_000 * 2 * 4 / 8, true));
    // A short session is a short time.
    let short = ["batch.interval=700ms", "kafka.properties.session.timeout.ms=10000"];
    assert_eq!(tokens(256, &short).0, 256 * 143 + (10_000_u64 * 2 * 256).div_ceil(176));
    let needed = tokens(64, &[]).0;
    assert_eq!(tokens(64, &[&format!("clickhouse.token_window={needed}")]), (needed, true));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "colour = 1\n[kafka]\nbroker = [\"a:1\"]\nprotocol = \"new\"\n[batch]\nrows = \"100\"\ninterval = 5\n\
                [memory]\nlimit = \"1MB\"\n[clikhouse]\nurl = \"x\"\n";
    let environment = [("HIGHWATER_WORKERS", "0"), ("HIGHWATER_BATCH__ROW", "1")];
    let found = problems(text, &environment, &["log.format=xml"]);
    let mut keys: Vec<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
    keys.sort_unstable();
    let expected = [
        "batch.interval",
        "batch.row",
        "batch.rows",
        "clikhouse.url",
        "colour",
        "kafka.broker",
        "kafka.protocol",
        "log.format",
        "memory.limit",
        "workers",
    ];
    assert_eq!(keys, expected, "{found:#?}");
    let message = |key: &str| found.iter().find(|problem| problem.key == key).unwrap().message.clone();
    assert!(message("kafka.broker").contains("did you mean `kafka.brokers`?"));
    assert!(message("clikhouse.url").contains("did you mean `clickhouse.url`?"));
    assert!(message("batch.row").contains("HIGHWATER_BATCH__ROW"));
    assert!(message("batch.row").contains("did you mean `batch.rows`?"));
    assert!(message("kafka.protocol").contains("found \"new\" in "));
    assert!(message("kafka.protocol").ends_with("allowed is \"classic\" or \"consumer\""));
    assert!(message("workers").contains("found \"0\" in the environment variable HIGHWATER_WORKERS"));
    assert!(message("workers").ends_with("from 1 to 256"));
    assert!(message("log.format").contains("--setting log.format"));
    assert!(message("batch.interval").contains("found 5 in "));
}

#[test]
fn bad_values_are_told_with_their_key() {
    let cases = [
        ("kafka = 5", "kafka", "a section with the keys kafka.brokers"),
        ("[kafka]\nbrokers = [\"localhost\"]", "kafka.brokers", "host:port"),
        ("[kafka]\nbrokers = [\":9092\"]", "kafka.brokers", "host:port"),
        ("[kafka]\nbrokers = [\"a:99999\"]", "kafka.brokers", "host:port"),
        ("[kafka]\nbrokers = []", "kafka.brokers", "at least one"),
        ("[kafka]\ntopics = [\"a b\"]", "kafka.topics", "\"a b\""),
        ("[kafka]\ntopics = [\"a\", \"a\"]", "kafka.topics", "once each"),
        ("[kafka]\ngroup = \"\"", "kafka.group", "not empty"),
        ("[kafka]\nbrokers = [\"u@a:1\"]", "kafka.brokers", "kafka.username"),
        ("[kafka]\nbrokers = [\"SASL_SSL://a:1\"]", "kafka.brokers", "kafka.security"),
        ("[kafka.properties]\n\"group.id\" = \"x\"", "kafka.properties.group.id", "setting of its own, kafka.group"),
        (
            "[kafka.properties]\nisolation.level = \"read_uncommitted\"",
            "kafka.properties.isolation.level",
            "exactly-once",
        ),
        ("[kafka.properties]\nno.such = \"x\"", "kafka.properties.no.such", "librdkafka has no such property"),
        (
            "[kafka.properties]\nfetch.min.byte = 1",
            "kafka.properties.fetch.min.byte",
            "did you mean `fetch.min.bytes`?",
        ),
        (
            "[kafka.properties]\nfetch.min.bytes = -1",
            "kafka.properties.fetch.min.bytes",
            "librdkafka does not take its value",
        ),
        (
            "workers = 2\n[kafka.properties]\ngroup.instance.id = \"a\"",
            "kafka.properties.group.instance.id",
            "set workers = 1",
        ),
        ("[kafka.properties]\nx = [1]", "kafka.properties", "librdkafka's properties"),
        ("[clickhouse]\nurl = \"localhost:8123\"", "clickhouse.url", "http://host:port"),
        ("[clickhouse]\nurl = \"ftp://a:1\"", "clickhouse.url", "https://host:port"),
        ("[clickhouse]\nurl = \"http://me:pw@a:1\"", "clickhouse.url", "HIGHWATER_CLICKHOUSE__PASSWORD"),
        ("[clickhouse]\nurl = \"http://a:1/?password=pw\"", "clickhouse.url", "clickhouse.password_file"),
        ("[clickhouse]\nurl = \"http://a:1/?x=1\"", "clickhouse.url", "http://host:port"),
        ("[clickhouse]\ndatabase = \"a`b\"", "clickhouse.database", "letters"),
        ("[clickhouse]\npassword_file = \"/does/not/exist\"", "clickhouse.password_file", "/does/not/exist"),
        ("[clickhouse]\ninsert_timeout = \"0s\"", "clickhouse.insert_timeout", "from \"1s\" to \"10m\""),
        ("[clickhouse]\ncompression = \"zstd\"", "clickhouse.compression", "\"lz4\" or \"none\""),
        ("[alerts]\ntopic = \"a b\"", "alerts.topic", "a topic of its own"),
        ("[alerts]\ntopic = \"usage-events\"", "alerts.topic", "a topic of its own"),
        ("[alerts]\ntopic = \"a\"\nbudget_topic = \"a\"", "alerts.budget_topic", "a topic of its own"),
        ("[alerts]\nbudget_topic = \"\"", "alerts.budget_topic", "a text that is not empty"),
        ("[alerts]\nframing = \"json\"", "alerts.framing", "\"single_object\" or \"confluent\""),
        ("[alerts]\ntopic = \"a\"\nframing = \"confluent\"", "alerts.framing", "registry.url names no registry"),
        ("[alerts]\ninterval = \"10ms\"", "alerts.interval", "100ms"),
        ("[registry]\nurl = \"sr:8081\"", "registry.url", "https://host:port, with a path"),
        ("[registry]\nurl = \"http://sr/?x=1\"", "registry.url", "https://host:port, with a path"),
        ("[registry]\nurl = \"https://sr\"\nca_file = \"/does/not/exist\"", "registry.ca_file", "/does/not/exist"),
        ("[registry]\nurl = \"http://sr\"\nca_file = \"/dev/null\"", "registry.ca_file", "used only by https://"),
        ("[registry]\nurl = \"http://sr\"\ntimeout = \"0s\"", "registry.timeout", "from \"100ms\""),
        ("[memory]\nlimit = \"100MiB\"", "memory.limit", "twice batch.bytes"),
        ("[retention]\nraw = \"two years\"", "retention.raw", "\"0\" to keep it for ever"),
        ("[retention]\nraw = 0", "retention.raw", "\"0\" to keep it for ever"),
        ("[events]\nhorizon = -1", "events.horizon", "whole number"),
        ("[events]\nmax_age = \"1 day\"", "events.max_age", "duration"),
    ];
    for (text, key, part) in cases {
        let found = problems(text, &[], &[]);
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert_eq!(found[0].key, key, "{text}: {found:#?}");
        assert!(found[0].message.contains(part), "{text}: {found:#?}");
    }
}

#[test]
fn what_is_no_toml_is_told_with_its_file() {
    let found = problems("[kafka\n", &[], &[]);
    assert!(found[0].to_string().contains("toml"), "{found:?}");
    let missing = load(Some(Path::new("/does/not/exist.toml")), [], &[]).unwrap_err();
    assert!(missing.to_string().contains("/does/not/exist.toml"), "{missing}");
    let found = problems("", &[], &["workers"]);
    assert!(found[0].message.contains("section.key=value"), "{found:?}");
}

#[test]
fn a_password_comes_from_the_environment_or_a_file_and_is_never_shown() {
    let settings = load(None, variables(&[("HIGHWATER_CLICKHOUSE__PASSWORD", "hunter2")]), &[]).unwrap();
    assert_eq!(settings.clickhouse.password.reveal(), "hunter2");
    assert!(!format!("{settings:?}").contains("hunter2"));

    let secret = file("hunter2\n");
    let by_file = format!("[clickhouse]\npassword_file = {:?}\n", secret.path());
    let by_file = file(&by_file);
    let settings = load(Some(by_file.path()), [], &[]).unwrap();
    assert_eq!(settings.clickhouse.password.reveal(), "hunter2");

    let both = load(Some(by_file.path()), variables(&[("HIGHWATER_CLICKHOUSE__PASSWORD", "hunter3")]), &[]);
    assert!(both.unwrap_err().to_string().contains("one of them"));

    let empty = format!("[clickhouse]\npassword_file = {:?}\n", file("\n").into_temp_path().keep().unwrap());
    assert!(problems(&empty, &[], &[])[0].message.contains("is empty"));
}

/// Wherever an operator may put a secret by mistake, it is refused, and no word of it comes back.
#[test]
fn a_secret_in_the_wrong_place_is_refused_and_not_repeated() {
    let texts = [
        "[clickhouse]\npassword = \"hunter2\"\n",
        "[clickhouse]\npassword = 42424242\n",
        "[clickhouse]\npassword = hunter2\n",
        "[clickhouse]\npasword = \"hunter2\"\n",
        "[clickhouse]\nurl = \"http://me:hunter2@a:1\"\n",
        "[clickhouse]\nurl = \"http://me:hunter2#x@a:1\"\n",
        "[clickhouse]\nurl = [\"http://me:hunter2@a:1\"]\n",
        "[clickhouse]\nurl = \"http://a:1/?user=me&password=hunter2\"\n",
        "[kafka]\nsecurity = \"sasl_ssl\"\nusername = \"me\"\npassword = \"hunter2\"\n",
        "[kafka]\nkey_password = \"hunter2\"\n",
        "[kafka]\nbrokers = [\"me:hunter2@a:9092\"]\n",
        "[kafka.properties]\nsasl.password = \"hunter2\"\n",
        "[kafka.properties]\nsasl.password = []\n",
        "[kafka.properties]\nssl.key.pem = \"hunter2\"\n",
        "[kafka.properties]\nssl.keystore.password = \"hunter2\"\n",
        "[kafka.properties]\nsasl.oauthbearer.client.secret = \"hunter2\"\n",
    ];
    let mut all: Vec<_> = texts.iter().map(|text| (*text, problems(text, &[], &[]))).collect();
    for flag in ["clickhouse.password=hunter2", "kafka.password=hunter2", "kafka.properties.ssl.key.pem=hunter2"] {
        all.push((flag, problems("", &[], &[flag])));
    }
    let environment = [("HIGHWATER_KAFKA__PROPERTIES__SASL__PASSWORD", "hunter2")];
    all.push(("the environment", problems("", &environment, &[])));
    for (given, found) in all {
        let said = format!("{found:?} {}", ConfigError(found.clone()));
        assert!(!said.contains("hunter2") && !said.contains("4242"), "{given}: {said}");
    }
}

#[test]
fn what_secures_kafka_must_fit_together() {
    let certificate = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
    let ca = file(&certificate.cert.pem());
    let ca = ca.path().display();
    let environment = [("HIGHWATER_KAFKA__PASSWORD", "hunter2"), ("HIGHWATER_KAFKA__USERNAME", "me")];
    let cases = [
        ("[kafka]\nsecurity = \"tls\"".to_owned(), &[][..], "kafka.security", "\"sasl_ssl\""),
        ("[kafka]\nsasl_mechanism = \"GSSAPI\"".to_owned(), &[], "kafka.sasl_mechanism", "SCRAM-SHA-512"),
        ("[kafka]\nsecurity = \"sasl_ssl\"".to_owned(), &environment[..1], "kafka.username", "missing"),
        (
            "[kafka]\nsecurity = \"sasl_ssl\"".to_owned(),
            &environment[1..],
            "kafka.password",
            "HIGHWATER_KAFKA__PASSWORD",
        ),
        ("[kafka]\nsecurity = \"ssl\"".to_owned(), &environment[1..], "kafka.username", "not used"),
        ("".to_owned(), &environment[..1], "kafka.password", "not used"),
        (format!("[kafka]\nca_file = \"{ca}\""), &[], "kafka.ca_file", "not used"),
        ("[kafka]\nsecurity = \"ssl\"\nca_file = \"/no\"".to_owned(), &[], "kafka.ca_file", "can't read /no"),
        ("[kafka]\nsecurity = \"ssl\"\nca_file = \"Cargo.toml\"".to_owned(), &[], "kafka.ca_file", "no certificate"),
        (format!("[kafka]\nsecurity = \"ssl\"\ncertificate_file = \"{ca}\""), &[], "kafka.key_file", "missing"),
        (format!("[kafka]\nsecurity = \"ssl\"\nkey_file = \"{ca}\""), &[], "kafka.certificate_file", "missing"),
        ("".to_owned(), &[("HIGHWATER_KAFKA__KEY_PASSWORD", "hunter2")], "kafka.key_password", "kafka.key_file"),
        (format!("[clickhouse]\nca_file = \"{ca}\""), &[], "clickhouse.ca_file", "https://"),
        (
            format!("[clickhouse]\nurl = \"https://a\"\nca_file = \"{ca}\"\nkey_file = \"{ca}\""),
            &[],
            "clickhouse.certificate_file",
            "missing",
        ),
        (
            "[clickhouse]\nurl = \"https://a\"\nca_file = \"/no\"".to_owned(),
            &[],
            "clickhouse.ca_file",
            "can't read /no",
        ),
    ];
    for (text, environment, key, part) in cases {
        let found = problems(&text, environment, &[]);
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert_eq!(found[0].key, key, "{text}: {found:#?}");
        assert!(found[0].message.contains(part) && !found[0].message.contains("hunter2"), "{text}: {found:#?}");
    }
}

#[test]
fn the_registrys_password_goes_the_same_ways() {
    assert!(defaults().registry().unwrap().is_none());
    let text = "[registry]\nurl = \"http://sr:8081\"\nuser = \"me\"\n";
    let secret = [("HIGHWATER_REGISTRY__PASSWORD", "hunter2")];
    let settings = load(Some(file(text).path()), variables(&secret), &[]).unwrap();
    assert_eq!(settings.registry.password.reveal(), "hunter2");
    assert!(!format!("{settings:?} {:?}", settings.registry().unwrap()).contains("hunter2"));

    let in_file = problems(&format!("{text}password = \"hunter2\"\n"), &[], &[]);
    let url = problems("[registry]\nurl = \"http://me:hunter2@sr:8081\"\n", &[], &[]);
    let nameless = problems("[registry]\nurl = \"http://sr:8081\"\n", &secret, &[]);
    for (found, key) in [(in_file, "registry.password"), (url, "registry.url"), (nameless, "registry.user")] {
        assert!(found[0].key == key && !format!("{found:?}").contains("hunter2"), "{found:?}");
    }
}

#[test]
fn kafka_clients_are_told_how_to_get_in() {
    let secret = file("hunter2\n");
    let text = format!(
        "[kafka]\nsecurity = \"sasl_ssl\"\nsasl_mechanism = \"PLAIN\"\nusername = \"me\"\npassword_file = {:?}\n",
        secret.path()
    );
    let settings = load(Some(file(&text).path()), [], &[]).unwrap();
    let mut properties = settings.consumer("test").properties;
    properties.remove("ssl.ca.location");
    let expected = [
        ("sasl.mechanism", "PLAIN"),
        ("sasl.password", "hunter2"),
        ("sasl.username", "me"),
        ("security.protocol", "sasl_ssl"),
    ];
    let found: Vec<_> = properties.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(found, expected);
    assert!(!format!("{settings:?} {:?}", settings.consumer("test")).contains("hunter2"));
    assert_eq!(defaults().client_properties(), [("security.protocol".to_owned(), "plaintext".to_owned())].into());
}

#[test]
fn properties_are_the_same_in_every_spelling() {
    let file = file("[kafka.properties]\n\"client.rack\" = \"a\"\nclient.dns.lookup = \"file\"\nfetch.min.bytes = 5\n");
    let environment = variables(&[
        ("HIGHWATER_KAFKA__PROPERTIES__CLIENT__RACK", "b"),
        ("HIGHWATER_KAFKA__PROPERTIES__SSL__KEY__PEM", "hunter2"),
    ]);
    let flag = "kafka.properties.client.dns.lookup=use_all_dns_ips";
    let settings = load(Some(file.path()), environment, &flags(&[flag])).unwrap();
    let expected = [
        ("client.dns.lookup", "use_all_dns_ips"),
        ("client.rack", "b"),
        ("fetch.min.bytes", "5"),
        ("ssl.key.pem", "hunter2"),
    ];
    let found: Vec<_> = settings.kafka.properties.0.iter().map(|(k, v)| (k.as_str(), v.value.as_str())).collect();
    assert_eq!(found, expected);
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn what_kubernetes_sets_is_not_ours() {
    let foreign = [
        ("HIGHWATER_PORT", "tcp://10.0.0.1:80"),
        ("HIGHWATER_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("HIGHWATER_SERVICE_HOST", "10.0.0.1"),
        ("HIGHWATER_CONFIG", "x"),
        ("HIGHWATERMARK", "x"),
        ("PATH", "/bin"),
    ];
    let empty = file("");
    assert_eq!(load(Some(empty.path()), variables(&foreign), &[]).unwrap(), defaults());
}

#[test]
fn lists_in_the_environment_are_separated_by_commas() {
    let environment = variables(&[("HIGHWATER_KAFKA__BROKERS", "a:1, b:2")]);
    assert_eq!(load(None, environment, &[]).unwrap().kafka.brokers, ["a:1", "b:2"]);
}

#[test]
fn alerts_go_where_settings_say_or_nowhere() {
    let of = |text: &str| load(Some(file(text).path()), [], &[]).unwrap().evaluator().unwrap();
    let found =
        of("[alerts]\ntopic = \"alerts\"\ncorrect_within = \"90s\"\n[kafka]\ntopics = [\"a\", \"b\"]\ngroup = \"g\"")
            .unwrap();
    assert_eq!((found.topic.as_str(), found.budget_topic.as_str()), ("alerts", "highwater-budgets"));
    assert_eq!((found.horizon, found.home.to_string(), found.transactional_id()), (2, "a/0".into(), "g-alerts".into()));
    assert!(found.registry.is_none());
    let framed =
        of("[alerts]\ntopic = \"alerts\"\nframing = \"confluent\"\n[registry]\nurl = \"http://sr:1\"").unwrap();
    assert!(framed.registry.is_some());
    // Without alerts their other settings don't matter.
    assert!(of("[alerts]\ntopic = \"\"\nframing = \"confluent\"\nbudget_topic = \"usage-events\"").is_none());
}

#[test]
fn limits_are_in_milliseconds() {
    let limits = defaults().limits();
    assert_eq!((limits.horizon, limits.max_skew_ms, limits.max_age_ms), (10_000, 600_000, 2_592_000_000));
    assert_eq!((limits.lateness_ms, limits.max_series), (30_000, 50_000));
}

/// The two files that are made of the declarations, against what is in the repository.
#[test]
fn the_shipped_file_and_the_reference_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, made) in [("highwater.toml", toml()), ("docs/configuration.md", markdown())] {
        let shipped = std::fs::read_to_string(root.join(name)).unwrap();
        assert!(shipped == made, "{name} is out of date: `highwater reference` writes it anew");
    }
    assert_eq!(load(Some(&root.join("highwater.toml")), [], &[]).unwrap(), defaults());
}

/// Every recipe is a file that loads, once the files that it names are where they are named.
#[test]
fn the_recipes_for_connections_load() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/connections.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap().cert.pem();
    let mut recipes = 0;
    for section in text.split("\n## ").skip(1) {
        let recipe: String =
            section.lines().filter_map(|line| line.strip_prefix("    ")).map(|l| format!("{l}\n")).collect();
        // What is no TOML is for a shell: the rights to be given.
        if !recipe.starts_with('[') {
            continue;
        }
        let here = |file: &str| format!("\"{}\"", folder.path().join(file).display());
        let recipe = [
            "/run/secrets/kafka-password",
            "/run/secrets/clickhouse-password",
            "/run/secrets/registry-password",
            "/etc/highwater/kafka-ca.pem",
            "/etc/highwater/tls.crt",
            "/etc/highwater/tls.key",
        ]
        .iter()
        .fold(recipe, |recipe, path| {
            let file = path.rsplit('/').next().unwrap();
            std::fs::write(folder.path().join(file), &certificate).unwrap();
            recipe.replace(&format!("{path:?}"), &here(file))
        });
        let settings = load(Some(file(&recipe).path()), [], &[]).unwrap_or_else(|error| panic!("{recipe}: {error}"));
        let registry = settings.registry().unwrap().is_some_and(|registry| registry.https);
        assert!(settings.kafka.security.is_tls() || settings.endpoint().unwrap().https || registry, "{recipe}");
        recipes += 1;
    }
    assert_eq!(recipes, 5);
}
