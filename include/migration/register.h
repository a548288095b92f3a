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

#ifdef __cplusplus
extern "C" {
#endif

/**
 * What a device does in each phase of saving and loading. Every member may be NULL. The table is not copied: it must
 * stay until the device is unregistered.
 *
 * "Lock" is the hypervisor's big lock. Layout and meaning are QEMU 7.2's (`include/migration/register.h`).
 */
typedef struct SaveVMHandlers {
  /**
   * Writes the whole state, once, with the guest stopped. With the lock.
   */
  void (*save_state)(QEMUFile *f, void *opaque);
  /**
   * After a migration that ended in any way. With the lock.
   */
  void (*save_cleanup)(void *opaque);
  /**
   * Sends the rest after the guest moved; 0 or -errno. With the lock.
   */
  int (*save_live_complete_postcopy)(QEMUFile *f, void *opaque);
  /**
   * Sends the rest with the guest stopped; 0 or -errno. With the lock.
   */
  int (*save_live_complete_precopy)(QEMUFile *f, void *opaque);
  /**
   * Whether the device takes part now; NULL: yes. With or without the lock.
   */
  bool (*is_active)(void *opaque);
  /**
   * Whether it can go on sending after the guest moved; NULL: no. With or without the lock.
   */
  bool (*has_postcopy)(void *opaque);
  /**
   * Whether it takes part in rounds now; NULL: yes. With or without the lock.
   */
  bool (*is_active_iterate)(void *opaque);
  /**
   * Sends a part: 1 when all that there is was sent, 0 to be called again, -errno. Without the lock in a migration,
   * with it for a snapshot.
   */
  int (*save_live_iterate)(QEMUFile *f, void *opaque);
  /**
   * Prepares and writes what comes first; 0 or -errno. Its presence makes the device live. Without the lock.
   */
  int (*save_setup)(QEMUFile *f, void *opaque);
  /**
   * Adds the bytes that are left to the three sums: those for before the destination's guest runs, for any time, and
   * for after this guest stopped. `threshold_size` is what can be sent within the allowed downtime, in bytes: more
   * need not be counted exactly. Without the lock.
   */
  void (*save_live_pending)(QEMUFile *f,
                            void *opaque,
                            uint64_t threshold_size,
                            uint64_t *res_precopy_only,
                            uint64_t *res_compatible,
                            uint64_t *res_postcopy_only);
  /**
   * Reads one section of any kind, as its `version_id` was written; 0 or -errno. With the lock.
   */
  int (*load_state)(QEMUFile *f, void *opaque, int version_id);
  /**
   * Before the first section is read; 0 or -errno.
   */
  int (*load_setup)(QEMUFile *f, void *opaque);
  /**
   * After a load that ended in any way; the result means nothing.
   */
  int (*load_cleanup)(void *opaque);
  /**
   * A broken postcopy goes on over a new connection; 0 or -errno.
   */
  int (*resume_prepare)(MigrationState *s, void *opaque);
} SaveVMHandlers;

/**
 * Registers a device in this thread's context. `idstr` is copied (names over 255 bytes are cut and reported, or
 * refused in a strict context); `instance_id` -1 takes the highest of that name plus one. With the lock; from inside
 * callbacks too. 0, -EINVAL where `idstr` or `ops` is NULL, or -EIO where the context was given up (savevm_is_broken()).
 */
int register_savevm_live(const char *idstr,
                         int instance_id,
                         int version_id,
                         const struct SaveVMHandlers *ops,
                         void *opaque);

/**
 * Forgets the devices of that name (behind the path of `obj`, where it has one) and opaque pointer in this thread's
 * context. When it returns none of their callbacks runs in another thread, and none will. With the lock, which is
 * given up while a callback is waited for; from inside callbacks too.
 */
void unregister_savevm(VMStateIf *obj,
                       const char *idstr,
                       void *opaque);

#ifdef __cplusplus
}
#endif

#endif
