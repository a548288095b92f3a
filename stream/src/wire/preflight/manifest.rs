// SPDX-License-Identifier: LGPL-2.1-or-later
//! The manifest: what a machine has that its counterpart must have as well.

use super::VERSION;
use super::body::{BodyError, Result, get_bool, get_device_count, get_list, get_text, limited, put_text};
use crate::wire::io::{Input, Output};
use crate::wire::limits::PREFLIGHT_BLOCKS_MAX;

const IS_SENT: u8 = 1;
const IS_LOADED: u8 = 2;
const IGNORED: u8 = 1;

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
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
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

    pub(super) fn decode(input: &mut &[u8]) -> Result<Self> {
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
