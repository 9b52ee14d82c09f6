//! How watermarks are stored.

use super::client::Client;
use super::error::QueryError;
use super::sql::{literal, table};
use super::tables::WATERMARKS;
use crate::batch::Source;

/// The statement that stores watermarks, in milliseconds since 1970. Without a token: the table keeps the greatest per
/// source, so a repetition does no harm. None counts for more than the server's clock says, so that it takes two wrong
/// clocks to complete a minute too early.
pub(super) fn insertion(watermarks: &[(Source, i64)], database: &str) -> String {
    let row = |(source, millis): &(Source, i64)| format!("({}, toInt64({millis}))", literal(&source.to_string()));
    format!(
        "INSERT INTO {} (source, watermark) SELECT t.1, least(fromUnixTimestamp64Milli(t.2, 'UTC'), now64(3, 'UTC')) \
         FROM (SELECT arrayJoin([{}]) AS t)",
        table(database, WATERMARKS),
        watermarks.iter().map(row).collect::<Vec<_>>().join(", ")
    )
}

impl Client {
    /// Enters partitions as not yet read, so that minutes are not complete without them. Changes nothing where a watermark
    /// is stored already.
    ///
    /// # Errors
    /// The server's error, or that it did not answer.
    pub async fn enter_partitions(&self, sources: impl IntoIterator<Item = Source>) -> Result<(), QueryError> {
        let rows: Vec<(Source, i64)> = sources.into_iter().map(|source| (source, 0)).collect();
        if rows.is_empty() { Ok(()) } else { self.execute(&insertion(&rows, self.database())).await }
    }
}
