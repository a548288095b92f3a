// SPDX-License-Identifier: LGPL-2.1-or-later
//! Registers devices by description.

use super::state::CDescription;
use super::state::CState;
use super::types::VMStateDescription;
use super::with_io;
use crate::error::{Error, Phase, Result};
use crate::ffi::marshal::current;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, VMStateIf};
use crate::ffi::marshal::results::code_or_error;
use crate::file::MigFile;
use crate::savevm::Vm;
use crate::savevm::handler::{Callback, Handler};
use crate::savevm::host::Level;
use crate::savevm::registry::{Registrant, Registration};
use crate::vmstate::layout::{Digests, layout};
use crate::vmstate::model::{Description, State};
use crate::vmstate::{Recorder, load, save};
use std::ffi::{c_int, c_void};

/// A registered description with the device's memory.
struct Described {
    description: CDescription,
    state: CState,
}

// SAFETY: vmstate_register_with_alias_id() requires that the device may be used on the threads and under the locks of
// saving and loading.
unsafe impl Send for Described {}
// SAFETY: the same requirement.
unsafe impl Sync for Described {}

impl Described {
    fn table(&self) -> &VMStateDescription {
        self.description.raw()
    }
}

/// A description has none of the live callbacks. `has` returns that, so they are not called.
impl Handler for Described {
    fn has(&self, _callback: Callback) -> bool {
        false
    }
    fn save(&self, file: &MigFile, recorder: Option<&Recorder>) -> Result<()> {
        file.pending_error().clear();
        with_io(file, |io| save(io, self.state, recorder))
    }

    fn load(&self, file: &MigFile, version: i32) -> Result<()> {
        file.pending_error().clear();
        with_io(file, |io| load(io, self.state, version))
    }

    fn is_description(&self) -> bool {
        true
    }
    fn oldest_version(&self) -> i32 {
        self.table().minimum_version_id
    }
    fn priority(&self) -> i32 {
        i32::try_from(self.table().priority).unwrap_or(i32::MAX)
    }
    fn is_unmigratable(&self) -> bool {
        self.table().unmigratable != 0
    }
    fn is_needed(&self) -> bool {
        self.state.needed()
    }
    fn is_optional(&self) -> bool {
        self.table().needed.is_some()
    }
    fn layout_digest(&self, known: &mut Digests) -> Option<u64> {
        Some(known.of(&self.state))
    }
    fn layout(&self, saving: bool) -> Option<Vec<u8>> {
        layout(self.state, saving)
    }
    fn unplug_pending(&self) -> bool {
        // SAFETY: `vmsd` describes `opaque` (contract of vmstate_register_with_alias_id()).
        self.table().dev_unplug_pending.is_some_and(|pending| unsafe { pending(self.state.address().cast()) })
    }
}

/// Registers a device by its description in this thread's context; see the header.
///
/// # Safety
/// `vmsd` is NULL or describes `opaque` and stays, as `opaque` does, until vmstate_unregister() returned; `errp` is NULL
/// or points to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmstate_register_with_alias_id(
    obj: *mut VMStateIf,
    instance_id: u32,
    vmsd: *const VMStateDescription,
    opaque: *mut c_void,
    alias_id: c_int,
    required_for_version: c_int,
    errp: *mut *mut CError,
) -> c_int {
    let body = || {
        // SAFETY: the contract of the function.
        let state = unsafe { CState::new(vmsd, opaque) };
        let result = register(&current::current(), obj, instance_id, state, (alias_id, required_for_version));
        // SAFETY: `errp` is NULL or points to NULL (contract of the function).
        unsafe { code_or_error(result, errp) }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Adds a device. The exported functions call this, because a program may define functions of the exported names
/// itself.
pub(crate) fn register(
    vm: &Vm,
    obj: *mut VMStateIf,
    instance_id: u32,
    state: Option<CState>,
    (alias_id, required_for_version): (c_int, c_int),
) -> Result<()> {
    let state = state.ok_or_else(|| vm.report(Error::invalid("vmstate_register: the description is NULL")))?;
    let description = state.description();
    if alias_id != -1 && required_for_version < description.minimum_version() {
        let name = String::from_utf8_lossy(description.name()).into_owned();
        return Err(vm.report(Error::invalid(format!(
            "the alias of '{name}' is for version {required_for_version}, but streams before version {} are refused",
            description.minimum_version()
        ))));
    }
    if description.minimum_version() > description.version() {
        let name = String::from_utf8_lossy(description.name()).into_owned();
        let (oldest, version) = (description.minimum_version(), description.version());
        let text = format!("'{name}' has version {version} and reads only versions from {oldest} on, so not its own");
        if vm.is_strict() {
            return Err(vm.report(Error::invalid(text).in_phase(Phase::Register)));
        }
        vm.host().report(Level::Warning, &text);
    }
    vm.register(Registration {
        path: (!obj.is_null()).then(|| vm.host().object_path(obj as usize)).flatten(),
        name: description.name().to_vec(),
        instance_id,
        alias_id,
        version_id: description.version(),
        is_live: false,
        registrant: Registrant { description: description.identity(), opaque: state.address() as usize },
        handler: Described { description, state },
    })
}

/// Removes the devices of that description and memory from this thread's context; see the header.
///
/// # Safety
/// The pointers are those of the registration, or anything: they are only compared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmstate_unregister(
    _obj: *mut VMStateIf,
    vmsd: *const VMStateDescription,
    opaque: *mut c_void,
) {
    guard((), || {
        current::current().unregister(Registrant { description: vmsd as usize, opaque: opaque as usize });
    });
}
