/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The few things in which libsavevm and QEMU's own objects differ, so that a
 * program is compiled once and linked with either: backend_savevm.c, or the
 * files of reference/. What the host is asked to do is printed as a line of the
 * trace by both.
 *
 * SAVEVM_QEMU_VERSION is the version of the QEMU that the program is compared
 * with, 7.2 if it is not defined.
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
    bool mapped_ram;          /* compared from 9.0 on */
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
    int precopy_notify;       /* from 9.1 on, of the notice after the setup */
    bool switchover_ack;      /* the destination approves the switchover */
    bool no_switchover_start;
    bool device_threads;      /* the host runs threads of devices */
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

/* Phases that not all versions have with the same arguments. From 9.1 on, what
 * a phase returns is a line of the trace. */
void backend_header(QEMUFile *f);
void backend_setup(QEMUFile *f);

/* Asks what is left to send, and traces the sums. */
void backend_pending(QEMUFile *f, uint64_t threshold);

/* Ends the live devices, and saves the others unless `live_only`. In postcopy,
 * `live_only` ends those that do not continue, and without it there are only
 * the others. From 9.2 on the driver inactivates the disks. */
int backend_complete(QEMUFile *f, bool live_only, bool inactivate_disks);

/* Saves the devices that are not live. 5.2 has no phase for them alone, except
 * in postcopy: otherwise it ends the live devices as well. */
int backend_complete_devices(QEMUFile *f, bool in_postcopy, bool inactivate_disks);

/* Loads a whole stream, sections up to EOF, the devices of a checkpoint. */
int backend_load(QEMUFile *f);
int backend_load_sections(QEMUFile *f);
int backend_load_devices(QEMUFile *f);
void backend_load_cleanup(void);

/* The rate limit, in bytes per window, and whether it is reached. */
void backend_rate_set(QEMUFile *f, int64_t limit);
void backend_rate_reset(QEMUFile *f);
bool backend_rate_exceeded(QEMUFile *f);

void backend_set_blocking(QEMUFile *f, bool block);

/* Bytes that were written, with those that are still queued. */
uint64_t backend_transferred(QEMUFile *f);

#if SAVEVM_QEMU_VERSION >= 1000
/* Phases of newer versions. A failure is traced; also whether its error has the
 * text `expected`, unless that is NULL. */
void backend_prepare(const char *expected);
void backend_setup_expecting(QEMUFile *f, const char *expected);
void backend_postcopy_prepare(QEMUFile *f, const char *expected);
void backend_switchover_start(QEMUFile *f);
void backend_approve_switchover(void);
void backend_load_buffer(const char *idstr, uint32_t instance_id, char *bytes, size_t len, const char *expected);
void backend_load_thread(MigrationLoadThread function, void *opaque);

/* Sets an error of a callback. */
void backend_error(Error **errp, const char *text);
#endif

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

/* Ends a fold without a line. */
void trace_drop(void);

#ifdef __cplusplus
}
#endif

#endif
