/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The few things in which libsavevm and QEMU 7.2's own objects differ, so that
 * a program is compiled once and linked with either: backend_savevm.c, or
 * reference/backend_qemu.c. What the host is asked to do is printed as a line of
 * the trace by both.
 */
#ifndef BACKEND_H
#define BACKEND_H

#include "qemu/typedefs.h"
#include "hw/vmstate-if.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The host's answers. A test may change them at any time. */
typedef struct BackendHost {
    const char *machine;
    unsigned page_bits;
    unsigned page_bits_min;
    bool x_ignore_shared;     /* the one capability that 7.2 compares */
    const uint8_t *uuid;      /* NULL: none */
    bool no_configuration;
    bool no_footers;
    bool no_vmdesc;
    bool in_postcopy;
    bool in_colo;
    bool postcopy_ram;
    uint64_t ram_page_sizes;
    int disks_inactivate;     /* what the calls of these names return */
    int enable_colo;
    int discard;
} BackendHost;

extern BackendHost backend;

/* Once, first of all. */
void backend_start(void);

/* "savevm" or "qemu". */
const char *backend_name(void);

/* A file that writes to memory, and what was written to it so far. */
QEMUFile *backend_writer(void);
const uint8_t *backend_bytes(QEMUFile *f, size_t *len);

/* A file that reads a copy of `len` bytes. */
QEMUFile *backend_reader(const void *bytes, size_t len);

/* A file over a descriptor, which it takes over; sockets are duplex. */
QEMUFile *backend_fd(int fd, bool writable);

/* An object whose path is `path`; a NULL path: it has none. */
VMStateIf *backend_object(const char *path);

/* What a load of `f` is to be given as its state. */
MigrationIncomingState *backend_incoming(QEMUFile *f);

/* How far postcopy is, 0 to 5; -1 only asks. */
int backend_postcopy_state(int state);

/* A line of the trace. */
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line of the trace with all bytes, as hex digits. */
void trace_bytes(const char *what, const void *bytes, size_t len);

/* The same for many bytes: how many, and a hash. */
void trace_digest(const char *what, const void *bytes, size_t len);

/* As trace_bytes(), of what was written to a file of backend_writer(). */
void trace_written(const char *what, QEMUFile *f);

/*
 * Between the two, lines are only counted and hashed; the second prints one line
 * with the number. With TRACE_UNFOLD in the environment all lines are shown.
 */
void trace_fold(void);
void trace_unfold(const char *what, size_t number);

#ifdef __cplusplus
}
#endif

#endif
