//! Packs judged while some event types, or other packs, can't be read: what is wrong with them all the same.

use toml::Spanned;

use super::pack::{Pack, PackError};
use super::resolve::{default_name, resolve};
use crate::event::EventType;

/// What is wrong with packs beside that event types of the names `unread` are missing: nothing is said of rollups over
/// those, nor of metrics of these. Where packs are missing too (not `whole`), nothing is said of metrics, whose rollup may
/// stand there.
pub fn judge(packs: &[Pack], types: &[EventType], unread: &[String], whole: bool) -> Vec<PackError> {
    let entries = packs.iter().flat_map(|pack| &pack.rollups);
    let over = entries.filter(|entry| unread.contains(entry.event.get_ref()));
    let named = over.filter_map(|entry| entry.name.as_ref().map(|name| name.get_ref().clone()));
    let lost: Vec<String> = named.chain(unread.iter().map(|event| default_name(event))).collect();
    let is_of = |name: &Option<Spanned<String>>, gone: &[String]| {
        name.as_ref().is_some_and(|name| gone.contains(name.get_ref()))
    };
    let mut packs = packs.to_vec();
    for pack in &mut packs {
        pack.rollups.retain(|entry| !unread.contains(entry.event.get_ref()));
        pack.metrics.retain(|entry| whole && !is_of(&entry.event, unread) && !is_of(&entry.rollup, &lost));
    }
    let mut errors = resolve(&packs, types).err().unwrap_or_default();
    errors.retain(|error| whole || !matches!(error, PackError::Default { .. }));
    errors
}
