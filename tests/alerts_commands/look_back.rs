//! `highwater alerts backtest` and `highwater alerts explain` over a history that `highwater run` judged: what was published
//! is found again, and what is otherwise is named.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use highwater::alert::{Answer, Minute, Question, Row, Which};
use highwater::clickhouse::Client;
use highwater::command::load;
use highwater::config::Settings;
use serde_json::Value;

use crate::script::{STAGES, Script};
use crate::support::World;
use crate::wait_until;

/// The script, played to its end before a live evaluator; answers its begin in minutes since 1970, and the number of the
/// message that says since when calls failed, by all that is known at the end.
fn played() -> (Script, i64, i64) {
    let script = Script::new();
    let process = script.world.run("run");
    for stage in STAGES {
        script.play(stage);
        script.wait_for(stage, &mut [&process]);
    }
    let world = &script.world;
    let begin = world.number("SELECT toUnixTimestamp(toStartOfHour(min(occurred_at))) FROM highwater.call") as i64 / 60;
    // Late events may come to be known in two steps, which are two corrections.
    let known = format!(
        "SELECT max(sequence) FROM highwater.alerts WHERE rule = 'failures' AND state = 'firing' AND toUnixTimestamp(at) = {} \
         AND notEmpty(corrects)",
        (begin + 12) * 60
    );
    wait_until("correction", || world.number(&known) > 0, &|| process.said());
    let all = "SELECT count() FROM highwater.alerts WHERE rule != 'failures'";
    wait_until("all", || world.number(all) == 9, &|| process.said());
    let last = world.number(&known) as i64;
    assert!(process.terminate().0.success());
    (script, begin, last)
}

fn time(minute: i64) -> String {
    jiff::Timestamp::from_second(minute * 60).unwrap().to_string()
}

/// (mark, minute of the script, rule, state) of each message that a backtest prints.
fn marks(said: &str, begin: i64) -> Vec<(char, i64, String, String)> {
    let lines = said.lines().filter(|line| line.starts_with(['+', '-']) || line.starts_with("  20"));
    let understood = |line: &str| {
        let words: Vec<&str> = line[2..].split_whitespace().collect();
        let at: jiff::Timestamp = words[0].parse().unwrap();
        (line.chars().next().unwrap(), at.as_second() / 60 - begin, words[3].to_owned(), words[2].to_owned())
    };
    lines.map(understood).collect()
}

#[test]
fn what_was_published_is_found_again_and_other_rules_differ() {
    let (script, begin, last) = played();
    let world = &script.world;
    let pack = world.folder.path().join("packs/call.toml").display().to_string();
    let (from, to) = (time(begin - 13 * 60), time(begin + 90));
    let told = |mark, at, rule: &str, state: &str| (mark, at, rule.to_owned(), state.to_owned());
    // What corrections left standing; a backtest knows from the begin what came late.
    let expected = [
        told(' ', 10, "ending", "firing"),
        told(' ', 10, "lasting", "firing"),
        told(' ', 12, "failures", "firing"),
        told(' ', 20, "ending", "firing"),
        told(' ', 20, "ending", "firing"),
        told(' ', 20, "ending", "firing"),
        told(' ', 20, "lasting", "firing"),
        told(' ', 20, "lasting", "firing"),
        told(' ', 20, "lasting", "firing"),
        told(' ', 25, "failures", "resolved"),
        told(' ', 60, "ending", "resolved"),
    ];
    let said = world.done(&["alerts", "backtest", &pack, "--from", &from, "--to", &to]);
    assert_eq!(marks(&said, begin), expected, "{said}");
    assert!(said.ends_with(": 11 messages, as was published\n"), "{said}");
    // Wherever it begins: what stood then is no news.
    for (after, left) in [(0, 11), (10, 9), (13, 8), (20, 2), (24, 2), (30, 1)] {
        let from = time(begin + after);
        let said = world.done(&["alerts", "backtest", &pack, "--from", &from, "--to", &to]);
        assert_eq!(marks(&said, begin), expected[11 - left..], "from {after}: {said}");
    }
    // As JSON, with the evidence that was published.
    let said = world.done(&["alerts", "backtest", &pack, "--from", &from, "--to", &to, "--json"]);
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 11);
    let published = world.query(&format!(
        "SELECT message FROM highwater.alerts WHERE rule = 'failures' AND sequence >= {last} ORDER BY sequence FORMAT TSVRaw"
    ));
    let published: Vec<Value> = published.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found = lines.iter().filter(|line| line["message"]["rule"] == "failures");
    for (found, published) in found.zip(&published) {
        assert!(found["found"] == true && found["published"] == true, "{found}");
        for field in
            ["alert_id", "at", "since", "state", "value", "threshold", "readings", "dimensions", "summary", "rule_hash"]
        {
            assert_eq!(found["message"][field], published[field], "{field}");
        }
    }

    // Above 70 % it fires from minute 14 on (70 of 80), for two minutes.
    let other = world.folder.path().join("call.toml");
    let text = std::fs::read_to_string(&pack).unwrap().replace("above = 0.2", "above = 0.7");
    std::fs::write(&other, &text).unwrap();
    let other = other.display().to_string();
    let said = world.done(&["alerts", "backtest", &other, "--from", &from, "--to", &to]);
    let failures: Vec<_> = marks(&said, begin).into_iter().filter(|(_, _, rule, _)| rule == "failures").collect();
    let expected = [
        told('-', 12, "failures", "firing"),
        told('+', 16, "failures", "firing"),
        told(' ', 25, "failures", "resolved"),
    ];
    assert_eq!(failures, expected, "{said}");
    assert!(said.contains("10 as was published, 1 more (+), 1 that were published and are not told (-)"), "{said}");
    against_installed(world, &pack, &other, begin);

    // A pack of rules alone, of another name, over the metrics that there are.
    let alone = world.folder.path().join("alone.toml");
    let rule = text.split("[[alert]]").nth(1).unwrap().split("# Its day").next().unwrap().replace("failures", "others");
    std::fs::write(&alone, format!("[[alert]]{rule}")).unwrap();
    let alone = alone.display().to_string();
    let said = world.done(&["alerts", "backtest", &alone, "--from", &from, "--to", &to]);
    assert_eq!(marks(&said, begin), [told('+', 16, "others", "firing"), told('+', 25, "others", "resolved")], "{said}");

    wrong(world, &pack, &alone, begin);
}

