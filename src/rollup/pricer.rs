//! A price list compiled for one event type: fills its column `cost_usd`.

use super::price::PriceList;
use crate::columns::{Column, Columns, Values};
use crate::event::{EventType, Price};

/// Prices the events of one type. A model is looked up by its name for each event: dictionaries differ from batch to
/// batch, and a look-up costs a hundredth of what an event does.
#[derive(Debug, Clone)]
pub struct Pricer {
    list: PriceList,
    /// Position of the column that names the model.
    model: usize,
    /// Positions of the columns that count tokens.
    tokens: Vec<(Price, usize)>,
    /// Position of `cost_usd`.
    cost: usize,
}

impl Pricer {
    /// For events of a type; `None` where the type is not priced.
    pub fn new(list: &PriceList, event: &EventType) -> Option<Pricer> {
        if !event.is_priced() {
            return None;
        }
        let prices = event.fields.iter().zip(0..).filter_map(|(field, column)| Some((field.price?, column)));
        let (models, tokens): (Vec<_>, Vec<_>) = prices.partition(|(price, _)| *price == Price::Model);
        let (_, model) = *models.first()?;
        Some(Pricer { list: list.clone(), model, tokens, cost: event.fields.len() })
    }

    /// Appends the cost of the last row, whose other fields are there already, to `cost_usd`; null where it is unpriced.
    /// `at_micros` is the event's time in microseconds since 1970, UTC.
    ///
    /// Beside the cases of [`PriceList::cost`] a null count of input or output tokens makes a row unpriced, as every call
    /// has both; a null count of cached tokens is none, as not every provider has a cache.
    pub fn push_cost(&self, columns: &mut Columns, at_micros: i64) {
        let cost = self.cost_of(columns, columns.columns[self.cost].len(), at_micros);
        let Column { values, nulls, .. } = &mut columns.columns[self.cost];
        if let Values::Int128(values) = values {
            values.push(cost.unwrap_or(0));
        }
        if let Some(nulls) = nulls {
            nulls.push(u8::from(cost.is_none()));
        }
    }

    fn cost_of(&self, columns: &Columns, row: usize, at_micros: i64) -> Option<i128> {
        let Values::LowCardinality(models) = &columns.columns[self.model].values else {
            return None;
        };
        let model = self.list.model(models.get(row))?;
        let mut counts = [(Price::Input, 0); 4];
        for (slot, &(price, column)) in counts.iter_mut().zip(&self.tokens) {
            let column = &columns.columns[column];
            let count = match (&column.values, column.is_null(row), price) {
                (_, true, Price::CacheRead | Price::CacheWrite) => 0,
                (_, true, _) => return None,
                (Values::Int32(values), ..) => i64::from(*values.get(row)?),
                (Values::Int64(values), ..) => *values.get(row)?,
                _ => return None,
            };
            *slot = (price, count);
        }
        self.list.cost_at(model, at_micros, &counts)
    }
}

#[cfg(test)]
mod tests;
