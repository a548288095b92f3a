/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The handle of the object that a device belongs to.
 *
 * In QEMU 7.2 (include/hw/vmstate-if.h) this is a QOM interface with a method
 * that returns the object's path. Here it is a plain pointer. libsavevm passes
 * it to SaveVMHostOps.object_path; the returned path is the prefix of the
 * section name. NULL means "no path" and is always allowed.
 */
#ifndef VMSTATE_IF_H
#define VMSTATE_IF_H

#include "qemu/typedefs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The name of the interface, for code that looks it up by name. */
#define TYPE_VMSTATE_IF "vmstate-if"

/*
 * Opaque. libsavevm stores the pointer, compares it and passes it to the host.
 * It never dereferences it. The object is owned by the program.
 */
typedef struct VMStateIf VMStateIf;

/*
 * Converts a device pointer to the handle. Nothing checks the cast, because
 * there is no object model.
 */
#ifdef __cplusplus
#define VMSTATE_IF(obj) (reinterpret_cast<VMStateIf *>(obj))
#else
#define VMSTATE_IF(obj) ((VMStateIf *)(obj))
#endif

#ifdef __cplusplus
}
#endif

#endif /* VMSTATE_IF_H */
