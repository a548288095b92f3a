/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every VMState macro once, as C99 and as C++; check-headers.sh looks that
 * none is missing here. What they mean is tested in ../vmstate.
 */
#include <linux/types.h>

#include "migration/vmstate.h"
#include "qemu/cpu-float.h"
#include "qemu/queue.h"

struct QEMUTimer {
    int64_t expire;
};

typedef struct Item {
    uint32_t a;
    QTAILQ_ENTRY(Item) in_queue;
    QLIST_ENTRY(Item) in_list;
} Item;

typedef struct S {
    bool b, bs[4];
    int8_t i8;
    int16_t i16, i16s[4];
    int32_t i32, i32s[4], n32, len;
    int64_t i64, i64s[4];
    uint8_t u8, u8s[8], u8t[2][3], n8;
    uint16_t u16, u16s[4], u16t[2][3], n16;
    uint32_t u32, u32s[4], u32t[2][3], nu32, ulen;
    uint64_t u64, u64s[4], u64t[2][3];
    __u8 k8;
    __u16 k16;
    __u32 k32;
    __u64 k64;
    CPU_DoubleU doubles[2];
    uint32_t *p32, *ps[4];
    uint16_t *p16;
    uint8_t *bytes;
    QEMUTimer timer, timers[2], *timer_p, *timer_ps[2], **p_timers;
    Item item, items[4], itemt[2][3], *item_p, *item_ps[4];
    QTAILQ_HEAD(, Item) queue;
    QLIST_HEAD(, Item) list;
    void *tree;
} S;

typedef struct Tmp {
    S *parent;
    uint32_t value;
} Tmp;

extern const VMStateDescription vmsd;
extern const VMStateDescription pair[2];
bool test(void *opaque, int version_id);

extern const VMStateField single[];
const VMStateField single[] = {
    VMSTATE_BOOL(b, S), VMSTATE_BOOL_V(b, S, 2), VMSTATE_BOOL_TEST(b, S, test),
    VMSTATE_INT8(i8, S), VMSTATE_INT8_V(i8, S, 2),
    VMSTATE_INT8_TEST(i8, S, test),
    VMSTATE_INT16(i16, S), VMSTATE_INT16_V(i16, S, 2),
    VMSTATE_INT16_TEST(i16, S, test),
    VMSTATE_INT32(i32, S), VMSTATE_INT32_V(i32, S, 2),
    VMSTATE_INT32_TEST(i32, S, test),
    VMSTATE_INT64(i64, S), VMSTATE_INT64_V(i64, S, 2),
    VMSTATE_INT64_TEST(i64, S, test),
    VMSTATE_UINT8(u8, S), VMSTATE_UINT8_V(u8, S, 2),
    VMSTATE_UINT8_TEST(u8, S, test),
    VMSTATE_UINT16(u16, S), VMSTATE_UINT16_V(u16, S, 2),
    VMSTATE_UINT16_TEST(u16, S, test),
    VMSTATE_UINT32(u32, S), VMSTATE_UINT32_V(u32, S, 2),
    VMSTATE_UINT32_TEST(u32, S, test),
    VMSTATE_UINT64(u64, S), VMSTATE_UINT64_V(u64, S, 2),
    VMSTATE_UINT64_TEST(u64, S, test),
    VMSTATE_U8(k8, S), VMSTATE_U8_V(k8, S, 2),
    VMSTATE_U16(k16, S), VMSTATE_U16_V(k16, S, 2),
    VMSTATE_U32(k32, S), VMSTATE_U32_V(k32, S, 2),
    VMSTATE_U64(k64, S), VMSTATE_U64_V(k64, S, 2),
    VMSTATE_UINT8_EQUAL(u8, S, "hint"), VMSTATE_UINT16_EQUAL(u16, S, "hint"),
    VMSTATE_UINT16_EQUAL_V(u16, S, 2, "hint"),
    VMSTATE_UINT32_EQUAL(u32, S, "hint"),
    VMSTATE_UINT32_EQUAL_V(u32, S, 2, "hint"),
    VMSTATE_UINT64_EQUAL(u64, S, NULL), VMSTATE_UINT64_EQUAL_V(u64, S, 2, NULL),
    VMSTATE_INT32_EQUAL(i32, S, NULL), VMSTATE_INT32_POSITIVE_LE(i32, S),
    VMSTATE_SINGLE(u32, S, 0, vmstate_info_uint32, uint32_t),
    VMSTATE_SINGLE_TEST(u32, S, test, 0, vmstate_info_uint32, uint32_t),
    VMSTATE_SINGLE_FULL(u32, S, test, 0, vmstate_info_uint32, uint32_t, "hint"),
    VMSTATE_POINTER(p32, S, 0, vmstate_info_uint32, uint32_t *),
    VMSTATE_POINTER_TEST(p32, S, test, vmstate_info_uint32, uint32_t *),
    VMSTATE_TIMER(timer, S), VMSTATE_TIMER_V(timer, S, 2),
    VMSTATE_TIMER_TEST(timer, S, test), VMSTATE_TIMER_PTR(timer_p, S),
    VMSTATE_TIMER_PTR_V(timer_p, S, 2), VMSTATE_TIMER_PTR_TEST(timer_p, S, test),
    VMSTATE_VALIDATE("valid", test),
#if SAVEVM_QEMU_VERSION >= 1000
    VMSTATE_FD(i32, S), VMSTATE_FD_V(i32, S, 2), VMSTATE_FD_TEST(i32, S, test),
#endif
    VMSTATE_END_OF_LIST()
};

