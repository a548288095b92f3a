// SPDX-License-Identifier: LGPL-2.1-or-later
//! The name of a device. Short names are stored inside the entry, so that a lookup touches one place in memory.

use std::ops::Deref;

/// Longest name in bytes that needs no allocation. A path on the PCI bus with a device's name fits.
const SHORT: usize = 46;

/// The immutable bytes of a name.
pub enum Name {
    /// A name of at most `SHORT` bytes.
    Short {
        /// Length in bytes.
        len: u8,
        /// The name, padded with zeros.
        bytes: [u8; SHORT],
    },
    /// A longer name.
    Long(Box<[u8]>),
}

impl From<&[u8]> for Name {
    fn from(name: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(start), Ok(len)) => {
                start.copy_from_slice(name);
                Self::Short { len, bytes }
            }
            _ => Self::Long(name.into()),
        }
    }
}

impl Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_length_keeps_its_bytes() {
        for len in 0..=255 {
            let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            let name = Name::from(&bytes[..]);
            assert_eq!(*name, bytes[..]);
            assert_eq!(matches!(name, Name::Long(_)), len > SHORT);
        }
    }
}
