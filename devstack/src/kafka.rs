//! Apache Kafka: one node that is broker and controller (KRaft).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::artifact::Artifact;
use crate::holder::Stop;
use crate::home::Home;
use crate::progress::{Clock, say};
use crate::server::{Folder, Recipe, Server};
use crate::{port, tools};

/// What a node needs to be alone, and what keeps tests short: groups that
/// notice a dead member within seconds, topics only when asked for, and no
/// record deleted for its old timestamp. A broker that was killed cannot come
/// back before its old registration has run out: 3 s here, by default 9 s.
const PROPERTIES: [(&str, &str); 24] = [
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("share.coordinator.state.topic.num.partitions", "4"),
    ("auto.create.topics.enable", "false"),
    ("log.retention.ms", "-1"),
    ("log.segment.delete.delay.ms", "1000"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "500"),
    ("group.consumer.min.session.timeout.ms", "500"),
    ("group.consumer.session.timeout.ms", "6000"),
    ("group.consumer.min.heartbeat.interval.ms", "100"),
    ("group.consumer.heartbeat.interval.ms", "500"),
    ("offsets.retention.minutes", "525600"),
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
];

/// One running broker. [`Server`] has what can be done to its process.
pub struct Kafka {
    server: Server,
    port: u16,
    secure_ports: Vec<u16>,
    cluster_id: String,
}

/// One more port of the broker, beside the plain one, that clients must be let in to.
#[derive(Debug, Clone, Default)]
pub struct SecureListener {
    /// `SSL`, `SASL_SSL` or `SASL_PLAINTEXT`.
    pub protocol: &'static str,
    /// A PEM file of the broker's private key (PKCS #8) and its certificate.
    pub keystore: Option<PathBuf>,
    /// The CA (PEM) that clients' certificates must be signed by; `None` asks for none.
    pub client_ca: Option<PathBuf>,
    /// Names and passwords, for each of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
    pub users: Vec<(String, String)>,
}

impl SecureListener {
    /// Its properties, by its number.
    fn properties(&self, number: usize) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let mut set = |key: &str, value: String| all.push((format!("listener.name.secure{number}.{key}"), value));
        if let Some(keystore) = &self.keystore {
            set("ssl.keystore.type", "PEM".to_owned());
            set("ssl.keystore.location", keystore.display().to_string());
        }
        if let Some(ca) = &self.client_ca {
            set("ssl.client.auth", "required".to_owned());
            set("ssl.truststore.type", "PEM".to_owned());
            set("ssl.truststore.location", ca.display().to_string());
        }
        if !self.users.is_empty() {
            const MODULES: &str = "org.apache.kafka.common.security";
            let users: String = self.users.iter().map(|(name, word)| format!(" user_{name}=\"{word}\"")).collect();
            set("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned());
            set("plain.sasl.jaas.config", format!("{MODULES}.plain.PlainLoginModule required{users};"));
            for mechanism in ["scram-sha-256", "scram-sha-512"] {
                let module = format!("{MODULES}.scram.ScramLoginModule required;");
                set(&format!("{mechanism}.sasl.jaas.config"), module);
            }
        }
        all
    }
}

/// What to start.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    folder: Option<PathBuf>,
    port: Option<u16>,
    behind: Option<(u16, u16)>,
    properties: Vec<(String, String)>,
    secure: Vec<SecureListener>,
    java: Vec<OsString>,
    long_running: bool,
}

