// SPDX-License-Identifier: LGPL-2.1-or-later
//! The phases of saving (QEMU 7.2, `migration/savevm.c`). Each phase calls the handlers in order and latches errors on
//! the file. The driver, or a host with a driver of its own, calls the phases.

pub mod rehearsal;

use crate::channel::memory;
use crate::error::{self, Error, Phase, Result, Side};
use crate::file::MigFile;
use crate::savevm::fault::FaultPoint;
use crate::savevm::handler::{Callback, Pending};
use crate::savevm::host::{Flags, Level, PrecopyNotice, with_big_lock};
use crate::savevm::profile::Profile;
use crate::savevm::registry::Entry;
use crate::savevm::section_context::SectionContext;
use crate::savevm::unwind::catch;
use crate::savevm::{Vm, config, switchover};
use crate::vmstate::trace::trace_event;
use crate::vmstate::{self, Recorder};
use crate::wire;
use crate::wire::section::{self, DeviceHead};
use std::cell::LazyCell;
use std::sync::Arc;

/// How a round of `iterate` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// A handler has more to send, or the rate limit was reached.
    Again,
    /// All handlers are done, so the guest may be stopped. Holds the result of the last handler, or 1 if there was
    /// none.
    Done(i32),
}

impl SectionContext<'_> {
    /// Writes the header of a section. START and FULL name the device.
    fn open(&self, entry: &Entry, tag: u8) {
        let Self { host, file, .. } = self;
        trace_event!(host, "savevm_section_start", "{}, section_id {}", entry.name(), entry.section_id);
        let mut out: &MigFile = file;
        section::encode_tag(&mut out, tag, entry.section_id);
        if tag == wire::SECTION_FULL || tag == wire::SECTION_START {
            let (instance, version) = (entry.instance_id, entry.version_id as u32);
            DeviceHead { name: &*entry.idstr, instance, version }.encode(&mut out);
        }
    }

    /// Writes the footer of a section, if sections have footers.
    fn close(&self, entry: &Entry, ret: i32) {
        let Self { host, file, .. } = self;
        trace_event!(host, "savevm_section_end", "{}, section_id {} -> {ret}", entry.name(), entry.section_id);
        if self.footers {
            section::encode_footer(&mut { *file }, entry.section_id);
        }
    }

    /// Writes a section around a callback. Latches a negative result on the file as an error with its place.
    fn live(&self, entry: &Entry, tag: u8, (name, phase): (&str, Phase), callback: impl FnOnce() -> i32) -> i32 {
        let timer = self.time();
        self.open(entry, tag);
        self.vm.fault_point(FaultPoint::Section);
        self.file.pending_error().clear();
        let ret = callback();
        self.close(entry, ret);
        timer.stop(entry, tag);
        if ret < 0 {
            let told = self.file.pending_error().take_matching(ret);
            let error = told.unwrap_or_else(|| self.file.cause(name, ret));
            fail(self.vm, self.file, entry, tag, phase, error);
        }
        ret
    }

    /// Writes a FULL section. It has no footer if the device fails.
    fn full(&self, entry: &Entry, recorder: Option<&Recorder>) -> Result<()> {
        let timer = self.time();
        self.open(entry, wire::SECTION_FULL);
        trace_event!(self.host, "vmstate_save", "{}, {}", entry.name(), entry.description_name());
        self.vm.fault_point(FaultPoint::Device);
        entry.handler.save(self.file, recorder)?;
        self.close(entry, 0);
        timer.stop(entry, wire::SECTION_FULL);
        Ok(())
    }

    /// Returns whether the device has a state that is saved whole now.
    fn wants_whole(&self, entry: &Entry) -> bool {
        let handler = &entry.handler;
        if !handler.has(Callback::SaveState) && !handler.is_description() {
            return false;
        }
        let needed = handler.is_needed();
        if !needed {
            trace_event!(self.host, "savevm_section_skip", "{}, section_id {}", entry.name(), entry.section_id);
        }
        needed
    }
}

fn fail(vm: &Vm, file: &MigFile, entry: &Entry, tag: u8, phase: Phase, error: Error) -> Error {
    let error = error
        .at_side(Side::Source)
        .in_phase(phase)
        .in_section(|| entry.section(tag, entry.section_id, None))
        .at_offset(file.position());
    vm.report_on(file, error)
}

fn notify(vm: &Vm, notice: PrecopyNotice) {
    let host = vm.host();
    if let Err(error) = error::check("precopy_notify", host.precopy_notify(notice)) {
        host.report(Level::Error, &format!("{notice:?}: {error}"));
    }
}

