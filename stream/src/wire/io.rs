// SPDX-License-Identifier: LGPL-2.1-or-later
//! What encoders write to and decoders read from: a file of the engine, the cursor of `inspect`, bytes in memory.
//!
//! All numbers in a stream are big-endian. A name is one byte with its length, then its bytes.

/// Takes encoded bytes.
pub trait Output {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);

    /// Appends a few bytes, whose number is known at compile time.
    #[inline]
    fn put_array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.put(&bytes);
    }

    /// Appends a byte.
    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.put_array([value]);
    }

    /// Appends a 16-bit number.
    #[inline]
    fn put_be16(&mut self, value: u16) {
        self.put_array(value.to_be_bytes());
    }

    /// Appends a 32-bit number.
    #[inline]
    fn put_be32(&mut self, value: u32) {
        self.put_array(value.to_be_bytes());
    }

    /// Appends a 64-bit number.
    #[inline]
    fn put_be64(&mut self, value: u64) {
        self.put_array(value.to_be_bytes());
    }

    /// Appends a name with its length. A name longer than [`NAME_MAX`](super::limits::NAME_MAX) bytes is cut there.
    #[inline]
    fn put_name(&mut self, name: &[u8]) {
        let name = &name[..name.len().min(super::limits::NAME_MAX)];
        self.put_u8(name.len() as u8);
        self.put(name);
    }
}

impl Output for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Gives the bytes to decode.
///
/// `what` names the value for the error of an input that ends before it.
pub trait Input {
    /// Why a value could not be read.
    type Error;
    /// The bytes of a name.
    type Name;

    /// Reads `N` bytes. An input that latches its errors, as the engine's files do, may return zeros instead of an error.
    fn get<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Self::Error>;

    /// Reads a name.
    fn get_name(&mut self, what: &'static str) -> Result<Self::Name, Self::Error>;

    /// Reads a byte.
    #[inline]
    fn get_u8(&mut self, what: &'static str) -> Result<u8, Self::Error> {
        self.get(what).map(|[byte]| byte)
    }

    /// Reads a 16-bit number.
    #[inline]
    fn get_be16(&mut self, what: &'static str) -> Result<u16, Self::Error> {
        self.get(what).map(u16::from_be_bytes)
    }

    /// Reads a 32-bit number.
    #[inline]
    fn get_be32(&mut self, what: &'static str) -> Result<u32, Self::Error> {
        self.get(what).map(u32::from_be_bytes)
    }

    /// Reads a 64-bit number.
    #[inline]
    fn get_be64(&mut self, what: &'static str) -> Result<u64, Self::Error> {
        self.get(what).map(u64::from_be_bytes)
    }
}

/// The error of bytes in memory: they end before this value, or within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut(pub &'static str);

impl<'a> Input for &'a [u8] {
    type Error = Cut;
    type Name = &'a [u8];

    #[inline]
    fn get<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Cut> {
        let (value, rest) = self.split_first_chunk().ok_or(Cut(what))?;
        *self = rest;
        Ok(*value)
    }

    fn get_name(&mut self, what: &'static str) -> Result<&'a [u8], Cut> {
        let (len, rest) = self.split_first().ok_or(Cut(what))?;
        let (name, rest) = rest.split_at_checked(usize::from(*len)).ok_or(Cut(what))?;
        *self = rest;
        Ok(name)
    }
}

/// Returns the start of a text that has at most `most` bytes and ends with a whole character.
pub fn text_start(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoded_values_equal_the_encoded(a: u8, b: u16, c: u32, d: u64, name in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = Vec::new();
            bytes.put_u8(a);
            bytes.put_be16(b);
            bytes.put_be32(c);
            bytes.put_be64(d);
            bytes.put_name(&name);
            let mut input = &bytes[..];
            prop_assert_eq!(input.get_u8("a"), Ok(a));
            prop_assert_eq!(input.get_be16("b"), Ok(b));
            prop_assert_eq!(input.get_be32("c"), Ok(c));
            prop_assert_eq!(input.get_be64("d"), Ok(d));
            prop_assert_eq!(input.get_name("name"), Ok(&name[..name.len().min(255)]));
            prop_assert!(input.is_empty());
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(text_start("aé", 9), "aé");
        assert_eq!(text_start("aé", 3), "aé");
        assert_eq!(text_start("aé", 2), "a");
        assert_eq!(text_start("é", 1), "");
    }

    #[test]
    fn error_names_the_cut_value() {
        assert_eq!((&[1u8, 2, 3][..]).get_be32("a number"), Err(Cut("a number")));
        assert_eq!((&[3u8, b'a', b'b'][..]).get_name("a name"), Err(Cut("a name")));
        assert_eq!((&[][..] as &[u8]).get_name("a name"), Err(Cut("a name")));
    }
}
