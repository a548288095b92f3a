// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads a stream from its header to its description, or up to the first damage.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::budget::Budget;
use super::cursor::{Cursor, Fault, Result, Stop};
use super::describe::Description;
use super::live;
use super::ram::RamReader;
use super::search::{self, Surroundings};
use super::source::{Holes, SliceSource, Source};
use super::stream::{
    Command, Configuration, Damage, Device, Framing, Item, ItemKind, PageSizeFrom, Section, SectionKind, Stream,
};
use super::visit::Visitor;
use crate::wire;
use crate::wire::chain::Link;
use crate::wire::command::{self, Advise, CommandHead, Discard, Range};
use crate::wire::extensions;
use crate::wire::io::Input;
use crate::wire::limits;
use crate::wire::section::{self, DeviceHead, FOOTER_LEN, footer};

/// What the caller knows about a stream, and limits.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The memory that reading may use.
    pub budget: Budget,
    /// The description of another stream of the same machine, for a stream without one, such as one of postcopy.
    pub description: Option<Arc<Description>>,
    /// The target's page size in bytes, if known.
    pub page_size: Option<u64>,
    /// Whether sections have footers, if known.
    pub footers: Option<bool>,
    /// Live devices have formats of their own, even if they are named as QEMU's are. Only footers show where their sections
    /// end.
    pub own_formats: bool,
    /// Offset of the stream in its file, in bytes. Offsets of mapped memory count from the start of the file.
    pub base: u64,
    /// An offset after the last byte that is not zero, if known. The description is searched before it.
    pub data_end: Option<usize>,
    /// The holes of the stream's file, if known. They are not searched for the end of a section.
    pub holes: Option<Holes>,
    /// Reads only up to EOF. Only a description may follow.
    pub sections_only: bool,
    /// Starts to load a byte into the processor's cache, without waiting for it. Called for bytes of a stream in memory
    /// that are needed soon. If `None`, no byte is prefetched.
    pub prefetch: Option<fn(&u8)>,
}

/// Reads a stream from a source. Damage of the stream is in [`Stream::damage`]. Errors are those of the source and the
/// visitor.
pub fn read<S: Source, V: Visitor>(source: S, options: Options, visitor: &mut V) -> io::Result<Stream> {
    Parser::new(source, options, visitor).run()
}

/// Reads a stream that is wholly in memory.
///
/// The description at the end is read first, so that the sizes of the devices are known.
pub fn read_whole<V: Visitor>(bytes: &[u8], mut options: Options, visitor: &mut V) -> io::Result<Stream> {
    let searched = options.data_end.and_then(|end| bytes.get(..end)).unwrap_or(bytes);
    let text = Description::find_at_end(searched, wire::VMDESCRIPTION);
    let found = text.and_then(|text| Description::parse(text, &mut options.budget).ok());
    let own = found.is_some();
    if let Some(description) = found {
        options.description = Some(Arc::new(description));
    }
    let mut parser = Parser::new(
        SliceSource::with_prefetch(bytes, options.prefetch).with_holes(options.holes.clone()),
        options,
        visitor,
    );
    parser.description_is_own = own;
    parser.run()
}

/// Reads a stream that is wholly in memory, without a visitor.
pub fn read_slice(bytes: &[u8], options: Options) -> Stream {
    let read = read_whole(bytes, options, &mut super::visit::Unwatched);
    // Neither memory nor a visitor that does nothing can fail.
    read.unwrap_or_default()
}

/// A device that a START or FULL section has named.
#[derive(Clone)]
struct SectionDevice {
    device: Device,
    version: u32,
    live: bool,
}

struct Parser<'v, S, V> {
    cursor: Cursor<S>,
    visitor: &'v mut V,
    stream: Stream,
    ram: RamReader,
    known: HashMap<u32, SectionDevice>,
    /// Number of FULL sections of each device.
    twins: HashMap<Device, u32>,
    /// The enclosing packages: offset of the end, and index of the item.
    packages: Vec<(u64, usize)>,
    /// The description was read from this stream's end in advance.
    description_is_own: bool,
    sections_only: bool,
    own_formats: bool,
    /// The section that is being read.
    section: Option<(u32, Device, SectionKind)>,
    last_good: Option<Device>,
}

