/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Functions of a migration file for the hypervisor: closing, errors, rate
 * limit, totals, and reading ahead.
 *
 * Files are created by the functions of savevm/file.h. The functions for
 * devices are in migration/qemu-file-types.h. Its rules apply here as well: one
 * user at a time, and the first error is kept. Exceptions are marked "Thread:
 * any". The functions are those of QEMU 7.2, migration/qemu-file.c, except
 * those that use QIOChannel or zlib.
 */
#ifndef MIGRATION_QEMU_FILE_H
#define MIGRATION_QEMU_FILE_H

#include "migration/qemu-file-types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Closing and flushing */

/*
 * Flushes pending data, closes the channel and frees `f` in every case.
 * Returns the first error of the file, else the result of closing: 0 or a
 * negative errno value.
 */
int qemu_fclose(QEMUFile *f);

/*
 * Writes all pending data to the channel, and waits until it is written. Does
 * nothing if the file is open for reading or was shut down.
 */
#if SAVEVM_QEMU_VERSION >= 802
/* Returns the error of the file, as QEMU 8.2 and newer do. */
int qemu_fflush(QEMUFile *f);
#else
void qemu_fflush(QEMUFile *f);
#endif

/*
 * Stops the transfer in both directions, and wakes threads that wait in `f`.
 * The file has an error afterwards, -EIO if it had none.
 *
 * Returns:
 *   0        the channel is shut down
 *   -ENOSYS  the channel can't be shut down
 *   -EIO     shutting down failed
 *
 * Thread: any, before qemu_fclose().
 */
int qemu_file_shutdown(QEMUFile *f);

/*
 * Returns a new file on the same channel in the other direction, to be closed
 * by the caller; NULL if the channel has only one direction. Shutting down one
 * of the files stops both.
 */
QEMUFile *qemu_file_get_return_path(QEMUFile *f);

/*
 * Sets whether the channel blocks. The operating system may have one setting
 * for both directions, so this may change the return path as well.
 */
void qemu_file_set_blocking(QEMUFile *f, bool block);

/* Returns whether `f` is open for writing. */
bool qemu_file_is_writable(QEMUFile *f);

/* Returns false for "rb" and "wb", true for other modes and for NULL. */
bool qemu_file_mode_is_not_valid(const char *mode);

#if SAVEVM_QEMU_VERSION >= 900
/* Access at an offset of the channel, which does not change the position */

/*
 * Writes `buflen` bytes at the offset `pos` of the channel, after all bytes
 * that were put before. The file has an error afterwards if it fails.
 */
void qemu_put_buffer_at(QEMUFile *f, const uint8_t *buf, size_t buflen,
                        off_t pos);

/*
 * Reads `buflen` bytes from the offset `pos` of the channel to `buf`. Returns
 * `buflen`, or 0 if the file has an error.
 */
size_t qemu_get_buffer_at(QEMUFile *f, const uint8_t *buf, size_t buflen,
                          off_t pos);

/*
 * Sets the offset in the channel at which the stream continues, as lseek()
 * does. Bytes that were read ahead are dropped.
 */
void qemu_set_offset(QEMUFile *f, off_t off, int whence);

/*
 * Returns the offset in the channel, which is behind the bytes that were read
 * ahead; -1 if the file has an error.
 */
off_t qemu_get_offset(QEMUFile *f);
#endif

#if SAVEVM_QEMU_VERSION >= 800
/*
 * Copies the next `size` bytes of the stream to a descriptor. Returns 0 or a
 * negative errno value.
 */
int qemu_file_get_to_fd(QEMUFile *f, int fd, size_t size);
#endif

#if SAVEVM_QEMU_VERSION >= 1000
/* Descriptors */

/*
 * Sends an open descriptor in a stream over a Unix socket, with one byte. It
 * stays open here. Flushes the file first. VMSTATE_FD() does this for a member
 * of a device. Returns 0, or -1 if the file has an error: -EIO if the channel
 * is not a Unix socket, or is encrypted.
 */
int qemu_file_put_fd(QEMUFile *f, int fd);

/*
 * Receives a descriptor that qemu_file_put_fd() sent at this place of the
 * stream. It is close-on-exec and owned by the caller. Descriptors that are
 * never received are closed with the file; at most 16 may wait. Returns the
 * descriptor, or -1 if the file has an error: -EINVAL if the next byte brought
 * no descriptor, -EIO as above.
 */
int qemu_file_get_fd(QEMUFile *f);
#endif

/* Errors */

