//! The text of our file, and what virtual hosts say of mod_evasive.
//!
//! Belongs here: Apache's language, as far as it is needed. Does not: where the file lies ([`super::seen`]).

use std::fmt::Write as _;

use ipnet::IpNet;

use super::{Variant, cover};
use crate::allowlist::Prefixes;

const HEAD: &str = "\
# Written by edgeallow, which replaces it. Don't edit it; write your own DOSWhitelist lines elsewhere.
# `edgeallow remove --backend mod_evasive` takes it out.
";

/// The file for these prefixes. Each range stands in a comment before the lines that it takes.
#[must_use]
pub fn render(module: &str, variant: Variant, prefixes: &Prefixes) -> String {
    let mut out = format!("{HEAD}<IfModule {module}>\n");
    // Writing to a String can't fail.
    for net in prefixes.iter() {
        match (variant, net) {
            (Variant::Cidr, net) => drop(writeln!(out, "    # {net}\n    DOSWhitelist {net}")),
            (Variant::Octets, IpNet::V4(net)) => {
                let _ = writeln!(out, "    # {net}");
                for pattern in cover::patterns(net) {
                    let _ = writeln!(out, "    DOSWhitelist {pattern}");
                }
            }
            (Variant::Octets, IpNet::V6(_)) => {}
        }
    }
    out.push_str("</IfModule>\n");
    out
}

/// The ranges that a file of ours holds.
#[must_use]
pub fn held(content: &[u8]) -> Prefixes {
    let text = String::from_utf8_lossy(content);
    text.lines().filter_map(|l| l.trim().strip_prefix("# ")?.parse::<IpNet>().ok()).collect()
}

/// Whether a virtual host in this file has a `DOS…` directive of its own, and doesn't include our file after it.
///
/// Read as bytes: an administrator's file may be in any encoding.
#[must_use]
pub fn wipes(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content).replace("\\\r\n", "").replace("\\\n", "");
    let (mut inside, mut found) = (false, false);
    for line in text.lines() {
        let line = line.trim().to_ascii_lowercase();
        if line.starts_with("<virtualhost") {
            inside = true;
        } else if line.starts_with("</virtualhost") {
            if found {
                return true;
            }
            inside = false;
        } else if inside && line.starts_with("dos") {
            found = true;
        } else if inside && line.starts_with("include") && line.contains("edgeallow-evasive") {
            found = false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes() -> Prefixes {
        ["131.0.72.0/22", "2400:cb00::/32"].iter().map(|n| n.parse::<IpNet>().unwrap()).collect()
    }

    #[test]
    fn cidr_is_silently_ignored_by_1_10_1_so_octets_are_written() {
        let text = render("evasive20_module", Variant::Octets, &prefixes());
        let body: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(body[..3], ["<IfModule evasive20_module>", "    # 131.0.72.0/22", "    DOSWhitelist 131.0.72.*"]);
        assert_eq!(body.len(), 7, "IPv6 can't be said: {text}");
        assert_eq!(held(text.as_bytes()), prefixes().only(crate::allowlist::Family::V4));
    }

    #[test]
    fn from_2_4_0_both_families_are_written_as_they_are() {
        let text = render("evasive_module", Variant::Cidr, &prefixes());
        assert!(
            text.contains("    DOSWhitelist 131.0.72.0/22\n") && text.contains("    DOSWhitelist 2400:cb00::/32\n")
        );
        assert_eq!(held(text.as_bytes()), prefixes());
    }

    #[test]
    fn a_dos_directive_inside_a_virtual_host_is_seen_in_any_file() {
        assert!(wipes(b"<VirtualHost *:80>\r\n  # caf\xe9\r\n\tDOSPageCount 5\r\n</VirtualHost>\r\n"));
        assert!(wipes(b" <virtualHost *:80>\nDOS\\\nEnabled on\n</VirtualHost>"));
        assert!(!wipes(b"DOSPageCount 5\n<VirtualHost *:80>\n# DOSPageCount 5\n</VirtualHost>\nDOSSiteCount 2\n"));
        assert!(!wipes(
            b"<VirtualHost *>\nDOSPageCount 5\nInclude conf-available/edgeallow-evasive.conf\n</VirtualHost>"
        ));
    }
}
