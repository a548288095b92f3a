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
 * At most one thread reads and one thread writes at a time. `shutdown` is called from any thread. A function with an `errp` may
 * set an error, which the library frees. Its text then stands in the error of the file.
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
  ptrdiff_t (*read)(void *opaque, uint8_t *buf, size_t length, Error **errp);
  /**
   * Writes from `count` buffers, at most 64. Returns the number of bytes written, -errno, or -EAGAIN, after which `wait`
   * is called. NULL: the channel is not writable.
   */
  ptrdiff_t (*writev)(void *opaque, const struct iovec *iov, int count, Error **errp);
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
   * As `read`, which it then replaces. Stores the descriptors that came with the bytes, as an array from malloc(), and their
   * number. NULL: descriptors can't be received.
   */
  ptrdiff_t (*read_fds)(void *opaque,
                        uint8_t *buf,
                        size_t length,
                        int **fds,
                        size_t *fd_count,
                        Error **errp);
  /**
   * Writes `byte` with a descriptor, which stays open. Returns 1 or -errno. NULL: descriptors can't be sent.
   */
  ptrdiff_t (*write_fd)(void *opaque, uint8_t byte, int fd, Error **errp);
  /**
   * Reads up to `length` bytes at `offset`, without a change of the position. Returns their number, 0 at the end, or -errno.
   * NULL: the channel can't be read at an offset.
   */
  ptrdiff_t (*pread)(void *opaque, uint8_t *buf, size_t length, off_t offset, Error **errp);
  /**
   * Writes up to `length` bytes at `offset`, without a change of the position. Returns their number or -errno. NULL: the
   * channel can't be written at an offset.
   */
  ptrdiff_t (*pwrite)(void *opaque, const uint8_t *buf, size_t length, off_t offset, Error **errp);
  /**
   * Sets the position at which the channel is read and written, as lseek() does. Returns it or -errno. NULL: the channel has
   * no position.
   */
  off_t (*seek)(void *opaque, off_t offset, int whence, Error **errp);
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
 * Returns: the file.
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
 * Thread: the one that uses the file. Lock: either.
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
 * and wait for one connection; other kinds wait until there is something to read, or the end. A named pipe that is to be written
 * waits for a reader. Waits at most
 * SaveVMLimits.open_timeout_ms of the thread's context. A descriptor `fd:N` belongs to the file; on failure of the wait it is
 * closed.
 *
 * Returns: the file; NULL on failure, with ETIMEDOUT in the error if the wait was too long.
 *
 * Thread: any. Lock: either, released while waiting.
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
 * Keeps a pointer of the hypervisor with a file. The library does not use it.
 *
 * Thread: any. Lock: either.
 */
void savevm_file_set_data(QEMUFile *f, const void *data);

/**
 * Returns the pointer of savevm_file_set_data(), or NULL.
 *
 * Thread: any. Lock: either.
 */
const void *savevm_file_data(QEMUFile *f);

/**
 * Sets the hooks of RAM of a file, as qemu_file_set_hooks() of migration/qemu-file.h does. `hooks` is a QEMUFileHooks as in QEMU
 * 5.0 to 7.0, whose functions have `opaque` as an argument after the file; NULL removes the hooks. The table is not copied.
 *
 * Thread: the one that uses the file. Lock: either.
 *
 * QEMU: qemu_file_set_hooks, migration/qemu-file.c of 5.2.
 */
void savevm_file_set_opaque_hooks(QEMUFile *f,
                                  const void *hooks,
                                  void *opaque);

/**
 * Returns room for `length` bytes in one piece at the end of a file's buffer, to be filled in and put by savevm_file_commit().
 *
 * Returns: the room; NULL if the buffer would have to be flushed for it, or if the file is in error or for reading.
 *
 * Thread: the one that uses the file. Lock: either.
 */
uint8_t *savevm_file_reserve(QEMUFile *f,
                             size_t length);

/**
 * Puts the first `length` bytes of the room that savevm_file_reserve() returned.
 *
 * Thread: the one that uses the file. Lock: either.
 */
void savevm_file_commit(QEMUFile *f, size_t length);

/**
 * Returns the number of bytes that were put and wait to be written to the channel.
 *
 * Thread: the one that uses the file. Lock: either.
 */
uint64_t savevm_file_queued(QEMUFile *f);

#ifdef __cplusplus
}
#endif

#endif