/*
 * As qemu_file_get_error(). Stores a copy of the error in `*errp` (unless
 * `errp` is NULL), which the caller frees with error_free(). Stores NULL if the
 * file has no error, or an error without a text.
 */
int qemu_file_get_error_obj(QEMUFile *f, Error **errp);

/*
 * As qemu_file_get_error_obj() for `f1`, or for `f2` if `f1` has no error. A
 * file that is NULL has no error.
 */
int qemu_file_get_error_obj_any(QEMUFile *f1, QEMUFile *f2, Error **errp);

/*
 * Sets the error of the file to `ret`, a negative errno value, unless it has
 * one. The library owns `err` afterwards, which may be NULL. It is logged if it
 * is not used: if the file has an error, or if `ret` is 0.
 */
void qemu_file_set_error_obj(QEMUFile *f, int ret, Error *err);

/* As qemu_file_set_error_obj(), without a text. */
void qemu_file_set_error(QEMUFile *f, int ret);

/* Totals and the rate limit; all in bytes */

/*
 * Returns the bytes that were sent or received. Flushes a file that is open for
 * writing first.
 */
int64_t qemu_file_total_transferred(QEMUFile *f);

/* As qemu_file_total_transferred(), with pending data and without a flush. */
int64_t qemu_file_total_transferred_fast(QEMUFile *f);

/* Adds `size` bytes that were sent outside of the file to the total. */
void qemu_file_credit_transfer(QEMUFile *f, size_t size);

/* The limit in bytes per time window; 0 or less means no limit. */
void qemu_file_set_rate_limit(QEMUFile *f, int64_t new_rate);
int64_t qemu_file_get_rate_limit(QEMUFile *f);

/* Starts a new time window, in which no bytes are used. */
void qemu_file_reset_rate_limit(QEMUFile *f);

/* Adds `len` bytes that were sent outside of the file to this window. */
void qemu_file_acct_rate_limit(QEMUFile *f, int64_t len);

/* Writing without a copy */

/*
 * As qemu_put_buffer(), without a copy: the bytes must not change until the
 * next flush. With `may_free`, the pages are returned to the system after they
 * were sent (madvise; they read as zero afterwards).
 */
void qemu_put_buffer_async(QEMUFile *f, const uint8_t *buf, size_t size,
                           bool may_free);

/*
 * Moves the pending data of `f_src`, a file that is used as a buffer only, to
 * `f_des`. Returns the number of bytes.
 */
int qemu_put_qemu_file(QEMUFile *f_des, QEMUFile *f_src);

/* Reading ahead, at most 32 KiB after the position. */

/*
 * Stores in `*buf` a pointer to the bytes at `offset` from the position, which
 * does not change. Returns their number: `size`, or less at the end of the
 * stream or after an error. If it returns 0, `*buf` is unchanged. The bytes are
 * owned by the file and valid until its next use. offset + size is at most
 * 32768.
 */
size_t qemu_peek_buffer(QEMUFile *f, uint8_t **buf, size_t size,
                        size_t offset);

/*
 * Returns the byte at `offset` from the position, 0 if there is none. Before
 * byte n, bytes 0 to n-1 must have been peeked.
 */
int qemu_peek_byte(QEMUFile *f, int offset);

/* Advances the position by `size` bytes that were peeked before. */
void qemu_file_skip(QEMUFile *f, int size);

/*
 * Reads `size` bytes, without a copy if possible: either fills the buffer at
 * `*buf`, or sets `*buf` to a pointer into the buffer of the file, which is
 * valid until the next use of the file. Keep another pointer to a buffer that
 * you must free. Returns as qemu_get_buffer().
 */
size_t qemu_get_buffer_in_place(QEMUFile *f, uint8_t **buf, size_t size);

#if SAVEVM_QEMU_VERSION < 701
/* What these functions are called up to QEMU 7.0 */

/* qemu_file_total_transferred() */
int64_t qemu_ftell(QEMUFile *f);

/* qemu_file_total_transferred_fast() */
int64_t qemu_ftell_fast(QEMUFile *f);

/* qemu_file_credit_transfer() */
void qemu_update_position(QEMUFile *f, size_t size);

/* qemu_file_acct_rate_limit() */
void qemu_file_update_transfer(QEMUFile *f, int64_t len);
#endif

#if SAVEVM_QEMU_VERSION < 802
/*
 * Hooks of RAM, for a transport that sends pages itself (QEMU: RDMA). QEMU 8.2
 * removed them. A hook is called on the thread that uses the file, under the
 * locks of the caller. The library does not call hooks by itself; a
 * hypervisor's code for RAM calls the functions ram_control_*().
 */

