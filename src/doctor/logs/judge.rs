//! What the counts come to.
//!
//! A log tells of the past. Whatever turns Cloudflare away now, another room sees: so nothing here is called the cause.
//! Where another room looks at the same thing, the log is a note that agrees with it or tells how it was before;
//! elsewhere it is a warning.
//!
//! Belongs here: verdicts and words. Does not: reading.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::{
    places::{Mask, Packer, Unread},
    symptom::Kind,
    tally::{Count, Tallies, Tally},
};
use crate::{
    doctor::word,
    report::{Finding, Finds, Room},
};

/// How many pairs of rule and address are shown.
const SHOWN: usize = 5;

/// What was read, and what was counted in it.
#[derive(Debug, Default)]
pub(in crate::doctor) struct Seen {
    /// What is about Cloudflare, or about nobody.
    pub(super) tallies: Tallies,
    /// Denials of others by servers that see visitors' own addresses.
    pub(super) visitors: Tallies,
    /// What was read, with the number of bytes (unpacked).
    pub(super) read: Vec<(String, u64)>,
    pub(super) unread: Vec<Unread>,
    /// What is packed so that it isn't read; whether it was named on the command line.
    pub(super) packed: BTreeMap<(Packer, bool), Vec<String>>,
    /// Settings that put visitors' addresses in place of Cloudflare's, once somebody else was denied.
    pub(super) masks: Option<Vec<Mask>>,
    /// Whether there is a journal or a system log at all.
    pub(super) system: bool,
    /// How far back was looked.
    pub(super) since: SignedDuration,
}

/// What other rooms can tell of the present.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// Whether they know what packet filters do.
    pub reach: bool,
    /// The backends whose state they know.
    pub backends: BTreeSet<String>,
    /// What the operator asks, as words of the command line.
    pub asked: Vec<String>,
}

fn finding(id: &'static str, verdict: Finds, text: impl Into<String>) -> Finding {
    Finding::new(Room::Logs, id, verdict, text)
}

pub(super) fn judge(seen: &Seen, present: &Present) -> Vec<Finding> {
    let mut found: Vec<Finding> =
        seen.tallies.iter().filter_map(|(kind, tally)| symptom(*kind, tally, seen, present)).collect();
    found.extend(visitors(seen));
    found.push(read(seen, found.is_empty()));
    found.extend(unread(seen, true));
    found.extend(seen.packed.iter().map(|((packer, given), names)| packed(*packer, *given, names, &present.asked)));
    found.extend(unread(seen, false));
    found.extend(no_system_log(seen));
    found
}

fn symptom(kind: Kind, tally: &Tally, seen: &Seen, present: &Present) -> Option<Finding> {
    if matches!(kind, Kind::Unbans | Kind::Own) || tally.times == 0 {
        return None;
    }
    let meaning = kind.meaning();
    let often = many(tally.times, meaning.what);
    let whom = whom(tally);
    let happened = match (kind.has_address(), meaning.what) {
        (false, _) => format!("{} {often}", meaning.who),
        (true, "time") => format!("{} {whom} of Cloudflare {often}", meaning.who),
        (true, _) => format!("{} {often} from {whom} of Cloudflare", meaning.who),
    };
    let (verdict, but) = verdict(kind, tally, seen, present);
    let found = finding(meaning.id, verdict, format!("{happened} in the last {}{but}", span(seen.since)));
    let found = counted(found.gives(meaning.gives), tally);
    Some(match meaning.command {
        Some(command) => found.mend_by(meaning.mend, command),
        None => found.mend(meaning.mend),
    })
}

/// `2 addresses`, and that there may be more where no more are told apart.
fn whom(tally: &Tally) -> String {
    let told_apart = tally.addresses() as u64;
    if tally.more { format!("{told_apart} or more addresses") } else { many(told_apart, "address") }
}

/// With the most frequent pairs of rule and address.
fn counted(mut found: Finding, tally: &Tally) -> Finding {
    let counts = tally.by_count();
    for (rule, client, count) in counts.iter().take(SHOWN) {
        let whom = client.map_or_else(|| (*rule).to_owned(), |ip| format!("{ip}, {rule}"));
        found = found.seen(count.file.to_string(), shown(&whom, count));
    }
    if let Some(rest) = counts.len().checked_sub(SHOWN).filter(|n| *n > 0) {
        let last = counts[SHOWN].2;
        let least = if tally.more { "at least " } else { "" };
        found = found.seen(last.file.to_string(), format!("and {least}{rest} more like these"));
    }
    found
}

pub(super) fn shown(whom: &str, count: &Count) -> String {
    let mut text = format!("{whom}: {}", many(count.times, "time"));
    if count.first == count.last {
        text.push_str(&format!(", at {:.0}", count.first));
    } else {
        text.push_str(&format!(", from {:.0} to {:.0}", count.first, count.last));
    }
    if !count.rays.is_empty() {
        let rays: Vec<&str> = count.rays.iter().map(String::as_str).collect();
        text.push_str(&format!(", Ray ID {}", rays.join(", ")));
    }
    format!("{text}: {}", count.example)
}

/// The verdict, and why it is no worse.
fn verdict(kind: Kind, tally: &Tally, seen: &Seen, present: &Present) -> (Finds, &'static str) {
    const FIREWALL: &str = "; whether it still does is said under Firewall";
    let backend = match kind {
        Kind::Bans => Some("fail2ban"),
        Kind::Lfd => Some("csf"),
        Kind::ModEvasive => Some("mod_evasive"),
        _ => None,
    };
    if matches!(kind, Kind::Unanswered | Kind::Killed) {
        return (Finds::Note, "");
    }
    if tally.guarded == tally.times {
        return (Finds::Note, ", all of them for what sites keep from everybody");
    }
    // Another machine's, for all that is known: no other room can tell.
    if tally.given {
        return (Finds::Warning, "");
    }
    if (kind == Kind::Packets && present.reach) || backend.is_some_and(|b| present.backends.contains(b)) {
        return (Finds::Note, FIREWALL);
    }
    if kind == Kind::Bans && lifted(tally, seen.tallies.get(&Kind::Unbans)) {
        return (Finds::Note, ", and has lifted them");
    }
    (Finds::Warning, "")
}

