//! The `[source]` section of the configuration: which endpoints, which authorities, how long.
//!
//! Belongs here: the settings, their defaults, and whether they make sense. Does not: using them.

use std::{path::PathBuf, time::Duration};

use reqwest::Url;
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// Where the list comes from and how patiently it is asked for. Every endpoint can point to an inner mirror.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SourceConfig {
    /// The JSON API, which gives both families and an etag in one document.
    pub api_url: String,
    /// The text list of IPv4 prefixes, asked when the API can't be reached.
    pub v4_url: String,
    /// The text list of IPv6 prefixes.
    pub v6_url: String,
    /// A PEM file of authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The time for one document: all attempts, redirects and pauses together. Only a pause that the server itself
    /// asks for (`Retry-After`, at most ten seconds) comes on top.
    #[serde(deserialize_with = "duration")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("type" = ["string", "integer"])))]
    pub timeout: Duration,
    /// The time for one connection: name, TCP and TLS.
    #[serde(deserialize_with = "duration")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("type" = ["string", "integer"])))]
    pub connect_timeout: Duration,
    /// The first pause before another attempt. The second is twice as long; both vary by a half either way.
    #[serde(deserialize_with = "duration")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("type" = ["string", "integer"])))]
    pub retry_wait: Duration,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            api_url: "https://api.cloudflare.com/client/v4/ips".into(),
            v4_url: "https://www.cloudflare.com/ips-v4".into(),
            v6_url: "https://www.cloudflare.com/ips-v6".into(),
            ca_file: None,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            retry_wait: Duration::from_millis(500),
        }
    }
}

impl SourceConfig {
    /// Whether the settings can be used at all. Reads no file and opens no connection.
    ///
    /// # Errors
    /// `config` for an address that is none, one that isn't https (or plain http to loopback), or a time of zero.
    pub fn check(&self) -> Result<()> {
        for (key, value) in [("api_url", &self.api_url), ("v4_url", &self.v4_url), ("v6_url", &self.v6_url)] {
            endpoint(value).map_err(|e| Error { message: format!("source.{key}: {}", e.message), ..e })?;
        }
        for (key, value) in [("timeout", self.timeout), ("connect_timeout", self.connect_timeout)] {
            if value.is_zero() {
                return Err(Error::new(ErrorKind::Config, format!("source.{key} is 0: nothing answers in no time"))
                    .hint(format!("leave source.{key} out for the default, or write for example \"5s\"")));
            }
        }
        Ok(())
    }
}

/// An address that may be asked: https, or plain http to this very machine.
pub(super) fn endpoint(text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|e| {
        // The text itself is left out: it may hold a password, and what can't be parsed can't be censored.
        Error::new(ErrorKind::Config, format!("the address can't be understood: {e}"))
            .hint("write a whole address, for example https://www.cloudflare.com/ips-v4")
    })?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        scheme => Err(Error::new(
            ErrorKind::Config,
            format!("{} is refused: a list may come over https only, not {scheme}", shown(&url)),
        )
        .hint("use an https address; plain http is accepted from 127.0.0.1, [::1] and localhost")),
    }
}

/// Whether the address names this very machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
}

/// An address fit to be shown and logged: without user, password, fragment, and what stands in the query.
pub(super) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let query = if url.query().is_some() { "?…" } else { "" };
    format!("{}://{host}{port}{}{query}", url.scheme(), url.path())
}

/// A length of time: a number of seconds, or text with a unit such as `"10s"`, `"500ms"`, `"1m 30s"`.
pub(crate) fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number of seconds or a length of time such as \"10s\"")]
    enum Form {
        Seconds(u32),
        Text(String),
    }
    match Form::deserialize(from)? {
        Form::Seconds(n) => Ok(Duration::from_secs(n.into())),
        Form::Text(text) => text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|d| Duration::try_from(d).ok())
            .ok_or_else(|| serde::de::Error::custom(format!("\"{text}\" is not a length of time such as \"10s\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_an_empty_section_means_them() {
        let config: SourceConfig = toml::from_str("").unwrap();
        assert_eq!(config, SourceConfig::default());
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn times_are_seconds_or_text_with_a_unit() {
        let config: SourceConfig =
            toml::from_str("timeout = 3\nconnect_timeout = \"1500ms\"\nretry_wait = \"1m 30s\"").unwrap();
        assert_eq!(config.timeout, Duration::from_secs(3));
        assert_eq!(config.connect_timeout, Duration::from_millis(1500));
        assert_eq!(config.retry_wait, Duration::from_secs(90));
        for bad in ["timeout = -1", "timeout = \"-1s\"", "timeout = \"soon\"", "timeout = true", "timeouts = 3"] {
            assert!(toml::from_str::<SourceConfig>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_https_or_this_very_machine() {
        for good in [
            "https://mirror.example/ips",
            "http://127.0.0.1:8080/ips",
            "http://127.9.9.9/",
            "http://[::1]/",
            "http://localhost/",
        ] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "http://mirror.example/ips",
            "http://localhost.example/",
            "http://[::ffff:127.0.0.1]/",
            "http://128.0.0.1/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "www.cloudflare.com/ips-v4",
            "",
        ] {
            assert_eq!(endpoint(bad).unwrap_err().kind, ErrorKind::Config, "{bad}");
        }
        let config = SourceConfig { v6_url: "http://mirror.example/".into(), ..SourceConfig::default() };
        assert!(config.check().unwrap_err().message.starts_with("source.v6_url: http://mirror.example/ is refused"));
    }

    #[test]
    fn a_time_of_zero_is_refused() {
        let config = SourceConfig { timeout: Duration::ZERO, ..SourceConfig::default() };
        assert_eq!(config.check().unwrap_err().kind, ErrorKind::Config);
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        let url = Url::parse("https://me:secret@mirror.example:8443/ips?token=secret#secret").unwrap();
        assert_eq!(shown(&url), "https://mirror.example:8443/ips?…");
    }
}
