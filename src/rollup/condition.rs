//! Conditions over a rollup's dimensions: which of its series a metric looks at.
//!
//! ```text
//! or         = and { "or" and }
//! and        = unary { "and" unary }
//! unary      = "not" unary | "(" or ")" | comparison
//! comparison = dimension ( "=" | "!=" ) text  |  dimension [ "not" ] "in" "(" text { "," text } ")"
//! text       = "'" … "'"          '' stands for one '
//! ```
//!
//! Dimensions are texts, so there is nothing to compare but texts; words may be written in capitals. A language of our own
//! because what a pack says is checked before anything runs: every name is a dimension of the rollup, every text that is
//! compared with an enum is one of its symbols, and no statement can be smuggled in.

mod lexer;

use lexer::{Token, tokens};

/// What holds of a series or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The dimension has one of these values; written with `=` or `in`.
    In {
        /// The dimension's name.
        dimension: String,
        /// The values, at least one.
        values: Vec<String>,
    },
    /// Not that.
    Not(Box<Condition>),
    /// All of these.
    And(Vec<Condition>),
    /// At least one of these.
    Or(Vec<Condition>),
}

/// What is wrong with a condition, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at} of {text:?}: {what}")]
pub struct ConditionError {
    /// The condition as written.
    pub text: String,
    /// The character that it is about, from 1.
    pub at: usize,
    /// What is wrong, and what to write instead.
    pub what: String,
}

/// How deep conditions may be nested: each level is a call.
const DEPTH: usize = 50;

impl Condition {
    /// Reads a condition. `check` is asked of each comparison whether its dimension and values exist, and answers what is
    /// wrong with them.
    ///
    /// # Errors
    /// The first thing that is wrong, with its position and a remedy.
    pub fn parse(text: &str, check: &Check<'_>) -> Result<Condition, ConditionError> {
        let fail = |(at, what): Wrong| ConditionError { text: text.to_owned(), at: at + 1, what };
        let tokens = tokens(text).map_err(fail)?;
        let mut parser = Parser { tokens: &tokens, next: 0, end: text.chars().count(), check, depth: 0 };
        let condition = parser.or().map_err(fail)?;
        match parser.peek() {
            None => Ok(condition),
            Some(_) => Err(fail(parser.expected("`and`, `or` or the end"))),
        }
    }

    /// Whether it holds where `value` answers the value of a dimension.
    pub fn holds<'a>(&self, value: &dyn Fn(&str) -> &'a str) -> bool {
        match self {
            Condition::In { dimension, values } => {
                let found = value(dimension);
                values.iter().any(|value| value == found)
            }
            Condition::Not(inner) => !inner.holds(value),
            Condition::And(all) => all.iter().all(|one| one.holds(value)),
            Condition::Or(all) => all.iter().any(|one| one.holds(value)),
        }
    }

    /// The dimensions that it looks at.
    pub fn dimensions(&self) -> Vec<&str> {
        match self {
            Condition::In { dimension, .. } => vec![dimension],
            Condition::Not(inner) => inner.dimensions(),
            Condition::And(all) | Condition::Or(all) => all.iter().flat_map(Condition::dimensions).collect(),
        }
    }
}

/// Says what is wrong with a dimension and the values that it is compared with.
pub type Check<'a> = dyn Fn(&str, &[String]) -> Result<(), String> + 'a;

/// A position, from 0, and what is wrong there.
type Wrong = (usize, String);

struct Parser<'a> {
    tokens: &'a [(usize, Token)],
    next: usize,
    /// Where the text ends.
    end: usize,
    check: &'a Check<'a>,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn expected(&self, what: &str) -> Wrong {
        let found = self.peek().map_or_else(|| "the end".to_owned(), Token::shown);
        (self.at(), format!("expected {what}, found {found}"))
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn or(&mut self) -> Result<Condition, Wrong> {
        let first = self.and()?;
        let mut all = vec![first];
        while self.take(&Token::Or) {
            all.push(self.and()?);
        }
        Ok(if all.len() == 1 { all.swap_remove(0) } else { Condition::Or(all) })
    }

    fn and(&mut self) -> Result<Condition, Wrong> {
        let first = self.unary()?;
        let mut all = vec![first];
        while self.take(&Token::And) {
            all.push(self.unary()?);
        }
        Ok(if all.len() == 1 { all.swap_remove(0) } else { Condition::And(all) })
    }

    fn unary(&mut self) -> Result<Condition, Wrong> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err((self.at(), format!("nested more than {DEPTH} levels deep; write it flatter")));
        }
        let condition = if self.take(&Token::Not) {
            Condition::Not(Box::new(self.unary()?))
        } else if self.take(&Token::Open) {
            let inner = self.or()?;
            if !self.take(&Token::Close) {
                return Err(self.expected("`and`, `or` or `)`"));
            }
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn comparison(&mut self) -> Result<Condition, Wrong> {
        let at = self.at();
        let Some(Token::Name(dimension)) = self.peek() else {
            return Err(self.expected("a dimension, `not` or `(`"));
        };
        let dimension = dimension.clone();
        self.next += 1;
        let (negated, values) = if self.take(&Token::Equal) {
            (false, vec![self.text()?])
        } else if self.take(&Token::NotEqual) {
            (true, vec![self.text()?])
        } else {
            let negated = self.take(&Token::Not);
            if !self.take(&Token::In) {
                return Err(self.expected(if negated { "`in`" } else { "`=`, `!=`, `in` or `not in`" }));
            }
            (negated, self.list()?)
        };
        (self.check)(&dimension, &values).map_err(|what| (at, what))?;
        let condition = Condition::In { dimension, values };
        Ok(if negated { Condition::Not(Box::new(condition)) } else { condition })
    }

    fn list(&mut self) -> Result<Vec<String>, Wrong> {
        if !self.take(&Token::Open) {
            return Err(self.expected("`(` and a list of texts"));
        }
        let mut values = vec![self.text()?];
        while self.take(&Token::Comma) {
            values.push(self.text()?);
        }
        if self.take(&Token::Close) { Ok(values) } else { Err(self.expected("`,` or `)`")) }
    }

    fn text(&mut self) -> Result<String, Wrong> {
        match self.peek() {
            Some(Token::Text(text)) => {
                let text = text.clone();
                self.next += 1;
                Ok(text)
            }
            _ => Err(self.expected("a text between single quotes")),
        }
    }
}

#[cfg(test)]
mod tests;
