// SPDX-License-Identifier: LGPL-2.1-or-later
//! Registers devices by description.

use super::layout::{self, Layout, with_layout};
use super::state::{CDescription, CShape, CState};
use super::types::VMStateDescription;
use super::with_io;
use crate::error::{Error, Phase, Result};
use crate::ffi::abi::{self, Abi};
use crate::ffi::marshal::current;
use crate::ffi::marshal::guard::{guard, guard_error};
use crate::ffi::marshal::opaque::{Error as CError, VMStateIf};
use crate::ffi::marshal::results::answer_or_error;
use crate::ffi::types::abi::SaveVMAbiConstantId::SAVEVM_ABI_VMS_END;
use crate::file::MigFile;
use crate::savevm::Vm;
use crate::savevm::handler::{Callback, Handler};
use crate::savevm::host::Level;
use crate::savevm::profile::Profile;
use crate::savevm::registry::{Registrant, Registration};
use crate::vmstate::layout::{Digests, layout};
use crate::vmstate::model::{Description, FieldShape, State, flags};
use crate::vmstate::{Recorder, load, save};
use std::collections::HashSet;
use std::ffi::{c_int, c_void};

/// A registered description with the device's memory.
struct Registered<L> {
    /// The layout at the registration; `None` for QEMU 7.2.
    abi: Option<&'static Abi>,
    description: CDescription<L>,
    state: CState<L>,
}

// SAFETY: vmstate_register_with_alias_id() requires that the device may be used on the threads and under the locks of
// saving and loading.
unsafe impl<L> Send for Registered<L> {}
// SAFETY: the same requirement.
unsafe impl<L> Sync for Registered<L> {}

/// A description has none of the live callbacks. `has` returns that, so they are not called.
impl<L: Layout> Handler for Registered<L> {
    fn has(&self, _callback: Callback) -> bool {
        false
    }
    fn save(&self, file: &MigFile, recorder: Option<&Recorder>) -> Result<()> {
        file.pending_error().clear();
        with_io(&current::current(), file, |io| save(io, self.state, recorder))
    }

    fn load(&self, file: &MigFile, version: i32) -> Result<()> {
        file.pending_error().clear();
        with_io(&current::current(), file, |io| load(io, self.state, version))
    }

    fn is_description(&self) -> bool {
        true
    }
    fn oldest_version(&self) -> i32 {
        self.description.oldest_version()
    }
    fn priority(&self) -> i32 {
        priority_of(self.abi, self.description.priority()).unwrap_or(i32::MAX)
    }
    fn is_unmigratable(&self) -> bool {
        // SAFETY: a description of this layout.
        unsafe { layout::is_unmigratable(self.abi, self.description.address()) }
    }
    fn is_early(&self) -> bool {
        // SAFETY: as above.
        unsafe { layout::is_early(self.abi, self.description.address()) }
    }
    fn is_needed(&self) -> bool {
        self.state.needed()
    }
    fn is_optional(&self) -> bool {
        self.description.needed().is_some()
    }
    fn layout_digest(&self, known: &mut Digests) -> Option<u64> {
        Some(known.of(&self.state))
    }
    fn layout(&self, saving: bool) -> Option<Vec<u8>> {
        layout(self.state, saving)
    }
    fn unplug_pending(&self) -> bool {
        // SAFETY: `vmsd` describes `opaque` (contract of vmstate_register_with_alias_id()).
        self.description.unplug_pending().is_some_and(|pending| unsafe { pending(self.state.address().cast()) })
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
        let vm = current::current();
        let aliases = (alias_id, required_for_version);
        // SAFETY: the contract of the function.
        let result = unsafe { register(&vm, abi::of_context(&vm), obj, instance_id, (vmsd, opaque), aliases) };
        // SAFETY: `errp` is NULL or points to NULL (contract of the function).
        unsafe { answer_or_error(result, errp) }
    };
    // SAFETY: the contract of the function.
    unsafe { guard_error(errp, -libc::EIO, body) }
}

