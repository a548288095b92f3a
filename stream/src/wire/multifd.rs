// SPDX-License-Identifier: LGPL-2.1-or-later
//! The further connections of a migration, which carry pages of RAM (QEMU's capability `multifd`).
//!
//! ```text
//! connection = hello packet*
//! hello      = magic(be32) version(be32) uuid(16 bytes) id(u8) zeros(39 bytes)
//! packet     = magic(be32) version(be32) flags(be32) pages_alloc(be32) normal(be32) payload size(be32) number(be64)
//!              zero(be32) zeros(28 bytes) block(256 bytes, NUL padded) offset(be64)[pages in a full packet] payload
//! ```
//! A head has the same size in every packet. The offsets of normal pages come first, then those of zero pages. The payload
//! has the content of the normal pages. QEMU before 9.0 has no zero pages in packets and leaves the payload size of a
//! packet without pages undefined.

use super::io::{Input, Output};
use super::limits::NAME_MAX;
use super::ram::PAGE_BITS;
use std::fmt;

/// First word of a hello and of a packet.
pub const MAGIC: u32 = 0x1122_3344;
/// The only version of both.
pub const VERSION: u32 = 1;
/// Size of a hello in bytes.
pub const HELLO_LEN: usize = 64;
/// Most bytes of pages in a packet.
pub const PACKET_PAGES_SIZE: usize = 512 << 10;
/// Size of a head without the offsets, in bytes.
pub const HEAD_LEN: usize = 320;
/// Size of the name of a block in bytes, with at least one NUL.
pub const BLOCK_NAME_LEN: usize = 256;
/// Largest accepted payload: QEMU reserves twice the size of a packet's pages for compressed ones.
pub const PAYLOAD_MAX: usize = 2 * PACKET_PAGES_SIZE;
/// Most further connections of a migration.
pub const CHANNELS_MAX: u32 = 64;

/// The sender waits for the other connections behind this packet.
pub const FLAG_SYNC: u32 = 1;
/// The packet has the state of a device (QEMU 10.0 and later) and another head.
pub const FLAG_DEVICE_STATE: u32 = 1 << 6;
/// Bits of the compression method.
const METHOD_MASK: u32 = 0x1f << 1;

/// How the payload of a packet is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    #[default]
    None,
    /// One zlib stream for all packets of a connection.
    Zlib,
    /// One zstd stream for all packets of a connection.
    Zstd,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 3] = [Self::None, Self::Zlib, Self::Zstd];

    /// Its bits in the flags of a packet.
    pub const fn flags(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Zlib => 1 << 1,
            Self::Zstd => 2 << 1,
        }
    }

    /// The method in the flags of a packet. `None` for one that only hardware of QEMU's has.
    pub fn of_flags(flags: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.flags() == flags & METHOD_MASK)
    }

    /// QEMU's name of the method.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// Number of pages in a full packet.
pub const fn pages_per_packet(page_bits: u32) -> usize {
    PACKET_PAGES_SIZE >> page_bits
}

/// Size of a head in bytes.
pub const fn head_len(page_bits: u32) -> usize {
    HEAD_LEN + 8 * pages_per_packet(page_bits)
}

