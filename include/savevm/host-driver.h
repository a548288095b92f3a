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
 * What commands of an incoming stream ask of a host with a migration driver of its own. A NULL member makes the command
 * an error that names it. Results are 0 or -errno; they run on the thread that loads.
 */
typedef struct SaveVMIncomingOps {
  /**
   * sizeof(SaveVMIncomingOps).
   */
  size_t size;
  /**
   * Opens the way back over the channel of `f`; called again when it is open already.
   */
  int (*open_return_path)(void *opaque, QEMUFile *f);
  /**
   * Answers a ping.
   */
  int (*pong)(void *opaque, uint32_t value);
  /**
   * Sets the postcopy state, unless it is SAVEVM_POSTCOPY_STATE_QUERY, and returns the previous one.
   */
  enum SaveVMPostcopyState (*postcopy_state)(void *opaque, enum SaveVMPostcopyState state);
  /**
   * Postcopy may come; `ram` says whether RAM takes part (its page sizes were compared).
   */
  int (*postcopy_advise)(void *opaque, bool ram);
  /**
   * Before the first discard, or before listening without one.
   */
  int (*postcopy_prepare_discard)(void *opaque);
  /**
   * Throws away `length` bytes from `start` on of a block.
   */
  int (*postcopy_discard)(void *opaque, const char *block, uint64_t start, uint64_t length);
  /**
   * Gets ready for page requests and lets another thread read on from the main stream.
   */
  int (*postcopy_listen)(void *opaque);
  /**
   * Starts the guest.
   */
  int (*postcopy_run)(void *opaque);
  /**
   * The source is back after a broken connection.
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
   * An error of a further channel that feeds the same load: 0 or -errno.
   */
  int (*further_error)(void *opaque);
  /**
   * Loading sections failed; comes before `recover`.
   */
  void (*load_failed)(void *opaque, int error);
  /**
   * In running postcopy of RAM: waits for a new connection and returns its file, NULL to give up. The broken file may be
   * closed from inside; its memory, and its channel's, goes when the load lets go of it.
   */
  QEMUFile *(*recover)(void *opaque);
  /**
   * The main loop of qemu_loadvm_state() is over; true: another thread reads on, so nothing is cleaned up yet.
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
