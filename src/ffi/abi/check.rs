// SPDX-License-Identifier: LGPL-2.1-or-later
//! Makes a layout from the description of a program. A wrong description is refused with the name of the member.

use super::layout::{Abi, Reader, Slot, Struct};
use super::members::{CONSTANTS, KINDS, Known, MEMBERS, STRUCTS, width};
use super::tables;
use crate::error::{Error, Result};
use crate::ffi::types::abi::SaveVMAbiConstantId::{self as Flag, *};
use crate::ffi::types::abi::SaveVMAbiKind::{self as Kind, *};
use crate::ffi::types::abi::SaveVMAbiMemberId::{self as Id, *};
use crate::ffi::types::abi::{SAVEVM_SEMANTICS_OF_VERSION, SaveVMAbiConstant, SaveVMAbiDescription, SaveVMAbiMember};
use crate::savevm::profile::Profile;
use std::mem::MaybeUninit;

/// Largest struct of a layout in bytes.
const STRUCT_MAX: usize = 4096;

/// Members that every layout has.
const REQUIRED: [Id; 17] = [
    SAVEVM_ABI_SaveVMHandlers_save_state,
    SAVEVM_ABI_SaveVMHandlers_load_state,
    SAVEVM_ABI_SaveVMHandlers_save_setup,
    SAVEVM_ABI_SaveVMHandlers_is_active,
    SAVEVM_ABI_VMStateDescription_name,
    SAVEVM_ABI_VMStateDescription_version_id,
    SAVEVM_ABI_VMStateDescription_minimum_version_id,
    SAVEVM_ABI_VMStateDescription_fields,
    SAVEVM_ABI_VMStateDescription_subsections,
    SAVEVM_ABI_VMStateField_name,
    SAVEVM_ABI_VMStateField_offset,
    SAVEVM_ABI_VMStateField_size,
    SAVEVM_ABI_VMStateField_info,
    SAVEVM_ABI_VMStateField_flags,
    SAVEVM_ABI_VMStateField_vmsd,
    SAVEVM_ABI_VMStateField_version_id,
    SAVEVM_ABI_VMStateInfo_name,
];

/// Members that a layout has if it has the flag.
const REQUIRED_BY_FLAGS: [(Flag, Id); 8] = [
    (SAVEVM_ABI_VMS_ARRAY, SAVEVM_ABI_VMStateField_num),
    (SAVEVM_ABI_VMS_VARRAY_INT32, SAVEVM_ABI_VMStateField_num_offset),
    (SAVEVM_ABI_VMS_VARRAY_UINT8, SAVEVM_ABI_VMStateField_num_offset),
    (SAVEVM_ABI_VMS_VARRAY_UINT16, SAVEVM_ABI_VMStateField_num_offset),
    (SAVEVM_ABI_VMS_VARRAY_UINT32, SAVEVM_ABI_VMStateField_num_offset),
    (SAVEVM_ABI_VMS_VBUFFER, SAVEVM_ABI_VMStateField_size_offset),
    (SAVEVM_ABI_VMS_MULTIPLY_ELEMENTS, SAVEVM_ABI_VMStateField_num),
    (SAVEVM_ABI_VMS_VSTRUCT, SAVEVM_ABI_VMStateField_struct_version_id),
];

/// A number that C stored in an enumeration.
fn number<E: Copy>(value: &MaybeUninit<E>) -> u32 {
    const { assert!(size_of::<E>() == 4) };
    // SAFETY: the value came from C, so its bytes are initialised.
    unsafe { value.as_ptr().cast::<u32>().read() }
}

