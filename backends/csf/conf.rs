//! `csf.conf`: the settings that matter here.
//!
//! Belongs here: reading `NAME = "value"` as CSF does. Does not: what follows from a setting.

use std::collections::BTreeMap;

/// The settings that anything here asks for.
const ASKED: [&str; 13] = [
    "TESTING",
    "IPV6",
    "TCP_IN",
    "TCP6_IN",
    "UDP_IN",
    "UDP6_IN",
    "ETH_DEVICE",
    "WATCH_MODE",
    "MESSENGER",
    "MESSENGER6",
    "CT_LIMIT",
    "CT_SUBNET_LIMIT",
    "DOCKER",
];

/// CSF's settings, as far as they are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conf(BTreeMap<String, String>);

impl Conf {
    /// Reads the file. A setting is what stands between the first and the last double quote of its line.
    #[must_use]
    pub fn read(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut out = BTreeMap::new();
        for line in text.split(['\n', '\r']) {
            let line = line.trim();
            let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
            let name: String = name.split_whitespace().collect();
            let quoted = value.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"')).map(|(value, _)| value);
            if let Some(value) = quoted.filter(|_| ASKED.contains(&name.as_str())) {
                out.insert(name, value.to_owned());
            }
        }
        Self(out)
    }

    /// A setting's value, or nothing.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Whether a setting is on, by Perl's idea of true.
    #[must_use]
    pub fn on(&self, name: &str) -> bool {
        !matches!(self.get(name), "" | "0")
    }

    /// Whether a list of ports such as `22,80,30000:35000` has this one.
    #[must_use]
    pub fn lists(&self, name: &str, port: u16) -> bool {
        let number = |word: &str| word.trim().parse::<u16>().ok();
        self.get(name).split(',').any(|entry| match entry.split_once(':') {
            Some((first, last)) => number(first).zip(number(last)).is_some_and(|(a, b)| (a..=b).contains(&port)),
            None => number(entry) == Some(port),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_csf_reads_them() {
        let conf = Conf::read(
            b"# TESTING = \"1\"\nTESTING = \"0\"\r\n  IPV6=\"1\" # yes\nTCP_IN = \"22,30000:35000\"\nDOCKER = 1\n\
              WATCH_MODE = \"\"\nOTHER = \"1\"\nETH_DEVICE = \"eth0:1\"",
        );
        assert!(!conf.on("TESTING") && conf.on("IPV6") && !conf.on("DOCKER") && !conf.on("WATCH_MODE"));
        assert_eq!((conf.get("OTHER"), conf.get("ETH_DEVICE")), ("", "eth0:1"));
        assert!(conf.lists("TCP_IN", 22) && conf.lists("TCP_IN", 33000));
        assert!(!conf.lists("TCP_IN", 80) && !conf.lists("TCP6_IN", 22));
    }
}
