//! A site's name, as people type it: an address out of a browser is as good as a name.
//!
//! Belongs here: what is typed, made what the DNS and a TLS handshake take. Does not: asking for it ([`crate::probe`]).

use std::{fmt, net::IpAddr, str::FromStr};

use reqwest::Url;

/// A name, and the port if one was typed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// In lower case, without the final dot; letters beyond ASCII as IDNA writes them (RFC 5891).
    pub name: String,
    /// `8443` of `https://example.com:8443/`.
    pub port: Option<u16>,
}

/// Why something is no name of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoSite {
    /// An address.
    Address(IpAddr),
    /// Nothing that can be a name.
    Malformed,
}

impl fmt::Display for NoSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => {
                write!(f, "{ip} is an address, not a name: give the site's name, and the address as --origin {ip}")
            }
            Self::Malformed => f.write_str(
                "that can't be the name of a site: it has letters, digits and hyphens between dots, such as www.example.com",
            ),
        }
    }
}

impl std::error::Error for NoSite {}

impl FromStr for Site {
    type Err = NoSite;

    /// Scheme, user, path and question are dropped. A default port that is written out doesn't count as typed.
    fn from_str(typed: &str) -> Result<Self, NoSite> {
        let typed = typed.trim();
        let (scheme, rest) = match typed.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
            Some((_, rest)) => ("http", rest),
            None => ("http", typed),
        };
        // An IPv6 address without brackets is no authority.
        if let Ok(ip) = rest.parse() {
            return Err(NoSite::Address(ip));
        }
        let url = Url::parse(&format!("{scheme}://{rest}")).map_err(|_| NoSite::Malformed)?;
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Err(NoSite::Address(ip));
        }
        // RFC 1035, 2.3.4.
        let fits = host.len() <= 253 && host.split('.').all(|part| (1..=63).contains(&part.len()));
        // RFC 952 and 1123, and the underscore that some names have all the same: nothing that means more to a shell.
        let fits = fits && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !fits {
            return Err(NoSite::Malformed);
        }
        Ok(Self { name: host.to_owned(), port: url.port() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_as_it_is_typed() {
        for (typed, name, port) in [
            ("example.com", "example.com", None),
            ("  WWW.Example.COM. ", "www.example.com", None),
            ("https://example.com/shop?session=secret#top", "example.com", None),
            ("HTTPS://example.com:443", "example.com", None),
            ("http://example.com:443", "example.com", Some(443)),
            ("example.com:8443/admin", "example.com", Some(8443)),
            ("https://user:word@example.com:8443/", "example.com", Some(8443)),
            ("Bücher.example", "xn--bcher-kva.example", None),
            ("wss://bücher.example/chat", "xn--bcher-kva.example", None),
            ("_dmarc.example.com", "_dmarc.example.com", None),
            ("localhost", "localhost", None),
        ] {
            assert_eq!(typed.parse(), Ok(Site { name: name.into(), port }), "{typed}");
        }
    }

    #[test]
    fn what_is_no_name_is_said() {
        for (typed, ip) in [
            ("192.0.2.1", "192.0.2.1"),
            ("http://192.0.2.1:8080/", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("https://[2001:db8::1]/", "2001:db8::1"),
        ] {
            assert_eq!(typed.parse::<Site>(), Err(NoSite::Address(ip.parse().unwrap())), "{typed}");
        }
        let long = "a".repeat(64);
        let plain = ["", "https://", ".", "a..example", "exa mple.com", "ex<ample.com", &long, "example.com:99999"];
        let odd = ["*.example.com", "example.com;id", "$(id).example.com", "a'b.example", "https://`id`.example/"];
        for typed in plain.into_iter().chain(odd) {
            assert_eq!(typed.parse::<Site>(), Err(NoSite::Malformed), "{typed}");
        }
    }
}
