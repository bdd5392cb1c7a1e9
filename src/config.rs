//! The configuration file: TOML in, [`Config`] out, every default written down once.
//!
//! Belongs here: what can be set, and what is refused, with line and suggestion. Does not: what follows from it.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, de};

use crate::{
    allowlist::{Policy, Prefixes, parse},
    backends::{firewalld::FirewalldConfig, iptables::IptablesConfig, nftables::NftablesConfig},
    error::{Error, ErrorKind, Result, io_reason},
    host::read_bounded,
    observe::{hooks::HookConfig, logs::LogFormat},
    plan::Protocol,
    source::SourceConfig,
    watch::settings::WatchConfig,
};

/// Where the configuration is read from by default; there need not be one.
pub const DEFAULT_PATH: &str = "/etc/edgeallow/config.toml";

/// The largest file that is read: one with a million prefixes under `extra` has 25 MB.
const LARGEST: u64 = 32 << 20;

/// All that can be configured.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Config {
    /// Which backends run: `["auto"]`, or names.
    pub backends: Vec<String>,
    /// The ports that Cloudflare shall reach.
    #[serde(deserialize_with = "ports")]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeSet<u16>"))]
    pub ports: BTreeSet<u16>,
    /// The transport protocols.
    #[serde(deserialize_with = "protocols")]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeSet<Protocol>"))]
    pub protocols: BTreeSet<Protocol>,
    /// The operator's own prefixes, allowed like Cloudflare's. Exempt from the rules of trust, never from syntax.
    #[serde(deserialize_with = "extra")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub extra: Prefixes,
    /// Whether a sync ends with a look at all packet filters: do the ranges get through?
    pub verify: bool,
    /// How long a range must have vanished before it is removed.
    #[serde(deserialize_with = "duration")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub removal_grace: SignedDuration,
    /// Warnings, by the id in brackets, that are known and no reason to speak with `--quiet`. An id that this edgeallow
    /// doesn't know is none it could give.
    pub acknowledged: Vec<String>,
    /// Where runs that act write metrics for Prometheus.
    pub metrics: Option<PathBuf>,
    /// Where logs go, and how; `--log-format` wins.
    pub log_format: LogFormat,
    /// `[on_change]`: told when a run has changed something.
    #[serde(deserialize_with = "crate::observe::hooks::section")]
    pub on_change: HookConfig,
    /// `[on_failure]`: told when a run has failed.
    #[serde(deserialize_with = "crate::observe::hooks::section")]
    pub on_failure: HookConfig,
    /// `[source]`
    pub source: SourceConfig,
    /// `[watch]`: what `edgeallow watch` watches, and what it does.
    pub watch: WatchConfig,
    /// `[limits]`
    pub limits: Limits,
    /// `[nftables]`
    pub nftables: NftablesConfig,
    /// `[iptables]`
    pub iptables: IptablesConfig,
    /// `[firewalld]`
    pub firewalld: FirewalldConfig,
}

/// What a list must keep to, and from which size on a look samples.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Limits {
    /// Most prefixes in a list.
    pub max_prefixes: usize,
    /// Fewest IPv4 prefixes; 0 allows a list without IPv4.
    pub min_v4: usize,
    /// Fewest IPv6 prefixes; 0 allows a list without IPv6.
    pub min_v6: usize,
    /// Shortest IPv4 prefix length that is believed.
    pub widest_v4: u8,
    /// Shortest IPv6 prefix length that is believed.
    pub widest_v6: u8,
    /// Most of the last list's address space, in percent, that may be gone at once.
    pub max_shrink_percent: u8,
    /// How many times the last list's address space a list may have.
    pub max_growth: u32,
    /// Up to how many prefixes every run compares element by element.
    pub full_check: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let p = Policy::default();
        Self {
            max_prefixes: p.max_prefixes,
            min_v4: p.min_v4,
            min_v6: p.min_v6,
            widest_v4: p.widest_v4,
            widest_v6: p.widest_v6,
            max_shrink_percent: p.max_shrink_percent,
            max_growth: p.max_growth,
            full_check: 10_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backends: vec!["auto".to_owned()],
            ports: BTreeSet::from([80, 443]),
            protocols: BTreeSet::from([Protocol::Tcp]),
            extra: Prefixes::default(),
            verify: true,
            removal_grace: SignedDuration::from_hours(24),
            acknowledged: Vec::new(),
            metrics: None,
            log_format: LogFormat::default(),
            on_change: HookConfig::default(),
            on_failure: HookConfig::default(),
            source: SourceConfig::default(),
            watch: WatchConfig::default(),
            limits: Limits::default(),
            nftables: NftablesConfig::default(),
            iptables: IptablesConfig::default(),
            firewalld: FirewalldConfig::default(),
        }
    }
}