/* An address in the guest's RAM. */
typedef uint64_t ram_addr_t;

/* The phases that hooks get as `flags`. */
#define RAM_CONTROL_SETUP     0 /* before the first round */
#define RAM_CONTROL_ROUND     1 /* a round of the running guest */
#define RAM_CONTROL_HOOK      2 /* a section for a hook was received */
#define RAM_CONTROL_FINISH    3 /* the last round */
#define RAM_CONTROL_BLOCK_REG 4 /* a RAM block was received; `data`: its name */

/* The flag of a section for a hook in the stream. */
#define RAM_SAVE_FLAG_HOOK 0x80

/* Results of QEMURamSaveFunc. */
#define RAM_SAVE_CONTROL_NOT_SUPP -1000 /* the caller sends the page */
#define RAM_SAVE_CONTROL_DELAYED  -2000 /* the page is sent later */

/*
 * QEMURamHookFunc: a hook around a round, or of a load. Returns 0, or a
 * negative errno value, which becomes the error of the file.
 *
 * QEMURamSaveFunc: sends the page at `offset` of the block at `block_offset`.
 * Stores the bytes that were sent in `*bytes_sent`, unless that is NULL. Returns
 * 0, RAM_SAVE_CONTROL_NOT_SUPP, RAM_SAVE_CONTROL_DELAYED, or a negative errno
 * value, which becomes the error of the file if no bytes were sent.
 */
#if SAVEVM_QEMU_VERSION < 701
/* Up to QEMU 7.0 they get the pointer that the file was opened with. */
typedef int (QEMURamHookFunc)(QEMUFile *f, void *opaque, uint64_t flags,
                              void *data);
typedef size_t (QEMURamSaveFunc)(QEMUFile *f, void *opaque,
                                 ram_addr_t block_offset, ram_addr_t offset,
                                 size_t size, uint64_t *bytes_sent);
#else
typedef int (QEMURamHookFunc)(QEMUFile *f, uint64_t flags, void *data);
typedef size_t (QEMURamSaveFunc)(QEMUFile *f, ram_addr_t block_offset,
                                 ram_addr_t offset, size_t size,
                                 uint64_t *bytes_sent);
#endif

/* The hooks of a file. Each may be NULL. */
typedef struct QEMUFileHooks {
    QEMURamHookFunc *before_ram_iterate; /* `data` is NULL */
    QEMURamHookFunc *after_ram_iterate;  /* `data` is NULL */
    QEMURamHookFunc *hook_ram_load;      /* RAM_CONTROL_HOOK or _BLOCK_REG */
    QEMURamSaveFunc *save_page;
} QEMUFileHooks;

/*
 * Sets the hooks of a file; NULL removes them. The table is not copied: it must
 * stay valid until the file is closed or gets other hooks. The return path of
 * the file does not have these hooks.
 */
#if SAVEVM_QEMU_VERSION >= 701
void qemu_file_set_hooks(QEMUFile *f, const QEMUFileHooks *hooks);
#elif !defined(SAVEVM_PLAIN_NAMES)
/* The opaque of the hooks is that of savevm_file_from_channel(). */
void savevm_file_set_opaque_hooks(QEMUFile *f, const void *hooks,
                                  void *opaque);
void *savevm_file_channel(QEMUFile *f);

static inline void qemu_file_set_hooks(QEMUFile *f, const QEMUFileHooks *hooks)
{
    savevm_file_set_opaque_hooks(f, hooks, savevm_file_channel(f));
}
#endif

/* Call the hook before or after a round, if there is one. */
void ram_control_before_iterate(QEMUFile *f, uint64_t flags);
void ram_control_after_iterate(QEMUFile *f, uint64_t flags);

/*
 * Calls the hook of a load. Without one, RAM_CONTROL_HOOK sets the error of the
 * file to -EINVAL, because the source requires the hook.
 */
void ram_control_load_hook(QEMUFile *f, uint64_t flags, void *data);

/*
 * Sends a page by its hook. Counts `size` bytes for the rate limit unless the
 * result is RAM_SAVE_CONTROL_NOT_SUPP, and adds `*bytes_sent` to the total unless
 * the page is sent later. Returns the result of the hook, or
 * RAM_SAVE_CONTROL_NOT_SUPP without a hook.
 */
size_t ram_control_save_page(QEMUFile *f, ram_addr_t block_offset,
                             ram_addr_t offset, size_t size,
                             uint64_t *bytes_sent);
#endif

#ifdef __cplusplus
}
#endif

#endif /* MIGRATION_QEMU_FILE_H */
