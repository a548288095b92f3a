// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loads a stream: the loop over its sections (QEMU 7.2, `migration/savevm.c`).

use super::fault::FaultPoint;
use super::handler::Callback;
use super::host::{Flags, Host, Level, with_big_lock};
use super::incoming::{FileHandle, Incoming, LoadEnd, Opened, PostcopyState};
use super::load_command::Outcome;
use super::profile::Profile;
use super::registry::{Call, Entry};
use super::section_context::SectionContext;
use super::unwind::{catch, on_panic};
use super::{Vm, config, load_command, switchover};
use crate::channel::{Role, memory, tls_on_one_side};
use crate::error::{Error, Phase, Result, Side};
use crate::file::MigFile;
use crate::vmstate::trace::trace_event;
use crate::wire::section::{self, DeviceHead};
use crate::wire::{self, Command, tag_name};
use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;

/// Loads a whole stream: header, `load_setup`, sections, description. Then calls `load_cleanup`, unless another thread
/// continues to read the stream.
pub fn stream(vm: &Vm, file: &MigFile) -> Result<LoadEnd> {
    match open(vm, file)? {
        Opened::Stream => opened(vm, file),
        Opened::Visit => Err(Error::invalid("the source does not migrate")),
        Opened::BrokenOff(error) => Err(error),
    }
}

/// As `stream`, for a host with a driver of its own. QEMU calls `load_cleanup` after a failed `load_setup` from 9.2 on
/// (`Profile::CLEAN_FAILED_SETUP`). A device that has started a thread is always cleaned up, because the thread refers to it.
pub fn host_stream(vm: &Vm, file: &MigFile) -> Result<LoadEnd> {
    let loaded = stream(vm, file);
    let failed_setup = matches!(&loaded, Err(error) if error.phase() == Some(Phase::LoadSetup));
    if failed_setup && (vm.profile().has(Profile::CLEAN_FAILED_SETUP) || vm.load_threads().has_threads()) {
        clean(vm);
    }
    loaded
}

/// Reads the header of a stream. If the handler of commands negotiates, it reads the commands before the first section, and
/// receives the reasons to refuse the stream that were found.
pub fn open(vm: &Vm, file: &MigFile) -> Result<Opened> {
    let incoming = vm.incoming();
    let negotiates = incoming.as_deref().is_some_and(Incoming::negotiates);
    let mut refused = Vec::new();
    if let Err(error) = vm.check_migratable().map_err(|err| err.at_side(Side::Destination)) {
        if !negotiates {
            return Err(vm.report_unless_returned(error));
        }
        refused.push(error);
    }
    vm.load_state().reset();
    vm.load_threads().begin();
    let misfit = header(vm, file, negotiates).map_err(|err| failed(vm, file, err, Phase::Header))?;
    let misfits = misfit.is_some();
    refused.extend(misfit);
    let opened = match incoming {
        Some(incoming) if negotiates => incoming.negotiate(file, refused),
        _ => refused.into_iter().next().map_or(Ok(Opened::Stream), Err),
    };
    let opened = opened.map_err(|err| {
        if misfits {
            clean(vm);
        }
        // The offset of a verdict says nothing.
        match err.phase() {
            Some(Phase::Check) => vm.report_on(file, err.at_side(Side::Destination)),
            _ => failed(vm, file, err, Phase::Header),
        }
    })?;
    if let Some(incoming) = vm.incoming() {
        incoming.header_loaded();
    }
    Ok(opened)
}

/// Executes one command before the first section.
pub fn opening_command(vm: &Vm, file: &MigFile) -> Result<()> {
    file.skip(1);
    match load_command::process(vm, file, 0)? {
        Outcome::Done => Ok(()),
        Outcome::HandedOver | Outcome::Package(_) => Err(Error::invalid("a package before the first section")),
    }
}

/// Loads what follows the header, as `stream`.
pub fn opened(vm: &Vm, file: &MigFile) -> Result<LoadEnd> {
    let set_up = Cell::new(true);
    let clean = || {
        if set_up.get() && !reads_on(vm) {
            with_devices(&*vm.host(), vm.incoming().as_deref(), || clean(vm));
        }
    };
    on_panic(|| state(vm, file, &set_up), clean)
}

/// Calls `cleanup`, unless the host does so itself.
fn clean(vm: &Vm) {
    if !vm.flags().has(Flags::HOST_CLEANS_LOAD) {
        cleanup(vm);
    }
}