impl KafkaOptions {
    /// Sets a property of the server's configuration, over any default here.
    #[must_use]
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }

    /// Keeps data and cluster id in `folder`; by default both go with the server.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// The port for clients; by default a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// A second port, `listener`, whose clients are told to come back to `proxy`: all that they do goes through it.
    #[must_use]
    pub fn behind(mut self, listener: u16, proxy: u16) -> Self {
        self.behind = Some((listener, proxy));
        self
    }

    /// Opens one more port, under TLS, with users or both.
    #[must_use]
    pub fn secure(mut self, listener: SecureListener) -> Self {
        self.secure.push(listener);
        self
    }

    /// Denies users of secure ports whatever no access control list allows them. Those of the plain port may do all.
    #[must_use]
    pub fn denying(self) -> Self {
        self.property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
            .property("super.users", "User:ANONYMOUS")
    }

    /// One more option of the Java machine, after the defaults (`-Xmx512m` …).
    #[must_use]
    pub fn java(mut self, option: impl Into<OsString>) -> Self {
        self.java.push(option.into());
        self
    }

    /// For benches and demos, where millions of records pass: Java compiles hot
    /// code fully, which starts slower but costs less per record.
    #[must_use]
    pub fn long_running(mut self) -> Self {
        self.long_running = true;
        self
    }

    /// Fetches Kafka if need be, starts it and waits until it serves clients.
    ///
    /// # Errors
    /// It cannot be fetched or does not start; the message holds the end of its log.
    pub fn start(self) -> Result<Kafka> {
        let home = Home::locate()?;
        home.fetch(&[Artifact::Kafka])?;
        self.launch(&home)
    }

    fn launch(self, home: &Home) -> Result<Kafka> {
        tools::require(&["java"])?;
        let installed = home.path(Artifact::Kafka);
        let folder = Folder::make(self.folder.as_deref(), "kafka")?;
        let [free_port, controller_port] = port::free()?;
        let port = self.port.unwrap_or(free_port);
        let data = folder.path().join("data");
        let secure_ports = self.secure.iter().map(|_| port::free().map(|[port]| port)).collect::<Result<Vec<u16>>>()?;
        let configuration = folder.path().join("server.properties");
        fs::write(&configuration, self.configuration(port, controller_port, &secure_ports, &data))
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        let cluster_id = self.identify(&installed, &data, &configuration)?;

        let mut command: Vec<OsString> = ["java", "-Xmx512m", "-XX:+UseSerialGC"].map(OsString::from).into();
        if !self.long_running {
            command.push("-XX:TieredStopAtLevel=1".into());
        }
        let classes = installed.join(CLASSES);
        if classes.is_file() {
            command.push(joined("-XX:SharedArchiveFile=", &classes));
        }
        command.push(format!("-D{LOGGER}.showDateTime=true").into());
        command.push(format!("-D{LOGGER}.dateTimeFormat=HH:mm:ss.SSS").into());
        // Four hundred lines of settings at each start, before what matters.
        command.push(format!("-D{LOGGER}.log.org.apache.kafka.common.config=warn").into());
        command.extend(self.java);
        command.extend(["-cp".into(), class_path(&installed), "kafka.Kafka".into(), configuration.into()]);
        let recipe = Recipe {
            title: "Kafka",
            command,
            environment: Vec::new(),
            stop: Stop::Terminate,
            // Said once the broker is registered and open to clients.
            ready: Box::new(|log| log.contains("Kafka Server started")),
        };
        let server = Server::start(recipe, folder)?;
        Ok(Kafka { server, port, secure_ports, cluster_id })
    }

    fn configuration(&self, port: u16, controller_port: u16, secure_ports: &[u16], data: &Path) -> String {
        let mut listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}");
        let mut advertised = format!("PLAINTEXT://127.0.0.1:{port}");
        let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
        let mut own = vec![
            ("controller.quorum.voters".to_owned(), format!("1@127.0.0.1:{controller_port}")),
            ("log.dirs".to_owned(), data.display().to_string()),
        ];
        if let Some((listener, proxy)) = self.behind {
            listeners.push_str(&format!(",PROXIED://127.0.0.1:{listener}"));
            advertised.push_str(&format!(",PROXIED://127.0.0.1:{proxy}"));
            protocols.push_str(",PROXIED:PLAINTEXT");
        }
        // By name, as certificates have it.
        for (number, (listener, port)) in self.secure.iter().zip(secure_ports).enumerate() {
            listeners.push_str(&format!(",SECURE{number}://127.0.0.1:{port}"));
            advertised.push_str(&format!(",SECURE{number}://localhost:{port}"));
            protocols.push_str(&format!(",SECURE{number}:{}", listener.protocol));
            own.extend(listener.properties(number));
        }
        own.push(("advertised.listeners".to_owned(), advertised));
        own.push(("listener.security.protocol.map".to_owned(), protocols));
        own.push(("listeners".to_owned(), listeners));
        let fixed = PROPERTIES.iter().map(|(key, value)| (*key, *value));
        let own = own.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let wanted = self.properties.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        // The last line of a key wins.
        fixed.chain(own).chain(wanted).map(|(key, value)| format!("{key}={value}\n")).collect()
    }

    /// Formats `data` under a new cluster id, unless it is formatted; its id.
    fn identify(&self, installed: &Path, data: &Path, configuration: &Path) -> Result<String> {
        let properties = data.join("meta.properties");
        if let Ok(text) = fs::read_to_string(&properties) {
            return text
                .lines()
                .find_map(|line| line.strip_prefix("cluster.id="))
                .map(str::to_owned)
                .with_context(|| format!("{} has no cluster.id", properties.display()));
        }
        let cluster_id = random_id();
        let users = self.secure.iter().flat_map(|listener| &listener.users);
        // A user of two listeners is one user of the broker.
        let credentials: BTreeSet<String> = users
            .flat_map(|(name, password)| {
                [256, 512].map(|bits| format!("SCRAM-SHA-{bits}=[name={name},password={password}]"))
            })
            .collect();
        if !credentials.is_empty() {
            format_with(installed, &cluster_id, configuration, &credentials)?;
            return Ok(cluster_id);
        }
        let text = format!("version=1\ncluster.id={cluster_id}\nnode.id=1\ndirectory.id={}\n", random_id());
        fs::create_dir_all(data)
            .and_then(|()| fs::copy(installed.join(CHECKPOINT), data.join(CHECKPOINT)))
            .and_then(|_| fs::write(&properties, text))
            .with_context(|| format!("cannot format {}", data.display()))?;
        Ok(cluster_id)
    }
}

