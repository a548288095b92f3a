// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where a PC's memory lies in the guest's physical address space.
//!
//! A PC with more than about 3 GiB has one RAM block, but its memory lies in two places: below the PCI hole, and from
//! 4 GiB on. The split depends on the machine type and its properties. QEMU writes both sizes to the CMOS of the
//! real-time clock (`pc_cmos_init`, hw/i386/pc.c of 7.2), whose state is in the stream.

use std::sync::Arc;

use super::stream::Stream;

/// Where a part of a RAM block lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The name of the block.
    pub block: Arc<str>,
    /// Where in the block the part starts, in bytes.
    pub offset: u64,
    /// The guest-physical address of its first byte.
    pub address: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The guest-physical address at which memory continues above the PCI hole.
const ABOVE: u64 = 4 << 30;
/// The CMOS counts memory above 16 MiB, in units of 64 KiB.
const CMOS_BASE: u64 = 16 << 20;
const CMOS_UNIT: u64 = 64 << 10;
const CMOS_SIZE: usize = 128;
/// QEMU moves the memory to 1 TiB if it would reach the area that AMD reserves below that.
const RESERVED: u64 = 0xfd_0000_0000;

/// Returns the parts of a PC's main memory, or nothing if the stream does not show where they lie.
pub fn guest_spans(stream: &Stream) -> Vec<Span> {
    spans(stream).unwrap_or_default()
}

fn spans(stream: &Stream) -> Option<Vec<Span>> {
    let machine = stream.machine()?;
    if !["pc-", "isapc", "microvm", "xenfv"].iter().any(|prefix| machine.starts_with(prefix)) {
        return None;
    }
    let (_, clock) = stream.devices().find(|(_, section)| section.device.name.ends_with("mc146818rtc"))?;
    let cmos = clock.data.as_deref()?.get(..CMOS_SIZE)?;
    let number = |places: &[usize]| places.iter().rev().fold(0u64, |number, &at| number << 8 | u64::from(cmos[at]));
    let below = CMOS_BASE + CMOS_UNIT * number(&[0x34, 0x35]);
    let above = CMOS_UNIT * number(&[0x5b, 0x5c, 0x5d]);
    // Guests can write to the CMOS. A single block of exactly that length confirms the sizes.
    let mut blocks = stream.ram.blocks.iter().filter(|block| block.length == below + above);
    let (block, None) = (blocks.next()?, blocks.next()) else { return None };
    if ABOVE + above > RESERVED {
        return None;
    }
    let span = |offset, address, length| Span { block: block.name.clone(), offset, address, length };
    let mut spans = vec![span(0, 0, below)];
    if above > 0 {
        spans.push(span(below, ABOVE, above));
    }
    Some(spans)
}

#[cfg(test)]
mod tests {
    use super::super::parse::{Options, read_slice};
    use super::*;
    use crate::testing::{Builder, Ram};

    fn spans_of(machine: &str, length: u64, below: u64, above: u64) -> Vec<(u64, u64, u64)> {
        let mut cmos = vec![0; 200];
        let put = |cmos: &mut Vec<u8>, places: &[usize], number: u64| {
            places.iter().enumerate().for_each(|(byte, &at)| cmos[at] = (number >> (8 * byte)) as u8);
        };
        put(&mut cmos, &[0x34, 0x35], (below - CMOS_BASE) / CMOS_UNIT);
        put(&mut cmos, &[0x5b, 0x5c, 0x5d], above / CMOS_UNIT);
        let mut stream = Builder::new();
        let list = Ram::default().blocks(&[("pc.ram", length), ("vga.vram", 1 << 20)]).end();
        stream.configuration(machine).named(1, 1, "ram", 0, 4, &list).device(2, "mc146818rtc", 0, &cmos, "");
        let spans = guest_spans(&read_slice(&stream.finish(false), Options::default()));
        spans.into_iter().map(|span| (span.offset, span.address, span.length)).collect()
    }

    #[test]
    fn memory_above_the_pci_hole_is_at_4_gib() {
        const GIB: u64 = 1 << 30;
        assert_eq!(spans_of("pc-q35-7.2", 4 * GIB, 2 * GIB, 2 * GIB), [(0, 0, 2 * GIB), (2 * GIB, 4 * GIB, 2 * GIB)]);
        assert_eq!(spans_of("pc-i440fx-7.2", GIB, GIB, 0), [(0, 0, GIB)]);
        assert_eq!(spans_of("pc-q35-7.2", 5 * GIB, 2 * GIB, 2 * GIB), [], "the sizes do not add up");
        assert_eq!(spans_of("virt-7.2", 4 * GIB, 2 * GIB, 2 * GIB), [], "not a PC");
    }
}
