// SPDX-License-Identifier: LGPL-2.1-or-later
//! The check of devices and descriptions, for the tests of their authors. Part of the generated `savevm.h`.

use super::layout::with_layout;
use super::state::CDescription;
use super::types::VMStateDescription;
use crate::channel::memory::{Reader, Writer};
use crate::error::Error;
use crate::ffi::abi;
use crate::ffi::marshal::guard::guard;
use crate::ffi::marshal::opaque::SaveVM;
use crate::ffi::marshal::strings::c_string;
use crate::ffi::marshal::structs::sized_structs;
use crate::ffi::marshal::{current, strings, structs};
use crate::file::MigFile;
use crate::savevm::Vm;
use crate::savevm::handler::Callback;
use crate::savevm::profile::Profile;
use crate::savevm::registry::Call;
use crate::vmstate::conformance::{CheckOptions, CheckedDevice, DeviceFactory, Finding, Loaded, Severity, check, lint};
use crate::vmstate::describe;
use crate::vmstate::model::Description;
use crate::wire;
use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::Arc;

/// How serious a finding of a check is.
#[expect(non_camel_case_types, reason = "the names of the C interface")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveVMCheckSeverity {
    /// It does not work.
    SAVEVM_CHECK_ERROR = 0,
    /// It works, but may not be meant, or is not safe.
    SAVEVM_CHECK_WARNING = 1,
    /// For information.
    SAVEVM_CHECK_NOTE = 2,
}

sized_structs! {
    SaveVMCheckOps, SAVEVM_CHECK_OPS_INIT, damages;
}

/// What `savevm_check_device` needs of the program that calls it. All members run on the calling thread.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveVMCheckOps {
    /// sizeof(SaveVMCheckOps).
    pub size: usize,
    /// Creates a new device of the checked kind, before any load, and registers it. The current context of this thread is then
    /// a context of the check. Returns the argument of `destroy`, or NULL on failure. Called once for every stream.
    pub create: Option<unsafe extern "C" fn(opaque: *mut c_void) -> *mut c_void>,
    /// Unregisters the device and frees it, in the context of `create`. The device may be loaded in part. NULL: nothing is
    /// freed.
    pub destroy: Option<unsafe extern "C" fn(opaque: *mut c_void, device: *mut c_void)>,
    /// Receives one finding as text, which is valid during the call. NULL: findings are not reported.
    pub report: Option<unsafe extern "C" fn(opaque: *mut c_void, severity: SaveVMCheckSeverity, text: *const c_char)>,
    /// Number of truncated streams to load: every length if the stream is not longer, else evenly distributed lengths.
    /// 0: 4096.
    pub truncations: usize,
    /// Number of damaged streams to load. 0: 4096.
    pub damages: usize,
}

/// The table and the program's pointer.
struct Program {
    ops: SaveVMCheckOps,
    opaque: *mut c_void,
}

impl Program {
    /// Hands a finding on; whether it is an error.
    fn report(&self, finding: &Finding) -> bool {
        let severity = match finding.severity {
            Severity::Error => SaveVMCheckSeverity::SAVEVM_CHECK_ERROR,
            Severity::Warning => SaveVMCheckSeverity::SAVEVM_CHECK_WARNING,
            Severity::Note => SaveVMCheckSeverity::SAVEVM_CHECK_NOTE,
        };
        let text = c_string(&finding.text);
        if let Some(report) = self.ops.report {
            // SAFETY: the contract of the exported functions.
            unsafe { report(self.opaque, severity, text.as_ptr()) };
        }
        finding.severity == Severity::Error
    }

    fn options(&self) -> CheckOptions {
        let or_default = |count, default| if count == 0 { default } else { count };
        let CheckOptions { truncations, damages } = CheckOptions::default();
        CheckOptions {
            truncations: or_default(self.ops.truncations, truncations),
            damages: or_default(self.ops.damages, damages),
        }
    }
}

/// A registered device, in the context that it is registered with.
struct Registered<'a> {
    vm: &'a Arc<Vm>,
    call: Call<'a>,
    /// How much it wrote last.
    written: Cell<usize>,
}

