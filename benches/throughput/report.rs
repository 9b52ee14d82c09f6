//! What comes out: a table, the ratios, and `target/bench.json`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::spent::Kind;
use crate::systems::{Figures, System};

const LEGEND: &str = "\
client     CPU seconds (user + system, all threads) of the consuming process per million events, start and stop included
inserts    CPU seconds of the ClickHouse server per million events while merges are held back
merges     the same for merging each row once afterwards: OPTIMIZE … FINAL of every table, and no other merge
peak MB    most resident memory of the consuming process
k pages    thousand pages of memory that it was given: paid once, for what it grows to, and not for each event
MB/s       bytes of messages per CPU second of the consuming process: what one core takes
correct    counts, sums of every minute and series, distinct ids and percentiles are those of the events sent; for a
           floor, events and bytes. A row that is not correct is no result.
Each system runs alone, as its own process, with a ClickHouse of its own that was started for it.";

impl Figures {
    /// Whether it is about 1.5 kB events.
    pub fn is_large(&self) -> bool {
        self.event_bytes > 1_000.0
    }

    fn per_million(&self, seconds: f64) -> f64 {
        seconds * 1e6 / self.events as f64
    }

    pub fn client_per_million(&self) -> Option<f64> {
        self.client.map(|client| self.per_million(client.cpu_s))
    }

    pub fn inserts_per_million(&self) -> Option<f64> {
        self.server.map(|server| self.per_million(server.insert_cpu_s))
    }

    pub fn server_per_million(&self) -> Option<f64> {
        self.server.map(|server| self.per_million(server.insert_cpu_s + server.merge_cpu_s))
    }

    fn mb_per_core(&self) -> Option<f64> {
        let client = self.client.filter(|client| client.cpu_s > 0.0)?;
        Some(self.events as f64 * self.event_bytes / 1e6 / client.cpu_s)
    }

    fn json(&self) -> Value {
        json!({
            "client_cpu_s_per_million": self.client_per_million(),
            "server_cpu_s_per_million": self.server_per_million(),
            "server_insert_cpu_s_per_million": self.inserts_per_million(),
            "peak_rss_mb": self.client.map(|client| client.peak_rss_mb),
            "page_faults": self.client.map(|client| client.page_faults),
            "client_mb_per_cpu_s": self.mb_per_core(),
            "events": self.events,
            "event_bytes": self.event_bytes,
            "server_spent": self.spent.iter().map(Kind::json).collect::<Map<_, _>>(),
            "wall_s": self.wall_s,
            "correct": self.wrong.is_none(),
            "wrong": self.wrong,
        })
    }
}

/// A ratio or figure beside what it is to be.
struct Goal {
    what: &'static str,
    found: Option<f64>,
    is_most: bool,
    bound: f64,
}

impl Goal {
    fn is_met(&self) -> Option<bool> {
        self.found.map(|found| if self.is_most { found <= self.bound } else { found >= self.bound })
    }
}

/// Figures that count: those of correct results only.
fn find(all: &[Figures], system: System, large: bool) -> Option<&Figures> {
    all.iter().find(|figures| figures.system == system && figures.is_large() == large && figures.wrong.is_none())
}

fn goals(all: &[Figures]) -> Vec<Goal> {
    let small = |system| find(all, system, false);
    let highwater = small(System::Highwater);
    let client = highwater.and_then(Figures::client_per_million);
    let inserts = highwater.and_then(Figures::inserts_per_million);
    let server = highwater.and_then(Figures::server_per_million);
    let floor = small(System::Poll).and_then(Figures::client_per_million);
    let naive = small(System::Naive);
    let ratio = |above: Option<f64>, below: Option<f64>| Some(above? / below?);
    let large = find(all, System::Highwater, true);
    let goal = |what, found, is_most, bound| Goal { what, found, is_most, bound };
    vec![
        goal("highwater: client, CPU s per million events", client, true, 1.4),
        goal("highwater: client, times the poll floor", ratio(client, floor), true, 2.0),
        goal("highwater: ClickHouse for inserts, CPU s per million", inserts, true, 1.5),
        goal("highwater: ClickHouse with all merges, CPU s per million", server, true, 4.0),
        goal("naive client, times highwater's", ratio(naive.and_then(Figures::client_per_million), client), false, 6.0),
        goal(
            "naive's ClickHouse with merges, times highwater's",
            ratio(naive.and_then(Figures::server_per_million), server),
            false,
            2.5,
        ),
        goal("highwater, 1.5 kB events: MB per client CPU second", large.and_then(Figures::mb_per_core), false, 250.0),
    ]
}

/// What is in the figures and not of the events.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    /// Processor seconds a second of a ClickHouse that has nothing to do.
    pub idle: f64,
    /// Processor seconds for a page of memory that is written to for the first time.
    pub fresh_page: f64,
}