impl<'v, S: Source, V: Visitor> Parser<'v, S, V> {
    fn new(source: S, options: Options, visitor: &'v mut V) -> Self {
        let mut stream = Stream { description: options.description, footers: options.footers, ..Stream::default() };
        stream.description_is_foreign = stream.description.is_some();
        let mut ram = RamReader::with_base(options.base);
        if let Some(size) = options.page_size {
            ram.set_page_size(size, PageSizeFrom::Caller);
        }
        Self {
            cursor: Cursor::new(source, options.budget),
            visitor,
            stream,
            ram,
            known: HashMap::new(),
            twins: HashMap::new(),
            packages: Vec::new(),
            description_is_own: false,
            sections_only: options.sections_only,
            own_formats: options.own_formats,
            section: None,
            last_good: None,
        }
    }

    fn run(mut self) -> io::Result<Stream> {
        self.stream.description_is_foreign &= !self.description_is_own;
        match self.stream() {
            Ok(()) => {}
            Err(Stop::Io(error)) => return Err(error),
            Err(Stop::Fault(fault)) => self.note(fault),
        }
        if self.stream.trailing == 0 {
            self.stream.length = self.stream.length.max(self.cursor.offset());
        }
        self.stream.ram = self.ram.ram;
        self.visitor.progress(self.stream.length);
        Ok(self.stream)
    }

    fn note(&mut self, Fault { offset, cut, expected, found }: Fault) {
        let (section, last_good) = (self.section.take(), self.last_good.take());
        self.stream.damage = Some(Damage { offset, cut, section, expected, found, last_good });
    }

    fn stream(&mut self) -> Result<()> {
        self.header()?;
        loop {
            self.leave_packages();
            let start = self.cursor.offset();
            self.visitor.progress(start);
            let tag = self.cursor.get_u8("a section")?;
            match tag {
                wire::CONFIGURATION => self.configuration(start)?,
                wire::COMMAND => self.command(start)?,
                wire::EOF => {
                    self.item(start, ItemKind::Eof)?;
                    if self.packages.is_empty() {
                        break;
                    }
                }
                _ => match SectionKind::from_tag(tag) {
                    Some(kind) => self.section(start, kind)?,
                    None => {
                        return self.cursor.fault(start, "a section", format!("{} ({tag:#04x})", wire::tag_name(tag)));
                    }
                },
            }
        }
        self.stream.complete = true;
        if self.sections_only {
            return self.nothing_else_follows();
        }
        self.description()?;
        self.stream.length = self.cursor.offset();
        self.trailing()
    }

    fn header(&mut self) -> Result<()> {
        let magic = self.cursor.get_be32("the magic number 'QEVM'")?;
        if magic != wire::FILE_MAGIC {
            let found = format!("'{}'", magic.to_be_bytes().escape_ascii());
            return self.cursor.fault(0, "the magic number 'QEVM'", found);
        }
        self.stream.version = self.cursor.get_be32("the version")?;
        if self.stream.version != wire::FILE_VERSION {
            let found = format!("version {}", self.stream.version);
            return self.cursor.fault(4, format!("version {}", wire::FILE_VERSION), found);
        }
        self.item(0, ItemKind::Header)
    }

    /// Appends an item from `start` to the current offset.
    fn item(&mut self, start: u64, kind: ItemKind) -> Result<()> {
        // Twice, because a growing list allocates double its length.
        self.cursor.pay(2 * size_of::<Item>())?;
        let (size, depth) = (self.cursor.offset() - start, self.packages.len() as u32);
        self.stream.items.push(Item { offset: start, size, depth, kind });
        Ok(())
    }

    fn leave_packages(&mut self) {
        while let Some(&(end, item)) = self.packages.last() {
            if self.cursor.offset() < end {
                break;
            }
            self.packages.pop();
            let item = &mut self.stream.items[item];
            item.size = end - item.offset;
            self.cursor.set_end(self.packages.last().map_or(u64::MAX, |&(end, _)| end));
        }
    }

