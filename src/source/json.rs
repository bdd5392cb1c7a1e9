//! Lists in JSON, the API's and what `fetch` prints: bytes in, texts of prefixes out.
//!
//! Belongs here: whether the document is the API's, and whether the API says that it succeeded; for files the same of
//! a report of `edgeallow fetch --format json`. Does not: whether the
//! texts are prefixes, and whether such a list can be trusted ([`crate::allowlist`]).

use std::{fmt, marker::PhantomData};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use super::text;
use crate::error::{Error, ErrorKind, Result};

/// What the API publishes, as it is written there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// `ipv4_cidrs`; never empty.
    pub v4: Vec<String>,
    /// `ipv6_cidrs`; never empty.
    pub v6: Vec<String>,
    /// `jdcloud_cidrs`: IPv4 and IPv6 mixed, only there when the address asks for it (`?networks=jdcloud`).
    pub jdcloud: Vec<String>,
    /// Cloudflare's own mark of this list; not the header of the same name.
    pub etag: Option<String>,
    /// When it was fetched, by the account of whoever wrote it down.
    pub fetched_at: Option<Timestamp>,
}

/// Whether it went well. `result` is not looked at, for it may be anything when it didn't.
#[derive(Deserialize)]
struct Outcome {
    success: Option<Value>,
    #[serde(default)]
    errors: Value,
    result: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Answer {
    result: Object<Cidrs>,
}

/// Every field is optional in Cloudflare's schema.
#[derive(Deserialize)]
struct Cidrs {
    ipv4_cidrs: Option<Vec<String>>,
    ipv6_cidrs: Option<Vec<String>>,
    jdcloud_cidrs: Option<Vec<String>>,
    etag: Option<String>,
}

/// A JSON object and nothing else: serde would take an array for a struct, field by field.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OnlyMaps<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMaps<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        from.deserialize_map(OnlyMaps(PhantomData)).map(Self)
    }
}

/// Whether a document that may be JSON or text is to be read as JSON: its first visible character is `{`.
#[must_use]
pub fn looks_like_it(bytes: &[u8]) -> bool {
    text::visible(bytes).first() == Some(&b'{')
}

/// Reads the API's document.
///
/// The messages say what the document is, not where it comes from: that is for the caller, who knows.
///
/// # Errors
/// `list-not-a-list` for anything but JSON of this shape, `fetch-api-failure` if `success` is false,
/// `list-family-missing` without IPv4 or IPv6.
pub fn parse(bytes: &[u8]) -> Result<List> {
    text::check(bytes)?;
    let bytes = text::visible(bytes);
    let Object(outcome) = serde_json::from_slice::<Object<Outcome>>(bytes).map_err(|e| misread(&e))?;
    match outcome.success {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Err(failure(&outcome.errors)),
        _ => return Err(another_shape("\"success\" is neither true nor false")),
    }
    if outcome.result.is_none() {
        return Err(another_shape("\"result\" is missing"));
    }
    let Object(answer) = serde_json::from_slice::<Object<Answer>>(bytes).map_err(|e| misread(&e))?;
    let Object(Cidrs { ipv4_cidrs, ipv6_cidrs, jdcloud_cidrs, etag }) = answer.result;
    Ok(List {
        v4: family(ipv4_cidrs, "IPv4", "ipv4_cidrs")?,
        v6: family(ipv6_cidrs, "IPv6", "ipv6_cidrs")?,
        jdcloud: jdcloud_cidrs.unwrap_or_default(),
        etag,
        fetched_at: None,
    })
}

/// What `edgeallow fetch --format json` prints, as far as it is the list.
#[derive(Deserialize)]
struct Fetched {
    schema: u32,
    command: Command,
    #[serde(default)]
    error: Value,
    source: Option<Object<Source>>,
    v4: Option<Vec<String>>,
    v6: Option<Vec<String>>,
}

#[derive(Deserialize)]
enum Command {
    #[serde(rename = "fetch")]
    Fetch,
}

#[derive(Deserialize)]
struct Source {
    etag: Option<String>,
    fetched_at: Option<Timestamp>,
}

/// Reads a document from a file: the API's, or what `edgeallow fetch --format json` has printed.
///
/// # Errors
/// As [`parse`]; `list-not-a-list` for the report of a fetch that failed, or of another version.
pub fn parse_file(bytes: &[u8]) -> Result<List> {
    let Ok(Object(report)) = serde_json::from_slice::<Object<Fetched>>(text::visible(bytes)) else {
        return parse(bytes);
    };
    text::check(bytes)?;
    let Fetched { schema, command: Command::Fetch, error, source, v4, v6 } = report;
    if schema != 1 {
        return Err(text::not_a_list(&format!(
            "it was printed by another version of edgeallow (\"schema\": {schema})"
        )));
    }
    if !error.is_null() {
        let why = error.get("message").and_then(Value::as_str).unwrap_or("it gives no reason");
        return Err(text::not_a_list(&format!("it is the report of a fetch that failed: {}", text::clean(why))));
    }
    let (etag, fetched_at) = source.map_or((None, None), |Object(source)| (source.etag, source.fetched_at));
    Ok(List { v4: family(v4, "IPv4", "v4")?, v6: family(v6, "IPv6", "v6")?, jdcloud: vec![], etag, fetched_at })
}

