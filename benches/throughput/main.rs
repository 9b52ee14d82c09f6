//! What a million events cost: highwater, a floor that nobody gets below, and peers, on one workload in one run.
//!
//! `make bench` runs it. `EVENTS` says how many events of about 200 bytes there are (10,000,000), `SYSTEMS` which systems
//! (all; names as in `target/bench.json`, separated by commas), `TIMEOUT` how many seconds each may take (600),
//! `EXTRA_SQL` what highwater's ClickHouse is told first, to try a setting of a table. The exit code is 1 where a system's
//! results are wrong.
//!
//! # Layout
//! - [`workload`]: the events and the truth about them; [`mod@produce`] writes them to Kafka
//! - [`systems`]: how each system is run and metered; [`floor`] and [`naive`] are two of them
//! - [`process`]: processor time and memory from `/proc`
//! - [`check`]: results against the truth; [`report`]: the tables; [`spent`]: what ClickHouse's time went to
//! - [`scale`]: what happens as things grow, over the events of [`synthetic`]; [`curve`] draws it

mod check;
mod curve;
mod floor;
#[path = "../naive.rs"]
mod naive;
mod process;
mod produce;
mod report;
mod scale;
mod spent;
mod synthetic;
mod systems;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use devstack::{ClickHouse, Kafka};

use process::{cpu_seconds, fresh_page_s};
use produce::{Topic, produce};
use report::Costs;
use scale::Scale;
use serde_json::{Value, json};
use systems::{Bench, Figures, System};
use workload::{Event, Workload};

/// Events of about 200 bytes have a `detail` of so many bytes, and of about 1.5 kB of so many.
const DETAIL: usize = 12;
const LONG_DETAIL: usize = 1_310;
/// So many times fewer events are 1.5 kB long.
const FEWER_LONG: u64 = 6;
/// So many times fewer events for ClickHouse's own engine.
const FEWER_ROWS: u64 = 10;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["floor_poll", brokers, topic, events] => println!("{:?}", floor::poll(brokers, topic, events.parse()?)?),
        ["floor_batch_queue", brokers, topic, events] => {
            println!("{:?}", floor::batch_queue(brokers, topic, events.parse()?)?);
        }
        ["naive", brokers, topic, events, url] => {
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(naive::run(brokers, topic, events.parse()?, url, workload::SCHEMA))?;
        }
        ["scale"] => grow(&|scale| {
            let (factor, wanted) = (setting("SCALE", 1)?, setting("CURVES", String::new())?);
            let is_wanted = |name: &str| wanted.is_empty() || wanted.split(',').any(|curve| curve == name);
            let curves = scale.curves(factor, &is_wanted)?;
            let idle = if is_wanted("idle") { scale.idle()? } else { Value::Null };
            // Half of all processors belong to the servers and the producer, so that this is what can be offered here.
            let capacity: u64 = setting("CAPACITY", 100_000)?;
            let rates = [10, 50, 80].into_iter().filter(|_| is_wanted("freshness"));
            let fresh: Result<Vec<Value>> =
                rates.map(|percent| scale.live(&format!("fresh-{percent}"), capacity * percent / 100, 40)).collect();
            Ok(("scale.json", json!({"curves": curves, "idle": idle, "freshness": fresh?})))
        })?,
        ["soak"] => grow(&|scale| {
            let (minutes, rate) = (setting("MINUTES", 30)?, setting::<u64>("CAPACITY", 100_000)? / 2);
            Ok(("soak.json", scale.live("soak", rate, minutes * 60)?))
        })?,
        [] => return compare(),
        other => bail!("no such role: {other:?}; run it by `make bench`"),
    }
    Ok(ExitCode::SUCCESS)
}

fn setting<T: FromStr>(name: &str, default: T) -> Result<T> {
    match std::env::var(name).ok().filter(|text| !text.is_empty()) {
        None => Ok(default),
        Some(text) => text.parse().ok().with_context(|| format!("{name}={text} makes no sense")),
    }
}

