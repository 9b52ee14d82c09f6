use super::super::fixture::{Cell, empty, event, llm_call, push};
use super::*;

/// 2024-10-01, and the new price from 2024-10-02, in microseconds since 1970.
const BEFORE: i64 = 19_997 * 86_400_000_000;
const AFTER: i64 = 19_998 * 86_400_000_000;

fn list() -> PriceList {
    let text = r#"
        currency = "USD"
        [[price]]
        model = "a"
        from = 2024-01-01
        input = "5"
        output = "15"
        [[price]]
        model = "a"
        from = 2024-10-02
        input = "2.5"
        output = "10"
        cache_read = "1.25"
        [[price]]
        model = "b"
        from = 2024-10-02
        input = "1"
        output = "1""#;
    PriceList::parse("prices.toml", text).unwrap_or_default()
}

fn count(tokens: Option<i128>) -> Cell {
    tokens.map_or(Cell::Null, Cell::Integer)
}

fn row(columns: &mut Columns, pricer: &Pricer, at: i64, model: &str, tokens: [Option<i128>; 4]) -> Option<i128> {
    let [input, output, read, write] = tokens.map(count);
    let cells = [
        ("model", Cell::Text(model.to_owned())),
        ("input_tokens", input),
        ("output_tokens", output),
        ("cache_read_tokens", read),
        ("cache_write_tokens", write),
    ];
    push(columns, at, &cells);
    pricer.push_cost(columns, at);
    let cost = &columns.columns[columns.columns.len() - 1];
    assert_eq!(cost.len(), columns.len());
    let Values::Int128(values) = &cost.values else { unreachable!("a decimal") };
    let null = cost.is_null(columns.len() - 1);
    if null { None } else { values.last().copied() }
}

#[test]
fn costs_are_pushed_beside_their_rows() {
    let event = llm_call();
    let (mut columns, list) = (empty(&event), list());
    let Some(pricer) = Pricer::new(&list, &event) else { unreachable!("a priced type") };
    let mut cost = |at, model, tokens| row(&mut columns, &pricer, at, model, tokens);
    let million = 1_000_000;
    assert_eq!(cost(BEFORE, "a", [Some(10), Some(1), None, None]), Some(65 * million));
    assert_eq!(cost(AFTER - 1, "a", [Some(10), Some(1), None, Some(0)]), Some(65 * million));
    assert_eq!(cost(AFTER, "a", [Some(10), Some(1), Some(4), None]), Some(40 * million));
    assert_eq!(cost(BEFORE, "a", [Some(10), Some(1), Some(4), None]), None, "no price for cached tokens then");
    assert_eq!(cost(AFTER, "a", [Some(10), Some(1), None, Some(1)]), None, "no price for that class");
    assert_eq!(cost(BEFORE, "b", [Some(10), Some(1), None, None]), None, "not yet in force");
    assert_eq!(cost(AFTER, "b", [Some(10), Some(1), None, None]), Some(11 * million));
    assert_eq!(cost(AFTER, "c", [Some(10), Some(1), None, None]), None, "unknown model");
    assert_eq!(cost(AFTER, "", [Some(10), Some(1), None, None]), None, "no model");
    assert_eq!(cost(AFTER, "a", [Some(10), None, None, None]), None, "nobody knows how much came out");
    assert_eq!(cost(AFTER, "a", [Some(-10), Some(1), None, None]), None, "negative");
    assert_eq!(cost(AFTER, "a", [Some(0), Some(0), None, None]), Some(0));
}

#[test]
fn every_batch_is_priced_by_its_own_dictionary() {
    let (event, list) = (llm_call(), list());
    let Some(pricer) = Pricer::new(&list, &event) else { unreachable!("a priced type") };
    let mut rng = fastrand::Rng::with_seed(5);
    for batch in 0..40 {
        let mut columns = empty(&event);
        for _ in 0..100 {
            let model = match rng.u32(0..4) {
                0 => "a".to_owned(),
                1 => "b".to_owned(),
                _ => format!("{batch}-{}", rng.u32(0..50)),
            };
            let input = rng.i64(0..1_000_000);
            let found = row(&mut columns, &pricer, AFTER, &model, [Some(input.into()), Some(2), None, None]);
            assert_eq!(found, list.cost(&model, AFTER, &[(Price::Input, input), (Price::Output, 2)]), "{model}");
        }
    }
}

#[test]
fn types_without_prices_have_no_pricer() {
    let unpriced = event("open", r#"{"name": "n", "type": "long", "highwater": {"role": "measure"}}"#);
    assert!(Pricer::new(&list(), &unpriced).is_none());
}

#[test]
fn the_scale_is_that_of_the_column() {
    assert!(crate::event::COST_TYPE.ends_with(&format!("Decimal(38, {}))", super::super::price::COST_SCALE)));
}
