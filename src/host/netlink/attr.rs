//! Netlink attributes: reading them out of bytes and putting them in. All safe, all bounds-checked.
//!
//! Source: linux/netlink.h (`struct nlattr`: length with header, type, value, padded to four bytes).

/// Bits of an attribute's type that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

/// The attributes in some bytes. Ends at the first that doesn't fit.
pub(super) struct Attrs<'a>(pub &'a [u8]);

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        let kind = u16::from_ne_bytes(*self.0.get(2..)?.first_chunk()?) & TYPE_MASK;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

/// The first attribute of this type.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    Attrs(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A number in network order.
pub(super) fn be32(bytes: &[u8], kind: u16) -> Option<u32> {
    find(bytes, kind)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// A 64-bit number in network order.
pub(super) fn be64(bytes: &[u8], kind: u16) -> Option<u64> {
    find(bytes, kind)?.first_chunk().map(|b| u64::from_be_bytes(*b))
}

/// A string, without its final NUL.
pub(super) fn string(bytes: &[u8], kind: u16) -> Option<String> {
    find(bytes, kind).map(text)
}

/// Bytes up to the first NUL as text.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Adds an attribute.
pub(super) fn put(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // No value of ours comes near 64 KiB but the list of elements, which is cut into messages before.
    let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    into.extend_from_slice(&len.to_ne_bytes());
    into.extend_from_slice(&kind.to_ne_bytes());
    into.extend_from_slice(value);
    into.resize(into.len().next_multiple_of(4), 0);
}

/// Adds a number in network order.
pub(super) fn put_be32(into: &mut Vec<u8>, kind: u16, value: u32) {
    put(into, kind, &value.to_be_bytes());
}

/// Adds a string with its final NUL.
pub(super) fn put_str(into: &mut Vec<u8>, kind: u16, value: &str) {
    put(into, kind, &[value.as_bytes(), &[0]].concat());
}

/// Adds attributes inside an attribute.
pub(super) fn nest(into: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = into.len();
    put(into, kind | NESTED, &[]);
    fill(into);
    let len = u16::try_from(into.len() - start).unwrap_or(u16::MAX);
    into[start..start + 2].copy_from_slice(&len.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out() {
        let mut bytes = Vec::new();
        put_str(&mut bytes, 1, "abc");
        nest(&mut bytes, 2, |b| put_be32(b, 3, 7));
        put(&mut bytes, 4, &[1, 2, 3]);
        assert_eq!(string(&bytes, 1).unwrap(), "abc");
        assert_eq!(be32(find(&bytes, 2).unwrap(), 3), Some(7));
        assert_eq!(find(&bytes, 4), Some(&[1, 2, 3][..]));
        assert_eq!(find(&bytes, 5), None);
    }

    #[test]
    fn torn_bytes_end_the_list() {
        assert_eq!(Attrs(&[8, 0, 1, 0, 9]).count(), 0);
        assert_eq!(Attrs(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(Attrs(&[]).count(), 0);
    }
}
