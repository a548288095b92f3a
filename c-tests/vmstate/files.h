/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The few things that libsavevm and QEMU do not have in common, so that
 * everything else here is compiled once and linked with either:
 * files_savevm.c or files_qemu.c.
 */
#ifndef VMSTATE_TEST_FILES_H
#define VMSTATE_TEST_FILES_H

#include "qemu/typedefs.h"

/* Once, before and after anything else. */
void files_start(void);
void files_stop(void);

/* A file that writes to memory, and one that reads a copy of `len` bytes. */
QEMUFile *files_writer(void);
QEMUFile *files_reader(const uint8_t *bytes, size_t len);

/* A file that writes to a Unix socket, and one that reads what it writes. */
void files_socket_pair(QEMUFile **writer, QEMUFile **reader);

/* What was written so far; freed by the caller. */
uint8_t *files_written(QEMUFile *f, size_t *len);

/*
 * The JSON object that describes a saved device, as it is in the
 * description after a stream; NULL if the device cannot be saved. Freed by
 * the caller.
 */
char *files_describe(const VMStateDescription *vmsd, void *obj);

/* Sets an error with that text. */
void files_error(Error **errp, const char *text);

/*
 * Timers are the host's. This is the type of both hosts here: what libsavevm's
 * host needs, and room for what QEMU has.
 */
#ifndef QEMU_OSDEP_H
struct QEMUTimer {
    int64_t expire;
    uint64_t room[7];
};
#endif

/* Makes a timer that expires at `expire`, or is not armed if that is -1. */
void files_timer_init(QEMUTimer *timer, int64_t expire);
int64_t files_timer_expires(QEMUTimer *timer);
void files_timer_drop(QEMUTimer *timer);

/*
 * A sorted tree, as VMSTATE_GTREE_V() wants it. Keys are compared by
 * `compare`; with NULL they are integers. The tree frees keys (unless they are
 * integers) and values with free().
 */
void *files_tree(int (*compare)(const void *a, const void *b));
void files_tree_insert(void *tree, void *key, void *value);
void files_tree_walk(void *tree, int (*visit)(void *key, void *value,
                                              void *data), void *data);
void files_tree_free(void *tree);

#endif
