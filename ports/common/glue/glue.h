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

typedef struct QIOChannel QIOChannel;

/*
 * The channel of a file. From 7.1 on, a file and its return path share one
 * channel. Hooks and errors exist once per direction, because each direction
 * has one user.
 */
typedef struct GlueChannel {
    /* From 7.1 on. */
    QIOChannel *ioc;
    /* Up to 7.0: what the file was opened with, and where it reads or writes. */
    void *opaque;
    const void *ops;
    int64_t position;
    char *failure[2];
    /* Up to 8.0: the hooks of RDMA. */
    const void *hooks[2];
    /* Bytes that were written, without those that the file still queues. */
    uint64_t written;
    /* From 10.0 on: descriptors that came with bytes and were not claimed yet. */
    int *fds;
    size_t fd_count;
} GlueChannel;

/* Reads from a channel as qio_channel_read() does. */
ssize_t glue_read(GlueChannel *c, uint8_t *buf, size_t len, Error **errp);

/* SaveVMChannelOps.error of all channels. */
char *glue_channel_error(void *channel, bool write);

/* Frees what a version keeps with a channel. */
void glue_channel_clear(GlueChannel *c);

/*
 * Sets the layout of QEMU's tables, if it is not that of QEMU 7.2, and returns
 * it.
 */
void glue_set_layout(void);
const struct SaveVMAbi *glue_layout(void);

/* Accounts bytes that were written to a channel. */
void glue_account(uint64_t bytes);

/*
 * Sets the members of `ops` that every program of QEMU can implement, also its
 * unit tests: errors, reports, traces and trees. A constructor sets them for
 * the default context before main().
 */
void glue_program_ops(SaveVMHostOps *ops);

/* Implements the commands of an incoming stream. */
extern const SaveVMIncomingOps glue_incoming_ops;

/* Snapshots in images, and the file of the VM state in an image. */
bool glue_save_snapshot(const char *name, bool overwrite, const char *vmstate,
                        bool has_devices, strList *devices, Error **errp);
bool glue_load_snapshot(const char *name, const char *vmstate,
                        bool has_devices, strList *devices, Error **errp);
QEMUFile *glue_vmstate_file(BlockDriverState *bs, bool writable);

#endif /* MIGRATION_LIBSAVEVM_GLUE_H */