/// Calls `save_prepare` of every active handler before a migration starts, until one fails (QEMU 8.2).
pub fn prepare(vm: &Vm) -> Result<()> {
    vm.fault_point(FaultPoint::Engine);
    for entry in vm.registry.walk() {
        let handler = &entry.handler;
        if handler.has(Callback::SavePrepare) && handler.is_active() {
            handler.save_prepare().map_err(|error| {
                let section = || entry.section(0, entry.section_id, None);
                error.at_side(Side::Source).in_phase(Phase::Setup).in_section(section)
            })?;
        }
    }
    Ok(())
}

/// Writes the magic number, the version and the configuration section.
pub fn header(vm: &Vm, mut file: &MigFile) {
    vm.fault_point(FaultPoint::Engine);
    trace_event!(vm.host(), "savevm_state_header", "");
    section::encode_file_header(&mut file);
    if !vm.flags().has(Flags::NO_CONFIGURATION) {
        file.put_byte(wire::CONFIGURATION);
        let mapped = vm.slot.memory_plan().mapped;
        config::save(&*vm.host(), file, !vm.flags().has(Flags::NO_UUID), mapped);
    }
    vm.keep_description(None);
}

/// Calls `save_setup` of every active handler, each in a START section, until one fails. Saves the devices whole that
/// are saved before all others.
///
/// As in QEMU 7.2 a failure is latched on the file alone. With `Profile::SETUP_ERRORS` it is returned as well.
pub fn setup(vm: &Vm, file: &MigFile) -> Result<()> {
    if vm.profile().has(Profile::SETUP_LOCKED) {
        with_big_lock(&*vm.host(), || set_up_devices(vm, file))
    } else {
        set_up_devices(vm, file)
    }
}

fn set_up_devices(vm: &Vm, file: &MigFile) -> Result<()> {
    vm.fault_point(FaultPoint::Engine);
    trace_event!(vm.host(), "savevm_state_setup", "");
    let context = SectionContext::new(vm, file);
    let (mut recorder, mut failed) = (None, false);
    for entry in vm.registry.walk() {
        let handler = &entry.handler;
        if handler.is_early() {
            if context.wants_whole(&entry) {
                let recorder = describes(vm, false).then(|| recorder.get_or_insert_with(|| new_recorder(vm)));
                if let Err(error) = save_whole(&context, &entry, recorder.as_deref()) {
                    if vm.profile().has(Profile::SETUP_ERRORS) {
                        return Err(error);
                    }
                    failed = true;
                    break;
                }
            }
            continue;
        }
        if !handler.has(Callback::SaveSetup) || !handler.is_active() {
            continue;
        }
        let names = ("save_setup", Phase::Setup);
        let ret = context.live(&entry, wire::SECTION_START, names, || handler.save_setup(file));
        if ret < 0 && vm.profile().has(Profile::SETUP_ERRORS) {
            return Err(file.cause("save_setup", ret));
        }
        if ret < 0 {
            failed = true;
            break;
        }
    }
    if let Some(recorder) = &recorder {
        recorder.forget_tables();
    }
    vm.keep_description(recorder);
    if vm.profile().has(Profile::SETUP_ERRORS) {
        return error::check("precopy_notify", vm.host().precopy_notify(PrecopyNotice::Setup));
    }
    if !(failed && vm.profile().has(Profile::SKIP_SETUP_NOTICE)) {
        notify(vm, PrecopyNotice::Setup);
    }
    Ok(())
}

/// Saves a device whole and records it.
fn save_whole(context: &SectionContext<'_>, entry: &Entry, recorder: Option<&Recorder>) -> Result<()> {
    if let Some(recorder) = recorder {
        recorder.device_start(&entry.idstr, entry.instance_id);
    }
    context
        .full(entry, recorder)
        .map_err(|err| fail(context.vm, context.file, entry, wire::SECTION_FULL, Phase::Complete, err))?;
    if let Some(recorder) = recorder {
        recorder.device_end();
    }
    Ok(())
}

