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
   * Makes a device like the one that is checked, as it is before anything was loaded, and registers it. This thread's
   * context is then one of the check's own. Returns what `destroy` is given, or NULL where there can't be one.
   * Called for every stream that is tried.
   */
  void *(*create)(void *opaque);
  /**
   * Takes the device's registration back and frees it, in the context of `create`. It may be half loaded. NULL: nothing
   * is freed.
   */
  void (*destroy)(void *opaque, void *device);
  /**
   * One finding in words; The text is the library's. NULL: nobody is told.
   */
  void (*report)(void *opaque, enum SaveVMCheckSeverity severity, const char *text);
  /**
   * How many lengths the stream is cut to: every one if it is no longer than this, else evenly spread ones. 0: 4096.
   */
  size_t truncations;
  /**
   * How many streams with damaged bytes are tried. 0: 4096.
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
 * stream without a bound. `report` gets each finding.
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
 * "vmschkmachine" has the name of the machine as "Name". `type_name` NULL: the name of the description.
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
