// SPDX-License-Identifier: LGPL-2.1-or-later
//! The preflight: two ends of libsavevm compare their machines before a migration.
//!
//! The source sends requests, each in a PREFLIGHT command. The destination sends one answer to each, over the return path.
//!
//! ```text
//! request   = 0x08 0x5359(be16) 4(be16) length(be32) body
//! body      = 1(u8) manifest | 2(u8) layouts | 3(u8) sections EOF      (3: a rehearsal)
//! manifest  = version(be16) purpose(u8) machine settings ram devices
//! machine   = 0(u8) | 1(u8) text page_bits(u8) uuid capabilities
//! uuid      = 0(u8) | 1(u8) 16 bytes
//! capabilities = count(be16) text*
//! settings  = count(be16) { name value(be64) }
//! ram       = 0(u8) | 1(u8) count(be32) { name length(be64) page_size(be64) address(be64) flags(u8) }
//! devices   = count(be32) { name instance(be32) version(be32) oldest(be32) alias(be32) name instance(be32) flags(u8) digest(be64) }
//! layouts   = count(be32) { length(be32) JSON }
//!
//! answer    = 1(u8) verdict | 2(u8) wanted | 3(u8) report
//! verdict   = version(be16) passes(u8) count(be32) { severity(u8) name instance(be32) text text }
//! wanted    = count(be32) index(be32)*          the layouts of these devices of the manifest
//! report    = text count(be32) { name instance(be32) microseconds(be64) }    an empty text: everything was loaded
//! text      = length(be16) bytes
//! ```
//! `name` is a counted string. Bytes after the known members of a body are ignored, so that later releases may append members.

use super::io::{Cut, Input, Output, text_start};
use super::limits::{PREFLIGHT_BLOCKS_MAX, PREFLIGHT_DEVICES_MAX, PREFLIGHT_PROBLEMS_MAX};
use std::fmt;

/// The version of manifests and verdicts.
pub const VERSION: u16 = 1;
/// Longest text in bytes. Longer ones are cut.
pub const TEXT_MAX: usize = u16::MAX as usize;

const MANIFEST: u8 = 1;
const LAYOUTS: u8 = 2;
const REHEARSAL: u8 = 3;
const VERDICT: u8 = 1;
const WANTED: u8 = 2;
const REPORT: u8 = 3;

/// What the source wants of the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// To migrate, if the verdict passes.
    #[default]
    Migrate = 0,
    /// The verdict alone.
    Verdict = 1,
    /// To send the devices once for a test. The destination loads them, reports how that went, and resets its machine.
    Rehearse = 2,
}

/// The properties of a machine that the configuration section contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Name of the machine.
    pub name: Vec<u8>,
    /// log2 of the target's page size.
    pub page_bits: u8,
    /// The machine's UUID.
    pub uuid: Option<[u8; 16]>,
    /// Names of the enabled capabilities that both sides must share.
    pub capabilities: Vec<Vec<u8>>,
}

/// A named number: a parameter of the migration, or a size that must fit a limit of the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: Vec<u8>,
    /// Its value.
    pub value: u64,
}

/// A block of RAM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RamBlock {
    /// Name.
    pub name: Vec<u8>,
    /// Length in bytes.
    pub length: u64,
    /// Size of the host pages that back it, in bytes.
    pub page_size: u64,
    /// Guest-physical address, or 0.
    pub address: u64,
    /// Whether its pages are not sent, because both sides map the same memory.
    pub ignored: bool,
}

/// A registered device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// idstr, with the path.
    pub name: Vec<u8>,
    /// Instance id.
    pub instance: u32,
    /// Version of the state that it saves, and the newest that it loads.
    pub version: u32,
    /// Oldest version that it loads.
    pub oldest: u32,
    /// A second instance id under which it is found.
    pub alias: u32,
    /// An older name under which it is found; empty: none.
    pub compat_name: Vec<u8>,
    /// Its instance id under the older name.
    pub compat_instance: u32,
    /// It is sent in a stream of this moment. Destination: a stream without it is incomplete.
    pub is_sent: bool,
    /// It can be loaded.
    pub is_loaded: bool,
    /// Digest of the layout of its state; 0: it has no description.
    pub digest: u64,
}

