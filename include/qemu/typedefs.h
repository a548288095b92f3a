/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names that every other header of libsavevm is written with.
 *
 * All structures here are opaque: a program only ever holds pointers to them,
 * and which function created one decides which function releases it.
 *
 * The guard is the one of QEMU 7.2's include/qemu/typedefs.h. Where both trees
 * are on the include path the first one wins and the second is silent, so no
 * typedef is ever seen twice (C99 forbids that, even when both agree).
 */
#ifndef QEMU_TYPEDEFS_H
#define QEMU_TYPEDEFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A failure in words and parts; released with error_free(). */
typedef struct Error Error;

/* Collects the JSON description of what was saved; only ever passed on. */
typedef struct JSONWriter JSONWriter;

/* The receiving and the sending end of one migration. */
typedef struct MigrationIncomingState MigrationIncomingState;
typedef struct MigrationState MigrationState;

/* A migration stream, open for reading or for writing; see qemu-file.h. */
typedef struct QEMUFile QEMUFile;

/*
 * A timer of the hypervisor. libsavevm never looks inside: the expiry time is
 * read and armed through the host. VMSTATE_TIMER() needs the complete type at
 * the place where it is used, VMSTATE_TIMER_PTR() does not.
 */
typedef struct QEMUTimer QEMUTimer;

/* What a device consists of, field by field; see migration/vmstate.h. */
typedef struct VMStateDescription VMStateDescription;

/*
 * Function types, not pointer types: a member of this type is declared with a
 * star (`SaveStateHandler *save_state;`), and a prototype without one.
 *
 * Both run with the big lock held. `f` belongs to the caller, `opaque` is what
 * was registered.
 */

/* Writes the whole state of a device; failures go to qemu_file_set_error(). */
typedef void SaveStateHandler(QEMUFile *f, void *opaque);

/*
 * Reads what the save handler of version `version_id` wrote. Returns 0, or a
 * negative errno value, upon which the load stops.
 */
typedef int LoadStateHandler(QEMUFile *f, void *opaque, int version_id);

#ifdef __cplusplus
}
#endif

#endif /* QEMU_TYPEDEFS_H */
