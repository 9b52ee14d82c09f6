//! What is written about settings, made of their declarations: `highwater.toml` and `docs/configuration.md`.

use super::reader::{dotted, unquoted};
use super::settings::{Entry, SECTIONS};
use super::variable;

/// Columns a comment may take in `highwater.toml`.
const WIDTH: usize = 118;

/// The commented file of all defaults, as shipped.
pub fn toml() -> String {
    let mut out = String::from(
        "# highwater's settings, all at their defaults: keep only what you change.\n\
         # Each can be set by an environment variable too (HIGHWATER_SECTION__KEY), which wins over this file, and by\n\
         # `--setting section.key=value`, which wins over both. docs/configuration.md says the same with all details.\n",
    );
    for section in SECTIONS {
        out.push('\n');
        if !section.name.is_empty() {
            comment(&section.doc.concat(), &mut out);
            out.push_str(&format!("[{}]\n", section.name));
        }
        for entry in section.entries {
            comment(&entry.doc.concat(), &mut out);
            if let Some((min, max)) = entry.range {
                comment(&format!(" From {min} to {max}."), &mut out);
            }
            if entry.secret {
                comment(&format!(" Not here: {}.", variable(&dotted(section.name, entry.name))), &mut out);
            } else {
                out.push_str(&format!("{} = {}\n", entry.name, entry.default));
            }
        }
    }
    out
}

/// Keys and defaults of the secrets, which no file has.
pub(super) fn secrets() -> impl Iterator<Item = (String, &'static str)> {
    SECTIONS.iter().flat_map(|section| {
        let secrets = section.entries.iter().filter(|entry| entry.secret);
        secrets.map(|entry| (dotted(section.name, entry.name), unquoted(entry.default)))
    })
}

/// Breaks a text into comment lines.
fn comment(text: &str, out: &mut String) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// The reference of all settings, in Markdown.
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    for section in SECTIONS {
        let title =
            if section.name.is_empty() { "Outside of any section".to_owned() } else { format!("`[{}]`", section.name) };
        out.push_str(&format!("\n## {title}\n{}\n", section.doc.concat().trim()));
        for entry in section.entries {
            describe(&dotted(section.name, entry.name), entry, &mut out);
        }
    }
    out
}

fn describe(key: &str, entry: &Entry, out: &mut String) {
    let words = entry.doc.concat();
    let text: Vec<&str> = words.split_whitespace().collect();
    out.push_str(&format!("\n### `{key}`\n{}\n\n", text.join(" ")));
    if entry.secret {
        out.push_str("- Only from the environment: never in a file, never on the command line, never shown\n");
    } else {
        out.push_str(&format!("- Default: `{}`\n", entry.default));
    }
    let range = entry.range.map(|(min, max)| format!(", from `{min}` to `{max}`")).unwrap_or_default();
    out.push_str(&format!("- Allowed: {}{range}\n", entry.allowed));
    out.push_str(&format!("- Environment: `{}`\n", variable(key)));
}

const INTRODUCTION: &str = r#"# Configuration
<!-- Made by `highwater reference markdown` from src/config/settings.rs. Change it there. -->

A setting is taken from the first of these that has it:

1. the command line: `--setting section.key=value`, any number of times;
2. the environment: `HIGHWATER_SECTION__KEY` (two underscores for the point);
3. the file: `--config FILE` or `HIGHWATER_CONFIG`, else `highwater.toml` in the working directory if it is there;
4. the default.

highwater checks all settings before it does anything, and tells all that is wrong at once: the key, what it found where,
and what is allowed. A key that means nothing is an error. Exit code 2 says that a setting or the command line is wrong.

**Durations** are whole numbers with a unit (`ms`, `s`, `m`, `h`, `d`), several if need be, longest first: `"1h30m"`.
**Sizes** have one of `B`, `KiB`, `MiB`, `GiB`. Relative **paths** begin at the directory that highwater is started in.
**Lists** are separated by commas in the environment and on the command line.
"#;