/// Returns whether another thread continues to read the stream.
fn reads_on(vm: &Vm) -> bool {
    vm.incoming().is_some_and(|incoming| incoming.main_loop_done())
}

/// Loads what follows the header. `set_up` is true while `load_cleanup` is still to be called.
fn state(vm: &Vm, file: &MigFile, set_up: &Cell<bool>) -> Result<LoadEnd> {
    let (host, incoming) = (vm.host(), vm.incoming());
    let (host, incoming) = (&*host, incoming.as_deref());
    with_devices(host, incoming, || {
        setup(vm, file).map_err(|err| failed(vm, file, err, Phase::LoadSetup))?;
        switchover::count_acks(vm).map_err(|err| failed(vm, file, err, Phase::LoadSetup))?;
        host.cpu_synchronize_pre_load();
        Ok(())
    })?;
    let mut result = sections(vm, file);
    let code = result.as_ref().map_or_else(Error::code, |end| *end as i32);
    trace_event!(vm.host(), "qemu_loadvm_state_post_main", "{code}");
    if reads_on(vm) {
        return result;
    }
    result = result.and_then(|end| {
        vm.load_threads().wait(host).map_err(|err| failed(vm, file, err, Phase::Load))?;
        file.check().map(|()| end)
    });
    if result.as_ref().is_ok_and(|end| *end == LoadEnd::Finished) {
        let strict = incoming.is_some_and(Incoming::is_strict);
        result = check_absent(vm, strict).map(|()| LoadEnd::Finished).map_err(|err| failed(vm, file, err, Phase::Load));
    }
    if result.as_ref().is_ok_and(|end| *end == LoadEnd::Finished) {
        vm.ownership.loaded();
        if expects_description(vm) {
            skip_description(vm, file);
        }
    }
    with_devices(host, incoming, || {
        set_up.set(false);
        clean(vm);
        host.cpu_synchronize_post_load();
    });
    result
}

/// Finds the devices that are registered here and were absent from the stream: they keep the state that they had. They are an
/// error if `strict` or if the context is strict, else a warning of the host, once for a stream. A description that decides
/// for each save whether it is needed may be absent, as may an inactive live device.
pub fn check_absent(vm: &Vm, strict: bool) -> Result<()> {
    const MOST: usize = 16;
    let absent = vm.registry.walk().filter(|call| !vm.load_state().has_device(call) && is_expected(call));
    let mut names: Vec<_> = absent.map(|call| format!("'{}' {}", call.name(), call.instance_id)).collect();
    if names.is_empty() || !vm.load_state().report_absent_once() {
        return Ok(());
    }
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    let mut text = format!("devices are registered here and absent from the stream: {}", names.join(", "));
    if more > 0 {
        text += &format!(" and {more} more");
    }
    if strict || vm.is_strict() {
        return Err(Error::invalid(text));
    }
    vm.host().report(Level::Warning, &text);
    Ok(())
}

/// Returns whether a stream without the device is incomplete.
pub fn is_expected(entry: &Entry) -> bool {
    let handler = &entry.handler;
    let saves = handler.has(Callback::SaveState) || (handler.has(Callback::SaveSetup) && handler.is_active());
    (saves && handler.has(Callback::LoadState)) || (handler.is_description() && !handler.is_optional())
}

/// Loads the devices of a rehearsal: FULL sections up to EOF. With the big lock. The caller cleans up.
pub fn rehearse(vm: &Vm, file: &MigFile) -> Result<()> {
    vm.load_state().reset();
    vm.load_threads().begin();
    setup(vm, file)?;
    vm.host().cpu_synchronize_pre_load();
    let sections = SectionContext::new(vm, file);
    loop {
        let tag = file.get_byte();
        file.check()?;
        match tag {
            wire::SECTION_FULL => section_start(&sections, tag)?,
            wire::EOF => break,
            _ => {
                let text = format!("a rehearsal with a section of type {tag} ({})", tag_name(tag));
                return Err(Error::invalid(text));
            }
        }
    }
    vm.load_threads().wait(&*vm.host())?;
    vm.host().cpu_synchronize_post_load();
    Ok(())
}

/// Fails if a stream of precopy ended before the END section of a live device. A zero in place of a section's type looks
/// like EOF, so a damaged stream can end anywhere. QEMU 7.2 does not check this.
pub fn check_live_ended(vm: &Vm) -> Result<()> {
    let unfinished =
        |call: &Call<'_>| call.handler.has(Callback::SaveLiveCompletePrecopy) && vm.load_state().is_unfinished(call);
    match vm.registry.walk().find(unfinished) {
        Some(call) => Err(Error::invalid(format!(
            "the stream ends before the last section of '{}' {}: it is damaged",
            call.name(),
            call.instance_id
        ))),
        None => Ok(()),
    }
}

