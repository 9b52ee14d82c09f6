//! `devstack demo`: from nothing to numbers and their proof, with real servers.

mod show;

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use devstack::{ClickHouse, Kafka, Stack, sys};

/// Show highwater at work: real Kafka, real ClickHouse, usage events, numbers, and the proof that they add up.
///
/// Runs `highwater` from the folder of this program: migrate, generate (or replay), run, alerts, audit. Stays up until Ctrl-C,
/// with traffic flowing.
#[derive(Debug, Args)]
pub struct Demo {
    /// End when everything was shown
    #[arg(long)]
    once: bool,
    /// Replay a CSV of real requests (columns TIMESTAMP, ContextTokens, GeneratedTokens) instead of generating traffic
    #[arg(long, value_name = "FILE.csv")]
    input: Option<PathBuf>,
}

/// Events of the generated demo, spread over so many minutes that end now.
const EVENTS: u32 = 60_000;
const MINUTES: u32 = 10;
/// What is generated: each type as often as the others.
const TYPES: [&str; 6] = ["--type", "llm_call", "--type", "cache_access", "--type", "suggestion"];
/// Events a second while the demo stays up.
const RATE: u32 = 200;
const TOPIC: &str = "usage-events";
const ALERTS: &str = "highwater-alerts";
const PARTITIONS: &str = "4";
/// What counts as a dead letter because it is malformed, or sent twice: shares of the traffic.
const BAD: &str = "0.001";
const DUPLICATES: &str = "0.01";
/// How long nothing may fire before that is shown.
const UNTOLD: Duration = Duration::from_secs(60);
/// How long consuming may take before something must be wrong.
const PATIENCE: Duration = Duration::from_secs(300);

impl Demo {
    /// Starts, shows, and stays.
    ///
    /// # Errors
    /// A server or a command fails; a number that should be there is not.
    pub fn run(self) -> Result<()> {
        let highwater = beside("highwater")?;
        let input = self.input.as_deref().map(absolute).transpose()?;
        step("servers", "starting Apache Kafka and ClickHouse on free ports (the first time they are downloaded)");
        let stack = Stack::start_with(Kafka::options().long_running(), ClickHouse::options())?;
        let demo = Running { highwater, stack, forever: input.is_some() };
        println!("            Kafka       {}", demo.stack.kafka.bootstrap());
        println!("            ClickHouse  {}", demo.stack.clickhouse.url());

        step("traffic", &input.as_ref().map_or_else(announce_generated, |file| announce_file(file)));
        let send = |file: &Option<PathBuf>| match file {
            Some(file) => demo.replay(file),
            None => demo.command("generate").args(generated()).args(["--minutes", &MINUTES.to_string()]).done(),
        };
        send(&input)?;
        step("migrate", "making the tables that schemas and packs ask for");
        demo.command("migrate").quietly()?;

        step("run", "consuming, exactly once");
        let mut worker = demo.start_worker()?;
        demo.wait_until_read(&mut worker)?;
        if input.is_some() {
            step("again", "replaying the same file: every event is a duplicate now");
            send(&input)?;
            demo.wait_until_read(&mut worker)?;
        }
        step("numbers", "");
        show::numbers(&demo.stack.clickhouse, input.is_some())?;
        if input.is_none() {
            show::metrics(&demo.stack.clickhouse)?;
        }
        let told = match input.is_some() {
            true => None,
            false => demo.alerts(&mut worker)?,
        };
        step("audit", "holding the ledger against the tables and against Kafka");
        demo.command("audit").done()?;
        show::what_next(&demo.stack, &demo.environment());
        show::what_of_alerts(&demo.highwater, told.as_deref());
        if self.once {
            return worker.stop();
        }
        demo.stay(worker, input.is_none())
    }
}

fn announce_generated() -> String {
    format!(
        "{EVENTS} events of the last {MINUTES} minutes (model calls, cache look-ups, suggestions), 1 % of them sent twice, \
         0.1 % malformed, all out of order"
    )
}

