// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a stream holds: the model that the parser fills and that every report reads.

use std::fmt;
use std::sync::Arc;

use super::container::Container;
use super::describe::{Description, Layout};
use super::printable::printable;
use crate::wire;

/// Everything that was read from one stream, up to its end or to the damage.
#[derive(Debug, Default)]
pub struct Stream {
    /// The version in the header.
    pub version: u32,
    /// The configuration section, which machines before 2.4 do not send.
    pub configuration: Option<Configuration>,
    /// What follows what, in the order of the stream.
    pub items: Vec<Item>,
    /// Guest memory.
    pub ram: Ram,
    /// The description that stands at the end of the stream, or that was given by the caller.
    pub description: Option<Arc<Description>>,
    /// The description is the caller's, not the stream's.
    pub description_is_foreign: bool,
    /// Sections are closed by a footer; unknown before the first section.
    pub footers: Option<bool>,
    /// The stream ended with its EOF mark.
    pub complete: bool,
    /// How many bytes belong to the stream.
    pub length: u64,
    /// How many bytes follow it.
    pub trailing: u64,
    /// Where the stream stops making sense.
    pub damage: Option<Damage>,
    /// What the stream was found in, where the caller knows.
    pub container: Container,
}

/// One thing in the stream.
#[derive(Debug)]
pub struct Item {
    /// Where it starts in the stream, in bytes.
    pub offset: u64,
    /// How many bytes it takes, with its header and footer. Of a package: with all that is in it.
    pub size: u64,
    /// How many packages it is in.
    pub depth: u32,
    /// What it is.
    pub kind: ItemKind,
}

/// What stands in a stream.
#[derive(Debug)]
pub enum ItemKind {
    /// Magic and version.
    Header,
    /// Machine name and what both sides must share.
    Configuration,
    /// State of a device or of memory.
    Section(Section),
    /// An order to the destination.
    Command(Command),
    /// The end of the sections.
    Eof,
    /// The JSON description of the devices' layouts.
    Description,
}

/// Which part of a device's state a section carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// The first of a live device.
    Start,
    /// A further one of a live device.
    Part,
    /// The last one of a live device.
    End,
    /// The only one of a device that is not live.
    Full,
}

impl SectionKind {
    /// The kind that has this tag on the wire.
    pub fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            wire::SECTION_START => Self::Start,
            wire::SECTION_PART => Self::Part,
            wire::SECTION_END => Self::End,
            wire::SECTION_FULL => Self::Full,
            _ => return None,
        })
    }

    /// Its tag on the wire.
    pub fn tag(self) -> u8 {
        match self {
            Self::Start => wire::SECTION_START,
            Self::Part => wire::SECTION_PART,
            Self::End => wire::SECTION_END,
            Self::Full => wire::SECTION_FULL,
        }
    }

    /// A word for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Part => "part",
            Self::End => "end",
            Self::Full => "full",
        }
    }
}

/// A device as the stream names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// The idstr.
    pub name: Arc<str>,
    /// Which of the devices of that name.
    pub instance: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' instance {}", printable(&self.name), self.instance)
    }
}

/// How the end of a section was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The section's own format says where it ends.
    Parsed,
    /// The description says how long it is.
    Described,
    /// The bytes were searched for what follows a section.
    Searched,
}

/// One section, or a run of PART sections of the same device that follow each other.
#[derive(Debug)]
pub struct Section {
    /// Which part of the device's state.
    pub kind: SectionKind,
    /// The number that the stream gives the device.
    pub id: u32,
    /// Whose state it is.
    pub device: Device,
    /// How many devices of the same name and instance have sent their whole state before. 0, unless QEMU let two pass.
    pub twin: u32,
    /// The version of the state's layout.
    pub version: u32,
    /// How many sections follow each other here: 1, or more for a run of PART sections.
    pub count: u64,
    /// Where the state starts, behind the section's header.
    pub payload: u64,
    /// The state itself, of a FULL section, where states are wanted.
    pub data: Option<Vec<u8>>,
    /// How its end was found.
    pub framing: Framing,
}

/// An order in the stream.
#[derive(Debug)]
pub struct Command {
    /// The number on the wire.
    pub number: u16,
    /// The name, where the number is known.
    pub name: Option<&'static str>,
    /// What it says, in words; empty where it says nothing more.
    pub detail: String,
}

/// The configuration section.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// The machine type with its version, such as `pc-q35-7.2`.
    pub machine: String,
    /// log2 of the target's page size, where the target has more than one.
    pub page_bits: Option<u32>,
    /// Capabilities that both sides must have.
    pub capabilities: Vec<Box<str>>,
    /// The machine's UUID.
    pub uuid: Option<[u8; 16]>,
}

