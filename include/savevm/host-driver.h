/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For a host with a migration driver of its own, such as QEMU: answers to the commands of an incoming stream, and
 * phases of newer versions. Functions without a context act on the current context of the calling thread
 * (savevm_set_current()). The general rules of savevm.h hold. */
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

/* ---- Commands of an incoming stream ---- */

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
 * command fails with an error that names it. Results are 0 or -errno. A function with an `errp` may set an error as well, which
 * the library frees; the load then fails with its text. The functions run on the thread that loads,
 * with the lock if that thread holds it.
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
  int (*postcopy_advise)(void *opaque, bool ram, Error **errp);
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
  int (*postcopy_listen)(void *opaque, Error **errp);
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
  int (*enable_colo)(void *opaque, Error **errp);
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
  /**
   * Tells the source that all devices approve the switchover (QEMU 8.1). Called only with SAVEVM_FLAG_SWITCHOVER_ACK.
   */
  int (*switchover_ack)(void *opaque);
} SaveVMIncomingOps;

/**
 * Initialises a SaveVMIncomingOps.
 */
#define SAVEVM_INCOMING_OPS_INIT SAVEVM_INITIALISED(SaveVMIncomingOps)

/* ---- Phases of newer QEMU versions ---- */

/**
 * The function of a thread that a device starts for a load. It returns false with an error if it failed, and ends soon when
 * `*should_quit` is true.
 */
typedef bool SaveVMLoadThread(void *opaque, bool *should_quit, Error **errp);

/**
 * Calls save_prepare of all active devices, before a migration starts, until one fails.
 *
 * Returns: 0 or the result of a callback, with its error.
 *
 * Thread: any. Lock: held. QEMU 8.2: qemu_savevm_state_prepare, migration/savevm.c.
 */
int savevm_state_prepare(Error **errp);

/**
 * Sets up all live devices, and saves those devices that are saved during setup. As qemu_savevm_state_setup(), with a result.
 *
 * Returns: 0; -errno with an error if a device failed, or, with SAVEVM_SEMANTICS_SETUP_ERRORS, precopy_notify.
 *
 * Thread: any. Lock: either. QEMU 9.1: qemu_savevm_state_setup, migration/savevm.c.
 */
int savevm_state_setup(QEMUFile *f,
                       Error **errp);

/**
 * Adds up what all active devices have left to send, in bytes: what must be sent before the switch to postcopy, and what may be
 * sent after it. The numbers are estimates unless `exact` is true.
 *
 * Thread: any. Lock: not held if `exact`. QEMU 8.0: qemu_savevm_state_pending_estimate and _exact, migration/savevm.c.
 */
void savevm_state_pending(bool exact,
                          uint64_t *must_precopy,
                          uint64_t *can_postcopy);

/**
 * Ends the live devices while the guest is stopped; in postcopy those that do not continue. Devices may send parts on threads of
 * the host meanwhile, see SaveVMHostOps.
 *
 * Returns: 0 or -errno. The error is latched on the file.
 *
 * Thread: any. Lock: held. QEMU: qemu_savevm_state_complete_precopy_iterable, migration/savevm.c.
 */
int savevm_state_complete_precopy_iterable(QEMUFile *f,
                                           bool in_postcopy);

/**
 * Saves all devices that are saved whole. Then writes EOF and the description of the stream, unless `in_postcopy`. The disks
 * stay active.
 *
 * Returns: 0 or -errno. The error is latched on the file.
 *
 * Thread: any. Lock: held. QEMU 9.2: qemu_savevm_state_complete_precopy_non_iterable, migration/savevm.c.
 */
int savevm_state_complete_precopy_non_iterable(QEMUFile *f,
                                               bool in_postcopy);

/**
 * Calls save_postcopy_prepare of all active devices, each in a section, before the switch to postcopy, while the guest still
 * runs.
 *
 * Returns: 0 or -errno with an error.
 *
 * Thread: any. Lock: either. QEMU 10.1: qemu_savevm_state_postcopy_prepare, migration/savevm.c.
 */
int savevm_state_postcopy_prepare(QEMUFile *f,
                                  Error **errp);

/**
 * Sends SWITCHOVER_START if the semantics of the context have it, unless SAVEVM_FLAG_NO_SWITCHOVER_START is set.
 *
 * Thread: any. Lock: held. QEMU 10.0: qemu_savevm_maybe_send_switchover_start, migration/savevm.c.
 */
void savevm_send_switchover_start(QEMUFile *f);

/**
 * Approves the switchover for a device whose switchover_ack_needed returned true. The last approval is sent to the source
 * (SaveVMIncomingOps.switchover_ack).
 *
 * Returns:
 *   0        counted
 *   -EINVAL  no approval is expected
 *   other    the result of switchover_ack
 *
 * Thread: any. Lock: held. QEMU 8.1: qemu_loadvm_approve_switchover, migration/savevm.c.
 */
int savevm_approve_switchover(void);

/**
 * Gives a device bytes that came outside of the main stream: calls its load_state_buffer, which may change them.
 *
 * Returns:
 *   0        loaded
 *   -EINVAL  there is no such device, it has no load_state_buffer, or that failed; with an error
 *
 * Thread: any. Lock: not held. QEMU 10.0: qemu_loadvm_load_state_buffer, migration/savevm.c.
 */
int savevm_load_state_buffer(const char *idstr,
                             uint32_t instance_id,
                             char *buf,
                             size_t len,
                             Error **errp);

/**
 * Runs `function` on a new thread during a load. The load succeeds only after all such threads have; it waits for them with the
 * lock released. All of them have ended when the devices are cleaned up.
 *
 * Returns:
 *   0           the thread runs
 *   -EINVAL     `function` is NULL
 *   -ECANCELED  the load has ended
 *   other       the thread could not be started
 *
 * Thread: any. Lock: either. QEMU 10.0: qemu_loadvm_start_load_thread, migration/savevm.c.
 */
int savevm_start_load_thread(SaveVMLoadThread *function,
                             void *opaque);

/**
 * Loads a whole stream. As qemu_loadvm_state(), with an error.
 *
 * Returns: 0; 1 if another thread continues to read the stream; -errno with an error.
 *
 * Thread: any. Lock: held. QEMU 10.2: qemu_loadvm_state, migration/savevm.c.
 */
int savevm_load_state(QEMUFile *f, Error **errp);

/**
 * Loads sections and commands up to EOF. As qemu_loadvm_state_main(), with an error.
 *
 * Returns: 0; 1 if another thread continues to read the stream; -errno with an error.
 *
 * Thread: any. Lock: either. QEMU 10.2: qemu_loadvm_state_main, migration/savevm.c.
 */
int savevm_load_state_main(QEMUFile *f, Error **errp);

/**
 * Loads the state of devices that qemu_save_device_state() saved. As qemu_load_device_state(), with an error.
 *
 * Returns: 0 or -errno with an error.
 *
 * Thread: any. Lock: held. QEMU 10.2: qemu_load_device_state, migration/savevm.c.
 */
int savevm_load_device_state(QEMUFile *f,
                             Error **errp);

#ifdef __cplusplus
}
#endif

#endif
