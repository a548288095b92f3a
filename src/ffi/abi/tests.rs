// SPDX-License-Identifier: LGPL-2.1-or-later
//! The known layouts, and descriptions that are refused.

use super::check::build;
use super::known::VERSIONS;
use super::members::{CONSTANTS, KINDS, MEMBERS, STRUCTS};
use super::*;
use crate::ffi::types::abi::SaveVMAbiConstantId::{self as Constant, *};
use crate::ffi::types::abi::SaveVMAbiKind::*;
use crate::ffi::types::abi::SaveVMAbiMemberId::{self as Id, *};
use crate::ffi::types::abi::{SaveVMAbiConstant, SaveVMAbiMember};
use crate::ffi::types::handler_table::SaveVMHandlers;
use crate::ffi::vmstate::types::{VMStateDescription, VMStateField, VMStateInfo};
use crate::savevm::priority;
use crate::savevm::profile::Profile;
use std::mem::{MaybeUninit, offset_of};

fn at(version: u32, id: Id) -> Option<usize> {
    let abi = known(version).unwrap();
    abi.kind(id).map(|_| abi.slots[id as usize].offset.into())
}

#[test]
fn members_kinds_and_constants_are_listed_by_their_numbers() {
    assert!(MEMBERS.iter().enumerate().all(|(number, known)| known.id as usize == number));
    assert!(KINDS.iter().enumerate().all(|(number, kind)| *kind as usize == number + 1));
    assert!(CONSTANTS.iter().enumerate().all(|(number, (id, _))| *id as usize == number));
}

#[test]
fn known_layout_of_7_2_is_the_layout_of_the_structs() {
    let abi = known(702).unwrap();
    assert_eq!(abi.reader, Reader::Native);
    assert_eq!(abi.profile, Profile::NONE);
    assert_eq!(abi.size(Struct::Handlers), size_of::<SaveVMHandlers>());
    assert_eq!(abi.size(Struct::Description), size_of::<VMStateDescription>());
    assert_eq!(abi.size(Struct::Field), size_of::<VMStateField>());
    assert_eq!(abi.size(Struct::Info), size_of::<VMStateInfo>());
    macro_rules! same {
        ($($id:ident $of:ident $member:ident;)*) => {$(
            assert_eq!(at(702, $id), Some(offset_of!($of, $member)), stringify!($id));
        )*};
    }
    same! {
        SAVEVM_ABI_SaveVMHandlers_save_live_pending SaveVMHandlers save_live_pending;
        SAVEVM_ABI_SaveVMHandlers_resume_prepare SaveVMHandlers resume_prepare;
        SAVEVM_ABI_VMStateDescription_priority VMStateDescription priority;
        SAVEVM_ABI_VMStateDescription_subsections VMStateDescription subsections;
        SAVEVM_ABI_VMStateField_num_offset VMStateField num_offset;
        SAVEVM_ABI_VMStateField_flags VMStateField flags;
        SAVEVM_ABI_VMStateField_field_exists VMStateField field_exists;
        SAVEVM_ABI_VMStateInfo_put VMStateInfo put;
    }
}

#[cfg(target_pointer_width = "64")]
#[test]
fn known_layouts_have_the_sizes_and_offsets_of_the_versions() {
    let sizes = |version| {
        let abi = known(version).unwrap();
        (abi.size(Struct::Handlers), abi.size(Struct::Description), abi.reader)
    };
    assert_eq!(sizes(502), (112, 104, Reader::Descriptions));
    assert_eq!(sizes(800), (120, 88, Reader::Native));
    assert_eq!(sizes(801), (128, 88, Reader::Native));
    assert_eq!(sizes(802), (136, 88, Reader::Native));
    assert_eq!(sizes(901), (136, 88, Reader::Native));
    assert_eq!(sizes(1000), (160, 88, Reader::Native));
    assert_eq!(sizes(1002), (160, 112, Reader::Hooked));
    assert_eq!(at(1000, SAVEVM_ABI_SaveVMHandlers_switchover_start), Some(19 * 8));
    assert_eq!(at(1000, SAVEVM_ABI_SaveVMHandlers_load_state_buffer), Some(14 * 8));
    assert_eq!(at(1002, SAVEVM_ABI_SaveVMHandlers_save_postcopy_prepare), Some(10 * 8));
    assert_eq!(at(1000, SAVEVM_ABI_VMStateDescription_early_setup), Some(9));
    assert_eq!(at(1000, SAVEVM_ABI_VMStateDescription_version_id), Some(12));
    assert_eq!(at(702, SAVEVM_ABI_SaveVMHandlers_save_prepare), None);
    assert!(VERSIONS.iter().all(|version| known(*version).unwrap().version == *version));
    assert!(known(402).is_none() && known(1100).is_none());
}

