//! What is still told, and known, past the first wrong setting.

use super::*;

fn surveyed(text: &str) -> Survey {
    let file = file(text);
    survey(Some(file.path()), [], &[])
}

fn keys(survey: &Survey) -> Vec<&str> {
    survey.problems.iter().map(|problem| problem.key.as_str()).collect()
}

#[test]
fn a_setting_that_can_t_be_read_is_at_its_default_and_hides_no_other_section() {
    let found = surveyed("workers = 0\n[kafka]\ntopics = [\"a\", \"a\"]\n[registry]\nurl = \"sr\"\n");
    assert_eq!(keys(&found), ["workers", "kafka.topics", "registry.url"]);
    let settings = found.settings.as_ref().unwrap();
    assert_eq!((settings.workers, settings.kafka.topics.len()), (1, 2));
    let sound =
        ["workers", "kafka", "kafka.topics", "kafka.group", "clickhouse", "registry"].map(|key| found.is_sound(key));
    assert_eq!(sound, [false, false, false, true, true, false]);
}

#[test]
fn a_section_that_is_none_is_at_its_defaults() {
    let found = surveyed("kafka = 1\n[batch]\nrows = 7\ncolour = 1\n");
    assert_eq!(keys(&found), ["kafka", "batch.colour"]);
    let settings = found.settings.unwrap();
    assert_eq!((settings.kafka, settings.batch.rows), (defaults().kafka, 7));
}

#[test]
fn what_follows_from_a_wrong_setting_is_not_told() {
    // The default of `security` has no use for a user, and that of `batch.bytes` is too much for this memory.
    let text =
        "[kafka]\nsecurity = \"secret\"\nusername = \"me\"\n[batch]\nbytes = \"7 sacks\"\n[memory]\nlimit = \"2MiB\"\n";
    assert_eq!(keys(&surveyed(text)), ["kafka.security", "batch.bytes"]);
}

#[test]
fn a_file_that_is_none_leaves_nothing_to_look_at() {
    let found = surveyed("[kafka\n");
    assert_eq!((found.settings, found.problems.len()), (None, 1));
    let found = survey(Some(Path::new("/does/not/exist.toml")), [], &flags(&["workers"]));
    assert_eq!((found.settings.is_none(), found.problems.len()), (true, 2));
}
