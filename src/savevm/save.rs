// SPDX-License-Identifier: LGPL-2.1-or-later
//! The phases of saving (QEMU 7.2, `migration/savevm.c`). Each calls the handlers in order and latches on the file what
//! goes wrong; what a phase skips and when a round stops is said at the phase.

use super::fault::FaultPoint;
use super::handler::{Callback, Pending};
use super::host::{Flags, Level, PrecopyNotice};
use super::registry::Entry;
use super::section_context::SectionContext;
use super::unwind::catch;
use super::{Vm, config};
use crate::error::{self, Error, Phase, Result, Side};
use crate::file::MigFile;
use crate::vmstate::Recorder;
use crate::vmstate::trace::trace_event;
use crate::wire;
use crate::wire::section::{self, DeviceHead};

/// How a round of `iterate` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// A handler has more to send, or the rate limit was reached: go on later.
    Again,
    /// Every handler said that it is done: the guest may be stopped. What the last one returned, or 1 where there was none.
    Done(i32),
}

impl SectionContext<'_> {
    /// Writes the head of a section; START and FULL say who it is.
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

    /// Writes its footer, where sections have one.
    fn close(&self, entry: &Entry, ret: i32) {
        let Self { host, file, .. } = self;
        trace_event!(host, "savevm_section_end", "{}, section_id {} -> {ret}", entry.name(), entry.section_id);
        if self.footers {
            section::encode_footer(&mut { *file }, entry.section_id);
        }
    }

    /// One section around a callback; a negative result is latched on the file as an error with its place.
    fn live(&self, entry: &Entry, tag: u8, (name, phase): (&str, Phase), callback: impl FnOnce() -> i32) -> i32 {
        let timer = self.time();
        self.open(entry, tag);
        self.vm.fault_point(FaultPoint::Section);
        let ret = callback();
        self.close(entry, ret);
        timer.stop(entry, tag);
        if ret < 0 {
            fail(self.vm, self.file, entry, tag, phase, self.file.cause(name, ret));
        }
        ret
    }

    /// One FULL section. A failing device leaves it without a footer.
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

    /// Whether the device has a state to be saved whole, now.
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

/// Writes magic, version and the configuration section.
pub fn header(vm: &Vm, mut file: &MigFile) {
    vm.fault_point(FaultPoint::Engine);
    trace_event!(vm.host(), "savevm_state_header", "");
    section::encode_file_header(&mut file);
    if !vm.flags().has(Flags::NO_CONFIGURATION) {
        file.put_byte(wire::CONFIGURATION);
        config::save(&*vm.host(), file, !vm.flags().has(Flags::NO_UUID));
    }
}

/// Calls `save_setup` of every active handler in a START section each, until one fails.
pub fn setup(vm: &Vm, file: &MigFile) {
    vm.fault_point(FaultPoint::Engine);
    trace_event!(vm.host(), "savevm_state_setup", "");
    let context = SectionContext::new(vm, file);
    for entry in vm.registry.walk() {
        let handler = &entry.handler;
        if !handler.has(Callback::SaveSetup) || !handler.is_active() {
            continue;
        }
        let names = ("save_setup", Phase::Setup);
        if context.live(&entry, wire::SECTION_START, names, || handler.save_setup(file)) < 0 {
            break;
        }
    }
    notify(vm, PrecopyNotice::Setup);
}

/// One round: `save_live_iterate` in a PART section each.
///
/// Skips inactive handlers and, in postcopy, those without it. Stops before a handler when the rate limit is reached and
/// behind the first one that has more to send, so that later ones do not send what changes meanwhile.
pub fn iterate(vm: &Vm, file: &MigFile, postcopy: bool) -> std::result::Result<Round, i32> {
    vm.fault_point(FaultPoint::Engine);
    trace_event!(vm.host(), "savevm_state_iterate", "");
    let mut last = 1;
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
        if file.rate_limit_reached() {
            return Ok(Round::Again);
        }
        let names = ("save_live_iterate", Phase::Iterate);
        match context.live(&entry, wire::SECTION_PART, names, || handler.save_live_iterate(file)) {
            ret if ret < 0 => return Err(ret),
            0 => return Ok(Round::Again),
            ret => last = ret,
        }
    }
    Ok(Round::Done(last))
}

/// Asks every active handler how much is left.
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
    vm.host().cpu_synchronize_states();
}

