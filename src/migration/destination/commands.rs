// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the commands of a stream ask of an incoming migration.
//!
//! In postcopy QEMU lets a second thread read on from the stream while the first loads the devices from the package. Here it
//! is the other way round: the package, which came whole, goes to a thread of its own, and the thread that reads the
//! stream goes on with it. So a file is never handed from one thread to another.

use super::handle::Incoming;
use super::worker::DEVICE_LIMIT;
use crate::error::{self, Error, Result};
use crate::file::MigFile;
use crate::migration::return_path::message::{self, Message};
use crate::migration::status::Status;
use crate::savevm::Vm;
use crate::savevm::fault::FaultPoint;
use crate::savevm::host::{self, Flags, Level, PostcopyState, with_big_lock};
use crate::savevm::load::{self, LoadEnd};
use crate::savevm::owner::Owner;
use crate::savevm::slot::PostcopyRam;
use crate::savevm::unwind::contained;
use crate::sys::spawn;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

/// The engine holds a trait object of its own, so that a migration can hand on a shared reference to itself.
pub(super) struct Commands(pub Arc<Incoming>);

impl Commands {
    fn ram(&self) -> Option<Arc<dyn PostcopyRam>> {
        let vm = &self.0.core.vm;
        vm.slot.ram().filter(|_| vm.flags().has(Flags::POSTCOPY_RAM))
    }

    fn on_reader(&self) -> bool {
        *self.0.reader.lock() == Some(thread::current().id())
    }
}

impl host::Incoming for Commands {
    fn open_return_path(&self, file: &MigFile) -> Result<()> {
        if self.0.sender.is_open() {
            return Err(Error::new(libc::EEXIST, "the return path is open already"));
        }
        let back = file.return_path();
        self.0.sender.open(back.ok_or_else(|| Error::new(libc::ENOTSUP, "there is no way back on this connection"))?);
        self.0.core.stats.get().return_path = true;
        Ok(())
    }

    fn pong(&self, value: u32) -> Result<()> {
        let m = &self.0;
        if value == message::PING_LOADED {
            m.asked.store(true, SeqCst);
        }
        let said = m.sender.send(Message::Pong(value));
        if self.on_reader() {
            // In a package nobody minds: whoever reads the stream sees the break, which may be recovered.
            said?;
        }
        if value == message::PING_HELLO && m.core.params().extensions {
            m.peer_is_libsavevm.store(true, SeqCst);
            m.core.stats.get().peer_is_libsavevm = true;
            m.sender.send(Message::Pong(message::PONG_HELLO))?;
        }
        Ok(())
    }

    fn postcopy_state(&self, new: Option<PostcopyState>) -> PostcopyState {
        let mut state = self.0.postcopy.lock();
        let before = *state;
        *state = new.unwrap_or(before);
        before
    }

    fn postcopy_advise(&self, _ram: Option<(u64, u64)>) -> Result<()> {
        if !self.0.core.params().postcopy {
            return Err(Error::new(libc::ENOTSUP, "postcopy is not enabled on this side"));
        }
        self.ram().map_or(Ok(()), |ram| ram.advise())
    }

    fn postcopy_prepare_discard(&self) -> Result<()> {
        let Some(ram) = self.ram() else { return Ok(()) };
        ram.prepare_discard()?;
        let mut state = self.0.postcopy.lock();
        if *state == PostcopyState::Advise {
            *state = PostcopyState::Discard;
        }
        Ok(())
    }

    fn postcopy_discard(&self, block: &[u8], start: u64, len: u64) -> Result<()> {
        let ram = self.ram().ok_or_else(|| Error::new(libc::ENOTSUP, "no RAM takes part in postcopy"))?;
        ram.discard(block, start, len)
    }

    fn postcopy_listen(&self) -> Result<()> {
        let m = &self.0;
        if self.on_reader() {
            return Err(Error::new(libc::EPERM, "POSTCOPY_LISTEN outside of a package"));
        }
        let ram = self.ram();
        if let Some(ram) = &ram {
            ram.listen(Arc::clone(m) as _)?;
        }
        if let Err(error) = m.core.enter(Status::Device) {
            if let Some(ram) = &ram {
                ram.end(false);
            }
            return Err(error);
        }
        m.package.lock().listening = true;
        m.core.status_machine.notify();
        Ok(())
    }

