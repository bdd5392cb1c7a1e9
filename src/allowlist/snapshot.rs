//! The list that is built into the binary: the last resort of a machine that never reached Cloudflare.

use super::{RawList, parse};
use crate::error::Result;

/// The day on which the built-in list was taken from Cloudflare.
pub const DATE: &str = "2026-11-22";

/// The two published text lists, byte for byte.
const LISTS: [(&str, &[u8]); 2] = [
    ("the built-in IPv4 list", include_bytes!("data/ips-v4")),
    ("the built-in IPv6 list", include_bytes!("data/ips-v6")),
];

/// The built-in list, parsed by the same code as any other.
///
/// # Errors
/// None with the lists that are built in (a test sees to it).
pub fn built_in() -> Result<RawList> {
    let mut list = RawList::default();
    for (name, bytes) in LISTS {
        list.extend(parse::text(name, bytes)?);
    }
    Ok(list)
}
