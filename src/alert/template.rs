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

/// Places that every message fills, beside its dimensions.
pub const PLACES: [&str; 7] = ["rule", "state", "value", "threshold", "samples", "window", "level"];

impl Template {
    /// Reads a template; `dimensions` are the rule's.
    ///
    /// # Errors
    /// A place is unknown, or a brace has no partner.
    pub fn parse(text: &str, dimensions: &[String]) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, at) = rest.split_at(open);
            parts.push(Part::Text(before.to_owned()));
            let Some((place, after)) = at.strip_prefix('{').and_then(|inside| inside.split_once('}')) else {
                return Err(format!("a brace has no partner in {text:?}; write places as {{value}}"));
            };
            if !PLACES.contains(&place) && !dimensions.iter().any(|name| name == place) {
                let known: Vec<&str> = dimensions.iter().map(String::as_str).chain(PLACES).collect();
                return Err(format!("there is no {{{place}}} to fill in; use one of {}", known.join(", ")));
            }
            parts.push(Part::Place(place.to_owned()));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Template { parts })
    }

    /// The sentence. `fill` answers what stands in a place.
    pub fn render(&self, fill: impl Fn(&str) -> Option<String>) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Place(place) => fill(place).unwrap_or_else(|| "?".to_owned()),
        };
        self.parts.iter().map(part).collect()
    }
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
        let template = Template::parse("{app}: {value} > {threshold}", &dimensions).unwrap();
        let fill = |place: &str| match place {
            "app" => Some("zest".to_owned()),
            "value" => Some(number(0.123_456)),
            _ => None,
        };
        assert_eq!(template.render(fill), "zest: 0.1235 > ?");
        assert_eq!(Template::parse("", &[]).unwrap().render(|_| None), "");
        let error = Template::parse("{modle}", &dimensions).unwrap_err();
        assert!(error.starts_with("there is no {modle} to fill in; use one of app, rule"), "{error}");
        for text in ["{app", "app}", "{", "{app}}"] {
            assert!(Template::parse(text, &dimensions).unwrap_err().starts_with("a brace has no partner"), "{text}");
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [(0.0, "0"), (0.05, "0.05"), (812.345_6, "812.3"), (123_456.7, "123457"), (-2.5, "-2.5")] {
            assert_eq!(number(value), text);
        }
    }
}