    fn configuration(&mut self, start: u64) -> Result<()> {
        let at = self.cursor.offset();
        let len = self.cursor.get_be32("the length of the machine's name")?;
        if len > limits::MACHINE_NAME_MAX {
            return self.cursor.fault(at, "the length of the machine's name", format!("{len}"));
        }
        let name = self.cursor.copy(len.into(), "the machine's name")?;
        let mut configuration =
            Configuration { machine: String::from_utf8_lossy(&name).into_owned(), ..Configuration::default() };
        while self.cursor.peek_byte()? == Some(wire::SUBSECTION) {
            let at = self.cursor.offset();
            self.cursor.get_u8("a subsection")?;
            let name = self.cursor.get_name("the name of a subsection")?;
            let version = self.cursor.get_be32("the version of a subsection")?;
            if version != wire::CONFIGURATION_SUBSECTION_VERSION {
                let expected = format!("version {} of a subsection", wire::CONFIGURATION_SUBSECTION_VERSION);
                return self.cursor.fault(at, expected, format!("version {version} of '{name}'"));
            }
            match name.strip_prefix("configuration/") {
                Some("target-page-bits") => {
                    let bits = self.cursor.get_be32("the target's page bits")?;
                    configuration.page_bits = Some(bits);
                    let size = 1u64.checked_shl(bits).unwrap_or(0);
                    self.ram.set_page_size(size, PageSizeFrom::Configuration);
                }
                Some("capabilities") => {
                    let at = self.cursor.offset();
                    let count = self.cursor.get_be32("the number of capabilities")?;
                    if count > limits::CAPABILITIES_MAX {
                        return self.cursor.fault(at, "the number of capabilities", format!("{count}"));
                    }
                    for _ in 0..count {
                        configuration.capabilities.push(self.cursor.get_name("a capability")?);
                    }
                }
                Some("uuid") => configuration.uuid = Some(self.cursor.get("the machine's UUID")?),
                _ => return self.cursor.fault(at, "a known subsection of the configuration", format!("'{name}'")),
            }
        }
        self.stream.configuration = Some(configuration);
        self.item(start, ItemKind::Configuration)
    }

    fn command(&mut self, start: u64) -> Result<()> {
        let CommandHead { number, len } = CommandHead::decode(&mut self.cursor)?;
        let known = wire::Command::from_wire(number);
        if !search::plausible_command(number, len) {
            return self.cursor.fault(start, "a known command", format!("command {number} of {len} bytes"));
        }
        let payload = self.cursor.copy(len.into(), "a command's payload")?;
        let name = known.map(wire::Command::name);
        let detail = self.command_detail(known, &payload);
        let packaged = command::decode_packaged(&mut &payload[..]).ok();
        self.item(start, ItemKind::Command(Command { number, name, detail }))?;
        if let (Some(wire::Command::Packaged), Some(len)) = (known, packaged) {
            if self.packages.len() >= limits::PACKAGED_DEPTH_MAX as usize {
                return self.cursor.fault(start, "a package that is not nested so deeply", "another one");
            }
            let end = self.cursor.offset() + u64::from(len);
            if end > self.cursor.end() {
                return self.cursor.fault(start, "a package within the one around it", format!("{len} bytes"));
            }
            self.packages.push((end, self.stream.items.len() - 1));
            self.cursor.set_end(end);
        }
        if let (Some(wire::Command::Preflight), Some(len)) = (known, packaged) {
            self.cursor.skip(len.into(), "the request of a preflight")?;
        }
        Ok(())
    }

    /// Describes a command in words. Keeps the page size that it names.
    fn command_detail(&mut self, command: Option<wire::Command>, payload: &[u8]) -> String {
        let mut input = payload;
        match command {
            Some(wire::Command::Ping) => {
                let value = command::decode_ping(&mut input).unwrap_or(0);
                extensions::ping_name(value).map_or(value.to_string(), |name| format!("{value:#x} ({name})"))
            }
            Some(wire::Command::Packaged | wire::Command::Preflight) => {
                format!("{} bytes", command::decode_packaged(&mut input).unwrap_or(0))
            }
            Some(wire::Command::PostcopyAdvise) => match Advise::decode(&mut input) {
                Ok(Advise { page_sizes, target_page }) => {
                    self.ram.set_page_size(target_page, PageSizeFrom::Advise);
                    format!("host page sizes {page_sizes:#x}, target page size {target_page}")
                }
                Err(_) => "no RAM".into(),
            },
            Some(wire::Command::PostcopyRamDiscard) => {
                let block = Discard::decode(&mut input).map_or(&[][..], |discard| discard.block);
                let (mut count, mut bytes) = (0, 0u64);
                while let Ok(range) = Range::decode(&mut input) {
                    count += 1;
                    bytes = bytes.saturating_add(range.len);
                }
                let plural = if count == 1 { "" } else { "s" };
                format!("'{}', {count} range{plural}, {bytes} bytes", String::from_utf8_lossy(block))
            }
            Some(wire::Command::RecvBitmap) => {
                let block = command::decode_recv_bitmap(&mut input).unwrap_or_default();
                format!("'{}'", String::from_utf8_lossy(block))
            }
            _ if payload.is_empty() => String::new(),
            _ => format!("{} bytes", payload.len()),
        }
    }

