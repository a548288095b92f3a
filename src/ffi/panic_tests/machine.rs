// SPDX-License-Identifier: LGPL-2.1-or-later
//! A hypervisor as C sees the library: a lock, a guest that runs or not, memory, and devices that call the library back.

use crate::ffi::exports::context::{savevm_free, savevm_is_broken, savevm_new, savevm_set_current};
use crate::ffi::exports::error::{error_free, error_get_pretty};
use crate::ffi::exports::file::savevm_file_to_buffer;
use crate::ffi::exports::host::{SaveVMHostOps, SaveVMReportLevel};
use crate::ffi::exports::migrate::{savevm_incoming, savevm_migrate};
use crate::ffi::exports::phases::{qemu_save_device_state, qemu_savevm_state_blocked};
use crate::ffi::exports::qemu_file::{qemu_fclose, qemu_get_be32, qemu_get_buffer, qemu_put_be32, qemu_put_buffer};
use crate::ffi::exports::ram::{
    SaveVMRam, SaveVMRamBlock, SaveVMRamLog, SaveVMRamOps, SaveVMRamOptions, savevm_ram_add_block, savevm_ram_free,
    savevm_ram_new, savevm_ram_snapshot,
};
use crate::ffi::exports::register::{SaveVMHandlers, register_savevm_live, unregister_savevm};
use crate::ffi::exports::snapshot::{savevm_snapshot_load, savevm_snapshot_save, savevm_snapshot_save_file};
use crate::ffi::marshal::current;
use crate::ffi::marshal::opaque::{Error as CError, QEMUFile, SaveVM};
use crate::savevm::Vm;
use crate::savevm::fault::FaultPoint;
use crate::sys::OwnMemory;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::{MaybeUninit, zeroed};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

pub const PAGE: usize = 4096;
pub const PAGES: usize = 64;
/// What a device's state begins with.
const MARK: u32 = 0x1234_5678;

#[derive(Default)]
pub struct Host {
    holder: Mutex<Option<ThreadId>>,
    pub runs: AtomicBool,
    pub disks: AtomicBool,
    /// Between a device's setup and its cleanup, by side.
    set_up: [AtomicBool; 2],
    pub loads: AtomicU32,
    logs: AtomicI32,
    /// Something that a host may rely on was not so.
    wrong: Mutex<Vec<&'static str>>,
}

impl Host {
    fn expect(&self, right: bool, what: &'static str) {
        if !right {
            self.wrong.lock().unwrap().push(what);
        }
    }

    fn is_mine(&self) -> bool {
        *self.holder.lock().unwrap() == Some(thread::current().id())
    }
}

fn host<'a>(host: *mut c_void) -> &'a Host {
    // SAFETY: every callback here gets the host of its machine.
    unsafe { &*host.cast::<Host>() }
}

unsafe extern "C" fn lock(this: *mut c_void) {
    host(this).expect(!host(this).is_mine(), "the lock is taken twice");
    loop {
        let mut holder = host(this).holder.lock().unwrap();
        if holder.is_none() {
            *holder = Some(thread::current().id());
            return;
        }
        drop(holder);
        thread::yield_now();
    }
}

unsafe extern "C" fn unlock(this: *mut c_void) {
    host(this).expect(host(this).is_mine(), "a lock is given back that was not taken");
    *host(this).holder.lock().unwrap() = None;
}

unsafe extern "C" fn locked(this: *mut c_void) -> bool {
    host(this).is_mine()
}

unsafe extern "C" fn vm_stop(this: *mut c_void) -> c_int {
    host(this).runs.store(false, SeqCst);
    0
}

unsafe extern "C" fn vm_start(this: *mut c_void) -> c_int {
    host(this).expect(host(this).disks.load(SeqCst), "the guest runs without its disks");
    host(this).runs.store(true, SeqCst);
    0
}

unsafe extern "C" fn vm_running(this: *mut c_void) -> bool {
    host(this).runs.load(SeqCst)
}

