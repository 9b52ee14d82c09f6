//! Metrics held against rollups.

use toml::{Spanned, Value};

use super::{Names, Placed, Wrong, error, one_of};
use crate::event::{COST_COLUMN, EventType, Kind};
use crate::rollup::condition::Condition;
use crate::rollup::metric::{Metric, Quantity};
use crate::rollup::pack::{MetricEntry, Names as NameOrNames, Pack, PackError};
use crate::rollup::table::{Measure, Rollup};

/// The keys of which a metric has one.
const QUANTITIES: &str = "count, sum, mean, cost, ratio and quantiles";

/// How a `ratio` is written.
const RATIO: &str = "write ratio = \"condition\", { count = \"condition\", of = \"condition\" } or { sum = \"number\", of = \
                     \"number\" }, where a number may be a list of them";

/// The metrics of all packs, in their order.
pub(super) fn resolve(
    packs: &[Pack],
    types: &[EventType],
    rollups: &[Rollup],
    names: &mut Names,
) -> Result<Vec<Metric>, Vec<PackError>> {
    let (mut metrics, mut errors) = (Vec::new(), Vec::new());
    for (pack, entry) in packs.iter().flat_map(|pack| pack.metrics.iter().map(move |entry| (pack, entry))) {
        let (name, at) = (entry.name.get_ref(), entry.name.span().start);
        let owner = format!("a metric's ({}:{})", pack.file, pack.line(at));
        let mut wrong: Vec<Placed> = names.claim(name, &owner).into_iter().map(|wrong| (at, wrong)).collect();
        match metric(entry, types, rollups) {
            Ok(metric) => metrics.push(metric),
            Err(more) => wrong.extend(more),
        }
        errors.extend(wrong.into_iter().map(|wrong| error(pack, "metric", name, wrong)));
    }
    if errors.is_empty() { Ok(metrics) } else { Err(errors) }
}

/// Resolves a metric against its rollup, or against the first rollup of its event type that has all that it needs.
fn metric(entry: &MetricEntry, types: &[EventType], rollups: &[Rollup]) -> Result<Metric, Vec<Placed>> {
    let start = entry.name.span().start;
    let over = |position: usize| Over { entry, types, rollup: &rollups[position], position }.metric();
    match (&entry.rollup, &entry.event) {
        (Some(rollup), None) => {
            let (name, at) = (rollup.get_ref(), rollup.span().start);
            match rollups.iter().position(|known| known.name == *name) {
                Some(position) => over(position),
                None => {
                    let known: Vec<&str> = rollups.iter().map(|rollup| rollup.name.as_str()).collect();
                    let known = one_of(name, &known, "there is none: add a schema");
                    Err(vec![(at, ("rollup", format!("there is no rollup {name:?}; {known}")))])
                }
            }
        }
        (None, Some(event)) => {
            let (name, at) = (event.get_ref(), event.span().start);
            let Some(index) = types.iter().position(|known| known.name == *name) else {
                let known: Vec<&str> = types.iter().map(|event| event.name.as_str()).collect();
                let known = one_of(name, &known, "there is none: add a schema");
                return Err(vec![(at, ("event", format!("there is no event type {name:?}; {known}")))]);
            };
            // Every event type has a rollup, be it the default one, so the first error is there if no metric is.
            let candidates = rollups.iter().enumerate().filter(|(_, rollup)| rollup.event == index);
            let mut first = None;
            for (position, _) in candidates {
                match over(position) {
                    Ok(metric) => return Ok(metric),
                    Err(wrong) => first = first.or(Some(wrong)),
                }
            }
            Err(first.unwrap_or_default())
        }
        (Some(_), Some(event)) => {
            Err(vec![(event.span().start, ("event", "give rollup or event, not both".to_owned()))])
        }
        (None, None) => Err(vec![(start, ("rollup", "give the rollup it reads, or the event it is about".to_owned()))]),
    }
}

/// A metric over one rollup.
struct Over<'a> {
    entry: &'a MetricEntry,
    types: &'a [EventType],
    rollup: &'a Rollup,
    position: usize,
}

