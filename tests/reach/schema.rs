//! Reports against the published schema: as much of JSON Schema as `docs/schema/report.json` uses, and a panic at any
//! word of it that isn't known here.

use serde_json::Value;

/// Fails unless the report keeps to `docs/schema/report.json`, and says nothing that isn't in there.
pub fn expect_valid(report: &Value) {
    let schema: Value = serde_json::from_str(include_str!("../../docs/schema/report.json")).expect("a schema");
    if let Err(why) = check(&schema, &schema, report, "report") {
        panic!("{why}\n{report:#}");
    }
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Some(words) = schema.as_object() else { return Ok(()) };
    for (word, rule) in words {
        match word.as_str() {
            "$ref" => {
                let path = rule.as_str().and_then(|r| r.strip_prefix('#')).expect("a local reference");
                check(root, root.pointer(path).expect("a definition"), value, at)?;
            }
            "anyOf" | "oneOf" => {
                let all: Vec<_> = rule.as_array().expect("a list").iter().map(|s| check(root, s, value, at)).collect();
                if all.iter().all(Result::is_err) {
                    return Err(format!("{at} is none of these: {all:?}"));
                }
            }
            "type" => {
                let names: Vec<&str> = rule.as_array().map_or_else(
                    || rule.as_str().into_iter().collect(),
                    |all| all.iter().filter_map(Value::as_str).collect(),
                );
                if !names.iter().any(|name| is(name, value)) {
                    return Err(format!("{at} is {value}, and no {names:?}"));
                }
            }
            "enum" if !rule.as_array().expect("a list").contains(value) => return Err(format!("{at}: {value}")),
            "const" if rule != value => return Err(format!("{at} is {value}, not {rule}")),
            "required" => {
                let missing = |key: &&Value| value.is_object() && value.get(key.as_str().expect("a key")).is_none();
                if let Some(key) = rule.as_array().expect("a list").iter().find(missing) {
                    return Err(format!("{at} has no {key}"));
                }
            }
            "properties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let rule = rule.get(key).ok_or_else(|| format!("{at}.{key} isn't in the schema"))?;
                    check(root, rule, value, &format!("{at}.{key}"))?;
                }
            }
            "items" => {
                for (n, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, value, &format!("{at}[{n}]"))?;
                }
            }
            "minimum" | "maximum" => {
                let out = |limit: f64, n: f64| if word == "minimum" { n < limit } else { n > limit };
                if rule.as_f64().zip(value.as_f64()).is_some_and(|(limit, n)| out(limit, n)) {
                    return Err(format!("{at} is {value}, beyond {rule}"));
                }
            }
            "enum" | "const" | "$schema" | "$defs" | "title" | "description" | "format" => {}
            unknown => panic!("the schema says {unknown}, which is not known here"),
        }
    }
    Ok(())
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("the schema has a type {name}, which is not known here"),
    }
}

#[test]
fn what_breaks_the_schema_is_found() {
    let lab = crate::lab::Lab::new();
    let good = lab.edgeallow(["status", "--offline", "--format", "json"]).json();
    expect_valid(&good);
    let broken: [fn(&mut Value); 4] = [
        |r| r["reach"] = 7.into(),
        |r| r["backends"][0]["state"] = "sleepy".into(),
        |r| r["new"] = Value::Null,
        |r| drop(r.as_object_mut().expect("an object").remove("warnings")),
    ];
    for spoil in broken {
        let mut bad = good.clone();
        spoil(&mut bad);
        assert!(std::panic::catch_unwind(|| expect_valid(&bad)).is_err(), "{bad:#}");
    }
}
