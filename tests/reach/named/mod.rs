//! Rules as real tools make them: who is named, what is advised, and whether the advice mends it.
//!
//! Of each host three things are held together: what connections do, what `verify` says, and what connections do after
//! the commands that it advises were run as they are printed.

pub mod bans;
mod by_hand;
mod docker;
mod rates;
mod tools;
mod unseen;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{in_words, verify};
use crate::lab::{Lab, Reach};

/// A host on which something turns Cloudflare away.
struct Host<'a> {
    /// Makes it.
    setup: &'a dyn Fn(&Lab),
    /// Connections from an address to a port, and how they end.
    before: &'a [(&'a str, u16, Reach)],
    /// The culprits, worst first, as [`said_of`] tells them.
    says: &'a [&'a str],
}

impl Host<'_> {
    fn make(&self) -> Lab {
        let lab = Lab::new();
        (self.setup)(&lab);
        lab
    }

    /// Connections end as is said, the culprits are these and no others, and people are told the same.
    fn is_told(&self, status: i32) -> (Lab, Value) {
        let lab = self.make();
        for (from, port, reach) in self.before {
            assert_eq!(lab.connect(from, *port), *reach, "{from} to {port}\n{:?}", lab.rules());
        }
        let report = verify(&lab, status, &[]);
        let said: Vec<String> = culprits(&report).iter().map(said_of).collect();
        assert_eq!(said, self.says, "{report:#}\n{:?}", lab.rules());
        expect_the_same_in_words(&lab, &report, status);
        (lab, report)
    }

    /// And every command that is advised mends it, each on a host of its own.
    fn is_told_and_mended(&self, status: i32) {
        let (lab, report) = self.is_told(status);
        let most = culprits(&report).iter().map(|c| advice(c).len()).max().unwrap_or_default();
        assert!(most > 0, "nothing is advised: {report:#}");
        let mut first = Some((lab, report));
        for n in 0..most {
            let (lab, report) = first.take().unwrap_or_else(|| {
                let lab = self.make();
                let report = verify(&lab, status, &[]);
                (lab, report)
            });
            let commands: Vec<String> = culprits(&report)
                .iter()
                .filter_map(|c| advice(c).get(n).or(advice(c).last()).cloned())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect();
            commands.iter().for_each(|c| follow(&lab, c));
            for (from, port, _) in self.before {
                let now = lab.connect(from, *port);
                assert_eq!(now, Reach::Accepted, "{from} to {port} after {commands:?}\n{:?}", lab.rules());
            }
            assert_eq!(verify(&lab, 0, &[])["reach"]["verdict"], "accepted", "after {commands:?}");
        }
    }
}

fn culprits(report: &Value) -> &[Value] {
    report["reach"]["culprits"].as_array().expect("a list of culprits")
}

fn advice(culprit: &Value) -> Vec<String> {
    culprit["mend"].as_array().into_iter().flatten().filter_map(|c| c.as_str().map(str::to_owned)).collect()
}

/// Types a command as it is printed; edgeallow's are told that there is no network.
fn follow(lab: &Lab, command: &str) {
    for command in command.split(" && ") {
        let mut words: Vec<&str> = command.split(' ').collect();
        if words[0] == "edgeallow" {
            words.push("--offline");
        }
        lab.run(words);
    }
}

/// `refused by UFW: ip filter ufw-user-input: -A ufw-user-input … → 522; 173.245.48.0/24 on 443/tcp`, in a line.
fn said_of(culprit: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let list = |value: &Value| value.as_array().into_iter().flatten().map(&text).collect::<Vec<_>>().join(" ");
    let mut line = format!("{} by {}", text(&culprit["verdict"]), text(&culprit["name"]));
    let place = &culprit["place"];
    if place.is_object() {
        line += &format!(": {} {} {}", text(&place["family"]), text(&place["table"]), text(&place["chain"]));
        line += &match (&place["position"], place["text"].as_str()) {
            (Value::Null, _) => ": policy".to_owned(),
            (_, rule) => format!(": {}", rule.unwrap_or("?")),
        };
    }
    if culprit["packet"] != "request" {
        line += &format!(" ({})", text(&culprit["packet"]));
    }
    if let Some(detail) = culprit["detail"].as_str().filter(|_| culprit["effect"] != "reject") {
        line += &format!(" [{detail}]");
    }
    if let Some(error) = culprit["cloudflare_error"].as_u64() {
        line += &format!(" → {error}");
    }
    for caught in culprit["catches"].as_array().into_iter().flatten() {
        let from = if caught["all"] == true { "all".to_owned() } else { list(&caught["ranges"]) };
        line += &format!("; {from} on {}", list(&caught["ports"]));
    }
    line
}

/// What people read names the same tool, rule, error and commands.
fn expect_the_same_in_words(lab: &Lab, report: &Value, status: i32) {
    let output = in_words(lab, &[]).expect(status);
    let words = output.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let expect = |what: &str| {
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&what), "{what:?} is not said: {output:?}");
    };
    for culprit in culprits(report) {
        expect(culprit["verdict"].as_str().expect("a verdict"));
        for known in [&culprit["name"], &culprit["place"]["text"], &culprit["place"]["chain"]] {
            known.as_str().into_iter().for_each(expect);
        }
        if let Some(error) = culprit["cloudflare_error"].as_u64() {
            expect(&format!("visitors see Error {error}"));
        }
        advice(culprit).iter().for_each(|command| expect(command));
        for range in culprit["catches"][0]["ranges"].as_array().into_iter().flatten().take(3) {
            expect(range.as_str().expect("a range"));
        }
    }
}
