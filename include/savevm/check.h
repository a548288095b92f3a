/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks of devices and descriptions, for the tests of their authors. The general rules of savevm.h hold. */
/* Generated from the Rust sources by cbindgen. Do not edit. */

#ifndef SAVEVM_CHECK_H
#define SAVEVM_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "savevm.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * How serious a finding of a check is.
 */
typedef enum SaveVMCheckSeverity {
  /**
   * It does not work.
   */
  SAVEVM_CHECK_ERROR = 0,
  /**
   * It works, but may not be meant, or is not safe.
   */
  SAVEVM_CHECK_WARNING = 1,
  /**
   * For information.
   */
  SAVEVM_CHECK_NOTE = 2,
} SaveVMCheckSeverity;

/**
 * What `savevm_check_device` needs of the program that calls it. All members run on the calling thread.
 */
typedef struct SaveVMCheckOps {
  /**
   * sizeof(SaveVMCheckOps).
   */
  size_t size;
  /**
   * Creates a new device of the checked kind, before any load, and registers it. The current context of this thread is then
   * a context of the check. Returns the argument of `destroy`, or NULL on failure. Called once for every stream.
   */
  void *(*create)(void *opaque);
  /**
   * Unregisters the device and frees it, in the context of `create`. The device may be loaded in part. NULL: nothing is
   * freed.
   */
  void (*destroy)(void *opaque, void *device);
  /**
   * Receives one finding as text, which is valid during the call. NULL: findings are not reported.
   */
  void (*report)(void *opaque, enum SaveVMCheckSeverity severity, const char *text);
  /**
   * Number of truncated streams to load: every length if the stream is not longer, else evenly distributed lengths.
   * 0: 4096.
   */
  size_t truncations;
  /**
   * Number of damaged streams to load. 0: 4096.
   */
  size_t damages;
} SaveVMCheckOps;

/**
 * Initialises a SaveVMCheckOps.
 */
#define SAVEVM_CHECK_OPS_INIT SAVEVM_INITIALISED(SaveVMCheckOps)

/**
 * Checks a registered device: saves it, loads the state into a new device, saves that, and compares. Then loads the stream
 * cut to every length, which must fail, and with damaged bytes, which must do no harm. Each load gets a new device from
 * SaveVMCheckOps.create. The damage is the same in every run. It takes as long as some thousand loads. A device that crashes
 * ends the program, so run it under a sanitizer.
 *
 * Returns:
 *   the number of errors that were reported
 *   -EINVAL   NULL, or the size of `ops` is too small
 *   -ENOENT   there is no such device
 *   -ENOTSUP  the device can't be saved whole
 *   -ENODEV   SaveVMCheckOps.create made no device that could be found
 *
 * Thread: any. Lock: held.
 */
int savevm_check_device(SaveVM *vm,
                        const char *idstr,
                        int instance_id,
                        const struct SaveVMCheckOps *ops,
                        void *opaque);

/**
 * Checks a description without a device: for parts that can never be saved or loaded, and for counts that come from the
 * stream without a bound. `report` gets each finding. `vmsd` has the layout of the current context of the thread
 * (savevm_set_abi(), savevm_set_current()), which is that of QEMU 7.2 unless another one was set.
 *
 * Returns: the number of errors that were reported; -EINVAL if `vmsd` is NULL.
 *
 * Thread: any. Lock: either.
 */
int savevm_check_description(const VMStateDescription *vmsd,
                             void (*report)(void *opaque,
                                            enum SaveVMCheckSeverity severity,
                                            const char *text),
                             void *opaque);

/**
 * Returns the description of a type of device as QEMU's -dump-vmstate prints it: one JSON object, for `savevm check --against`
 * and scripts/vmstate-static-checker.py. In a dump it is a member, under the name of the type, of an object whose member
 * "vmschkmachine" has the name of the machine as "Name". `type_name` NULL: the name of the description. `vmsd` has the layout of
 * the current context of the thread, as for savevm_check_description().
 *
 * Returns: a string from malloc(); NULL if `vmsd` is NULL or there is no memory.
 *
 * Thread: any. Lock: either.
 */
char *savevm_describe(const VMStateDescription *vmsd,
                      const char *type_name);

#ifdef __cplusplus
}
#endif

#endif
