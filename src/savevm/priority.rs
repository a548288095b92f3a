// SPDX-License-Identifier: LGPL-2.1-or-later
//! Priorities of all QEMU versions in one order. Higher ones are saved first.

/// 10.1: after all others.
pub const LOW: i32 = 0;
/// No special order.
pub const DEFAULT: i32 = 1;
/// An IOMMU, before PCI devices.
pub const IOMMU: i32 = 2;
/// A PCI bus, before the IOMMU.
pub const PCI_BUS: i32 = 3;
/// virtio-mem, before the IOMMU.
pub const VIRTIO_MEM: i32 = 4;
/// 10.2: the APIC.
pub const APIC: i32 = 5;
/// The GIC's ITS, before PCI devices.
pub const GICV3_ITS: i32 = 6;
/// The GIC, before the ITS.
pub const GICV3: i32 = 7;
/// `MIG_PRI_MAX`, which QEMU accepts as a priority.
pub const MAX: i32 = 8;