/// Why a hello or a packet is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It ends too early.
    Cut,
    /// It begins with another number.
    Magic(u32),
    /// It has another version.
    Version(u32),
    /// It has the state of a device.
    DeviceState,
    /// It has a method that only QEMU with special hardware has, or unknown flags.
    Flags(u32),
    /// It allows for more pages than a packet can have.
    Allocated {
        /// Pages that it allows for.
        found: u32,
        /// Pages of a full packet.
        most: u32,
    },
    /// It has more pages than it allows for.
    Pages {
        /// Normal pages.
        normal: u32,
        /// Zero pages.
        zero: u32,
        /// Pages that it allows for.
        most: u32,
    },
    /// The payload of its normal pages has an impossible size.
    Payload {
        /// Size in bytes.
        found: u32,
        /// Number of normal pages.
        normal: u32,
    },
    /// It has pages and no name of a block.
    NoBlock,
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => write!(out, "it ends too early"),
            Self::Magic(found) => write!(out, "it begins with 0x{found:08x}, expected 0x{MAGIC:08x}"),
            Self::Version(found) => write!(out, "it has version {found}, expected {VERSION}"),
            Self::DeviceState => {
                write!(
                    out,
                    "it has the state of a device (QEMU's x-migration-multifd-transfer), which is not supported"
                )
            }
            Self::Flags(flags) => {
                write!(out, "it has flags 0x{flags:x}: a compression method other than none, zlib and zstd")
            }
            Self::Allocated { found, most } => write!(out, "it allows for {found} pages, expected at most {most}"),
            Self::Pages { normal, zero, most } => {
                write!(out, "it has {normal} normal and {zero} zero pages, expected at most {most}")
            }
            Self::Payload { found, normal } => write!(out, "it has a payload of {found} bytes for {normal} pages"),
            Self::NoBlock => write!(out, "it has pages and no name of a block"),
        }
    }
}

impl std::error::Error for Malformed {}

fn magic_and_version(input: &mut &[u8]) -> Result<(), Malformed> {
    match input.get_be32("the magic number").map_err(|_| Malformed::Cut)? {
        MAGIC => {}
        found => return Err(Malformed::Magic(found)),
    }
    match input.get_be32("the version").map_err(|_| Malformed::Cut)? {
        VERSION => Ok(()),
        found => Err(Malformed::Version(found)),
    }
}

/// The first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The UUID of the machine; zeros if it has none.
    pub uuid: [u8; 16],
    /// The number of the connection, from 0.
    pub id: u8,
}

impl Hello {
    /// Returns the encoded hello.
    pub fn encode(&self) -> [u8; HELLO_LEN] {
        let mut bytes = [0; HELLO_LEN];
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_be_bytes());
        bytes[8..24].copy_from_slice(&self.uuid);
        bytes[24] = self.id;
        bytes
    }

    /// Decodes a hello. The bytes behind the id have no meaning yet.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() < HELLO_LEN {
            return Err(Malformed::Cut);
        }
        magic_and_version(&mut bytes)?;
        let uuid = Input::get(&mut bytes, "the UUID").map_err(|_| Malformed::Cut)?;
        let id = bytes.get_u8("the number").map_err(|_| Malformed::Cut)?;
        Ok(Self { uuid, id })
    }
}

/// What a packet has besides its offsets and its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// See [`FLAG_SYNC`].
    pub sync: bool,
    /// How the payload is compressed. Without pages it has no meaning.
    pub method: Method,
    /// Number of pages with content.
    pub normal: u32,
    /// Number of pages of zeros.
    pub zero: u32,
    /// Size of the payload in bytes; 0 without normal pages.
    pub payload: u32,
    /// Number of the packet among those of all connections.
    pub number: u64,
}

