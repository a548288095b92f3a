// SPDX-License-Identifier: LGPL-2.1-or-later
//! Checks whether a stream would load into this machine, without calling a device. It checks the framing, the configuration, and
//! whether the machine has the devices, versions and blocks of RAM of the stream. It does not check the values inside a device's
//! state, because only the device can.

use crate::error::{Error, Phase, Result, exact_size};
use crate::inspect::{Configuration, Options, ReadSource, Section, SectionKind, Source, Stream, Visitor, read};
use crate::savevm::Vm;
use crate::savevm::config::{self, Received};
use crate::savevm::host::{Flags, Host};
use crate::savevm::load::device_of;
use crate::wire::section::DeviceHead;
use std::io::Read;

/// What is wrong with the stream that comes from `from`. `ENOMSG`: it does not begin as a stream.
pub fn check(vm: &Vm, from: impl Read) -> Result<()> {
    check_source(vm, ReadSource::new(from), 0, &mut Framing).map(drop)
}

/// As `check`, for any source. The stream begins at `base` of its file. Returns what was read, or `None` if the stream can't
/// be checked.
pub fn check_source(vm: &Vm, from: impl Source, base: u64, visitor: &mut impl Visitor) -> Result<Option<Stream>> {
    let host = vm.host();
    if vm.flags().has(Flags::NO_FOOTERS) {
        // Without footers the end of a state is unknown, and a guess must not refuse a good stream.
        return Ok(None);
    }
    let page_size = Some(1 << host.target_page_bits());
    let own_formats = !host.knows_ram() && vm.registry.walk().all(|entry| entry.handler.ram_fits("", 0).is_none());
    let options =
        Options { page_size, footers: Some(true), own_formats, sections_only: true, base, ..Options::default() };
    let stream = read(from, options, visitor).map_err(|err| Error::io("reading it", &err))?;
    check_stream(vm, &*host, &stream).map_err(|err| err.in_phase(Phase::Check))?;
    Ok(Some(stream))
}

/// Nothing but the framing is of interest.
pub struct Framing;

impl Visitor for Framing {
    const WANTS_STATES: bool = false;
}

/// Whether there is such a block of RAM, if RAM has QEMU's format here.
fn ram_fits(vm: &Vm, host: &dyn Host, block: &str, length: u64) -> Option<bool> {
    let known = vm.registry.walk().find_map(|entry| entry.handler.ram_fits(block, length));
    known.or_else(|| host.ram_fits(block, length))
}

/// Checks in the order of the stream, so that the first fault is reported. Later ones may follow from it.
fn check_stream(vm: &Vm, host: &dyn Host, stream: &Stream) -> Result<()> {
    let damage = stream.damage.as_ref();
    if let Some(damage) = damage.filter(|damage| damage.offset < 4) {
        return Err(Error::new(libc::ENOMSG, format!("Not a migration stream: {damage}")));
    }
    match &stream.configuration {
        Some(configuration) => {
            check_configuration(vm, host, configuration).map_err(|err| err.in_phase(Phase::Configuration))?
        }
        None if damage.is_none() && !vm.flags().has(Flags::NO_CONFIGURATION) => {
            return Err(Error::invalid("Configuration section missing"));
        }
        None => {}
    }
    for (item, section) in stream.sections() {
        check_section(vm, section).map_err(|err| err.at_offset(item.offset))?;
    }
    for block in stream.ram.blocks.iter().filter(|block| block.length > 0) {
        if ram_fits(vm, host, &block.name, block.length) == Some(false) {
            let text = format!("there is no RAM block '{}' that can have {}", block.name, exact_size(block.length));
            return Err(Error::invalid(text));
        }
    }
    damage.map_or(Ok(()), |damage| Err(Error::invalid(damage.to_string())))
}

fn check_configuration(vm: &Vm, host: &dyn Host, configuration: &Configuration) -> Result<()> {
    let received = Received {
        machine: configuration.machine.clone().into_bytes(),
        page_bits: configuration.page_bits.unwrap_or_else(|| host.target_page_bits_min()),
        capabilities: configuration.capabilities.iter().map(|name| name.as_bytes().to_vec()).collect(),
        // A machine without a UUID accepts any, and reports that when it loads.
        uuid: configuration.uuid.filter(|_| host.uuid().is_some()),
    };
    config::check(vm, host, &received)
}

fn check_section(vm: &Vm, section: &Section) -> Result<()> {
    let (tag, id, version) = (section.kind.tag(), section.id, section.version);
    if !matches!(section.kind, SectionKind::Start | SectionKind::Full) {
        return Ok(());
    }
    let head = DeviceHead { name: &*section.device.name, instance: section.device.instance, version };
    let entry = match device_of(vm, tag, id, &head) {
        Ok(entry) => entry,
        Err(_) if vm.would_read_global_state(head.name.as_ref(), head.instance, version) => return Ok(()),
        Err(error) => return Err(error),
    };
    let oldest = entry.handler.oldest_version();
    if i64::from(version) < i64::from(oldest) {
        let text = format!("version {version} in the stream, {oldest} to {} can be read", entry.version_id);
        return Err(Error::invalid(text).in_section(|| entry.section(tag, id, Some(version as i32))));
    }
    Ok(())
}
