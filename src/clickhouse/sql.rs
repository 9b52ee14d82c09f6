//! Quoting.

/// An identifier between backquotes.
pub fn ident(name: &str) -> String {
    quoted(name, '`')
}

/// A string literal.
pub fn literal(text: &str) -> String {
    quoted(text, '\'')
}

/// `database.table`, quoted.
pub fn table(database: &str, name: &str) -> String {
    format!("{}.{}", ident(database), ident(name))
}

/// Literals of a list, separated by commas.
pub fn literals<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    texts.into_iter().map(|text| literal(text.as_ref())).collect::<Vec<_>>().join(", ")
}

/// A query string's value, percent-encoded.
pub(crate) fn percent(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for character in text.chars() {
        if character == quote || character == '\\' {
            out.push('\\');
        }
        out.push(character);
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_would_break_out() {
        assert_eq!(ident("a`b\\c"), r"`a\`b\\c`");
        assert_eq!(literal("it's \\ `x`"), r"'it\'s \\ `x`'");
        assert_eq!(table("db", "t"), "`db`.`t`");
        assert_eq!(literals(["a", "b'"]), r"'a', 'b\''");
    }

    #[test]
    fn percent_encodes_everything_but_unreserved() {
        assert_eq!(percent("a b&c=é/~"), "a%20b%26c%3D%C3%A9%2F~");
    }
}
