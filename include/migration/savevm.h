/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The phases of saving and loading, one call each, for a hypervisor that
 * drives them itself. (savevm.h has whole migrations and snapshots.)
 *
 * Every function acts on the current context of the calling thread, see
 * savevm_set_current(). "Lock: held" means that the caller holds the big lock,
 * "Lock: not held" that it does not, "Lock: either" that the rules of the
 * called handlers decide (migration/register.h). Files are owned by the caller.
 * Unless stated otherwise, a failure sets the error of the file, see
 * qemu_file_get_error(), and `int` results are 0 or a negative errno value.
 * The functions are those of QEMU 7.2, migration/savevm.c. What newer versions
 * added stands at the end, by the version that SAVEVM_QEMU_VERSION selects.
 */
#ifndef MIGRATION_SAVEVM_H
#define MIGRATION_SAVEVM_H

#include "qemu/typedefs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The stream begins with the magic ("QEVM") and the version, 32 bits each. */
#define QEMU_VM_FILE_MAGIC          0x5145564d
#define QEMU_VM_FILE_VERSION        0x00000003
/* A version that was never released. Loading it fails with -ENOTSUP. */
#define QEMU_VM_FILE_VERSION_COMPAT 0x00000002

/* Type byte at the beginning of each part of the stream. */
#define QEMU_VM_EOF                 0x00 /* no more sections */
#define QEMU_VM_SECTION_START       0x01 /* first part of a live section */
#define QEMU_VM_SECTION_PART        0x02 /* a further part */
#define QEMU_VM_SECTION_END         0x03 /* its last part */
#define QEMU_VM_SECTION_FULL        0x04 /* a device in one piece */
#define QEMU_VM_SUBSECTION          0x05 /* inside a device: optional state */
#define QEMU_VM_VMDESCRIPTION       0x06 /* after EOF: the JSON description */
#define QEMU_VM_CONFIGURATION       0x07 /* machine name and capabilities */
#define QEMU_VM_COMMAND             0x08 /* a command to the destination */
#define QEMU_VM_SECTION_FOOTER      0x7e /* after every section: its id */

/* Before */

/*
 * Returns whether a registered device is marked as unmigratable, and stores an
 * error with its name in `*errp` (unless `errp` is NULL). Lock: held.
 */
bool qemu_savevm_state_blocked(Error **errp);

/*
 * Returns whether a device waits for the guest to unplug it. Lock: held.
 */
bool qemu_savevm_state_guest_unplug_pending(void);

/* Saving, in this order */

/*
 * Writes magic number and version, and the configuration section unless it is
 * disabled (SAVEVM_FLAG_NO_CONFIGURATION).
 */
void qemu_savevm_state_header(QEMUFile *f);

/*
 * Calls save_setup of all live handlers. Lock: not held in a migration.
 */
void qemu_savevm_state_setup(QEMUFile *f);

/*
 * Calls save_live_pending of all live handlers, and stores the sums of the
 * bytes that are left: those that must be sent before the switchover, those
 * that may be sent at any time, and those that must be sent after it.
 * `max_size` is the number of bytes that can be sent in the allowed downtime;
 * a handler with more bytes may return an estimate. Lock: either.
 */
void qemu_savevm_state_pending(QEMUFile *f, uint64_t max_size,
                               uint64_t *res_precopy_only,
                               uint64_t *res_compatible,
                               uint64_t *res_postcopy_only);

/*
 * Calls save_live_iterate of the live handlers, up to the first that has more
 * to send. `postcopy` skips handlers that can't send after the switchover.
 *
 * Returns:
 *   1       all handlers have nothing left for now
 *   0       more is left, or the rate limit was reached
 *   -errno  a handler failed
 *
 * Lock: either.
 */
int qemu_savevm_state_iterate(QEMUFile *f, bool postcopy);

/*
 * Sends the rest of the live devices, saves all other devices, and ends the
 * stream. `iterable_only` stops after the live devices. `inactivate_disks`
 * releases the disks for the destination. The guest is stopped. Lock: held.
 */
int qemu_savevm_state_complete_precopy(QEMUFile *f, bool iterable_only,
                                       bool inactivate_disks);

/*
 * The second part of qemu_savevm_state_complete_precopy(): saves all devices
 * that are not live, then writes EOF and the description, unless
 * `in_postcopy`. Lock: held.
 */
int qemu_savevm_state_complete_precopy_non_iterable(QEMUFile *f,
                                                    bool in_postcopy,
                                                    bool inactivate_disks);

/* Sends the rest of the live devices that take part in postcopy. */
void qemu_savevm_state_complete_postcopy(QEMUFile *f);

/* Calls save_cleanup of all live handlers. Lock: held. */
void qemu_savevm_state_cleanup(void);

/*
 * Calls resume_prepare of the handlers, to resume a broken postcopy. Returns 0,
 * or the negative result of the first handler that fails.
 */
int qemu_savevm_state_resume_prepare(MigrationState *s);