impl Kafka {
    /// Nothing set: free ports, a temporary folder, a new cluster id.
    pub fn options() -> KafkaOptions {
        KafkaOptions::default()
    }

    /// Host and port for `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The same for the `number`th of [`KafkaOptions::secure`], counted from 0, if there is one. By name: certificates
    /// for an address would need another extension.
    pub fn secure_bootstrap(&self, number: usize) -> Option<String> {
        self.secure_ports.get(number).map(|port| format!("localhost:{port}"))
    }

    /// Runs Kafka's `kafka-acls.sh` with these arguments on a broker that is [`KafkaOptions::denying`]; which brokers is
    /// not for them to say.
    ///
    /// # Errors
    /// The tool can't be fetched, or fails; the message is then its own.
    pub fn acls(&self, arguments: &[&str]) -> Result<String> {
        let home = Home::locate()?;
        home.fetch(&[Artifact::KafkaTools])?;
        let mut classes = class_path(&home.path(Artifact::Kafka));
        classes.push(":");
        classes.push(home.path(Artifact::KafkaTools).join("*"));
        let mut java = Command::new("java");
        java.args(["-XX:TieredStopAtLevel=1", "-cp"]).arg(classes).arg("org.apache.kafka.tools.AclCommand");
        java.args(["--bootstrap-server", &self.bootstrap()]).args(arguments);
        let output = java.output().context("cannot start java")?;
        let [said, complained] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        // It may fail with exit code 0.
        if !output.status.success() || said.contains("Error while") {
            bail!("kafka-acls {arguments:?} failed: {said}{complained}");
        }
        Ok(said)
    }

    /// The id of this cluster: another one for each new folder.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }
}

