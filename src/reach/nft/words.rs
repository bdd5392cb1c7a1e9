//! Expressions and statements in words, for people: what a rule says that isn't understood, or a rate.
//!
//! Belongs here: short texts in nft's own language. Does not: whole rules, which nft prints itself (`listing`).

use super::json::Json;

/// An expression or statement in about the words of nft, short.
pub fn words(json: &Json<'_>) -> String {
    let mut text = say(json, 0);
    if text.chars().count() > 80 {
        text = text.chars().take(79).collect::<String>() + "…";
    }
    text
}

fn join(items: &[Json<'_>], with: &str, depth: usize) -> String {
    let mut said: Vec<String> = items.iter().take(5).map(|i| say(i, depth + 1)).collect();
    if items.len() > 5 {
        said.push("…".into());
    }
    said.join(with)
}

fn say(json: &Json<'_>, depth: usize) -> String {
    if depth > 8 {
        return "…".into();
    }
    match json {
        Json::Null => String::new(),
        Json::Bool(is) => if *is { "exists" } else { "missing" }.into(),
        Json::Number(n) => n.to_string(),
        Json::Text(text) => text.to_string(),
        Json::List(items) => join(items, ",", depth),
        Json::Object(members) => match json.only() {
            Some((name, value)) => expression(name, value, depth),
            None => members.iter().map(|(n, v)| format!("{n} {}", say(v, depth + 1))).collect::<Vec<_>>().join(" "),
        },
    }
}

fn expression(name: &str, value: &Json<'_>, depth: usize) -> String {
    let of = |member: &str| value.get(member).map(|v| say(v, depth + 1)).filter(|t| !t.is_empty());
    let all = |parts: &[Option<String>]| parts.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
    let some = |text: &str| Some(text.to_owned());
    match name {
        "match" => {
            let op = of("op").filter(|op| op != "==" && op != "in");
            all(&[of("left"), op, of("right")])
        }
        "payload" if value.get("base").is_some() => {
            let at: Vec<_> = ["base", "offset", "len"].into_iter().filter_map(of).collect();
            format!("@{}", at.join(","))
        }
        "payload" => all(&[of("protocol"), of("field")]),
        "meta" => all(&[some("meta"), of("key")]),
        "ct" => all(&[some("ct"), of("dir"), of("key")]),
        "rt" => all(&[some("rt"), of("family"), of("key")]),
        "socket" => all(&[some("socket"), of("key")]),
        "osf" => all(&[some("osf"), of("key")]),
        "ipsec" => all(&[some("ipsec"), of("dir"), of("family"), of("key")]),
        "exthdr" => all(&[of("name"), of("field")]),
        "tcp option" | "ip option" | "sctp chunk" | "dccp option" => all(&[some(name), of("name"), of("field")]),
        "fib" => {
            let flags = value.get("flags").map(|f| join(f.each(), " . ", depth));
            all(&[some("fib"), flags, of("result")])
        }
        "numgen" => all(&[some("numgen"), of("mode"), some("mod"), of("mod")]),
        "jhash" => all(&[some("jhash"), of("expr"), some("mod"), of("mod")]),
        "symhash" => all(&[some("symhash mod"), of("mod")]),
        "concat" => join(value.each(), " . ", depth),
        "set" if value.list().is_some() => format!("{{ {} }}", join(value.each(), ", ", depth)),
        "set" | "map" if value.get("op").is_some() => {
            let inner = value.get("stmt").map(|s| join(s.each(), " ", depth));
            let elem = all(&[of("elem"), inner]);
            all(&[of("op"), of(name), Some(format!("{{ {elem} }}"))])
        }
        "map" => all(&[of("key"), some("map"), of("data")]),
        "vmap" => all(&[of("key"), some("vmap"), of("data")]),
        "prefix" => format!("{}/{}", of("addr").unwrap_or_default(), of("len").unwrap_or_default()),
        "range" => join(value.each(), "-", depth),
        "elem" => of("val").unwrap_or_default(),
        "&" | "|" | "^" | "<<" | ">>" => join(value.each(), &format!(" {name} "), depth),
        "mangle" => all(&[of("key"), some("set"), of("value")]),
        "xt" => all(&[some("xt"), of("type"), of("name")]),
        "limit" => limit(value),
        "quota" => quota(value),
        "ct count" => count(value),
        "queue" => {
            let to = of("num").map(|n| format!("to {n}"));
            all(&[some("queue"), of("flags").map(|f| format!("flags {f}")), to])
        }
        "tproxy" => {
            let to = format!(
                "to {}{}",
                of("addr").unwrap_or_default(),
                of("port").map(|p| format!(":{p}")).unwrap_or_default()
            );
            all(&[some("tproxy"), of("family"), Some(to)])
        }
        _ => all(&[some(name), Some(say(value, depth + 1)).filter(|t| !t.is_empty())]),
    }
}

fn over(value: &Json<'_>) -> &'static str {
    if matches!(value.get("inv"), Some(Json::Bool(true))) { "over " } else { "" }
}

/// `limit rate over 10/second burst 5 packets`.
pub fn limit(value: &Json<'_>) -> String {
    let number = |name: &str| value.get(name).and_then(Json::number::<u64>);
    let (Some(rate), Some(per)) = (number("rate"), value.text_of("per")) else {
        return match value.text() {
            Some(name) => format!("limit name {name}"),
            None => "limit".into(),
        };
    };
    let unit = value.text_of("rate_unit").filter(|u| *u != "packets").map(|u| format!(" {u}")).unwrap_or_default();
    let burst = number("burst").filter(|b| *b > 0);
    let burst = burst.map(|b| format!(" burst {b} {}", value.text_of("burst_unit").unwrap_or("packets")));
    format!("limit rate {}{rate}{unit}/{per}{}", over(value), burst.unwrap_or_default())
}

/// `quota over 10 mbytes`.
pub fn quota(value: &Json<'_>) -> String {
    match (value.text(), value.get("val").and_then(Json::number::<u64>)) {
        (Some(name), _) => format!("quota name {name}"),
        (None, Some(val)) => {
            let unit = value.text_of("val_unit").unwrap_or("bytes");
            format!("quota {}{val} {unit}", over(value))
        }
        _ => "quota".into(),
    }
}

/// `ct count over 20`.
pub fn count(value: &Json<'_>) -> String {
    match value.get("val").and_then(Json::number::<u64>) {
        Some(val) => format!("ct count {}{val}", over(value)),
        None => "ct count".into(),
    }
}
