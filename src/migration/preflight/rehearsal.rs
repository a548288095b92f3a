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
use crate::savevm::host::with_big_lock;
use crate::savevm::save::SavedDevice;
use crate::savevm::slot::{Observer, SectionTime};
use crate::savevm::unwind::finally;
use crate::savevm::{load, save};
use crate::sync::{Mutex, Rank};
use crate::wire;
use crate::wire::limits::PREFLIGHT_ANSWER_MAX;
use crate::wire::preflight::{Answer, LoadTime, Request};
use std::sync::Arc;
use std::time::Instant;

/// Most devices in a report, so that it fits an answer.
const TIMES_MAX: usize = PREFLIGHT_ANSWER_MAX as usize / 512;

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
    for LoadTime { name, instance, micros } in times {
        let time = std::time::Duration::from_micros(*micros);
        core.vm.slot.device_costs.set_loaded(name, *instance, time);
    }
}

/// Saves all devices that are saved whole. The guest is paused for that, for at most the downtime limit and one device.
fn save_devices(core: &Core) -> Result<Vec<u8>> {
    let (vm, host) = (&core.vm, core.vm.host());
    let writer = Arc::new(memory::Writer::new());
    let file = MigFile::new(Arc::clone(&writer) as _, true);
    let limit = core.params().downtime_limit;
    let saved = with_big_lock(&*host, || {
        vm.ownership.check("a rehearsal")?;
        vm.ownership.hold(true);
        let was_running = host.vm_running();
        let since = Instant::now();
        let restart = || {
            vm.ownership.hold(false);
            if was_running { error::check("vm_start", host.vm_start()) } else { Ok(()) }
        };
        let save = || {
            error::check("vm_stop", if was_running { host.vm_stop() } else { 0 })?;
            save::rehearse(vm, &file, limit)
        };
        let (saved, restarted) = finally(save, restart);
        log::info!("rehearsal: the guest was paused for {:?}", since.elapsed());
        restarted.and(saved)
    })?;
    for SavedDevice { ticket, bytes, time } in saved {
        if let Some(device) = vm.registry.find_again(ticket) {
            vm.slot.device_costs.set_saved(&device.idstr, device.instance_id, bytes, time);
        }
    }
    file.put_byte(wire::EOF);
    file.close()?;
    Ok(writer.take())
}
