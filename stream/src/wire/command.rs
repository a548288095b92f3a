// SPDX-License-Identifier: LGPL-2.1-or-later
//! The commands of a COMMAND section and their payloads (QEMU 7.2, `migration/savevm.c`).
//!
//! ```text
//! command              = 0x08 number(be16) len(be16) payload
//! PING                 = value(be32)
//! PACKAGED             = length(be32)                    of the stream after the command
//! PREFLIGHT            = length(be32)                    of the request after the command, see `preflight`
//! POSTCOPY_ADVISE      = [page sizes(be64) target page size(be64)]
//! POSTCOPY_RAM_DISCARD = version(u8) block 0(u8) { start(be64) length(be64) }
//! RECV_BITMAP          = block
//! ```

use super::io::{Input, Output};
use super::limits::NAME_MAX;

/// A command from the source to the destination. The discriminant is its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    /// Open the return path.
    OpenReturnPath = 1,
    /// Answer with a PONG of the same value: be32.
    Ping = 2,
    /// Postcopy may follow. The payload is empty, or be64 summary of page sizes and be64 target page size.
    PostcopyAdvise = 3,
    /// Accept pages in any order from now on; device state follows.
    PostcopyListen = 4,
    /// Start the guest.
    PostcopyRun = 5,
    /// Discard ranges of a block, which were sent and are out of date.
    PostcopyRamDiscard = 6,
    /// An embedded stream of sections follows the command: be32 length in bytes.
    Packaged = 7,
    /// Continuous replication begins.
    EnableColo = 8,
    /// The source continues after a broken connection.
    PostcopyResume = 9,
    /// Send the received bitmap of the named block.
    RecvBitmap = 10,
    /// The source switches over (QEMU 10.0).
    SwitchoverStart = 11,
    /// A request of a preflight follows the command: be32 length in bytes. Only between two ends of libsavevm.
    Preflight = super::extensions::COMMAND_PREFLIGHT,
}

impl Command {
    /// All commands, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::OpenReturnPath,
        Self::Ping,
        Self::PostcopyAdvise,
        Self::PostcopyListen,
        Self::PostcopyRun,
        Self::PostcopyRamDiscard,
        Self::Packaged,
        Self::EnableColo,
        Self::PostcopyResume,
        Self::RecvBitmap,
        Self::SwitchoverStart,
        Self::Preflight,
    ];

    /// Returns the command with this number on the wire.
    pub fn from_wire(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|command| *command as u16 == number)
    }

    /// Returns the required length of the payload in bytes, or `None` if it varies.
    ///
    /// ENABLE_COLO has no entry in QEMU's table of lengths, which therefore requires 0.
    pub fn fixed_len(self) -> Option<u16> {
        match self {
            Self::OpenReturnPath
            | Self::PostcopyListen
            | Self::PostcopyRun
            | Self::EnableColo
            | Self::PostcopyResume
            | Self::SwitchoverStart => Some(0),
            Self::Ping | Self::Packaged | Self::Preflight => Some(4),
            Self::PostcopyAdvise | Self::PostcopyRamDiscard | Self::RecvBitmap => None,
        }
    }

    /// Returns the QEMU version that introduced the command, as major * 100 + minor, if it is newer than 7.2.
    pub fn since(self) -> Option<u32> {
        matches!(self, Self::SwitchoverStart).then_some(1000)
    }

    /// Returns the name that QEMU's traces and errors use.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenReturnPath => "OPEN_RETURN_PATH",
            Self::Ping => "PING",
            Self::PostcopyAdvise => "POSTCOPY_ADVISE",
            Self::PostcopyListen => "POSTCOPY_LISTEN",
            Self::PostcopyRun => "POSTCOPY_RUN",
            Self::PostcopyRamDiscard => "POSTCOPY_RAM_DISCARD",
            Self::Packaged => "PACKAGED",
            Self::EnableColo => "ENABLE_COLO",
            Self::PostcopyResume => "POSTCOPY_RESUME",
            Self::RecvBitmap => "RECV_BITMAP",
            Self::SwitchoverStart => "SWITCHOVER_START",
            Self::Preflight => "PREFLIGHT",
        }
    }
}

