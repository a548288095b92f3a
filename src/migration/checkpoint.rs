// SPDX-License-Identifier: LGPL-2.1-or-later
//! Checkpoints in this process. A checkpoint keeps the devices' states in memory and makes RAM track which pages change. A
//! rollback restores memory and devices.
//!
//! The guest is stopped, and all devices are called with the big lock. A rollback that fails after it has reset the
//! machine leaves parts of two states: the owner is `Torn` until a rollback or a snapshot load succeeds.

use super::stopped::{begin, start, stop, within};
use crate::channel::memory;
use crate::error::{Error, Phase, Result, Side};
use crate::file::MigFile;
use crate::savevm::Vm;
use crate::savevm::checkpoint::RamCheckpoint;
use crate::savevm::handler::Callback;
use crate::savevm::owner::Owner;
use crate::savevm::registry::Entry;
use crate::savevm::unwind::finally;
use crate::savevm::{load, save};
use crate::wire::ram::SECTION;
use std::sync::Arc;

/// Name and instance id of a device.
type Identity = (Vec<u8>, u32);

/// The state of a machine at one moment. Dropping it frees it.
pub struct Checkpoint {
    vm: Arc<Vm>,
    /// The sections of all devices, and EOF.
    states: Vec<u8>,
    /// The devices that the machine had, in order.
    devices: Vec<Identity>,
    /// `None` if the machine has no RAM device.
    ram: Option<Box<dyn RamCheckpoint>>,
}

/// Whether the device is saved whole.
fn has_state(entry: &Entry) -> bool {
    !entry.is_live && (entry.handler.has(Callback::SaveState) || entry.handler.is_description())
}

fn devices(vm: &Vm) -> Vec<Identity> {
    vm.registry.walk().filter(|call| has_state(call)).map(|call| (call.idstr.to_vec(), call.instance_id)).collect()
}

/// Fails if a live device is not the RAM that takes part in checkpoints: its state can't be kept.
pub(super) fn check_live(vm: &Vm, has_ram: bool) -> Result<()> {
    let ours = |entry: &Entry| has_ram && *entry.idstr == *SECTION;
    match vm.registry.walk().find(|call| call.is_live && !ours(call) && call.handler.is_active()) {
        Some(call) => {
            let text = format!("the state of the live device '{}' can't be kept beside memory", call.name());
            Err(Error::new(libc::ENOTSUP, text))
        }
        None => Ok(()),
    }
}

impl Checkpoint {
    /// Makes a checkpoint. Stops the guest, and starts it again if it ran, whether the checkpoint was made or not.
    pub fn new(vm: &Arc<Vm>) -> Result<Self> {
        let made = Self::make(vm);
        made.map_err(|err| err.at_side(Side::Source).in_phase(Phase::Snapshot))
    }

    fn make(vm: &Arc<Vm>) -> Result<Self> {
        vm.check_migratable()?;
        let _guard = begin(vm, "a checkpoint")?;
        let ram = vm.slot.checkpoint_ram();
        within(vm, |host| {
            check_live(vm, ram.is_some())?;
            let ran = stop(host)?;
            vm.global_state.store(ran || !host.knows_run_state());
            let keep = || {
                let states = save_devices(vm)?;
                let devices = devices(vm);
                let ram = ram.map(|ram| ram.checkpoint()).transpose()?;
                vm.check_not_poisoned()?;
                vm.slot.add_checkpoint();
                Ok(Self { vm: Arc::clone(vm), states, devices, ram })
            };
            let (made, started) = finally(keep, || if ran { start(host) } else { Ok(()) });
            started.and(made)
        })
    }

    /// The context.
    pub fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }

    /// Puts the machine back. Stops the guest, and starts it again if it ran and everything was restored. Can be called
    /// any number of times.
    pub fn rollback(&self) -> Result<()> {
        let done = self.roll_back();
        done.map_err(|err| err.at_side(Side::Destination).in_phase(Phase::Snapshot))
    }

    fn roll_back(&self) -> Result<()> {
        let vm = &self.vm;
        let _guard = vm.acquire_slot("a rollback")?;
        // A load or a rollback that failed here leaves the guest of this checkpoint without another place to be.
        if vm.ownership.owner() != Owner::Torn {
            vm.ownership.check("a rollback")?;
        }
        within(vm, |host| {
            self.check_devices()?;
            let ran = stop(host)?;
            vm.ownership.set(Owner::Torn, "a rollback failed after it had reset the machine");
            host.reset();
            if let Some(ram) = &self.ram {
                ram.rollback()?;
            }
            self.load_devices()?;
            vm.check_not_poisoned()?;
            vm.ownership.set(Owner::Here, "");
            if ran { start(host) } else { Ok(()) }
        })
    }

    /// Fails if the machine does not have the devices that it had. A device that is missing could not be loaded, and a new
    /// one would have a state that the guest does not expect.
    fn check_devices(&self) -> Result<()> {
        let now = devices(&self.vm);
        if now == self.devices {
            return Ok(());
        }
        let differs = |change: &str, (name, instance): &Identity| {
            let name = String::from_utf8_lossy(name);
            let text =
                format!("device '{name}' {instance} was {change} since the checkpoint: a rollback is not possible");
            Err(Error::invalid(text))
        };
        let lacks = |list: &[Identity], device: &&Identity| !list.contains(device);
        if let Some(device) = self.devices.iter().find(|device| lacks(&now, device)) {
            return differs("removed", device);
        }
        now.iter().find(|device| lacks(&self.devices, device)).map_or(Ok(()), |device| differs("added", device))
    }

    fn load_devices(&self) -> Result<()> {
        let vm = &*self.vm;
        let file = MigFile::new(Arc::new(memory::Reader::new(&*self.states)), false);
        // A checkpoint asks for nothing, whatever answers migrations here.
        let before = vm.incoming();
        vm.set_incoming(None);
        finally(|| load::kept_devices(vm, &file), || vm.set_incoming(before)).0
    }
}

fn save_devices(vm: &Vm) -> Result<Vec<u8>> {
    let writer = Arc::new(memory::Writer::new());
    let file = MigFile::new(writer.clone(), true);
    save::device_sections(vm, &file, Phase::Snapshot).map_err(|error| file.explain(error))?;
    file.close()?;
    Ok(writer.take())
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        self.ram = None;
        self.vm.slot.remove_checkpoint();
    }
}
