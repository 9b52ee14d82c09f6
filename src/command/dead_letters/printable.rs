//! Text from outside, for a terminal.

use std::borrow::Cow;

/// The text with each character that a terminal would obey, or be turned round by, as `\\u` and four hexadecimal digits.
///
/// JSON says it the same way, so it may be applied to JSON on one line too.
pub(in crate::command) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_command) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_command(character) {
            true => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// Whether it is a control character, or one that changes the direction or the lines of what follows.
fn is_command(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for (text, shown) in [
            ("", ""),
            ("usage-events: `A` (ünï, 数, \"\\n\")", "usage-events: `A` (ünï, 数, \"\\n\")"),
            ("\x1b]0;title\x07\x1b[2J", "\\u001b]0;title\\u0007\\u001b[2J"),
            ("one\r\ntwo\tthree\0", "one\\u000d\\u000atwo\\u0009three\\u0000"),
            ("\u{7f}\u{9b}2J", "\\u007f\\u009b2J"),
            ("a\u{202e}b\u{2066}c\u{2028}", "a\\u202eb\\u2066c\\u2028"),
        ] {
            assert_eq!(printable(text), shown, "{text:?}");
        }
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let value = serde_json::json!({ "\u{9b}": ["\x1b\u{202e}\n\\u001b", 1] });
        let shown = printable(&value.to_string()).into_owned();
        assert!(!shown.contains(is_command), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
