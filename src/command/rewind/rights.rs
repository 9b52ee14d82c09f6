//! What ClickHouse has to let a rewind do.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Rewind, cut};
use crate::clickhouse::sql::{literal, literals};
use crate::clickhouse::tables::{AUDITS, LEDGER, REDRIVES, SOURCES, WATERMARKS};
use crate::clickhouse::{Grants, grants};
use crate::plan::TableKind;

impl Rewind<'_> {
    /// Says what our user may not do of it, before anything is done: a rewind that ends halfway has taken rows back.
    pub(super) async fn check_grants(&self) -> Result<()> {
        let (mut deleted, mut parts, mut asides) = (vec![AUDITS, LEDGER], Vec::new(), Vec::new());
        for table in &self.plan.tables {
            match table.kind {
                TableKind::Rollup(_) => {
                    parts.push(table.name.as_str());
                    asides.push(cut::aside(table));
                }
                TableKind::Raw(_) | TableKind::DeadLetters => deleted.push(&table.name),
            }
        }
        let asides: Vec<&str> = asides.iter().map(String::as_str).collect();
        let written = [&[LEDGER, REDRIVES, SOURCES, WATERMARKS], &parts[..], &asides[..]].concat();
        let views: Vec<&str> = self.plan.rollups.iter().map(|rollup| rollup.name.as_str()).collect();
        let read = [&deleted[..], &[SOURCES, REDRIVES], &parts[..], &asides[..], &views[..]].concat();
        // To replace or drop a month of a table is to delete.
        let deleted = [&deleted[..], &parts[..]].concat();
        let mut needed = vec![
            ("SELECT", read),
            ("INSERT", written),
            ("ALTER DELETE", deleted),
            ("CREATE TABLE", asides.clone()),
            ("DROP TABLE", asides),
        ];
        if !self.redriven.is_empty() {
            needed.push(("ALTER UPDATE", vec![REDRIVES]));
        }
        // What a table aside is made with is what its rollup has.
        let engines = format!(
            "SELECT DISTINCT engine FROM system.tables WHERE database = {} AND name IN ({}) ORDER BY engine",
            literal(self.client.database()),
            literals(&parts)
        );
        let engines = if parts.is_empty() { Vec::new() } else { self.client.rows::<Engine>(&engines).await? };
        let engines: Vec<String> = engines.into_iter().map(|row| row.engine).collect();
        let found = [
            grants::look_for(self.client, &needed).await.context("can't ask for permissions")?,
            grants::look_for_engines(self.client, &engines).await.context("can't ask for permissions")?,
        ];
        for found in found {
            if let Grants::Lacking(what) = found {
                bail!("{what}; nothing was changed");
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Engine {
    engine: String,
}