    fn section(&mut self, start: u64, kind: SectionKind) -> Result<()> {
        let id = section::decode_id(&mut self.cursor)?;
        let known = match kind {
            SectionKind::Start | SectionKind::Full => self.introduce(id, kind)?,
            SectionKind::Part | SectionKind::End => match self.known.get(&id) {
                Some(known) if known.live => known.clone(),
                _ => return self.cursor.fault(start, "a section of a live device", format!("section {id}")),
            },
        };
        self.section = Some((id, known.device.clone(), kind));
        let payload = self.cursor.offset();
        let mut data = V::WANTS_STATES.then(Vec::new);
        let twin = self.twin(kind, &known.device)?;
        let framing = match kind {
            SectionKind::Full if *known.device.name == *wire::chain::SECTION => self.link(known.version)?,
            SectionKind::Full => self.device_state(id, &known.device, twin, data.as_mut())?,
            _ => self.live_state(id, &known)?,
        };
        self.footer(id)?;
        self.section = None;
        let SectionDevice { device, version, .. } = known;
        if kind == SectionKind::Full {
            self.last_good = Some(device.clone());
        }
        let data = data.filter(|_| kind == SectionKind::Full);
        let section = Section { kind, id, device, twin, version, count: 1, payload, data, framing };
        self.section_item(start, section)
    }

    /// Appends a section. A PART section that continues a run of them is added to that item.
    fn section_item(&mut self, start: u64, section: Section) -> Result<()> {
        let (end, depth) = (self.cursor.offset(), self.packages.len() as u32);
        if let (SectionKind::Part, Some(last)) = (section.kind, self.stream.items.last_mut()) {
            if let ItemKind::Section(run) = &mut last.kind {
                if run.kind == SectionKind::Part && run.id == section.id && last.depth == depth {
                    run.count += 1;
                    last.size = end - last.offset;
                    return Ok(());
                }
            }
        }
        // Users of the model copy the name for each item.
        self.cursor.pay(section.device.name.len() + 1)?;
        self.item(start, ItemKind::Section(section))
    }

    /// Reads the rest of a head that names its device.
    fn introduce(&mut self, id: u32, kind: SectionKind) -> Result<SectionDevice> {
        let at = self.cursor.offset();
        let DeviceHead { name, instance, version } = DeviceHead::decode(&mut self.cursor)?;
        if name.is_empty() {
            return self.cursor.fault(at, "a device's name", "an empty one");
        }
        let known =
            SectionDevice { device: Device { name: name.into(), instance }, version, live: kind == SectionKind::Start };
        self.cursor.pay(2 * (size_of::<SectionDevice>() + size_of::<u32>()) + known.device.name.len())?;
        self.known.insert(id, known.clone());
        Ok(known)
    }

    /// Returns the number of devices of the same name and instance before this one.
    fn twin(&mut self, kind: SectionKind, device: &Device) -> Result<u32> {
        if kind != SectionKind::Full {
            return Ok(0);
        }
        self.cursor.pay(2 * size_of::<(Device, u32)>())?;
        let count = self.twins.entry(device.clone()).or_default();
        *count += 1;
        Ok(*count - 1)
    }

    /// Skips a live device's state.
    fn live_state(&mut self, id: u32, known: &SectionDevice) -> Result<Framing> {
        if self.own_formats {
            return self.search(id, false, None).map(|()| Framing::Searched);
        }
        if &*known.device.name == "ram" {
            if known.version != wire::ram::VERSION as u32 {
                let found = format!("version {}", known.version);
                return self.cursor.fault(
                    self.cursor.offset(),
                    format!("RAM of version {}", wire::ram::VERSION),
                    found,
                );
            }
            if let Some(size) = self.stream.description.as_ref().and_then(|description| description.page_size) {
                self.ram.set_page_size(size, PageSizeFrom::Description);
            }
            self.ram.section(&mut self.cursor, self.stream.configuration.as_ref(), self.visitor)?;
            return Ok(Framing::Parsed);
        }
        if live::skip_section(&mut self.cursor, &known.device.name)? {
            return Ok(Framing::Parsed);
        }
        // The state of a live device can be as large as guest memory, so it is not kept.
        self.search(id, false, None).map(|()| Framing::Searched)
    }

    /// Reads the section by which an incremental snapshot names its parent.
    fn link(&mut self, version: u32) -> Result<Framing> {
        if version != wire::chain::VERSION {
            let expected = format!("version {} of the section that names the parent", wire::chain::VERSION);
            return self.cursor.fault(self.cursor.offset(), expected, format!("version {version}"));
        }
        let Link { parent, name } = Link::decode(&mut self.cursor)?;
        self.stream.parent = Some(Link { parent, name: name.into() });
        Ok(Framing::Parsed)
    }