/// Returns the array of a description that has the name `what`.
///
/// # Safety
/// `first` must be NULL or an array of `count` elements.
unsafe fn array<'a, T>(what: &str, first: *const T, count: usize, most: usize) -> Result<&'a [T]> {
    if first.is_null() {
        return Err(Error::invalid(format!("SaveVMAbiDescription.{what} is NULL")));
    }
    if count > most {
        return Err(Error::invalid(format!("{count} {what}, at most {most} are known")));
    }
    // SAFETY: the array has that many elements (contract of `array`).
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// Checks a description and makes a layout of it.
///
/// # Safety
/// `members` and `constants` of the description must be arrays of the counts that it names.
pub(in crate::ffi) unsafe fn create(from: &SaveVMAbiDescription) -> Result<Abi> {
    // SAFETY: the arrays have that many entries (contract of `create`).
    let (members, constants) = unsafe {
        (
            array("members", from.members, from.member_count, MEMBERS.len())?,
            array("constants", from.constants, from.constant_count, CONSTANTS.len())?,
        )
    };
    let semantics = match from.semantics & SAVEVM_SEMANTICS_OF_VERSION {
        0 => Profile(from.semantics),
        _ => Profile(from.semantics & !SAVEVM_SEMANTICS_OF_VERSION).with(Profile::of_qemu(from.qemu_version)),
    };
    let sizes = [from.handlers_size, from.description_size, from.field_size, from.info_size, from.pending_size];
    build(from.qemu_version, semantics, sizes, members, constants)
}

/// As `create`, for the parts of a description.
pub(super) fn build(
    version: u32,
    profile: Profile,
    sizes: [usize; STRUCTS.len()],
    members: &[SaveVMAbiMember],
    constants: &[SaveVMAbiConstant],
) -> Result<Abi> {
    for (at, (name, size)) in STRUCTS.iter().zip(sizes).enumerate() {
        let (least, most) = match at {
            at if at == Struct::Field as usize => (1, Abi::FIELD_MAX),
            at if at == Struct::Pending as usize => (0, Abi::PENDING_MAX),
            _ => (1, STRUCT_MAX),
        };
        if !(least..=most).contains(&size) {
            return Err(Error::invalid(format!("sizeof({name}) is {size}, expected {least} to {most}")));
        }
    }
    if profile.unknown() != 0 {
        return Err(Error::invalid(format!("unknown semantics 0x{:x}", profile.unknown())));
    }
    let slots = check_members(members, sizes)?;
    let constants = check_constants(constants)?;
    let mut abi = Abi {
        version,
        profile,
        reader: Reader::All,
        native_handlers: false,
        slots,
        sizes: sizes.map(|size| size as u16),
        constants,
        moved_flags: Vec::new(),
    };
    check_profile(&abi)?;
    abi.moved_flags = moved_flags(&abi);
    abi.reader = reader(&abi);
    abi.native_handlers = is_native(&abi, Struct::Handlers);
    Ok(abi)
}

fn check_members(members: &[SaveVMAbiMember], sizes: [usize; STRUCTS.len()]) -> Result<[Slot; MEMBERS.len()]> {
    let mut slots = [Slot::default(); MEMBERS.len()];
    for member in members {
        let (id, kind, offset) = (number(&member.member), number(&member.kind), member.offset);
        let Some(Known { name, of, kinds, .. }) = MEMBERS.get(id as usize) else {
            return Err(Error::invalid(format!("unknown member {id}: is the library older than its headers?")));
        };
        let known = (kind as usize).checked_sub(1).and_then(|at| KINDS.get(at));
        // On 32-bit machines `size_t` may be the same type as `unsigned`.
        let is_size =
            |kind: &Kind| size_of::<usize>() == 4 && *kind == SAVEVM_ABI_UINT32 && kinds.contains(&SAVEVM_ABI_SIZE);
        let Some(kind) = known.filter(|kind| kinds.contains(kind) || is_size(kind)) else {
            let found = known.map_or_else(|| kind.to_string(), |kind| format!("{kind:?}"));
            let usable = kinds.iter().map(|kind| format!("{kind:?}")).collect::<Vec<_>>().join(" or ");
            let text = format!("{name} has the type {found}, which the library cannot call or read: it needs {usable}");
            return Err(Error::invalid(text));
        };
        let (width, size) = (width(*kind), sizes[*of]);
        if offset > size || size - offset < width || !offset.is_multiple_of(width) {
            let text =
                format!("{name} at offset {offset} with {width} bytes does not fit in {} of {size}", STRUCTS[*of]);
            return Err(Error::invalid(text));
        }
        if slots[id as usize].kind != 0 {
            return Err(Error::invalid(format!("{name} is described twice")));
        }
        for (other, slot) in MEMBERS.iter().zip(&slots).filter(|(other, slot)| other.of == *of && slot.kind != 0) {
            let (start, end) =
                (usize::from(slot.offset), usize::from(slot.offset) + self::width(KINDS[slot.kind as usize - 1]));
            if offset < end && start < offset + width {
                return Err(Error::invalid(format!("{name} at offset {offset} overlaps {} at {start}", other.name)));
            }
        }
        slots[id as usize] = Slot { offset: offset as u16, kind: *kind as u8 };
    }
    let absent = REQUIRED.into_iter().filter(|id| slots[*id as usize].kind == 0);
    match &*absent.map(|id| MEMBERS[id as usize].name).collect::<Vec<_>>() {
        [] => Ok(slots),
        [name] => Err(Error::invalid(format!("{name} is missing, and no layout can do without it"))),
        names => Err(Error::invalid(format!("{} are missing, and no layout can do without them", names.join(", ")))),
    }
}

fn check_constants(constants: &[SaveVMAbiConstant]) -> Result<[Option<u32>; CONSTANTS.len()]> {
    let mut values = [None; CONSTANTS.len()];
    for constant in constants {
        let (id, value) = (number(&constant.constant) as usize, constant.value);
        let Some((_, name)) = CONSTANTS.get(id) else {
            return Err(Error::invalid(format!("unknown constant {id}: is the library older than its headers?")));
        };
        if values[id].is_some() {
            return Err(Error::invalid(format!("{name} is described twice")));
        }
        let is_flag = id >= SAVEVM_ABI_VMS_SINGLE as usize;
        if is_flag && !value.is_power_of_two() {
            return Err(Error::invalid(format!("{name} is 0x{value:x}, which is not one bit")));
        }
        let of_kind = |other: usize| (other >= SAVEVM_ABI_VMS_SINGLE as usize) == is_flag;
        if let Some(other) = (0..CONSTANTS.len()).find(|other| of_kind(*other) && values[*other] == Some(value)) {
            return Err(Error::invalid(format!("{name} and {} have the same value {value}", CONSTANTS[other].1)));
        }
        values[id] = Some(value);
    }
    for id in [SAVEVM_ABI_MIG_PRI_DEFAULT, SAVEVM_ABI_VMS_POINTER, SAVEVM_ABI_VMS_ARRAY, SAVEVM_ABI_VMS_STRUCT] {
        if values[id as usize].is_none() {
            return Err(Error::invalid(format!("{} is missing, and every version has it", CONSTANTS[id as usize].1)));
        }
    }
    Ok(values)
}

/// Refuses a layout without the members that its semantics need.
fn check_profile(abi: &Abi) -> Result<()> {
    let needs = |switch: Profile, has: bool, what: &str| {
        let name = Profile::ALL.iter().find(|(known, ..)| *known == switch).map_or("", |(.., name)| name);
        match abi.profile.has(switch) && !has {
            true => Err(Error::invalid(format!("the semantics {name} need {what}, which the layout does not have"))),
            false => Ok(()),
        }
    };
    let setup = abi.is(SAVEVM_ABI_SaveVMHandlers_save_setup, SAVEVM_ABI_INT_FILE_ERRP);
    needs(Profile::SETUP_ERRORS, setup, "SaveVMHandlers.save_setup with an Error **")?;
    let start = abi.kind(SAVEVM_ABI_SaveVMHandlers_switchover_start).is_some();
    needs(Profile::SWITCHOVER_START, start, "SaveVMHandlers.switchover_start")?;
    let end = abi.constant(SAVEVM_ABI_VMS_END).is_some();
    needs(Profile::CHECK_DESCRIPTIONS, end, "VMS_END")?;
    let lacks = |(flag, id): &&(Flag, Id)| abi.constant(*flag).is_some() && abi.kind(*id).is_none();
    if let Some((flag, id)) = REQUIRED_BY_FLAGS.iter().find(lacks) {
        let (name, flag) = (MEMBERS[*id as usize].name, CONSTANTS[*flag as usize].1);
        return Err(Error::invalid(format!("{name} is missing, and {flag} needs it")));
    }
    if abi.kind(SAVEVM_ABI_SaveVMHandlers_save_query_pending).is_some() {
        let sums = [
            SAVEVM_ABI_MigPendingData_precopy_bytes,
            SAVEVM_ABI_MigPendingData_stopcopy_bytes,
            SAVEVM_ABI_MigPendingData_postcopy_bytes,
        ];
        if let Some(missing) = sums.into_iter().find(|id| abi.kind(*id).is_none()) {
            let name = MEMBERS[missing as usize].name;
            return Err(Error::invalid(format!("{name} is missing, and SaveVMHandlers.save_query_pending needs it")));
        }
    }
    if abi.slots[SAVEVM_ABI_VMStateInfo_name as usize].offset != 0 {
        return Err(Error::invalid("VMStateInfo.name is not at offset 0, where the library's own infos have it"));
    }
    let infos = [SAVEVM_ABI_VMStateInfo_get, SAVEVM_ABI_VMStateInfo_put];
    let errors = [SAVEVM_ABI_VMStateInfo_load, SAVEVM_ABI_VMStateInfo_save];
    if [infos, errors].iter().any(|pair| pair.iter().all(|id| abi.kind(*id).is_some())) {
        return Ok(());
    }
    Err(Error::invalid("VMStateInfo has neither get and put nor load and save"))
}

/// Returns the flags whose values differ from those of QEMU 7.2, or nothing if none does.
fn moved_flags(abi: &Abi) -> Vec<(u32, u32)> {
    let flags = SAVEVM_ABI_VMS_SINGLE as usize..SAVEVM_ABI_VMS_END as usize;
    let pairs: Vec<_> =
        flags.filter_map(|id| Some((abi.constants[id]?, 1 << (id - SAVEVM_ABI_VMS_SINGLE as usize)))).collect();
    if pairs.iter().all(|(here, there)| here == there) { Vec::new() } else { pairs }
}

/// Returns whether a struct has these members at their usual places, and no other ones.
fn has_members(abi: &Abi, of: Struct, members: &[(Id, Kind)]) -> bool {
    // These members are read by their offsets in any case, when a device is registered.
    let at_registration = [SAVEVM_ABI_VMStateDescription_unmigratable, SAVEVM_ABI_VMStateDescription_early_setup];
    let (slots, size) = tables::slots(members);
    let mut all = MEMBERS.iter().filter(|known| known.of == of as usize && !at_registration.contains(&known.id));
    abi.size(of) == size && all.all(|known| abi.slots[known.id as usize] == slots[known.id as usize])
}

/// Returns whether a struct is as in QEMU 7.2.
fn is_native(abi: &Abi, of: Struct) -> bool {
    has_members(abi, of, tables::native(of as usize))
}

/// Returns how descriptions must be read, by a comparison with QEMU 7.2 and 10.2.
fn reader(abi: &Abi) -> Reader {
    let fields = is_native(abi, Struct::Field) && is_native(abi, Struct::Info) && abi.moved_flags.is_empty();
    match (is_native(abi, Struct::Description), fields) {
        (true, true) => Reader::Native,
        (false, true) if has_members(abi, Struct::Description, tables::DESCRIPTION_10_2) => Reader::Hooked,
        (false, true) => Reader::Descriptions,
        _ => Reader::All,
    }
}
