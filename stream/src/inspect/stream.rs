// SPDX-License-Identifier: LGPL-2.1-or-later
//! The model of a stream, which the parser fills and every report reads.

use std::fmt;
use std::sync::Arc;

use super::container::Container;
use super::describe::{Description, Layout};
use super::printable::printable;
use crate::wire;
use crate::wire::chain::Link;

/// The contents of one stream, up to its end or to the damage.
#[derive(Debug, Default)]
pub struct Stream {
    /// The version in the header.
    pub version: u32,
    /// The configuration section. Machines before 2.4 do not send it.
    pub configuration: Option<Configuration>,
    /// The parent, if the stream is an incremental snapshot.
    pub parent: Option<Link<String>>,
    /// The items, in the order of the stream.
    pub items: Vec<Item>,
    /// Guest memory.
    pub ram: Ram,
    /// The description at the end of the stream, or one from the caller.
    pub description: Option<Arc<Description>>,
    /// Whether the description is from the caller and not from the stream.
    pub description_is_foreign: bool,
    /// Whether sections end with a footer. Unknown before the first section.
    pub footers: Option<bool>,
    /// Whether the stream ended with EOF.
    pub complete: bool,
    /// Length of the stream in bytes.
    pub length: u64,
    /// Bytes after the stream.
    pub trailing: u64,
    /// The first damage.
    pub damage: Option<Damage>,
    /// What surrounds the stream, if the caller knows.
    pub container: Container,
}

/// One part of the stream.
#[derive(Debug)]
pub struct Item {
    /// Offset in the stream, in bytes.
    pub offset: u64,
    /// Size in bytes, with header and footer. For a package: with its contents.
    pub size: u64,
    /// Number of packages around it.
    pub depth: u32,
    /// The kind of the item, with its contents.
    pub kind: ItemKind,
}

/// The kinds of items.
#[derive(Debug)]
pub enum ItemKind {
    /// Magic and version.
    Header,
    /// The machine's name, and settings that both sides must share.
    Configuration,
    /// State of a device or of guest memory.
    Section(Section),
    /// A command to the destination.
    Command(Command),
    /// The end of the sections.
    Eof,
    /// The JSON description of the devices' layouts.
    Description,
}

/// The part of a device's state that a section carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// The first section of a live device.
    Start,
    /// Any further section of a live device but the last.
    Part,
    /// The last section of a live device.
    End,
    /// The only section of a device that is not live.
    Full,
}

impl SectionKind {
    /// Returns the kind with this tag on the wire.
    pub fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            wire::SECTION_START => Self::Start,
            wire::SECTION_PART => Self::Part,
            wire::SECTION_END => Self::End,
            wire::SECTION_FULL => Self::Full,
            _ => return None,
        })
    }

    /// Returns the tag on the wire.
    pub fn tag(self) -> u8 {
        match self {
            Self::Start => wire::SECTION_START,
            Self::Part => wire::SECTION_PART,
            Self::End => wire::SECTION_END,
            Self::Full => wire::SECTION_FULL,
        }
    }

    /// Returns the name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Part => "part",
            Self::End => "end",
            Self::Full => "full",
        }
    }
}

/// A device, by the name and instance in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// The device's name (QEMU's idstr).
    pub name: Arc<str>,
    /// The instance among the devices of that name.
    pub instance: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' instance {}", printable(&self.name), self.instance)
    }
}

/// How the end of a section was determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The section's own format says where it ends.
    Parsed,
    /// The description contains its length.
    Described,
    /// The bytes were searched for something that follows a section.
    Searched,
}

/// One section, or consecutive PART sections of one device.
#[derive(Debug)]
pub struct Section {
    /// The part of the device's state.
    pub kind: SectionKind,
    /// The section's id, which stands for the device.
    pub id: u32,
    /// The device.
    pub device: Device,
    /// Number of earlier devices of the same name and instance in the stream. It is 0 unless QEMU registered both.
    pub twin: u32,
    /// The version of the state's layout.
    pub version: u32,
    /// Number of consecutive sections: 1, or more for PART sections.
    pub count: u64,
    /// Offset of the state, after the section's header.
    pub payload: u64,
    /// The state of a FULL section, if the visitor wants states.
    pub data: Option<Vec<u8>>,
    /// How its end was determined.
    pub framing: Framing,
}

/// A command in the stream.
#[derive(Debug)]
pub struct Command {
    /// The number on the wire.
    pub number: u16,
    /// The name, if the number is known.
    pub name: Option<&'static str>,
    /// The payload in words. Empty if there is nothing to add.
    pub detail: String,
}

/// The configuration section.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// The machine type with its version, such as `pc-q35-7.2`.
    pub machine: String,
    /// log2 of the target's page size, if the target has more than one.
    pub page_bits: Option<u32>,
    /// Capabilities that both sides must have.
    pub capabilities: Vec<Box<str>>,
    /// The machine's UUID.
    pub uuid: Option<[u8; 16]>,
}

impl Configuration {
    /// Returns whether the source had this capability. A stream only contains the capabilities on which both sides must
    /// agree.
    pub fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|have| **have == *capability)
    }
}

/// The source of the page size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSizeFrom {
    /// The caller.
    Caller,
    /// The configuration section.
    Configuration,
    /// The description.
    Description,
    /// The command POSTCOPY_ADVISE.
    Advise,
    /// A header of mapped RAM.
    MappedRam,
    /// The distance between the pages in the stream.
    Pages,
}

