/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each case is one field. Case 0 has fields of the right types and compiles;
 * every other case gets one type wrong and must not compile. check-headers.sh
 * reads the numbers of the cases.
 */
#include <linux/types.h>

#include "migration/vmstate.h"

struct Part {
    uint32_t a;
};

struct Other {
    uint32_t a;
};

struct Device {
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    int32_t i32;
    uint64_t u64;
    bool flag;
    uint16_t words[8];
    uint8_t bytes[8];
    uint32_t table[2][3];
    uint32_t *numbers;
    uint8_t *data;
    struct Part part;
    struct Part parts[4];
    struct Part *pointer;
    struct Part *pointers[4];
    QEMUTimer *timer;
    unsigned long long wide, *wides, wide_array[4], wide_table[2][3];
    long long wide_signed;
    __u64 kernel_u64;
    __s64 kernel_s64, kernel_array[4];
    char text[8];
    signed char signed_bytes[8];
    char letter;
    const uint32_t constant;
    volatile uint64_t unstable;
    enum Kind { KIND_A, KIND_B } kind;
};

struct Rom {
    uint16_t size;
    uint16_t contents[];
};

struct Scratch {
    struct Device *parent;
    uint32_t value;
};

struct LateParent {
    uint32_t value;
    struct Device *parent;
};

struct OtherParent {
    struct Other *parent;
};

extern const VMStateDescription vmstate_part;