/// A decoded packet. It borrows the bytes of its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The numbers.
    pub head: Head,
    /// The name of the block; empty without pages.
    pub block: &'a [u8],
    offsets: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Appends the head of a packet: `head_len(page_bits)` bytes. `offsets` has the normal pages, then the zero pages.
    pub fn encode(out: &mut impl Output, head: Head, block: &[u8], offsets: &[u64], page_bits: u32) {
        let most = pages_per_packet(page_bits);
        debug_assert!(offsets.len() == (head.normal + head.zero) as usize && offsets.len() <= most);
        debug_assert!(block.len() <= NAME_MAX && PAGE_BITS.contains(&page_bits));
        out.put_be32(MAGIC);
        out.put_be32(VERSION);
        out.put_be32(head.method.flags() | if head.sync { FLAG_SYNC } else { 0 });
        out.put_be32(most as u32);
        out.put_be32(head.normal);
        out.put_be32(head.payload);
        out.put_be64(head.number);
        out.put_be32(head.zero);
        out.put_array([0; 28]);
        out.put(block);
        out.put(&[0; BLOCK_NAME_LEN][block.len()..]);
        offsets.iter().for_each(|offset| out.put_be64(*offset));
        (offsets.len()..most).for_each(|_| out.put_be64(0));
    }

    /// Decodes a head of `head_len(page_bits)` bytes. Offsets and names of blocks are for the caller to check.
    pub fn decode(mut bytes: &'a [u8], page_bits: u32) -> Result<Self, Malformed> {
        if bytes.len() < head_len(page_bits) {
            return Err(Malformed::Cut);
        }
        let most = pages_per_packet(page_bits) as u32;
        magic_and_version(&mut bytes)?;
        let mut word = || bytes.get_be32("a number of the packet").map_err(|_| Malformed::Cut);
        let (flags, allocated, normal, payload) = (word()?, word()?, word()?, word()?);
        let number = u64::from(word()?) << 32 | u64::from(word()?);
        let zero = word()?;
        if flags & FLAG_DEVICE_STATE != 0 {
            return Err(Malformed::DeviceState);
        }
        let method = Method::of_flags(flags).filter(|_| flags & !(METHOD_MASK | FLAG_SYNC) == 0);
        let method = method.ok_or(Malformed::Flags(flags))?;
        if allocated > most {
            return Err(Malformed::Allocated { found: allocated, most });
        }
        if normal > allocated || zero > allocated - normal {
            return Err(Malformed::Pages { normal, zero, most: allocated });
        }
        let pages = (normal + zero) as usize;
        let expected = u64::from(normal) << page_bits;
        // QEMU 7.2 leaves the size of an earlier packet in a packet without pages.
        let payload = if normal > 0 { payload } else { 0 };
        let fits = match method {
            Method::None => u64::from(payload) == expected,
            Method::Zlib | Method::Zstd => payload as usize <= PAYLOAD_MAX && (payload > 0) == (normal > 0),
        };
        if !fits {
            return Err(Malformed::Payload { found: payload, normal });
        }
        let rest = &bytes[28..];
        let (name, offsets) = rest.split_at(BLOCK_NAME_LEN);
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_MAX);
        let block = if pages > 0 { &name[..end] } else { &[] };
        if pages > 0 && block.is_empty() {
            return Err(Malformed::NoBlock);
        }
        let sync = flags & FLAG_SYNC != 0;
        let head = Head { sync, method, normal, zero, payload, number };
        Ok(Self { head, block, offsets: &offsets[..8 * pages] })
    }

    fn numbers(bytes: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
        bytes.chunks_exact(8).map(|chunk| u64::from_be_bytes(chunk.try_into().unwrap_or_default()))
    }

    /// The offsets of the normal pages in the block.
    pub fn normal(&self) -> impl Iterator<Item = u64> + 'a {
        Self::numbers(&self.offsets[..8 * self.head.normal as usize])
    }

    /// The offsets of the zero pages in the block.
    pub fn zero(&self) -> impl Iterator<Item = u64> + 'a {
        Self::numbers(&self.offsets[8 * self.head.normal as usize..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn heads() -> impl Strategy<Value = (Head, Vec<u8>, Vec<u64>, u32)> {
        let methods = proptest::sample::select(&Method::ALL[..]);
        (PAGE_BITS, any::<bool>(), methods, any::<u64>(), any::<u32>(), "[a-z0-9/.@]{1,255}").prop_flat_map(
            |(bits, sync, method, number, size, block)| {
                let most = pages_per_packet(bits);
                (proptest::collection::vec(any::<u64>(), 0..=most), 0..=most).prop_map(move |(offsets, normal)| {
                    let normal = normal.min(offsets.len()) as u32;
                    let zero = offsets.len() as u32 - normal;
                    let payload = match (normal, method) {
                        (0, _) => 0,
                        (_, Method::None) => normal << bits,
                        _ => 1 + size % PAYLOAD_MAX as u32,
                    };
                    (Head { sync, method, normal, zero, payload, number }, block.clone().into_bytes(), offsets, bits)
                })
            },
        )
    }

    proptest! {
        #[test]
        fn decoded_hellos_equal_the_encoded(uuid: [u8; 16], id: u8) {
            let hello = Hello { uuid, id };
            prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        }

        #[test]
        fn decoded_packets_equal_the_encoded((head, block, offsets, bits) in heads()) {
            let mut bytes = Vec::new();
            Packet::encode(&mut bytes, head, &block, &offsets, bits);
            prop_assert_eq!(bytes.len(), head_len(bits));
            let packet = Packet::decode(&bytes, bits).unwrap();
            prop_assert_eq!(packet.head, head);
            prop_assert_eq!(packet.block, if offsets.is_empty() { &[] } else { &block[..] });
            prop_assert_eq!(packet.normal().chain(packet.zero()).collect::<Vec<_>>(), offsets);
            prop_assert_eq!(Packet::decode(&bytes[..bytes.len() - 1], bits), Err(Malformed::Cut));
        }

        #[test]
        fn decode_survives_any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 1344..1400), keep: bool) {
            if keep {
                bytes[..8].copy_from_slice(&[0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1]);
                bytes[8..20].fill(0);
            }
            if let Ok(packet) = Packet::decode(&bytes, 12) {
                prop_assert!(packet.normal().count() + packet.zero().count() <= 128);
            }
            let _ = Hello::decode(&bytes);
        }
    }

    fn packet(change: impl FnOnce(&mut [u8])) -> Result<Head, Malformed> {
        let mut bytes = Vec::new();
        let head = Head { normal: 2, payload: 2 * 4096, ..Head::default() };
        Packet::encode(&mut bytes, head, b"pc.ram", &[0, 4096], 12);
        change(&mut bytes);
        Packet::decode(&bytes, 12).map(|packet| packet.head)
    }

    #[test]
    fn wrong_numbers_are_rejected() {
        assert!(packet(|_| ()).is_ok());
        assert_eq!(packet(|bytes| bytes[3] = 0), Err(Malformed::Magic(0x1122_3300)));
        assert_eq!(packet(|bytes| bytes[7] = 2), Err(Malformed::Version(2)));
        assert_eq!(packet(|bytes| bytes[11] = 0x40), Err(Malformed::DeviceState));
        assert_eq!(packet(|bytes| bytes[11] = 8), Err(Malformed::Flags(8)));
        assert_eq!(packet(|bytes| bytes[10] = 1), Err(Malformed::Flags(0x100)));
        assert_eq!(packet(|bytes| bytes[15] = 129), Err(Malformed::Allocated { found: 129, most: 128 }));
        assert_eq!(packet(|bytes| bytes[15] = 1), Err(Malformed::Pages { normal: 2, zero: 0, most: 1 }));
        assert_eq!(packet(|bytes| bytes[35] = 127), Err(Malformed::Pages { normal: 2, zero: 127, most: 128 }));
        assert_eq!(packet(|bytes| bytes[22] = 0), Err(Malformed::Payload { found: 0, normal: 2 }));
        assert_eq!(packet(|bytes| bytes[64] = 0), Err(Malformed::NoBlock));
        // A compressed payload may have any size up to the limit, but for none at all.
        let compressed = |size: u32| {
            packet(|bytes| {
                bytes[11] = Method::Zstd.flags() as u8;
                bytes[20..24].copy_from_slice(&size.to_be_bytes());
            })
        };
        assert!(compressed(1).is_ok() && compressed(PAYLOAD_MAX as u32).is_ok());
        assert!(compressed(0).is_err() && compressed(PAYLOAD_MAX as u32 + 1).is_err());
    }

    #[test]
    fn stale_size_of_a_packet_without_pages_is_ignored() {
        let head = packet(|bytes| bytes[16..20].fill(0)).unwrap();
        assert_eq!((head.normal, head.payload), (0, 0));
    }
}
