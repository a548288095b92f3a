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
 * Checks a device for its author: saves the device that is registered as `idstr` and `instance_id` with the context `vm`
 * (NULL: this thread's), loads what it saved into a new device, saves that and compares; then loads the stream cut to
 * every length, which has to fail, and with damaged bytes, which must do no harm. Each goes to a device of its own. The
 * damage is the same in every run. For tests: it takes as long as some thousand loads, and a device that crashes ends
 * the program (best seen under a sanitizer). With the lock.
 *
 * Returns the number of errors that were reported; -EINVAL where a pointer is NULL that must not be, -ENOENT where there
 * is no such device, -ENOTSUP for one that can't be saved whole, -ENODEV where `create` made none that could be found.
 */
int savevm_check_device(SaveVM *vm,
                        const char *idstr,
                        int instance_id,
                        const struct SaveVMCheckOps *ops,
                        void *opaque);

/**
 * Looks through a description, without a device: for parts that can never be saved or loaded, and for counts that come
 * from the stream and that nothing bounds. Findings go to `report` as in SaveVMCheckOps. From any thread.
 *
 * Returns the number of errors that were reported, or -EINVAL for NULL.
 */
int savevm_check_description(const VMStateDescription *vmsd,
                             void (*report)(void *opaque,
                                            enum SaveVMCheckSeverity severity,
                                            const char *text),
                             void *opaque);

/**
 * What QEMU's -dump-vmstate says of a type of device, for `savevm check --against` and scripts/vmstate-static-checker.py:
 * one JSON object, as a string from malloc(). In a dump it is a member of one object, under the name of the type; the
 * member "vmschkmachine" there has the machine's name as "Name". From any thread.
 *
 * Returns NULL for a NULL description, and where there is no memory.
 */
char *savevm_describe(const VMStateDescription *vmsd,
                      const char *type_name);

#ifdef __cplusplus
}
#endif

#endif
