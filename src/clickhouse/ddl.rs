//! The definition of a table or a view, and the SQL that makes it.

use sha2::{Digest, Sha256};

use super::sql::{ident, literal, table};
use crate::columns::ColumnDef;

/// The last second that a `DateTime` can hold, in 2106.
const LAST_SECOND: u32 = u32::MAX;

/// A column as a table declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSql {
    /// Name, type and comment.
    pub def: ColumnDef,
    /// `CODEC(…)` or `DEFAULT …`, if any.
    pub extra: &'static str,
}

impl ColumnSql {
    /// A column with nothing special.
    pub fn plain(def: ColumnDef) -> ColumnSql {
        ColumnSql { def, extra: "" }
    }

    /// A column of highwater's own.
    pub fn new(name: &str, clickhouse_type: &str, comment: &str) -> ColumnSql {
        let (name, clickhouse_type, comment) = (name.to_owned(), clickhouse_type.to_owned(), comment.to_owned());
        ColumnSql::plain(ColumnDef { name, clickhouse_type, comment })
    }

    /// The same with a codec or a default.
    #[must_use]
    pub fn with(mut self, extra: &'static str) -> ColumnSql {
        self.extra = extra;
        self
    }

    /// Its declaration.
    pub fn sql(&self) -> String {
        let ColumnDef { name, clickhouse_type, comment } = &self.def;
        // ClickHouse wants a default before the comment and a codec behind it.
        let (default, codec) = if self.extra.starts_with("DEFAULT") { (self.extra, "") } else { ("", self.extra) };
        let comment = format!("COMMENT {}", literal(comment));
        let words = [ident(name), clickhouse_type.clone(), default.to_owned(), comment, codec.to_owned()];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// A table of the MergeTree family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDef {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub comment: String,
    /// Its columns in order.
    pub columns: Vec<ColumnSql>,
    /// Indices and projections, as declared.
    pub extras: Vec<String>,
    /// Its engine, without parameters.
    pub engine: &'static str,
    /// The time column by whose month (UTC) it is partitioned; `None`: it is not.
    pub month_of: Option<String>,
    /// Its sorting key.
    pub order_by: Vec<String>,
    /// The time column from which on rows are kept; `None`: they never expire.
    pub kept_from: Option<String>,
    /// Days that rows are kept; 0: for ever.
    pub keep_days: u32,
    /// Tokens remembered, counted in parts; 0 for tables that take inserts without a token.
    pub token_window: u64,
    /// Whether rows that carry a source are marks, which outlive what they mark: a mark that fell would let a block in
    /// twice.
    pub keeps_markers: bool,
}

/// Bytes from which on a part has files of its own for each column. By ClickHouse's default of 10 MiB each insert of a full
/// batch would make dozens of them, which is half of what it costs; larger parts come of merges, and are read by column.
pub const WIDE_FROM: u64 = 128 << 20;

impl TableDef {
    /// `toYYYYMM` of its time column, if it is partitioned.
    pub fn month(&self) -> Option<String> {
        self.month_of.as_deref().map(month)
    }

    /// The TTL expression, in the form that ClickHouse shows it in; `None`: rows never expire.
    pub fn ttl(&self) -> Option<String> {
        let column = self.kept_from.as_ref().filter(|_| self.keep_days > 0)?;
        let seconds = u64::from(self.keep_days) * 86_400;
        // A sum past what a DateTime can hold (2106) would wrap around and expire at once.
        let all = format!("toDateTime(least(toUnixTimestamp({column}) + {seconds}, {LAST_SECOND}))");
        Some(if self.keeps_markers { format!("{all} WHERE _source = ''") } else { all })
    }

    /// Whether a table with the TTL `found` drops rows sooner than this one, or by a rule that is not ours.
    pub fn keeps_longer_than(&self, found: &str) -> bool {
        let Some(wanted) = self.ttl() else { return true };
        let (head, tail) = wanted.split_once(" + ").unwrap_or_default();
        let (seconds, tail) = tail.split_once(',').unwrap_or_default();
        let of_ours =
            found.strip_prefix(head).and_then(|rest| rest.strip_prefix(" + ")?.strip_suffix(tail)?.strip_suffix(','));
        let parse = |text: &str| text.parse::<u64>().ok();
        match (of_ours.and_then(parse), parse(seconds)) {
            (Some(found), Some(wanted)) => found < wanted,
            _ => true,
        }
    }

