//! What is fetched: pinned versions, through the package managers' ordinary
//! clients, so that mirrors, proxies and checksums are theirs to settle.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::home::Home;
use crate::kafka;
use crate::progress::Clock;

const KAFKA: &str = "4.1.1";
const CLICKHOUSE: &str = "26.7.3";
const CLICKHOUSE_PACKAGE: &str = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1";
const REGISTRY: &str = "3.0.9";

/// The broker with all that it needs, and a logger, which it leaves to whoever
/// packages it.
fn kafka_pom() -> String {
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>devstack</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"#
    )
}

/// One thing to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Artifact {
    /// Apache Kafka's broker.
    Kafka,
    /// ClickHouse as a library, which opens the server's ports too.
    ClickHouse,
    /// Apicurio Registry, the last version that runs on Java 17.
    Registry,
    /// Apache Kafka's command line tools, for its access control lists.
    KafkaTools,
}

impl Artifact {
    /// All of them.
    pub const ALL: [Artifact; 4] = [Artifact::Kafka, Artifact::ClickHouse, Artifact::Registry, Artifact::KafkaTools];

    /// Name and version.
    pub fn title(self) -> &'static str {
        match self {
            Artifact::Kafka => "Apache Kafka 4.1.1",
            Artifact::ClickHouse => "ClickHouse 26.7.3",
            Artifact::Registry => "Apicurio Registry 3.0.9",
            Artifact::KafkaTools => "Apache Kafka's tools 4.1.1",
        }
    }

    /// Its folder below the home; another version has another folder.
    pub(crate) fn folder(self) -> String {
        match self {
            Artifact::Kafka => format!("kafka-{KAFKA}"),
            Artifact::ClickHouse => format!("clickhouse-{CLICKHOUSE}"),
            Artifact::Registry => format!("registry-{REGISTRY}"),
            Artifact::KafkaTools => format!("kafka-tools-{KAFKA}"),
        }
    }

    /// The programs that fetching it calls.
    pub(crate) fn tools(self) -> &'static [&'static str] {
        match self {
            Artifact::Kafka | Artifact::KafkaTools => &["java", "mvn"],
            Artifact::ClickHouse => &["npm", "tar"],
            Artifact::Registry => &["java", "mvn", "tar"],
        }
    }

    /// Fills the empty folder `into`.
    pub(crate) fn download(self, into: &Path, clock: &Clock) -> Result<()> {
        match self {
            Artifact::Kafka => {
                let pom = into.join("pom.xml");
                fs::write(&pom, kafka_pom()).context("cannot write pom.xml")?;
                let mut maven = maven("dependency:copy-dependencies", into, &into.join("lib"));
                clock.run(maven.arg("-f").arg(pom), into)?;
                kafka::format(into, clock)
            }
            Artifact::ClickHouse => {
                if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
                    bail!("{CLICKHOUSE_PACKAGE} is for Linux on x86-64 only");
                }
                let mut npm = Command::new("npm");
                npm.args(["pack", CLICKHOUSE_PACKAGE, "--pack-destination"]);
                clock.run(npm.arg(into).current_dir(into), into)?;
                unpack(into, 1, clock)
            }
            Artifact::Registry => {
                let mut maven = maven("dependency:copy", into, into);
                maven.arg(format!("-Dartifact=io.apicurio:apicurio-registry-app:{REGISTRY}:tar.gz:all"));
                clock.run(&mut maven, into)?;
                unpack(into, 0, clock)
            }
            // Alone: what it needs comes with the broker.
            Artifact::KafkaTools => {
                let mut maven = maven("dependency:copy", into, into);
                maven.arg(format!("-Dartifact=org.apache.kafka:kafka-tools:{KAFKA}"));
                clock.run(&mut maven, into)
            }
        }
    }

    /// What needs the final place: called once, after the download was moved.
    pub(crate) fn prepare(self, home: &Home) -> Result<()> {
        match self {
            Artifact::Kafka => kafka::archive_classes(home),
            Artifact::ClickHouse | Artifact::Registry | Artifact::KafkaTools => Ok(()),
        }
    }
}

fn maven(goal: &str, into: &Path, output: &Path) -> Command {
    let mut directory = std::ffi::OsString::from("-DoutputDirectory=");
    directory.push(output);
    let mut maven = Command::new("mvn");
    maven.args(["--batch-mode", goal]).arg(directory);
    // Away from any pom.xml of somebody else.
    maven.current_dir(into);
    maven
}

/// Unpacks the only archive in `folder` there, without its first `strip` path
/// components, and removes it.
fn unpack(folder: &Path, strip: u8, clock: &Clock) -> Result<()> {
    let archive = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "tgz" || ending == "gz"))
        .context("the download holds no archive")?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(folder);
    clock.run(tar.arg(format!("--strip-components={strip}")), folder)?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))
}
