// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads the capture of a further connection of a migration (QEMU's capability `multifd`) without loading it. The contents
//! of pages are skipped.

use std::fmt;
use std::io::{self, Read};

use super::printable;
use crate::wire::multifd::{HELLO_LEN, Hello, MAGIC, Malformed, Method, PACKET_PAGES_SIZE, Packet, head_len};
use crate::wire::ram::PAGE_BITS;

/// log2 of the usual page size of a target in bytes, if no packet shows it.
const USUAL_PAGE_BITS: u32 = 12;

/// What a capture has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multifd {
    /// Number and machine of the connection.
    pub hello: Hello,
    /// The target's page size in bytes.
    pub page_size: u64,
    /// Number of packets.
    pub packets: u64,
    /// Number of packets behind which the connection waits for the others.
    pub syncs: u64,
    /// Number of pages with content.
    pub normal: u64,
    /// Number of pages of zeros.
    pub zero: u64,
    /// Bytes of the pages with content, as they were sent.
    pub payload: u64,
    /// Number of bytes of the capture that were read.
    pub bytes: u64,
    /// How pages are compressed. `None` without pages.
    pub method: Option<Method>,
    /// Where and why it can't be read on.
    pub damage: Option<MultifdDamage>,
}

/// The place at which a capture is damaged or cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultifdDamage {
    /// Offset of the packet in bytes.
    pub offset: u64,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for MultifdDamage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "offset {}: {}", self.offset, self.text)
    }
}

/// A page in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultifdPage<'a> {
    /// The name of its block.
    pub block: &'a str,
    /// Its address in the block.
    pub address: u64,
    /// The target's page size in bytes.
    pub size: u64,
    /// It has only zeros, and no content follows.
    pub is_zero: bool,
}

/// Returns whether a file with these first bytes is the capture of a further connection.
pub fn is_multifd(first: &[u8]) -> bool {
    first.starts_with(&MAGIC.to_be_bytes())
}

/// Reads as much as there is. Returns the number of bytes.
fn fill(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < into.len() {
        match from.read(&mut into[have..]) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(have)
}

/// The target's page size, from the number of pages that the packet allows for. Packets with SYNC alone may allow for none.
fn page_bits(head: &[u8]) -> Option<u32> {
    let allocated = u32::from_be_bytes(head.get(12..16)?.try_into().ok()?);
    let size = (PACKET_PAGES_SIZE as u64).checked_div(allocated.into())?;
    (size.is_power_of_two() && PAGE_BITS.contains(&size.ilog2())).then(|| size.ilog2())
}

/// Reads a capture. `page` gets each page; an error of it ends the reading and is returned.
pub fn read_multifd(
    mut from: impl Read,
    mut page: impl FnMut(MultifdPage<'_>) -> io::Result<()>,
) -> io::Result<Multifd> {
    let mut first = [0; HELLO_LEN];
    let have = fill(&mut from, &mut first)?;
    let invalid =
        |wrong: Malformed| io::Error::new(io::ErrorKind::InvalidData, format!("not a multifd channel: {wrong}"));
    let hello = Hello::decode(&first[..have]).map_err(invalid)?;
    let mut capture = Multifd {
        hello,
        page_size: 1 << USUAL_PAGE_BITS,
        packets: 0,
        syncs: 0,
        normal: 0,
        zero: 0,
        payload: 0,
        bytes: HELLO_LEN as u64,
        method: None,
        damage: None,
    };
    let mut bits = None;
    loop {
        let start = capture.bytes;
        // The smallest head shows the page size, on which the size of the head depends.
        let mut head = vec![0; head_len(*PAGE_BITS.end())];
        let mut have = fill(&mut from, &mut head)?;
        if have == 0 {
            return Ok(capture);
        }
        bits = bits.or_else(|| page_bits(&head[..have]));
        head.resize(head_len(bits.unwrap_or(USUAL_PAGE_BITS)), 0);
        have += fill(&mut from, &mut head[have..])?;
        let bits = bits.unwrap_or(USUAL_PAGE_BITS);
        capture.page_size = 1 << bits;
        let damaged = |mut capture: Multifd, text: String| {
            capture.damage = Some(MultifdDamage { offset: start, text });
            Ok(capture)
        };
        let packet = match Packet::decode(&head[..have], bits) {
            Ok(packet) => packet,
            Err(Malformed::Cut) => return damaged(capture, "the capture ends in a packet".to_owned()),
            Err(wrong) => return damaged(capture, format!("a wrong packet: {wrong}")),
        };
        let block = String::from_utf8_lossy(packet.block);
        let block = printable(&block);
        for (offsets, is_zero) in [(packet.normal().collect::<Vec<_>>(), false), (packet.zero().collect(), true)] {
            for address in offsets {
                page(MultifdPage { block: &block, address, size: 1 << bits, is_zero })?;
            }
        }
        let skipped = io::copy(&mut (&mut from).take(packet.head.payload.into()), &mut io::sink())?;
        capture.bytes += have as u64 + skipped;
        if skipped < packet.head.payload.into() {
            return damaged(capture, "the capture ends in the pages of a packet".to_owned());
        }
        capture.packets += 1;
        capture.syncs += u64::from(packet.head.sync);
        capture.normal += u64::from(packet.head.normal);
        capture.zero += u64::from(packet.head.zero);
        capture.payload += skipped;
        if packet.head.normal > 0 {
            capture.method = Some(packet.head.method);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::multifd::Head;

    fn capture(bits: u32) -> Vec<u8> {
        let mut bytes = Hello { uuid: [7; 16], id: 3 }.encode().to_vec();
        let size = 1_u64 << bits;
        Packet::encode(&mut bytes, Head { sync: true, ..Head::default() }, b"", &[], bits);
        let head = Head { normal: 2, zero: 1, payload: 2 * size as u32, ..Head::default() };
        Packet::encode(&mut bytes, head, b"pc.ram", &[0, size, 9 * size], bits);
        bytes.extend(vec![1; 2 * size as usize]);
        bytes
    }

    #[test]
    fn capture_is_counted_for_every_page_size() {
        for bits in PAGE_BITS {
            let bytes = capture(bits);
            assert!(is_multifd(&bytes));
            let mut pages = Vec::new();
            let read = read_multifd(&bytes[..], |page| {
                pages.push((page.block.to_owned(), page.address >> bits, page.is_zero));
                Ok(())
            });
            let read = read.unwrap();
            assert_eq!((read.hello.id, read.page_size, read.packets, read.syncs), (3, 1 << bits, 2, 1));
            assert_eq!((read.normal, read.zero, read.method, read.damage), (2, 1, Some(Method::None), None));
            assert_eq!(read.bytes, bytes.len() as u64);
            let expected = [(0, false), (1, false), (9, true)].map(|(page, zero)| ("pc.ram".to_owned(), page, zero));
            assert_eq!(pages, expected);
        }
    }

    #[test]
    fn cut_and_damaged_captures_say_where() {
        let bytes = capture(12);
        for cut in 0..bytes.len() {
            match read_multifd(&bytes[..cut], |_| Ok(())) {
                Err(_) => assert!(cut < HELLO_LEN),
                Ok(read) => assert_eq!(read.damage.is_none(), [64, 64 + 1344].contains(&cut), "cut at {cut}"),
            }
        }
        let mut damaged = bytes;
        damaged[64 + 1344] = 0;
        let damage = read_multifd(&damaged[..], |_| Ok(())).unwrap().damage.unwrap();
        assert_eq!(damage.offset, 64 + 1344);
        assert!(damage.to_string().contains("expected 0x11223344"), "{damage}");
    }
}
