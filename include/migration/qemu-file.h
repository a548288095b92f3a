/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The hypervisor's side of a migration stream: its end of life, its errors,
 * its rate limit and totals, and reading ahead.
 *
 * Files are made by the savevm_file_*() functions of savevm.h. What a device
 * needs is in migration/qemu-file-types.h, whose rules hold here as well: one
 * user at a time, first error sticks. The exceptions are marked "any thread".
 * Meaning follows QEMU 7.2, migration/qemu-file.c. QEMU's functions that name
 * its QIOChannel, zlib or RDMA hooks are QEMU's own business and not here.
 */
#ifndef MIGRATION_QEMU_FILE_H
#define MIGRATION_QEMU_FILE_H

#include "migration/qemu-file-types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Life */

/*
 * Flushes what is pending, closes the channel and frees `f`. Returns the
 * file's first error if there was one, else what closing returned: 0 or a
 * negative errno value. `f` is gone in every case.
 */
int qemu_fclose(QEMUFile *f);

/*
 * Hands all pending data to the channel and waits until it is taken. Does
 * nothing on a file that is open for reading or was shut down.
 */
void qemu_fflush(QEMUFile *f);

/*
 * Stops all transfer, in both directions, and wakes whoever waits in `f`; the
 * file then has at least the error -EIO. Returns 0, -ENOSYS if the channel has
 * no way to be shut down, or -EIO if that failed. Any thread, any time before
 * qemu_fclose().
 */
int qemu_file_shutdown(QEMUFile *f);

/*
 * A new file on the same channel in the other direction, to be closed by the
 * caller, or NULL if the channel has only one direction. Shutting one of them
 * down stops both.
 */
QEMUFile *qemu_file_get_return_path(QEMUFile *f);

/*
 * Whether the channel blocks. The operating system may keep a single setting
 * for both directions, so the return path can change along.
 */
void qemu_file_set_blocking(QEMUFile *f, bool block);

/* Whether `f` is open for writing. */
bool qemu_file_is_writable(QEMUFile *f);

/* False for "rb" and "wb", true for any other mode and for NULL. */
bool qemu_file_mode_is_not_valid(const char *mode);

/* Errors */

/*
 * As qemu_file_get_error(), and stores a copy of the text in `*errp` unless
 * `errp` is NULL; the caller frees it with error_free(). `*errp` becomes NULL
 * if there is no text, which can be so even where there is an error.
 */
int qemu_file_get_error_obj(QEMUFile *f, Error **errp);

/*
 * The error of `f1`, or if it has none that of `f2`. Either may be NULL and
 * then counts as free of error.
 */
int qemu_file_get_error_obj_any(QEMUFile *f1, QEMUFile *f2, Error **errp);

/*
 * Makes `ret`, a negative errno value, the file's error if it has none yet.
 * Takes over `err`, which may be NULL; it is logged if it came too late or if
 * `ret` is 0.
 */
void qemu_file_set_error_obj(QEMUFile *f, int ret, Error *err);

/* The same without a text. */
void qemu_file_set_error(QEMUFile *f, int ret);

/* Totals and the rate limit; all in bytes */

/* Bytes that went over the channel; on a writable file flushes first. */
int64_t qemu_file_total_transferred(QEMUFile *f);

/* The same, without a flush and counting what is still pending. */
int64_t qemu_file_total_transferred_fast(QEMUFile *f);

/* Adds `size` bytes that took another way to the total. */
void qemu_file_credit_transfer(QEMUFile *f, size_t size);

/* The bytes allowed per time window; 0 or less means no limit. */
void qemu_file_set_rate_limit(QEMUFile *f, int64_t new_rate);
int64_t qemu_file_get_rate_limit(QEMUFile *f);

/* Starts a new time window: nothing is used up. */
void qemu_file_reset_rate_limit(QEMUFile *f);

/* Counts `len` bytes that took another way against this window. */
void qemu_file_acct_rate_limit(QEMUFile *f, int64_t len);

/* Writing without a copy */

/*
 * Like qemu_put_buffer(), but only remembers where the bytes are: they have
 * to stay there until the next flush. With `may_free` the file gives the pages
 * back to the system once they are sent (madvise, so they read as zero).
 */
void qemu_put_buffer_async(QEMUFile *f, const uint8_t *buf, size_t size,
                           bool may_free);

/*
 * Moves what is pending in `f_src`, a file that is only ever used as a buffer,
 * to `f_des`. Returns the number of bytes.
 */
int qemu_put_qemu_file(QEMUFile *f_des, QEMUFile *f_src);

/* Reading ahead. The file looks at most 32 KiB beyond its position. */

/*
 * Points `*buf` at the bytes from `offset` on, counted from the position,
 * which does not move. Returns how many there are: `size`, or fewer at the end
 * of the stream or on an error; with 0, `*buf` is left alone. The bytes belong
 * to the file and last until its next use. offset + size is at most 32768.
 */
size_t qemu_peek_buffer(QEMUFile *f, uint8_t **buf, size_t size,
                        size_t offset);

/*
 * The byte at `offset` from the position, 0 if there is none. Look at byte n
 * only after bytes 0 to n-1 were looked at.
 */
int qemu_peek_byte(QEMUFile *f, int offset);

/* Moves the position over `size` bytes that were looked at before. */
void qemu_file_skip(QEMUFile *f, int size);

/*
 * Reads `size` bytes without copying where that is possible: `*buf` is either
 * filled, or set to point into the file's own buffer, valid until the next use
 * of the file. Keep your own pointer to free what you allocated. Returns as
 * qemu_get_buffer() does.
 */
size_t qemu_get_buffer_in_place(QEMUFile *f, uint8_t **buf, size_t size);

#ifdef __cplusplus
}
#endif

#endif /* MIGRATION_QEMU_FILE_H */
