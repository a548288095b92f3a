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
#include "version.h"

/* savevm.h declares error_get_pretty() and error_free() again, as QEMU does. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wredundant-decls"
#include "savevm.h"
#include "savevm/host-driver.h"
#pragma GCC diagnostic pop

/* From 10.0 on: adds what only these versions do with a channel, and as host. */
struct SaveVMChannelOps;
void glue_newer_channel_ops(struct SaveVMChannelOps *ops);
void glue_newer_host_ops(SaveVMHostOps *ops);

/*
 * The result of a function of QIOChannel, as SaveVMChannelOps has it. By this
 * reference the linker takes program-file.c from its archive, for every program
 * that has a QEMUFile.
 */
ssize_t glue_result(ssize_t ret);

/*
 * Sets the layout of QEMU's tables, if it is not that of QEMU 7.2, and returns
 * it.
 */
void glue_set_layout(void);
const struct SaveVMAbi *glue_layout(void);

/*
 * Sets the members of `ops` that every program of QEMU can implement, also its
 * unit tests: errors, reports, traces and trees. A constructor sets them for
 * the default context before main().
 */
void glue_program_ops(SaveVMHostOps *ops);

/*
 * Parts of postcopy that differ between versions: starting the thread that loads
 * the main stream, and starting the guest.
 */
int glue_start_listening(MigrationIncomingState *mis, Error **errp);
void glue_start_guest(MigrationIncomingState *mis);

/* Implements the commands of an incoming stream. */
extern const SaveVMIncomingOps glue_incoming_ops;

/* The file of the VM state in an image. */
QEMUFile *glue_vmstate_file(BlockDriverState *bs, bool writable);

#endif /* MIGRATION_LIBSAVEVM_GLUE_H */