fn announce_file(file: &Path) -> String {
    format!("replaying {}", file.display())
}

fn generated() -> Vec<String> {
    let events = EVENTS.to_string();
    let options = ["--events", &events, "--disorder", "10s", "--duplicates", DUPLICATES, "--bad", BAD];
    TYPES.into_iter().chain(options).map(str::to_owned).collect()
}

fn step(name: &str, what: &str) {
    println!("\n▶ {name:<9} {what}");
}

fn absolute(file: &Path) -> Result<PathBuf> {
    file.canonicalize().with_context(|| format!("INPUT={}: no such file", file.display()))
}

/// A program that was built together with this one.
fn beside(name: &str) -> Result<PathBuf> {
    let here = env::current_exe().context("cannot find the path of the running program")?;
    let found = here.with_file_name(name);
    if !found.exists() {
        bail!(
            "there is no `{name}` beside {}: build it with `cargo build --workspace` in the same profile",
            here.display()
        );
    }
    Ok(found)
}

/// The demo with its servers up.
struct Running {
    highwater: PathBuf,
    stack: Stack,
    /// Tables expire nothing: the data is old.
    forever: bool,
}

/// `highwater run` as a process, ended with this one.
struct Worker {
    process: Child,
    log: PathBuf,
}

impl Running {
    fn environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("HIGHWATER_KAFKA__BROKERS".to_owned(), self.stack.kafka.bootstrap()),
            ("HIGHWATER_KAFKA__TOPICS".to_owned(), TOPIC.to_owned()),
            ("HIGHWATER_CLICKHOUSE__URL".to_owned(), self.stack.clickhouse.url()),
            ("HIGHWATER_BATCH__INTERVAL".to_owned(), "2s".to_owned()),
            ("HIGHWATER_ALERTS__TOPIC".to_owned(), ALERTS.to_owned()),
            ("HIGHWATER_TELEMETRY__LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        ];
        if self.forever {
            for table in ["RAW", "ROLLUPS", "DEAD_LETTERS"] {
                variables.push((format!("HIGHWATER_RETENTION__{table}"), "0".to_owned()));
            }
        }
        variables
    }

    fn command(&self, name: &str) -> Step {
        let mut command = Command::new(&self.highwater);
        command.arg(name).envs(self.environment()).stdin(Stdio::null());
        if matches!(name, "generate" | "replay") {
            command.args(["--topic", TOPIC, "--partitions", PARTITIONS]);
        }
        Step { name: name.to_owned(), command }
    }

    fn replay(&self, file: &Path) -> Result<()> {
        let mut step = self.command("replay");
        step.command.arg(file).args(["--type", "llm_call"]);
        for map in ["TIMESTAMP=occurred_at", "ContextTokens=input_tokens", "GeneratedTokens=output_tokens"] {
            step.command.args(["--map", map]);
        }
        let constants = [
            "app=chat",
            "environment=production",
            "provider=azure.ai.openai",
            "model=gpt-4",
            "operation=chat",
            "endpoint=/chat/completions",
            "feature=chat",
            "status=ok",
            "cache_read_tokens=0",
            "cache_write_tokens=0",
            "streamed=true",
            "retries=0",
        ];
        for constant in constants {
            step.command.args(["--set", constant]);
        }
        step.done()
    }

    fn start_worker(&self) -> Result<Worker> {
        let log = self.stack.kafka.folder().join("highwater.log");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = self.command("run").command;
        command.stdout(file.try_clone()?).stderr(file);
        sys::end_with_this_thread(&mut command);
        let process = command.spawn().context("cannot start `highwater run`")?;
        Ok(Worker { process, log })
    }

