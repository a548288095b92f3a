/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Functions of a migration file for devices: write and read bytes, integers
 * (big-endian in the stream), buffers and short strings.
 *
 * Rules for all functions (QEMU 7.2: migration/qemu-file.c):
 *  - `f` is the file that the callback was given. It is owned by the caller.
 *  - A file has one user at a time. The callback that is given `f` defines the
 *    thread and the lock.
 *  - Functions that write or read do not return errors. The file keeps its
 *    first error: writing then does nothing, and reading returns zeros, as it
 *    does after the end of the data. Call qemu_file_get_error() once, at the
 *    end.
 *  - Writing needs a file that is open for writing, reading one that is open
 *    for reading.
 */
#ifndef MIGRATION_QEMU_FILE_TYPES_H
#define MIGRATION_QEMU_FILE_TYPES_H

#include "qemu/typedefs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Returns the first error of the file as a negative errno value, or 0. */
int qemu_file_get_error(QEMUFile *f);

/* Bytes and buffers */

/* Writes `size` bytes from `buf`, which may change after the call. */
void qemu_put_buffer(QEMUFile *f, const uint8_t *buf, size_t size);

/* Writes the low eight bits of `v`. */
void qemu_put_byte(QEMUFile *f, int v);

/*
 * Reads `size` bytes into `buf`. Returns the number of bytes read. It is less
 * than `size` only at the end of the stream or after an error; the rest of
 * `buf` is then unchanged.
 */
size_t qemu_get_buffer(QEMUFile *f, uint8_t *buf, size_t size);

/* Reads and returns one byte, 0 to 255; 0 if there is none. */
int qemu_get_byte(QEMUFile *f);

/* A byte has no sign in the stream: these are the same functions. */
#define qemu_put_sbyte qemu_put_byte
#define qemu_get_sbyte qemu_get_byte

static inline unsigned int qemu_get_ubyte(QEMUFile *f)
{
    return (unsigned int)qemu_get_byte(f);
}

/* Unsigned integers, by value: the low 16, 32 or 64 bits, big-endian */

void qemu_put_be16(QEMUFile *f, unsigned int v);
void qemu_put_be32(QEMUFile *f, unsigned int v);
void qemu_put_be64(QEMUFile *f, uint64_t v);

unsigned int qemu_get_be16(QEMUFile *f);
unsigned int qemu_get_be32(QEMUFile *f);
uint64_t qemu_get_be64(QEMUFile *f);

/*
 * Unsigned integers, through a pointer of exactly the right type. The get
 * functions always store a value, zero after the end of the data.
 */

static inline void qemu_put_8s(QEMUFile *f, const uint8_t *pv)
{
    qemu_put_byte(f, *pv);
}

static inline void qemu_put_be16s(QEMUFile *f, const uint16_t *pv)
{
    qemu_put_be16(f, *pv);
}

static inline void qemu_put_be32s(QEMUFile *f, const uint32_t *pv)
{
    qemu_put_be32(f, *pv);
}

static inline void qemu_put_be64s(QEMUFile *f, const uint64_t *pv)
{
    qemu_put_be64(f, *pv);
}

static inline void qemu_get_8s(QEMUFile *f, uint8_t *pv)
{
    *pv = (uint8_t)qemu_get_byte(f);
}

static inline void qemu_get_be16s(QEMUFile *f, uint16_t *pv)
{
    *pv = (uint16_t)qemu_get_be16(f);
}

static inline void qemu_get_be32s(QEMUFile *f, uint32_t *pv)
{
    *pv = (uint32_t)qemu_get_be32(f);
}

static inline void qemu_get_be64s(QEMUFile *f, uint64_t *pv)
{
    *pv = qemu_get_be64(f);
}

/*
 * Signed integers, by value: two's complement in the stream. qemu_get_sbe16()
 * does not extend the sign: it returns 0 to 65535, as in QEMU, and streams
 * depend on it. qemu_get_sbe16s() stores a correct int16_t.
 */

static inline void qemu_put_sbe16(QEMUFile *f, int v)
{
    qemu_put_be16(f, (unsigned int)v);
}

static inline void qemu_put_sbe32(QEMUFile *f, int v)
{
    qemu_put_be32(f, (unsigned int)v);
}

static inline void qemu_put_sbe64(QEMUFile *f, int64_t v)
{
    qemu_put_be64(f, (uint64_t)v);
}

static inline int qemu_get_sbe16(QEMUFile *f)
{
    return (int)qemu_get_be16(f);
}

static inline int qemu_get_sbe32(QEMUFile *f)
{
    return (int)qemu_get_be32(f);
}

static inline int64_t qemu_get_sbe64(QEMUFile *f)
{
    return (int64_t)qemu_get_be64(f);
}

/* Signed integers, through a pointer of exactly the right type */

static inline void qemu_put_s8s(QEMUFile *f, const int8_t *pv)
{
    qemu_put_byte(f, *pv);
}

static inline void qemu_put_sbe16s(QEMUFile *f, const int16_t *pv)
{
    qemu_put_be16(f, (uint16_t)*pv);
}

static inline void qemu_put_sbe32s(QEMUFile *f, const int32_t *pv)
{
    qemu_put_be32(f, (uint32_t)*pv);
}

static inline void qemu_put_sbe64s(QEMUFile *f, const int64_t *pv)
{
    qemu_put_be64(f, (uint64_t)*pv);
}

static inline void qemu_get_s8s(QEMUFile *f, int8_t *pv)
{
    *pv = (int8_t)qemu_get_byte(f);
}

static inline void qemu_get_sbe16s(QEMUFile *f, int16_t *pv)
{
    *pv = (int16_t)qemu_get_be16(f);
}

static inline void qemu_get_sbe32s(QEMUFile *f, int32_t *pv)
{
    *pv = (int32_t)qemu_get_be32(f);
}

static inline void qemu_get_sbe64s(QEMUFile *f, int64_t *pv)
{
    *pv = (int64_t)qemu_get_be64(f);
}

/* Counted strings: one length byte, then that many bytes without terminator */

/*
 * Reads a string into `buf`, which has room for 256 bytes, and terminates it.
 * Returns its length; 0 for an empty string, and if the data ended early.
 */
size_t qemu_get_counted_string(QEMUFile *f, char buf[256]);

/* Writes `name`, which is terminated and at most 255 bytes long. */
void qemu_put_counted_string(QEMUFile *f, const char *name);

/*
 * Returns 1 if save_live_iterate should return: the bytes of this time window
 * are used, the file has an error, or it was shut down. Otherwise returns 0.
 */
int qemu_file_rate_limit(QEMUFile *f);

#if SAVEVM_QEMU_VERSION >= 801 && !defined(QEMU_OSDEP_H)
/* The same. QEMU 8.1 and newer have this name. */
static inline bool migration_rate_exceeded(QEMUFile *f)
{
    return qemu_file_rate_limit(f) != 0;
}
#endif

/*
 * Timers of the hypervisor: the expiry time in ns, or -1 if the timer is not
 * armed. SaveVMHostOps reads and sets it. Without these operations the file has
 * the error -ENOSYS. VMSTATE_TIMER() does the same for a field. QEMU 7.2:
 * include/qemu/timer.h, migration/savevm.c.
 */

/* Writes the expiry time of `ts`. */
void timer_put(QEMUFile *f, QEMUTimer *ts);

/* Reads what timer_put() wrote, and arms or disarms `ts`. */
void timer_get(QEMUFile *f, QEMUTimer *ts);

#ifdef __cplusplus
}
#endif

#endif /* MIGRATION_QEMU_FILE_TYPES_H */
