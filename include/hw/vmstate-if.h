/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The handle by which a device tells where it sits in the machine.
 *
 * QEMU 7.2 (include/hw/vmstate-if.h) makes this a QOM interface with a method
 * that returns the object's path. Without QOM it is a plain handle: whatever
 * pointer the program registers a device with is given back to the host's
 * object path operation, and what that returns becomes the prefix of the
 * section name. NULL is always allowed and stands for "no path".
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
 * Opaque. libsavevm keeps the pointer, compares it, hands it to the host, and
 * never reads through it; the device stays its owner.
 */
typedef struct VMStateIf VMStateIf;

/*
 * Turns a device pointer into the handle. There is no object model here that
 * could check the cast, so none is made.
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