impl Deref for Kafka {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

const LOGGER: &str = "org.slf4j.simpleLogger";
const CLASSES: &str = "classes.jsa";
const CHECKPOINT: &str = "bootstrap.checkpoint";

fn joined(option: &str, path: &Path) -> OsString {
    let mut option = OsString::from(option);
    option.push(path);
    option
}

fn class_path(installed: &Path) -> OsString {
    installed.join("lib").join("*").into()
}

/// Lets Kafka's own tool write what a formatted directory holds besides the
/// ids: the versions of its features. They are the same for every cluster, so
/// that one run of it, a second of Java each, serves all of them.
pub(crate) fn format(installed: &Path, clock: &Clock) -> Result<()> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let data = scratch.path().join("data");
    let configuration = scratch.path().join("server.properties");
    fs::write(&configuration, KafkaOptions::default().configuration(9092, 9093, &[], &data))
        .with_context(|| format!("cannot write {}", configuration.display()))?;
    let mut java = Command::new("java");
    java.arg("-cp").arg(class_path(installed)).args(["kafka.tools.StorageTool", "format"]);
    java.args(["--cluster-id", &random_id(), "--config"]).arg(&configuration);
    clock.run(&mut java, installed)?;
    fs::copy(data.join(CHECKPOINT), installed.join(CHECKPOINT))
        .map(|_| ())
        .context("Kafka's storage tool wrote no bootstrap.checkpoint")
}

/// Runs a broker once so that Java archives the classes that it loads, parsed
/// and verified: each later start takes half the time. Java does without an
/// archive that it cannot use, so that none is no failure.
pub(crate) fn archive_classes(home: &Home) -> Result<()> {
    let installed = home.path(Artifact::Kafka);
    let partial = installed.join("classes.partial");
    say("archiving Kafka's classes for quick starts");
    let options = Kafka::options().java(joined("-XX:ArchiveClassesAtExit=", &partial));
    options.launch(home)?.stop()?;
    if partial.is_file() {
        fs::rename(&partial, installed.join(CLASSES)).context("cannot name the class archive")?;
    }
    Ok(())
}

/// Lets Kafka's own tool format, as only it can salt the users' credentials.
fn format_with(installed: &Path, cluster_id: &str, configuration: &Path, credentials: &BTreeSet<String>) -> Result<()> {
    let mut java = Command::new("java");
    java.arg("-cp").arg(class_path(installed)).args(["kafka.tools.StorageTool", "format"]);
    java.args(["--cluster-id", cluster_id, "--config"]).arg(configuration);
    for credential in credentials {
        java.args(["--add-scram", credential]);
    }
    let output = java.output().context("cannot start java")?;
    if !output.status.success() {
        bail!("Kafka's storage tool failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// 16 random bytes in URL-safe base64 without padding: the form of Kafka's ids,
/// 22 characters. As Kafka does, never with a dash in front, which command
/// lines would take for an option.
fn random_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    loop {
        let bits = fastrand::u128(..);
        let text: String = (0..22)
            .map(|place| {
                // The last character holds the last two bits, in its upper end.
                let six = match 122 - 6 * place {
                    shift if shift >= 0 => bits >> shift,
                    _ => bits << 4,
                };
                char::from(ALPHABET[(six & 63) as usize])
            })
            .collect();
        if !text.starts_with('-') {
            return text;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_kafkas_form_and_differ() {
        let ids: std::collections::HashSet<String> = (0..1_000).map(|_| random_id()).collect();
        assert_eq!(ids.len(), 1_000);
        for id in &ids {
            assert_eq!(id.len(), 22);
            assert!(!id.starts_with('-'));
            // Two bits of the last character: base64 of 16 bytes ends so.
            assert!("AQgw".contains(&id[21..]), "{id}");
        }
    }

    #[test]
    fn an_own_property_comes_after_the_default() {
        let options = Kafka::options().property("log.retention.ms", "1000");
        let text = options.configuration(1, 2, &[], Path::new("/data"));
        let last = text.lines().rfind(|line| line.starts_with("log.retention.ms="));
        assert_eq!(last, Some("log.retention.ms=1000"));
        assert!(text.contains("listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2\n"));
        let text = options.behind(3, 4).configuration(1, 2, &[], Path::new("/data"));
        assert!(text.contains("listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2,PROXIED://127.0.0.1:3\n"));
        assert!(text.contains("advertised.listeners=PLAINTEXT://127.0.0.1:1,PROXIED://127.0.0.1:4\n"));
    }
}