    /// Reads the state of a device that is not live. Its description gives the length, unless the footer is elsewhere.
    fn device_state(&mut self, id: u32, device: &Device, twin: u32, data: Option<&mut Vec<u8>>) -> Result<Framing> {
        let described = self.stream.description.as_ref().and_then(|description| description.layout(device, twin));
        let size = described.and_then(|layout| usize::try_from(layout.size).ok());
        if let Some(size) = size.filter(|&size| size <= self.cursor.budget.left() / 2) {
            let footers = self.stream.footers == Some(true);
            let seen = |id| self.known.get(&id).map(|known| known.live);
            let packaged = !self.packages.is_empty();
            let around = Surroundings { id, footers: Some(footers), full: true, packaged, seen: &seen };
            let ahead = self.cursor.peek(size + search::LOOK_AHEAD)?;
            let last = ahead.len() < size + search::LOOK_AHEAD;
            let footer_follows = ahead.get(size..).is_some_and(|ahead| ahead.starts_with(&footer(id)));
            // Without a footer, the bytes that follow must be plausible.
            let fits = || ahead.get(size..).is_some_and(|ahead| around.ends_here(ahead, last));
            if footer_follows || !footers && fits() {
                match data {
                    Some(data) => self.cursor.take_into(data, size)?,
                    None => self.cursor.skip(size as u64, "a device's state")?,
                }
                return Ok(Framing::Described);
            }
        }
        self.search(id, true, data).map(|()| Framing::Searched)
    }

    /// Searches for the end of a section. `keep` receives its state.
    fn search(&mut self, id: u32, full: bool, keep: Option<&mut Vec<u8>>) -> Result<()> {
        let (footers, packaged) = (self.stream.footers, !self.packages.is_empty());
        let seen = |id| self.known.get(&id).map(|known| known.live);
        let around = Surroundings { id, footers, full, packaged, seen: &seen };
        search::find_end(&mut self.cursor, &around, keep)
    }

    /// Reads the footer of a section, if the stream has footers. The first section shows whether it has.
    fn footer(&mut self, id: u32) -> Result<()> {
        let start = self.cursor.offset();
        let ahead = self.cursor.peek(FOOTER_LEN)?;
        let found = ahead.get(..FOOTER_LEN).map(|found| found.escape_ascii().to_string());
        let matches = ahead.starts_with(&footer(id));
        let looks_like_one = ahead.first() == Some(&wire::SECTION_FOOTER);
        let footers = *self.stream.footers.get_or_insert(looks_like_one || found.is_none());
        match found {
            _ if !footers => Ok(()),
            _ if matches => self.cursor.skip(FOOTER_LEN as u64, "a footer"),
            None => self.cursor.skip(FOOTER_LEN as u64, "a section's footer"),
            Some(found) => {
                let expected = format!("the footer '{}' of section {id}", footer(id).escape_ascii());
                self.cursor.fault(start, expected, format!("'{found}'"))
            }
        }
    }

    /// Checks that nothing but a description follows EOF: a stray zero before a section looks like EOF.
    fn nothing_else_follows(&mut self) -> Result<()> {
        match self.cursor.peek_byte()? {
            None | Some(wire::VMDESCRIPTION) => Ok(()),
            Some(tag) => {
                let found = format!("{} ({tag:#04x})", wire::tag_name(tag));
                self.cursor.fault(self.cursor.offset(), "a description or nothing after the end", found)
            }
        }
    }

    /// Reads the description after EOF, if there is one.
    fn description(&mut self) -> Result<()> {
        let start = self.cursor.offset();
        if self.cursor.peek_byte()? != Some(wire::VMDESCRIPTION) {
            return Ok(());
        }
        self.cursor.get_u8("the description")?;
        let len = section::decode_description_len(&mut self.cursor)?;
        if self.description_is_own {
            self.cursor.skip(len.into(), "the description")?;
            return self.item(start, ItemKind::Description);
        }
        let at = self.cursor.offset();
        let text = self.cursor.copy(len.into(), "the description")?;
        match Description::parse(&text, &mut self.cursor.budget) {
            Ok(description) => {
                self.stream.description = Some(Arc::new(description));
                self.stream.description_is_foreign = false;
            }
            Err(error) => {
                let found = format!("text that breaks off from it: {}", error.message);
                return self.cursor.fault(at + error.offset as u64, "the description as JSON", found);
            }
        }
        self.cursor.budget.give_back(text.capacity());
        self.item(start, ItemKind::Description)
    }

    /// Counts the bytes after the stream.
    fn trailing(&mut self) -> Result<()> {
        const STEP: u64 = 1 << 20;
        loop {
            let ahead = self.cursor.peek(STEP as usize)?.len() as u64;
            if ahead == 0 {
                return Ok(());
            }
            self.cursor.skip(ahead, "what follows the stream")?;
            self.stream.trailing += ahead;
        }
    }
}