unsafe extern "C" fn disks_inactivate(this: *mut c_void) -> c_int {
    host(this).disks.store(false, SeqCst);
    0
}

unsafe extern "C" fn disks_activate(this: *mut c_void) -> c_int {
    host(this).disks.store(true, SeqCst);
    0
}

unsafe extern "C" fn quiet(_this: *mut c_void, _level: SaveVMReportLevel, _text: *const c_char) {}

unsafe extern "C" fn save(f: *mut QEMUFile, _opaque: *mut c_void) {
    let bytes = [7; 100];
    // SAFETY: the file is the callback's.
    unsafe {
        qemu_put_be32(f, MARK);
        qemu_put_buffer(f, bytes.as_ptr(), bytes.len());
    }
}

unsafe extern "C" fn load(f: *mut QEMUFile, opaque: *mut c_void, _version: c_int) -> c_int {
    let mut bytes = [0; 100];
    host(opaque).loads.fetch_add(1, SeqCst);
    // SAFETY: the file is the callback's.
    let whole = unsafe { qemu_get_be32(f) == MARK && qemu_get_buffer(f, bytes.as_mut_ptr(), bytes.len()) == 100 };
    if whole { 0 } else { -libc::EINVAL }
}

/// A device that registers another one from its callback.
unsafe extern "C" fn setup(f: *mut QEMUFile, opaque: *mut c_void) -> c_int {
    host(opaque).set_up[0].store(true, SeqCst);
    // SAFETY: the file is the callback's; the table is all NULL and static.
    unsafe {
        register_savevm_live(c"plugged".as_ptr(), -1, 1, &raw const NOTHING, opaque);
        save(f, opaque);
    }
    0
}

unsafe extern "C" fn cleanup(opaque: *mut c_void) {
    host(opaque).set_up[0].store(false, SeqCst);
    // SAFETY: only compared.
    unsafe { unregister_savevm(ptr::null_mut(), c"plugged".as_ptr(), opaque) };
}

unsafe extern "C" fn load_setup(_f: *mut QEMUFile, opaque: *mut c_void) -> c_int {
    host(opaque).set_up[1].store(true, SeqCst);
    0
}

unsafe extern "C" fn load_cleanup(opaque: *mut c_void) -> c_int {
    host(opaque).set_up[1].store(false, SeqCst);
    0
}

unsafe extern "C" fn complete(f: *mut QEMUFile, opaque: *mut c_void) -> c_int {
    // SAFETY: the file is the callback's.
    unsafe { save(f, opaque) };
    0
}

unsafe extern "C" fn iterate(f: *mut QEMUFile, opaque: *mut c_void) -> c_int {
    // SAFETY: the file is the callback's.
    unsafe { save(f, opaque) };
    1
}

unsafe extern "C" fn log_start(opaque: *mut c_void) -> c_int {
    host(opaque).logs.fetch_add(1, SeqCst);
    0
}

unsafe extern "C" fn log_sync(_o: *mut c_void, _block: *const SaveVMRamBlock, _bits: *mut u64, _words: usize) -> c_int {
    0
}

unsafe extern "C" fn log_stop(opaque: *mut c_void) {
    host(opaque).expect(host(opaque).is_mine(), "the log is stopped without the lock");
    host(opaque).logs.fetch_sub(1, SeqCst);
}

// SAFETY: NULL is a value of every member.
static NOTHING: SaveVMHandlers = unsafe { zeroed() };

fn device() -> SaveVMHandlers {
    SaveVMHandlers { save_state: Some(save), load_state: Some(load), ..NOTHING }
}

fn live_device() -> SaveVMHandlers {
    SaveVMHandlers {
        save_setup: Some(setup),
        save_cleanup: Some(cleanup),
        save_live_iterate: Some(iterate),
        save_live_complete_precopy: Some(complete),
        load_setup: Some(load_setup),
        load_cleanup: Some(load_cleanup),
        load_state: Some(load),
        ..NOTHING
    }
}

