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
 * One thread at a time reads and one writes; `shutdown` comes from any thread.
 */
typedef struct SaveVMChannelOps {
  /**
   * sizeof(SaveVMChannelOps).
   */
  size_t size;
  /**
   * Reads up to `len` bytes; 0 at the end, -errno, or -EAGAIN, after which `wait` is called. NULL: nothing comes.
   */
  ptrdiff_t (*read)(void *channel, uint8_t *buf, size_t len);
  /**
   * Writes from `count` pieces, at most 64; how many bytes went, -errno, or -EAGAIN, after which `wait` is called. NULL:
   * nothing goes.
   */
  ptrdiff_t (*writev)(void *channel, const struct iovec *iov, int count);
  /**
   * Waits until it can be written (or read); may switch to another coroutine meanwhile. 0, or -errno to give up. NULL:
   * -EAGAIN is an error.
   */
  int (*wait)(void *channel, bool write);
  /**
   * Ends both directions from any thread, and the waits in them; 0 or -errno. NULL: -ENOSYS, and who waits is not woken.
   */
  int (*shutdown)(void *channel);
  /**
   * Changes the blocking mode; 0 or -errno. NULL: nothing.
   */
  int (*set_blocking)(void *channel, bool blocking);
  /**
   * Closes the channel; called once for every file over it. 0 or -errno. NULL: nothing.
   */
  int (*close)(void *channel);
  /**
   * Frees the channel with the last file over it, from any thread. NULL: nothing.
   */
  void (*free)(void *channel);
  /**
   * Why the last `read` (or `write`) failed, in words, as a string from malloc(); or NULL. Asked once, by the thread
   * that got the failure.
   */
  char *(*error)(void *channel, bool write);
} SaveVMChannelOps;

/**
 * Initialises a SaveVMChannelOps.
 */
#define SAVEVM_CHANNEL_OPS_INIT SAVEVM_INITIALISED(SaveVMChannelOps)

/**
 * A file over a descriptor, which becomes the file's. NULL where it is not open that way (reported).
 */
QEMUFile *savevm_file_from_fd(int fd,
                              bool writable);

/**
 * A file to read a copy of `len` bytes from.
 */
QEMUFile *savevm_file_from_buffer(const void *data, size_t len);

/**
 * A file that writes to memory; see savevm_file_buffer().
 */
QEMUFile *savevm_file_to_buffer(void);

/**
 * What was written to a file of savevm_file_to_buffer() so far; it is flushed for that. The bytes are the file's and stay
 * until the next operation on it. NULL for other files.
 */
const uint8_t *savevm_file_buffer(QEMUFile *f,
                                  size_t *len);

/**
 * A file over a channel of the hypervisor. `ops` is copied; `opaque` becomes the file's (see `free`). NULL where the
 * function for the direction is missing, and, reported, where `ops` has no size.
 */
QEMUFile *savevm_file_from_channel(const struct SaveVMChannelOps *ops,
                                   void *opaque,
                                   bool writable);

/**
 * Opens `unix:PATH`, `tcp:HOST:PORT`, `fd:N`, `file:PATH` or `exec:COMMAND`. To write, sockets are connected; to read,
 * they listen and wait for one connection, or until what was opened has something to read (its end included). That takes
 * at most SaveVMLimits.open_timeout_ms of this thread's context, and a descriptor that was given is closed then. NULL and
 * `*errp` on failure, -ETIMEDOUT where nobody came.
 */
QEMUFile *savevm_file_open(const char *uri,
                           bool writable,
                           Error **errp);

/**
 * The hypervisor's pointer of a file from savevm_file_from_channel(); NULL for other files.
 */
void *savevm_file_channel(QEMUFile *f);

/**
 * Room for `len` bytes in one piece at the end of a file's buffer, to be filled in and put by savevm_file_commit().
 * NULL where a flush would be needed for it, or the file is in error or for reading.
 */
uint8_t *savevm_file_reserve(QEMUFile *f,
                             size_t len);

/**
 * Puts the first `len` bytes of what savevm_file_reserve() gave.
 */
void savevm_file_commit(QEMUFile *f, size_t len);

#ifdef __cplusplus
}
#endif

#endif
