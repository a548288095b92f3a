/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files: a QEMUFile over a descriptor, memory, a URI or a channel of the hypervisor. The general rules of
 * savevm.h hold. Free a file with qemu_fclose() of migration/qemu-file.h. */
/* Generated from the Rust sources by cbindgen. Do not edit. */

#ifndef SAVEVM_FILE_H
#define SAVEVM_FILE_H

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
 * A channel of the hypervisor: the functions that a file over it calls. All but one direction are optional.
 *
 * At most one thread reads and one thread writes at a time. `shutdown` is called from any thread.
 */
typedef struct SaveVMChannelOps {
  /**
   * sizeof(SaveVMChannelOps).
   */
  size_t size;
  /**
   * Reads up to `length` bytes. Returns their number, 0 at the end, -errno, or -EAGAIN, after which `wait` is called.
   * NULL: the channel is not readable.
   */
  ptrdiff_t (*read)(void *opaque, uint8_t *buf, size_t length);
  /**
   * Writes from `count` buffers, at most 64. Returns the number of bytes written, -errno, or -EAGAIN, after which `wait`
   * is called. NULL: the channel is not writable.
   */
  ptrdiff_t (*writev)(void *opaque, const struct iovec *iov, int count);
  /**
   * Waits until the channel can be written (or read); may switch to another coroutine meanwhile. 0, or -errno, which ends the
   * operation. NULL: -EAGAIN is an error.
   */
  int (*wait)(void *opaque, bool write);
  /**
   * Ends both directions from any thread, and the waits in them; 0 or -errno. NULL: -ENOSYS, and
   * waiting threads are not woken.
   */
  int (*shutdown)(void *opaque);
  /**
   * Changes the blocking mode; 0 or -errno. NULL: nothing.
   */
  int (*set_blocking)(void *opaque, bool blocking);
  /**
   * Closes the channel; called once for every file over it. 0 or -errno. NULL: nothing.
   */
  int (*close)(void *opaque);
  /**
   * Frees the channel when the last file over it is freed, from any thread. NULL: nothing.
   */
  void (*free)(void *opaque);
  /**
   * Returns the reason of the last failed `read` (or write), as a string from malloc(), or NULL. Called once, on the
   * thread of the failed call.
   */
  char *(*error)(void *opaque, bool write);
} SaveVMChannelOps;

/**
 * Initialises a SaveVMChannelOps.
 */
#define SAVEVM_CHANNEL_OPS_INIT SAVEVM_INITIALISED(SaveVMChannelOps)

/**
 * Creates a file over a descriptor. The descriptor belongs to the file; on failure it is closed.
 *
 * Returns: the file; NULL, with the reason reported, if the descriptor is not open for this direction.
 *
 * Thread: any. Lock: either.
 */
QEMUFile *savevm_file_from_fd(int fd,
                              bool writable);

/**
 * Creates a file that reads a copy of `length` bytes.
 *
 * Returns: the file; NULL if `data` is NULL and `length` is not 0.
 *
 * Thread: any. Lock: either.
 */
QEMUFile *savevm_file_from_buffer(const void *data, size_t length);

/**
 * Creates a file that writes to memory; see savevm_file_buffer().
 *
 * Thread: any. Lock: either.
 */
QEMUFile *savevm_file_to_buffer(void);

/**
 * Flushes a file of savevm_file_to_buffer() and returns the bytes that were written to it; stores their number in `length`. The
 * bytes are valid until the next operation on the file.
 *
 * Returns: the bytes; NULL for other files.
 *
 * Thread: any. Lock: either.
 */
const uint8_t *savevm_file_buffer(QEMUFile *f,
                                  size_t *length);

/**
 * Creates a file over a channel of the hypervisor. `ops` is copied. The channel belongs to the file. On failure its `free` is
 * called, unless `ops` is NULL or its size is too small.
 *
 * Returns: the file; NULL if the function for this direction is missing, or the size of `ops` is too small (reported).
 *
 * Thread: any. Lock: either.
 */
QEMUFile *savevm_file_from_channel(const struct SaveVMChannelOps *ops,
                                   void *opaque,
                                   bool writable);

/**
 * Opens `unix:PATH`, `tcp:HOST:PORT`, `fd:N`, `file:PATH` or `exec:COMMAND`. To write, sockets connect. To read, sockets listen
 * and wait for one connection; other kinds wait until there is something to read, or the end. Waits at most
 * SaveVMLimits.open_timeout_ms of the thread's context. A descriptor `fd:N` belongs to the file; on failure of the wait it is
 * closed.
 *
 * Returns: the file; NULL on failure, with -ETIMEDOUT in the error if there was no connection.
 *
 * Thread: any. Lock: either.
 */
QEMUFile *savevm_file_open(const char *uri,
                           bool writable,
                           Error **errp);

/**
 * Returns the `opaque` that savevm_file_from_channel() got for a file; NULL for other files.
 *
 * Thread: any. Lock: either.
 */
void *savevm_file_channel(QEMUFile *f);

/**
 * Returns room for `length` bytes in one piece at the end of a file's buffer, to be filled in and put by savevm_file_commit().
 *
 * Returns: the room; NULL if the buffer would have to be flushed for it, or if the file is in error or for reading.
 *
 * Thread: any. Lock: either.
 */
uint8_t *savevm_file_reserve(QEMUFile *f,
                             size_t length);

/**
 * Puts the first `length` bytes of the room that savevm_file_reserve() returned.
 *
 * Thread: any. Lock: either.
 */
void savevm_file_commit(QEMUFile *f, size_t length);

/**
 * Flushes a file for writing, as qemu_fflush() does, with a result. Does nothing to a file for reading.
 *
 * Returns: 0 or the error of the file.
 *
 * Thread: the one that uses the file. Lock: either. QEMU 9.0: qemu_fflush, migration/qemu-file.c.
 */
int savevm_file_flush(QEMUFile *f);

/**
 * Sends an open descriptor in a stream over a Unix socket, with one byte. The descriptor stays open here. Flushes the file first.
 * VMSTATE_FD() does this for a member of a device.
 *
 * Returns: 0 or the error of the file: -EIO if the channel is not a Unix socket, or is encrypted.
 *
 * Thread: the one that uses the file. Lock: either. QEMU 10.0: qemu_file_put_fd, migration/qemu-file.c.
 */
int savevm_file_put_fd(QEMUFile *f,
                       int fd);

/**
 * Receives a descriptor that savevm_file_put_fd() sent at this place of the stream. It is close-on-exec and belongs to the
 * caller. Descriptors that are never received are closed with the file; at most 16 may wait.
 *
 * Returns: the descriptor, or the error of the file: -EINVAL if the next byte brought no descriptor, -EIO if the channel is not
 * a Unix socket, or is encrypted.
 *
 * Thread: the one that uses the file. Lock: either. QEMU 10.0: qemu_file_get_fd, migration/qemu-file.c.
 */
int savevm_file_get_fd(QEMUFile *f);

/**
 * Drops the bytes that a file for reading has read ahead, because the next byte comes from another place of its channel.
 *
 * Thread: the one that uses the file. Lock: either. QEMU 9.0: qemu_set_offset, migration/qemu-file.c.
 */
void savevm_file_drop_input(QEMUFile *f);

#ifdef __cplusplus
}
#endif

#endif
