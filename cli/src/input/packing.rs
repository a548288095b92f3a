// SPDX-License-Identifier: LGPL-2.1-or-later
//! How a stream is compressed.

use std::io::{self, Read};

use crate::failure::{Failure, Result};

/// A compression that is read here, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// The stream as it is, or what is no stream at all.
    Plain,
    /// gzip, of any number of members.
    Gzip,
    /// zstd.
    Zstd,
}

/// How many bytes tell.
pub const TELLING: usize = 6;

/// How files begin that only other programs read, and which do.
const OTHERS: [(&[u8], &str); 4] =
    [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x04\x22\x4d\x18", "lz4"), (b"\x89LZO", "lzop")];

impl Packing {
    /// What the bytes that `name` starts with tell.
    pub fn of(name: &str, start: &[u8]) -> Result<Self> {
        if let Some((_, program)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
            let way = format!("`{program} -dc FILE | savevm ... -` reads it");
            return Err(Failure::new(format!("{name} is compressed with {program}; {way}")));
        }
        Ok(match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        })
    }

    /// The stream in what `packed` gives.
    pub fn unpack(self, packed: impl Read + 'static) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            Self::Plain => Box::new(packed),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
            Self::Zstd => Box::new(zstd::Decoder::new(packed)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_named() {
        for start in [&b"QEVM"[..], b"", b"\x1f", b"BZ"] {
            assert_eq!(Packing::of("f", start).ok(), Some(Packing::Plain));
        }
        let Err(Failure::Message(message)) = Packing::of("vm.xz", b"\xfd7zXZ\0\0\x04") else {
            panic!("xz is not read")
        };
        assert!(message.contains("vm.xz is compressed with xz; `xz -dc"), "{message}");
    }
}