/// Runs `body`, which calls devices, with the big lock if the driver released it to wait for bytes.
fn with_devices<T>(host: &dyn Host, incoming: Option<&dyn Incoming>, body: impl FnOnce() -> T) -> T {
    if incoming.is_some_and(Incoming::devices_need_lock) { with_big_lock(host, body) } else { body() }
}

/// Loads sections up to EOF, without header, setup and cleanup.
pub fn device_state(vm: &Vm, file: &MigFile) -> Result<()> {
    sections(vm, file)?;
    vm.host().cpu_synchronize_post_load();
    Ok(())
}

/// Loads the sections that `save::device_sections` kept in this process.
pub fn kept_devices(vm: &Vm, file: &MigFile) -> Result<()> {
    vm.load_state().reset();
    vm.host().cpu_synchronize_pre_load();
    device_state(vm, file)?;
    vm.ownership.loaded();
    Ok(())
}

/// Reports an error and latches it on the file.
fn failed(vm: &Vm, file: &MigFile, error: Error, phase: Phase) -> Error {
    vm.report_on(file, error.at_side(Side::Destination).in_phase(phase).at_offset(file.position()))
}

/// Fails with the code of a wrong value if the stream ends inside its header, as in QEMU, which checks the value only.
fn check_head(file: &MigFile, errno: i32) -> Result<()> {
    file.check().map_err(|error| {
        let text = format!("Not a migration stream: {}", error.message());
        Error::new(errno, text).at_offset(file.position())
    })
}

fn check_magic(magic: u32) -> Result<()> {
    if magic == wire::FILE_MAGIC {
        return Ok(());
    }
    let mut text = format!("Not a migration stream: it begins with 0x{magic:08x}, expected 0x{:08x}", wire::FILE_MAGIC);
    if let Some(reason) = tls_on_one_side(&magic.to_be_bytes(), Role::Source) {
        text = format!("{text}: {reason}");
    }
    Err(Error::invalid(text).at_offset(0))
}

fn check_version(version: u32) -> Result<()> {
    let text = match version {
        wire::FILE_VERSION => return Ok(()),
        wire::FILE_VERSION_COMPAT => "SaveVM v2 format is obsolete, expected version 3".to_owned(),
        _ => format!("Unsupported migration stream version {version}, expected {}", wire::FILE_VERSION),
    };
    Err(Error::new(libc::ENOTSUP, text).at_offset(4))
}

/// Checks the first 8 bytes of a stream, or as many as there are.
pub fn check_beginning(beginning: &[u8]) -> Result<()> {
    let number = |rest: &[u8]| {
        let cut = || Error::invalid(format!("Not a migration stream: it ends after {} bytes", beginning.len()));
        rest.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or_else(cut)
    };
    check_magic(number(beginning)?)?;
    check_version(number(&beginning[4..])?)
}

/// Reads the header and the configuration. Returns why the configuration does not fit, if it does not.
fn header(vm: &Vm, file: &MigFile, negotiates: bool) -> Result<Option<Error>> {
    vm.fault_point(FaultPoint::Engine);
    let magic = file.get_be32();
    check_head(file, libc::EINVAL)?;
    check_magic(magic)?;
    let version = file.get_be32();
    check_head(file, libc::ENOTSUP)?;
    check_version(version)?;
    if !vm.flags().has(Flags::NO_CONFIGURATION) {
        return configuration(vm, file, negotiates).inspect_err(|_| clean(vm));
    }
    Ok(None)
}

fn configuration(vm: &Vm, file: &MigFile, negotiates: bool) -> Result<Option<Error>> {
    let offset = file.position();
    let tag = file.peek_byte(0);
    let missing = || {
        let text = format!("Configuration section missing: got tag {tag} ({})", tag_name(tag));
        Error::invalid(text).in_phase(Phase::Configuration).at_offset(offset)
    };
    if negotiates && tag == wire::COMMAND {
        // The commands of a source that is libsavevm follow, and it learns of this by the verdict.
        return Ok(Some(missing()));
    }
    file.get_byte();
    check_head(file, libc::EINVAL)?;
    if tag != wire::CONFIGURATION {
        return Err(missing());
    }
    config::load(vm, file)
}

