/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device's callbacks, and their registration, as in the QEMU version that
 * SAVEVM_QEMU_VERSION selects. Part of migration/register.h, which has the form
 * for programs that select no version.
 */
#ifndef MIGRATION_REGISTER_VERSIONS_H
#define MIGRATION_REGISTER_VERSIONS_H

#include "savevm/qemu-version.h"

#ifdef SAVEVM_QEMU_SELECTED_

#include "hw/vmstate-if.h"
#include "qemu/typedefs.h"
#ifdef SAVEVM_QEMU_INLINE_
#include "savevm/abi.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What a device's thread at the end of precopy is given. In QEMU's tree,
 * migration/misc.h has it. */
#ifndef QEMU_OSDEP_H
#if SAVEVM_QEMU_VERSION >= 1001
struct SaveCompletePrecopyThreadData {
    SaveCompletePrecopyThreadHandler hdlr; /* the callback itself */
    char *idstr;                           /* name of the device */
    uint32_t instance_id;                  /* its instance */
    void *handler_opaque;                  /* the registered pointer */
};
#elif SAVEVM_QEMU_VERSION >= 1000
struct SaveLiveCompletePrecopyThreadData {
    SaveLiveCompletePrecopyThreadHandler hdlr; /* the callback itself */
    char *idstr;                               /* name of the device */
    uint32_t instance_id;                      /* its instance */
    void *handler_opaque;                      /* the registered pointer */
};
#endif
#endif

/*
 * Callbacks of a device, one for each phase of saving and loading. Every member
 * may be NULL: the phase then skips the device, unless another meaning is
 * given. The table is not copied: it must stay valid until the device is
 * unregistered.
 *
 * Results are 0 or -errno, or false with an error. A failure ends the migration
 * or the load, unless another meaning is given. "Lock" is the hypervisor's big
 * lock. The callbacks run on the thread that does the phase.
 */
