/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Selects the QEMU version whose structs, macros and prototypes for devices
 * the headers of this library have.
 *
 *     #define SAVEVM_QEMU_VERSION 1000
 *     #include "migration/vmstate.h"
 *
 * compiles a device file as it is in QEMU 10.0 (major * 100 + minor). Define
 * it before the first header of the library in the file, or by a compiler
 * option (-DSAVEVM_QEMU_VERSION=1000). The versions are 5.0 to 10.2.
 *
 * If it is not defined, the headers are those of QEMU 7.2.
 *
 * Functions with QEMU's names, such as vmstate_register(), are inline
 * functions if the version is selected. They pass the layout of the version to
 * the library. So device files of several versions work in one program, and
 * also in one context. A description (VMStateDescription) must be used by
 * files of its own version only.
 *
 * The layout says where the members of the structs are. The semantics of a
 * version, for example whether a round visits all devices, are set for a whole
 * context: savevm_set_abi(vm, SAVEVM_QEMU_ABI, errp). docs/qemu-versions.md
 * lists the layouts and the semantics.
 *
 * SAVEVM_PLAIN_NAMES before the headers declares the exported functions in
 * place of the inline ones. They use the layout of the context. This is for
 * programs in which another library may define these names, and for QEMU.
 */
#ifndef SAVEVM_QEMU_VERSION_H
#define SAVEVM_QEMU_VERSION_H

#ifdef SAVEVM_QEMU_VERSION
#define SAVEVM_QEMU_SELECTED_
#else
#define SAVEVM_QEMU_VERSION 702
#endif

#if SAVEVM_QEMU_VERSION < 500 || SAVEVM_QEMU_VERSION > 1002
#error "SAVEVM_QEMU_VERSION must be 500 to 1002: major * 100 + minor of QEMU 5.0 to 10.2"
#endif

#if defined(SAVEVM_QEMU_SELECTED_) && !defined(SAVEVM_PLAIN_NAMES) && !defined(QEMU_OSDEP_H)
#define SAVEVM_QEMU_INLINE_
#endif

/* The layout of the selected version, a `const SaveVMAbi *`; needs savevm/abi.h. */
#define SAVEVM_QEMU_ABI savevm_abi_of_qemu(SAVEVM_QEMU_VERSION)

#endif /* SAVEVM_QEMU_VERSION_H */
