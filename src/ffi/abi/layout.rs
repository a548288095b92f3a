// SPDX-License-Identifier: LGPL-2.1-or-later
//! A layout that was checked, and how tables are read by it.

use super::members::{self, CONSTANTS, MEMBERS};
use crate::ffi::types::abi::SaveVMAbiConstantId as Constant;
use crate::ffi::types::abi::SaveVMAbiKind as Kind;
use crate::ffi::types::abi::SaveVMAbiMemberId as Id;
use crate::savevm::Vm;
use crate::savevm::priority;
use crate::savevm::profile::Profile;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// Number of structs of a layout.
const STRUCTS: usize = members::STRUCTS.len();

/// The place of a member. `kind` is 0 if the layout does not have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    pub offset: u16,
    pub kind: u8,
}

/// How descriptions must be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ffi) enum Reader {
    /// As those of QEMU 7.2.
    Native,
    /// Descriptions as those of QEMU 10.2; fields and infos as those of QEMU 7.2.
    Hooked,
    /// Descriptions by their offsets; fields and infos as those of QEMU 7.2.
    Descriptions,
    /// All by their offsets.
    All,
}

/// A layout that was checked.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::ffi) struct Abi {
    /// The version of QEMU: major * 100 + minor.
    pub version: u32,
    /// The semantics.
    pub profile: Profile,
    /// How descriptions are read.
    pub reader: Reader,
    pub(super) native_handlers: bool,
    pub(super) slots: [Slot; MEMBERS.len()],
    pub(super) sizes: [u16; STRUCTS],
    pub(super) constants: [Option<u32>; CONSTANTS.len()],
    /// For each flag of QEMU 7.2 whose value differs: the value here, and there. Empty for all known versions.
    pub(super) moved_flags: Vec<(u32, u32)>,
}

/// The structs of a layout, by their index.
#[derive(Clone, Copy)]
pub(in crate::ffi) enum Struct {
    Handlers = 0,
    Description = 1,
    Field = 2,
    Info = 3,
    Pending = 4,
}

impl Abi {
    /// Largest field of a layout in bytes.
    pub const FIELD_MAX: usize = 512;
    /// Largest MigPendingData of a layout in bytes.
    pub const PENDING_MAX: usize = 512;

    /// Returns whether tables of handlers are as those of QEMU 7.2.
    pub fn has_native_handlers(&self) -> bool {
        self.native_handlers
    }

    /// Returns the type of a member, or `None` if the layout does not have it.
    #[inline]
    pub fn kind(&self, id: Id) -> Option<Kind> {
        let kind = self.slots[id as usize].kind;
        usize::from(kind).checked_sub(1).map(|at| members::KINDS[at])
    }

    /// Returns whether the layout has a member with that type.
    #[inline]
    pub fn is(&self, id: Id, kind: Kind) -> bool {
        self.slots[id as usize].kind == kind as u8
    }

    /// Returns the size of a struct in bytes.
    #[inline]
    pub fn size(&self, of: Struct) -> usize {
        self.sizes[of as usize].into()
    }

    /// Reads a member. Returns all zeros (0, NULL) if the layout does not have it.
    ///
    /// # Safety
    /// `table` must be a struct of this layout that has the member. All bytes and all zeros must be values of `T`, which
    /// must have the width of the member's type.
    #[inline]
    pub unsafe fn read<T: Copy>(&self, id: Id, table: NonNull<u8>) -> T {
        let slot = self.slots[id as usize];
        if slot.kind == 0 {
            // SAFETY: all zeros are a value of T (contract of `read`).
            return unsafe { MaybeUninit::zeroed().assume_init() };
        }
        // SAFETY: the offset was checked against the size of the struct, and `table` is such a struct.
        unsafe { table.as_ptr().add(slot.offset.into()).cast::<T>().read_unaligned() }
    }

    /// Reads a member that every layout has (`REQUIRED` in check.rs).
    ///
    /// # Safety
    /// As `read`, with such a member.
    #[inline(always)]
    pub unsafe fn read_required<T: Copy>(&self, id: Id, table: NonNull<u8>) -> T {
        // SAFETY: the offset was checked against the size of the struct, and `table` is such a struct.
        unsafe { table.as_ptr().add(self.slots[id as usize].offset.into()).cast::<T>().read_unaligned() }
    }

    /// Returns the value of a constant, or `None` if the version does not have it.
    pub fn constant(&self, id: Constant) -> Option<u32> {
        self.constants[id as usize]
    }

    /// Returns a priority of this version in the order of all versions, or `None` if it is no priority.
    pub fn priority(&self, value: u32) -> Option<i32> {
        use Constant::*;
        const ORDER: [(Constant, i32); 10] = [
            (SAVEVM_ABI_MIG_PRI_UNINITIALIZED, priority::DEFAULT),
            (SAVEVM_ABI_MIG_PRI_LOW, priority::LOW),
            (SAVEVM_ABI_MIG_PRI_DEFAULT, priority::DEFAULT),
            (SAVEVM_ABI_MIG_PRI_IOMMU, priority::IOMMU),
            (SAVEVM_ABI_MIG_PRI_PCI_BUS, priority::PCI_BUS),
            (SAVEVM_ABI_MIG_PRI_VIRTIO_MEM, priority::VIRTIO_MEM),
            (SAVEVM_ABI_MIG_PRI_APIC, priority::APIC),
            (SAVEVM_ABI_MIG_PRI_GICV3_ITS, priority::GICV3_ITS),
            (SAVEVM_ABI_MIG_PRI_GICV3, priority::GICV3),
            (SAVEVM_ABI_MIG_PRI_MAX, priority::MAX),
        ];
        ORDER.into_iter().find(|(id, _)| self.constant(*id) == Some(value)).map(|(_, order)| order)
    }

    /// Returns all flags that this version has.
    pub fn known_flags(&self) -> u32 {
        self.constants[Constant::SAVEVM_ABI_VMS_SINGLE as usize..].iter().flatten().fold(0, |all, flag| all | flag)
    }

    /// Returns flags of this version as those of QEMU 7.2.
    #[inline]
    pub fn flags(&self, flags: u32) -> u32 {
        if self.moved_flags.is_empty() {
            return flags;
        }
        self.moved_flags.iter().filter(|(here, _)| flags & here != 0).fold(0, |all, (_, there)| all | there)
    }
}

/// Returns a priority of QEMU 7.2 in the order of all versions, or `None` if it is no priority.
pub(in crate::ffi) fn native_priority(value: u32) -> Option<i32> {
    const ORDER: [i32; 7] = [
        priority::DEFAULT,
        priority::IOMMU,
        priority::PCI_BUS,
        priority::VIRTIO_MEM,
        priority::GICV3_ITS,
        priority::GICV3,
        priority::MAX,
    ];
    ORDER.get(value as usize).copied()
}

/// Returns the layout of a context, or `None` for that of QEMU 7.2.
#[inline]
pub(in crate::ffi) fn of_context(vm: &Vm) -> Option<&'static Abi> {
    // SAFETY: only savevm_set_abi() sets the layout, to the address of an `Abi`, and an `Abi` is never freed.
    unsafe { (vm.layout() as *const Abi).as_ref() }
}
