/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libsavevm under QEMU: what the parts of the glue share. QEMU's own headers
 * come first, so that its types stand before savevm.h needs them.
 */
#ifndef MIGRATION_LIBSAVEVM_GLUE_H
#define MIGRATION_LIBSAVEVM_GLUE_H

#include "qapi/error.h"
#include "hw/vmstate-if.h"

/* QEMU's error_get_pretty() and error_free() are what it declares once more. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wredundant-decls"
#include "savevm.h"
#include "savevm/host-driver.h"
#include "savevm/host-driver.h"
#pragma GCC diagnostic pop

/*
 * Fills in what any program of QEMU offers, its unit tests too: errors,
 * reports, traces, trees. The default context has this from the start.
 */
void glue_program_ops(SaveVMHostOps *ops);

/* The answers to the commands of an incoming stream. */
extern const SaveVMIncomingOps glue_incoming_ops;

#endif /* MIGRATION_LIBSAVEVM_GLUE_H */
