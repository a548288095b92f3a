// SPDX-License-Identifier: LGPL-2.1-or-later
//! The section "globalstate": the guest's run state at the source (replaces QEMU 7.2's `migration/global_state.c`).
//!
//! QEMU always sends it, so the library's driver always reads it: a guest that was stopped at its source is not started
//! here. The driver sends it if the host has set `Flags::GLOBAL_STATE`. Otherwise the streams of hosts that do not know
//! this section stay as they are.
//!
//! The section belongs to a device of the library, which is registered when the driver needs it for the first time, so
//! that it comes after the devices of the machine, as in QEMU. A device of that name that the program registers (a QEMU
//! port has QEMU's own) takes its place.
//!
//! ```text
//! payload = size(be32) runstate[100]
//! ```
//! `runstate` is the name padded with zeros, `size` its length with one zero. QEMU since 8.2 uses some of the padding;
//! those bytes are ignored.
//!
//! Any thread, with or without the big lock. No lock is taken but the registry's.

use super::handler::{Callback, Handler};
use super::registry::{Registrant, Registration};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::vmstate::Recorder;
use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};

/// Name of the section.
const NAME: &[u8] = b"globalstate";
const VERSION: i32 = 1;
/// Bytes of the field `runstate`.
const NAME_ROOM: usize = 100;

/// QEMU's names of run states (`qapi/run-state.json`; 7.2 and 10.0 have the same).
const NAMES: [&CStr; 16] = [
    c"debug",
    c"inmigrate",
    c"internal-error",
    c"io-error",
    c"paused",
    c"postmigrate",
    c"prelaunch",
    c"finish-migrate",
    c"restore-vm",
    c"running",
    c"save-vm",
    c"shutdown",
    c"suspended",
    c"watchdog",
    c"guest-panicked",
    c"colo",
];
const RUNNING: &CStr = c"running";
const PAUSED: &CStr = c"paused";
/// Number of a state that was not received.
const NONE: u8 = u8::MAX;

#[derive(Debug)]
struct Inner {
    is_registered: AtomicBool,
    /// Whether the section is sent.
    sends: AtomicBool,
    /// Whether the guest ran before it was stopped to be saved.
    ran: AtomicBool,
    /// The number of the name that was received last, or `NONE`.
    received: AtomicU8,
}

/// The run state of a context's guest in streams. See the module.
#[derive(Clone, Debug)]
pub struct GlobalState(Arc<Inner>);

impl Default for GlobalState {
    fn default() -> Self {
        Self(Arc::new(Inner {
            is_registered: AtomicBool::new(false),
            sends: AtomicBool::new(false),
            ran: AtomicBool::new(true),
            received: AtomicU8::new(NONE),
        }))
    }
}

impl GlobalState {
    /// The driver begins a migration or a snapshot: forgets what was received before. `sends` says whether it sends the
    /// section.
    pub(super) fn begin(&self, sends: bool) {
        self.0.sends.store(sends, SeqCst);
        self.0.received.store(NONE, SeqCst);
    }

    /// Registers the section by `register`, unless it is registered or `is_taken` says that the program has one.
    pub(super) fn register(
        &self,
        is_taken: impl FnOnce(&[u8]) -> bool,
        register: impl FnOnce(Registration<Self>) -> Result<()>,
    ) -> Result<()> {
        if is_taken(NAME) || self.0.is_registered.swap(true, SeqCst) {
            return Ok(());
        }
        let registered = register(Registration {
            path: None,
            name: NAME.to_vec(),
            instance_id: 0,
            alias_id: -1,
            version_id: VERSION,
            is_live: false,
            registrant: self.registrant(),
            handler: self.clone(),
        });
        registered.inspect_err(|_| self.0.is_registered.store(false, SeqCst))
    }

    /// A device of that name is about to be registered. Returns the name and the registrant of this section if it has to be
    /// unregistered first.
    pub(super) fn make_way(&self, name: &[u8], registrant: Registrant) -> Option<(&'static [u8], Registrant)> {
        let ours = self.registrant();
        let makes_way = name == NAME && registrant != ours && self.0.is_registered.swap(false, SeqCst);
        makes_way.then_some((NAME, ours))
    }

    /// Whether the driver would read a section, although no device is registered for it yet.
    pub fn would_read(&self, name: &[u8], instance: u32, version: u32) -> bool {
        (name, instance, version) == (NAME, 0, VERSION as u32)
    }

    fn registrant(&self) -> Registrant {
        Registrant { description: 0, opaque: Arc::as_ptr(&self.0).addr() }
    }

    /// The guest is about to be stopped to be saved; `runs` is its state before.
    pub fn store(&self, runs: bool) {
        self.0.ran.store(runs, SeqCst);
    }

    /// Returns the run state that was received last since `begin`, by QEMU's name.
    pub fn received(&self) -> Option<&'static CStr> {
        NAMES.get(usize::from(self.0.received.load(SeqCst))).copied()
    }

    /// Whether the received state forbids to start the guest.
    pub fn was_stopped(&self) -> bool {
        self.received().is_some_and(|name| name != RUNNING)
    }
}

impl Handler for GlobalState {
    fn has(&self, _callback: Callback) -> bool {
        false
    }

    fn is_description(&self) -> bool {
        true
    }

    fn oldest_version(&self) -> i32 {
        VERSION
    }

    fn is_needed(&self) -> bool {
        self.0.sends.load(SeqCst)
    }

    fn is_optional(&self) -> bool {
        true
    }

