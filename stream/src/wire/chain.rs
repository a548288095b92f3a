// SPDX-License-Identifier: LGPL-2.1-or-later
//! The section by which an incremental snapshot names its parent. It is the library's own; QEMU rejects it, since it has no
//! such device. It is the first section of the stream.
//!
//! ```text
//! FULL section "savevm/snapshot", instance 0, version 1, with the number 0xffffffff:
//!   length of the parent(be64), its hash(16 bytes), its name
//! ```
//!
//! Behind the stream, an incremental snapshot has a list of its pages and a trailer. `chain/list.rs` has their layout.

use super::io::{Input, Output};
use std::fmt;

/// Name of the section.
pub const SECTION: &str = "savevm/snapshot";
/// Version of the section.
pub const VERSION: u32 = 1;
/// Number of the section. Devices are counted from 0.
pub const SECTION_ID: u32 = u32::MAX;

/// The magic number of the list of pages.
pub const LIST_MAGIC: &[u8; 8] = b"SVMPAGES";
/// The trailer's magic number.
pub const TRAILER_MAGIC: &[u8; 8] = b"SVMHASH1";
/// Bytes of the trailer: the magic number, the length of the list, the hash of the list.
pub const TRAILER_LEN: usize = 32;

/// Identifies the contents of a file: its length, and XXH3 (128 bits) of all its bytes, or of the list of pages of an
/// incremental snapshot, which has the hashes of all other bytes. It detects changes. It does not protect from an attacker,
/// because another file with the same hash can be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Length of the file in bytes.
    pub length: u64,
    /// The hash, big-endian.
    pub hash: [u8; 16],
}

impl fmt::Display for Identity {
    /// Writes the first half of the hash, which is enough to tell files apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hash[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where the content of a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// One byte that fills it.
    Filled(u8),
    /// Bytes of a file: its number, their offset and their hash ([`page_hash`]).
    At {
        /// Number of the file; the youngest is 0.
        file: usize,
        /// Offset in the file.
        offset: u64,
        /// The hash.
        hash: u64,
    },
}

/// XXH3 (64 bits) of a page, to detect a change after its file was checked.
pub fn page_hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// The contents of the section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link<N> {
    /// The parent's contents.
    pub parent: Identity,
    /// The parent's path, relative to the directory of the child. At most 255 bytes.
    pub name: N,
}

impl<N: AsRef<[u8]>> Link<N> {
    /// Appends the contents.
    pub fn encode(&self, out: &mut impl Output) {
        out.put_be64(self.parent.length);
        out.put_array(self.parent.hash);
        out.put_name(self.name.as_ref());
    }
}

impl<N> Link<N> {
    /// Reads the contents.
    pub fn decode<I: Input<Name = N>>(input: &mut I) -> Result<Self, I::Error> {
        let length = input.get_be64("the length of the parent")?;
        let hash = input.get("the hash of the parent")?;
        Ok(Self { parent: Identity { length, hash }, name: input.get_name("the name of the parent")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::io::Cut;

    #[test]
    fn decoded_link_equals_the_encoded() {
        let link = Link { parent: Identity { length: 7, hash: *b"0123456789abcdef" }, name: &b"base"[..] };
        let mut bytes = Vec::new();
        link.encode(&mut bytes);
        assert_eq!(Link::decode(&mut &bytes[..]), Ok(link.clone()));
        assert_eq!(Link::decode(&mut &bytes[..26]), Err(Cut("the name of the parent")));
        assert_eq!(link.parent.to_string(), "3031323334353637");
    }
}
