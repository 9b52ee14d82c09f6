#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

fn check(dimension: &str, values: &[String]) -> Result<(), String> {
    match dimension {
        "outcome" if values.iter().any(|value| value == "hti") => Err("no symbol 'hti'".to_owned()),
        "outcome" | "app" | "in_app" => Ok(()),
        other => Err(format!("no dimension {other}")),
    }
}

fn is(dimension: &str, values: &[&str]) -> Condition {
    Condition::In { dimension: dimension.to_owned(), values: values.iter().map(|value| (*value).to_owned()).collect() }
}

fn not(condition: Condition) -> Condition {
    Condition::Not(Box::new(condition))
}

#[test]
fn and_binds_tighter_than_or_and_not_tightest() {
    let parsed = |text: &str| Condition::parse(text, &check).unwrap();
    let hit = || is("outcome", &["hit"]);
    let (a, b) = (|| is("app", &["a"]), || is("app", &["b"]));
    assert_eq!(parsed("outcome = 'hit'"), hit());
    assert_eq!(parsed(" outcome!='hit' "), not(hit()));
    assert_eq!(parsed("outcome IN ('hit','stale')"), is("outcome", &["hit", "stale"]));
    assert_eq!(parsed("outcome not in ( 'hit' )"), not(hit()));
    let both = Condition::And(vec![not(hit()), a()]);
    assert_eq!(parsed("not outcome = 'hit' and app = 'a' OR app = 'b'"), Condition::Or(vec![both, b()]));
    let either = Condition::Or(vec![a(), b()]);
    assert_eq!(parsed("not (app='a' or app='b') AND outcome='hit'"), Condition::And(vec![not(either), hit()]));
    assert_eq!(parsed("app='a' and app='b' and outcome='hit'"), Condition::And(vec![a(), b(), hit()]));
    assert_eq!(parsed("in_app = ''"), is("in_app", &[""]), "a name may begin like a word, and a text be empty");
    assert_eq!(parsed("app = 'it''s \\ ünï'"), is("app", &["it's \\ ünï"]));
    assert_eq!(parsed("outcome='hit' or not app != 'a'").dimensions(), ["outcome", "app"]);
}

#[test]
fn errors_say_where_and_what_to_write() {
    for (text, at, what) in [
        ("", 1, "expected a dimension, `not` or `(`, found the end"),
        ("   ", 4, "expected a dimension"),
        ("outcome", 8, "expected `=`, `!=`, `in` or `not in`, found the end"),
        ("outcome = ", 11, "expected a text between single quotes, found the end"),
        ("outcome = hit", 11, "expected a text between single quotes, found `hit`"),
        ("outcome == 'hit'", 9, "write = with one sign"),
        ("outcome = \"hit\"", 11, "texts stand between single quotes"),
        ("outcome = 'hit", 11, "the text that begins here has no closing '"),
        ("outcome = 'it''s", 11, "has no closing"),
        ("app = 4", 7, "write numbers between single quotes"),
        ("app > 'a'", 5, "only equal or not"),
        ("app ! 'a'", 5, "`!` means nothing here"),
        ("app = 'a'; DROP TABLE x", 10, "`;` means nothing here"),
        ("ünï = 'a'", 1, "`ü` means nothing here"),
        ("app = 'é' app = 'b'", 11, "expected `and`, `or` or the end, found `app`"),
        ("app = 'a' and", 14, "expected a dimension"),
        ("or app = 'a'", 1, "expected a dimension, `not` or `(`, found `or`"),
        ("(app = 'a'", 11, "expected `and`, `or` or `)`, found the end"),
        ("app = 'a')", 10, "expected `and`, `or` or the end, found `)`"),
        ("app in 'a'", 8, "expected `(` and a list of texts"),
        ("app in ()", 9, "expected a text"),
        ("app in ('a' 'b')", 13, "expected `,` or `)`, found 'b'"),
        ("app in ('a',)", 13, "expected a text"),
        ("app not = 'a'", 9, "expected `in`, found `=`"),
        ("app = 'a' and colour = 'b'", 15, "no dimension colour"),
        ("app='a' and outcome in ('hit', 'hti')", 13, "no symbol 'hti'"),
    ] {
        let error = match Condition::parse(text, &check) {
            Err(error) => error,
            Ok(condition) => panic!("{text} was read as {condition:?}"),
        };
        assert_eq!((error.at, error.text.as_str()), (at, text), "{error}");
        assert!(error.what.contains(what), "{what} not in {error}");
    }
    let deep = "(".repeat(1_000);
    assert!(Condition::parse(&deep, &check).is_err_and(|error| error.what.contains("50 levels")));
    let nots = format!("{}app = 'a'", "not ".repeat(1_000));
    assert!(Condition::parse(&nots, &check).is_err());
}