/// Calls `save_live_iterate` of the handlers, each in a PART section: one round.
///
/// Skips inactive handlers and, in postcopy, handlers without postcopy. Stops before a handler if the rate limit is
/// reached, and behind the first handler that has more to send, so that later ones do not send what changes meanwhile.
/// With `Profile::ITERATE_ALL` it visits all handlers instead, so that one that never ends does not starve the others.
pub fn iterate(vm: &Vm, file: &MigFile, postcopy: bool) -> std::result::Result<Round, i32> {
    vm.fault_point(FaultPoint::Engine);
    trace_event!(vm.host(), "savevm_state_iterate", "");
    let all = vm.profile().has(Profile::ITERATE_ALL);
    let (mut last, mut finished) = (1, true);
    let context = SectionContext::new(vm, file);
    for entry in vm.registry.walk() {
        let handler = &entry.handler;
        if !handler.has(Callback::SaveLiveIterate)
            || !handler.is_active()
            || !handler.is_active_iterate()
            || (postcopy && !handler.has_postcopy())
        {
            continue;
        }
        if context.host.rate_exceeded(file) {
            return Ok(Round::Again);
        }
        let names = ("save_live_iterate", Phase::Iterate);
        match context.live(&entry, wire::SECTION_PART, names, || handler.save_live_iterate(file)) {
            ret if ret < 0 => return Err(ret),
            0 if all => finished = false,
            0 => return Ok(Round::Again),
            ret => last = ret,
        }
    }
    Ok(match finished {
        true if all => Round::Done(1),
        true => Round::Done(last),
        false => Round::Again,
    })
}

/// Returns how much all active handlers have left to send.
pub fn pending(vm: &Vm, file: &MigFile, threshold: u64) -> Pending {
    let mut pending = Pending::default();
    for entry in vm.registry.walk() {
        let handler = &entry.handler;
        if handler.has(Callback::SaveLivePending) && handler.is_active() {
            pending = handler.save_live_pending(file, threshold, pending);
        }
    }
    pending
}

/// Returns how much all active handlers have left to send, exactly or by an estimate (QEMU 8.0).
pub fn state_pending(vm: &Vm, exact: bool) -> Pending {
    // Only devices of layouts older than 8.0 receive a file with this question. A file has a large buffer.
    let file = LazyCell::<MigFile>::new(|| MigFile::new(Arc::new(memory::Writer::new()), true));
    let mut pending = Pending::default();
    for entry in vm.registry.walk() {
        let handler = &entry.handler;
        if handler.has(Callback::SaveLivePending) && handler.is_active() {
            pending = handler.state_pending(&file, exact, pending);
        }
    }
    pending
}

/// Calls `save_postcopy_prepare` of every active handler, each in a PART section, before the switch to postcopy (QEMU
/// 10.1).
pub fn postcopy_prepare(vm: &Vm, file: &MigFile) -> Result<()> {
    let context = SectionContext::new(vm, file);
    for entry in vm.registry.walk() {
        let handler = &entry.handler;
        if !handler.has(Callback::SavePostcopyPrepare) || !handler.is_active() {
            continue;
        }
        context.open(&entry, wire::SECTION_PART);
        let prepared = handler.save_postcopy_prepare(file);
        context.close(&entry, prepared.as_ref().map_or_else(Error::code, |()| 0));
        prepared.map_err(|error| fail(vm, file, &entry, wire::SECTION_PART, Phase::Postcopy, error))?;
    }
    Ok(())
}

/// What becomes of the disks once all devices are saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disks {
    /// They stay active on this side.
    Keep,
    /// They are inactivated before EOF, so that the destination can activate them.
    Inactivate,
}

/// The devices that `complete_precopy` saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The ends of the live devices alone.
    Live,
    /// The ends of the live devices, then all other devices.
    All(Disks),
}

/// Ends precopy while the guest is stopped.
pub fn complete_precopy(vm: &Vm, file: &MigFile, completion: Completion) -> Result<()> {
    begin_completion(vm);
    let in_postcopy = vm.flags().has(Flags::IN_POSTCOPY);
    if !in_postcopy || completion == Completion::Live {
        complete_precopy_iterable(vm, file, in_postcopy)?;
    }
    if let Completion::All(disks) = completion {
        complete_precopy_non_iterable(vm, file, in_postcopy, disks)?;
    }
    file.flush();
    Ok(())
}

fn begin_completion(vm: &Vm) {
    vm.fault_point(FaultPoint::Engine);
    notify(vm, PrecopyNotice::Complete);
    trace_event!(vm.host(), "savevm_state_complete_precopy", "");
    if !vm.profile().has(Profile::SYNC_CPUS_LATE) {
        vm.host().cpu_synchronize_states();
    }
}

/// Saves all devices, but writes neither EOF nor the description. The destination cannot start the guest before
/// `end_of_stream`.
pub fn prepare_completion(vm: &Vm, file: &MigFile) -> Result<Ending> {
    switchover::send_start(vm, file);
    begin_completion(vm);
    complete_precopy_iterable(vm, file, false)?;
    let ending = devices(vm, file, false, Disks::Inactivate)?;
    file.flush();
    Ok(ending)
}