const IS_SENT: u8 = 1;
const IS_LOADED: u8 = 2;
const IGNORED: u8 = 1;

/// Describes a machine for the preflight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// What follows.
    pub purpose: Purpose,
    /// The content of the configuration section, if there is one.
    pub machine: Option<Machine>,
    /// Parameters and sizes.
    pub settings: Vec<Setting>,
    /// The blocks of RAM, if they are known.
    pub ram: Option<Vec<RamBlock>>,
    /// The devices, in the order of a stream.
    pub devices: Vec<Device>,
}

/// A request of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Its machine.
    Manifest(Manifest),
    /// The layouts that the destination wanted, as JSON, in the order in which it wanted them. Empty: unknown.
    Layouts(Vec<Vec<u8>>),
    /// Sections of devices up to EOF.
    Rehearsal(Vec<u8>),
}

/// How serious a difference is. The numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Severity {
    /// A note. It has no effect on loading.
    Note = 0,
    /// An unusual difference that is accepted in most cases.
    Warning = 1,
    /// A difference that makes the destination read later bytes as other fields, unless the machine's own state happens to
    /// match.
    Risk = 2,
    /// The stream will not load.
    Error = 3,
}

/// A difference between two machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How serious it is.
    pub severity: Severity,
    /// Name and instance id of the device, if it is about one.
    pub device: Option<(Vec<u8>, u32)>,
    /// The field or subsection in the device, or the block of RAM; may be empty.
    pub path: String,
    /// The difference as text.
    pub message: String,
}

/// The time that one device took to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadTime {
    /// idstr, with the path.
    pub name: Vec<u8>,
    /// Instance id.
    pub instance: u32,
    /// Time in microseconds.
    pub micros: u64,
}

/// An answer of the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The verdict.
    Verdict {
        /// Whether the destination accepts the guest.
        passes: bool,
        /// What was found, passing or not.
        problems: Vec<Problem>,
    },
    /// The layouts of these devices are wanted first: indexes into the manifest.
    Wanted(Vec<u32>),
    /// How the rehearsal went.
    Report {
        /// Why it failed; empty if everything was loaded.
        failure: String,
        /// The devices that were loaded, in order.
        times: Vec<LoadTime>,
    },
}

/// Why a body is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It ends before this value, or within it.
    Cut(&'static str),
    /// It has a version that this end does not know.
    Version(u16),
    /// A value is not allowed.
    Invalid {
        /// Name of the value.
        what: &'static str,
        /// The value.
        value: u64,
    },
}

impl From<Cut> for BodyError {
    fn from(Cut(what): Cut) -> Self {
        Self::Cut(what)
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(what) => write!(f, "preflight: it ends before {what}"),
            Self::Version(version) => write!(f, "preflight: version {version}, expected {VERSION}"),
            Self::Invalid { what, value } => write!(f, "preflight: {what} is {value}"),
        }
    }
}

type Result<T> = std::result::Result<T, BodyError>;

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(TEXT_MAX)];
    out.put_be16(text.len() as u16);
    out.put(text);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_text(out, text_start(text, TEXT_MAX).as_bytes());
}

fn take<'a>(input: &mut &'a [u8], len: usize, what: &'static str) -> Result<&'a [u8]> {
    let (bytes, rest) = input.split_at_checked(len).ok_or(Cut(what))?;
    *input = rest;
    Ok(bytes)
}

fn get_text<'a>(input: &mut &'a [u8], what: &'static str) -> Result<&'a [u8]> {
    let len = input.get_be16(what)?;
    take(input, len.into(), what)
}

fn get_string(input: &mut &[u8], what: &'static str) -> Result<String> {
    get_text(input, what).map(|text| String::from_utf8_lossy(text).into_owned())
}

fn get_bool(input: &mut &[u8], what: &'static str) -> Result<bool> {
    match input.get_u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(BodyError::Invalid { what, value: value.into() }),
    }
}