impl<'a> Registered<'a> {
    fn new(vm: &'a Arc<Vm>, call: Call<'a>) -> Self {
        Self { vm, call, written: Cell::new(0) }
    }

    fn file_error(file: &MigFile) -> Option<Error> {
        file.status().first_error()
    }
}

impl CheckedDevice for Registered<'_> {
    fn save(&self) -> Result<Vec<u8>, Error> {
        let writer = Arc::new(Writer::new());
        let file = MigFile::new(Arc::<Writer>::clone(&writer), true);
        current::with(self.vm, || self.call.handler.save(&file, None))?;
        file.flush();
        self.written.set(writer.len());
        Self::file_error(&file).map_or_else(|| Ok(writer.take()), Err)
    }

    fn load(&self, bytes: &[u8], cut: bool) -> Loaded {
        let mut stream = bytes.to_vec();
        if !cut {
            stream.push(wire::SECTION_FOOTER);
            stream.extend(self.call.section_id.to_be_bytes());
        }
        let file = MigFile::new(Arc::new(Reader::new(stream)), false);
        let result = current::with(self.vm, || self.call.handler.load(&file, self.call.version_id));
        Loaded { error: result.err().or_else(|| Self::file_error(&file)), read: file.position() as usize }
    }
}

/// Makes devices, each in a context of its own.
struct Copies<'a> {
    program: &'a Program,
    original: &'a Registered<'a>,
}

impl Copies<'_> {
    /// A context with the host of the device's, in which a stream gets no more memory than it could mean.
    fn context(&self) -> Arc<Vm> {
        let Registered { vm, written, .. } = self.original;
        let mut limits = vm.limits();
        let vm = current::new(vm.host());
        limits.allocation = limits.allocation.min(written.get().saturating_mul(64).max(1 << 20));
        vm.set_limits(limits);
        vm
    }

    /// The device that `create` registered: by name and instance, else by name, else the only one.
    fn find<'v>(&self, vm: &'v Vm) -> Option<Call<'v>> {
        let (name, instance) = (&*self.original.call.idstr, self.original.call.instance_id);
        let exact = vm.registry.walk().find(|call| *call.idstr == *name && call.instance_id == instance);
        let named = || vm.registry.walk().find(|call| *call.idstr == *name);
        let only = || vm.registry.walk().next().filter(|_| vm.registry.len() == 1);
        exact.or_else(named).or_else(only)
    }
}

impl DeviceFactory for Copies<'_> {
    fn with_new(&self, body: &mut dyn FnMut(&dyn CheckedDevice)) -> bool {
        let Program { ops, opaque } = self.program;
        let Some(create) = ops.create else { return false };
        let vm = self.context();
        // SAFETY: the contract of the exported function.
        let device = current::with(&vm, || unsafe { create(*opaque) });
        if device.is_null() {
            return false;
        }
        let call = self.find(&vm);
        let found = call.is_some();
        if let Some(call) = call {
            body(&Registered::new(&vm, call));
        }
        if let Some(destroy) = ops.destroy {
            // SAFETY: as above.
            current::with(&vm, || unsafe { destroy(*opaque, device) });
        }
        found
    }
}

/// Checks a registered device: saves it, loads the state into a new device, saves that, and compares. Then loads the stream
/// cut to every length, which must fail, and with damaged bytes, which must do no harm. Each load gets a new device from
/// SaveVMCheckOps.create. The damage is the same in every run. It takes as long as some thousand loads. A device that crashes
/// ends the program, so run it under a sanitizer.
///
/// Returns:
///   the number of errors that were reported
///   -EINVAL   NULL, or the size of `ops` is too small
///   -ENOENT   there is no such device
///   -ENOTSUP  the device can't be saved whole
///   -ENODEV   SaveVMCheckOps.create made no device that could be found
///
/// Thread: any. Lock: held.
///
/// # Safety
/// `vm` is NULL or a context; `idstr` is NULL or a terminated string; `ops` is NULL or begins with its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_check_device(
    vm: *mut SaveVM,
    idstr: *const c_char,
    instance_id: c_int,
    ops: *const SaveVMCheckOps,
    opaque: *mut c_void,
) -> c_int {
    guard(-libc::EIO, || {
        // SAFETY: the contract of the function; all-zero is a valid table.
        let (vm, name, ops) = unsafe { (current::from_c(vm), strings::name(idstr), structs::sized_struct(ops)) };
        let ops = match ops {
            Ok(ops) => ops,
            Err(error) => return vm.report(error).code(),
        };
        let (Some(name), Some(ops)) = (name, ops) else { return -libc::EINVAL };
        current::with_panic_context(&vm, || {
            let Some(call) = vm.registry.find(&name, instance_id as u32) else { return -libc::ENOENT };
            check_call(&vm, call, &Program { ops, opaque })
        })
    })
}