/* Sends the rest of the live devices and EOF, without other devices. */
void qemu_savevm_live_state(QEMUFile *f);

/* Writes a stream of the devices that are not live. Lock: held. */
int qemu_save_device_state(QEMUFile *f);

/* Commands to the destination; each writes one command to the stream */

/* PING: the destination answers `value` on the return path. */
void qemu_savevm_send_ping(QEMUFile *f, uint32_t value);

/* OPEN_RETURN_PATH: the destination opens the return path. */
void qemu_savevm_send_open_return_path(QEMUFile *f);

/*
 * PACKAGED: a stream of `len` bytes, which the destination reads completely
 * before it loads it. Returns 0, or -1 if the length does not fit in 32 bits.
 */
int qemu_savevm_send_packaged(QEMUFile *f, const uint8_t *buf, size_t len);

/* POSTCOPY_ADVISE: postcopy may follow; has the page sizes. */
void qemu_savevm_send_postcopy_advise(QEMUFile *f);

/* POSTCOPY_LISTEN: the destination may request pages from now on. */
void qemu_savevm_send_postcopy_listen(QEMUFile *f);

/* POSTCOPY_RUN: the destination starts the guest. */
void qemu_savevm_send_postcopy_run(QEMUFile *f);

/* POSTCOPY_RESUME: the destination resumes a broken postcopy. */
void qemu_savevm_send_postcopy_resume(QEMUFile *f);

/*
 * POSTCOPY_RAM_DISCARD: the destination discards pages that changed after they
 * were sent: `len` ranges of the RAM block `name` (at most 255 bytes), as
 * offsets and lengths in bytes.
 */
void qemu_savevm_send_postcopy_ram_discard(QEMUFile *f, const char *name,
                                           uint16_t len,
                                           uint64_t *start_list,
                                           uint64_t *length_list);

/*
 * RECV_BITMAP: the destination sends which pages of a RAM block arrived. The
 * name has at most 255 bytes.
 */
void qemu_savevm_send_recv_bitmap(QEMUFile *f, char *block_name);

/* ENABLE_COLO: the destination prepares for continuous replication. */
void qemu_savevm_send_colo_enable(QEMUFile *f);

/* Loading */

/*
 * Loads a whole stream: header, configuration, sections, description. The
 * guest is stopped. After a failure the state of the devices is undefined.
 * Lock: held.
 */
int qemu_loadvm_state(QEMUFile *f);

/*
 * Loads sections until EOF, or until a command that ends the load. `mis` is the
 * migration that the load belongs to. Lock: either.
 */
int qemu_loadvm_state_main(QEMUFile *f, MigrationIncomingState *mis);

/* Calls load_cleanup of all handlers. Lock: held. */
void qemu_loadvm_state_cleanup(void);

/* Loads what qemu_save_device_state() wrote, without its header. Lock: held. */
int qemu_load_device_state(QEMUFile *f);

/*
 * Phases of newer versions, under QEMU's names. Each is the function of
 * savevm/host-driver.h that its comment names.
 */
#if SAVEVM_QEMU_VERSION >= 800
/* savevm_state_pending() without and with `exact`. */
void qemu_savevm_state_pending_estimate(uint64_t *must_precopy,
                                        uint64_t *can_postcopy);
void qemu_savevm_state_pending_exact(uint64_t *must_precopy,
                                     uint64_t *can_postcopy);
#endif

#if SAVEVM_QEMU_VERSION >= 801
/* savevm_approve_switchover() */
int qemu_loadvm_approve_switchover(void);
#endif

#if SAVEVM_QEMU_VERSION >= 802
/* savevm_state_prepare() */
int qemu_savevm_state_prepare(Error **errp);
#endif

#if SAVEVM_QEMU_VERSION >= 1000
/* savevm_state_complete_precopy_iterable() */
int qemu_savevm_state_complete_precopy_iterable(QEMUFile *f, bool in_postcopy);

/* savevm_send_switchover_start() */
void qemu_savevm_maybe_send_switchover_start(QEMUFile *f);

/*
 * Returns whether a stream has a description: unless SAVEVM_FLAG_NO_VMDESC is
 * set.
 */
bool should_send_vmdesc(void);

/* savevm_load_state_buffer(). Returns false with an error if it failed. */
bool qemu_loadvm_load_state_buffer(const char *idstr, uint32_t instance_id,
                                   char *buf, size_t len, Error **errp);

/*
 * savevm_start_load_thread(). If the thread can't be started, that is reported,
 * and the load fails.
 */
void qemu_loadvm_start_load_thread(MigrationLoadThread function, void *opaque);
#endif

#if SAVEVM_QEMU_VERSION >= 1001
/* savevm_state_postcopy_prepare(). Returns false with an error if it failed. */
bool qemu_savevm_state_postcopy_prepare(QEMUFile *f, Error **errp);
#endif

#ifdef __cplusplus
}
#endif

#endif /* MIGRATION_SAVEVM_H */