/// Returns a count that is within its limit.
fn limited(count: u32, most: u32, what: &'static str) -> Result<u32> {
    if count > most { Err(BodyError::Invalid { what, value: count.into() }) } else { Ok(count) }
}

/// Reads the count of a list that has at most one element for each device.
fn get_device_count(input: &mut &[u8], what: &'static str) -> Result<u32> {
    limited(input.get_be32(what)?, PREFLIGHT_DEVICES_MAX, what)
}

/// Reads a list. `least` is the size of the smallest element in bytes, which limits the memory that a count may claim.
fn get_list<T>(
    input: &mut &[u8],
    count: u32,
    least: usize,
    what: &'static str,
    mut element: impl FnMut(&mut &[u8]) -> Result<T>,
) -> Result<Vec<T>> {
    if (count as usize).checked_mul(least).is_none_or(|bytes| bytes > input.len()) {
        return Err(BodyError::Invalid { what, value: count.into() });
    }
    (0..count).map(|_| element(input)).collect()
}

impl Purpose {
    fn from_wire(value: u8) -> Result<Self> {
        match value {
            0 => Ok(Self::Migrate),
            1 => Ok(Self::Verdict),
            2 => Ok(Self::Rehearse),
            _ => Err(BodyError::Invalid { what: "the purpose", value: value.into() }),
        }
    }
}

impl Severity {
    /// Returns the name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Risk => "risk",
            Self::Error => "error",
        }
    }

    fn from_wire(value: u8) -> Result<Self> {
        match value {
            0 => Ok(Self::Note),
            1 => Ok(Self::Warning),
            2 => Ok(Self::Risk),
            3 => Ok(Self::Error),
            _ => Err(BodyError::Invalid { what: "a severity", value: value.into() }),
        }
    }
}

impl Machine {
    fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, &self.name);
        out.put_u8(self.page_bits);
        out.put_u8(u8::from(self.uuid.is_some()));
        out.put(self.uuid.as_ref().map_or(&[][..], |uuid| uuid));
        out.put_be16(self.capabilities.len() as u16);
        self.capabilities.iter().for_each(|name| put_text(out, name));
    }

    fn decode(input: &mut &[u8]) -> Result<Self> {
        let name = get_text(input, "the machine's name")?.to_vec();
        let page_bits = input.get_u8("the target's page size")?;
        if page_bits > 62 {
            return Err(BodyError::Invalid { what: "log2 of the target's page size", value: page_bits.into() });
        }
        let uuid = match get_bool(input, "the machine's UUID")? {
            true => Some(input.get("the machine's UUID")?),
            false => None,
        };
        let count = input.get_be16("the number of capabilities")?;
        let capabilities = get_list(input, count.into(), 2, "the number of capabilities", |input| {
            get_text(input, "a capability").map(<[u8]>::to_vec)
        })?;
        Ok(Self { name, page_bits, uuid, capabilities })
    }
}

impl Setting {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_name(&self.name);
        out.put_be64(self.value);
    }

    fn decode(input: &mut &[u8]) -> Result<Self> {
        let name = input.get_name("the name of a setting")?.to_vec();
        Ok(Self { name, value: input.get_be64("a setting")? })
    }
}

impl RamBlock {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_name(&self.name);
        out.put_be64(self.length);
        out.put_be64(self.page_size);
        out.put_be64(self.address);
        out.put_u8(if self.ignored { IGNORED } else { 0 });
    }

    fn decode(input: &mut &[u8]) -> Result<Self> {
        Ok(Self {
            name: input.get_name("the name of a block")?.to_vec(),
            length: input.get_be64("the length of a block")?,
            page_size: input.get_be64("the page size of a block")?,
            address: input.get_be64("the address of a block")?,
            ignored: input.get_u8("the flags of a block")? & IGNORED != 0,
        })
    }
}

