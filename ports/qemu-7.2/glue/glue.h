/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libsavevm under QEMU: declarations that the files of the glue share. QEMU's
 * own headers are included first, because savevm.h uses the types that they
 * define.
 */
#ifndef MIGRATION_LIBSAVEVM_GLUE_H
#define MIGRATION_LIBSAVEVM_GLUE_H

#include "qapi/error.h"
#include "hw/vmstate-if.h"

/* savevm.h declares error_get_pretty() and error_free() again, as QEMU does. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wredundant-decls"
#include "savevm.h"
#include "savevm/host-driver.h"
#pragma GCC diagnostic pop

/*
 * Sets the members of `ops` that every program of QEMU can implement, also its
 * unit tests: errors, reports, traces and trees. A constructor sets them for
 * the default context before main().
 */
void glue_program_ops(SaveVMHostOps *ops);

/* Implements the commands of an incoming stream. */
extern const SaveVMIncomingOps glue_incoming_ops;

#endif /* MIGRATION_LIBSAVEVM_GLUE_H */
