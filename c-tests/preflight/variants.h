/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptions that differ from those of machine.c in one thing. */
#ifndef PREFLIGHT_VARIANTS_H
#define PREFLIGHT_VARIANTS_H

#include "machine.h"

#define FIELDS(...) .fields = (VMStateField[]){ __VA_ARGS__ VMSTATE_END_OF_LIST() }
#define TIMER(id, version, oldest, ...) \
    static const VMStateDescription vmstate_timer_##id = { \
        .name = "timer", .version_id = version, .minimum_version_id = oldest, __VA_ARGS__ }
#define NIC(id, ...) \
    static const VMStateDescription vmstate_nic_##id = { \
        .name = "nic", .version_id = 1, .minimum_version_id = 1, FIELDS(__VA_ARGS__) }
#define DISK(id, ...) \
    static const VMStateDescription vmstate_disk_##id = { \
        .name = "disk", .version_id = 1, .minimum_version_id = 1, FIELDS(__VA_ARGS__) }

static bool has_extra(void *opaque)
{
    return ((State *)opaque)->has_extra;
}

static bool extra_exists(void *opaque, int version)
{
    (void)version;
    return has_extra(opaque);
}

static bool is_small(void *opaque, int version)
{
    (void)version;
    return ((State *)opaque)->a < 100;
}

static int refuse(void *opaque, int version)
{
    (void)opaque, (void)version;
    return -95;
}

static int refuse_before(void *opaque)
{
    (void)opaque;
    return -19;
}

#define A VMSTATE_UINT32(a, State),
#define B VMSTATE_UINT32(b, State),
#define C VMSTATE_UINT32_V(c, State, 2),

TIMER(newer, 3, 1, FIELDS(A B C));
TIMER(newest, 5, 4, FIELDS(A B C));
TIMER(removed, 2, 1, FIELDS(A C));
TIMER(added, 2, 1, FIELDS(A B C VMSTATE_UINT64(wide, State),));
TIMER(resized, 2, 1, FIELDS(A VMSTATE_UINT64(wide, State), C));
TIMER(reordered, 2, 1, FIELDS(B A C));
TIMER(renamed, 2, 1, FIELDS(A VMSTATE_UINT32(extra, State), C));
TIMER(conditional, 2, 1, FIELDS(A B C VMSTATE_UINT32_TEST(extra, State, extra_exists),));
TIMER(post_load, 2, 1, .post_load = refuse, FIELDS(A B C));
TIMER(pre_load, 2, 1, .pre_load = refuse_before, FIELDS(A B C));
TIMER(validated, 2, 1, FIELDS(A B C VMSTATE_VALIDATE("a is small", is_small),));
TIMER(equal, 2, 1, FIELDS(VMSTATE_UINT32_EQUAL(a, State, NULL), B C));
TIMER(unmigratable, 2, 1, .unmigratable = 1, FIELDS(A B C));

static const VMStateDescription vmstate_timer_part = {
    .name = "timer/extra",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = has_extra,
    FIELDS(VMSTATE_UINT32(extra, State),),
};
static const VMStateDescription vmstate_timer_newer_part = {
    .name = "timer/extra",
    .version_id = 4,
    .minimum_version_id = 4,
    .needed = has_extra,
    FIELDS(VMSTATE_UINT32(extra, State),),
};
#define PARTS(part) .subsections = (const VMStateDescription *[]){ &part, NULL }
TIMER(with_part, 2, 1, FIELDS(A B C), PARTS(vmstate_timer_part));
TIMER(with_newer_part, 2, 1, FIELDS(A B C), PARTS(vmstate_timer_newer_part));

#define BYTES VMSTATE_UINT8_ARRAY(bytes, State, 16),
#define VALUES VMSTATE_UINT16_ARRAY(values, State, 8),
#define PORTS VMSTATE_VARRAY_UINT16_UNSAFE(ports, State, port_count, 0, vmstate_info_uint16, uint16_t),

NIC(short_array, BYTES VMSTATE_UINT16_SUB_ARRAY(values, State, 0, 6), PORTS);
NIC(short_bytes, VMSTATE_UINT8_SUB_ARRAY(bytes, State, 0, 12), VALUES PORTS);
NIC(gone_array, BYTES PORTS);

static const VMStateDescription vmstate_inner_less = {
    .name = "inner",
    .version_id = 1,
    .minimum_version_id = 1,
    FIELDS(VMSTATE_UINT32(x, Inner),),
};
static const VMStateDescription vmstate_inner_narrow = {
    .name = "inner",
    .version_id = 1,
    .minimum_version_id = 1,
    FIELDS(VMSTATE_UINT32(x, Inner), VMSTATE_SINGLE(y, Inner, 0, vmstate_info_uint8, uint32_t),),
};
static const VMStateDescription vmstate_inner_same = {
    .name = "inner",
    .version_id = 1,
    .minimum_version_id = 1,
    FIELDS(VMSTATE_UINT32(x, Inner), VMSTATE_UINT32(y, Inner),),
};

#define WIDE VMSTATE_UINT64(wide, State),
#define INNER(vmsd) VMSTATE_STRUCT(inner, State, 1, vmsd, Inner),
#define INNERS(count, vmsd) VMSTATE_STRUCT_SUB_ARRAY(inners, State, 0, count, 1, vmsd, Inner),
#define QUEUE VMSTATE_UINT16(queued, State), \
    VMSTATE_VARRAY_UINT16_UNSAFE(queue, State, queued, 0, vmstate_info_uint16, uint16_t),

DISK(inner_field, WIDE INNER(vmstate_inner_less) INNERS(3, vmstate_inner_same) QUEUE);
DISK(inner_size, WIDE INNER(vmstate_inner_narrow) INNERS(3, vmstate_inner_same) QUEUE);
DISK(inner_count, WIDE INNER(vmstate_inner_same) INNERS(2, vmstate_inner_same) QUEUE);
DISK(element_field, WIDE INNER(vmstate_inner_same) INNERS(3, vmstate_inner_less) QUEUE);
DISK(no_inner, WIDE INNERS(3, vmstate_inner_same) QUEUE);
DISK(flat, WIDE VMSTATE_SINGLE_TEST(inner, State, NULL, 0, vmstate_info_uint64, Inner), INNERS(3, vmstate_inner_same) QUEUE);
DISK(no_queue, WIDE INNER(vmstate_inner_same) INNERS(3, vmstate_inner_same));

#endif