/// Calls `save_live_complete_precopy` of every active handler, each in an END section. In postcopy it skips handlers
/// that continue. Devices may send parts on threads of the host meanwhile (QEMU 10.0).
pub fn complete_precopy_iterable(vm: &Vm, file: &MigFile, in_postcopy: bool) -> Result<()> {
    let host = vm.host();
    if !host.has_save_threads() {
        return complete_live(vm, file, in_postcopy);
    }
    for entry in vm.registry.walk() {
        let handler = &entry.handler;
        if in_postcopy && handler.has_postcopy() {
            continue;
        }
        if let Some(thread) = handler.save_thread() {
            host.start_save_thread(thread, &entry.idstr, entry.instance_id);
        }
    }
    let completed = complete_live(vm, file, in_postcopy);
    if completed.is_err() {
        host.abort_save_threads();
    }
    let joined = host.join_save_threads();
    completed?;
    if joined {
        return Ok(());
    }
    let error = Error::invalid("a thread of a device failed").at_side(Side::Source).in_phase(Phase::Complete);
    file.set_error_detail(error);
    Err(Error::new(libc::EPERM, "a thread of a device failed"))
}

fn complete_live(vm: &Vm, file: &MigFile, in_postcopy: bool) -> Result<()> {
    let context = SectionContext::new(vm, file);
    for entry in vm.registry.walk() {
        let handler = &entry.handler;
        if (in_postcopy && handler.has_postcopy())
            || !handler.has(Callback::SaveLiveCompletePrecopy)
            || !handler.is_active()
        {
            continue;
        }
        let names = ("save_live_complete_precopy", Phase::Complete);
        let ret = context.live(&entry, wire::SECTION_END, names, || handler.save_live_complete_precopy(file));
        if ret < 0 {
            // QEMU's code is -1. What failed is on the file.
            let error = file.cause("save_live_complete_precopy", ret);
            return Err(Error::new(libc::EPERM, error.message()));
        }
    }
    Ok(())
}

/// What is left to write after all devices were saved.
pub struct Ending {
    recorder: Option<Recorder>,
}

/// Saves every device that is not live, each in a FULL section. Then writes EOF (not in postcopy) and the description.
///
/// While the guest is stopped, only numbers about the written fields are recorded. They are rendered to JSON after EOF
/// was flushed, while the destination loads. The format puts the description behind the state, so it cannot be sent
/// earlier.
pub fn complete_precopy_non_iterable(vm: &Vm, file: &MigFile, in_postcopy: bool, disks: Disks) -> Result<()> {
    let ending = devices(vm, file, in_postcopy, disks)?;
    if !in_postcopy {
        file.put_byte(wire::EOF);
    }
    describe(vm, file, &ending);
    Ok(())
}

fn devices(vm: &Vm, file: &MigFile, in_postcopy: bool, disks: Disks) -> Result<Ending> {
    vm.fault_point(FaultPoint::Engine);
    if vm.profile().has(Profile::SYNC_CPUS_LATE) {
        vm.host().cpu_synchronize_states();
    }
    let early = vm.take_description();
    let recorder = describes(vm, in_postcopy).then(|| early.unwrap_or_else(|| new_recorder(vm)));
    let context = SectionContext::new(vm, file);
    for entry in vm.registry.walk() {
        if !entry.handler.is_early() && context.wants_whole(&entry) {
            save_whole(&context, &entry, recorder.as_ref())?;
        }
    }
    if disks == Disks::Inactivate {
        // The destination activates the disks as soon as it has read EOF.
        if let Err(error) = error::check("disks_inactivate", vm.host().disks_inactivate()) {
            let error = error.at_side(Side::Source).in_phase(Phase::Complete);
            file.set_error_detail(error.clone());
            return Err(vm.report(error));
        }
    }
    Ok(Ending { recorder })
}

fn new_recorder(vm: &Vm) -> Recorder {
    let recorder = Recorder::new();
    recorder.set_describe_nulls(vm.profile().has(Profile::DESCRIBE_NULLS));
    recorder
}

/// Returns whether the stream gets a description.
fn describes(vm: &Vm, in_postcopy: bool) -> bool {
    !vm.flags().has(Flags::NO_VMDESC) && !in_postcopy && !vm.flags().has(Flags::IN_POSTCOPY)
}