extern const VMStateField arrays[];
const VMStateField arrays[] = {
    VMSTATE_BOOL_ARRAY(bs, S, 4), VMSTATE_BOOL_ARRAY_V(bs, S, 4, 2),
    VMSTATE_BOOL_SUB_ARRAY(bs, S, 1, 2),
    VMSTATE_INT16_ARRAY(i16s, S, 4), VMSTATE_INT16_ARRAY_V(i16s, S, 4, 2),
    VMSTATE_INT32_ARRAY(i32s, S, 4), VMSTATE_INT32_ARRAY_V(i32s, S, 4, 2),
    VMSTATE_INT64_ARRAY(i64s, S, 4), VMSTATE_INT64_ARRAY_V(i64s, S, 4, 2),
    VMSTATE_UINT8_ARRAY(u8s, S, 8), VMSTATE_UINT8_ARRAY_V(u8s, S, 8, 2),
    VMSTATE_UINT16_ARRAY(u16s, S, 4), VMSTATE_UINT16_ARRAY_V(u16s, S, 4, 2),
    VMSTATE_UINT32_ARRAY(u32s, S, 4), VMSTATE_UINT32_ARRAY_V(u32s, S, 4, 2),
    VMSTATE_UINT64_ARRAY(u64s, S, 4), VMSTATE_UINT64_ARRAY_V(u64s, S, 4, 2),
    VMSTATE_UINT8_SUB_ARRAY(u8s, S, 1, 2),
    VMSTATE_UINT16_SUB_ARRAY(u16s, S, 1, 2),
    VMSTATE_UINT32_SUB_ARRAY(u32s, S, 1, 2),
    VMSTATE_UINT64_SUB_ARRAY(u64s, S, 1, 2),
    VMSTATE_UINT8_2DARRAY(u8t, S, 2, 3),
    VMSTATE_UINT8_2DARRAY_V(u8t, S, 2, 3, 2),
    VMSTATE_UINT16_2DARRAY(u16t, S, 2, 3),
    VMSTATE_UINT16_2DARRAY_V(u16t, S, 2, 3, 2),
    VMSTATE_UINT32_2DARRAY(u32t, S, 2, 3),
    VMSTATE_UINT32_2DARRAY_V(u32t, S, 2, 3, 2),
    VMSTATE_UINT64_2DARRAY(u64t, S, 2, 3),
    VMSTATE_UINT64_2DARRAY_V(u64t, S, 2, 3, 2),
    VMSTATE_CPUDOUBLE_ARRAY(doubles, S, 2),
    VMSTATE_CPUDOUBLE_ARRAY_V(doubles, S, 2, 2),
    VMSTATE_TIMER_ARRAY(timers, S, 2), VMSTATE_TIMER_PTR_ARRAY(timer_ps, S, 2),
    VMSTATE_ARRAY(u32s, S, 4, 0, vmstate_info_uint32, uint32_t),
    VMSTATE_ARRAY_TEST(u32s, S, 4, test, vmstate_info_uint32, uint32_t),
    VMSTATE_2DARRAY(u32t, S, 2, 3, 0, vmstate_info_uint32, uint32_t),
    VMSTATE_SUB_ARRAY(u32s, S, 1, 2, 0, vmstate_info_uint32, uint32_t),
    VMSTATE_ARRAY_OF_POINTER(ps, S, 4, 0, vmstate_info_uint32, uint32_t *),
    VMSTATE_VARRAY_INT32(p32, S, n32, 0, vmstate_info_uint32, uint32_t),
    VMSTATE_VARRAY_UINT32(p32, S, nu32, 0, vmstate_info_uint32, uint32_t),
    VMSTATE_VARRAY_OF_POINTER_UINT32(p_timers, S, nu32, 0, vmstate_info_timer, QEMUTimer *),
    VMSTATE_VARRAY_UINT32_ALLOC(p32, S, nu32, 0, vmstate_info_uint32, uint32_t),
    VMSTATE_VARRAY_UINT16_ALLOC(p16, S, n16, 0, vmstate_info_uint16, uint16_t),
    VMSTATE_VARRAY_UINT16_UNSAFE(u16s, S, n16, 0, vmstate_info_uint16,
                                 uint16_t),
    VMSTATE_ARRAY_INT32_UNSAFE(u32s, S, n32, vmstate_info_uint32, uint32_t),
    VMSTATE_VARRAY_MULTIPLY(u32s, S, nu32, 2, vmstate_info_uint32, uint32_t),
    VMSTATE_END_OF_LIST()
};

