//! Hooks: the operator's own command and webhook, told when a run has changed something or failed.
//!
//! Belongs here: when they are told, and what. Does not: running a program ([`crate::host`]), the request
//! ([`crate::source`]).

use std::{
    fmt,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, value::MapAccessDeserializer},
};

use super::story;
use crate::{
    backends::Warning,
    config::{Config, UNSHOWN},
    error::{Error, ErrorKind, Exit, Result, io_reason},
    host::{read_bounded, run_hook},
    report::{ReachVerdict, Report},
    source::{self, Webhook},
};

/// The most bytes that a webhook's address may have in its file.
const LONGEST: u64 = 64 << 10;

/// `[on_change]` and `[on_failure]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HookConfig {
    /// A program and its arguments; no shell. It gets the JSON report on standard input.
    #[serde(deserialize_with = "words")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub command: Vec<String>,
    /// Where to send a Slack-compatible message.
    #[serde(deserialize_with = "address")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub webhook: Option<Webhook>,
    /// A file that holds the address of the webhook, which is as good as a password.
    #[serde(deserialize_with = "path")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<PathBuf>"))]
    pub webhook_file: Option<PathBuf>,
    /// How long each of the two may take.
    #[serde(deserialize_with = "time")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("type" = ["string", "integer"])))]
    pub timeout: Duration,
}

/// `[on_change]` or `[on_failure]`, of which an error shows nothing but the keys: the address of a webhook is as good as a
/// password, wherever in there it was written by mistake.
///
/// # Errors
/// What is wrong, without what was found.
pub fn section<'de, D: Deserializer<'de>>(from: D) -> Result<HookConfig, D::Error> {
    struct Section;
    impl<'de> de::Visitor<'de> for Section {
        type Value = HookConfig;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a section with `command`, `webhook_file` and so on below it")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HookConfig, A::Error> {
            HookConfig::deserialize(MapAccessDeserializer::new(map))
        }
        fn visit_str<E: de::Error>(self, _: &str) -> Result<HookConfig, E> {
            Err(unshown("a section with `command`, `webhook_file` and so on below it"))
        }
    }
    from.deserialize_map(Section)
}

fn unshown<E: de::Error>(wanted: &str) -> E {
    E::custom(format_args!("{UNSHOWN}: {wanted} belongs there"))
}

fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Vec::deserialize(from).map_err(|_| unshown("a list of words such as [\"/usr/local/bin/hook\", \"--mail\"]"))
}

fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Webhook>, D::Error> {
    Option::deserialize(from).map_err(|_| unshown("an address in quotes"))
}

fn path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    Option::deserialize(from).map_err(|_| unshown("the path of a file in quotes"))
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    source::duration(from).map_err(|_| unshown("a number of seconds or a length of time such as \"10s\""))
}

impl Default for HookConfig {
    fn default() -> Self {
        Self { command: Vec::new(), webhook: None, webhook_file: None, timeout: Duration::from_secs(30) }
    }
}

impl HookConfig {
    /// Whether the settings make sense. Reads no file. `section` is what they stand under.
    ///
    /// # Errors
    /// `config`, without the webhook's address.
    pub fn check(&self, section: &str) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Config, format!("{section}.{what}")));
        if self.command.first().is_some_and(String::is_empty) {
            return wrong("command begins with an empty word: the program's name is missing".into());
        }
        // It would be looked for in a hook's working folder, which is the root's and nobody's guess.
        if self.command.first().is_some_and(|name| name.contains('/') && !name.starts_with('/')) {
            return wrong(
                "command names its program relative to a folder: write the whole path, or the bare name".into(),
            );
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            return wrong("command has a NUL character in it".into());
        }
        if self.webhook.is_some() && self.webhook_file.is_some() {
            return wrong("webhook and webhook_file are both set: leave one out".into());
        }
        // In the place of a path the address would be shown with whatever is wrong with the file.
        if self.webhook_file.as_ref().is_some_and(|p| !p.is_absolute() || p.to_string_lossy().contains("://")) {
            return wrong("webhook_file doesn't name a file by its whole path: the address stands in that file".into());
        }
        if self.timeout.is_zero() {
            return wrong("timeout is 0: nothing is done in no time".into());
        }
        self.webhook
            .as_ref()
            .map_or(Ok(()), Webhook::check)
            .map_err(|e| Error { message: format!("{section}.webhook {}", e.message), ..e })
    }

    fn webhook(&self) -> Result<Option<Webhook>> {
        let Some(path) = &self.webhook_file else { return Ok(self.webhook.clone()) };
        let wrong = |why: &str| Error::new(ErrorKind::Config, format!("webhook_file {} {why}", path.display()));
        let bytes =
            read_bounded(path, LONGEST, true).map_err(|e| wrong(&format!("can't be read: {}", io_reason(&e))))?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("can't be read: it is not UTF-8 text"))?;
        let webhook = Webhook::new(&text);
        webhook.check().map_err(|e| wrong(&e.message.replacen("is not", "doesn't hold", 1)))?;
        Ok(Some(webhook))
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Change,
    Failure,
}