/// Whether the last ban of each address was followed by its end.
fn lifted(bans: &Tally, unbans: Option<&Tally>) -> bool {
    let Some(unbans) = unbans else { return false };
    !bans.more
        && bans
            .by_count()
            .into_iter()
            .all(|(_, client, count)| unbans.last(client).is_some_and(|end| end >= count.last))
}

/// Denials of others, where these can be visitors behind Cloudflare.
fn visitors(seen: &Seen) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for (kind, tally) in &seen.visitors {
        let Some(mask) = seen.masks.iter().flatten().find(|m| kind.web_server() == Some(m.server)) else { continue };
        let meaning = kind.meaning();
        let text = format!(
            "{} {} from {} outside Cloudflare's ranges in the last {}: {} shows visitors' own addresses, so these can \
             be visitors who came by way of Cloudflare",
            meaning.who,
            many(tally.times, meaning.what),
            whom(tally),
            span(seen.since),
            mask.server,
        );
        let visitors = counted(finding("logs.visitors", Finds::Note, text), tally);
        found.push(visitors.seen(mask.place.clone(), mask.setting));
    }
    found
}

fn read(seen: &Seen, clean: bool) -> Finding {
    if seen.read.is_empty() {
        let text = format!("there is no log of the last {} that can be read here", span(seen.since));
        return finding("logs.none", Finds::Skipped, text).mend("name one with --log FILE");
    }
    let size = seen.read.iter().map(|(_, n)| n).sum();
    let what = if clean { "tell of nothing that turned Cloudflare away" } else { "were read" };
    let files = many(seen.read.len() as u64, "log");
    let mut names: Vec<&str> = seen.read.iter().map(|(name, _)| name.as_str()).take(8).collect();
    if seen.read.len() > names.len() {
        names.push("…");
    }
    let verb =
        if seen.read.len() == 1 { what.replace("tell", "tells").replace("were", "was") } else { what.to_owned() };
    let text = format!("{files} of the last {} ({}) {verb}", span(seen.since), bytes(size));
    finding("logs.read", Finds::Ok, text).seen(names.join(" "), bytes(size))
}

/// What could not be read. Who names a file believes that it was: so that is no mere skip.
fn unread(seen: &Seen, given: bool) -> Vec<Finding> {
    let all: Vec<&Unread> = seen.unread.iter().filter(|u| u.given == given).collect();
    let (id, verdict, what) = if given {
        ("logs.not-read", Finds::Warning, "a log that was named was not read, or not wholly")
    } else {
        ("logs.unread", Finds::Skipped, "a log was not read, or not wholly")
    };
    let one = |u: &&Unread| finding(id, verdict, format!("{what}: {}", u.why)).seen(&u.path, "");
    let mut found: Vec<Finding> = all.iter().take(SHOWN).map(one).collect();
    if let Some(rest) = all.len().checked_sub(SHOWN).filter(|n| *n > 0) {
        let names: Vec<&str> = all[SHOWN..].iter().map(|u| u.path.as_str()).take(20).collect();
        let text = format!("{} more could not be read", many(rest as u64, "log"));
        found.push(finding(id, verdict, text).seen(names.join(" "), "as above"));
    }
    found
}

fn packed(packer: Packer, given: bool, names: &[String], asked: &[String]) -> Finding {
    let verdict = if given { Finds::Warning } else { Finds::Skipped };
    let (are, them) = if names.len() == 1 { ("is", "it") } else { ("are", "them") };
    let files = many(names.len() as u64, "log");
    let text = format!("{files} {are} {}, which is not read here", packer.done);
    let words: Vec<String> = names.iter().map(|name| word(name)).collect();
    let asked: String = asked.iter().map(|word| format!("{word} ")).collect();
    let command = format!("{} {} | edgeallow doctor {asked}--log -", packer.cat, words.join(" "));
    finding("logs.packed", verdict, text)
        .seen(names.join(" "), packer.done)
        .mend_by(format!("feed {them} as plain text into standard input"), command)
}

fn no_system_log(seen: &Seen) -> Option<Finding> {
    let text = "what the kernel and the system logged can't be told: there is neither a journal nor a system log";
    (!seen.system).then(|| finding("logs.no-system-log", Finds::Skipped, text))
}

/// `1 address`, `3 addresses`.
fn many(n: u64, what: &str) -> String {
    match (n, what) {
        (1, "time") => "once".to_owned(),
        (1, _) => format!("1 {what}"),
        (_, "address") => format!("{n} addresses"),
        _ => format!("{n} {what}s"),
    }
}

/// `30 s`, `90 min`, `24 h`, `7 days`.
fn span(length: SignedDuration) -> String {
    const DAY: i64 = 86_400;
    match length.as_secs() {
        seconds if seconds % 60 != 0 => format!("{seconds} s"),
        seconds if seconds % 3600 != 0 => format!("{} min", seconds / 60),
        seconds if seconds % DAY != 0 || seconds < 2 * DAY => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / DAY),
    }
}

/// `3.2 GB`
pub(super) fn bytes(n: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    match units.into_iter().find(|(size, _)| n >= *size) {
        Some((size, unit)) => format!("{}.{} {unit}", n / size, n % size * 10 / size),
        None => format!("{n} bytes"),
    }
}