impl Config {
    /// Reads the file. `named` means that the operator named it, so that it must be there.
    ///
    /// # Errors
    /// `config`, with file and line.
    pub fn load(path: &Path, named: bool) -> Result<Self> {
        Self::read(path, named).map(|(config, _)| config)
    }

    /// The same, with its text, which is empty where there is no file.
    ///
    /// # Errors
    /// `config`, with file and line.
    pub fn read(path: &Path, named: bool) -> Result<(Self, String)> {
        let bytes = match read_bounded(path, LARGEST, true) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => return Ok(Default::default()),
            Err(e) => {
                let what = format!("cannot read the configuration {}: {}", path.display(), io_reason(&e));
                let hint = match e.kind() {
                    // As under edgeallow-fetch.service, whose user exists only while it runs.
                    std::io::ErrorKind::PermissionDenied => {
                        "let everybody read it who runs edgeallow (chmod 644): no secret needs to stand in it, webhook_file \
                         names a file that only root reads"
                    }
                    _ => "give another file with --config",
                };
                return Err(Error::new(ErrorKind::Config, what).hint(hint));
            }
        };
        let text = String::from_utf8(bytes).map_err(|e| {
            Error::new(ErrorKind::Config, format!("{} is not UTF-8 text ({})", path.display(), e.utf8_error()))
        })?;
        Ok((Self::parse(&text, &path.display().to_string())?, text))
    }

    /// Reads the text of a configuration; `name` is what it is called in messages.
    ///
    /// # Errors
    /// `config`, with the line and, for an unknown key, what may have been meant.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|s| text[..s.start.min(text.len())].matches('\n').count() + 1);
            let place = line.map_or_else(|| name.to_owned(), |n| format!("{name}, line {n}"));
            let message = e.message().trim().trim_end_matches('.').replace('\n', " ");
            let (mut message, mut hint) = explain(&message);
            if message.starts_with("invalid ") || message.starts_with(UNSHOWN) {
                let key = line.and_then(|n| text.lines().nth(n - 1)).and_then(key_of);
                message = key.map_or_else(|| message.clone(), |key| format!("`{key}`: {message}"));
                hint = hint.or_else(|| Some("examples/config.toml shows every key with its default".to_owned()));
            }
            let e = Error::new(ErrorKind::Config, format!("{place}: {message}"));
            match hint {
                Some(hint) => e.hint(hint),
                None => e,
            }
        })?;
        if config.backends.is_empty() {
            let what = format!("{name}: `backends` is empty, so nothing would be opened");
            return Err(Error::new(ErrorKind::Config, what).hint("write `backends = [\"auto\"]`, or names"));
        }
        if config.metrics.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            let what = format!("{name}: `metrics` is empty, and names no file");
            return Err(Error::new(ErrorKind::Config, what).hint("name a file, or leave `metrics` out for none"));
        }
        let hooks = config.on_change.check("on_change").and_then(|()| config.on_failure.check("on_failure"));
        let checked = hooks.and_then(|()| config.source.check()).and_then(|()| config.watch.check());
        checked.map_err(|e| Error { message: format!("{name}: {}", e.message), ..e })?;
        Ok(config)
    }

    /// This one, with all that decides what is opened, and where, as another has it. Whom it tells, and how, stays.
    #[must_use]
    pub fn opening_as(self, other: Self) -> Self {
        let Self { verify, acknowledged, metrics, log_format, on_change, on_failure, source, watch, .. } = self;
        Self { verify, acknowledged, metrics, log_format, on_change, on_failure, source, watch, ..other }
    }

    /// The rules of trust as this configuration sets them.
    #[must_use]
    pub fn policy(&self, allow_shrink: bool) -> Policy {
        let l = &self.limits;
        Policy {
            max_prefixes: l.max_prefixes,
            min_v4: l.min_v4,
            min_v6: l.min_v6,
            widest_v4: l.widest_v4,
            widest_v6: l.widest_v6,
            max_shrink_percent: l.max_shrink_percent,
            max_growth: l.max_growth,
            allow_shrink,
        }
    }
}

/// How a message begins that keeps to itself what is written there.
pub(crate) const UNSHOWN: &str = "what stands there can't be used";

/// The key of a line, if it looks like one: what has slipped into its place may be a secret.
fn key_of(line: &str) -> Option<&str> {
    let key = line.split_once('=')?.0.trim();
    is_key(key).then_some(key)
}

fn is_key(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !text.is_empty() && text.len() <= LONGEST_KEY && text.chars().all(fits)
}

/// No key that there is has more letters, with its section's name before it.
const LONGEST_KEY: usize = 40;