/// Starts what curves and soak need, runs it and writes its figures below `target`.
fn grow(run: &dyn Fn(&Scale) -> Result<(&'static str, Value)>) -> Result<()> {
    let machine = machine()?;
    println!("on {machine}");
    let own = std::env::current_exe()?;
    let binaries = own.parent().context("this program has no path")?;
    let folder = tempfile::tempdir()?;
    let scale = Scale {
        highwater: highwater(binaries)?,
        kafka: Kafka::options().start()?,
        folder: folder.path().to_owned(),
        begin_us: workload::begin_us()?,
        timeout: Duration::from_secs(setting("TIMEOUT", 600)?),
    };
    let (file, figures) = run(&scale)?;
    let path = binaries.parent().context("this program is not in a target folder of cargo's")?.join(file);
    std::fs::write(&path, format!("{:#}\n", json!({"machine": machine, "figures": figures})))?;
    println!("written to {}", path.display());
    Ok(())
}

/// The program that is measured, which stands beside this one.
fn highwater(binaries: &Path) -> Result<PathBuf> {
    let path = binaries.join("highwater");
    ensure!(path.is_file(), "there is no {}; `make bench` builds it", path.display());
    Ok(path)
}

fn compare() -> Result<ExitCode> {
    let events: u64 = setting("EVENTS", 10_000_000)?;
    let timeout = Duration::from_secs(setting("TIMEOUT", 600)?);
    let wanted: String = setting("SYSTEMS", String::new())?;
    let is_wanted = |system: System| wanted.is_empty() || wanted.split(',').any(|name| name == system.key());
    let machine = machine()?;
    println!("benchmark on {machine}: EVENTS={events}");
    let own = std::env::current_exe()?;
    let binaries = own.parent().context("this program has no path")?;
    let highwater = highwater(binaries)?;
    let fresh_page = fresh_page_s()?;
    println!("starting Kafka…");
    let kafka = Kafka::options().start()?;
    let folder = tempfile::tempdir()?;
    systems::write_files(folder.path())?;
    let bench = Bench { brokers: kafka.bootstrap(), highwater, folder: folder.path().to_owned(), timeout };
    let costs = Costs { idle: idle_cpu()?, fresh_page };

    let begin_us = workload::begin_us()?;
    let small = Workload { events, detail: DETAIL, begin_us };
    let large = Workload { events: (events / FEWER_LONG).max(1), detail: LONG_DETAIL, begin_us };
    let few = Workload { events: (events / FEWER_ROWS).max(1), ..small };
    let fingerprint = workload::fingerprint(&small)?;
    let avro = |event: &Event, out: &mut Vec<u8>| event.avro(fingerprint, out);

    let with_clients = [System::Poll, System::BatchQueue, System::Highwater, System::Uncompressed, System::Naive];
    let mut all: Vec<Figures> = Vec::new();
    for (name, workload) in [("calls", small), ("long-calls", large)] {
        run_all(&bench, &mut all, with_clients.into_iter().filter(|&system| is_wanted(system)), || {
            produce(&bench.brokers, name, workload, avro)
        })?;
    }
    run_all(&bench, &mut all, Some(System::KafkaEngine).into_iter().filter(|&system| is_wanted(system)), || {
        produce(&bench.brokers, "call-rows", few, Event::row_binary)
    })?;

    report::print(&all, &machine, costs);
    let target = binaries.parent().context("this program is not in a target folder of cargo's")?;
    report::write(&all, &machine, costs, &target.join("bench.json"))?;
    let wrong: Vec<&Figures> = all.iter().filter(|figures| figures.wrong.is_some()).collect();
    for figures in &wrong {
        eprintln!("{} is not correct: {}", figures.system.title(), figures.wrong.as_deref().unwrap_or_default());
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_all(
    bench: &Bench,
    all: &mut Vec<Figures>,
    systems: impl Iterator<Item = System>,
    topic: impl FnOnce() -> Result<Topic>,
) -> Result<()> {
    let systems: Vec<System> = systems.collect();
    if systems.is_empty() {
        return Ok(());
    }
    let topic = topic()?;
    for system in systems {
        all.push(bench.run(system, &topic)?);
    }
    Ok(())
}

/// Processor seconds a second of a ClickHouse that has nothing to do.
fn idle_cpu() -> Result<f64> {
    println!("starting ClickHouse, to see what it uses when idle…");
    let clickhouse = ClickHouse::options().start()?;
    let pid = clickhouse.pid().context("ClickHouse has ended")?;
    thread::sleep(Duration::from_secs(2));
    let before = cpu_seconds(pid)?;
    let long = Duration::from_secs(5);
    thread::sleep(long);
    Ok((cpu_seconds(pid)? - before) / long.as_secs_f64())
}

/// What this runs on.
fn machine() -> Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kib: f64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0.0);
    let cores = thread::available_parallelism()?;
    Ok(format!("{cores} cores of {}, {:.0} GB", model.trim_start_matches([':', ' ', '\t']), kib * 1_024.0 / 1e9))
}

/// The end of a log.
fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