/// Adds a device. The exported functions call this, because a program may define functions of the exported names
/// itself.
///
/// # Safety
/// As vmstate_register_with_alias_id(), with a description of the layout `abi`.
pub(in crate::ffi) unsafe fn register(
    vm: &Vm,
    abi: Option<&'static Abi>,
    obj: *mut VMStateIf,
    instance_id: u32,
    (vmsd, opaque): (*const VMStateDescription, *mut c_void),
    aliases: (c_int, c_int),
) -> Result<()> {
    with_layout!(abi, |layout| {
        // SAFETY: the contract of the function.
        let state = unsafe { CState::new(layout, vmsd, opaque) };
        register_state(vm, abi, obj, instance_id, state, aliases)
    })
}

/// Returns the name of a description for an error text.
fn name_of<L: Layout>(description: &CDescription<L>) -> String {
    String::from_utf8_lossy(description.name()).into_owned()
}

fn priority_of(abi: Option<&Abi>, value: u32) -> Option<i32> {
    abi.map_or_else(|| abi::native_priority(value), |abi| abi.priority(value))
}

fn register_state<L: Layout>(
    vm: &Vm,
    abi: Option<&'static Abi>,
    obj: *mut VMStateIf,
    instance_id: u32,
    state: Option<CState<L>>,
    (alias_id, required_for_version): (c_int, c_int),
) -> Result<()> {
    let state = state.ok_or_else(|| vm.report(Error::invalid("vmstate_register: the description is NULL")))?;
    let description = state.description();
    // Descriptions of versions before 8.0 have no end marker, and can't be checked in a context of a newer version.
    let checks = abi.filter(|abi| {
        abi.constant(SAVEVM_ABI_VMS_END).is_some() && abi.profile.with(vm.profile()).has(Profile::CHECK_DESCRIPTIONS)
    });
    let checked = checks.map_or(Ok(()), |abi| check_lists(abi, description, &mut HashSet::new()));
    checked.map_err(|error| vm.report(error.in_phase(Phase::Register)))?;
    if priority_of(abi, description.priority()).is_none() {
        let name = name_of(&description);
        let text = format!("'{name}' has the priority {}, which is no MigrationPriority", description.priority());
        return Err(vm.report(Error::invalid(text).in_phase(Phase::Register)));
    }
    if alias_id != -1 && required_for_version < description.minimum_version() {
        let name = name_of(&description);
        return Err(vm.report(Error::invalid(format!(
            "the alias of '{name}' is for version {required_for_version}, but streams before version {} are refused",
            description.minimum_version()
        ))));
    }
    if description.minimum_version() > description.version() {
        let name = name_of(&description);
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
        handler: Registered { abi, description, state },
    })
}

/// Checks that all lists of fields end with VMS_END, that the layout names the flags of all fields, and that the name of a
/// subsection begins with its parent's, as QEMU 8.0 and newer check it in tests.
fn check_lists<L: Layout>(abi: &Abi, description: CDescription<L>, seen: &mut HashSet<usize>) -> Result<()> {
    if !seen.insert(description.identity()) {
        return Ok(());
    }
    let end = abi.constant(SAVEVM_ABI_VMS_END);
    if let Some(found) = description.end_flags().filter(|found| Some(*found) != end) {
        let own = name_of(&description);
        return Err(Error::invalid(format!(
            "'{own}': the list of fields ends with flags 0x{found:x} in place of VMS_END: is VMSTATE_END_OF_LIST() missing?"
        )));
    }
    let unknown = |field: &CShape<L>| field.own_flags() & !abi.known_flags() != 0;
    if let Some(field) = description.fields().find(unknown) {
        let (own, name) = (name_of(&description), String::from_utf8_lossy(field.name()).into_owned());
        let flags = field.own_flags() & !abi.known_flags();
        return Err(Error::invalid(format!(
            "'{own}': the field '{name}' has flags 0x{flags:x}, which the layout does not name"
        )));
    }
    let structs = |field: &CShape<L>| field.flags() & (flags::STRUCT | flags::VSTRUCT) != 0;
    for inner in description.fields().filter(structs).filter_map(|field| field.inner()) {
        check_lists(abi, inner, seen)?;
    }
    for subsection in description.subsections() {
        if !subsection.name().starts_with(description.name()) {
            let (own, parent) = (name_of(&subsection), name_of(&description));
            return Err(Error::invalid(format!("subsection '{own}' does not begin with the name of '{parent}'")));
        }
        check_lists(abi, subsection, seen)?;
    }
    Ok(())
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
