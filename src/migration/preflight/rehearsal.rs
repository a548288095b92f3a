// SPDX-License-Identifier: LGPL-2.1-or-later
//! The rehearsal: the source saves its devices once while the guest is paused, and the destination loads them for a test.
//!
//! Only devices that are saved whole take part. Memory is not sent, so a device that reads the guest's memory while it loads
//! finds that of a reset machine.

use super::ask::request;
use crate::channel::memory;
use crate::error::{self, Error, Result, Side};
use crate::file::MigFile;
use crate::migration::core::Core;
use crate::migration::return_path::reader::Reader;
use crate::savevm::Vm;
use crate::savevm::host::{Host, with_big_lock};
use crate::savevm::load;
use crate::savevm::save::rehearsal::{SavedDevice, SavedDevices, rehearse};
use crate::savevm::slot::{Observer, SectionTime};
use crate::savevm::unwind::finally;
use crate::sync::{Mutex, Rank};
use crate::wire;
use crate::wire::limits::PREFLIGHT_ANSWER_MAX;
use crate::wire::preflight::{Answer, LoadTime, Request};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most devices in a report, so that it fits an answer.
const TIMES_MAX: usize = PREFLIGHT_ANSWER_MAX as usize / 512;

/// Memory for the section of a device that was never saved, in bytes.
const DEVICE_GUESS: usize = 1024;
/// Most memory that is allocated before the guest pauses, in bytes. More is allocated when it is needed.
const RESERVED_MAX: usize = 16 << 20;

/// Collects the times of the devices that are loaded.
struct Times(Mutex<Vec<LoadTime>>);

impl Observer for Times {
    fn section(&self, section: &SectionTime<'_>) {
        let micros = u64::try_from(section.time.as_micros()).unwrap_or(u64::MAX);
        let mut times = self.0.lock();
        if times.len() < TIMES_MAX {
            times.push(LoadTime { name: section.name.to_vec(), instance: section.instance, micros });
        }
    }
}

/// Destination: loads the devices, then resets the machine, in any case. The host can reset it.
pub(super) fn load(vm: &Vm, sections: &[u8]) -> Answer {
    let host = vm.host();
    let times = Arc::new(Times(Mutex::new(Rank::RehearsalTimes, Vec::new())));
    let before = vm.slot.observer();
    vm.slot.set_observer(Some(Arc::clone(&times) as _));
    let file = MigFile::new(Arc::new(memory::Reader::new(sections)), false);
    let reset = || {
        with_big_lock(&*host, || {
            load::cleanup(vm);
            host.reset();
        });
        vm.ownership.begin_load();
        vm.slot.set_observer(before);
    };
    let (loaded, ()) = finally(|| with_big_lock(&*host, || load::rehearse(vm, &file)), reset);
    let failure = loaded.err().map(|error| error.to_string()).unwrap_or_default();
    let times = std::mem::take(&mut *times.0.lock());
    Answer::Report { failure, times }
}

/// Source: pauses the guest, saves the devices, lets the guest run again, sends them and waits for the report.
pub(in crate::migration) fn send(core: &Core, file: &MigFile, reader: &Reader) -> Result<Vec<LoadTime>> {
    let sections = save_devices(core)?;
    match request(core, file, reader, &Request::Rehearsal(sections))? {
        Answer::Report { failure, times } if failure.is_empty() => Ok(times),
        Answer::Report { failure, times } => {
            report_times(core, &times);
            let text = format!("the destination failed to load the devices: {failure}");
            Err(Error::new(libc::EREMOTEIO, text).at_side(Side::Destination))
        }
        _ => Err(Error::invalid("preflight: an answer that is not expected").at_side(Side::Destination)),
    }
}

/// Keeps the load times of a destination for later migrations.
pub(in crate::migration) fn report_times(core: &Core, times: &[LoadTime]) {
    core.note_load_times(times.iter().map(|time| (&*time.name, time.instance, Duration::from_micros(time.micros))));
}

/// Returns how many bytes the devices will probably have: what they had before, and a guess for those that were never saved.
fn expected_bytes(vm: &Vm) -> usize {
    let costs = vm.slot.device_costs.sum(&vm.registry);
    let known = usize::try_from(costs.bytes).unwrap_or(usize::MAX);
    known.saturating_add(costs.unknown.saturating_mul(DEVICE_GUESS)).min(RESERVED_MAX)
}

fn start(host: &dyn Host) -> Result<()> {
    error::check("vm_start", host.vm_start()).map_err(|error| {
        let text =
            format!("{}: the guest stays stopped after its devices were saved: start it by hand", error.message());
        error.with_message(text)
    })
}

/// Saves all devices that are saved whole. The guest is paused for that, for at most the downtime limit and one device. All that
/// can be done before or after the pause is.
fn save_devices(core: &Core) -> Result<Vec<u8>> {
    let (vm, host) = (&core.vm, core.vm.host());
    let writer = Arc::new(memory::Writer::with_memory(expected_bytes(vm)));
    let file = MigFile::new(Arc::clone(&writer) as _, true);
    let limit = core.params().downtime_limit;
    let mut saved = SavedDevices::prepare(vm);
    with_big_lock(&*host, || {
        vm.ownership.check("a rehearsal")?;
        vm.ownership.hold(true);
        let was_running = host.vm_running();
        let since = Instant::now();
        let restart = || {
            vm.ownership.hold(false);
            // A vm_stop that failed may have stopped the guest.
            if was_running && !host.vm_running() { start(&*host) } else { Ok(()) }
        };
        let save = || {
            error::check("vm_stop", if was_running { host.vm_stop() } else { 0 })?;
            rehearse(vm, &file, limit, &mut saved)
        };
        let (saved, restarted) = finally(save, restart);
        log::info!("rehearsal: the guest was paused for {:?}", since.elapsed());
        restarted.and(saved)
    })?;
    for SavedDevice { ticket, bytes, time } in saved.into_inner() {
        if let Some(device) = vm.registry.find_again(ticket) {
            vm.slot.device_costs.set_saved(&device.idstr, device.instance_id, bytes, time);
        }
    }
    file.put_byte(wire::EOF);
    file.close()?;
    Ok(writer.take())
}