/// Of a machine that expects no configuration section (`Flags::NO_CONFIGURATION`): reads one if it follows the header. Returns
/// why the stream is refused.
pub fn unexpected_configuration(vm: &Vm, file: &MigFile) -> Result<Option<Error>> {
    if file.peek_byte(0) != wire::CONFIGURATION {
        return Ok(None);
    }
    let offset = file.position();
    file.skip(1);
    config::skip(vm, file)?;
    let tag = wire::CONFIGURATION;
    let text =
        format!("Unknown savevm section type {tag} (0x{tag:02x}): this machine expects no configuration section");
    Ok(Some(Error::invalid(text).in_phase(Phase::Configuration).at_offset(offset)))
}

/// Calls `load_setup` of every active handler until one fails. The caller gets `EINVAL` for any failure.
fn setup(vm: &Vm, file: &MigFile) -> Result<()> {
    vm.fault_point(FaultPoint::Engine);
    trace_event!(vm.host(), "loadvm_state_setup", "");
    for entry in vm.registry.walk() {
        let handler = &entry.handler;
        if !handler.has(Callback::LoadSetup) || !handler.is_active() {
            continue;
        }
        file.pending_error().clear();
        let ret = handler.load_setup(file);
        if ret < 0 {
            file.set_error(ret);
            let cause = file.pending_error().take_matching(ret);
            let cause = cause.map_or_else(|| format!("load_setup returned {ret}"), |cause| cause.message().to_owned());
            let text = format!("Load state of device {} failed: {cause}", entry.name());
            return Err(Error::invalid(text).in_section(|| entry.section(0, entry.section_id, None)));
        }
    }
    Ok(())
}

/// Calls `load_cleanup` of every handler, active or not. A panic in one call does not keep the others from being made.
pub fn cleanup(vm: &Vm) {
    let _ = catch(vm, || {
        vm.fault_point(FaultPoint::Cleanup);
        trace_event!(vm.host(), "loadvm_state_cleanup", "");
    });
    for entry in vm.registry.walk().filter(|entry| entry.handler.has(Callback::LoadCleanup)) {
        let _ = catch(vm, || entry.handler.load_cleanup());
    }
    vm.load_threads().end(&*vm.host());
}

/// Gives a device a buffer that came outside of the main stream (QEMU 10.0, `qemu_loadvm_load_state_buffer`).
pub fn state_buffer(vm: &Vm, idstr: &[u8], instance: u32, data: &mut [u8]) -> Result<()> {
    let name = || String::from_utf8_lossy(idstr);
    let Some(entry) = vm.registry.find(idstr, instance) else {
        let text = format!("Unknown idstr {} or instance id {instance} for load state buffer", name());
        return Err(Error::invalid(text).at_side(Side::Destination));
    };
    if !entry.handler.has(Callback::LoadStateBuffer) {
        let text = format!("idstr {} / instance {instance} has no load state buffer operation", name());
        return Err(Error::invalid(text).at_side(Side::Destination));
    }
    entry.handler.load_state_buffer(data).map_err(|error| {
        error.at_side(Side::Destination).in_phase(Phase::Load).in_section(|| entry.section(0, entry.section_id, None))
    })
}

/// Loads sections and commands until EOF, until a command ends the loop, or until an error. After an error in a running
/// postcopy, the handler of commands may return the file of a new connection, with which the loop continues.
pub fn sections(vm: &Vm, file: impl Deref<Target = MigFile>) -> Result<LoadEnd> {
    let incoming = vm.incoming();
    let mut error = match section_loop(vm, &file, 0) {
        Ok(end) => return Ok(end),
        Err(error) => section_failed(vm, &file, incoming.as_deref(), error),
    };
    // The host frees the broken file before it returns another one.
    drop(file);
    while let Some(file) = recovered(vm, incoming.as_deref()) {
        match section_loop(vm, &file, 0) {
            Ok(end) => return Ok(end),
            Err(next) => error = section_failed(vm, &file, incoming.as_deref(), next),
        }
    }
    Err(error)
}

fn section_failed(vm: &Vm, file: &MigFile, incoming: Option<&dyn Incoming>, error: Error) -> Error {
    let error = failed(vm, file, error, Phase::Load);
    if let Some(incoming) = incoming {
        incoming.load_failed(&error);
    }
    error
}

fn recovered(vm: &Vm, incoming: Option<&dyn Incoming>) -> Option<FileHandle> {
    let incoming = incoming?;
    let running = incoming.postcopy_state(None) == PostcopyState::Running;
    (running && vm.flags().has(Flags::POSTCOPY_RAM)).then(|| incoming.recover()).flatten()
}