impl Over<'_> {
    fn metric(&self) -> Result<Metric, Vec<Placed>> {
        let entry = self.entry;
        let mut wrong: Vec<Placed> = Vec::new();
        for (key, given) in [("question", &entry.question), ("unit", &entry.unit)] {
            let text = given.get_ref();
            if text.trim().is_empty() || text.contains('\n') {
                wrong.push((given.span().start, (key, "write one line".to_owned())));
            }
        }
        for (at, given) in entry.by.iter().enumerate() {
            let found = super::once("by", &entry.by[..at], given).and_then(|()| self.dimension("by", given.get_ref()));
            wrong.extend(found.err().map(|wrong| (given.span().start, wrong)));
        }
        let filter = entry
            .r#where
            .as_ref()
            .map(|given| self.condition("where", given.get_ref()).map_err(|wrong| (given.span().start, wrong)));
        let filter = filter.transpose().unwrap_or_else(|found| {
            wrong.push(found);
            None
        });
        let quantity = match self.quantity() {
            Ok(quantity) => quantity,
            Err(found) => {
                wrong.push(found);
                Quantity::Count
            }
        };
        let metric = Metric {
            name: entry.name.get_ref().clone(),
            question: entry.question.get_ref().clone(),
            unit: entry.unit.get_ref().clone(),
            rollup: self.position,
            by: entry.by.iter().map(|by| by.get_ref().clone()).collect(),
            filter,
            quantity,
        };
        let columns = metric.columns();
        for given in &entry.by {
            let name = given.get_ref();
            if wrong.is_empty() && columns.iter().filter(|column| *column == name).count() > 1 {
                let what = format!("its view has a column {name} of its own; leave the dimension out");
                wrong.push((given.span().start, ("by", what)));
            }
        }
        if wrong.is_empty() { Ok(metric) } else { Err(wrong) }
    }

    /// The one quantity that is given.
    fn quantity(&self) -> Result<Quantity, Placed> {
        let entry = self.entry;
        let mut given: Vec<(usize, Result<Quantity, Wrong>)> = Vec::new();
        if let Some(count) = &entry.count {
            given.push((count.span().start, truth("count", count).map(|()| Quantity::Count)));
        }
        if let Some(sum) = &entry.sum {
            let names = sum.get_ref().clone().into_vec();
            given.push((sum.span().start, self.sums("sum", &names).map(|()| Quantity::Sum(names))));
        }
        if let Some(mean) = &entry.mean {
            let name = mean.get_ref().clone();
            let found = self.sums("mean", std::slice::from_ref(&name)).map(|()| Quantity::Mean(name));
            given.push((mean.span().start, found));
        }
        if let Some(cost) = &entry.cost {
            let found = truth("cost", cost).and_then(|()| self.sums("cost", &[COST_COLUMN.to_owned()]));
            given.push((cost.span().start, found.map(|()| Quantity::Cost)));
        }
        if let Some(ratio) = &entry.ratio {
            given.push((ratio.span().start, self.ratio(ratio.get_ref())));
        }
        if let Some(quantiles) = &entry.quantiles {
            let name = quantiles.get_ref().clone();
            let found = self.measure("quantiles", &name, |measure| measure.distribution);
            given.push((quantiles.span().start, found.map(|_| Quantity::Quantiles(name))));
        }
        let (at, found) = match given.len() {
            1 => given.swap_remove(0),
            0 => (entry.name.span().start, Err(("name", format!("it computes nothing; give one of {QUANTITIES}")))),
            _ => (given[1].0, Err(("name", format!("it computes more than one thing; give one of {QUANTITIES}")))),
        };
        found.map_err(|wrong| (at, wrong))
    }

    fn ratio(&self, given: &Value) -> Result<Quantity, Wrong> {
        let table = match given {
            Value::String(text) => {
                let numerator = self.condition("ratio", text)?;
                return Ok(Quantity::Counts { numerator, denominator: None });
            }
            Value::Table(table) => table,
            _ => return Err(("ratio", RATIO.to_owned())),
        };
        if let Some(unknown) = table.keys().find(|key| !["count", "sum", "of"].contains(&key.as_str())) {
            return Err(("ratio", format!("unknown key {unknown}; {RATIO}")));
        }
        match (table.get("count"), table.get("sum"), table.get("of")) {
            (Some(Value::String(count)), None, Some(Value::String(of))) => Ok(Quantity::Counts {
                numerator: self.condition("ratio", count)?,
                denominator: Some(self.condition("ratio", of)?),
            }),
            (None, Some(sum), Some(of)) => {
                let (numerator, denominator) = (names(sum)?, names(of)?);
                self.sums("ratio", &numerator)?;
                self.sums("ratio", &denominator)?;
                Ok(Quantity::Sums { numerator, denominator })
            }
            _ => Err(("ratio", RATIO.to_owned())),
        }
    }

    fn condition(&self, key: &'static str, text: &str) -> Result<Condition, Wrong> {
        let check = |name: &str, values: &[String]| {
            self.dimension(key, name).map_err(|(_, what)| what)?;
            self.values(name, values)
        };
        Condition::parse(text, &check).map_err(|error| (key, error.to_string()))
    }

    fn dimension(&self, key: &'static str, name: &str) -> Result<(), Wrong> {
        if self.rollup.by.iter().any(|by| by.name == name) {
            return Ok(());
        }
        let known: Vec<&str> = self.rollup.by.iter().map(|by| by.name.as_str()).collect();
        let known = one_of(name, &known, "it has none");
        Err((
            key,
            format!("the rollup {} has no dimension {name:?}; {known}, or add it to the rollup", self.rollup.name),
        ))
    }

    /// A value that an enum never has is a slip of the pen.
    fn values(&self, name: &str, values: &[String]) -> Result<(), String> {
        let event = &self.types[self.rollup.event];
        let Some(field) = event.fields.iter().find(|field| field.name == name) else { return Ok(()) };
        let Kind::Enum(symbols) = &field.kind else { return Ok(()) };
        let nullable = field.null_branch.is_some();
        let occurs = |value: &String| symbols.contains(value) || (nullable && value.is_empty());
        match values.iter().find(|value| !occurs(value)) {
            None => Ok(()),
            Some(value) => {
                let known: Vec<&str> = symbols.iter().map(String::as_str).collect();
                Err(format!("{name} is never '{value}'; {}", one_of(value, &known, "it has no symbols")))
            }
        }
    }

    /// Checks that the rollup has the sums of these measures, and that they can be added to each other.
    fn sums(&self, key: &'static str, names: &[String]) -> Result<(), Wrong> {
        let mut number = None;
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                return Err((key, format!("{name} stands there twice; take one away")));
            }
            let measure = self.measure(key, name, |measure| measure.sum)?;
            if *number.get_or_insert(measure.number) != measure.number {
                return Err((key, format!("{name} is not the kind of number that {} is; sum one kind", names[0])));
            }
        }
        if names.is_empty() { Err((key, "it is empty; name a number".to_owned())) } else { Ok(()) }
    }

    fn measure(&self, key: &'static str, name: &str, has: fn(&Measure) -> bool) -> Result<&Measure, Wrong> {
        if let Some(measure) = self.rollup.measures.iter().find(|measure| measure.name == name && has(measure)) {
            return Ok(measure);
        }
        let what = if key == "quantiles" { "distribution" } else { "sum" };
        let known: Vec<&str> = self.rollup.measures.iter().filter(|m| has(m)).map(|m| m.name.as_str()).collect();
        let known = one_of(name, &known, "it has none");
        let rollup = &self.rollup.name;
        Err((key, format!("the rollup {rollup} has no {what} of {name:?}; {known}, or add it to the rollup's {what}")))
    }
}

fn truth(key: &'static str, given: &Spanned<bool>) -> Result<(), Wrong> {
    if *given.get_ref() { Ok(()) } else { Err((key, "it can only be true; leave it out otherwise".to_owned())) }
}

fn names(given: &Value) -> Result<Vec<String>, Wrong> {
    let names: Result<NameOrNames, _> = given.clone().try_into();
    names.map(NameOrNames::into_vec).map_err(|_| ("ratio", RATIO.to_owned()))
}

#[cfg(test)]
mod tests;
