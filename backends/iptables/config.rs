//! The `[iptables]` section of the configuration.

use serde::Deserialize;

/// Above how many prefixes an ipset takes the place of one rule a prefix, unless the operator says otherwise.
///
/// 30 linear rules cost a packet about as much as three set look-ups; 64 keeps Cloudflare's own 22 ranges free of a
/// second tool and everything larger out of linear search.
pub const IPSET_THRESHOLD: usize = 64;

/// The operator's wishes for iptables.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IptablesConfig {
    /// Above how many prefixes (both families together) `ipset = "auto"` uses an ipset.
    pub ipset_threshold: usize,
    /// Whether prefixes stand in an ipset or in one rule each.
    pub ipset: IpsetUse,
    /// Whether to edit the files that the iptables services load at boot.
    pub persist: bool,
}

impl Default for IptablesConfig {
    fn default() -> Self {
        Self { ipset_threshold: IPSET_THRESHOLD, ipset: IpsetUse::Auto, persist: true }
    }
}

/// When an ipset is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum IpsetUse {
    /// Above [`IptablesConfig::ipset_threshold`].
    #[default]
    Auto,
    /// Whatever the size.
    Always,
    /// Not at all: one rule a prefix, whatever that costs a packet.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_reads_and_unknown_keys_are_errors() {
        let read: IptablesConfig = toml::from_str("ipset = \"always\"\npersist = false").unwrap();
        assert_eq!(read, IptablesConfig { ipset: IpsetUse::Always, persist: false, ..IptablesConfig::default() });
        assert!(toml::from_str::<IptablesConfig>("ipsets = \"always\"").is_err());
        assert_eq!(toml::from_str::<IptablesConfig>("").unwrap(), IptablesConfig::default());
    }
}
