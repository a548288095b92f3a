/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A device's callbacks, and their registration. */
/* Generated from the Rust sources by cbindgen. Do not edit. */

#ifndef MIGRATION_REGISTER_H
#define MIGRATION_REGISTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "hw/vmstate-if.h"
#include "qemu/typedefs.h"
#include "savevm/qemu-version.h"

#ifdef SAVEVM_QEMU_SELECTED_
#include "migration/register-versions.h"
#else

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Callbacks of a device, one for each phase of saving and loading. Every member may be NULL: the phase then skips the
 * device, unless another meaning is given. The table is not copied: it must stay valid until the device is
 * unregistered.
 *
 * Results are 0 or -errno. An error ends the migration or the load, unless another meaning is given. "Lock" is the
 * hypervisor's big lock. The callbacks run on the thread that does the phase. They may call the library.
 *
 * Layout and meaning are QEMU 7.2's (include/migration/register.h).
 */
typedef struct SaveVMHandlers {
  /**
   * Writes the whole state of a device that is not live. The guest is stopped. Lock: held.
   */
  void (*save_state)(QEMUFile *f, void *opaque);
  /**
   * Releases what save_setup allocated. Called once after a migration or snapshot ended, successfully or not. Lock:
   * held.
   */
  void (*save_cleanup)(void *opaque);
  /**
   * Sends the rest of the state while the guest runs on the destination. Returns 0 or -errno. Lock: held.
   */
  int (*save_live_complete_postcopy)(QEMUFile *f, void *opaque);
  /**
   * Sends the rest of the state while the guest is stopped. Returns 0 or -errno. Lock: held.
   */
  int (*save_live_complete_precopy)(QEMUFile *f, void *opaque);
  /**
   * Returns whether the device takes part in the migration now. If NULL, it does. Lock: either.
   */
  bool (*is_active)(void *opaque);
  /**
   * Returns whether the device can send while the guest runs on the destination. If NULL, it can't. Lock: either.
   */
  bool (*has_postcopy)(void *opaque);
  /**
   * Returns whether the device takes part in rounds of precopy now. If NULL, it does. Lock: either.
   */
  bool (*is_active_iterate)(void *opaque);
  /**
   * Sends a part of the state. Returns 1 if nothing is left for now, 0 to be called again, or -errno. Lock: not held
   * in a migration, held in a snapshot.
   */
  int (*save_live_iterate)(QEMUFile *f, void *opaque);
  /**
   * Prepares the device and writes its first section. Returns 0 or -errno. A device with this member is live. Lock:
   * not held.
   */
  int (*save_setup)(QEMUFile *f, void *opaque);
  /**
   * Adds the bytes that are left to three sums: those that must be sent before the guest runs on the destination,
   * those that may be sent at any time, and those that must be sent after the guest stopped here. `threshold_size`
   * is the number of bytes that can be sent within the allowed downtime. A device with more bytes left may estimate
   * their number. Lock: not held.
   */
  void (*save_live_pending)(QEMUFile *f,
                            void *opaque,
                            uint64_t threshold_size,
                            uint64_t *res_precopy_only,
                            uint64_t *res_compatible,
                            uint64_t *res_postcopy_only);
  /**
   * Reads one section of the device. `version_id` is the version in the stream. Returns 0 or -errno. Lock: held, but
   * not held for pages that arrive while the guest runs in postcopy.
   */
  int (*load_state)(QEMUFile *f, void *opaque, int version_id);
  /**
   * Prepares the device for a load, before the first section. Returns 0 or -errno. Lock: held.
   */
  int (*load_setup)(QEMUFile *f, void *opaque);
  /**
   * Releases what load_setup allocated. Called once after a load ended, successfully or not, also if load_setup was not called
   * because the load had failed before. The result is ignored. Lock: held.
   */
  int (*load_cleanup)(void *opaque);
  /**
   * Prepares the device to send again over a new connection, after a postcopy was paused. Returns 0 or -errno. Lock: not
   * held.
   */
  int (*resume_prepare)(MigrationState *s, void *opaque);
} SaveVMHandlers;

/**
 * Registers a device in the current context of the thread. `ops` has the layout of the context: that of this header, unless
 * savevm_set_abi() has set another. `idstr` is copied. A name of more than 255 bytes is cut and
 * reported, or refused in a strict context. `instance_id` -1 selects the highest instance of that name plus one.
 *
 * Returns:
 *   0        the device is registered
 *   -EINVAL  `idstr` or `ops` is NULL
 *   -EEXIST, -ENAMETOOLONG  strict context, see savevm_set_strict()
 *   -EIO     the context is broken, see savevm_is_broken()
 *
 * Thread: any, also in a callback. Lock: held. QEMU: register_savevm_live, migration/savevm.c.
 */
int register_savevm_live(const char *idstr,
                         int instance_id,
                         int version_id,
                         const struct SaveVMHandlers *ops,
                         void *opaque);

/**
 * Unregisters the devices of that name with this `opaque` in the current context of the thread. If `obj` has a path,
 * the name follows the path. After the function returns, none of their callbacks runs in another thread.
 *
 * Thread: any, also in a callback. Lock: held, released while waiting for a callback to end. QEMU: unregister_savevm,
 * migration/savevm.c.
 */
void unregister_savevm(VMStateIf *obj,
                       const char *idstr,
                       void *opaque);

#ifdef __cplusplus
}
#endif

#endif

#endif