/// Of what the operator is told: of either, of both, or of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    /// `[on_change]`
    pub change: bool,
    /// `[on_failure]`
    pub failure: bool,
}

impl Events {
    /// What a run has to tell.
    ///
    /// Only runs that act are told of: `sync` and `remove`, and not their dry runs. A run that found another one at work
    /// is no failure: that one tells of itself.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let failed = !matches!(report.exit, Exit::Ok | Exit::Pending | Exit::Locked);
        Self { change: report.changed && !report.dry_run, failure: failed && !report.dry_run }
    }
}

/// How it is told.
pub struct Manner<'a> {
    /// Whether no network connection may be opened.
    pub offline: bool,
    /// Told what is going on.
    pub progress: &'a dyn Fn(&str),
    /// Becomes true when we are asked to end: what is being run is ended, and nothing more is begun.
    pub leave: &'a AtomicBool,
}

/// Tells whoever wants to know of these events. Returns what went wrong with that, as warnings.
pub fn run(config: &Config, events: Events, report: &Report, manner: &Manner<'_>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let both =
        [(events.change, Event::Change, &config.on_change), (events.failure, Event::Failure, &config.on_failure)];
    for (_, event, hook) in both.into_iter().filter(|(happened, ..)| *happened) {
        let name = if event == Event::Change { "on_change" } else { "on_failure" };
        let left = |what: &str| {
            let what = format!("edgeallow was asked to end: the {name} {what}");
            manner.leave.load(Ordering::SeqCst).then(|| Warning::new("hook-skipped", what))
        };
        let failed = |what: &str, why: &str| Warning::new("hook-failed", format!("the {name} {what} failed: {why}"));
        if !hook.command.is_empty() {
            (manner.progress)(&format!("running the {name} command"));
            let run = || command(hook, event, report, manner.leave).err().map(|why| failed("command", &why));
            warnings.extend(left("command was not run").or_else(run));
        }
        let hooked = hook.webhook.is_some() || hook.webhook_file.is_some();
        if hooked && manner.offline {
            let what = format!("--offline: the {name} webhook was not told");
            warnings.push(Warning::new("hook-skipped", what));
        } else if hooked {
            (manner.progress)(&format!("telling the {name} webhook"));
            let tell = || webhook(hook, config, report, manner.leave).err().map(|e| failed("webhook", &e.message));
            warnings.extend(left("webhook was not told").or_else(tell));
        }
    }
    warnings
}

fn command(hook: &HookConfig, event: Event, report: &Report, leave: &AtomicBool) -> Result<(), String> {
    let json = serde_json::to_vec(report).map_err(|e| format!("the report can't be written as JSON: {e}"))?;
    let event = if event == Event::Change { "change" } else { "failure" };
    let env = [
        ("EDGEALLOW_EVENT", event.to_owned()),
        ("EDGEALLOW_COMMAND", report.command.to_owned()),
        ("EDGEALLOW_EXIT_STATUS", (report.exit as u8).to_string()),
    ];
    let ended = run_hook(&hook.command, &env, &json, hook.timeout, leave).map_err(|e| e.message)?;
    let end = match ended.status {
        Some(0) => {
            tracing::debug!(hook = hook.command[0], "it said: {}", ended.said);
            return Ok(());
        }
        Some(status) => format!("{} ended with status {status}", hook.command[0]),
        None => format!("{} was ended by a signal", hook.command[0]),
    };
    Err(if ended.said.is_empty() { end } else { format!("{end}: {}", ended.said) })
}

fn webhook(hook: &HookConfig, config: &Config, report: &Report, leave: &AtomicBool) -> Result<()> {
    let Some(webhook) = hook.webhook()? else { return Ok(()) };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let body = serde_json::json!({ "text": message(report, host.trim()) }).to_string();
    source::post(&config.source, &webhook, body, hook.timeout, leave)
}

/// The most lines of each kind in a message: somebody reads it on a telephone.
const LINES: usize = 8;

