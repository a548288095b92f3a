// SPDX-License-Identifier: LGPL-2.1-or-later
//! The hypervisor's table of functions behind the library's trait.

use crate::error::{Error, Result, printable};
use crate::ffi::callbacks::incoming_ops::CIncoming;
use crate::ffi::callbacks::postcopy_ops::CPostcopy;
use crate::ffi::exports::host::{SaveVMHostOps, SaveVMPrecopyNotice, SaveVMReportLevel};
use crate::ffi::exports::info::{SaveVMEvent, SaveVMStallEvent};
use crate::ffi::marshal::c_file::as_c;
use crate::ffi::marshal::convert::{c_stall, c_status};
use crate::ffi::marshal::handle::borrowed;
use crate::ffi::marshal::opaque::{Error as CError, QEMUTimer};
use crate::ffi::marshal::strings::c_string;
use crate::ffi::marshal::{strings, structs};
use crate::file::MigFile;
use crate::migration::Status;
use crate::savevm::handler::SaveThread;
use crate::savevm::host::{Flags, Host, Level, NoHost, PrecopyNotice};
use crate::savevm::incoming::Incoming;
use crate::savevm::slot::{MigrationEvent, PostcopyRam, StallEvent};
use crate::sync::check_none_held;
use crate::vmstate::{HostObject, VmStateHost};
use std::ffi::{CStr, CString, c_int, c_void};
use std::fmt;
use std::sync::Arc;

/// A copied table and the hypervisor's pointer. Clones share both.
#[derive(Clone)]
struct Table {
    ops: SaveVMHostOps,
    host: *mut c_void,
}

// SAFETY: the contract of savevm_new(): the functions may be called from any thread, under the locks that they name.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// The hypervisor.
pub(crate) struct CHost {
    table: Table,
    incoming: Option<Arc<CIncoming>>,
    postcopy: Option<Arc<CPostcopy>>,
}

/// Calls a member with the host's pointer and what follows, or is the value behind `else` where it is NULL.
macro_rules! call {
    ($self:ident.$member:ident($($argument:expr),*) else $missing:expr) => {
        match $self.table.ops.$member {
            Some(function) => {
                check_none_held(stringify!($member));
                // SAFETY: the contract of savevm_new().
                unsafe { function($self.table.host, $($argument),*) }
            }
            None => $missing,
        }
    };
}

impl CHost {
    /// # Safety
    /// The contract of savevm_new().
    pub(in crate::ffi) unsafe fn new(ops: *const SaveVMHostOps, host: *mut c_void) -> Result<Arc<Self>> {
        // SAFETY: as the caller promised; all members are sizes, pointers and nullable functions, zero is their default.
        let ops = unsafe { structs::sized_struct(ops)?.unwrap_or_else(|| std::mem::zeroed()) };
        // SAFETY: as the caller promised.
        let (incoming, postcopy) =
            unsafe { (CIncoming::new(ops.incoming, host)?, CPostcopy::new(ops.postcopy, host)?) };
        let (incoming, postcopy) = (incoming.map(Arc::new), postcopy.map(Arc::new));
        Ok(Arc::new(Self { table: Table { ops, host }, incoming, postcopy }))
    }

    /// The answers to a stream's commands, where the host has a driver of its own.
    pub(in crate::ffi) fn incoming(&self) -> Option<Arc<dyn Incoming>> {
        self.incoming.clone().map(|incoming| incoming as Arc<dyn Incoming>)
    }

    /// The host's RAM in postcopy, where it takes part.
    pub(in crate::ffi) fn postcopy(&self) -> Option<Arc<dyn PostcopyRam>> {
        self.postcopy.clone().map(|postcopy| postcopy as Arc<dyn PostcopyRam>)
    }

    fn event(event: &str) -> CString {
        c_string(event)
    }
}

impl Host for CHost {
    fn lock(&self) {
        call!(self.lock() else ());
    }

    fn unlock(&self) {
        call!(self.unlock() else ());
    }

    fn locked(&self) -> bool {
        call!(self.locked() else false)
    }

    fn vm_stop(&self) -> i32 {
        call!(self.vm_stop() else 0)
    }

    fn vm_start(&self) -> i32 {
        call!(self.vm_start() else 0)
    }

    fn vm_running(&self) -> bool {
        call!(self.vm_running() else false)
    }

    fn knows_run_state(&self) -> bool {
        self.table.ops.vm_running.is_some()
    }

    fn reset(&self) {
        call!(self.reset() else ());
    }

    fn knows_reset(&self) -> bool {
        self.table.ops.reset.is_some()
    }

