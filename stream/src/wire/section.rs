// SPDX-License-Identifier: LGPL-2.1-or-later
//! Heads and footers of sections, the head of the stream and its description (QEMU 7.2, `migration/savevm.c`).
//!
//! ```text
//! START, FULL: tag(u8) id(be32) name instance(be32) version(be32)
//! PART, END:   tag(u8) id(be32)
//! footer:      0x7e id(be32)
//! description: 0x06 len(be32) JSON
//! ```

use super::io::{Input, Output};
use super::limits::NAME_MAX;
use super::{FILE_MAGIC, FILE_VERSION, SECTION_FOOTER, VMDESCRIPTION};

/// Most bytes of a section's head.
pub const HEAD_MAX: usize = 1 + 4 + 1 + NAME_MAX + 4 + 4;
/// Bytes of a footer.
pub const FOOTER_LEN: usize = 5;

/// What the head of a START or FULL section says of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceHead<N> {
    /// The device's name (QEMU's idstr).
    pub name: N,
    /// Its instance id.
    pub instance: u32,
    /// The version of its state.
    pub version: u32,
}

impl<N: AsRef<[u8]>> DeviceHead<N> {
    /// Appends the head after the id.
    #[inline]
    pub fn encode(&self, out: &mut impl Output) {
        out.put_name(self.name.as_ref());
        out.put_be32(self.instance);
        out.put_be32(self.version);
    }
}

impl<N> DeviceHead<N> {
    /// Reads the head after the id. The name may be empty.
    #[inline]
    pub fn decode<I: Input<Name = N>>(input: &mut I) -> Result<Self, I::Error> {
        Ok(Self {
            name: input.get_name("a device's name")?,
            instance: input.get_be32("a device's instance")?,
            version: input.get_be32("a device's version")?,
        })
    }
}

/// Appends magic and version.
pub fn encode_file_header(out: &mut impl Output) {
    out.put_be32(FILE_MAGIC);
    out.put_be32(FILE_VERSION);
}

/// Appends what all sections begin with.
#[inline]
pub fn encode_tag(out: &mut impl Output, tag: u8, id: u32) {
    out.put_u8(tag);
    out.put_be32(id);
}

/// Reads the id after a tag.
#[inline]
pub fn decode_id<I: Input>(input: &mut I) -> Result<u32, I::Error> {
    input.get_be32("a section's number")
}

/// Appends the footer of the section with this id. Two values cost less than one array of five bytes, which the compiler
/// builds in memory first.
#[inline]
pub fn encode_footer(out: &mut impl Output, id: u32) {
    out.put_u8(SECTION_FOOTER);
    out.put_be32(id);
}

/// Returns the footer of the section with this id, to compare with.
#[inline]
pub fn footer(id: u32) -> [u8; FOOTER_LEN] {
    let [a, b, c, d] = id.to_be_bytes();
    [SECTION_FOOTER, a, b, c, d]
}

/// Appends the description of a stream, which follows EOF.
pub fn encode_description(out: &mut impl Output, json: &[u8]) {
    out.put_u8(VMDESCRIPTION);
    out.put_be32(json.len() as u32);
    out.put(json);
}

/// Reads the length of the description after its tag, in bytes.
pub fn decode_description_len<I: Input>(input: &mut I) -> Result<u32, I::Error> {
    input.get_be32("the description's length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{SECTION_FULL, io::Cut};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoded_heads_equal_the_encoded(id: u32, name in proptest::collection::vec(any::<u8>(), 0..256), instance: u32, version: u32) {
            let mut bytes = Vec::new();
            encode_tag(&mut bytes, SECTION_FULL, id);
            let head = DeviceHead { name: &name[..], instance, version };
            head.encode(&mut bytes);
            prop_assert!(bytes.len() <= HEAD_MAX);
            let mut input = &bytes[..];
            prop_assert_eq!(input.get_u8("the tag"), Ok(SECTION_FULL));
            prop_assert_eq!(decode_id(&mut input), Ok(id));
            prop_assert_eq!(DeviceHead::decode(&mut input), Ok(head));
            prop_assert!(input.is_empty());
        }
    }

    #[test]
    fn decoded_descriptions_equal_the_encoded() {
        let mut bytes = Vec::new();
        encode_description(&mut bytes, b"{}");
        let mut input = &bytes[..];
        assert_eq!(input.get_u8("the tag"), Ok(VMDESCRIPTION));
        assert_eq!((decode_description_len(&mut input), input), (Ok(2), &b"{}"[..]));
    }

    #[test]
    fn encoding_matches_qemu() {
        let mut bytes = Vec::new();
        encode_file_header(&mut bytes);
        encode_tag(&mut bytes, SECTION_FULL, 7);
        DeviceHead { name: b"rtc", instance: 1, version: 2 }.encode(&mut bytes);
        encode_footer(&mut bytes, 7);
        assert!(bytes.ends_with(&footer(7)));
        assert_eq!(bytes, b"QEVM\0\0\0\x03\x04\0\0\0\x07\x03rtc\0\0\0\x01\0\0\0\x02\x7e\0\0\0\x07");
        assert_eq!(DeviceHead::decode(&mut &b"\x03rtc\0\0"[..]), Err(Cut("a device's instance")));
    }
}
