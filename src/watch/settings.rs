//! What is watched, how often, and what may be done about it: the `[watch]` section, with the command line on top.
//!
//! Belongs here: the settings, their defaults, and whether they make sense. Does not: using them.

use std::{net::IpAddr, time::Duration};

use reqwest::Url;
use rustls::pki_types::ServerName;
use serde::Deserialize;

use crate::{
    error::{Error, ErrorKind, Result},
    probe::http::Scheme,
    source,
};

/// `[watch]`: what `edgeallow watch` watches.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WatchConfig {
    /// The addresses of pages, as visitors type them. Each is asked for through the edge and straight at the origin.
    pub urls: Vec<String>,
    /// The origin's address, if it isn't one of this machine's own.
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub origin: Option<IpAddr>,
    /// From the beginning of one round to that of the next.
    #[serde(deserialize_with = "crate::source::duration")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("type" = ["string", "integer"])))]
    pub every: Duration,
    /// How long an answer through the edge is waited for. Cloudflare itself takes some twenty seconds to find an origin
    /// silent.
    #[serde(deserialize_with = "crate::source::duration")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("type" = ["string", "integer"])))]
    pub timeout: Duration,
    /// How many failures in a row of the same page make it count as down.
    pub fail_after: u32,
    /// A program and its arguments, run when a page is down; no shell. It gets the JSON report on standard input.
    pub on_fail: Vec<String>,
    /// How long that program may take.
    #[serde(deserialize_with = "crate::source::duration")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("type" = ["string", "integer"])))]
    pub on_fail_timeout: Duration,
    /// The shortest time between two runs of that program, whatever page they are for.
    #[serde(deserialize_with = "crate::source::duration")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("type" = ["string", "integer"])))]
    pub cooldown: Duration,
    /// How often that program is run in an hour at most, for all pages together.
    pub max_per_hour: u32,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            origin: None,
            every: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            fail_after: 3,
            on_fail: Vec::new(),
            on_fail_timeout: Duration::from_secs(60),
            cooldown: Duration::from_secs(600),
            max_per_hour: 3,
        }
    }
}

impl WatchConfig {
    /// Whether the settings make sense. Opens no connection.
    ///
    /// # Errors
    /// `config`
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(ErrorKind::Config, format!("watch.{what}")));
        if self.every < Duration::from_secs(1) {
            return wrong("every is less than a second: a watch shall not be a load");
        }
        if self.timeout.is_zero() || self.on_fail_timeout.is_zero() {
            return wrong("timeout and watch.on_fail_timeout must be more than 0: nothing is done in no time");
        }
        if self.fail_after == 0 {
            return wrong("fail_after is 0: at least one failure is needed to act on");
        }
        if self.on_fail.first().is_some_and(String::is_empty) {
            return wrong("on_fail begins with an empty word: the program's name is missing");
        }
        if self.on_fail.first().is_some_and(|name| name.contains('/') && !name.starts_with('/')) {
            return wrong("on_fail names its program relative to a folder: write the whole path, or the bare name");
        }
        if self.on_fail.iter().any(|word| word.contains('\0')) {
            return wrong("on_fail has a NUL character in it");
        }
        self.targets().map(|_| ()).map_err(|e| Error { message: format!("watch.urls: {}", e.message), ..e })
    }

    /// The pages.
    ///
    /// # Errors
    /// `config` for one that can't be watched, or two that can't be told apart.
    pub fn targets(&self) -> Result<Vec<Target>> {
        let mut targets: Vec<Target> = Vec::new();
        for url in &self.urls {
            let target = Target::parse(url)?;
            if targets.iter().any(|t| t.shown == target.shown) {
                let what = format!("{} is there twice; what follows a question mark doesn't count", target.shown);
                return Err(Error::new(ErrorKind::Config, what).hint("leave one out"));
            }
            targets.push(target);
        }
        Ok(targets)
    }
}

/// The words of a command line, split as a shell would, without its other meanings.
///
/// # Errors
/// A quote that isn't closed, or nothing at all.
pub fn words(text: &str) -> Result<Vec<String>, String> {
    match shlex::split(text) {
        Some(words) if !words.is_empty() => Ok(words),
        Some(_) => Err("there is no program in it".to_owned()),
        None => Err("a quote in it is not closed".to_owned()),
    }
}