/// Loads one stream of sections. `depth` counts the packages around it.
fn section_loop(vm: &Vm, file: &MigFile, depth: u32) -> Result<LoadEnd> {
    vm.fault_point(FaultPoint::Engine);
    let (sections, incoming) = (SectionContext::new(vm, file), vm.incoming());
    let (host, incoming) = (&*sections.host, incoming.as_deref());
    loop {
        let offset = file.position();
        let tag = file.get_byte();
        file.check()?;
        if let Some(code) = incoming.map(Incoming::further_error).filter(|code| *code != 0) {
            return Err(Error::from_code("another channel of this migration failed", code));
        }
        trace_event!(host, "qemu_loadvm_state_section", "{tag}");
        match tag {
            wire::SECTION_START | wire::SECTION_FULL => with_devices(host, incoming, || section_start(&sections, tag))?,
            wire::SECTION_PART | wire::SECTION_END => with_devices(host, incoming, || section_part(&sections, tag))?,
            wire::COMMAND => {
                let end = command(vm, file, depth)?;
                trace_event!(host, "qemu_loadvm_state_section_command", "{}", end as i32);
                if end == LoadEnd::HandedOver {
                    return Ok(end);
                }
            }
            wire::EOF => return Ok(LoadEnd::Finished),
            _ => {
                let text = format!("Unknown savevm section type {tag} (0x{tag:02x})");
                return Err(Error::invalid(text).at_offset(offset));
            }
        }
    }
}

/// Reads a command and executes it. A package is a stream of its own: the driver or this thread loads it.
fn command(vm: &Vm, file: &MigFile, depth: u32) -> Result<LoadEnd> {
    let offset = file.position();
    let stream = match load_command::process(vm, file, depth)? {
        Outcome::Done => return Ok(LoadEnd::Finished),
        Outcome::HandedOver => return Ok(LoadEnd::HandedOver),
        Outcome::Package(stream) => stream,
    };
    let loaded = match vm.incoming().filter(|incoming| incoming.loads_packages()) {
        Some(incoming) => incoming.load_package(stream, depth + 1),
        None => package_within(vm, file, stream, depth + 1),
    };
    loaded.map_err(|err| err.at_offset(offset).in_path(Command::Packaged.name()))
}

/// Loads the content of a package. `depth` counts the packages around its content.
pub fn package(vm: &Vm, stream: Vec<u8>, depth: u32) -> Result<LoadEnd> {
    package_file(vm, &MigFile::new(Arc::new(memory::Reader::new(stream)), false), depth)
}

/// Loads a package within the stream in `file`, with which it shares the limit on memory.
fn package_within(vm: &Vm, file: &MigFile, stream: Vec<u8>, depth: u32) -> Result<LoadEnd> {
    let package = MigFile::new(Arc::new(memory::Reader::new(stream)), false);
    package.continue_count_of(file);
    let end = package_file(vm, &package, depth);
    file.continue_count_of(&package);
    end
}

fn package_file(vm: &Vm, package: &MigFile, depth: u32) -> Result<LoadEnd> {
    let end = section_loop(vm, package, depth)?;
    trace_event!(vm.host(), "loadvm_handle_cmd_packaged_main", "{}", end as i32);
    Ok(end)
}

fn section_start(sections: &SectionContext<'_>, tag: u8) -> Result<()> {
    let SectionContext { vm, mut file, ref host, .. } = *sections;
    let id = section::decode_id(&mut file)?;
    let name_at = file.position();
    let no_name = |cause: &str| {
        Err(Error::invalid(format!("Unable to read ID string for section {id}{cause}")).at_offset(name_at))
    };
    let head = match DeviceHead::decode(&mut file) {
        Ok(head) if head.name.is_empty() => return no_name(""),
        Ok(head) => head,
        Err(error) => return no_name(&format!(": {}", error.message())),
    };
    file.check()?;
    let (name, version) = (|| String::from_utf8_lossy(&head.name), head.version as i32);
    trace_event!(host, "qemu_loadvm_state_section_startfull", "{id}({}) {} {}", name(), head.instance, head.version);
    let entry = device_of(vm, tag, id, &head).map_err(|err| err.at_offset(name_at))?;
    vm.load_state().add_section(id, &entry, version, tag == wire::SECTION_START);
    section_payload(sections, &entry, tag, id, version)
        .map_err(|err| err.in_section(|| entry.section(tag, id, Some(version))))
}