    /// The statement that makes it where it is missing.
    pub fn create(&self, database: &str) -> String {
        let columns = self.columns.iter().map(ColumnSql::sql).chain(self.extras.iter().cloned());
        let columns: Vec<String> = columns.map(|line| format!("    {line}")).collect();
        let order: Vec<String> = self.order_by.iter().map(|column| ident(column)).collect();
        let mut sql = format!(
            "CREATE TABLE IF NOT EXISTS {} (\n{}\n)\nENGINE = {}\n",
            table(database, &self.name),
            columns.join(",\n"),
            self.engine
        );
        if let Some(month) = self.month() {
            sql.push_str(&format!("PARTITION BY {month}\n"));
        }
        sql.push_str(&format!("ORDER BY ({})\n", order.join(", ")));
        if let Some(ttl) = self.ttl() {
            sql.push_str(&format!("TTL {ttl}\n"));
        }
        if self.token_window > 0 {
            sql.push_str(&format!(
                "SETTINGS non_replicated_deduplication_window = {}, min_bytes_for_wide_part = {WIDE_FROM}\n",
                self.token_window
            ));
        }
        sql.push_str(&format!("COMMENT {}", literal(&self.comment)));
        sql
    }
}

/// The month of a time column, in UTC whatever the server's time zone is.
pub fn month(time_column: &str) -> String {
    format!("toYYYYMM({}, 'UTC')", ident(time_column))
}

/// A view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewDef {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub comment: String,
    /// Its query.
    pub select: String,
    /// Earlier versions of the table that it reads: the view that is to read each from then on, and the table.
    pub formers: Vec<(String, String)>,
}

impl ViewDef {
    /// Its comment with a hash of its query: ClickHouse rewrites a view's query, so this is how a changed one is known.
    pub fn signed_comment(&self) -> String {
        let hash: String = Sha256::digest(&self.select).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("{} [definition {hash}]", self.comment)
    }

    /// The statement that makes it or replaces it.
    pub fn create(&self, database: &str) -> String {
        let comment = literal(&self.signed_comment());
        format!("CREATE OR REPLACE VIEW {} AS\n{}\nCOMMENT {comment}", table(database, &self.name), self.select)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn declares_columns_in_the_order_clickhouse_wants() {
        let column = ColumnSql::new("it`s", "UInt64", "what's in it");
        assert_eq!(column.sql(), r"`it\`s` UInt64 COMMENT 'what\'s in it'");
        assert_eq!(
            column.clone().with("CODEC(ZSTD(1))").sql(),
            r"`it\`s` UInt64 COMMENT 'what\'s in it' CODEC(ZSTD(1))"
        );
        assert_eq!(column.with("DEFAULT 1").sql(), r"`it\`s` UInt64 DEFAULT 1 COMMENT 'what\'s in it'");
    }

    #[test]
    fn a_shorter_or_a_foreign_retention_is_told_from_a_longer() {
        let table = |kept_from: &str, keep_days, keeps_markers| TableDef {
            name: "t".into(),
            comment: String::new(),
            columns: Vec::new(),
            extras: Vec::new(),
            engine: "MergeTree",
            month_of: None,
            order_by: Vec::new(),
            kept_from: Some(kept_from.into()),
            keep_days,
            token_window: 0,
            keeps_markers,
        };
        for markers in [false, true] {
            let wanted = table("at", 30, markers);
            let found = |name: &str, days| table(name, days, markers).ttl().unwrap();
            assert!(!wanted.keeps_longer_than(&found("at", 30)) && !wanted.keeps_longer_than(&found("at", 31)));
            assert!(wanted.keeps_longer_than(&found("at", 29)), "shorter");
            assert!(wanted.keeps_longer_than(&found("other", 60)), "another column");
            assert!(wanted.keeps_longer_than("at + toIntervalDay(60)"), "another rule");
            assert!(table("at", 0, markers).keeps_longer_than(&found("at", 90)), "for ever");
        }
        assert!(table("at", 30, true).keeps_longer_than(&table("at", 30, false).ttl().unwrap()), "markers would fall");
    }

    #[test]
    fn a_view_is_known_by_its_query() {
        let view = |select: &str| ViewDef {
            name: "v".into(),
            comment: "c".into(),
            select: select.into(),
            formers: Vec::new(),
        };
        assert_ne!(view("SELECT 1").signed_comment(), view("SELECT 2").signed_comment());
        assert_eq!(view("SELECT 1").signed_comment(), view("SELECT 1").signed_comment());
    }
}
