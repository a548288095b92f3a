/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For a host with a migration driver of its own, such as QEMU: answers to the commands of an incoming stream. The
 * general rules of savevm.h hold. */
/* Generated from the Rust sources by cbindgen. Do not edit. */

#ifndef SAVEVM_HOST_DRIVER_H
#define SAVEVM_HOST_DRIVER_H

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
 * State of an incoming postcopy: QEMU's PostcopyState, with QEMU's numbers.
 */
typedef enum SaveVMPostcopyState {
  /**
   * No state: SaveVMIncomingOps.postcopy_state only returns the current one.
   */
  SAVEVM_POSTCOPY_STATE_QUERY = -1,
  /**
   * Postcopy was not announced.
   */
  SAVEVM_POSTCOPY_STATE_NONE = 0,
  /**
   * Postcopy was announced.
   */
  SAVEVM_POSTCOPY_STATE_ADVISE = 1,
  /**
   * Stale pages were discarded.
   */
  SAVEVM_POSTCOPY_STATE_DISCARD = 2,
  /**
   * Device states are loaded, and pages may be requested.
   */
  SAVEVM_POSTCOPY_STATE_LISTENING = 3,
  /**
   * The guest runs here.
   */
  SAVEVM_POSTCOPY_STATE_RUNNING = 4,
  /**
   * Postcopy has ended.
   */
  SAVEVM_POSTCOPY_STATE_END = 5,
} SaveVMPostcopyState;

/**
 * Functions for the commands of an incoming stream, for a host with a migration driver of its own. If a member is NULL, its
 * command fails with an error that names it. Results are 0 or -errno. The functions run on the thread that loads.
 */
typedef struct SaveVMIncomingOps {
  /**
   * sizeof(SaveVMIncomingOps).
   */
  size_t size;
  /**
   * Opens the return path over the channel of `f`; may be called when it is already open.
   */
  int (*open_return_path)(void *opaque, QEMUFile *f);
  /**
   * Sends a PONG with this value over the return path.
   */
  int (*pong)(void *opaque, uint32_t value);
  /**
   * Sets the postcopy state, unless it is SAVEVM_POSTCOPY_STATE_QUERY, and returns the previous one.
   */
  enum SaveVMPostcopyState (*postcopy_state)(void *opaque, enum SaveVMPostcopyState state);
  /**
   * Postcopy may follow. `ram` is true if it includes RAM, whose page sizes were compared.
   */
  int (*postcopy_advise)(void *opaque, bool ram);
  /**
   * Called before the first discard, or before postcopy_listen if there is no discard.
   */
  int (*postcopy_prepare_discard)(void *opaque);
  /**
   * Discards `length` bytes of a block from `start`.
   */
  int (*postcopy_discard)(void *opaque, const char *block, uint64_t start, uint64_t length);
  /**
   * Prepares page requests, and starts a thread that continues to read the main stream.
   */
  int (*postcopy_listen)(void *opaque);
  /**
   * Starts the guest.
   */
  int (*postcopy_run)(void *opaque);
  /**
   * The source continues after a broken connection.
   */
  int (*postcopy_resume)(void *opaque);
  /**
   * Sends the received bitmap of a block.
   */
  int (*recv_bitmap)(void *opaque, const char *block);
  /**
   * Continuous replication begins.
   */
  int (*enable_colo)(void *opaque);
  /**
   * Returns the error of a further channel of the same load (QEMU's postcopy-preempt): 0 or -errno.
   */
  int (*further_error)(void *opaque);
  /**
   * Called when loading sections has failed, before `recover`.
   */
  void (*load_failed)(void *opaque, int error);
  /**
   * In a running postcopy of RAM: waits for a new connection and returns its file, or NULL to end the load with the error.
   * It may close the broken file. The library frees the broken file and its channel when the load no longer uses them.
   */
  QEMUFile *(*recover)(void *opaque);
  /**
   * Called at the end of the main loop of qemu_loadvm_state(). Returns true if another thread continues to read; the
   * cleanup is then left to it.
   */
  bool (*main_loop_done)(void *opaque);
} SaveVMIncomingOps;

/**
 * Initialises a SaveVMIncomingOps.
 */
#define SAVEVM_INCOMING_OPS_INIT SAVEVM_INITIALISED(SaveVMIncomingOps)

#ifdef __cplusplus
}
#endif

#endif
