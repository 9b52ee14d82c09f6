//! The words of a condition.

use super::Wrong;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Name(String),
    Text(String),
    Equal,
    NotEqual,
    Open,
    Close,
    Comma,
    And,
    Or,
    Not,
    In,
}

impl Token {
    /// As an error calls it.
    pub(super) fn shown(&self) -> String {
        match self {
            Token::Name(name) => format!("`{name}`"),
            Token::Text(text) => format!("'{text}'"),
            Token::Equal => "`=`".to_owned(),
            Token::NotEqual => "`!=`".to_owned(),
            Token::Open => "`(`".to_owned(),
            Token::Close => "`)`".to_owned(),
            Token::Comma => "`,`".to_owned(),
            Token::And => "`and`".to_owned(),
            Token::Or => "`or`".to_owned(),
            Token::Not => "`not`".to_owned(),
            Token::In => "`in`".to_owned(),
        }
    }
}

/// The tokens of a text with their positions in characters, from 0.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Wrong> {
    let characters: Vec<char> = text.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(&character) = characters.get(at) {
        let rest = &characters[at..];
        let (length, token) = match character {
            space if space.is_whitespace() => {
                at += 1;
                continue;
            }
            '(' => (1, Token::Open),
            ')' => (1, Token::Close),
            ',' => (1, Token::Comma),
            '=' if rest.get(1) == Some(&'=') => return Err((at, "write = with one sign".to_owned())),
            '=' => (1, Token::Equal),
            '!' if rest.get(1) == Some(&'=') => (2, Token::NotEqual),
            '\'' => quoted(rest).ok_or_else(|| (at, "the text that begins here has no closing '".to_owned()))?,
            letter if letter.is_ascii_alphabetic() || letter == '_' => word(rest),
            other => return Err((at, unexpected(other))),
        };
        tokens.push((at, token));
        at += length;
    }
    Ok(tokens)
}

fn unexpected(character: char) -> String {
    match character {
        '"' => "texts stand between single quotes: 'ok'".to_owned(),
        '<' | '>' => "dimensions are texts, which are only equal or not: use =, !=, in".to_owned(),
        '0'..='9' => "dimensions are texts: write numbers between single quotes".to_owned(),
        other => format!("`{other}` means nothing here; use names, =, !=, in, and, or, not, 'texts' and parentheses"),
    }
}

/// A text and how many characters it takes up; `None`: it does not end.
fn quoted(rest: &[char]) -> Option<(usize, Token)> {
    let (mut text, mut at) = (String::new(), 1);
    loop {
        match (rest.get(at)?, rest.get(at + 1)) {
            ('\'', Some('\'')) => {
                text.push('\'');
                at += 2;
            }
            ('\'', _) => return Some((at + 1, Token::Text(text))),
            (&other, _) => {
                text.push(other);
                at += 1;
            }
        }
    }
}

fn word(rest: &[char]) -> (usize, Token) {
    let word: String = rest.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_').collect();
    let token = match word.to_ascii_lowercase().as_str() {
        "and" => Token::And,
        "or" => Token::Or,
        "not" => Token::Not,
        "in" => Token::In,
        _ => Token::Name(word.clone()),
    };
    (word.len(), token)
}
