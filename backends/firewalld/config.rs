//! The `[firewalld]` section of the configuration.

use serde::Deserialize;

/// The operator's wishes for firewalld.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FirewalldConfig {
    /// Where our rules stand.
    pub method: Method,
    /// When firewalld may be told to reload.
    pub reload: Reload,
}

/// Where our rules stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Method {
    /// In a policy of our own where firewalld knows policies (0.9), else in the default zone.
    #[default]
    Auto,
    /// In a policy of our own, before all zones.
    Policy,
    /// In the default zone.
    Zone,
}

/// When firewalld may be told to reload, which forgets whatever is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Reload {
    /// Where nothing would be forgotten.
    #[default]
    Safe,
    /// Whenever it is needed.
    Always,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_reads_and_unknown_keys_are_errors() {
        let read: FirewalldConfig = toml::from_str("method = \"zone\"\nreload = \"always\"").unwrap();
        assert_eq!(read, FirewalldConfig { method: Method::Zone, reload: Reload::Always });
        assert!(toml::from_str::<FirewalldConfig>("zone = \"public\"").is_err());
    }
}