/// Number and payload length of a command, after its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandHead {
    /// The number, which may be unknown.
    pub number: u16,
    /// Length of the payload in bytes.
    pub len: u16,
}

impl CommandHead {
    /// Reads the head after the tag.
    pub fn decode<I: Input>(input: &mut I) -> Result<Self, I::Error> {
        let number = input.get_be16("a command's number")?;
        Ok(Self { number, len: input.get_be16("a command's length")? })
    }
}

/// Appends a whole command.
///
/// # Panics
/// If the payload is longer than 65,535 bytes.
pub fn encode(out: &mut impl Output, command: Command, payload: &[u8]) {
    assert!(payload.len() <= usize::from(u16::MAX), "the payload of a command has a 16-bit length");
    out.put_u8(super::COMMAND);
    out.put_be16(command as u16);
    out.put_be16(payload.len() as u16);
    out.put(payload);
}

/// Reads the payload of PING: its value.
pub fn decode_ping<I: Input>(input: &mut I) -> Result<u32, I::Error> {
    input.get_be32("the value of a ping")
}

/// Reads the payload of PACKAGED: the length of the package in bytes.
pub fn decode_packaged<I: Input>(input: &mut I) -> Result<u32, I::Error> {
    input.get_be32("the length of a package")
}

/// The payload of POSTCOPY_ADVISE when RAM takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advise {
    /// The page sizes of all blocks, combined by OR, in bytes.
    pub page_sizes: u64,
    /// The target's page size in bytes.
    pub target_page: u64,
}

impl Advise {
    /// Bytes of the payload.
    pub const LEN: u16 = 16;

    /// Returns the payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(Self::LEN.into());
        payload.put_be64(self.page_sizes);
        payload.put_be64(self.target_page);
        payload
    }

    /// Reads the payload.
    pub fn decode<I: Input>(input: &mut I) -> Result<Self, I::Error> {
        let page_sizes = input.get_be64("the page sizes of the blocks")?;
        Ok(Self { page_sizes, target_page: input.get_be64("the target's page size")? })
    }
}

/// A part of a block, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Offset in the block.
    pub start: u64,
    /// Length.
    pub len: u64,
}

impl Range {
    const LEN: usize = 16;

    /// Reads a range.
    pub fn decode<I: Input>(input: &mut I) -> Result<Self, I::Error> {
        let start = input.get_be64("the start of a range")?;
        Ok(Self { start, len: input.get_be64("the length of a range")? })
    }
}

/// The payload of POSTCOPY_RAM_DISCARD before its ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard<N> {
    /// The version of the payload; only [`Discard::VERSION`] is known.
    pub version: u8,
    /// The block's name.
    pub block: N,
    /// The byte after the name, which must be 0.
    pub end: u8,
}

impl Discard<()> {
    /// The only version.
    pub const VERSION: u8 = 0;
    /// Most ranges in one command: as many as its 16-bit length holds beside the longest name.
    pub const RANGES_MAX: usize = (u16::MAX as usize - 3 - NAME_MAX) / Range::LEN;
    /// Shortest payload in bytes: a name of one byte and one range.
    pub const LEN_MIN: u16 = 1 + 2 + 1 + Range::LEN as u16;

    /// Returns the payload. At most [`Discard::RANGES_MAX`] ranges fit a command.
    pub fn encode(block: &[u8], ranges: impl Iterator<Item = Range>) -> Vec<u8> {
        let mut payload = vec![Self::VERSION];
        payload.put_name(block);
        payload.put_u8(0);
        for range in ranges {
            payload.put_be64(range.start);
            payload.put_be64(range.len);
        }
        payload
    }