impl Device {
    /// Size of the smallest device in bytes.
    const LEAST: usize = 1 + 4 * 4 + 1 + 4 + 1 + 8;

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_name(&self.name);
        for number in [self.instance, self.version, self.oldest, self.alias] {
            out.put_be32(number);
        }
        out.put_name(&self.compat_name);
        out.put_be32(self.compat_instance);
        let flag = |is_set, bit| if is_set { bit } else { 0 };
        out.put_u8(flag(self.is_sent, IS_SENT) | flag(self.is_loaded, IS_LOADED));
        out.put_be64(self.digest);
    }

    fn decode(input: &mut &[u8]) -> Result<Self> {
        let name = input.get_name("the name of a device")?.to_vec();
        let [instance, version] = [input.get_be32("an instance id")?, input.get_be32("a device's version")?];
        let [oldest, alias] = [input.get_be32("a device's oldest version")?, input.get_be32("a device's alias id")?];
        let compat_name = input.get_name("a device's older name")?.to_vec();
        let compat_instance = input.get_be32("the instance id of a device's older name")?;
        let flags = input.get_u8("the flags of a device")?;
        let digest = input.get_be64("the digest of a device")?;
        let (is_sent, is_loaded) = (flags & IS_SENT != 0, flags & IS_LOADED != 0);
        Ok(Self { name, instance, version, oldest, alias, compat_name, compat_instance, is_sent, is_loaded, digest })
    }
}

impl Manifest {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_be16(VERSION);
        out.put_u8(self.purpose as u8);
        out.put_u8(u8::from(self.machine.is_some()));
        if let Some(machine) = &self.machine {
            machine.encode(out);
        }
        out.put_be16(self.settings.len() as u16);
        self.settings.iter().for_each(|setting| setting.encode(out));
        out.put_u8(u8::from(self.ram.is_some()));
        if let Some(ram) = &self.ram {
            out.put_be32(ram.len() as u32);
            ram.iter().for_each(|block| block.encode(out));
        }
        out.put_be32(self.devices.len() as u32);
        self.devices.iter().for_each(|device| device.encode(out));
    }

    fn decode(input: &mut &[u8]) -> Result<Self> {
        let version = input.get_be16("the version of the manifest")?;
        if version != VERSION {
            return Err(BodyError::Version(version));
        }
        let purpose = Purpose::from_wire(input.get_u8("the purpose")?)?;
        let machine = match get_bool(input, "the machine")? {
            true => Some(Machine::decode(input)?),
            false => None,
        };
        let count = input.get_be16("the number of settings")?;
        let settings = get_list(input, count.into(), 9, "the number of settings", Setting::decode)?;
        let ram = match get_bool(input, "the blocks of RAM")? {
            true => {
                let count =
                    limited(input.get_be32("the number of blocks")?, PREFLIGHT_BLOCKS_MAX, "the number of blocks")?;
                Some(get_list(input, count, 26, "the number of blocks", RamBlock::decode)?)
            }
            false => None,
        };
        let count = get_device_count(input, "the number of devices")?;
        let devices = get_list(input, count, Device::LEAST, "the number of devices", Device::decode)?;
        Ok(Self { purpose, machine, settings, ram, devices })
    }
}

impl Request {
    /// Returns the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Manifest(manifest) => {
                out.put_u8(MANIFEST);
                manifest.encode(&mut out);
            }
            Self::Layouts(layouts) => {
                out.put_u8(LAYOUTS);
                out.put_be32(layouts.len() as u32);
                for layout in layouts {
                    out.put_be32(layout.len() as u32);
                    out.put(layout);
                }
            }
            Self::Rehearsal(sections) => {
                out.reserve(sections.len() + 1);
                out.put_u8(REHEARSAL);
                out.put(sections);
            }
        }
        out
    }

    /// Decodes a body.
    pub fn decode(mut body: &[u8]) -> Result<Self> {
        let input = &mut body;
        match input.get_u8("the kind of the request")? {
            MANIFEST => Manifest::decode(input).map(Self::Manifest),
            LAYOUTS => {
                let count = get_device_count(input, "the number of layouts")?;
                let layouts = get_list(input, count, 4, "the number of layouts", |input| {
                    let len = input.get_be32("the length of a layout")?;
                    take(input, len as usize, "the end of a layout").map(<[u8]>::to_vec)
                })?;
                Ok(Self::Layouts(layouts))
            }
            REHEARSAL => Ok(Self::Rehearsal(input.to_vec())),
            value => Err(BodyError::Invalid { what: "the kind of the request", value: value.into() }),
        }
    }
}

