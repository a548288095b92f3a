// SPDX-License-Identifier: LGPL-2.1-or-later
//! The digest of a device's layout.

/// A digest of a layout: FNV-1a with 64 bits. Both ends must compute the same one, whatever built them.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        // Most numbers are small. The length byte keeps different sequences apart.
        let bytes = number.to_le_bytes();
        let len = 8 - (number.leading_zeros() / 8) as usize;
        self.byte(len as u8);
        bytes[..len].iter().for_each(|byte| self.byte(*byte));
    }

    /// Adds a string.
    pub fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        text.iter().for_each(|byte| self.byte(*byte));
    }

    /// Returns the digest, which is never 0.
    pub fn finish(self) -> u64 {
        self.0.max(1)
    }
}