    fn cpu_synchronize_states(&self) {
        call!(self.cpu_synchronize_states() else ());
    }

    fn cpu_synchronize_pre_load(&self) {
        call!(self.cpu_synchronize_pre_load() else ());
    }

    fn cpu_synchronize_post_load(&self) {
        call!(self.cpu_synchronize_post_load() else ());
    }

    fn machine_name(&self) -> Vec<u8> {
        let name = call!(self.machine_name() else std::ptr::null());
        // SAFETY: the contract of the member: NULL or a terminated string.
        unsafe { strings::string(name) }.unwrap_or_else(|| NoHost.machine_name())
    }

    fn uuid(&self) -> Option<[u8; 16]> {
        let mut uuid = [0; 16];
        call!(self.uuid(uuid.as_mut_ptr()) else false).then_some(uuid)
    }

    fn target_page_bits(&self) -> u32 {
        call!(self.target_page_bits() else NoHost.target_page_bits()).min(62)
    }

    fn target_page_bits_min(&self) -> u32 {
        call!(self.target_page_bits_min() else self.target_page_bits())
    }

    fn capabilities(&self) -> Vec<Vec<u8>> {
        let mut next = call!(self.capabilities() else std::ptr::null());
        let mut names = Vec::new();
        // SAFETY: the contract of the member: NULL, or an array of strings that ends with NULL.
        while let Some(name) = unsafe { next.as_ref().and_then(|name| strings::string(*name)) } {
            names.push(name);
            next = next.wrapping_add(1);
        }
        names
    }

    fn object_path(&self, object: usize) -> Option<Vec<u8>> {
        let path = call!(self.object_path(object as *mut _) else std::ptr::null_mut());
        // SAFETY: the contract of the member: NULL or a string from malloc().
        unsafe { strings::take_malloced(path) }
    }

    fn disks_inactivate(&self) -> i32 {
        call!(self.disks_inactivate() else 0)
    }

    fn disks_activate(&self) -> i32 {
        call!(self.disks_activate() else 0)
    }

    fn throttle(&self, percent: u32) -> bool {
        call!(self.throttle(percent.min(100) as c_int) else return false);
        true
    }

    fn precopy_notify(&self, notice: PrecopyNotice) -> i32 {
        let notice = match notice {
            PrecopyNotice::Setup => SaveVMPrecopyNotice::SAVEVM_PRECOPY_SETUP,
            PrecopyNotice::Complete => SaveVMPrecopyNotice::SAVEVM_PRECOPY_COMPLETE,
            PrecopyNotice::Cleanup => SaveVMPrecopyNotice::SAVEVM_PRECOPY_CLEANUP,
        };
        call!(self.precopy_notify(notice) else 0)
    }

    fn flags(&self) -> Flags {
        Flags(call!(self.stream_flags() else 0))
    }

    fn ram_page_sizes(&self) -> u64 {
        call!(self.ram_page_sizes() else 1 << self.target_page_bits())
    }

    fn knows_ram(&self) -> bool {
        self.table.ops.ram_fits.is_some()
    }

    fn ram_fits(&self, block: &str, length: u64) -> Option<bool> {
        self.table.ops.ram_fits?;
        let block = c_string(block);
        Some(call!(self.ram_fits(block.as_ptr(), length) else true))
    }

    fn report(&self, level: Level, text: &str) {
        let c_level = match level {
            Level::Error => SaveVMReportLevel::SAVEVM_REPORT_ERROR,
            Level::Warning => SaveVMReportLevel::SAVEVM_REPORT_WARNING,
        };
        let c_text = c_string(text);
        call!(self.report(c_level, c_text.as_ptr()) else NoHost.report(level, text));
    }

    fn migration_event(&self, event: &MigrationEvent) {
        let Some(function) = self.table.ops.migration_event else { return };
        let status = Status::ALL.into_iter().find(|status| *status as i32 == event.number).unwrap_or_default();
        let (status, status_name) = c_status(status);
        let error = event.error.as_ref().and_then(|error| CString::new(error.to_string()).ok());
        let event = SaveVMEvent {
            size: size_of::<SaveVMEvent>(),
            incoming: event.incoming,
            status,
            status_name,
            migration: borrowed(event.migration, event.incoming),
            error: error.as_ref().map_or(std::ptr::null(), |error| error.as_ptr()),
        };
        check_none_held("migration_event");
        // SAFETY: the contract of savevm_new().
        unsafe { function(self.table.host, &raw const event) }
    }

