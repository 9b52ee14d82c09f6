//! The sentence of a message: a text with places for what is known when it is sent.

/// A text with places such as `{app}` or `{value}`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(String),
}

/// Places that a rule's messages fill, beside its dimensions.
pub const PLACES: [&str; 7] = ["rule", "state", "value", "threshold", "samples", "window", "severity"];

/// Places that a budget's messages fill, beside its dimensions.
pub const BUDGET_PLACES: [&str; 8] = ["rule", "state", "level", "percent", "threshold", "spent", "amount", "overshoot"];

impl Template {
    /// Reads a template; `dimensions` are the rule's, `places` those that its messages fill beside.
    ///
    /// # Errors
    /// A place is unknown, or a brace has no partner.
    pub fn parse(text: &str, dimensions: &[String], places: &[&str]) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, at) = rest.split_at(open);
            parts.push(Part::Text(before.to_owned()));
            let Some((place, after)) = at.strip_prefix('{').and_then(|inside| inside.split_once('}')) else {
                return Err(format!("a brace has no partner in {text:?}; write places as {{value}}"));
            };
            if !places.contains(&place) && !dimensions.iter().any(|name| name == place) {
                let known: Vec<&str> = dimensions.iter().map(String::as_str).chain(places.iter().copied()).collect();
                return Err(format!("there is no {{{place}}} to fill in; use one of {}", known.join(", ")));
            }
            parts.push(Part::Place(place.to_owned()));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Template { parts })
    }

    /// The sentence. `fill` answers what stands in a place: what comes from events is not read as a template again, and
    /// what a terminal or a mail would obey stands there as �.
    pub fn render(&self, fill: impl Fn(&str) -> Option<String>) -> String {
        let shown = |letter: char| if letter.is_control() || is_invisible(letter) { '\u{FFFD}' } else { letter };
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Place(place) => fill(place).map_or_else(|| "?".to_owned(), |text| text.chars().map(shown).collect()),
        };
        self.parts.iter().map(part).collect()
    }
}

/// Line and paragraph separators, and marks that turn the direction of what follows.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// A number as a sentence says it: at most four digits that matter.
pub fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let decimals = (3 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fills_places_and_refuses_unknown_ones() {
        let dimensions = ["app".to_owned()];
        let template = Template::parse("{app}: {value} > {threshold}", &dimensions, &PLACES).unwrap();
        let fill = |place: &str| match place {
            "app" => Some("zest".to_owned()),
            "value" => Some(number(0.123_456)),
            _ => None,
        };
        assert_eq!(template.render(fill), "zest: 0.1235 > ?");
        assert_eq!(Template::parse("", &[], &PLACES).unwrap().render(|_| None), "");
        let error = Template::parse("{modle}", &dimensions, &PLACES).unwrap_err();
        assert!(error.starts_with("there is no {modle} to fill in; use one of app, rule"), "{error}");
        for text in ["{app", "app}", "{", "{app}}"] {
            assert!(
                Template::parse(text, &dimensions, &PLACES).unwrap_err().starts_with("a brace has no partner"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_events_say_is_text_and_nothing_else() {
        let template = Template::parse("{app} is slow", &["app".to_owned()], &PLACES).unwrap();
        for (app, shown) in [
            ("{value}", "{value} is slow"),
            ("a\nFIRING: b", "a\u{FFFD}FIRING: b is slow"),
            ("\u{1b}[2J", "\u{FFFD}[2J is slow"),
            ("\u{202e}tset", "\u{FFFD}tset is slow"),
            ("Bäckerei 東京", "Bäckerei 東京 is slow"),
        ] {
            assert_eq!(template.render(|_| Some(app.to_owned())), shown);
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [(0.0, "0"), (0.05, "0.05"), (812.345_6, "812.3"), (123_456.7, "123457"), (-2.5, "-2.5")] {
            assert_eq!(number(value), text);
        }
    }
}