/// A length of time on the command line: a number of seconds, or with a unit.
///
/// # Errors
/// Anything else, in words.
pub fn time(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let length = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    length.ok_or_else(|| format!("`{text}` is not a length of time such as 60, 90s or 5m"))
}

/// A page that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The whole address. Its query may be secret.
    pub url: Url,
    /// The same, fit to be shown, logged and remembered: without the query.
    pub shown: String,
    /// As the `Host` field has it.
    pub host: String,
    /// For SNI.
    pub name: ServerName<'static>,
    /// The port, also at the origin.
    pub port: u16,
    /// The path with its query.
    pub path: String,
    /// Whether the origin is asked with TLS.
    pub scheme: Scheme,
}

impl Target {
    /// Reads an address; without a scheme it is meant to be https.
    ///
    /// # Errors
    /// `config`, without showing what may be a password.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: String| {
            Error::new(ErrorKind::Config, what).hint("write an address as visitors do: https://www.example.com/")
        };
        let text = text.trim();
        let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&whole).map_err(|e| wrong(format!("an address can't be understood: {e}")))?;
        let shown = source::shown(url.as_str());
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(wrong(format!("{shown}: {other} can't be watched, only http and https"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(format!("{shown}: a user or a password in an address is not asked with; leave it out")));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_owned();
        let name = ServerName::try_from(bare).map_err(|_| wrong(format!("{shown}: that is no name of a site")))?;
        let port = url.port_or_known_default().unwrap_or(443);
        let query = url.query().map(|q| format!("?{q}")).unwrap_or_default();
        let path = format!("{}{query}", url.path());
        let host = url.port().map_or_else(|| host.clone(), |p| format!("{host}:{p}"));
        Ok(Self { shown, host, name, port, path, scheme, url })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_it_is_typed_and_shown_without_secrets() {
        let t = Target::parse("https://Shop.Example:8443/a/b?token=secret#top").unwrap();
        assert_eq!((t.shown.as_str(), t.host.as_str()), ("https://shop.example:8443/a/b?…", "shop.example:8443"));
        assert_eq!((t.port, t.path.as_str(), t.scheme), (8443, "/a/b?token=secret", Scheme::Https));
        let t = Target::parse("bücher.example").unwrap();
        assert_eq!((t.shown.as_str(), t.port), ("https://xn--bcher-kva.example/", 443));
        assert_eq!(Target::parse("http://shop.example").unwrap().port, 80);
        for bad in ["ftp://shop.example/", "https://me:secret@shop.example/", "https://", "", "https://a b/"] {
            let error = Target::parse(bad).unwrap_err();
            assert!(error.kind == ErrorKind::Config && !format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        assert_eq!(WatchConfig::default().check(), Ok(()));
        for (text, words) in [
            ("every = 0", "every"),
            ("timeout = 0", "timeout"),
            ("fail_after = 0", "fail_after"),
            ("on_fail = ['']", "name is missing"),
            ("on_fail = ['./act']", "relative"),
            ("urls = ['ftp://a.example']", "watch.urls: ftp://a.example"),
            ("urls = ['https://a.example/?a', 'a.example/?b']", "twice"),
        ] {
            let config: WatchConfig = toml::from_str(text).unwrap();
            assert!(config.check().unwrap_err().message.contains(words), "{text}");
        }
    }

    #[test]
    fn a_command_is_split_into_words_and_nothing_else_is_done_to_it() {
        assert_eq!(words("systemctl restart 'my nginx'").unwrap(), ["systemctl", "restart", "my nginx"]);
        assert_eq!(words("echo $HOME; rm *").unwrap(), ["echo", "$HOME;", "rm", "*"]);
        assert!(words("echo 'open").is_err() && words("  ").is_err());
        assert_eq!((time("60"), time("5m")), (Ok(Duration::from_secs(60)), Ok(Duration::from_secs(300))));
        assert!(time("-1s").is_err() && time("soon").is_err());
    }
}