#[test]
fn priorities_of_all_versions_are_in_one_order() {
    let of = |version, value| known(version).unwrap().priority(value);
    assert_eq!(of(502, 3), Some(priority::GICV3_ITS));
    assert_eq!((of(702, 3), of(702, 6), of(702, 7)), (Some(priority::VIRTIO_MEM), Some(priority::MAX), None));
    assert_eq!((of(1001, 0), of(1001, 2), of(1001, 1)), (Some(priority::DEFAULT), Some(priority::DEFAULT), Some(0)));
    assert_eq!((of(1002, 6), of(1002, 7)), (Some(priority::APIC), Some(priority::GICV3_ITS)));
    assert!((0..8).all(|value| native_priority(value) == of(702, value)));
}

/// A layout that a test changes before it is built.
pub(super) struct Draft {
    profile: Profile,
    pub(super) sizes: [usize; STRUCTS.len()],
    pub(super) members: Vec<SaveVMAbiMember>,
    constants: Vec<SaveVMAbiConstant>,
}

impl Draft {
    pub(super) fn of(version: u32) -> Self {
        let abi = known(version).unwrap();
        let members = MEMBERS.iter().filter_map(|known| {
            let kind = MaybeUninit::new(abi.kind(known.id)?);
            Some(SaveVMAbiMember { member: MaybeUninit::new(known.id), kind, offset: at(version, known.id)? })
        });
        let constants = CONSTANTS.iter().filter_map(|(id, _)| {
            Some(SaveVMAbiConstant { constant: MaybeUninit::new(*id), value: abi.constant(*id)? })
        });
        let sizes = abi.sizes.map(usize::from);
        Self { profile: abi.profile, sizes, members: members.collect(), constants: constants.collect() }
    }

    pub(super) fn member(&mut self, id: Id) -> &mut SaveVMAbiMember {
        // SAFETY: the drafts of the tests have initialised members.
        self.members.iter_mut().find(|member| unsafe { member.member.assume_init() } == id).unwrap()
    }

    pub(super) fn constant(&mut self, id: Constant) -> &mut SaveVMAbiConstant {
        // SAFETY: the drafts of the tests have initialised constants.
        self.constants.iter_mut().find(|constant| unsafe { constant.constant.assume_init() } == id).unwrap()
    }

    pub(super) fn without(&mut self, id: Id) {
        // SAFETY: the drafts of the tests have initialised members.
        self.members.retain(|member| unsafe { member.member.assume_init() } != id);
    }

    pub(super) fn build(&self) -> crate::error::Result<Abi> {
        build(1000, self.profile, self.sizes, &self.members, &self.constants)
    }
}

fn refused(change: impl FnOnce(&mut Draft), expected: &str) {
    let mut draft = Draft::of(1000);
    change(&mut draft);
    let error = draft.build().expect_err(expected);
    assert!(error.message().contains(expected), "{error}");
}

#[test]
fn description_of_a_known_layout_gives_that_layout() {
    for version in VERSIONS {
        let abi = known(version).unwrap();
        assert_eq!(Abi { version, ..Draft::of(version).build().unwrap() }, *abi);
    }
}