    fn postcopy_run(&self) -> Result<()> {
        let m = &self.0;
        if self.on_reader() {
            // RUN beside the package: its devices are loaded, which the source was told, or it lies.
            m.wait_package(|package| package.done.is_some())?;
            if let Some(Err(error)) = &m.package.lock().done {
                return Err(error.clone());
            }
        }
        m.core.commit()?;
        m.ours.store(true, SeqCst);
        m.core.set_owner(Owner::Here);
        m.start_guest()?;
        m.core.enter(Status::PostcopyActive)?;
        m.package.lock().running = true;
        m.core.status_machine.notify();
        Ok(())
    }

    fn postcopy_resume(&self) -> Result<()> {
        let m = &self.0;
        if m.core.status() != Status::PostcopyRecover {
            m.core.vm.host().report(Level::Warning, "POSTCOPY_RESUME without a recovery: ignored");
            return Ok(());
        }
        m.core.vm.fault_point(FaultPoint::Recovery);
        m.core.enter(Status::PostcopyActive)?;
        m.core.stats.get().recoveries += 1;
        m.sender.send(Message::ResumeAck(message::RESUME_ACK_VALUE))?;
        if let Some(ram) = self.ram() {
            ram.resumed();
        }
        Ok(())
    }

    fn recv_bitmap(&self, block: &[u8]) -> Result<()> {
        let m = &self.0;
        if m.core.status() != Status::PostcopyRecover {
            return Err(Error::new(libc::EPERM, "RECV_BITMAP outside of a recovery"));
        }
        m.core.vm.fault_point(FaultPoint::Recovery);
        let ram = self.ram().ok_or_else(|| Error::new(libc::ENOTSUP, "no RAM takes part in postcopy"))?;
        let bits = ram.received_bits(block)?;
        m.sender.send_bitmap(block.to_vec(), bits)
    }

    fn devices_need_lock(&self) -> bool {
        // After LISTEN this thread loads pages alone. The other thread loads the devices with the lock, and may wait for
        // those pages.
        !(self.on_reader() && self.0.package.lock().listening)
    }

    fn load_package(&self, vm: &Vm, stream: Vec<u8>, depth: u32) -> Result<LoadEnd> {
        if !self.on_reader() || self.0.package.lock().listening {
            return load::package(vm, stream, depth);
        }
        let m = Arc::clone(&self.0);
        let mut stream = stream;
        let body = move || {
            let vm = Arc::clone(&m.core.vm);
            vm.host().on_thread(&vm, &mut || {
                let _working = m.core.working();
                let stream = std::mem::take(&mut stream);
                let load = || {
                    vm.fault_point(FaultPoint::Package);
                    load::package(&vm, stream, depth).map(drop)
                };
                let loaded = contained(&vm, load).and_then(|loaded| loaded);
                let failed = loaded.as_ref().err().cloned();
                let listening = {
                    let mut package = m.package.lock();
                    package.done = Some(loaded);
                    package.listening
                };
                m.core.status_machine.notify();
                if let Some(error) = failed.filter(|_| listening) {
                    // The other thread waits for pages, which will not come any more.
                    m.tell_failure(&error);
                    m.core.link.drop_channel();
                }
            });
        };
        spawn("savevm-package", body).map_err(|err| Error::io("starting the package's thread", &err))?;
        // Also when somebody cancels: until then that thread is in the devices, and waits for nobody.
        self.0.wait_device(|package| package.listening || package.done.is_some(), DEVICE_LIMIT);
        if self.0.package.lock().listening {
            return Ok(LoadEnd::Finished);
        }
        // It was none that hands over: another one may come, and is to be waited for in its turn.
        match self.0.package.lock().done.take() {
            Some(Err(error)) => Err(error),
            _ => Ok(LoadEnd::Finished),
        }
    }

    fn main_loop_done(&self) -> bool {
        self.0.package.lock().listening
    }
}

impl Incoming {
    /// Gives the loaded state to the CPUs, takes the disks over and starts the guest, if it is to start by itself.
    pub(super) fn start_guest(&self) -> Result<()> {
        let vm = &self.core.vm;
        let host = vm.host();
        with_big_lock(&*host, || {
            host.cpu_synchronize_post_load();
            self.take_disks()?;
            self.run_guest()
        })
    }

    /// Takes the disks over; inside the lock.
    pub(super) fn take_disks(&self) -> Result<()> {
        error::check("disks_activate", self.core.vm.host().disks_activate())?;
        self.disks.store(true, SeqCst);
        Ok(())
    }

    /// Starts the guest, if it is to start by itself; inside the lock.
    pub(super) fn run_guest(&self) -> Result<()> {
        if !self.core.params().autostart {
            return Ok(());
        }
        error::check("vm_start", self.core.vm.host().vm_start())
    }
}