/// Where rules were changed since, what was published says nothing of how others differ from them.
fn against_installed(world: &World, pack: &str, other: &str, begin: i64) {
    let (from, to) = (time(begin), time(begin + 90));
    let before = std::fs::read_to_string(pack).unwrap();
    // As if the other had been installed.
    let (tried, was) = (world.folder.path().join("before").join("call.toml"), before.clone());
    std::fs::create_dir_all(tried.parent().unwrap()).unwrap();
    std::fs::write(&tried, was).unwrap();
    std::fs::copy(other, pack).unwrap();
    let tried = tried.display().to_string();
    let backtest = |file: &str, more: &[&str]| {
        world.done(&[&["alerts", "backtest", file, "--from", &from, "--to", &to], more].concat())
    };
    let failures = |said: &str| -> Vec<(char, i64)> {
        marks(said, begin)
            .into_iter()
            .filter(|(.., rule, _)| rule == "failures")
            .map(|(mark, at, ..)| (mark, at))
            .collect()
    };
    let said = backtest(&tried, &[]);
    assert!(said.ends_with(": 11 messages, as was published\n"), "{said}");
    let said = backtest(&tried, &["--against", "installed"]);
    assert_eq!(failures(&said), [('+', 12), ('-', 16), (' ', 25)], "{said}");
    assert!(
        said.contains("10 as the installed rules tell, 1 more (+), 1 that only the installed rules tell (-)"),
        "{said}"
    );
    let said = backtest(pack, &["--against", "installed"]);
    assert!(said.ends_with(": 11 messages, as the installed rules tell\n"), "{said}");
    let said = backtest(&tried, &["--against", "installed", "--json"]);
    let found: Vec<(Value, Value)> = said
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["message"]["rule"] == "failures")
        .map(|line| (line["found"].clone(), line["installed"].clone()))
        .collect();
    assert_eq!(
        found,
        [(true, false), (false, true), (true, true)].map(|(found, installed)| (found.into(), installed.into()))
    );
    // Rules that nobody installed are told of in full.
    let alone = world.folder.path().join("unknown.toml");
    let rule =
        before.split("[[alert]]").nth(1).unwrap().split("# Its day").next().unwrap().replace("failures", "others");
    std::fs::write(&alone, format!("[[alert]]{rule}")).unwrap();
    let said = backtest(&alone.display().to_string(), &["--against", "installed"]);
    assert!(said.contains("0 as the installed rules tell, 2 more (+), 0 that"), "{said}");
    std::fs::write(pack, before).unwrap();
}

