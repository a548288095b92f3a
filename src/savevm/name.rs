// SPDX-License-Identifier: LGPL-2.1-or-later
//! A device's name, kept where the device is: who looks for it finds both in one place of memory.

use std::ops::Deref;

/// So long are the names that need no memory of their own; a path on the PCI bus with a device's name fits.
const SHORT: usize = 46;

/// Bytes of a name, which do not change.
pub enum Name {
    /// The first `len` of these.
    Short {
        /// How many count.
        len: u8,
        /// The name, and zeros.
        bytes: [u8; SHORT],
    },
    /// More than fit there.
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
    fn names_of_every_length_stay_what_they_are() {
        for len in 0..=255 {
            let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            let name = Name::from(&bytes[..]);
            assert_eq!(*name, bytes[..]);
            assert_eq!(matches!(name, Name::Long(_)), len > SHORT);
        }
    }
}