fn check_call(vm: &Arc<Vm>, call: Call<'_>, program: &Program) -> c_int {
    let handler = &call.handler;
    let is_whole = handler.has(Callback::SaveState) && handler.has(Callback::LoadState);
    if !is_whole && !handler.is_description() {
        return -libc::ENOTSUP;
    }
    let original = Registered::new(vm, call);
    let copies = Copies { program, original: &original };
    let mut errors = 0;
    let mut report = |finding: Finding| errors += c_int::from(program.report(&finding));
    match check(&original, &copies, program.options(), &mut report) {
        Ok(()) => errors,
        Err(_) => -libc::ENODEV,
    }
}

/// Checks a description without a device: for parts that can never be saved or loaded, and for counts that come from the
/// stream without a bound. `report` gets each finding. `vmsd` has the layout of the current context of the thread
/// (savevm_set_abi(), savevm_set_current()), which is that of QEMU 7.2 unless another one was set.
///
/// Returns: the number of errors that were reported; -EINVAL if `vmsd` is NULL.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `vmsd` is NULL or a description; `report` may be called with `opaque`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_check_description(
    vmsd: *const VMStateDescription,
    report: Option<unsafe extern "C" fn(opaque: *mut c_void, severity: SaveVMCheckSeverity, text: *const c_char)>,
    opaque: *mut c_void,
) -> c_int {
    guard(-libc::EIO, || {
        let ops = SaveVMCheckOps {
            size: size_of::<SaveVMCheckOps>(),
            create: None,
            destroy: None,
            report,
            truncations: 0,
            damages: 0,
        };
        let program = Program { ops, opaque };
        let mut errors = 0;
        with_layout!(abi::of_context(&current::current()), |layout| {
            // SAFETY: the contract of the function.
            let Some(description) = (unsafe { CDescription::new(layout, vmsd) }) else { return -libc::EINVAL };
            lint(&description, &mut |finding| errors += c_int::from(program.report(&finding)));
        });
        errors
    })
}

/// Returns the description of a type of device as QEMU's -dump-vmstate prints it: one JSON object, for `savevm check --against`
/// and scripts/vmstate-static-checker.py. In a dump it is a member, under the name of the type, of an object whose member
/// "vmschkmachine" has the name of the machine as "Name". `type_name` NULL: the name of the description. `vmsd` has the layout of
/// the current context of the thread, as for savevm_check_description().
///
/// Returns: a string from malloc(); NULL if `vmsd` is NULL or there is no memory.
///
/// Thread: any. Lock: either.
///
/// # Safety
/// `vmsd` is NULL or a description; `type_name` is NULL, for the description's own name, or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn savevm_describe(vmsd: *const VMStateDescription, type_name: *const c_char) -> *mut c_char {
    guard(std::ptr::null_mut(), || {
        // SAFETY: the contract of the function.
        let name = unsafe { strings::string(type_name) };
        let counts = current::current().profile().has(Profile::DUMP_COUNTS);
        with_layout!(abi::of_context(&current::current()), |layout| {
            // SAFETY: as above.
            let description = unsafe { CDescription::new(layout, vmsd) };
            let Some(description) = description else { return std::ptr::null_mut() };
            let name = name.unwrap_or_else(|| description.name().to_vec());
            CString::new(describe(description, &name, counts))
                .map_or(std::ptr::null_mut(), |json| strings::malloced(&json))
        })
    })
}