    fn save(&self, file: &MigFile, recorder: Option<&Recorder>) -> Result<()> {
        let name = if self.0.ran.load(SeqCst) { RUNNING } else { PAUSED }.to_bytes_with_nul();
        let mut bytes = [0; NAME_ROOM];
        bytes[..name.len()].copy_from_slice(name);
        file.put_be32(name.len() as u32);
        file.put(&bytes);
        if let Some(recorder) = recorder {
            recorder.plain(NAME, VERSION, &[("size", "uint32", 4), ("runstate", "buffer", NAME_ROOM)]);
        }
        Ok(())
    }

    fn load(&self, file: &MigFile, version: i32) -> Result<()> {
        if version != VERSION {
            return Err(Error::invalid(format!("version {version} of the run state, expected {VERSION}")));
        }
        let mut bytes = [0; NAME_ROOM];
        // The size says nothing that the name does not. QEMU ignores it as well.
        file.get_be32();
        file.get(&mut bytes);
        file.check()?;
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let Some(number) = NAMES.iter().position(|known| known.to_bytes() == name) else {
            let name = String::from_utf8_lossy(name);
            return Err(Error::invalid(format!("the guest's run state is '{name}', expected one of {NAMES:?}")));
        };
        self.0.received.store(number as u8, SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Device;
    use super::*;
    use crate::channel::memory;
    use crate::savevm::Vm;
    use crate::savevm::host::Flags;
    use crate::savevm::load;
    use crate::savevm::save::{self, Completion, Disks};

    /// A host that sends the section.
    struct Sends;

    impl crate::vmstate::VmStateHost for Sends {}

    impl crate::savevm::host::Host for Sends {
        fn flags(&self) -> Flags {
            Flags::GLOBAL_STATE
        }
    }

    fn stream(vm: &Vm) -> Vec<u8> {
        let writer = Arc::new(memory::Writer::new());
        let file = MigFile::new(writer.clone(), true);
        save::header(vm, &file);
        save::setup(vm, &file).unwrap();
        save::complete_precopy(vm, &file, Completion::All(Disks::Keep)).unwrap();
        file.close().unwrap();
        writer.take()
    }

    fn load_stream(vm: &Vm, bytes: &[u8]) -> Result<()> {
        load::stream(vm, &MigFile::new(Arc::new(memory::Reader::new(bytes)), false)).map(drop)
    }

    fn payload(name: &[u8], rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, name.len() as u8 + 1];
        bytes.extend_from_slice(name);
        bytes.resize(4 + NAME_ROOM, 0);
        bytes[4 + NAME_ROOM - rest.len()..].copy_from_slice(rest);
        bytes
    }

    #[test]
    fn the_state_travels_in_both_forms() {
        let source = Vm::new(Arc::new(Sends));
        source.prepare_global_state().unwrap();
        source.begin_global_state();
        for (runs, name) in [(true, c"running"), (false, c"paused")] {
            source.global_state.store(runs);
            let bytes = stream(&source);
            let destination = Vm::default();
            destination.prepare_global_state().unwrap();
            destination.begin_global_state();
            assert_eq!(destination.global_state.received(), None);
            load_stream(&destination, &bytes).unwrap();
            assert_eq!(destination.global_state.received(), Some(name));
            assert_eq!(destination.global_state.was_stopped(), !runs);
            // The section and its description are QEMU's.
            let section = [&b"\x0bglobalstate\0\0\0\0\0\0\0\x01"[..], &payload(name.to_bytes(), b"")].concat();
            assert!(bytes.windows(section.len()).any(|part| part == section), "{name:?}");
            let text = String::from_utf8_lossy(&bytes);
            let described = "{\"name\": \"globalstate\", \"instance_id\": 0, \"vmsd_name\": \"globalstate\", \"version\": 1, \
                             \"fields\": [{\"name\": \"size\", \"type\": \"uint32\", \"size\": 4}, {\"name\": \
                             \"runstate\", \"type\": \"buffer\", \"size\": 100}]}";
            assert!(text.contains(described), "{text}");
        }
    }

    #[test]
    fn a_host_that_does_not_ask_for_it_sends_nothing_and_misses_nothing() {
        let vm = Vm::default();
        let before = stream(&vm);
        vm.prepare_global_state().unwrap();
        vm.begin_global_state();
        vm.global_state.store(false);
        assert_eq!(stream(&vm), before);
        load_stream(&vm, &before).unwrap();
        assert!(vm.global_state.received().is_none() && !vm.global_state.was_stopped());
    }

    #[test]
    fn a_device_of_the_program_takes_its_place() {
        for first in [true, false] {
            let vm = Vm::new(Arc::new(Sends));
            vm.set_strict(true);
            if !first {
                vm.prepare_global_state().unwrap();
            }
            vm.register(Device { name: "globalstate", ..Device::default() }.registration()).unwrap();
            vm.prepare_global_state().unwrap();
            let is_ours = vm.registry.find(NAME, 0).unwrap().handler.is_description();
            assert_eq!((vm.registry.len(), is_ours), (1, false), "{first}");
        }
    }

    #[test]
    fn only_qemus_names_are_accepted_and_its_later_fields_ignored() {
        let state = GlobalState::default();
        let load =
            |bytes: &[u8], version| state.load(&MigFile::new(Arc::new(memory::Reader::new(bytes)), false), version);
        for name in NAMES {
            load(&payload(name.to_bytes(), &[1; 68]), 1).unwrap();
            assert_eq!((state.received(), state.was_stopped()), (Some(name), name != RUNNING));
        }
        for (bytes, version) in [
            (payload(b"runnin", b""), 1),
            (payload(b"", b""), 1),
            (payload(&[b'x'; 100], b""), 1),
            (payload(b"running", b"")[..90].to_vec(), 1),
            (payload(b"running", b""), 2),
        ] {
            assert!(load(&bytes, version).is_err(), "{bytes:?}");
        }
        assert_eq!(state.received(), Some(c"colo"), "what failed changes nothing");
    }
}