/// See the module.
pub struct Machine {
    pub vm: *mut SaveVM,
    pub ram: *mut SaveVMRam,
    pub memory: OwnMemory,
    pub host: Box<Host>,
}

impl Machine {
    /// With a live device beside RAM, or (for a snapshot of a running guest) without.
    pub fn new(runs: bool, live: bool) -> Self {
        let ops = SaveVMHostOps {
            size: size_of::<SaveVMHostOps>(),
            lock: Some(lock),
            unlock: Some(unlock),
            locked: Some(locked),
            vm_stop: Some(vm_stop),
            vm_start: Some(vm_start),
            vm_running: Some(vm_running),
            disks_inactivate: Some(disks_inactivate),
            disks_activate: Some(disks_activate),
            report: Some(quiet),
            // SAFETY: NULL is a value of every member.
            ..unsafe { zeroed() }
        };
        let host = Box::<Host>::default();
        host.runs.store(runs, SeqCst);
        host.disks.store(runs, SeqCst);
        let opaque: *mut c_void = ptr::from_ref(&*host).cast_mut().cast();
        let memory = OwnMemory::new(PAGES * PAGE).unwrap();
        if runs {
            (0..PAGES / 2).for_each(|page| memory.memory().write(page * PAGE + 8, &[page as u8 + 1]));
        }
        // SAFETY: the host outlives the context, tables are leaked, and the memory stays mapped.
        unsafe {
            let vm = savevm_new(&raw const ops, opaque);
            let before = savevm_set_current(vm);
            let options = SaveVMRamOptions {
                size: size_of::<SaveVMRamOptions>(),
                log: MaybeUninit::new(SaveVMRamLog::SAVEVM_RAM_LOG_HOST),
                ..zeroed()
            };
            let log = SaveVMRamOps {
                size: size_of::<SaveVMRamOps>(),
                log_start: Some(log_start),
                log_sync: Some(log_sync),
                log_stop: Some(log_stop),
            };
            let ram = savevm_ram_new(vm, &raw const options, &raw const log, opaque, ptr::null_mut());
            let block = SaveVMRamBlock {
                size: size_of::<SaveVMRamBlock>(),
                name: c"ram".as_ptr(),
                host: memory.memory().address() as *mut c_void,
                length: memory.memory().len() as u64,
                ..zeroed()
            };
            assert_eq!(savevm_ram_add_block(ram, &raw const block, ptr::null_mut()), 0);
            let devices = [(c"a", device()), (c"b", device()), (c"live", live_device())];
            for (name, table) in devices.into_iter().take(if live { 3 } else { 2 }) {
                assert_eq!(register_savevm_live(name.as_ptr(), 0, 1, Box::leak(Box::new(table)), opaque), 0);
            }
            savevm_set_current(before);
            Self { vm, ram, memory, host }
        }
    }

    pub fn inner(&self) -> Arc<Vm> {
        // SAFETY: the context is alive.
        unsafe { current::from_c(self.vm) }
    }

    pub fn runs(&self) -> bool {
        self.host.runs.load(SeqCst)
    }

    pub fn is_poisoned(&self) -> bool {
        // SAFETY: the context is alive.
        unsafe { savevm_is_broken(self.vm) }
    }

    /// What holds whatever happened.
    pub fn check_order(&self, what: &str) {
        assert!(self.host.holder.lock().unwrap().is_none(), "{what}: the lock is free");
        assert_eq!(*self.host.wrong.lock().unwrap(), [""; 0], "{what}");
        assert_eq!(self.host.logs.load(SeqCst), 0, "{what}: the dirty log was stopped");
        let set_up = [0, 1].map(|side| self.host.set_up[side].load(SeqCst));
        assert_eq!(set_up, [false; 2], "{what}: devices were cleaned up");
    }