/// Prints the table and the ratios.
pub fn print(all: &[Figures], machine: &str, costs: Costs) {
    let columns = [
        "system", "bytes", "events", "client", "inserts", "merges", "server", "peak MB", "k pages", "MB/s", "wall s",
        "correct",
    ];
    let number =
        |value: Option<f64>, digits: usize| value.map_or("–".to_owned(), |value| format!("{value:.digits$}"));
    let row = |figures: &Figures| {
        let merges = figures.server.map(|server| figures.per_million(server.merge_cpu_s));
        [
            figures.system.title().to_owned(),
            number(Some(figures.event_bytes), 0),
            figures.events.to_string(),
            number(figures.client_per_million(), 2),
            number(figures.inserts_per_million(), 2),
            number(merges, 2),
            number(figures.server_per_million(), 2),
            number(figures.client.map(|client| client.peak_rss_mb), 0),
            number(figures.client.map(|client| client.page_faults as f64 / 1e3), 0),
            number(figures.mb_per_core(), 0),
            number(Some(figures.wall_s), 1),
            if figures.wrong.is_none() { "yes" } else { "NO" }.to_owned(),
        ]
    };
    let rows: Vec<[String; 12]> = all.iter().map(row).collect();
    let mut text = format!("\nCPU seconds per million events, on {machine}\n");
    let line = |cells: &[String]| {
        let mut line = format!("{:<31}", cells[0]);
        cells[1..].iter().for_each(|cell| _ = write!(line, "{cell:>9}"));
        line
    };
    for cells in std::iter::once(columns.map(str::to_owned)).chain(rows) {
        text.push_str(&line(&cells));
        text.push('\n');
    }
    _ = writeln!(
        text,
        "\n{LEGEND}\nAn idle ClickHouse uses {:.3} CPU seconds a second here, which is in its figures, and a thousand fresh pages of \
         memory cost {:.4}.",
        costs.idle,
        costs.fresh_page * 1e3
    );
    _ = writeln!(
        text,
        "{} reads rows in RowBinary from a topic of its own: it can't read Avro's single-object encoding,",
        System::KafkaEngine.title()
    );
    text.push_str(
        "and its server's figure has the consuming in it. It reads fewer events, being slow in this build.\n\nAims\n",
    );
    for goal in goals(all) {
        let bound = format!("{} {}", if goal.is_most { "at most" } else { "at least" }, goal.bound);
        let verdict = match goal.is_met() {
            None => "not measured",
            Some(true) => "met",
            Some(false) => "MISSED",
        };
        _ = writeln!(text, "{:<58}{:>8}   {bound:<14} {verdict}", goal.what, number(goal.found, 2));
    }
    for figures in all.iter().filter(|figures| !figures.spent.is_empty()) {
        text.push_str(&spent(figures));
    }
    println!("{text}");
}

/// What ClickHouse's time went to, and what no query of its log accounts for.
fn spent(figures: &Figures) -> String {
    let Figures { system, events, event_bytes, .. } = figures;
    let mut text =
        format!("\nClickHouse's CPU seconds, {}, {events} events of {event_bytes:.0} bytes\n", system.title());
    let mut left = figures.server.map_or(0.0, |server| server.insert_cpu_s + server.merge_cpu_s);
    for Kind { name, times, rows, cpu_s } in &figures.spent {
        let each = cpu_s * 1e3 / *times as f64;
        _ = writeln!(text, "{name:<44}{times:>6} times{rows:>10} rows{cpu_s:>9.3} s{each:>9.1} ms each");
        left -= cpu_s;
    }
    _ = writeln!(text, "{:<73}{left:>9.3} s", "the server's own: connections, memory, threads that wait");
    text
}

/// Writes everything as JSON: an object for each system by its key, the machine, and what was aimed at.
pub fn write(all: &[Figures], machine: &str, costs: Costs, path: &Path) -> Result<()> {
    let name = |figures: &Figures| match figures.is_large() {
        true => format!("{}_1500_bytes", figures.system.key()),
        false => figures.system.key().to_owned(),
    };
    let mut whole: Map<String, Value> = all.iter().map(|figures| (name(figures), figures.json())).collect();
    let goal = |goal: Goal| {
        let bound = if goal.is_most { "at_most" } else { "at_least" };
        json!({"what": goal.what, "found": goal.found, bound: goal.bound, "met": goal.is_met()})
    };
    let aims: Vec<Value> = goals(all).into_iter().map(goal).collect();
    let costs = [("idle_clickhouse_cpu_s_per_s", costs.idle), ("fresh_page_cpu_s", costs.fresh_page)];
    whole.extend(costs.map(|(name, cost)| (name.to_owned(), json!(cost))));
    whole.extend([("machine".to_owned(), json!(machine)), ("aims".to_owned(), json!(aims))]);
    fs::write(path, format!("{:#}\n", Value::Object(whole)))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}