fn family(cidrs: Option<Vec<String>>, name: &str, key: &str) -> Result<Vec<String>> {
    match cidrs {
        Some(cidrs) if !cidrs.is_empty() => Ok(cidrs),
        cidrs => Err(Error::new(
            ErrorKind::ListFamilyMissing,
            format!("{name} is missing: \"{key}\" is {}", if cidrs.is_some() { "empty" } else { "not there" }),
        )
        .hint("Cloudflare publishes both families; nothing was changed, try again later")),
    }
}

fn failure(errors: &Value) -> Error {
    let reasons: Vec<String> = errors
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|e| e.get("message").and_then(Value::as_str).or_else(|| e.as_str()))
        .map(text::quoted)
        .collect();
    let reasons = if reasons.is_empty() { "it gives no reason".into() } else { reasons.join(", ") };
    Error::new(ErrorKind::FetchApiFailure, format!("the API says that it failed: {reasons}"))
        .hint("nothing was changed; try again later, or give a list with --list FILE")
}

fn misread(e: &serde_json::Error) -> Error {
    if e.is_data() { another_shape(&e.to_string()) } else { text::not_a_list(&format!("it is not JSON: {e}")) }
}

fn another_shape(why: &str) -> Error {
    text::not_a_list(&format!("it is JSON of another shape: {}", text::clean(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &[u8] = include_bytes!("../allowlist/data/ips.json");

    #[test]
    fn the_real_document() {
        let list = parse(REAL).unwrap();
        assert_eq!((list.v4.len(), list.v6.len(), list.jdcloud.len()), (15, 7, 0));
        assert_eq!(list.v4.first().unwrap(), "173.245.48.0/20");
        assert_eq!(list.v6.last().unwrap(), "2c0f:f248::/32");
        assert_eq!(list.etag.as_deref(), Some("38f79d050aa027e3be3865e495dcc9bc"));
        assert!(looks_like_it(REAL));
    }

    #[test]
    fn both_shapes_hold_the_same_list() {
        let list = parse(REAL).unwrap();
        let lines = |s: &str| s.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(list.v4, lines(include_str!("../allowlist/data/ips-v4")));
        assert_eq!(list.v6, lines(include_str!("../allowlist/data/ips-v6")));
    }

    #[test]
    fn a_mark_at_the_start_blanks_unknown_keys_and_a_missing_etag_do_no_harm() {
        let text = "\u{feff}\r\n {\"result\":{\"ipv4_cidrs\":[\"a\"],\"ipv6_cidrs\":[\"b\"],\"jdcloud_cidrs\":[\"c\"],\
                    \"new\":{}},\"success\":true,\"other\":[1]}\n";
        let list = parse(text.as_bytes()).unwrap();
        assert_eq!((list.v4, list.v6, list.jdcloud), (vec!["a".into()], vec!["b".into()], vec!["c".into()]));
        assert_eq!(list.etag, None);
    }

    #[test]
    fn what_fetch_prints_is_read_from_files_only() {
        let printed = |schema: u32, more: &str| format!("{{\"schema\":{schema},\"command\":\"fetch\",{more}}}");
        let full = "\"source\":{\"etag\":\"x\",\"v4\":1},\"v4\":[\"a\"],\"v6\":[\"b\"],\"warnings\":[],\"error\":null";
        let list = parse_file(printed(1, full).as_bytes()).unwrap();
        assert_eq!((list.v4, list.v6, list.etag), (vec!["a".into()], vec!["b".into()], Some("x".into())));
        let dated = printed(1, &full.replace("\"v4\":1", "\"fetched_at\":\"2020-01-01T00:00:00Z\""));
        let at = parse_file(dated.as_bytes()).unwrap().fetched_at;
        assert_eq!((at, list.fetched_at), (Some("2020-01-01T00:00:00Z".parse().unwrap()), None));
        assert_eq!(parse(printed(1, full).as_bytes()).unwrap_err().kind, ErrorKind::ListNotAList);
        assert_eq!(parse_file(REAL).unwrap(), parse(REAL).unwrap());
        for (text, kind, words) in [
            (printed(2, full), ErrorKind::ListNotAList, "another version"),
            (printed(1, "\"error\":{\"message\":\"no\u{7} way\"}"), ErrorKind::ListNotAList, ""),
            (printed(1, "\"error\":{\"message\":\"no way\"}"), ErrorKind::ListNotAList, "failed: no way"),
            (printed(1, "\"v4\":[\"a\"],\"v6\":[]"), ErrorKind::ListFamilyMissing, "\"v6\" is empty"),
            (printed(1, full).replace("fetch", "sync"), ErrorKind::ListNotAList, "another shape"),
        ] {
            let e = parse_file(text.as_bytes()).unwrap_err();
            assert!(e.kind == kind && e.message.contains(words), "{text}: {e:?}");
        }
    }

    #[test]
    fn every_way_of_being_wrong_has_its_kind() {
        use ErrorKind::{FetchApiFailure, ListFamilyMissing, ListNotAList};
        let table: &[(&str, ErrorKind)] = &[
            ("", ListNotAList),
            ("  \r\n", ListNotAList),
            ("null", ListNotAList),
            ("[]", ListNotAList),
            ("[true, [], {\"ipv4_cidrs\":[\"a\"],\"ipv6_cidrs\":[\"b\"]}]", ListNotAList),
            ("{}", ListNotAList),
            ("{\"success\":true}", ListNotAList),
            ("{\"success\":true,\"result\":null}", ListNotAList),
            ("{\"success\":true,\"result\":[[\"a\"],[\"b\"],[],\"etag\"]}", ListNotAList),
            ("{\"success\":true,\"result\":\"x\"}", ListNotAList),
            ("{\"success\":\"true\",\"result\":{}}", ListNotAList),
            ("{\"success\":1,\"result\":{}}", ListNotAList),
            ("{\"result\":{\"ipv4_cidrs\":[\"a\"],\"ipv6_cidrs\":[\"b\"]}}", ListNotAList),
            ("{\"success\":false}", FetchApiFailure),
            ("{\"success\":false,\"result\":\"x\",\"errors\":7}", FetchApiFailure),
            ("{\"success\":true,\"result\":{}}", ListFamilyMissing),
            ("{\"success\":true,\"result\":{\"ipv4_cidrs\":[\"a\"]}}", ListFamilyMissing),
            ("{\"success\":true,\"result\":{\"ipv6_cidrs\":[\"b\"]}}", ListFamilyMissing),
            ("{\"success\":true,\"result\":{\"ipv4_cidrs\":[\"a\"],\"ipv6_cidrs\":[]}}", ListFamilyMissing),
            ("{\"success\":true,\"result\":{\"ipv4_cidrs\":null,\"ipv6_cidrs\":[\"b\"]}}", ListFamilyMissing),
            ("{\"success\":true,\"result\":{\"ipv4_cidrs\":\"a\",\"ipv6_cidrs\":[\"b\"]}}", ListNotAList),
            ("{\"success\":true,\"result\":{\"ipv4_cidrs\":[1],\"ipv6_cidrs\":[\"b\"]}}", ListNotAList),
            ("{\"success\":true,\"result\":{\"ipv4_cidrs\":{},\"ipv6_cidrs\":[\"b\"]}}", ListNotAList),
            ("{\"success\":true,\"result\":{\"ipv4_cidrs\":[\"a\"],\"ipv6_cidrs\":[\"b\"],\"etag\":1}}", ListNotAList),
            (
                "{\"success\":true,\"result\":{\"ipv4_cidrs\":[\"a\"],\"ipv4_cidrs\":[],\"ipv6_cidrs\":[\"b\"]}}",
                ListNotAList,
            ),
            ("{\"success\":true,\"result\":{\"ipv4_cidrs\":[\"a\"],\"ipv6_cidrs\":[\"b\"]}", ListNotAList),
            ("{\"success\":true,\"result\":{\"ipv4_cidrs\":[\"a\"],\"ipv6_cidrs\":[\"b\"]}} {}", ListNotAList),
            ("<!DOCTYPE html><html></html>", ListNotAList),
            ("173.245.48.0/20\n", ListNotAList),
            ("{\"a\u{0}", ListNotAList),
        ];
        for (text, kind) in table {
            let error = parse(text.as_bytes()).expect_err(text);
            assert_eq!(error.kind, *kind, "{text}: {error}");
            assert!(error.hint.is_some(), "{text}");
        }
    }

    #[test]
    fn the_apis_own_words_are_shown_but_cannot_touch_the_terminal() {
        let text = "{\"success\":false,\"errors\":[{\"code\":1000,\"message\":\"over\\u001b[31mloaded\"},\"late\"]}";
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.message, "the API says that it failed: “over [31mloaded”, “late”");
    }
}
