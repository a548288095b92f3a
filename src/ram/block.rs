// SPDX-License-Identifier: LGPL-2.1-or-later
//! Blocks of guest memory.

use super::bitmap::Bitmap;
use crate::channel::PositionedFile;
use crate::error::{Error, Result};
use crate::sys::{GuestMemory, system_page_size};
use crate::wire::limits::NAME_MAX;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

/// The host's description of a block.
#[derive(Clone, Debug)]
pub struct BlockInfo {
    /// Name, equal on both sides.
    pub name: Vec<u8>,
    /// The memory.
    pub memory: GuestMemory,
    /// Size of the host pages that back it, in bytes (default 0: the system's page size).
    pub page_size: usize,
    /// Guest-physical address; compared for shared blocks. 0 for all blocks: not used.
    pub guest_address: u64,
    /// The memory is a shared mapping (a file, a memfd), which both sides may map.
    pub shared: bool,
    /// The host's pointer, passed to its callbacks.
    pub opaque: usize,
}

/// A block.
pub struct Block {
    /// The host's description.
    pub info: BlockInfo,
    /// Source: dirty pages. All bitmaps have one bit per target page.
    pub dirty: Bitmap,
    /// Destination: pages that arrived.
    pub received: Bitmap,
    /// Destination: memory that did not arrive reads as zero, so a zero page needs no work. See `Ram::advised`.
    pub emptied: AtomicBool,
    /// The descriptor of the memory for a live update, or -1. The host owns it.
    pub descriptor: AtomicI32,
    /// log2 of the target's page size.
    page_bits: u32,
}

impl Block {
    /// Checks the host's description.
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
            return refuse(format!("its page size {} is not a power of two", info.page_size));
        }
        let unit = info.page_size.max(1 << page_bits);
        if info.memory.is_empty() || !info.memory.len().is_multiple_of(unit) {
            return refuse(format!("its length {} is not a multiple of its page size {unit}", info.memory.len()));
        }
        if !info.memory.address().is_multiple_of(info.page_size) {
            return refuse(format!("its address is not a multiple of its page size {}", info.page_size));
        }
        let pages = info.memory.len() >> page_bits;
        Ok(Self {
            dirty: Bitmap::new(pages),
            received: Bitmap::new(pages),
            emptied: AtomicBool::new(false),
            descriptor: AtomicI32::new(-1),
            page_bits,
            info,
        })
    }

    /// The name as text.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.info.name).into_owned()
    }

    /// The error of a read of pages from the address `start` on, which are at an offset of a file.
    pub fn read_error(&self, file: &PositionedFile, start: usize, offset: u64, err: &io::Error) -> Error {
        let what = format_args!("reading block '{}' from 0x{start:x} on, at offset 0x{offset:x} of", self.name());
        file.error(what, err)
    }

    /// The memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.info.memory
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.info.memory.len() as u64
    }

    /// Always false.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in target pages.
    pub fn pages(&self) -> usize {
        self.dirty.len()
    }

    /// Target pages per unit. A unit is the larger of host page and target page; it is placed at once.
    pub fn pages_per_unit(&self) -> usize {
        (self.info.page_size >> self.page_bits).max(1)
    }

    /// Size of a unit in bytes.
    pub fn unit(&self) -> usize {
        self.info.page_size.max(1 << self.page_bits)
    }

    /// The pages that overlap a range of bytes, as first page and count, limited to the block.
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

    /// Whether a page that arrives as zero reads as zero already.
    pub fn reads_zero(&self, page: usize) -> bool {
        self.emptied.load(Relaxed) && !self.received.get(page)
    }

    /// The ranges that have not arrived, as offset and length in bytes, in whole units.
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

    /// The target page that contains `offset`. An error if `offset` is outside of the block.
    pub fn page_at(&self, offset: u64) -> Result<usize> {
        if offset >= self.len() {
            let text = format!("offset 0x{offset:x} is outside of block '{}' of 0x{:x} bytes", self.name(), self.len());
            return Err(Error::invalid(text));
        }
        Ok((offset >> self.page_bits) as usize)
    }

    /// Checks a range that the peer sent: whole units inside of the block. `what` names it in the error.
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

/// All blocks in the order of their registration. A list is immutable; changes replace it.
pub type Blocks = Arc<Vec<Arc<Block>>>;

/// Finds a block by name. Returns its index as well.
pub fn find<'a>(blocks: &'a [Arc<Block>], name: &[u8]) -> Option<(usize, &'a Arc<Block>)> {
    blocks.iter().enumerate().find(|(_, block)| &*block.info.name == name)
}

/// Finds the block that contains an address of this process. Returns its index, the block and the offset.
pub fn find_address(blocks: &[Arc<Block>], address: usize) -> Option<(usize, &Arc<Block>, usize)> {
    let found = |(at, block): (usize, &'_ Arc<Block>)| block.memory().offset_of(address).map(|offset| (at, offset));
    let (at, offset) = blocks.iter().enumerate().find_map(|(at, block)| found((at, block)))?;
    Some((at, &blocks[at], offset))
}