fn describe(vm: &Vm, file: &MigFile, ending: &Ending) {
    vm.fault_point(FaultPoint::Engine);
    if let Some(recorder) = &ending.recorder {
        file.flush();
        let with_configuration =
            vm.profile().has(Profile::DESCRIBE_CONFIGURATION) && !vm.flags().has(Flags::NO_CONFIGURATION);
        let configuration = with_configuration.then(|| config::describe(&*vm.host(), !vm.flags().has(Flags::NO_UUID)));
        let mut description = recorder.render(1 << vm.host().target_page_bits(), configuration.as_deref());
        if vm.profile().has(Profile::DESCRIBE_SPACED) {
            description = vmstate::spaced(&description);
        }
        section::encode_description(&mut { file }, &description);
    }
}

/// Writes EOF with a write of its own, so that the error of the file shows whether the channel took it.
pub fn end_of_stream(file: &MigFile) {
    file.flush();
    file.put_byte(wire::EOF);
    file.flush();
}

/// Writes the description behind EOF.
pub fn finish(vm: &Vm, file: &MigFile, ending: &Ending) {
    describe(vm, file, ending);
    file.flush();
}

/// Calls `save_live_complete_postcopy` of every active handler, each in an END section. Then writes EOF.
pub fn complete_postcopy(vm: &Vm, file: &MigFile) {
    if complete_postcopy_sections(vm, file) {
        end_of_stream(file);
    }
}

/// As `complete_postcopy` without EOF. False if a handler failed, which is latched on the file.
pub fn complete_postcopy_sections(vm: &Vm, file: &MigFile) -> bool {
    vm.fault_point(FaultPoint::Engine);
    let context = SectionContext::new(vm, file);
    for entry in vm.registry.walk() {
        let handler = &entry.handler;
        if !handler.has(Callback::SaveLiveCompletePostcopy) || !handler.is_active() {
            continue;
        }
        let names = ("save_live_complete_postcopy", Phase::CompletePostcopy);
        let ret = context.live(&entry, wire::SECTION_END, names, || handler.save_live_complete_postcopy(file));
        if ret < 0 {
            return false;
        }
    }
    true
}

/// Calls `save_cleanup` of every handler, active or not. A panic in one call does not keep the others from being made.
pub fn cleanup(vm: &Vm) {
    let _ = catch(vm, || {
        vm.fault_point(FaultPoint::Cleanup);
        notify(vm, PrecopyNotice::Cleanup);
        trace_event!(vm.host(), "savevm_state_cleanup", "");
    });
    for entry in vm.registry.walk().filter(|entry| entry.handler.has(Callback::SaveCleanup)) {
        let _ = catch(vm, || entry.handler.save_cleanup());
    }
}

/// Calls `resume_prepare` of every active handler after a broken postcopy, until one fails.
pub fn resume_prepare(vm: &Vm, migration: usize) -> Result<()> {
    vm.fault_point(FaultPoint::Engine);
    trace_event!(vm.host(), "savevm_state_resume_prepare", "");
    for entry in vm.registry.walk() {
        let handler = &entry.handler;
        if !handler.has(Callback::ResumePrepare) || !handler.is_active() {
            continue;
        }
        error::check("resume_prepare", handler.resume_prepare(migration)).map_err(|error| {
            let section = || entry.section(0, entry.section_id, None);
            error.at_side(Side::Source).in_phase(Phase::Resume).in_section(section)
        })?;
    }
    Ok(())
}

/// Writes the ends of the live devices and EOF, as continuous replication does at a checkpoint.
pub fn live_state(vm: &Vm, file: &MigFile) {
    // The error is latched on the file.
    let _ = complete_precopy(vm, file, Completion::Live);
    file.put_byte(wire::EOF);
}

/// Saves all devices that are not live, without a description. Writes magic number and version first, except in
/// continuous replication.
pub fn device_state(vm: &Vm, mut file: &MigFile) -> Result<()> {
    if !vm.flags().has(Flags::IN_COLO) {
        section::encode_file_header(&mut file);
    }
    device_sections(vm, file, Phase::DeviceState)
}

/// Saves all devices that are not live, and EOF. `load::device_state` loads that.
pub fn device_sections(vm: &Vm, file: &MigFile, phase: Phase) -> Result<()> {
    vm.host().cpu_synchronize_states();
    let context = SectionContext::new(vm, file);
    for entry in vm.registry.walk() {
        if entry.is_live || !context.wants_whole(&entry) {
            continue;
        }
        context.full(&entry, None).map_err(|err| {
            err.at_side(Side::Source)
                .in_phase(phase)
                .in_section(|| entry.section(wire::SECTION_FULL, entry.section_id, None))
                .at_offset(file.position())
        })?;
    }
    file.put_byte(wire::EOF);
    file.check()
}