    /// Waits until the group has committed all that is in the topic, and says how it goes.
    fn wait_until_read(&self, worker: &mut Worker) -> Result<()> {
        let begun = Instant::now();
        let mut said = Instant::now();
        loop {
            worker.check()?;
            let audit = self.command("audit").command.arg("--json").output().context("cannot run `highwater audit`")?;
            let text = String::from_utf8_lossy(&audit.stdout);
            if show::lag(&text) == Some(0) {
                let rows = show::single(&self.stack.clickhouse, "SELECT count() FROM highwater.llm_call")?;
                println!("            {rows} rows in llm_call after {:.1} s", begun.elapsed().as_secs_f64());
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("not all was read after {} s; `highwater run` says:\n{}", PATIENCE.as_secs(), worker.tail());
            }
            if said.elapsed() > Duration::from_secs(3) {
                said = Instant::now();
                let rows = show::single(&self.stack.clickhouse, "SELECT count() FROM highwater.llm_call")?;
                println!("            … {rows} rows so far");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Shows what fires, and answers the id of one of these alerts. It is budgets, which are told at once: what was generated
    /// costs more than some may spend in a day. Just after midnight (UTC) most of it was spent the day before, so that nothing
    /// need fire.
    fn alerts(&self, worker: &mut Worker) -> Result<Option<String>> {
        step("alerts", &format!("rules and budgets of packs/, each change told once to the topic {ALERTS}"));
        let begun = Instant::now();
        loop {
            worker.check()?;
            let said = self.command("alerts").command.output().context("cannot run `highwater alerts`")?;
            if !said.status.success() {
                let reason = String::from_utf8_lossy(&said.stderr).into_owned();
                if begun.elapsed() > UNTOLD {
                    bail!("`highwater alerts` failed ({}):\n{reason}", said.status);
                }
                println!("            … {}", reason.trim_end());
            }
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let first = show::first_alert(&said);
            if first.is_some() || begun.elapsed() > UNTOLD {
                show::alerts(&said);
                return Ok(first);
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Stays until Ctrl-C, with traffic if it is to flow on.
    fn stay(&self, mut worker: Worker, traffic: bool) -> Result<()> {
        let mut sender = None;
        if traffic {
            let mut command = self.command("generate").command;
            command.args(TYPES).args(["--duration", "30d", "--rate", &RATE.to_string()]);
            command.args(["--disorder", "10s", "--duplicates", DUPLICATES, "--bad", BAD, "--seed", "2"]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            sys::end_with_this_thread(&mut command);
            sender = Some(command.spawn().context("cannot start `highwater generate`")?);
            println!("\n{RATE} events a second go on flowing. Ctrl-C ends everything.");
        } else {
            println!("\nStaying up. Ctrl-C ends everything.");
        }
        while !sys::termination_within(Duration::from_millis(500)) {
            worker.check()?;
        }
        if let Some(mut sender) = sender {
            let _ = sender.kill();
            let _ = sender.wait();
        }
        println!("stopping");
        worker.stop()
    }
}

/// One call of `highwater`.
struct Step {
    name: String,
    command: Command,
}

impl Step {
    fn args<S: AsRef<std::ffi::OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Step {
        self.command.args(arguments);
        self
    }

    /// Runs it with its output shown.
    fn done(mut self) -> Result<()> {
        let status = self.command.status().with_context(|| format!("cannot start `highwater {}`", self.name))?;
        if !status.success() {
            bail!("`highwater {}` failed ({status})", self.name);
        }
        Ok(())
    }

    /// Runs it and shows its output only if it fails.
    fn quietly(mut self) -> Result<()> {
        let output = self.command.output().with_context(|| format!("cannot start `highwater {}`", self.name))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("`highwater {}` failed ({}):\n{}", self.name, output.status, String::from_utf8_lossy(&said));
        }
        Ok(())
    }
}

impl Worker {
    fn check(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("`highwater run` ended ({status}); it said:\n{}", self.tail());
        }
        Ok(())
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// As an operator would: SIGTERM, and it must end well.
    fn stop(mut self) -> Result<()> {
        sys::send(self.process.id(), sys::Signal::Terminate).context("cannot stop `highwater run`")?;
        let status = self.process.wait()?;
        if !status.success() {
            bail!("`highwater run` did not end well ({status}); it said:\n{}", self.tail());
        }
        Ok(())
    }
}
