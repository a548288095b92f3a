/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Types that the other headers of libsavevm use.
 *
 * All structures here are opaque: a program has pointers to them only.
 *
 * The guard is that of QEMU 7.2's include/qemu/typedefs.h. If both are on the
 * include path, the compiler reads the first one only, so no typedef is
 * repeated, which C99 forbids.
 */
#ifndef QEMU_TYPEDEFS_H
#define QEMU_TYPEDEFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "savevm/qemu-version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* An error; freed with error_free(). */
typedef struct Error Error;

/* Collects the JSON description of the stream; passed to functions only. */
typedef struct JSONWriter JSONWriter;

/* The destination and the source of a migration. */
typedef struct MigrationIncomingState MigrationIncomingState;
typedef struct MigrationState MigrationState;

/* A migration stream, open for reading or for writing; see qemu-file.h. */
typedef struct QEMUFile QEMUFile;

/*
 * A timer of the hypervisor. libsavevm reads and sets its expiry time through
 * SaveVMHostOps. VMSTATE_TIMER() needs the complete type, VMSTATE_TIMER_PTR()
 * does not.
 */
typedef struct QEMUTimer QEMUTimer;

#if SAVEVM_QEMU_VERSION < 600
/* What JSONWriter is called up to QEMU 5.2. */
typedef struct QJSON QJSON;
#endif

/* The description of a device's fields; see migration/vmstate.h. */
typedef struct VMStateDescription VMStateDescription;

/*
 * Function types, not pointer types: a member of this type is declared with a
 * star (`SaveStateHandler *save_state;`), and a prototype without one.
 *
 * `f` is owned by the caller; `opaque` is the registered pointer. Lock: held.
 */

/* Writes the whole state of a device; errors: qemu_file_set_error(). */
typedef void SaveStateHandler(QEMUFile *f, void *opaque);

/*
 * Reads what the save handler of version `version_id` wrote. Returns 0, or a
 * negative errno value, which ends the load.
 */
typedef int LoadStateHandler(QEMUFile *f, void *opaque, int version_id);

/*
 * Function pointers of QEMU 10.0 and newer: a device's thread at the end of
 * precopy (migration/register.h), and during a load
 * (savevm_start_load_thread()). They return false with an error.
 */
#if SAVEVM_QEMU_VERSION >= 1001
typedef struct SaveCompletePrecopyThreadData SaveCompletePrecopyThreadData;
typedef bool (*SaveCompletePrecopyThreadHandler)(
    SaveCompletePrecopyThreadData *d, Error **errp);
#elif SAVEVM_QEMU_VERSION >= 1000
typedef struct SaveLiveCompletePrecopyThreadData
    SaveLiveCompletePrecopyThreadData;
typedef bool (*SaveLiveCompletePrecopyThreadHandler)(
    SaveLiveCompletePrecopyThreadData *d, Error **errp);
#endif
typedef bool (*MigrationLoadThread)(void *opaque, bool *should_quit,
                                    Error **errp);

#ifdef __cplusplus
}
#endif

#endif /* QEMU_TYPEDEFS_H */