/// Finds the device that a START or FULL section names. Fails if it may not get such a section.
pub fn device_of<'a, N: AsRef<[u8]>>(vm: &'a Vm, tag: u8, id: u32, head: &DeviceHead<N>) -> Result<Call<'a>> {
    let (instance, version) = (head.instance, head.version);
    let name = String::from_utf8_lossy(head.name.as_ref());
    let Some(entry) = vm.registry.find(head.name.as_ref(), instance) else {
        return Err(Error::invalid(format!(
            "Unknown savevm section or instance '{name}' {instance}. Make sure that your current VM setup matches your \
             saved VM setup, including any hotplugged devices"
        )));
    };
    let refused = |text| Err(Error::invalid(text).in_section(|| entry.section(tag, id, Some(version as i32))));
    if i64::from(version) > i64::from(entry.version_id) {
        return refused(format!("savevm: unsupported version {version} for '{name}' v{}", entry.version_id));
    }
    if entry.is_live && vm.flags().has(Flags::NO_LIVE_LOAD) {
        return refused(format!("loadvm: {name} RAM loading not allowed: it comes another way"));
    }
    Ok(entry)
}

fn section_part(sections: &SectionContext<'_>, tag: u8) -> Result<()> {
    let SectionContext { vm, mut file, ref host, .. } = *sections;
    let offset = file.position();
    let id = section::decode_id(&mut file)?;
    file.check()?;
    trace_event!(host, "qemu_loadvm_state_section_partend", "{id}");
    let Some((entry, version)) = vm.load_state().section(&vm.registry, id) else {
        return Err(Error::invalid(format!("Unknown savevm section {id}: it was not started")).at_offset(offset));
    };
    section_payload(sections, &entry, tag, id, version)
        .map_err(|err| err.in_section(|| entry.section(tag, id, Some(version))))?;
    if tag == wire::SECTION_END {
        vm.load_state().end_section(&entry);
        entry.handler.load_ended().map_err(|err| err.in_section(|| entry.section(tag, id, Some(version))))?;
    }
    Ok(())
}

fn section_payload(sections: &SectionContext<'_>, entry: &Entry, tag: u8, id: u32, version: i32) -> Result<()> {
    if !entry.handler.has(Callback::LoadState) && !entry.handler.is_description() {
        return Err(Error::invalid("the device has no load_state"));
    }
    trace_event!(sections.host, "vmstate_load", "{}, {}", entry.name(), entry.description_name());
    let timer = sections.time();
    sections.vm.fault_point(FaultPoint::Section);
    sections.vm.ownership.touch();
    entry.handler.load(sections.file, version)?;
    timer.stop(entry, tag);
    if sections.footers { footer(sections.file, id) } else { Ok(()) }
}

fn footer(file: &MigFile, id: u32) -> Result<()> {
    let offset = file.position();
    let mark = file.get_byte();
    if let Err(error) = file.check() {
        return Err(Error::invalid(format!("Read section footer failed: {}", error.message())).at_offset(offset));
    }
    if mark != wire::SECTION_FOOTER {
        let text = format!(
            "Missing section footer: got 0x{mark:02x}, expected 0x{:02x}; the device read too much or too little",
            wire::SECTION_FOOTER
        );
        return Err(Error::invalid(text).at_offset(offset));
    }
    let found = file.get_be32();
    // The missing bytes of an id that is cut off read as zeros. If the id matches, the loop finds the end, as in QEMU.
    if found == id {
        return Ok(());
    }
    let text = format!("Mismatched section id in footer: read 0x{found:x} expected 0x{id:x}");
    Err(Error::invalid(text).at_offset(offset))
}

fn expects_description(vm: &Vm) -> bool {
    let flags = vm.flags();
    !flags.has(Flags::NO_VMDESC) && !flags.has(Flags::IN_POSTCOPY)
}

/// Reads the description and drops it. A sender whose connection is closed too early would fail.
fn skip_description(vm: &Vm, mut file: &MigFile) {
    vm.fault_point(FaultPoint::Engine);
    let tag = file.get_byte();
    if tag != wire::VMDESCRIPTION {
        // The state itself is complete, so this is only reported.
        let text = format!("Expected vmdescription section, but got {tag}");
        return vm.host().report(Level::Error, &text);
    }
    let mut left = section::decode_description_len(&mut file).map_or(0, |len| len as usize);
    let mut chunk = [0; 4096];
    while left > 0 {
        let want = left.min(chunk.len());
        if file.get(&mut chunk[..want]) < want {
            break;
        }
        left -= want;
    }
}