#[test]
fn wrong_descriptions_are_refused_with_the_name_of_the_member() {
    refused(
        |draft| draft.member(SAVEVM_ABI_SaveVMHandlers_is_active).offset = 160,
        "SaveVMHandlers.is_active at offset 160",
    );
    refused(|draft| draft.member(SAVEVM_ABI_SaveVMHandlers_is_active).offset = 0, "overlaps SaveVMHandlers.save_state");
    refused(|draft| draft.member(SAVEVM_ABI_VMStateField_flags).offset = 66, "VMStateField.flags at offset 66");
    refused(
        |draft| draft.member(SAVEVM_ABI_SaveVMHandlers_load_state).kind = MaybeUninit::new(SAVEVM_ABI_VOID),
        "SaveVMHandlers.load_state has the type",
    );
    refused(
        |draft| draft.member(SAVEVM_ABI_SaveVMHandlers_load_state).kind = MaybeUninit::new(SAVEVM_ABI_INT_FILE),
        "the type SAVEVM_ABI_INT_FILE, which the library cannot call or read: it needs SAVEVM_ABI_INT_FILE_VERSION",
    );
    refused(|draft| draft.without(SAVEVM_ABI_VMStateField_size), "VMStateField.size is missing");
    refused(
        |draft| {
            draft.without(SAVEVM_ABI_SaveVMHandlers_load_state);
            draft.without(SAVEVM_ABI_VMStateField_size);
        },
        "SaveVMHandlers.load_state, VMStateField.size are missing",
    );
    refused(|draft| draft.without(SAVEVM_ABI_VMStateInfo_get), "VMStateInfo has neither");
    refused(
        |draft| {
            let twice = *draft.member(SAVEVM_ABI_VMStateInfo_get);
            draft.members.push(twice);
        },
        "VMStateInfo.get is described twice",
    );
    refused(|draft| draft.sizes[0] = 1 << 20, "sizeof(SaveVMHandlers) is 1048576");
    refused(|draft| draft.constant(SAVEVM_ABI_VMS_ARRAY).value = 3, "VMS_ARRAY is 0x3");
    refused(|draft| draft.constant(SAVEVM_ABI_VMS_ARRAY).value = 2, "VMS_ARRAY and VMS_POINTER have the same value");
    refused(|draft| draft.constants.retain(|constant| constant.value != 8), "VMS_STRUCT is missing");
    refused(
        |draft| {
            let twice = SaveVMAbiConstant { value: 1 << 20, ..*draft.constant(SAVEVM_ABI_VMS_ARRAY) };
            draft.constants.push(twice);
        },
        "VMS_ARRAY is described twice",
    );
}

#[test]
fn flags_need_their_members() {
    refused(|draft| draft.without(SAVEVM_ABI_VMStateField_num), "VMStateField.num is missing, and VMS_ARRAY needs it");
    refused(
        |draft| draft.without(SAVEVM_ABI_VMStateField_num_offset),
        "VMStateField.num_offset is missing, and VMS_VARRAY_",
    );
    refused(
        |draft| draft.without(SAVEVM_ABI_VMStateField_size_offset),
        "VMStateField.size_offset is missing, and VMS_VBUFFER",
    );
    refused(
        |draft| draft.without(SAVEVM_ABI_VMStateField_struct_version_id),
        "VMStateField.struct_version_id is missing, and VMS_VSTRUCT",
    );
}

#[test]
fn semantics_need_their_members() {
    refused(|draft| draft.without(SAVEVM_ABI_SaveVMHandlers_switchover_start), "SWITCHOVER_START need SaveVMHandlers");
    refused(
        |draft| draft.member(SAVEVM_ABI_SaveVMHandlers_save_setup).kind = MaybeUninit::new(SAVEVM_ABI_INT_FILE),
        "SETUP_ERRORS need SaveVMHandlers.save_setup",
    );
    refused(|draft| draft.constants.retain(|constant| constant.value != 1 << 16), "CHECK_DESCRIPTIONS need VMS_END");
    refused(|draft| draft.profile = Profile(1 << 50), "unknown semantics 0x4000000000000");
}

#[test]
fn moved_flags_are_read_as_those_of_7_2() {
    let mut draft = Draft::of(1002);
    draft.constant(SAVEVM_ABI_VMS_END).value = 1 << 17;
    assert_eq!(draft.build().unwrap().reader, Reader::Hooked);
    draft.constant(SAVEVM_ABI_VMS_STRUCT).value = 1 << 18;
    let abi = draft.build().unwrap();
    assert_eq!((abi.reader, abi.flags(1 << 18 | 2), abi.flags(8)), (Reader::All, 8 | 2, 0));
}