/// serde's "unknown field `prots`, expected one of `ports`, …" as a sentence and a suggestion.
fn explain(message: &str) -> (String, Option<String>) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(unknown) = message.starts_with("unknown field").then(|| quoted.next()).flatten() else {
        // An address may hold a password, in whichever place it is.
        if !message.contains("://") {
            return (message.to_owned(), None);
        }
        let wanted = message.rsplit_once(", expected ").map_or("", |(_, wanted)| wanted);
        let wanted = if wanted.is_empty() { String::new() } else { format!(": expected {wanted}") };
        return (format!("{UNSHOWN}{wanted}"), None);
    };
    let known: Vec<&str> = quoted.collect();
    let nearest = known.iter().map(|k| (strsim::damerau_levenshtein(unknown, k), *k)).min();
    let hint = match nearest {
        Some((distance, key)) if distance <= 3 && distance < key.len() => format!("did you mean `{key}`?"),
        _ => format!("what can be set here: {}", known.join(", ")),
    };
    let message = if is_key(unknown) { format!("unknown key `{unknown}`") } else { "unknown key".to_owned() };
    (message, Some(hint))
}

fn ports<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeSet<u16>, D::Error> {
    let numbers = Vec::<i64>::deserialize(input)?;
    if numbers.is_empty() {
        return Err(de::Error::custom("ports: at least one is needed"));
    }
    numbers.into_iter().map(|n| port(n).map_err(de::Error::custom)).collect()
}

/// A port number, or what is wrong with it.
fn port(number: i64) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{number} is not a port: ports go from 1 to 65535")),
    }
}

fn protocols<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeSet<Protocol>, D::Error> {
    let set = BTreeSet::deserialize(input)?;
    if set.is_empty() { Err(de::Error::custom("protocols: at least one is needed")) } else { Ok(set) }
}

fn extra<'de, D: Deserializer<'de>>(input: D) -> Result<Prefixes, D::Error> {
    let entries = Vec::<String>::deserialize(input)?;
    let raw = parse::entries("extra", entries).map_err(|e| {
        let hint = e.hint.as_ref().map_or_else(String::new, |h| format!(" ({h})"));
        de::Error::custom(format!("{e}{hint}"))
    })?;
    Ok(Prefixes::new(raw.v4, raw.v6))
}

fn duration<'de, D: Deserializer<'de>>(input: D) -> Result<SignedDuration, D::Error> {
    struct Words;
    impl de::Visitor<'_> for Words {
        type Value = SignedDuration;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration such as \"24h\" or \"90m\"")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<SignedDuration, E> {
            match text.parse::<SignedDuration>() {
                Ok(d) if !d.is_negative() => Ok(d),
                _ => Err(E::custom(format!("`{text}` is not a duration such as \"24h\" or \"90m\""))),
            }
        }
    }
    input.deserialize_str(Words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (String, Option<String>) {
        let e = Config::parse(text, "config.toml").unwrap_err();
        assert_eq!(e.kind, ErrorKind::Config);
        (e.message, e.hint)
    }

    #[test]
    fn nothing_set_means_the_defaults() {
        assert_eq!(Config::parse("", "config.toml").unwrap(), Config::default());
    }

    #[test]
    fn everything_can_be_set() {
        let text = "backends = ['nftables']\nports = [443, 8443]\nprotocols = ['tcp', 'udp']\n\
                    extra = ['10.0.0.0/8']\nremoval_grace = '2h'\n[limits]\nmax_prefixes = 9\nmin_v6 = 0\n";
        let c = Config::parse(text, "config.toml").unwrap();
        assert_eq!(c.ports, BTreeSet::from([443, 8443]));
        assert_eq!(c.removal_grace, SignedDuration::from_hours(2));
        assert_eq!((c.extra.len(), c.limits.max_prefixes, c.policy(true).min_v6), (1, 9, 0));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_a_suggestion() {
        let (message, hint) = refused("# mine\nprots = [80]\n");
        assert_eq!(message, "config.toml, line 2: unknown key `prots`");
        assert_eq!(hint.as_deref(), Some("did you mean `ports`?"));
        let (message, hint) = refused("[limits]\nzzzzzzzzzzzz = 1\n");
        assert_eq!(message, "config.toml, line 2: unknown key `zzzzzzzzzzzz`");
        assert!(hint.unwrap().starts_with("what can be set here: max_prefixes, "));
    }

    #[test]
    fn wrong_values_are_refused_in_plain_words() {
        for (text, words) in [
            ("ports = [0]", "0 is not a port"),
            ("ports = [70000]", "70000 is not a port"),
            ("ports = [-1]", "-1 is not a port"),
            ("ports = []", "at least one"),
            ("ports = 80", "line 1"),
            ("protocols = ['icmp']", "icmp"),
            ("extra = ['8.8.8.8']", "8.8.8.8/32"),
            ("extra = ['8.8.8.8/24']", "8.8.8.0/24"),
            ("removal_grace = 'soon'", "not a duration"),
            ("removal_grace = '-1h'", "not a duration"),
            ("ports = [80", "line 1"),
            ("metrics = ''", "`metrics` is empty"),
            ("[on_change]\ncommand = ['./hook.sh']", "whole path"),
        ] {
            let (message, _) = refused(text);
            assert!(message.contains(words), "{text}: {message}");
        }
    }
}
