//! "Did you mean": the known name nearest to one that is not known.

/// The nearest of `known`, if one is near enough to be meant: the same last part in another section, or few letters
/// away.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    known
        .map(|candidate| {
            let distance = if last(candidate) == last(name) { 0 } else { distance(name, candidate) };
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace to make one of the other (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let replace = row.get(j).copied().unwrap_or_default() + usize::from(from != *to);
            let delete = row.get(j + 1).copied().unwrap_or_default() + 1;
            let insert = next.get(j).copied().unwrap_or_default() + 1;
            next.push(replace.min(delete).min(insert));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_textbooks() {
        for (a, b, expected) in [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("x", "x", 0)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_near_names_are_suggested() {
        let known = ["kafka.brokers", "kafka.topics", "batch.rows"];
        assert_eq!(nearest("kafka.broker", known.into_iter()), Some("kafka.brokers"));
        assert_eq!(nearest("brokers", known.into_iter()), Some("kafka.brokers"));
        assert_eq!(nearest("kafak.topics", known.into_iter()), Some("kafka.topics"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }
}
