//! The published JSON Schema is made from the code's own types, and this test keeps the two together.
//! `UPDATE_SCHEMA=1 cargo test --features schema --test schema` writes it anew.
#![cfg(feature = "schema")]

use std::{fs, path::Path};

#[test]
fn the_published_schema_is_the_code_s() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema/report.json");
    let schema = schemars::schema_for!(edgeallow::report::Report);
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        #[allow(clippy::disallowed_methods)]
        fs::write(&path, &text).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(published, text, "docs/schema/report.json is stale: run with UPDATE_SCHEMA=1");
}