extern const VMStateField structs[];
const VMStateField structs[] = {
    VMSTATE_STRUCT(item, S, 0, vmsd, Item),
    VMSTATE_STRUCT_TEST(item, S, test, 0, vmsd, Item),
    VMSTATE_VSTRUCT(item, S, vmsd, Item, 2),
    VMSTATE_VSTRUCT_V(item, S, 2, vmsd, Item, 2),
    VMSTATE_VSTRUCT_TEST(item, S, test, 2, vmsd, Item, 2),
    VMSTATE_STRUCT_POINTER(item_p, S, vmsd, Item),
    VMSTATE_STRUCT_POINTER_V(item_p, S, 2, vmsd, Item),
    VMSTATE_STRUCT_POINTER_TEST(item_p, S, test, vmsd, Item),
    VMSTATE_STRUCT_POINTER_TEST_V(item_p, S, test, 2, vmsd, Item),
    VMSTATE_STRUCT_ARRAY(items, S, 4, 0, vmsd, Item),
    VMSTATE_STRUCT_ARRAY_TEST(items, S, 4, test, 0, vmsd, Item),
    VMSTATE_STRUCT_2DARRAY(itemt, S, 2, 3, 0, vmsd, Item),
    VMSTATE_STRUCT_2DARRAY_TEST(itemt, S, 2, 3, test, 0, vmsd, Item),
    VMSTATE_STRUCT_SUB_ARRAY(items, S, 1, 2, 0, vmsd, Item),
    VMSTATE_ARRAY_OF_POINTER_TO_STRUCT(item_ps, S, 4, 0, vmsd, Item),
    VMSTATE_STRUCT_VARRAY_POINTER_KNOWN(item_p, S, 4, 0, vmsd, Item),
    VMSTATE_STRUCT_VARRAY_UINT8(items, S, n8, 0, vmsd, Item),
    VMSTATE_STRUCT_VARRAY_INT32(items, S, n32, 0, vmsd, Item),
    VMSTATE_STRUCT_VARRAY_UINT32(items, S, nu32, 0, vmsd, Item),
    VMSTATE_STRUCT_VARRAY_POINTER_INT32(item_p, S, n32, vmsd, Item),
    VMSTATE_STRUCT_VARRAY_POINTER_UINT32(item_p, S, nu32, vmsd, Item),
    VMSTATE_STRUCT_VARRAY_POINTER_UINT16(item_p, S, n16, vmsd, Item),
    VMSTATE_STRUCT_VARRAY_ALLOC(item_p, S, n32, 0, vmsd, Item),
    VMSTATE_WITH_TMP(S, Tmp, vmsd), VMSTATE_WITH_TMP_TEST(S, test, Tmp, vmsd),
    VMSTATE_QTAILQ_V(queue, S, 1, vmsd, Item, in_queue),
    VMSTATE_QLIST_V(list, S, 1, vmsd, Item, in_list),
    VMSTATE_GTREE_V(tree, S, 1, pair, uint64_t, Item),
    VMSTATE_GTREE_DIRECT_KEY_V(tree, S, 1, &vmsd, Item),
    VMSTATE_END_OF_LIST()
};

extern const VMStateField buffers[];
const VMStateField buffers[] = {
    VMSTATE_BUFFER(u8s, S), VMSTATE_BUFFER_V(u8s, S, 2),
    VMSTATE_BUFFER_TEST(u8s, S, test), VMSTATE_PARTIAL_BUFFER(u8s, S, 4),
    VMSTATE_BUFFER_START_MIDDLE(u8s, S, 4),
    VMSTATE_BUFFER_START_MIDDLE_V(u8s, S, 4, 2),
    VMSTATE_BUFFER_UNSAFE(u32s, S, 0, 8),
    VMSTATE_STATIC_BUFFER(u8s, S, 0, test, 2, 6),
    VMSTATE_BUFFER_UNSAFE_INFO(u32s, S, 0, vmstate_info_buffer, 8),
    VMSTATE_BUFFER_UNSAFE_INFO_TEST(u32s, S, test, 0, vmstate_info_buffer, 8),
    VMSTATE_BUFFER_POINTER_UNSAFE(bytes, S, 0, 8),
    VMSTATE_VBUFFER(bytes, S, 0, test, len),
    VMSTATE_VBUFFER_UINT32(bytes, S, 0, test, ulen),
    VMSTATE_VBUFFER_ALLOC_UINT32(bytes, S, 0, test, ulen),
    VMSTATE_VBUFFER_MULTIPLY(bytes, S, 0, test, ulen, 4),
    VMSTATE_PARTIAL_VBUFFER(bytes, S, len),
    VMSTATE_PARTIAL_VBUFFER_UINT32(bytes, S, ulen),
    VMSTATE_BITMAP(p32, S, 0, len), VMSTATE_BITMAP_TEST(p32, S, test, 0, len),
    VMSTATE_UNUSED(4), VMSTATE_UNUSED_V(2, 4), VMSTATE_UNUSED_TEST(test, 4),
    VMSTATE_UNUSED_BUFFER(test, 2, 4),
    VMSTATE_UNUSED_VARRAY_UINT32(S, test, 2, nu32, 4),
    VMSTATE_END_OF_LIST()
};