    /// The context is unusable: everything that starts an operation is refused, and everything that ends one is not.
    pub fn check_refuses(&self, what: &str) {
        assert!(self.is_poisoned(), "{what}: it says that it is broken");
        let uri = c"file:/dev/null".as_ptr();
        let opaque: *mut c_void = ptr::from_ref(&*self.host).cast_mut().cast();
        let refused = |name: &str, code: c_int, err: *mut CError| {
            // SAFETY: the error is the caller's.
            let text = unsafe { CStr::from_ptr(error_get_pretty(err)) }.to_string_lossy().into_owned();
            assert!(text.contains("internal error"), "{what}: {name} says: {text}");
            assert_eq!(code, -libc::EIO, "{what}: {name}");
            // SAFETY: as above.
            unsafe { error_free(err) };
        };
        // SAFETY: the context is alive, as is all that is given.
        unsafe {
            let mut err = [ptr::null_mut(); 6];
            let [a, b, c, d, e, f] = &mut err;
            let codes = [
                savevm_snapshot_save(self.vm, uri, ptr::null(), a),
                savevm_snapshot_load(self.vm, uri, ptr::null(), b),
                savevm_ram_snapshot(self.ram, uri, c),
                if savevm_migrate(self.vm, uri, ptr::null(), d).is_null() { -libc::EIO } else { 0 },
                if savevm_incoming(self.vm, uri, ptr::null(), e).is_null() { -libc::EIO } else { 0 },
            ];
            let before = savevm_set_current(self.vm);
            assert!(qemu_savevm_state_blocked(f), "{what}");
            let names = ["snapshot", "load", "running snapshot", "migrate", "incoming", "blocked"];
            for ((name, code), err) in names.iter().zip(codes.into_iter().chain([-libc::EIO])).zip(err) {
                refused(name, code, err);
            }
            assert_eq!(register_savevm_live(c"late".as_ptr(), 0, 1, &raw const NOTHING, opaque), -libc::EIO, "{what}");
            let f = savevm_file_to_buffer();
            assert_eq!(savevm_snapshot_save_file(self.vm, f), -libc::EIO, "{what}");
            assert!(qemu_save_device_state(f) < 0, "{what}");
            qemu_fclose(f);
            unregister_savevm(ptr::null_mut(), c"a".as_ptr(), opaque);
            savevm_set_current(before);
        }
        assert!(self.inner().registry.find(b"late", 0).is_none() && self.inner().registry.find(b"a", 0).is_none());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.inner().faults.clear();
        // SAFETY: nothing uses them any more.
        unsafe {
            savevm_ram_free(self.ram);
            let freed = self.inner().registry.find(b"ram", 0).is_none();
            savevm_free(self.vm);
            assert!(freed || thread::panicking(), "the RAM is still registered");
        }
        assert!(!self.memory.memory().is_empty());
    }
}

/// Runs `body`, which says whether the trap that it set was sprung, with a trap at the first passage of `place`, the second
/// and so on, until it is not sprung any more. None may take long.
pub fn everywhere(place: FaultPoint, body: impl Fn(&str, &dyn Fn(&Machine)) -> bool + Send + Copy + 'static) {
    for passes in 0..1000 {
        let (told, tell) = mpsc::channel();
        let thread = thread::spawn(move || {
            let sprung = body(&format!("{place:?} {passes}"), &|machine| machine.inner().faults.set(place, passes));
            let _ = told.send(sprung);
        });
        match tell.recv_timeout(Duration::from_secs(120)) {
            Ok(true) => {}
            Ok(false) => return assert!(passes > 0, "{place:?} is never passed"),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{place:?} {passes}: it hangs"),
            Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
        }
    }
    panic!("{place:?} is passed again and again");
}

/// Returns a path that no other test uses.
pub fn path(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, SeqCst);
    let path = std::env::temp_dir().join(format!("savevm-panics-{}-{name}-{count}", std::process::id()));
    path.to_string_lossy().into_owned()
}

pub fn uri(kind: &str, path: &str) -> CString {
    CString::new(format!("{kind}:{path}")).unwrap()
}