/// A report as a short message in Slack's notation.
fn message(report: &Report, host: &str) -> String {
    let exit = report.exit as u8;
    let changes = story::changes(report);
    let end = match (exit, report.changed) {
        (0, true) => format!("{} made and confirmed", story::count(changes)),
        (_, true) => format!("failed with exit status {exit}, after {}", story::count(changes)),
        (_, false) => format!("failed with exit status {exit}"),
    };
    let mut lines = match &report.watch {
        None => vec![format!("edgeallow {} on {host}: {end}", report.command)],
        // What is new of the pages is all that there is to tell.
        Some(watch) => {
            let head = format!("edgeallow watch on {host}:");
            [head].into_iter().chain(watch.news.iter().take(LINES).map(|n| n.text.clone())).collect()
        }
    };
    if let Some(e) = &report.error {
        lines.push(format!("error: {}", e.message));
    }
    let looked_at = |b: &&crate::report::BackendReport| report.watch.is_none() && (b.changed || b.error.is_some());
    for b in report.backends.iter().filter(looked_at) {
        let why = b.error.as_ref().map_or_else(
            || format!("{} ({})", b.state.as_str(), story::count(b.changes.len())),
            |e| format!("{}: {}", b.state.as_str(), e.message),
        );
        lines.push(format!("{}: {why}", b.name));
    }
    if let Some(reach) = report.reach.as_ref().filter(|r| r.verdict != ReachVerdict::Accepted) {
        lines.push(format!("reach: {}", reach.verdict.as_str()));
    }
    if let Some(list) = &report.list {
        for (sign, nets) in [('+', &list.added), ('-', &list.removed)] {
            if !nets.is_empty() {
                let more = nets.len().saturating_sub(LINES);
                let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
                lines.push(format!("{sign} {}{rest}", nets[..nets.len() - more].join(" ")));
            }
        }
    }
    let warnings = report.warnings.iter().take(LINES);
    lines.extend(warnings.map(|w| format!("warning: {} [{}]", w.message, w.id)));
    // Slack takes these three for its own: its documentation, "Escaping text".
    lines.join("\n").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{BackendReport, BackendState, ListReport};

    fn report() -> Report {
        let mut report = Report::blank("sync", false);
        report.changed = true;
        report.exit = Exit::Backend;
        report.list = Some(ListReport {
            added: (0..10).map(|n| format!("198.51.{n}.0/24")).collect(),
            removed: vec!["2001:db8::/32".into()],
            pending_removal: vec![],
        });
        let error = Error::new(ErrorKind::Program, "ufw said <no> & left");
        report.backends = vec![
            BackendReport { changed: true, ..BackendReport::idle("nftables", BackendState::Applied, None) },
            BackendReport { error: Some((&error).into()), ..BackendReport::idle("ufw", BackendState::Undone, None) },
            BackendReport::idle("csf", BackendState::Skipped, None),
        ];
        report.warnings = vec![Warning::new("list-old", "the list is 9 days old")];
        report
    }

    #[test]
    fn a_message_is_short_and_escaped() {
        assert_eq!(
            message(&report(), "web1"),
            "edgeallow sync on web1: failed with exit status 4, after 0 changes\n\
             nftables: applied (0 changes)\n\
             ufw: undone: ufw said &lt;no&gt; &amp; left\n\
             + 198.51.0.0/24 198.51.1.0/24 198.51.2.0/24 198.51.3.0/24 198.51.4.0/24 198.51.5.0/24 198.51.6.0/24 \
             198.51.7.0/24 and 2 more\n\
             - 2001:db8::/32\n\
             warning: the list is 9 days old [list-old]"
        );
    }

    #[test]
    fn which_runs_are_told_of() {
        let touch = |dir: &std::path::Path, name: &str| HookConfig {
            command: vec!["/bin/sh".into(), "-c".into(), format!("echo x >>{}", dir.join(name).display())],
            ..HookConfig::default()
        };
        for (changed, exit, dry_run, told) in [
            (true, Exit::Ok, false, "c"),
            (true, Exit::Ok, true, ""),
            (false, Exit::Ok, false, ""),
            (false, Exit::Pending, false, ""),
            (false, Exit::Locked, false, ""),
            (false, Exit::List, false, "f"),
            (false, Exit::Refused, false, "f"),
            (false, Exit::Usage, false, "f"),
            (true, Exit::Backend, false, "cf"),
            (false, Exit::Backend, true, ""),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let config =
                Config { on_change: touch(dir.path(), "c"), on_failure: touch(dir.path(), "f"), ..Config::default() };
            let report = Report { changed, exit, dry_run, ..report() };
            let manner = Manner { offline: true, progress: &|_| {}, leave: &AtomicBool::new(false) };
            assert_eq!(run(&config, Events::of(&report), &report, &manner), []);
            let found: String = ["c", "f"].into_iter().filter(|n| dir.path().join(n).exists()).collect();
            assert_eq!(found, told, "{changed} {exit:?} {dry_run}");
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_without_the_secret() {
        for (text, words) in [
            ("command = ['']", "name is missing"),
            ("webhook = 'http://hooks.example/secret'", "on_change.webhook is not the address"),
            ("webhook = 'https://hooks.example/secret'\nwebhook_file = '/x'", "both"),
            ("timeout = 0", "no time"),
        ] {
            let config: HookConfig = toml::from_str(text).unwrap();
            let error = config.check("on_change").unwrap_err();
            assert!(error.message.contains(words) && !format!("{error:?}").contains("secret"), "{error:?}");
        }
        let config: HookConfig = toml::from_str("webhook_file = '/no/such/file'").unwrap();
        assert_eq!(config.check("on_change"), Ok(()));
        assert!(config.webhook().unwrap_err().message.contains("/no/such/file can't be read"));
        let config: HookConfig = toml::from_str("webhook_file = '/dev/zero'").unwrap();
        assert!(config.webhook().unwrap_err().message.contains("it is not a regular file"));
    }
    #[test]
    fn wherever_an_address_slips_in_it_is_refused_and_not_shown() {
        const AT: &str = "https://hooks.example/services/T0/secret?a=b";
        let values = [
            format!("'{AT}'"),
            format!("\"{AT}"),
            AT.to_owned(),
            format!("['{AT}', 5]"),
            format!("[\n  '{AT}',\n  ['secret'],\n]"),
            format!("{{ url = '{AT}' }}"),
            format!("{{ '{AT}' = 1 }}"),
            format!("'''\n{AT}\n'''"),
            format!("'{AT}' timeout = '3s'"),
            format!("'{AT}'\n'{AT}' = 3"),
            format!("'{AT}'\n{AT}"),
            "'secret, expected 5'".to_owned(),
            "['secret', {}]".to_owned(),
        ];
        let quoted = format!("'{AT}'");
        let keys = ["command", "webhook", "webhook_file", "timeout", "webhok", "'x y'", &quoted];
        let mut tried = 0;
        for section in ["on_change", "on_failure"] {
            for value in &values {
                let mut texts = vec![format!("{section} = {value}"), format!("{section} = [{value}]")];
                texts.push(format!("[{section}.{value}]\nx = 1"));
                for key in keys {
                    texts.push(format!("# mine\n[{section}]\n{key} = {value}"));
                    texts.push(format!("{section}.{key} = {value}"));
                    texts.push(format!("{section} = {{ {key} = {value} }}"));
                    texts.push(format!("[{section}]\n{key} = {value}\n{key} = {value}"));
                    texts.push(format!("[[{section}]]\n{key} = {value}"));
                    texts.push(format!("{section}.{key}.{key} = {value}"));
                }
                for text in texts {
                    match Config::parse(&text, "config.toml") {
                        Err(e) => assert!(!format!("{e:?}").contains("secret"), "{text}: {e:?}"),
                        // Where it belongs.
                        Ok(_) => assert!(text.contains("webhook = "), "{text}"),
                    }
                    tried += 1;
                }
            }
        }
        assert!(tried > 1000);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_key_and_what_belongs_there() {
        for (text, words) in [
            ("on_change = 'x'", "config.toml, line 1: `on_change`: what stands there can't be used: a section with"),
            ("[on_change]\ncommand = 'x'", "line 2: `command`: what stands there can't be used: a list of words"),
            (
                "[on_change]\nwebhook = ['x']",
                "line 2: `webhook`: what stands there can't be used: an address in quotes",
            ),
            ("[on_change]\n\nwebhook_file = 5", "line 3: `webhook_file`: what stands there can't be used: the path"),
            (
                "[on_failure]\ntimeout = 'soon'",
                "line 2: `timeout`: what stands there can't be used: a number of seconds",
            ),
            ("[on_failure]\nwebhok = 'x'", "line 2: unknown key `webhok`"),
            ("[on_failure]\n'https://x' = 'x'", "line 2: unknown key"),
            ("[on_failure]\nwebhook_file = 'https://x'", "config.toml: on_failure.webhook_file doesn't name a file"),
            ("[on_failure]\nwebhook_file = '/https://x'", "config.toml: on_failure.webhook_file doesn't name a file"),
            ("metrics = ['https://x']", "line 1: `metrics`: "),
            ("[source]\nconnect_timeout = 'https://x'", "line 2: `connect_timeout`: what stands there can't be used"),
        ] {
            let e = Config::parse(text, "config.toml").unwrap_err();
            assert!(e.message.contains(words) && !format!("{e:?}").contains("https:"), "{text}: {e:?}");
        }
    }
}