impl Problem {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.severity as u8);
        let (name, instance) = self.device.as_ref().map_or((&[][..], 0), |(name, instance)| (name, *instance));
        out.put_name(name);
        out.put_be32(instance);
        put_string(out, &self.path);
        put_string(out, &self.message);
    }

    fn decode(input: &mut &[u8]) -> Result<Self> {
        let severity = Severity::from_wire(input.get_u8("a severity")?)?;
        let name = input.get_name("the device of a problem")?.to_vec();
        let instance = input.get_be32("the instance id of a problem")?;
        let (path, message) = (get_string(input, "the field of a problem")?, get_string(input, "a problem")?);
        let device = if name.is_empty() { None } else { Some((name, instance)) };
        Ok(Self { severity, device, path, message })
    }
}

impl LoadTime {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_name(&self.name);
        out.put_be32(self.instance);
        out.put_be64(self.micros);
    }

    fn decode(input: &mut &[u8]) -> Result<Self> {
        let name = input.get_name("the name of a loaded device")?.to_vec();
        let instance = input.get_be32("the instance id of a loaded device")?;
        Ok(Self { name, instance, micros: input.get_be64("the load time of a device")? })
    }
}

impl Answer {
    /// Returns the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Verdict { passes, problems } => {
                out.put_u8(VERDICT);
                out.put_be16(VERSION);
                out.put_u8(u8::from(*passes));
                out.put_be32(problems.len() as u32);
                problems.iter().for_each(|problem| problem.encode(&mut out));
            }
            Self::Wanted(indexes) => {
                out.put_u8(WANTED);
                out.put_be32(indexes.len() as u32);
                indexes.iter().for_each(|index| out.put_be32(*index));
            }
            Self::Report { failure, times } => {
                out.put_u8(REPORT);
                put_string(&mut out, failure);
                out.put_be32(times.len() as u32);
                times.iter().for_each(|time| time.encode(&mut out));
            }
        }
        out
    }

    /// Decodes a body.
    pub fn decode(mut body: &[u8]) -> Result<Self> {
        let input = &mut body;
        match input.get_u8("the kind of the answer")? {
            VERDICT => {
                let version = input.get_be16("the version of the verdict")?;
                if version != VERSION {
                    return Err(BodyError::Version(version));
                }
                let passes = get_bool(input, "the verdict")?;
                let most = PREFLIGHT_PROBLEMS_MAX as u32 + 1;
                let count = limited(input.get_be32("the number of problems")?, most, "the number of problems")?;
                let problems = get_list(input, count, 10, "the number of problems", Problem::decode)?;
                Ok(Self::Verdict { passes, problems })
            }
            WANTED => {
                let count = get_device_count(input, "the number of layouts")?;
                let index = |input: &mut &[u8]| Ok(input.get_be32("the index of a device")?);
                get_list(input, count, 4, "the number of layouts", index).map(Self::Wanted)
            }
            REPORT => {
                let failure = get_string(input, "the result of a rehearsal")?;
                let count = get_device_count(input, "the number of loaded devices")?;
                let times = get_list(input, count, 13, "the number of loaded devices", LoadTime::decode)?;
                Ok(Self::Report { failure, times })
            }
            value => Err(BodyError::Invalid { what: "the kind of the answer", value: value.into() }),
        }
    }
}

/// A digest of a layout: FNV-1a with 64 bits. Both ends must compute the same one, whatever built them.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        // Most numbers are small. The length byte keeps different sequences apart.
        let bytes = number.to_le_bytes();
        let len = 8 - (number.leading_zeros() / 8) as usize;
        self.byte(len as u8);
        bytes[..len].iter().for_each(|byte| self.byte(*byte));
    }

    /// Adds a string.
    pub fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        text.iter().for_each(|byte| self.byte(*byte));
    }

    /// Returns the digest, which is never 0.
    pub fn finish(self) -> u64 {
        self.0.max(1)
    }
}

#[cfg(test)]
mod tests;