    fn migration_stalled(&self, event: &StallEvent) {
        let text = c_string(&event.text);
        let event = SaveVMStallEvent {
            size: size_of::<SaveVMStallEvent>(),
            incoming: event.incoming,
            reason: c_stall(event.reason),
            excess: event.excess,
            migration: borrowed(event.migration, event.incoming),
            text: text.as_ptr(),
        };
        call!(self.migration_stalled(&raw const event) else ());
    }

    fn restore_ended(&self, error: Option<&Error>) {
        let text = error.map(|error| c_string(&error.to_string()));
        call!(self.restore_ended(text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr())) else ());
    }

    fn rate_exceeded(&self, file: &MigFile) -> bool {
        call!(self.rate_exceeded(as_c(file)) else file.rate_limit_reached())
    }

    fn has_save_threads(&self) -> bool {
        self.table.ops.device_thread_start.is_some() && call!(self.device_threads() else false)
    }

    fn start_save_thread(&self, thread: SaveThread, idstr: &[u8], instance: u32) {
        let idstr = c_string(&String::from_utf8_lossy(idstr));
        let (function, device) = (thread.function as *mut c_void, thread.opaque as *mut c_void);
        call!(self.device_thread_start(function, idstr.as_ptr(), instance, device) else ());
    }

    fn abort_save_threads(&self) {
        call!(self.device_threads_abort() else ());
    }

    fn join_save_threads(&self) -> bool {
        call!(self.device_threads_join() else true)
    }

    fn clock_ns(&self) -> Option<u64> {
        Some(call!(self.clock_ns() else return None))
    }

    fn give_error(&self, errp: usize, errno: i32, text: &CStr) -> bool {
        call!(self.error_set(errp as *mut *mut CError, errno, text.as_ptr()) else return false);
        true
    }

    fn take_error(&self, error: usize) -> Option<String> {
        self.table.ops.error_set?;
        let error = error as *mut CError;
        let text = call!(self.error_text(error) else std::ptr::null());
        // SAFETY: the contract of the member: NULL or a terminated string, which is copied before the error is freed.
        let text = unsafe { strings::string(text) }.unwrap_or_default();
        call!(self.error_free(error) else ());
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

/// What `tree_foreach` hands to `visit_node`.
struct Visit<'a>(&'a mut dyn FnMut(HostObject, HostObject) -> bool);

/// # Safety
/// `data` is the `Visit` that was given to `tree_foreach`, which has not returned.
unsafe extern "C" fn visit_node(key: *mut c_void, value: *mut c_void, data: *mut c_void) -> c_int {
    crate::ffi::marshal::guard::guard(1, || {
        // SAFETY: as the caller promised; visits do not overlap.
        let visit = unsafe { &mut *data.cast::<Visit<'_>>() };
        c_int::from((visit.0)(HostObject::new(key), HostObject::new(value)))
    })
}

impl VmStateHost for CHost {
    fn keeps_descriptors(&self) -> bool {
        call!(self.keeps_descriptors() else false)
    }

    fn timer_expire_ns(&self, timer: HostObject) -> Option<i64> {
        Some(call!(self.timer_expire_ns(timer.address().cast::<QEMUTimer>()) else return None))
    }

    fn timer_set_ns(&self, timer: HostObject, expire: i64) -> Option<()> {
        call!(self.timer_set_ns(timer.address().cast::<QEMUTimer>(), expire) else return None);
        Some(())
    }

    fn timer_clear(&self, timer: HostObject) -> Option<()> {
        call!(self.timer_clear(timer.address().cast::<QEMUTimer>()) else return None);
        Some(())
    }

    fn tree_count(&self, tree: HostObject) -> Option<u32> {
        Some(call!(self.tree_count(tree.address()) else return None))
    }

    fn tree_foreach(&self, tree: HostObject, visit: &mut dyn FnMut(HostObject, HostObject) -> bool) -> Option<()> {
        let mut visit = Visit(visit);
        let data = (&raw mut visit).cast::<c_void>();
        call!(self.tree_foreach(tree.address(), Some(visit_node), data) else return None);
        Some(())
    }

    fn tree_insert(&self, tree: HostObject, key: HostObject, value: HostObject) -> Option<()> {
        call!(self.tree_insert(tree.address(), key.address(), value.address()) else return None);
        Some(())
    }

    fn traces(&self) -> bool {
        call!(self.trace_wanted(std::ptr::null()) else false) || NoHost.traces()
    }

    fn trace(&self, event: &'static str, arguments: fmt::Arguments<'_>) {
        let name = Self::event(event);
        if call!(self.trace_wanted(name.as_ptr()) else false) {
            let text = c_string(&printable(arguments.to_string()));
            call!(self.trace(name.as_ptr(), text.as_ptr()) else ());
        }
        NoHost.trace(event, arguments);
    }
}