    /// Returns the number of ranges in a payload of `len` bytes whose block has a name of `name_len` bytes, or `None` if
    /// the length does not fit a whole number of ranges.
    pub fn ranges(len: usize, name_len: usize) -> Option<usize> {
        let left = len.checked_sub(3 + name_len)?;
        left.is_multiple_of(Range::LEN).then_some(left / Range::LEN)
    }
}

impl<N> Discard<N> {
    /// Reads the payload up to the ranges.
    pub fn decode<I: Input<Name = N>>(input: &mut I) -> Result<Self, I::Error> {
        let version = input.get_u8("the version of a discard")?;
        let block = input.get_name("the block of a discard")?;
        Ok(Self { version, block, end: input.get_u8("the end of a block's name")? })
    }
}

/// Returns the payload of RECV_BITMAP.
pub fn encode_recv_bitmap(block: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(1 + block.len());
    payload.put_name(block);
    payload
}

/// Reads the payload of RECV_BITMAP: the name of the block.
pub fn decode_recv_bitmap<I: Input>(input: &mut I) -> Result<I::Name, I::Error> {
    input.get_name("the block of a bitmap")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn from_wire_reverses_the_number() {
        for (at, command) in Command::ALL.into_iter().enumerate() {
            assert!(command == Command::Preflight || command as usize == at + 1);
            assert_eq!(Command::from_wire(command as u16), Some(command));
        }
        assert_eq!(Command::from_wire(0), None);
        assert_eq!(Command::from_wire(12), None);
    }

    proptest! {
        #[test]
        fn decoded_commands_equal_the_encoded(number in 0..Command::ALL.len(), payload in proptest::collection::vec(any::<u8>(), 0..600)) {
            let command = Command::ALL[number];
            let mut bytes = Vec::new();
            encode(&mut bytes, command, &payload);
            let mut input = &bytes[..];
            prop_assert_eq!(input.get_u8("the tag"), Ok(crate::wire::COMMAND));
            let head = CommandHead::decode(&mut input).unwrap();
            prop_assert_eq!(Command::from_wire(head.number), Some(command));
            prop_assert_eq!((usize::from(head.len), input), (payload.len(), &payload[..]));
        }

        #[test]
        fn decoded_advises_equal_the_encoded(page_sizes: u64, target_page: u64) {
            let advise = Advise { page_sizes, target_page };
            let payload = advise.encode();
            prop_assert_eq!(payload.len(), usize::from(Advise::LEN));
            prop_assert_eq!(Advise::decode(&mut &payload[..]), Ok(advise));
        }

        #[test]
        fn decoded_discards_equal_the_encoded(
            block in proptest::collection::vec(any::<u8>(), 1..256),
            ranges in proptest::collection::vec(any::<(u64, u64)>(), 0..20),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, len)| Range { start, len }).collect();
            let payload = Discard::encode(&block, ranges.iter().copied());
            let mut input = &payload[..];
            prop_assert_eq!(Discard::decode(&mut input), Ok(Discard { version: 0, block: &block[..], end: 0 }));
            prop_assert_eq!(Discard::ranges(payload.len(), block.len()), Some(ranges.len()));
            prop_assert_eq!(Discard::ranges(payload.len() + 1, block.len()), None);
            for range in ranges {
                prop_assert_eq!(Range::decode(&mut input), Ok(range));
            }
            prop_assert!(input.is_empty());
        }

        #[test]
        fn decoded_bitmap_requests_equal_the_encoded(block in proptest::collection::vec(any::<u8>(), 0..256)) {
            let payload = encode_recv_bitmap(&block);
            prop_assert_eq!(decode_recv_bitmap(&mut &payload[..]), Ok(&block[..]));
        }
    }

    #[test]
    fn largest_discard_fits_a_command() {
        let ranges = std::iter::repeat_n(Range { start: 0, len: 1 }, Discard::RANGES_MAX);
        assert!(Discard::encode(&[b'x'; NAME_MAX], ranges).len() <= usize::from(u16::MAX));
    }
}