extern const VMStateField fields[];
const VMStateField fields[] = {
#if CASE == 0
    VMSTATE_UINT8(u8, struct Device),
    VMSTATE_UINT16_ARRAY(words, struct Device, 8),
    VMSTATE_UINT16_SUB_ARRAY(words, struct Device, 2, 4),
    VMSTATE_UINT32_2DARRAY(table, struct Device, 2, 3),
    VMSTATE_BUFFER(bytes, struct Device),
    VMSTATE_VARRAY_UINT32(numbers, struct Device, u32, 0, vmstate_info_uint32,
                          uint32_t),
    VMSTATE_VARRAY_UINT16_UNSAFE(words, struct Device, u16, 0,
                                 vmstate_info_uint16, uint16_t),
    VMSTATE_STRUCT(part, struct Device, 0, vmstate_part, struct Part),
    VMSTATE_STRUCT_ARRAY(parts, struct Device, 4, 0, vmstate_part,
                         struct Part),
    VMSTATE_STRUCT_POINTER(pointer, struct Device, vmstate_part, struct Part),
    VMSTATE_STRUCT_VARRAY_UINT8(parts, struct Device, u8, 0, vmstate_part,
                                struct Part),
    VMSTATE_ARRAY_OF_POINTER_TO_STRUCT(pointers, struct Device, 4, 0,
                                       vmstate_part, struct Part),
    VMSTATE_VBUFFER(data, struct Device, 0, NULL, i32),
    VMSTATE_VBUFFER_UINT32(data, struct Device, 0, NULL, u32),
    VMSTATE_TIMER_PTR(timer, struct Device),
    VMSTATE_WITH_TMP(struct Device, struct Scratch, vmstate_part),
    /* Types of one width and signedness. */
    VMSTATE_UINT64(wide, struct Device),
    VMSTATE_UINT64_V(kernel_u64, struct Device, 2),
    VMSTATE_INT64(wide_signed, struct Device),
    VMSTATE_INT64(kernel_s64, struct Device),
    VMSTATE_INT64_ARRAY(kernel_array, struct Device, 4),
    VMSTATE_UINT64_ARRAY(wide_array, struct Device, 4),
    VMSTATE_UINT64_SUB_ARRAY(wide_array, struct Device, 1, 2),
    VMSTATE_UINT64_2DARRAY(wide_table, struct Device, 2, 3),
    VMSTATE_VARRAY_UINT32(wides, struct Device, u32, 0, vmstate_info_uint64, uint64_t),
    VMSTATE_VARRAY_UINT16_UNSAFE(wide_array, struct Device, u16, 0, vmstate_info_uint64, uint64_t),
    VMSTATE_SINGLE(u64, struct Device, 0, vmstate_info_uint64, unsigned long long),
    VMSTATE_SINGLE(wide, struct Device, 0, vmstate_info_uint64, unsigned long long),
    VMSTATE_U64(u64, struct Device),
    VMSTATE_BUFFER(text, struct Device),
    VMSTATE_BUFFER(signed_bytes, struct Device),
    VMSTATE_PARTIAL_BUFFER(text, struct Device, 4),
    VMSTATE_UINT32(constant, struct Device),
    VMSTATE_UINT64(unstable, struct Device),
#ifndef __cplusplus
    VMSTATE_VARRAY_UINT16_UNSAFE(contents, struct Rom, size, 0, vmstate_info_uint16, uint16_t),
    VMSTATE_UINT32(kind, struct Device),
#endif
#elif CASE == 1
    VMSTATE_UINT8(u16, struct Device),
#elif CASE == 2
    VMSTATE_UINT32(i32, struct Device),
#elif CASE == 3
    VMSTATE_BOOL(u8, struct Device),
#elif CASE == 4
    VMSTATE_UINT8(bytes, struct Device),
#elif CASE == 5
    VMSTATE_UINT16_ARRAY(words, struct Device, 7),
#elif CASE == 6
    VMSTATE_UINT32_ARRAY(words, struct Device, 8),
#elif CASE == 7
    VMSTATE_UINT32_ARRAY(numbers, struct Device, 8),
#elif CASE == 8
    VMSTATE_UINT32_SUB_ARRAY(words, struct Device, 2, 4),
#elif CASE == 9
    VMSTATE_UINT32_2DARRAY(table, struct Device, 3, 2),
#elif CASE == 10
    VMSTATE_BUFFER(words, struct Device),
#elif CASE == 11
    VMSTATE_BUFFER(data, struct Device),
#elif CASE == 12
    VMSTATE_VARRAY_UINT32(numbers, struct Device, i32, 0, vmstate_info_uint32, uint32_t),
#elif CASE == 13
    VMSTATE_VARRAY_UINT32(data, struct Device, u32, 0, vmstate_info_uint32, uint32_t),
#elif CASE == 14
    VMSTATE_VARRAY_UINT32(table, struct Device, u32, 0, vmstate_info_uint32, uint32_t),
#elif CASE == 15
    VMSTATE_VARRAY_UINT16_UNSAFE(numbers, struct Device, u16, 0, vmstate_info_uint32, uint32_t),
#elif CASE == 16
    VMSTATE_VARRAY_UINT16_UNSAFE(words, struct Device, u32, 0, vmstate_info_uint16, uint16_t),
#elif CASE == 17
    VMSTATE_VARRAY_UINT16_UNSAFE(words, struct Device, u16, 0, vmstate_info_int16, int16_t),
#elif CASE == 18
    VMSTATE_STRUCT(part, struct Device, 0, vmstate_part, struct Other),
#elif CASE == 19
    VMSTATE_STRUCT(pointer, struct Device, 0, vmstate_part, struct Part),
#elif CASE == 20
    VMSTATE_STRUCT_POINTER(part, struct Device, vmstate_part, struct Part),
#elif CASE == 21
    VMSTATE_STRUCT_POINTER(pointer, struct Device, vmstate_part, struct Other),
#elif CASE == 22
    VMSTATE_STRUCT_ARRAY(parts, struct Device, 5, 0, vmstate_part, struct Part),
#elif CASE == 23
    VMSTATE_STRUCT_VARRAY_UINT8(pointer, struct Device, u8, 0, vmstate_part, struct Part),
#elif CASE == 24
    VMSTATE_STRUCT_VARRAY_UINT8(parts, struct Device, u16, 0, vmstate_part, struct Part),
#elif CASE == 25
    VMSTATE_STRUCT_VARRAY_POINTER_INT32(parts, struct Device, i32, vmstate_part, struct Part),
#elif CASE == 26
    VMSTATE_ARRAY_OF_POINTER_TO_STRUCT(parts, struct Device, 4, 0, vmstate_part, struct Part),
#elif CASE == 27
    VMSTATE_VBUFFER(data, struct Device, 0, NULL, u32),
#elif CASE == 28
    VMSTATE_VBUFFER_UINT32(data, struct Device, 0, NULL, i32),
#elif CASE == 29
    VMSTATE_BITMAP(data, struct Device, 0, u32),
#elif CASE == 30
    VMSTATE_TIMER_PTR(pointer, struct Device),
#elif CASE == 31
    VMSTATE_WITH_TMP(struct Device, struct LateParent, vmstate_part),
#elif CASE == 32
    VMSTATE_WITH_TMP(struct Device, struct OtherParent, vmstate_part),
#elif CASE == 33
    VMSTATE_UNUSED_VARRAY_UINT32(struct Device, NULL, 0, i32, 4),
#elif CASE == 34
    VMSTATE_UINT32(missing, struct Device),
#elif CASE == 35
    VMSTATE_INT32_POSITIVE_LE(u32, struct Device),
#elif CASE == 36
    VMSTATE_UINT16_EQUAL(u32, struct Device, "hint"),
#elif CASE == 37
    VMSTATE_UINT64(kernel_s64, struct Device),
#elif CASE == 38
    VMSTATE_INT64(wide, struct Device),
#elif CASE == 39
    VMSTATE_UINT32(wide, struct Device),
#elif CASE == 40
    VMSTATE_UINT64_ARRAY(wide_array, struct Device, 5),
#elif CASE == 41
    VMSTATE_UINT64(wides, struct Device),
#elif CASE == 42
    VMSTATE_UINT8(letter, struct Device),
#elif CASE == 43
    VMSTATE_BUFFER(words, struct Device),
#elif CASE == 44
    VMSTATE_BUFFER(letter, struct Device),
#elif CASE == 45
    VMSTATE_BUFFER(data, struct Device),
#elif CASE == 46
    VMSTATE_VARRAY_UINT32(wides, struct Device, u32, 0, vmstate_info_int64, int64_t),
#elif CASE == 47
    VMSTATE_UINT8(flag, struct Device),
#elif CASE == 48
    VMSTATE_UINT64(part, struct Device),
#endif
    VMSTATE_END_OF_LIST()
};
