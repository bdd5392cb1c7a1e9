//! The `[nftables]` section of the configuration file.
//!
//! Belongs here: what can be set, and what is wrong with it. Does not: what follows from it.

use serde::Deserialize;

use crate::nft::{ChainId, TableFamily, TableId};

/// `[nftables]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NftablesConfig {
    /// Exactly the chains to attach to: `["inet filter input"]`. Empty: every native base chain on input that can
    /// refuse.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub attach: Vec<ChainName>,
    /// How the rules come back after a boot.
    pub persist: Persist,
}

/// How the rules come back after a boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Persist {
    /// A drop-in where systemd runs nftables.service, else an include.
    #[default]
    Auto,
    /// A systemd drop-in on nftables.service.
    DropIn,
    /// A line at the end of the distribution's configuration.
    Include,
    /// Not at all: the boot unit's sync brings them back.
    None,
}

/// A chain as it is written in the configuration: `inet filter input`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ChainName(pub ChainId);

impl TryFrom<String> for ChainName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [family, table, chain] = words[..] else {
            return Err(format!("`{text}` is no chain: write family, table and chain, as in `inet filter input`"));
        };
        let family = match family {
            "inet" => TableFamily::Inet,
            "ip" => TableFamily::Ip,
            "ip6" => TableFamily::Ip6,
            other => return Err(format!("`{other}` is no family with an input hook: use inet, ip or ip6")),
        };
        // nft quotes nothing in names, so what could end a word in its language can't be in one.
        let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./\\".contains(c));
        match [table, chain].into_iter().find(|name| !plain(name)) {
            Some(name) => Err(format!("`{name}` is no name of a table or chain")),
            None => Ok(Self(TableId::new(family, table).chain(chain))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<NftablesConfig, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn a_full_section_is_read() {
        let config = read("attach = [\"inet filter input\", \"ip6 raw  in\"]\npersist = \"drop-in\"").unwrap();
        assert_eq!(config.attach[1].0.to_string(), "ip6 raw in");
        assert_eq!(config.persist, Persist::DropIn);
        assert_eq!(read("").unwrap(), NftablesConfig::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, message) in [
            ("attach = [\"filter input\"]", "write family, table and chain"),
            ("attach = [\"bridge filter input\"]", "use inet, ip or ip6"),
            ("attach = [\"inet filter in;put\"]", "`in;put` is no name"),
            ("persist = \"yes\"", "expected one of `auto`, `drop-in`, `include`, `none`"),
            ("presist = \"none\"", "unknown field `presist`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(message) && error.contains("line 1"), "{error}");
        }
    }
}