impl PageSizeFrom {
    /// Returns the name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Configuration => "configuration",
            Self::Description => "description",
            Self::Advise => "postcopy advise",
            Self::MappedRam => "mapped-ram header",
            Self::Pages => "inferred from the pages",
        }
    }
}

/// Guest memory in the stream.
#[derive(Clone, Debug, Default)]
pub struct Ram {
    /// The target's page size in bytes, if known.
    pub page_size: Option<(u64, PageSizeFrom)>,
    /// The blocks, in the order in which the stream introduces them.
    pub blocks: Vec<Block>,
    /// Whether pages were sent over other channels.
    pub multifd: bool,
    /// Number of RDMA hooks.
    pub hooks: u64,
    /// Bytes other than pages and their headers: the block list, ends, flushes.
    pub framing: u64,
}

impl Ram {
    /// The target's page size in bytes; the usual one if the stream shows none.
    pub fn page_size_or_usual(&self) -> u64 {
        const USUAL: u64 = 4096;
        self.page_size.map_or(USUAL, |(size, _)| size)
    }
}

/// One block of guest memory.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Its name.
    pub name: Arc<str>,
    /// The used length in bytes. 0 if the stream does not contain it.
    pub length: u64,
    /// The page size of its memory, if it is not the host's usual one.
    pub page_size: Option<u64>,
    /// The guest-physical address, in streams without shared memory.
    pub address: Option<u64>,
    /// The place of its pages, with the mapped-ram capability.
    pub mapped: Option<Mapped>,
    /// Pages of one repeated byte, nearly always zero.
    pub zero: Count,
    /// Pages sent whole.
    pub plain: Count,
    /// Pages sent as a difference from their previous contents.
    pub xbzrle: Count,
    /// Pages compressed with zlib.
    pub compressed: Count,
}

impl Block {
    /// Returns the number of pages of the block in the stream, of all kinds.
    pub fn pages(&self) -> u64 {
        self.counts().iter().map(|(_, count)| count.pages).sum()
    }

    /// Returns how many pages of the block are at least missing. More are missing if some were sent more than once.
    pub fn absent_pages(&self, page_size: u64) -> u64 {
        self.length.div_ceil(page_size.max(1)).saturating_sub(self.pages())
    }

    /// Returns the bytes of the block's pages in the stream.
    pub fn bytes(&self) -> u64 {
        self.counts().iter().map(|(_, count)| count.bytes).sum()
    }

    /// Returns the kinds of pages with their counts.
    pub fn counts(&self) -> [(&'static str, Count); 4] {
        [("zero", self.zero), ("plain", self.plain), ("xbzrle", self.xbzrle), ("compressed", self.compressed)]
    }
}

/// A number of pages, and their bytes in the stream with headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Number of pages. A page that was sent twice counts twice.
    pub pages: u64,
    /// Bytes in the stream.
    pub bytes: u64,
}

/// The place of a mapped block's pages. Both offsets count from the start of the file, even if the stream starts later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Offset of the bitmap of pages that are present.
    pub bitmap_offset: u64,
    /// Offset of the block's first page.
    pub pages_offset: u64,
}

/// The place from which a stream cannot be read.
#[derive(Debug)]
pub struct Damage {
    /// Offset in the stream at which the damage was found, in bytes.
    pub offset: u64,
    /// Whether the stream only ends too early.
    pub cut: bool,
    /// The section around it: id, device and part.
    pub section: Option<(u32, Device, SectionKind)>,
    /// What was expected at that place.
    pub expected: String,
    /// What was found at that place.
    pub found: String,
    /// The last device with a complete state.
    pub last_good: Option<Device>,
}

/// Length of a stream's magic and version, in bytes.
const HEADER: u64 = 8;

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.cut { "cut off" } else { "damaged" };
        write!(f, "{what} at offset {:#x} ({})", self.offset, self.offset)?;
        if let Some((id, device, kind)) = &self.section {
            write!(f, ", in the {} section {id} of {device}", kind.name())?;
        }
        write!(f, ": expected {}, found {}", printable(&self.expected), printable(&self.found))?;
        match &self.last_good {
            Some(device) => write!(f, "; the last whole device is {device}"),
            // A stream with a damaged header has no devices to mention.
            None if self.offset < HEADER => Ok(()),
            None => write!(f, "; no whole device before it"),
        }
    }
}

impl Stream {
    /// Returns the machine type, if the stream names it.
    pub fn machine(&self) -> Option<&str> {
        self.configuration.as_ref().map(|configuration| configuration.machine.as_str())
    }

    /// Returns the sections with their items.
    pub fn sections(&self) -> impl Iterator<Item = (&Item, &Section)> {
        self.items.iter().filter_map(|item| match &item.kind {
            ItemKind::Section(section) => Some((item, section)),
            _ => None,
        })
    }

    /// Returns the layout of a section's state, if it is described.
    pub fn layout(&self, section: &Section) -> Option<&Layout> {
        self.description.as_ref()?.layout(&section.device, section.twin)
    }

    /// Returns the devices' states: the FULL sections, in order.
    pub fn devices(&self) -> impl Iterator<Item = (&Item, &Section)> {
        self.sections().filter(|(_, section)| section.kind == SectionKind::Full)
    }
}
