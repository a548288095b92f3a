/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The phases of saving and loading, one call each, for a hypervisor that
 * drives them itself. (savevm.h has whole migrations and snapshots.)
 *
 * Every call works on the calling thread's current context, see
 * savevm_set_current(). "Locked" means with the big lock held, "unlocked"
 * without it, "either" as the handlers' own rules say; migration/register.h
 * has those. Files stay the caller's. Where nothing else is said, failures
 * become the file's error, see qemu_file_get_error(); `int` results are 0 or
 * a negative errno value. Meaning follows QEMU 7.2, migration/savevm.c.
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
/* A version that was never released; the reader names it in its refusal. */
#define QEMU_VM_FILE_VERSION_COMPAT 0x00000002

/* The byte that every part of the stream begins with. */
#define QEMU_VM_EOF                 0x00 /* no more sections */
#define QEMU_VM_SECTION_START       0x01 /* first part of a live section */
#define QEMU_VM_SECTION_PART        0x02 /* a further part */
#define QEMU_VM_SECTION_END         0x03 /* its last part */
#define QEMU_VM_SECTION_FULL        0x04 /* a device in one piece */
#define QEMU_VM_SUBSECTION          0x05 /* inside a device: optional state */
#define QEMU_VM_VMDESCRIPTION       0x06 /* after EOF: the JSON description */
#define QEMU_VM_CONFIGURATION       0x07 /* machine name and capabilities */
#define QEMU_VM_COMMAND             0x08 /* an order to the destination */
#define QEMU_VM_SECTION_FOOTER      0x7e /* after every section: its id */

/* Before */

/*
 * Whether a registered device is marked unmigratable. If so, returns true and
 * names it in `*errp` (unless `errp` is NULL). Locked.
 */
bool qemu_savevm_state_blocked(Error **errp);

/* Whether a device still waits for the guest to let go of it. Locked. */
bool qemu_savevm_state_guest_unplug_pending(void);

/* Saving, in this order */

/* Writes magic, version, and the configuration section if that is on. */
void qemu_savevm_state_header(QEMUFile *f);

/* Starts all live sections (save_setup). Unlocked in a migration. */
void qemu_savevm_state_setup(QEMUFile *f);

/*
 * Asks all live handlers how many bytes are left, and adds up: those that have
 * to go before the switch, those that may go at any time, those that may only
 * go after it. `max_size` is what the caller could send in the allowed
 * downtime; above it a handler may answer with an estimate.
 */
void qemu_savevm_state_pending(QEMUFile *f, uint64_t max_size,
                               uint64_t *res_precopy_only,
                               uint64_t *res_compatible,
                               uint64_t *res_postcopy_only);

/*
 * One round over the live handlers, up to the first that has more to say.
 * Returns 1 if all of them are done for now, 0 if there is more or the rate
 * limit was reached, negative on an error. `postcopy` leaves out handlers that
 * cannot go on after the switch. Either.
 */
int qemu_savevm_state_iterate(QEMUFile *f, bool postcopy);

/*
 * Ends the live sections, saves all other devices, and ends the stream.
 * `iterable_only` stops after the live sections. `inactivate_disks` gives the
 * disks up to the destination. The VM is stopped. Locked.
 */
int qemu_savevm_state_complete_precopy(QEMUFile *f, bool iterable_only,
                                       bool inactivate_disks);

/*
 * The second half of it alone: all devices that are not live, then EOF and the
 * description, which both are left out `in_postcopy`. Locked.
 */
int qemu_savevm_state_complete_precopy_non_iterable(QEMUFile *f,
                                                    bool in_postcopy,
                                                    bool inactivate_disks);

/* Ends the live sections of handlers that went on in postcopy. */
void qemu_savevm_state_complete_postcopy(QEMUFile *f);

/* Lets all live handlers release what setup took. Locked. */
void qemu_savevm_state_cleanup(void);

/*
 * Asks the handlers to get ready to go on after a broken postcopy. Returns 0,
 * or the negative result of the first handler that cannot.
 */
int qemu_savevm_state_resume_prepare(MigrationState *s);

/* Ends the live sections and the stream, and keeps the devices out. */
void qemu_savevm_live_state(QEMUFile *f);

/* A stream of the devices alone, without live sections. Locked. */
int qemu_save_device_state(QEMUFile *f);

/* Orders to the destination; each is one command in the stream */

/* Asks the destination to answer `value` on the return path. */
void qemu_savevm_send_ping(QEMUFile *f, uint32_t value);

/* Asks it to open the return path. */
void qemu_savevm_send_open_return_path(QEMUFile *f);

/*
 * A stream in a box: `len` bytes that the destination reads whole before it
 * loads them. Returns 0, or -1 if the length does not fit 32 bits.
 */
int qemu_savevm_send_packaged(QEMUFile *f, const uint8_t *buf, size_t len);

/* Says that postcopy may follow, and with which page sizes. */
void qemu_savevm_send_postcopy_advise(QEMUFile *f);

/* Tells the destination to watch for pages from now on. */
void qemu_savevm_send_postcopy_listen(QEMUFile *f);

/* Hands over: the destination runs the VM from here on. */
void qemu_savevm_send_postcopy_run(QEMUFile *f);

/* Goes on after a broken postcopy. */
void qemu_savevm_send_postcopy_resume(QEMUFile *f);

/*
 * Pages that were sent but changed since: `len` ranges in the RAM block
 * `name` (under 256 bytes), as offsets and lengths in bytes.
 */
void qemu_savevm_send_postcopy_ram_discard(QEMUFile *f, const char *name,
                                           uint16_t len,
                                           uint64_t *start_list,
                                           uint64_t *length_list);

/* Asks which pages of a RAM block arrived; the name is under 256 bytes. */
void qemu_savevm_send_recv_bitmap(QEMUFile *f, char *block_name);

/* Prepares the destination for checkpoints (COLO). */
void qemu_savevm_send_colo_enable(QEMUFile *f);

/* Loading */

/*
 * Reads a whole stream: header, configuration, sections, description. The VM
 * is stopped, and on a failure its devices are in no usable state. Locked.
 */
int qemu_loadvm_state(QEMUFile *f);

/*
 * Reads sections up to EOF, or up to a command that ends the load. `mis` is
 * the migration this belongs to. Either.
 */
int qemu_loadvm_state_main(QEMUFile *f, MigrationIncomingState *mis);

/* Lets all handlers release what load_setup took. Locked. */
void qemu_loadvm_state_cleanup(void);

/* Reads what qemu_save_device_state() wrote, after its header. Locked. */
int qemu_load_device_state(QEMUFile *f);

#ifdef __cplusplus
}
#endif

#endif /* MIGRATION_SAVEVM_H */
