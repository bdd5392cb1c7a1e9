//! docs/configuration.md and docs/schema/config.json, made from the configuration's own types. Names, types and words
//! come from the code; order and defaults from examples/config.toml, which another test holds against the code.

use std::fmt::Write as _;

use serde_json::Value;

use super::{expect_generated, text};

/// A key as the example shows it.
struct Shown {
    section: String,
    key: String,
    value: String,
    /// Shown as a comment: there is no default.
    unset: bool,
}

fn shown(example: &str) -> Vec<Shown> {
    let (mut section, mut all) = (String::new(), Vec::new());
    for line in example.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            name.clone_into(&mut section);
        }
        let (written, unset) = line.strip_prefix("# ").map_or((line, false), |rest| (rest, true));
        let Some((key, value)) = written.split_once(" = ") else { continue };
        if key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            all.push(Shown { section: section.clone(), key: key.to_owned(), value: value.to_owned(), unset });
        }
    }
    all
}

/// The definition that a schema stands for.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    schema["$ref"].as_str().map_or(schema, |at| root.pointer(at.trim_start_matches('#')).unwrap())
}

/// A doc comment as a paragraph of a table: rustdoc's links are no links here.
fn words(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut plain = String::new();
    for (i, part) in text.split("[`").enumerate() {
        let linked = part.split_once("`]").filter(|_| i > 0);
        match linked {
            Some((name, rest)) => write!(plain, "`{}`{rest}", name.rsplit("::").next().unwrap()).unwrap(),
            None if i > 0 => write!(plain, "[`{part}").unwrap(),
            None => plain.push_str(part),
        }
    }
    plain.trim_end_matches('.').to_owned()
}

/// The type in a reader's words, and the values with their meaning where there are only some.
fn kind(root: &Value, schema: &Value, value: &str) -> (String, Vec<(String, String)>) {
    let schema = resolve(root, schema);
    if let Some(values) = schema["oneOf"].as_array() {
        let values: Vec<_> = values.iter().map(|v| (v["const"].as_str().unwrap().to_owned(), words(v))).collect();
        return ("one of the values below".to_owned(), values);
    }
    let name = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or_else(|| panic!("{schema}"));
    let is_time = value.trim_matches('"').parse::<jiff::SignedDuration>().is_ok();
    let words = match name {
        "string" if is_time && schema["type"].is_array() => "a length of time: `\"1m 30s\"`, or seconds: `90`",
        "string" if is_time => "a length of time: `\"90m\"`, `\"1h 30m\"`",
        "string" => "text",
        "boolean" => "`true` or `false`",
        "integer" => "a whole number",
        "array" => {
            let (inner, values) = kind(root, &schema["items"], "");
            let inner = if inner == "a whole number" { "whole numbers" } else { &inner };
            let inner = if values.is_empty() { inner } else { "the values below" };
            return (format!("a list of {inner}"), values);
        }
        other => panic!("no words for {other}"),
    };
    (words.to_owned(), vec![])
}

/// The page.
fn page(root: &Value, example: &[Shown]) -> String {
    let mut out = "<!-- Made from the code by `make docs`. Do not edit. -->\n\n# Configuration\n\n\
        `/etc/edgeallow/config.toml`, or the file that `--config` names. None is needed. An unknown key is an error \
        (exit 2)\nthat names the line and what you may have meant. [An example with every \
        key](../examples/config.toml) · [JSON Schema](schema/config.json),\nwhich editors for TOML understand.\n\n\
        A file that can't be read keeps nobody out: `edgeallow sync --restore` and `edgeallow keep` then [go by the one of \
        the last\nsync](recipes/systemd.md#a-configuration-that-cant-be-read), and warn of it.\n"
        .to_owned();
    let top = root["properties"].as_object().unwrap();
    let mut sections: Vec<&str> = example.iter().map(|s| s.section.as_str()).collect();
    sections.dedup();
    let mut done: Vec<&str> = Vec::new();
    for section in sections {
        if done.contains(&section) {
            continue;
        }
        // Sections of the same type are told once.
        let alike: Vec<&str> = if section.is_empty() {
            vec![""]
        } else {
            top.iter().filter(|(_, s)| s["$ref"] == top[section]["$ref"]).map(|(name, _)| name.as_str()).collect()
        };
        done.extend(&alike);
        let (title, schema) = match section {
            "" => ("At the top".to_owned(), root),
            _ => {
                let names: Vec<_> = alike.iter().map(|name| format!("`[{name}]`")).collect();
                (names.join(" and "), resolve(root, &top[section]))
            }
        };
        write!(out, "\n## {title}\n").unwrap();
        let about: Vec<_> = alike.iter().filter(|n| !n.is_empty()).map(|name| words(&top[*name])).collect();
        for (name, about) in alike.iter().zip(about) {
            // What the key's own comment says beyond its name.
            let about = about.trim_start_matches(&format!("`[{name}]`")).trim_start_matches(": ");
            if !about.is_empty() {
                write!(out, "\n`{name}`: {about}.\n").unwrap();
            }
        }
        out.push_str("\n| key | type | default | what |\n|---|---|---|---|\n");
        let mut values = String::new();
        for s in example.iter().filter(|s| s.section == section) {
            let property = &schema["properties"][&s.key];
            assert!(property.is_object(), "examples/config.toml: there is no key {} in [{section}]", s.key);
            let (kind, choices) = kind(root, property, &s.value);
            let default = if s.unset { "none".to_owned() } else { format!("`{}`", s.value) };
            writeln!(out, "| `{}` | {kind} | {default} | {} |", s.key, words(property)).unwrap();
            if !choices.is_empty() {
                write!(values, "\n`{}` can be:\n\n", s.key).unwrap();
                choices.iter().for_each(|(value, what)| writeln!(values, "- `\"{value}\"`: {what}").unwrap());
            }
        }
        out.push_str(&values);
    }
    out
}

fn schema() -> Value {
    schemars::schema_for!(edgeallow::config::Config).to_value()
}

#[test]
fn the_reference_is_the_code_s() {
    expect_generated("docs/configuration.md", &page(&schema(), &shown(&text("examples/config.toml"))));
}

#[test]
fn the_schema_is_the_code_s() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    expect_generated("docs/schema/config.json", &text);
}

#[test]
fn the_example_shows_every_key() {
    let (root, shown) = (schema(), shown(&text("examples/config.toml")));
    let mut missing = Vec::new();
    for (name, schema) in root["properties"].as_object().unwrap() {
        let inner = resolve(&root, schema)["properties"].as_object();
        // `[on_failure]` has the keys of `[on_change]`, and the example says so.
        let section = if name == "on_failure" { "on_change" } else { name };
        for (section, key) in match inner {
            Some(keys) => keys.keys().map(|key| (section, key.as_str())).collect(),
            None => vec![("", name.as_str())],
        } {
            if !shown.iter().any(|s| s.section == section && s.key == key) {
                missing.push(format!("[{section}] {key}"));
            }
        }
    }
    assert!(missing.is_empty(), "examples/config.toml doesn't show {missing:?}");
}
