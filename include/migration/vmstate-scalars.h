/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Short forms for common types. Part of migration/vmstate.h; names and
 * arguments are those of QEMU 5.0 to 10.2.
 *
 *   _f           the member          _s         the state's type
 *   _v           the first version   _t, _test  decides instead of _v
 *   _n, _n1, _n2 the lengths         _start, _num  a part of an array
 *
 * Forms without _v are in every version. migration/vmstate-fields.h explains
 * the arguments, and which types a member may have.
 */
#ifndef QEMU_VMSTATE_SCALARS_H
#define QEMU_VMSTATE_SCALARS_H

#include "migration/vmstate-fields.h"

/* One line for an error in a macro; see migration/vmstate-fields.h. */
#ifdef __GNUC__
#pragma GCC system_header
#endif

/*
 * _kind is int8 to uint64 and stands for vmstate_info_<kind> and <kind>_t.
 * Names that end in an underscore are internal.
 */
#define VMSTATE_INT_(_f, _s, _test, _v, _kind) \
    VMSTATE_SINGLE_TEST(_f, _s, _test, _v, vmstate_info_##_kind, _kind##_t)
#define VMSTATE_INTS_(_f, _s, _n, _v, _kind) \
    VMSTATE_ARRAY(_f, _s, _n, _v, vmstate_info_##_kind, _kind##_t)
#define VMSTATE_INT_TABLE_(_f, _s, _n1, _n2, _v, _kind) \
    VMSTATE_2DARRAY(_f, _s, _n1, _n2, _v, vmstate_info_##_kind, _kind##_t)
#define VMSTATE_SOME_INTS_(_f, _s, _start, _num, _kind) \
    VMSTATE_SUB_ARRAY(_f, _s, _start, _num, 0, vmstate_info_##_kind, _kind##_t)
#define VMSTATE_CHECKED_(_f, _s, _v, _info, _type, _err_hint) \
    VMSTATE_SINGLE_FULL(_f, _s, NULL, _v, _info, _type, _err_hint)

/* One integer */

#define VMSTATE_INT8(_f, _s) VMSTATE_INT_(_f, _s, NULL, 0, int8)
#define VMSTATE_INT16(_f, _s) VMSTATE_INT_(_f, _s, NULL, 0, int16)
#define VMSTATE_INT32(_f, _s) VMSTATE_INT_(_f, _s, NULL, 0, int32)
#define VMSTATE_INT64(_f, _s) VMSTATE_INT_(_f, _s, NULL, 0, int64)
#define VMSTATE_UINT8(_f, _s) VMSTATE_INT_(_f, _s, NULL, 0, uint8)
#define VMSTATE_UINT16(_f, _s) VMSTATE_INT_(_f, _s, NULL, 0, uint16)
#define VMSTATE_UINT32(_f, _s) VMSTATE_INT_(_f, _s, NULL, 0, uint32)
#define VMSTATE_UINT64(_f, _s) VMSTATE_INT_(_f, _s, NULL, 0, uint64)

#define VMSTATE_INT8_V(_f, _s, _v) VMSTATE_INT_(_f, _s, NULL, _v, int8)
#define VMSTATE_INT16_V(_f, _s, _v) VMSTATE_INT_(_f, _s, NULL, _v, int16)
#define VMSTATE_INT32_V(_f, _s, _v) VMSTATE_INT_(_f, _s, NULL, _v, int32)
#define VMSTATE_INT64_V(_f, _s, _v) VMSTATE_INT_(_f, _s, NULL, _v, int64)
#define VMSTATE_UINT8_V(_f, _s, _v) VMSTATE_INT_(_f, _s, NULL, _v, uint8)
#define VMSTATE_UINT16_V(_f, _s, _v) VMSTATE_INT_(_f, _s, NULL, _v, uint16)
#define VMSTATE_UINT32_V(_f, _s, _v) VMSTATE_INT_(_f, _s, NULL, _v, uint32)
#define VMSTATE_UINT64_V(_f, _s, _v) VMSTATE_INT_(_f, _s, NULL, _v, uint64)

#define VMSTATE_INT8_TEST(_f, _s, _t) VMSTATE_INT_(_f, _s, _t, 0, int8)
#define VMSTATE_INT16_TEST(_f, _s, _t) VMSTATE_INT_(_f, _s, _t, 0, int16)
#define VMSTATE_INT32_TEST(_f, _s, _t) VMSTATE_INT_(_f, _s, _t, 0, int32)
#define VMSTATE_INT64_TEST(_f, _s, _t) VMSTATE_INT_(_f, _s, _t, 0, int64)
#define VMSTATE_UINT8_TEST(_f, _s, _t) VMSTATE_INT_(_f, _s, _t, 0, uint8)
#define VMSTATE_UINT16_TEST(_f, _s, _t) VMSTATE_INT_(_f, _s, _t, 0, uint16)
#define VMSTATE_UINT32_TEST(_f, _s, _t) VMSTATE_INT_(_f, _s, _t, 0, uint32)
#define VMSTATE_UINT64_TEST(_f, _s, _t) VMSTATE_INT_(_f, _s, _t, 0, uint64)

/* One bool: a byte on the wire */

#define VMSTATE_BOOL_TEST(_f, _s, _t) \
    VMSTATE_SINGLE_TEST(_f, _s, _t, 0, vmstate_info_bool, bool)
#define VMSTATE_BOOL_V(_f, _s, _v) \
    VMSTATE_SINGLE(_f, _s, _v, vmstate_info_bool, bool)
#define VMSTATE_BOOL(_f, _s) VMSTATE_BOOL_V(_f, _s, 0)

/*
 * One open file descriptor, an int32_t, which travels beside the stream (QEMU
 * 10.0). The stream must go over a unix socket without TLS. The descriptor stays
 * open on the source. On the destination it is a new one and close-on-exec.
 */
#if SAVEVM_QEMU_VERSION >= 1000
#define VMSTATE_FD_TEST(_f, _s, _t) \
    VMSTATE_SINGLE_TEST(_f, _s, _t, 0, vmstate_info_fd, int32_t)
#define VMSTATE_FD_V(_f, _s, _v) \
    VMSTATE_SINGLE(_f, _s, _v, vmstate_info_fd, int32_t)
#define VMSTATE_FD(_f, _s) VMSTATE_FD_V(_f, _s, 0)
#endif

/*
 * One integer of the kernel's type; include <linux/types.h>. VMSTATE_UINT8 to
 * VMSTATE_UINT64 accept these types too.
 */
#if defined(CONFIG_LINUX) || defined(__linux__)
#define VMSTATE_U8_V(_f, _s, _v) \
    VMSTATE_SINGLE(_f, _s, _v, vmstate_info_uint8, __u8)
#define VMSTATE_U16_V(_f, _s, _v) \
    VMSTATE_SINGLE(_f, _s, _v, vmstate_info_uint16, __u16)
#define VMSTATE_U32_V(_f, _s, _v) \
    VMSTATE_SINGLE(_f, _s, _v, vmstate_info_uint32, __u32)
#define VMSTATE_U64_V(_f, _s, _v) \
    VMSTATE_SINGLE(_f, _s, _v, vmstate_info_uint64, __u64)

#define VMSTATE_U8(_f, _s) VMSTATE_U8_V(_f, _s, 0)
#define VMSTATE_U16(_f, _s) VMSTATE_U16_V(_f, _s, 0)
#define VMSTATE_U32(_f, _s) VMSTATE_U32_V(_f, _s, 0)
#define VMSTATE_U64(_f, _s) VMSTATE_U64_V(_f, _s, 0)
#endif

/*
 * One integer that both sides have to agree on. _err_hint is a string that is
 * shown with the refusal, or NULL.
 */

#define VMSTATE_UINT8_EQUAL(_f, _s, _err_hint) \
    VMSTATE_CHECKED_(_f, _s, 0, vmstate_info_uint8_equal, uint8_t, _err_hint)
#define VMSTATE_UINT16_EQUAL(_f, _s, _err_hint) \
    VMSTATE_CHECKED_(_f, _s, 0, vmstate_info_uint16_equal, uint16_t, _err_hint)
#define VMSTATE_UINT16_EQUAL_V(_f, _s, _v, _err_hint) \
    VMSTATE_CHECKED_(_f, _s, _v, vmstate_info_uint16_equal, uint16_t, _err_hint)
#define VMSTATE_UINT32_EQUAL(_f, _s, _err_hint) \
    VMSTATE_CHECKED_(_f, _s, 0, vmstate_info_uint32_equal, uint32_t, _err_hint)
#define VMSTATE_UINT32_EQUAL_V(_f, _s, _v, _err_hint) \
    VMSTATE_CHECKED_(_f, _s, _v, vmstate_info_uint32_equal, uint32_t, _err_hint)
#define VMSTATE_UINT64_EQUAL(_f, _s, _err_hint) \
    VMSTATE_CHECKED_(_f, _s, 0, vmstate_info_uint64_equal, uint64_t, _err_hint)
#define VMSTATE_UINT64_EQUAL_V(_f, _s, _v, _err_hint) \
    VMSTATE_CHECKED_(_f, _s, _v, vmstate_info_uint64_equal, uint64_t, _err_hint)
#define VMSTATE_INT32_EQUAL(_f, _s, _err_hint) \
    VMSTATE_CHECKED_(_f, _s, 0, vmstate_info_int32_equal, int32_t, _err_hint)

/* One int32_t that may not be negative, nor larger than it is already. */
#define VMSTATE_INT32_POSITIVE_LE(_f, _s) \
    VMSTATE_SINGLE(_f, _s, 0, vmstate_info_int32_le, int32_t)

/* Arrays of integers */

#define VMSTATE_INT16_ARRAY(_f, _s, _n) VMSTATE_INTS_(_f, _s, _n, 0, int16)
#define VMSTATE_INT32_ARRAY(_f, _s, _n) VMSTATE_INTS_(_f, _s, _n, 0, int32)
#define VMSTATE_INT64_ARRAY(_f, _s, _n) VMSTATE_INTS_(_f, _s, _n, 0, int64)
#define VMSTATE_UINT8_ARRAY(_f, _s, _n) VMSTATE_INTS_(_f, _s, _n, 0, uint8)
#define VMSTATE_UINT16_ARRAY(_f, _s, _n) VMSTATE_INTS_(_f, _s, _n, 0, uint16)
#define VMSTATE_UINT32_ARRAY(_f, _s, _n) VMSTATE_INTS_(_f, _s, _n, 0, uint32)
#define VMSTATE_UINT64_ARRAY(_f, _s, _n) VMSTATE_INTS_(_f, _s, _n, 0, uint64)

#define VMSTATE_INT16_ARRAY_V(_f, _s, _n, _v) \
    VMSTATE_INTS_(_f, _s, _n, _v, int16)
#define VMSTATE_INT32_ARRAY_V(_f, _s, _n, _v) \
    VMSTATE_INTS_(_f, _s, _n, _v, int32)
#define VMSTATE_INT64_ARRAY_V(_f, _s, _n, _v) \
    VMSTATE_INTS_(_f, _s, _n, _v, int64)
#define VMSTATE_UINT8_ARRAY_V(_f, _s, _n, _v) \
    VMSTATE_INTS_(_f, _s, _n, _v, uint8)
#define VMSTATE_UINT16_ARRAY_V(_f, _s, _n, _v) \
    VMSTATE_INTS_(_f, _s, _n, _v, uint16)
#define VMSTATE_UINT32_ARRAY_V(_f, _s, _n, _v) \
    VMSTATE_INTS_(_f, _s, _n, _v, uint32)
#define VMSTATE_UINT64_ARRAY_V(_f, _s, _n, _v) \
    VMSTATE_INTS_(_f, _s, _n, _v, uint64)

#define VMSTATE_UINT8_SUB_ARRAY(_f, _s, _start, _num) \
    VMSTATE_SOME_INTS_(_f, _s, _start, _num, uint8)
#define VMSTATE_UINT16_SUB_ARRAY(_f, _s, _start, _num) \
    VMSTATE_SOME_INTS_(_f, _s, _start, _num, uint16)
#define VMSTATE_UINT32_SUB_ARRAY(_f, _s, _start, _num) \
    VMSTATE_SOME_INTS_(_f, _s, _start, _num, uint32)
#define VMSTATE_UINT64_SUB_ARRAY(_f, _s, _start, _num) \
    VMSTATE_SOME_INTS_(_f, _s, _start, _num, uint64)

#define VMSTATE_UINT8_2DARRAY(_f, _s, _n1, _n2) \
    VMSTATE_INT_TABLE_(_f, _s, _n1, _n2, 0, uint8)
#define VMSTATE_UINT16_2DARRAY(_f, _s, _n1, _n2) \
    VMSTATE_INT_TABLE_(_f, _s, _n1, _n2, 0, uint16)
#define VMSTATE_UINT32_2DARRAY(_f, _s, _n1, _n2) \
    VMSTATE_INT_TABLE_(_f, _s, _n1, _n2, 0, uint32)
#define VMSTATE_UINT64_2DARRAY(_f, _s, _n1, _n2) \
    VMSTATE_INT_TABLE_(_f, _s, _n1, _n2, 0, uint64)

#define VMSTATE_UINT8_2DARRAY_V(_f, _s, _n1, _n2, _v) \
    VMSTATE_INT_TABLE_(_f, _s, _n1, _n2, _v, uint8)
#define VMSTATE_UINT16_2DARRAY_V(_f, _s, _n1, _n2, _v) \
    VMSTATE_INT_TABLE_(_f, _s, _n1, _n2, _v, uint16)
#define VMSTATE_UINT32_2DARRAY_V(_f, _s, _n1, _n2, _v) \
    VMSTATE_INT_TABLE_(_f, _s, _n1, _n2, _v, uint32)
#define VMSTATE_UINT64_2DARRAY_V(_f, _s, _n1, _n2, _v) \
    VMSTATE_INT_TABLE_(_f, _s, _n1, _n2, _v, uint64)

/* Arrays of bool */

#define VMSTATE_BOOL_ARRAY_V(_f, _s, _n, _v) \
    VMSTATE_ARRAY(_f, _s, _n, _v, vmstate_info_bool, bool)
#define VMSTATE_BOOL_ARRAY(_f, _s, _n) VMSTATE_BOOL_ARRAY_V(_f, _s, _n, 0)
#define VMSTATE_BOOL_SUB_ARRAY(_f, _s, _start, _num) \
    VMSTATE_SUB_ARRAY(_f, _s, _start, _num, 0, vmstate_info_bool, bool)

/* Arrays of CPU_DoubleU, see qemu/cpu-float.h */

#define VMSTATE_CPUDOUBLE_ARRAY_V(_f, _s, _n, _v) \
    VMSTATE_ARRAY(_f, _s, _n, _v, vmstate_info_cpudouble, CPU_DoubleU)
#define VMSTATE_CPUDOUBLE_ARRAY(_f, _s, _n) \
    VMSTATE_CPUDOUBLE_ARRAY_V(_f, _s, _n, 0)

/*
 * Timers: when they expire, or that they do not. In place (the complete type
 * has to be known), behind a pointer, and arrays of both.
 */

#define VMSTATE_TIMER_TEST(_f, _s, _test) \
    VMSTATE_SINGLE_TEST(_f, _s, _test, 0, vmstate_info_timer, QEMUTimer)
#define VMSTATE_TIMER_V(_f, _s, _v) \
    VMSTATE_SINGLE(_f, _s, _v, vmstate_info_timer, QEMUTimer)
#define VMSTATE_TIMER(_f, _s) VMSTATE_TIMER_V(_f, _s, 0)
#define VMSTATE_TIMER_ARRAY(_f, _s, _n) \
    VMSTATE_ARRAY(_f, _s, _n, 0, vmstate_info_timer, QEMUTimer)

#define VMSTATE_TIMER_PTR_TEST(_f, _s, _test) \
    VMSTATE_POINTER_TEST(_f, _s, _test, vmstate_info_timer, QEMUTimer *)
#define VMSTATE_TIMER_PTR_V(_f, _s, _v) \
    VMSTATE_POINTER(_f, _s, _v, vmstate_info_timer, QEMUTimer *)
#define VMSTATE_TIMER_PTR(_f, _s) VMSTATE_TIMER_PTR_V(_f, _s, 0)
#define VMSTATE_TIMER_PTR_ARRAY(_f, _s, _n) \
    VMSTATE_ARRAY_OF_POINTER(_f, _s, _n, 0, vmstate_info_timer, QEMUTimer *)

/*
 * An array of uint8_t, int8_t or char: the whole array, its first _size bytes,
 * or all bytes from index _start on.
 */

#define VMSTATE_BUFFER_TEST(_f, _s, _test) \
    VMSTATE_STATIC_BUFFER(_f, _s, 0, _test, 0, sizeof(VMSTATE_TYPE_(_s, _f)))
#define VMSTATE_BUFFER_V(_f, _s, _v) \
    VMSTATE_STATIC_BUFFER(_f, _s, _v, NULL, 0, sizeof(VMSTATE_TYPE_(_s, _f)))
#define VMSTATE_BUFFER(_f, _s) VMSTATE_BUFFER_V(_f, _s, 0)
#define VMSTATE_PARTIAL_BUFFER(_f, _s, _size) \
    VMSTATE_STATIC_BUFFER(_f, _s, 0, NULL, 0, _size)
#define VMSTATE_BUFFER_START_MIDDLE_V(_f, _s, _start, _v) \
    VMSTATE_STATIC_BUFFER(_f, _s, _v, NULL, _start,       \
                          sizeof(VMSTATE_TYPE_(_s, _f)))
#define VMSTATE_BUFFER_START_MIDDLE(_f, _s, _start) \
    VMSTATE_BUFFER_START_MIDDLE_V(_f, _s, _start, 0)

/* _size bytes of a member of any type, as they are in memory. */
#define VMSTATE_BUFFER_UNSAFE(_field, _state, _version, _size) \
    VMSTATE_BUFFER_UNSAFE_INFO(_field, _state, _version, vmstate_info_buffer,  \
                               _size)

/* As many bytes behind a pointer as the member _size says. */
#define VMSTATE_PARTIAL_VBUFFER(_f, _s, _size) \
    VMSTATE_VBUFFER(_f, _s, 0, NULL, _size)
#define VMSTATE_PARTIAL_VBUFFER_UINT32(_f, _s, _size) \
    VMSTATE_VBUFFER_UINT32(_f, _s, 0, NULL, _size)

/* Bytes that were sent once and mean nothing now. */
#define VMSTATE_UNUSED_TEST(_test, _size) \
    VMSTATE_UNUSED_BUFFER(_test, 0, _size)
#define VMSTATE_UNUSED_V(_v, _size) VMSTATE_UNUSED_BUFFER(NULL, _v, _size)
#define VMSTATE_UNUSED(_size) VMSTATE_UNUSED_V(0, _size)

#endif /* QEMU_VMSTATE_SCALARS_H */
