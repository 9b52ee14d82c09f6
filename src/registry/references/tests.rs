//! Assembled schemas against the Avro library, which is given the same texts apart.

use apache_avro::Schema;

use super::*;

fn reference(name: &str) -> Reference {
    Reference { name: name.to_owned(), subject: format!("{name}-value"), version: 1 }
}

fn assembled(schema: &str, others: &[(&str, &str)]) -> Result<String, String> {
    let others: Vec<_> = others.iter().map(|(name, text)| (reference(name), *text)).collect();
    assemble(schema, others.iter().map(|(reference, text)| (reference, *text)))
}

const MONEY: &str = r#"{"type": "record", "name": "Money", "namespace": "pay", "fields": [
    {"name": "amount", "type": "long"}, {"name": "currency", "type": "Currency"}]}"#;
const CURRENCY: &str = r#"{"type": "enum", "name": "pay.Currency", "symbols": ["EUR", "USD"]}"#;
const ORDER: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "total", "type": "pay.Money", "highwater": {"role": "measure"}},
    {"name": "tax", "type": ["null", "pay.Money"], "default": null},
    {"name": "parts", "type": {"type": "array", "items": "pay.Money"}},
    {"name": "bags", "type": {"type": "map", "values": {"type": "record", "name": "Bag", "fields": [
        {"name": "size", "type": "int"}, {"name": "in", "type": "pay.Currency"}]}}},
    {"name": "spare", "type": "Bag"}]}"#;

/// The library reads each text in the order of its use; what both call canonical must be the same.
fn same_as_in_one_piece(whole: &str, in_one_piece: &str) {
    let canonical =
        |text: &str| Schema::parse_str(text).unwrap_or_else(|error| panic!("{error}: {text}")).canonical_form();
    assert_eq!(canonical(whole), canonical(in_one_piece));
}

#[test]
fn each_type_is_put_in_where_it_is_used_first() {
    let whole = assembled(ORDER, &[("pay.Money", MONEY), ("pay.Currency", CURRENCY)]).unwrap();
    let currency = r#"{"type": "enum", "name": "pay.Currency", "symbols": ["EUR", "USD"]}"#;
    let money = format!(
        r#"{{"type": "record", "name": "pay.Money", "fields": [
        {{"name": "amount", "type": "long"}}, {{"name": "currency", "type": {currency}}}]}}"#
    );
    same_as_in_one_piece(&whole, &ORDER.replacen("\"pay.Money\"", &money, 1));
    // What Avro does not know stays where it stood.
    assert!(whole.contains(r#""highwater":{"role":"measure"}"#), "{whole}");
    // The order in which they are named says nothing, and what is not used is left out.
    let unused = ("pay.Unused", r#"{"type": "fixed", "name": "pay.Unused", "size": 3}"#);
    let again = assembled(ORDER, &[unused, ("pay.Currency", CURRENCY), ("pay.Money", MONEY)]).unwrap();
    assert_eq!(whole, again);
}

#[test]
fn names_mean_what_they_meant_in_their_own_text() {
    // No namespace around the one, another around the other; `Point` means two types.
    let bare = r#"{"type": "record", "name": "Shape", "fields": [{"name": "at", "type":
        {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}]}}, {"name": "to", "type": "Point"}]}"#;
    let other = r#"{"type": "record", "name": "geo.Point", "fields": [{"name": "next", "type": ["null", "Point"]}]}"#;
    let root = r#"{"type": "record", "name": "app.Event", "fields": [
        {"name": "a", "type": "geo.Point"}, {"name": "b", "type": "geo.Point"}, {"name": "c", "type": "Mine"}]}"#;
    let mine =
        r#"{"type": "record", "name": "Mine", "namespace": "app", "fields": [{"name": "p", "type": "geo.Point"}]}"#;
    let whole = assembled(root, &[("geo.Point", other), ("app.Mine", mine), ("Shape", bare)]).unwrap();
    let point =
        r#"{"type": "record", "name": "geo.Point", "fields": [{"name": "next", "type": ["null", "geo.Point"]}]}"#;
    let mine = r#"{"type": "record", "name": "app.Mine", "fields": [{"name": "p", "type": "geo.Point"}]}"#;
    let in_one = format!(
        r#"{{"type": "record", "name": "app.Event", "fields": [
        {{"name": "a", "type": {point}}}, {{"name": "b", "type": "geo.Point"}}, {{"name": "c", "type": {mine}}}]}}"#
    );
    same_as_in_one_piece(&whole, &in_one);
    // From within no namespace.
    let root = r#"{"type": "record", "name": "Event", "fields": [{"name": "a", "type": ["null", "Shape"]}]}"#;
    let whole = assembled(root, &[("Shape", bare)]).unwrap();
    same_as_in_one_piece(&whole, &root.replace("\"Shape\"", bare));
    // A type that stands within another one that is used later.
    let root = r#"{"type": "record", "name": "Event", "fields": [{"name": "a", "type": "Point"}, {"name": "b", "type": "Shape"}]}"#;
    let whole = assembled(root, &[("Shape", bare)]).unwrap();
    let point = r#"{"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}]}"#;
    let shape = r#"{"type": "record", "name": "Shape", "fields": [{"name": "at", "type": "Point"}, {"name": "to", "type": "Point"}]}"#;
    same_as_in_one_piece(&whole, &root.replace("\"Point\"", point).replace("\"Shape\"", shape));
}