/// | what is wrong | what is said |
/// |---|---|
/// | times that are none, in the wrong order | which |
/// | a file that is not there, is no pack, has no rules, has rules of a metric that is none | file and line |
/// | more than is complete | how far it is |
fn wrong(world: &World, pack: &str, alone: &str, begin: i64) {
    let says = |arguments: &[&str], status: i32, expected: &str| {
        let output = world.command(&[&["alerts", "backtest"], arguments].concat()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(said.contains(expected), "{arguments:?} does not say {expected:?}: {said}");
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    };
    let (from, to) = (time(begin), time(begin + 90));
    says(&[pack], 2, "--from <TIME>");
    says(&[pack, "--from", "yesterday"], 2, "invalid value 'yesterday'");
    says(&[pack, "--from", &to, "--to", &from], 2, "is not before");
    says(&["/no/such/file.toml", "--from", &from], 1, "/no/such/file.toml");
    let file = |name: &str, text: &str| {
        let path = world.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    says(&[&file("broken.toml", "[[alert"), "--from", &from], 1, "broken.toml:1: not a pack");
    says(&[&file("empty.toml", ""), "--from", &from], 2, "empty.toml has neither an [[alert]] nor a [[budget]]");
    let strange = std::fs::read_to_string(alone).unwrap().replace("\"failed\"", "\"faild\"");
    says(&[&file("strange.toml", &strange), "--from", &from], 1, "strange.toml:");
    // A name that an installed pack has.
    let twice = std::fs::read_to_string(alone).unwrap().replace("\"others\"", "\"failures\"");
    says(&[&file("twice.toml", &twice), "--from", &from], 1, "failures");
    let later = time(begin + 100_000);
    says(
        &[pack, "--from", &from, "--to", &later],
        0,
        &format!("minutes are complete up to {} only, where it ends", time(begin + 90)),
    );
}

#[test]
fn messages_are_explained_by_the_rows_that_they_rest_on() {
    let (script, begin, last) = played();
    let world = &script.world;
    let explain = |rule: &str, sequence: i64| {
        let id = script.ids().into_iter().find(|(_, _, of)| of == rule).unwrap().0;
        world.done(&["alerts", "explain", &id, "--sequence", &sequence.to_string()])
    };
    // Where the rows of minutes 7 to 11 are, asked in another way.
    let places = world.query(&format!(
        "SELECT concat('    ', _source, ': ', toString(count()), ' rows, offsets ', toString(min(_offset)), ' to ', \
         toString(max(_offset))) FROM highwater.call WHERE toUnixTimestamp(occurred_at) >= {} AND toUnixTimestamp(occurred_at) < {} \
         GROUP BY _source ORDER BY _source FORMAT TSVRaw",
        (begin + 7) * 60,
        (begin + 12) * 60
    ));
    let said = explain("failures", last);
    let window = format!("50 of 80 from {} to {}", time(begin + 7), time(begin + 12));
    assert!(said.contains(&format!("from raw rows: 0.625 ({window}), as was told")), "{said}");
    assert!(said.contains(&format!("it rests on 80 raw rows of that series:\n{places}")), "{said}\n{places}");
    assert!(!said.contains("gone") && !said.contains("prices") && !said.contains("written after"), "{said}");

    // Before the late ones came it was 40 of 50.
    let said = explain("failures", 1);
    assert!(said.contains("0.8 against 0.2 when it was told, 0.875 against 0.2 now"), "{said}");
    assert!(said.contains("from raw rows: 0.875 (70 of 80 from"), "{said}");
    assert!(said.contains("as from the rollups"), "{said}");
    assert!(
        said.contains("30 of these rows were written after it was published; without them it is as was told"),
        "{said}"
    );

    let said = explain("ending", 4);
    assert!(said.contains("from raw rows: 1000 spent, as was told"), "{said}");

    // The rule was changed since.
    let pack = world.folder.path().join("packs/call.toml");
    let text = std::fs::read_to_string(&pack).unwrap();
    std::fs::write(&pack, text.replace("above = 0.2", "above = 0.3")).unwrap();
    let said = explain("failures", last);
    assert!(
        said.contains("was changed since") && said.contains("above = 0.2") && said.contains("as was told"),
        "{said}"
    );
    std::fs::write(&pack, text).unwrap();

    // Some of the rows expire, and then all.
    let delete = |what: &str| {
        world.query(&format!("ALTER TABLE highwater.call DELETE WHERE {what} SETTINGS mutations_sync = 2"));
    };
    delete(&format!("toUnixTimestamp(occurred_at) < {}", (begin + 9) * 60));
    let said = explain("failures", last);
    assert!(said.contains("computed anew: 0.625 against 0.2, as was told"), "{said}");
    assert!(said.contains("from raw rows: 0.8333 (50 of 60 from") && said.contains("and 0.625 (50 of 80"), "{said}");
    assert!(
        said.contains("20 of the 80 rows that were counted are gone: they expired (retention.raw) or were deleted"),
        "{said}"
    );
    delete("1");
    let said = explain("failures", last);
    assert!(said.contains("from raw rows: none of that series are left"), "{said}");
    assert!(said.contains("80 of the 80 rows that were counted are gone"), "{said}");
}

/// Of every rollup and number that shipped rules look at: raw rows add up to what the rollups have.
#[test]
fn raw_rows_add_up_to_the_rollups_and_prices_are_named() {
    let mut world = World::new();
    let packs = world.folder.path().join("packs");
    std::fs::create_dir(&packs).unwrap();
    for file in ["llm.toml", "cache.toml", "suggestions.toml"] {
        let text = std::fs::read_to_string(Path::new("packs").join(file)).unwrap();
        let text = text.replace("amount = \"50.00\"", "amount = \"0.01\"").replace("forecast = true", "");
        std::fs::write(packs.join(file), text).unwrap();
    }
    let prices = world.folder.path().join("prices.toml");
    std::fs::copy("prices.toml", &prices).unwrap();
    world.set("EVENTS__PACKS", &packs.display().to_string());
    world.set("EVENTS__PRICES", &prices.display().to_string());
    world.set("ALERTS__TOPIC", "highwater-alerts");
    world.set("ALERTS__INTERVAL", "200ms");
    world.done(&["migrate"]);
    world.generate(&["--events", "3000", "--minutes", "7", "--duplicates", "0.01", "--bad", "0.01", "--late", "0.05"]);
    let mut process = world.run("run");
    world.wait_for(3_000, &mut process, Duration::from_secs(60));

    let settings = settings(&world);
    let plan = load::plan(&settings).unwrap();
    let client = Client::new(settings.endpoint().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut compared, mut rows_compared) = (0, 0);
    for question in Question::all(&plan.alerts, &plan.rollups) {
        let rollup = &plan.rollups[question.rollup];
        let event = &plan.types[rollup.event].event;
        let span = (0, jiff::Timestamp::now().as_second() / 60 + 1);
        let none = BTreeMap::new();
        let which = Which { event, rollup, database: client.database(), span, dimensions: &none, before: None };
        let ask = |sql: String| runtime.block_on(client.rows::<Answer>(&sql)).unwrap();
        let raw = ask(question.sql_of_raw(&which)).into_iter().map(|row| question.row_of_raw(row).unwrap());
        let merged = ask(question.sql(rollup, client.database(), std::slice::from_ref(&(0..Minute::MAX))))
            .into_iter()
            .map(|row| question.row(row).unwrap());
        let (raw, merged) = (sorted(raw.collect()), sorted(merged.collect()));
        assert_eq!(raw, merged, "{question:?}");
        compared += question.numbers.len() + question.distributions.len();
        rows_compared += raw.len();
    }
    println!("{compared} columns of {rows_compared} rows");
    assert!(compared > 8 && rows_compared > 100);

    // A budget of costs names its prices.
    let stops =
        "SELECT toString(any(alert_id)) FROM highwater.alerts WHERE rule = 'llm_daily_spend' AND severity = 'stop'";
    wait_until(
        "stop",
        || world.query(stops).trim().len() == 36 && !world.query(stops).starts_with("00000000"),
        &|| process.said(),
    );
    let id = world.query(stops).trim().to_owned();
    process.terminate();
    let said = world.done(&["alerts", "explain", &id]);
    let version = said
        .lines()
        .find_map(|line| line.strip_prefix("prices: ")?.strip_suffix(", as now"))
        .unwrap_or_else(|| panic!("{said}"));
    let version = version.to_owned();
    std::fs::write(&prices, format!("{}\n# changed\n", std::fs::read_to_string(&prices).unwrap())).unwrap();
    let said = world.done(&["alerts", "explain", &id]);
    assert!(said.contains(&format!("prices: {version} then, ")) && said.contains("rows keep the cost"), "{said}");
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by(|one, other| (one.at, &one.dimensions).cmp(&(other.at, &other.dimensions)));
    rows
}

fn settings(world: &World) -> Settings {
    let command = world.command(&[]);
    let variable = |(name, value): (&std::ffi::OsStr, Option<&std::ffi::OsStr>)| {
        Some((name.to_str()?.to_owned(), value?.to_str()?.to_owned()))
    };
    highwater::config::load(None, command.get_envs().filter_map(variable), &[]).unwrap()
}