typedef struct SaveVMHandlers {
    /* Writes the whole state of a device that is not live. Lock: held. */
    void (*save_state)(QEMUFile *f, void *opaque);
#if SAVEVM_QEMU_VERSION >= 802
    /* Called before a migration begins; may refuse it. Lock: held. */
    int (*save_prepare)(void *opaque, Error **errp);
    /*
     * Prepares the device and writes its first section. A device with this
     * member is live. Lock: held with SAVEVM_SEMANTICS_SETUP_LOCKED.
     */
#if SAVEVM_QEMU_VERSION >= 901
    int (*save_setup)(QEMUFile *f, void *opaque, Error **errp);
#else
    int (*save_setup)(QEMUFile *f, void *opaque);
#endif
#endif
    /* Releases what save_setup allocated. Lock: held. */
    void (*save_cleanup)(void *opaque);
#if SAVEVM_QEMU_VERSION >= 1001
    /* Sends the rest of the state, in precopy and in postcopy. Lock: held. */
    int (*save_complete)(QEMUFile *f, void *opaque);
    /* Sends a part of the state on a thread of its own while save_complete
     * runs. Lock: not held. */
    SaveCompletePrecopyThreadHandler save_complete_precopy_thread;
#else
    /* Sends the rest of the state while the guest runs on the destination.
     * Lock: held. */
    int (*save_live_complete_postcopy)(QEMUFile *f, void *opaque);
    /* Sends the rest of the state while the guest is stopped. Lock: held. */
    int (*save_live_complete_precopy)(QEMUFile *f, void *opaque);
#if SAVEVM_QEMU_VERSION >= 1000
    /* Sends a part of the state on a thread of its own while
     * save_live_complete_precopy runs. Lock: not held. */
    SaveLiveCompletePrecopyThreadHandler save_live_complete_precopy_thread;
#endif
#endif
    /* Returns whether the device takes part now. If NULL, it does. */
    bool (*is_active)(void *opaque);
    /* Returns whether the device can send in postcopy. If NULL, it can't. */
    bool (*has_postcopy)(void *opaque);
    /* Returns whether the device takes part in rounds of precopy now. If NULL,
     * it does. */
    bool (*is_active_iterate)(void *opaque);
    /* Sends a part of the state. Returns 1 if nothing is left for now, 0 to be
     * called again, or -errno. Lock: not held in a migration. */
    int (*save_live_iterate)(QEMUFile *f, void *opaque);
#if SAVEVM_QEMU_VERSION >= 1001
    /* Writes a section before the switch to postcopy. Lock: held. */
    bool (*save_postcopy_prepare)(QEMUFile *f, void *opaque, Error **errp);
#endif
#if SAVEVM_QEMU_VERSION < 802
    /* Prepares the device and writes its first section. A device with this
     * member is live. Lock: not held. */
    int (*save_setup)(QEMUFile *f, void *opaque);
#endif
#if SAVEVM_QEMU_VERSION >= 800
    /*
     * Add the bytes that are left to two sums: those that must be sent before
     * the guest runs on the destination, and those that may be sent after it.
     * The first form is cheap, the second is exact. Lock: not held.
     */
    void (*state_pending_estimate)(void *opaque, uint64_t *must_precopy,
                                   uint64_t *can_postcopy);
    void (*state_pending_exact)(void *opaque, uint64_t *must_precopy,
                                uint64_t *can_postcopy);
#else
    /*
     * Adds the bytes that are left to three sums: those that must be sent
     * before the guest runs on the destination, those that may be sent at any
     * time, and those that must be sent after it stopped here. Lock: not held.
     */
    void (*save_live_pending)(QEMUFile *f, void *opaque,
                              uint64_t threshold_size,
                              uint64_t *res_precopy_only,
                              uint64_t *res_compatible,
                              uint64_t *res_postcopy_only);
#endif
    /* Reads one section. `version_id` is the version in the stream. */
    int (*load_state)(QEMUFile *f, void *opaque, int version_id);
#if SAVEVM_QEMU_VERSION >= 1000
    /* Takes bytes that came outside of the main stream, see
     * savevm_load_state_buffer(). Lock: not held. */
    bool (*load_state_buffer)(void *opaque, char *buf, size_t len,
                              Error **errp);
#endif
    /* Prepares the device for a load, before the first section. */
#if SAVEVM_QEMU_VERSION >= 901
    int (*load_setup)(QEMUFile *f, void *opaque, Error **errp);
#else
    int (*load_setup)(QEMUFile *f, void *opaque);
#endif
    /* Releases what load_setup allocated. The result is ignored. */
    int (*load_cleanup)(void *opaque);
    /* Prepares the device to send again after a postcopy was paused. */
    int (*resume_prepare)(MigrationState *s, void *opaque);
#if SAVEVM_QEMU_VERSION >= 801
    /* Returns whether the device must approve the switchover, see
     * savevm_approve_switchover(). */
    bool (*switchover_ack_needed)(void *opaque);
#endif
#if SAVEVM_QEMU_VERSION >= 1000
    /* Called on the destination when the switchover begins, see
     * SAVEVM_SEMANTICS_SWITCHOVER_START. */
    int (*switchover_start)(void *opaque);
#endif
} SaveVMHandlers;

/*
 * Registers a device in the current context of the thread, with a table of the
 * selected version. `idstr` is copied. `instance_id` -1 selects the highest
 * instance of that name plus one. Results, thread and lock: see
 * savevm_abi_register_savevm_live().
 */
#ifdef SAVEVM_QEMU_INLINE_
static inline int register_savevm_live(const char *idstr, uint32_t instance_id,
                                       int version_id,
                                       const SaveVMHandlers *ops, void *opaque)
{
    return savevm_abi_register_savevm_live(SAVEVM_QEMU_ABI, idstr, instance_id,
                                           version_id, ops, opaque);
}
#else
int register_savevm_live(const char *idstr, uint32_t instance_id,
                         int version_id, const SaveVMHandlers *ops,
                         void *opaque);
#endif

/*
 * Unregisters the devices of that name with this `opaque` in the current
 * context of the thread. If `obj` has a path, the name follows the path. After
 * the function returns, none of their callbacks runs in another thread. Lock:
 * held, released while waiting for a callback to end.
 */
void unregister_savevm(VMStateIf *obj, const char *idstr, void *opaque);

#ifdef __cplusplus
}
#endif

#endif /* SAVEVM_QEMU_SELECTED_ */

#endif /* MIGRATION_REGISTER_VERSIONS_H */