/// As `complete_precopy` of everything, but for what makes the stream complete: EOF and the description. Until `finish`
/// has written them the destination can't start the guest.
pub fn prepare_completion(vm: &Vm, file: &MigFile) -> Result<Ending> {
    begin_completion(vm);
    complete_precopy_iterable(vm, file, false)?;
    let ending = devices(vm, file, false, Disks::Inactivate)?;
    file.flush();
    Ok(ending)
}

/// `save_live_complete_precopy` of every active handler in an END section each; in postcopy without those that go on.
fn complete_precopy_iterable(vm: &Vm, file: &MigFile, in_postcopy: bool) -> Result<()> {
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

/// What is left to write once all devices are saved.
pub struct Ending {
    recorder: Option<Recorder>,
}

/// Saves every device that is not live in a FULL section each; then EOF (not in postcopy) and the description.
///
/// While the guest is stopped only a trace of what was written is kept. It is rendered to JSON after EOF was flushed,
/// while the destination is busy loading what came before: the format puts the description behind the state that it
/// describes, so this is as early as it can be.
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
    let describe = !vm.flags().has(Flags::NO_VMDESC) && !in_postcopy && !vm.flags().has(Flags::IN_POSTCOPY);
    let recorder = describe.then(Recorder::new);
    let context = SectionContext::new(vm, file);
    for entry in vm.registry.walk() {
        if !context.wants_whole(&entry) {
            continue;
        }
        if let Some(recorder) = &recorder {
            recorder.device_start(&entry.idstr, entry.instance_id);
        }
        context
            .full(&entry, recorder.as_ref())
            .map_err(|err| fail(vm, file, &entry, wire::SECTION_FULL, Phase::Complete, err))?;
        if let Some(recorder) = &recorder {
            recorder.device_end();
        }
    }
    if disks == Disks::Inactivate {
        // Before EOF: the destination takes the disks as soon as it has read it.
        if let Err(error) = error::check("disks_inactivate", vm.host().disks_inactivate()) {
            let error = error.at_side(Side::Source).in_phase(Phase::Complete);
            file.set_error_detail(error.clone());
            return Err(vm.report(error));
        }
    }
    Ok(Ending { recorder })
}

fn describe(vm: &Vm, file: &MigFile, ending: &Ending) {
    vm.fault_point(FaultPoint::Engine);
    if let Some(recorder) = &ending.recorder {
        file.flush();
        let description = recorder.render(1 << vm.host().target_page_bits());
        section::encode_description(&mut { file }, &description);
    }
}

/// Writes EOF, by itself, so that the file's error tells whether the channel took it.
pub fn end_of_stream(file: &MigFile) {
    file.flush();
    file.put_byte(wire::EOF);
    file.flush();
}

/// Writes what follows EOF.
pub fn finish(vm: &Vm, file: &MigFile, ending: &Ending) {
    describe(vm, file, ending);
    file.flush();
}

/// `save_live_complete_postcopy` of every active handler in an END section each, then EOF.
pub fn complete_postcopy(vm: &Vm, file: &MigFile) {
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
            return;
        }
    }
    file.put_byte(wire::EOF);
    file.flush();
}

/// Tells every handler that the migration is over, active or not. A panic on the way to one keeps nothing from the others.
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

/// Asks every active handler to go on after a broken postcopy; the first negative result ends it.
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

/// The live sections' ends and EOF: what continuous replication sends at a checkpoint.
pub fn live_state(vm: &Vm, file: &MigFile) {
    // Its result stands on the file already.
    let _ = complete_precopy(vm, file, Completion::Live);
    file.put_byte(wire::EOF);
}

/// All devices that are not live, without description; with magic and version, but in continuous replication.
pub fn device_state(vm: &Vm, mut file: &MigFile) -> Result<()> {
    if !vm.flags().has(Flags::IN_COLO) {
        section::encode_file_header(&mut file);
    }
    vm.host().cpu_synchronize_states();
    let context = SectionContext::new(vm, file);
    for entry in vm.registry.walk() {
        if entry.is_live || !context.wants_whole(&entry) {
            continue;
        }
        context.full(&entry, None).map_err(|err| {
            err.at_side(Side::Source)
                .in_phase(Phase::DeviceState)
                .in_section(|| entry.section(wire::SECTION_FULL, entry.section_id, None))
                .at_offset(file.position())
        })?;
    }
    file.put_byte(wire::EOF);
    file.check()
}
