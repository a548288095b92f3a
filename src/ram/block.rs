// SPDX-License-Identifier: LGPL-2.1-or-later
//! A block of guest memory, and the list of them.

use super::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::sys::{GuestMemory, system_page_size};
use crate::wire::limits::NAME_MAX;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What the host says about a block.
#[derive(Clone, Debug)]
pub struct BlockInfo {
    /// Name, the same on both sides.
    pub name: Vec<u8>,
    /// Where it is.
    pub memory: GuestMemory,
    /// Size of the host's pages below it in bytes; 0 is the system's page size.
    pub page_size: usize,
    /// The guest's address, compared for shared blocks.
    pub guest_address: u64,
    /// Both sides may see the same memory (a file, a memfd).
    pub shared: bool,
    /// The host's own, for its callbacks.
    pub opaque: usize,
}

/// One block.
pub struct Block {
    /// What the host said.
    pub info: BlockInfo,
    /// Source: pages that are to be sent. Target pages, as all bitmaps.
    pub dirty: Bitmap,
    /// Destination: pages that arrived.
    pub received: Bitmap,
    /// Destination: memory that did not arrive reads as zero, so a zero page needs no work. See `Ram::advised`.
    pub emptied: AtomicBool,
    /// log2 of the target's page size.
    page_bits: u32,
}

impl Block {
    /// Checks what the host says.
    pub fn new(mut info: BlockInfo, page_bits: u32) -> Result<Self> {
        let name = String::from_utf8_lossy(&info.name).into_owned();
        let refuse = |what: String| Err(Error::invalid(format!("block '{name}': {what}")));
        if info.name.is_empty() || info.name.len() > NAME_MAX {
            return refuse(format!("its name has {} bytes, expected 1 to {NAME_MAX}", info.name.len()));
        }
        if info.page_size == 0 {
            info.page_size = system_page_size();
        }
        if !info.page_size.is_power_of_two() {
            return refuse(format!("its page size {} is no power of two", info.page_size));
        }
        let unit = info.page_size.max(1 << page_bits);
        if info.memory.is_empty() || !info.memory.len().is_multiple_of(unit) {
            return refuse(format!("its length {} is not in pages of {unit}", info.memory.len()));
        }
        if !info.memory.address().is_multiple_of(info.page_size) {
            return refuse(format!("its address is not in pages of {}", info.page_size));
        }
        let pages = info.memory.len() >> page_bits;
        Ok(Self {
            dirty: Bitmap::new(pages),
            received: Bitmap::new(pages),
            emptied: AtomicBool::new(false),
            page_bits,
            info,
        })
    }

    /// The name as text.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.info.name).into_owned()
    }

    /// Where it is.
    pub fn memory(&self) -> &GuestMemory {
        &self.info.memory
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.info.memory.len() as u64
    }

    /// Whether it has no bytes, which no block is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in target pages.
    pub fn pages(&self) -> usize {
        self.dirty.len()
    }

    /// Target pages that are placed at once: those of a host page, or one that has several host pages.
    pub fn pages_per_unit(&self) -> usize {
        (self.info.page_size >> self.page_bits).max(1)
    }

    /// Bytes that are placed at once.
    pub fn unit(&self) -> usize {
        self.info.page_size.max(1 << self.page_bits)
    }

    /// The pages that a range of bytes touches, as start and count, cut at the end of the block.
    pub fn page_range(&self, start: usize, len: usize) -> (usize, usize) {
        let first = start >> self.page_bits;
        let end = start.saturating_add(len).min(self.info.memory.len()).div_ceil(1 << self.page_bits);
        (first, end.saturating_sub(first))
    }

    /// An error if this block overlaps another one: in this program's memory, or, if both are shared and their guest
    /// addresses are given, in the guest's.
    pub fn check_apart(&self, other: &Self) -> Result<()> {
        let overlap = |start: u64, other_start: u64| {
            let (start, other_start) = (u128::from(start), u128::from(other_start));
            start < other_start + u128::from(other.len()) && other_start < start + u128::from(self.len())
        };
        let refuse = |what: &str, start: u64, other_start: u64| {
            Err(Error::invalid(format!(
                "block '{}' (0x{:x} bytes at {what} address 0x{start:x}) overlaps block '{}' (0x{:x} bytes at 0x{other_start:x})",
                self.name(),
                self.len(),
                other.name(),
                other.len()
            )))
        };
        let (start, other_start) = (self.memory().address() as u64, other.memory().address() as u64);
        if overlap(start, other_start) {
            return refuse("host", start, other_start);
        }
        let (start, other_start) = (self.info.guest_address, other.info.guest_address);
        // Hosts that do not use guest addresses leave them 0.
        let given = self.info.shared && other.info.shared && (start, other_start) != (0, 0);
        if given && overlap(start, other_start) {
            return refuse("guest", start, other_start);
        }
        Ok(())
    }

    /// Whether a zero page may arrive at this place without a look at the memory.
    pub fn reads_zero(&self, page: usize) -> bool {
        self.emptied.load(Relaxed) && !self.received.get(page)
    }

    /// The ranges of bytes that did not arrive, as offset and length, in whole units.
    pub fn missing(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let unit = self.pages_per_unit();
        let mut from = 0;
        std::iter::from_fn(move || {
            let first = self.received.next_clear(from);
            if first >= self.pages() {
                return None;
            }
            let start = first - first % unit;
            let mut end = start + unit;
            while end < self.pages() && self.received.next_clear(end) < end + unit {
                end += unit;
            }
            from = end;
            Some((start << self.page_bits, (end - start) << self.page_bits))
        })
    }

    /// The target page that begins at `offset`, or why there is none.
    pub fn page_at(&self, offset: u64) -> Result<usize> {
        if offset >= self.len() {
            let text = format!("offset 0x{offset:x} is outside of block '{}' of 0x{:x} bytes", self.name(), self.len());
            return Err(Error::invalid(text));
        }
        Ok((offset >> self.page_bits) as usize)
    }

    /// Checks a range of whole units, for a peer's words.
    pub fn check_range(&self, start: u64, len: u64, what: &str) -> Result<()> {
        let unit = self.unit() as u64;
        let inside = start.checked_add(len).is_some_and(|end| end <= self.len());
        if inside && start.is_multiple_of(unit) && len.is_multiple_of(unit) && len > 0 {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{what}: 0x{len:x} bytes at 0x{start:x} are not whole pages of 0x{unit:x} inside of block '{}' of 0x{:x} bytes",
            self.name(),
            self.len()
        )))
    }
}

/// All blocks in the order of their registration; a list is never changed, a new one takes its place.
pub type Blocks = Arc<Vec<Arc<Block>>>;

/// The block of that name, with its place.
pub fn find<'a>(blocks: &'a [Arc<Block>], name: &[u8]) -> Option<(usize, &'a Arc<Block>)> {
    blocks.iter().enumerate().find(|(_, block)| &*block.info.name == name)
}

/// The block that holds an address of this program, with its place and the offset.
pub fn find_address(blocks: &[Arc<Block>], address: usize) -> Option<(usize, &Arc<Block>, usize)> {
    let found = |(at, block): (usize, &'_ Arc<Block>)| block.memory().offset_of(address).map(|offset| (at, offset));
    let (at, offset) = blocks.iter().enumerate().find_map(|(at, block)| found((at, block)))?;
    Some((at, &blocks[at], offset))
}
