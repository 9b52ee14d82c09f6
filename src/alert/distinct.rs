//! How many different names there are, in little memory however many come.
//!
//! The names' hashes are spread evenly, so the `K` least of them say how close together all are: if the greatest of these is
//! at a share `s` of the hashes' range, there are about `(K − 1) / s` (Bar-Yossef et al., *Counting Distinct Elements in a Data
//! Stream*, 2002). Up to `K` names it is exact; beyond, its standard error is `1 / √(K − 2)`, 3 %.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Hashes that are kept.
const K: usize = 1_024;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Distinct {
    /// The least hashes.
    least: BTreeSet<u64>,
    /// The first of the names in their order.
    example: Option<Vec<String>>,
}

impl Distinct {
    /// Takes in a name, which may have come before.
    pub(super) fn add(&mut self, name: Vec<String>) {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let hash = hasher.finish();
        if self.least.len() < K || self.least.last().is_some_and(|last| hash < *last) {
            self.least.insert(hash);
            if self.least.len() > K {
                self.least.pop_last();
            }
        }
        if self.example.as_ref().is_none_or(|example| name < *example) {
            self.example = Some(name);
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        match self.least.last() {
            Some(last) if self.least.len() == K => ((K - 1) as f64 * (u64::MAX as f64 / *last as f64)).round() as usize,
            _ => self.least.len(),
        }
    }

    /// One of them.
    pub(super) fn example(&self) -> Option<&Vec<String>> {
        self.example.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: usize) -> Distinct {
        let mut distinct = Distinct::default();
        for _ in 0..2 {
            (0..names).rev().for_each(|name| distinct.add(vec![format!("app-{name:07}"), "production".to_owned()]));
        }
        distinct
    }

    #[test]
    fn few_are_counted_and_many_estimated_in_the_same_memory() {
        assert_eq!((of(0).count(), of(0).example().cloned()), (0, None));
        for names in [1, 7, K - 1] {
            assert_eq!(of(names).count(), names);
        }
        for names in [K, 2_000, 50_000] {
            let distinct = of(names);
            let share = distinct.count() as f64 / names as f64;
            // Four standard errors; the hashes are the same each time.
            assert!((0.875..1.125).contains(&share), "{names}: {}", distinct.count());
            assert_eq!(distinct.least.len(), K);
            assert_eq!(distinct.example(), Some(&vec!["app-0000000".to_owned(), "production".to_owned()]));
        }
    }
}