#[test]
fn a_schema_may_be_nothing_but_a_name() {
    let whole = assembled("\"pay.Money\"", &[("pay.Money", MONEY), ("pay.Currency", CURRENCY)]).unwrap();
    same_as_in_one_piece(&whole, &MONEY.replace("\"Currency\"", CURRENCY));
}

#[test]
fn what_can_t_be_put_together_is_told() {
    for (schema, others, part) in [
        (ORDER, vec![("pay.Money", "{")], "`pay.Money` (subject pay.Money-value, version 1)"),
        ("{", vec![("pay.Money", MONEY)], "it is not JSON"),
        (ORDER, vec![("a", CURRENCY), ("b", r#"{"type": "fixed", "name": "pay.Currency", "size": 1}"#)], "differently"),
        (ORDER, vec![("shop.Bag", r#"{"type": "fixed", "name": "shop.Bag", "size": 1}"#)], "shop.Bag"),
    ] {
        let why = assembled(schema, &others).unwrap_err();
        assert!(why.contains(part), "{why}");
    }
    // The same type twice, alike, is one. A type that nobody defines is the reader's to tell.
    assembled(ORDER, &[("a", CURRENCY), ("b", CURRENCY), ("c", MONEY)]).unwrap();
    let whole = assembled(ORDER, &[("pay.Currency", CURRENCY)]).unwrap();
    assert!(Schema::parse_str(&whole).unwrap_err().to_string().contains("pay.Money"));
}

#[test]
fn circles_end_and_depth_is_bounded() {
    let a = r#"{"type": "record", "name": "A", "fields": [{"name": "b", "type": ["null", "B"]}]}"#;
    let b = r#"{"type": "record", "name": "B", "fields": [{"name": "a", "type": ["null", "A"]}]}"#;
    let root = r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "A"}]}"#;
    let whole = assembled(root, &[("A", a), ("B", b)]).unwrap();
    same_as_in_one_piece(&whole, &root.replace("\"A\"", &a.replace("\"B\"", b)));

    let chain: Vec<(String, String)> = (0..MOST)
        .map(|at| {
            let inner =
                format!(r#"{{"type": "record", "name": "T{at}", "fields": [{{"name": "x", "type": "T{}"}}]}}"#, at + 1);
            (format!("T{at}"), inner)
        })
        .collect();
    let chain: Vec<(&str, &str)> = chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert!(assembled("\"T0\"", &chain).unwrap_err().contains("types deep"));
    // Each text in it twice: as many texts as there are, and no more.
    let wide: Vec<(String, String)> = (0..40)
        .map(|at| {
            let next = at + 1;
            let fields = format!(r#"{{"name": "x", "type": "T{next}"}}, {{"name": "y", "type": "T{next}"}}"#);
            (format!("T{at}"), format!(r#"{{"type": "record", "name": "T{at}", "fields": [{fields}]}}"#))
        })
        .collect();
    let length: usize = wide.iter().map(|(_, text)| text.len()).sum();
    let wide: Vec<(&str, &str)> = wide.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert!(assembled("\"T0\"", &wide).unwrap().len() < 2 * length);
}