impl Configuration {
    /// Whether the source had this capability. Only those that QEMU makes both sides agree on are in the stream.
    pub fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|have| **have == *capability)
    }
}

/// How the page size came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSizeFrom {
    /// The caller named it.
    Caller,
    /// The configuration section names it.
    Configuration,
    /// The description names it.
    Description,
    /// The order to prepare for postcopy names it.
    Advise,
    /// A header of mapped RAM names it.
    MappedRam,
    /// It is the one with which the pages follow each other.
    Pages,
}

impl PageSizeFrom {
    /// A word for reports.
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
    /// The target's page size in bytes, once known.
    pub page_size: Option<(u64, PageSizeFrom)>,
    /// The blocks, in the order in which the stream introduces them.
    pub blocks: Vec<Block>,
    /// Pages went through other channels.
    pub multifd: bool,
    /// RDMA hooks that were seen.
    pub hooks: u64,
    /// Bytes that are neither a page nor its header: the block list, ends, flushes.
    pub framing: u64,
}

/// One block of guest memory.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Its name.
    pub name: Arc<str>,
    /// How much of it is used, in bytes. 0 if the stream never said.
    pub length: u64,
    /// The page size of the memory behind it, where it is not the host's usual one.
    pub page_size: Option<u64>,
    /// Its guest-physical address, in streams that leave out shared memory.
    pub address: Option<u64>,
    /// Where its pages are, with the mapped-ram capability.
    pub mapped: Option<Mapped>,
    /// Pages of one repeated byte, nearly always zero.
    pub zero: Count,
    /// Pages as they are.
    pub plain: Count,
    /// Pages as a difference to what was sent before.
    pub xbzrle: Count,
    /// Pages compressed with zlib.
    pub compressed: Count,
}

impl Block {
    /// All pages of the block that the stream carries, of whatever kind.
    pub fn pages(&self) -> u64 {
        self.counts().iter().map(|(_, count)| count.pages).sum()
    }

    /// How many pages of the block are certainly not in the stream: more may be missing if others were sent twice.
    pub fn absent_pages(&self, page_size: u64) -> u64 {
        self.length.div_ceil(page_size.max(1)).saturating_sub(self.pages())
    }

    /// The bytes that the block takes in the stream.
    pub fn bytes(&self) -> u64 {
        self.counts().iter().map(|(_, count)| count.bytes).sum()
    }

    /// The kinds of pages with their counts.
    pub fn counts(&self) -> [(&'static str, Count); 4] {
        [("zero", self.zero), ("plain", self.plain), ("xbzrle", self.xbzrle), ("compressed", self.compressed)]
    }
}

/// How many pages, and how many bytes of stream for them, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Pages; one that was sent twice counts twice.
    pub pages: u64,
    /// Bytes in the stream.
    pub bytes: u64,
}

/// Where a mapped block's pages are. Both places count from the start of the file, also where the stream starts later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Where the bitmap of the pages that are there starts.
    pub bitmap_offset: u64,
    /// Where the block's first page is.
    pub pages_offset: u64,
}

/// Where a stream stops making sense.
#[derive(Debug)]
pub struct Damage {
    /// The byte of the stream at which it showed.
    pub offset: u64,
    /// The stream simply ends too early.
    pub cut: bool,
    /// The section that it happened in: number, whose it is, and which part.
    pub section: Option<(u32, Device, SectionKind)>,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
    /// The last device whose state is whole.
    pub last_good: Option<Device>,
}

/// Bytes of a stream's magic and version.
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
            // In the header none is missed.
            None if self.offset < HEADER => Ok(()),
            None => write!(f, "; no whole device before it"),
        }
    }
}

impl Stream {
    /// The machine type, if the stream names it.
    pub fn machine(&self) -> Option<&str> {
        self.configuration.as_ref().map(|configuration| configuration.machine.as_str())
    }

    /// The sections, each with the item that it is.
    pub fn sections(&self) -> impl Iterator<Item = (&Item, &Section)> {
        self.items.iter().filter_map(|item| match &item.kind {
            ItemKind::Section(section) => Some((item, section)),
            _ => None,
        })
    }

    /// The layout of a section's state, if it is described.
    pub fn layout(&self, section: &Section) -> Option<&Layout> {
        self.description.as_ref()?.layout(&section.device, section.twin)
    }

    /// The devices' states: the FULL sections, in order.
    pub fn devices(&self) -> impl Iterator<Item = (&Item, &Section)> {
        self.sections().filter(|(_, section)| section.kind == SectionKind::Full)
    }
}
