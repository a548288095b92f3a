/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The macros of migration/vmstate-fields.h that an info handles: arrays of all
 * kinds of lengths, pointers, buffers, bitmaps, and checks.
 */
#include "groups.h"
#include "test-case.h"

#define ROOM 8

typedef struct Arrays {
    uint8_t n8;
    uint16_t n16;
    uint32_t nu32;
    int32_t n32;
    int32_t len;
    uint32_t ulen;
    int32_t bits;
    uint32_t single;
    uint16_t row[ROOM];
    uint16_t table[3][2];
    uint64_t wide[ROOM];
    bool flags[ROOM];
    uint8_t tail;
    bool fresh; /* loading allocates the heap members */
    uint32_t *pointer;
    uint32_t *pointers[4];
    uint32_t *heap;
    uint16_t *heap16;
    uint8_t *bytes;
    unsigned long *bitmap;
    uint32_t **list;
} Arrays;

static void *pattern(size_t bytes, unsigned seed)
{
    uint8_t *p = malloc(bytes + 1);

    for (size_t i = 0; i < bytes; i++) {
        p[i] = (uint8_t)(i * 29 + seed);
    }
    return p;
}

static void fill_members(Arrays *a, unsigned seed)
{
    a->single = 0x11223344;
    for (size_t i = 0; i < ROOM; i++) {
        a->row[i] = (uint16_t)(0x1000 + i * 0x111 + seed);
        a->wide[i] = UINT64_C(0x0102030405060708) * (i + 1) + seed;
        a->flags[i] = i % 3 != 1;
    }
    for (size_t i = 0; i < 6; i++) {
        a->table[i / 2][i % 2] = (uint16_t)(0x2000 + i + seed);
    }
    a->tail = 0x77;
    a->pointer = pattern(sizeof(uint32_t), 1 + seed);
    a->heap = pattern(ROOM * sizeof(uint32_t), 2 + seed);
    a->heap16 = pattern(ROOM * sizeof(uint16_t), 3 + seed);
    a->bytes = pattern(64, 4 + seed);
    a->bitmap = pattern(32, 5 + seed);
    a->list = malloc(ROOM * sizeof(*a->list));
    for (size_t i = 0; i < ROOM; i++) {
        a->list[i] = pattern(sizeof(uint32_t), 20 + (unsigned)i + seed);
    }
    for (size_t i = 0; i < 4; i++) {
        a->pointers[i] = pattern(sizeof(uint32_t), 6 + (unsigned)i + seed);
    }
}

static void counts(Arrays *a, unsigned n)
{
    a->n8 = (uint8_t)n;
    a->n16 = (uint16_t)n;
    a->nu32 = n;
    a->n32 = (int32_t)n;
    a->len = (int32_t)(n * 3);
    a->ulen = n * 3;
    a->bits = (int32_t)(n * 13);
}

static void fill_none(void *opaque)
{
    fill_members(opaque, 0);
    counts(opaque, 0);
}

static void fill_one(void *opaque)
{
    fill_members(opaque, 0);
    counts(opaque, 1);
}

static void fill_some(void *opaque)
{
    fill_members(opaque, 0);
    counts(opaque, 5);
}

static void fill_all(void *opaque)
{
    fill_members(opaque, 0);
    counts(opaque, ROOM);
}

/* Two of the four pointers lead nowhere. */
static void fill_holes(void *opaque)
{
    Arrays *a = opaque;

    fill_some(a);
    free(a->pointers[0]);
    free(a->pointers[2]);
    a->pointers[0] = a->pointers[2] = NULL;
}

/* To be loaded into: memory is there, counts are not those of the stream. */
static void blank_room(void *opaque)
{
    memset(opaque, 0, sizeof(Arrays));
    fill_members(opaque, 100);
    counts(opaque, 2);
}

/* Counts that do not travel are the same on both sides. */
static void blank_counted(void *opaque)
{
    blank_room(opaque);
    counts(opaque, 5);
}

static void blank_holes(void *opaque)
{
    Arrays *a = opaque;

    blank_counted(a);
    free(a->pointers[0]);
    free(a->pointers[2]);
    a->pointers[0] = a->pointers[2] = NULL;
}

static void free_heap(Arrays *a)
{
    free(a->heap);
    free(a->heap16);
    free(a->bytes);
    a->heap = NULL;
    a->heap16 = NULL;
    a->bytes = NULL;
}

static void blank_fresh(void *opaque)
{
    blank_room(opaque);
    free_heap(opaque);
    ((Arrays *)opaque)->fresh = true;
}

static void drop(void *opaque)
{
    Arrays *a = opaque;

    free(a->pointer);
    free(a->bitmap);
    for (size_t i = 0; i < ROOM; i++) {
        free(a->list[i]);
    }
    free(a->list);
    free_heap(a);
    for (size_t i = 0; i < 4; i++) {
        free(a->pointers[i]);
    }
}

static void show(void *opaque, View *v)
{
    Arrays *a = opaque;

    view(v, "", a, offsetof(Arrays, fresh));
    view(v, "pointer", a->pointer, sizeof(uint32_t));
    view(v, "bitmap", a->bitmap, 32);
    for (size_t i = 0; i < 4; i++) {
        if (a->pointers[i]) {
            view(v, i < 2 ? i ? "p1" : "p0" : i == 2 ? "p2" : "p3",
                 a->pointers[i], sizeof(uint32_t));
        }
    }
    for (size_t i = 0; i < ROOM; i++) {
        char label[8];

        snprintf(label, sizeof(label), "l%zu", i);
        view(v, label, a->list[i], sizeof(uint32_t));
    }
    if (a->heap) {
        view(v, "heap", a->heap, (a->fresh ? a->nu32 : ROOM) * 4);
    }
    if (a->heap16) {
        view(v, "heap16", a->heap16, (a->fresh ? a->n16 : ROOM) * 2);
    }
    if (a->bytes) {
        view(v, "bytes", a->bytes, a->fresh ? a->ulen : 64);
    }
}

static bool in_version_2(void *opaque, int version_id)
{
    (void)opaque;
    note("exists(%d)", version_id);
    return version_id == 2;
}

static bool tail_is_right(void *opaque, int version_id)
{
    Arrays *a = opaque;

    note("valid(%d)", version_id);
    return a->tail == 0x77;
}

static bool few(void *opaque, int version_id)
{
    Arrays *a = opaque;

    note("few(%d)", version_id);
    return a->n16 <= ROOM;
}

#define N8 VMSTATE_UINT8(n8, Arrays)
#define N16 VMSTATE_UINT16(n16, Arrays)
#define NU32 VMSTATE_UINT32(nu32, Arrays)
#define N32 VMSTATE_INT32(n32, Arrays)
#define LEN VMSTATE_INT32(len, Arrays)
#define ULEN VMSTATE_UINT32(ulen, Arrays)
#define BITS VMSTATE_INT32(bits, Arrays)

/* X(title, fill, blank, fields...); the tail follows by itself */
#define ALL_FIXED(X) \
    X(single, some, room, \
      VMSTATE_SINGLE(single, Arrays, 0, vmstate_info_uint32, uint32_t)) \
    X(single_test, some, room, \
      VMSTATE_SINGLE_TEST(single, Arrays, in_version_2, 3, \
                          vmstate_info_uint32, uint32_t)) \
    X(single_full, some, room, \
      VMSTATE_SINGLE_FULL(single, Arrays, NULL, 2, vmstate_info_uint32, \
                          uint32_t, "a hint")) \
    X(pointer, some, room, \
      VMSTATE_POINTER(pointer, Arrays, 2, vmstate_info_uint32, uint32_t *)) \
    X(pointer_test, some, room, \
      VMSTATE_POINTER_TEST(pointer, Arrays, in_version_2, \
                           vmstate_info_uint32, uint32_t *)) \
    X(array, some, room, \
      VMSTATE_ARRAY(row, Arrays, ROOM, 0, vmstate_info_uint16, uint16_t)) \
    X(array_other_info, some, room, \
      VMSTATE_ARRAY(row, Arrays, ROOM, 0, vmstate_info_int16, uint16_t)) \
    X(array_test, some, room, \
      VMSTATE_ARRAY_TEST(row, Arrays, ROOM, in_version_2, \
                         vmstate_info_uint16, uint16_t)) \
    X(array_of_buffers, some, room, \
      VMSTATE_ARRAY(wide, Arrays, ROOM, 0, vmstate_info_buffer, uint64_t)) \
    X(two_dimensions, some, room, \
      VMSTATE_2DARRAY(table, Arrays, 3, 2, 2, vmstate_info_uint16, uint16_t)) \
    X(sub_array, some, room, \
      VMSTATE_SUB_ARRAY(row, Arrays, 3, 4, 0, vmstate_info_uint16, uint16_t)) \
    X(array_of_pointer, some, counted, \
      VMSTATE_ARRAY_OF_POINTER(pointers, Arrays, 4, 0, vmstate_info_uint32, \
                               uint32_t *)) \
    X(array_of_pointer_holes, holes, holes, \
      VMSTATE_ARRAY_OF_POINTER(pointers, Arrays, 4, 2, vmstate_info_uint32, \
                               uint32_t *)) \
    X(holes_not_expected, holes, counted, \
      VMSTATE_ARRAY_OF_POINTER(pointers, Arrays, 4, 0, vmstate_info_uint32, \
                               uint32_t *)) \
    X(holes_not_sent, some, holes, \
      VMSTATE_ARRAY_OF_POINTER(pointers, Arrays, 4, 0, vmstate_info_uint32, \
                               uint32_t *)) \
    X(static_buffer, some, room, \
      VMSTATE_STATIC_BUFFER(pointers, Bytes, 2, in_version_2, 4, 12)) \
    X(buffer_unsafe_info, some, room, \
      VMSTATE_BUFFER_UNSAFE_INFO(row, Arrays, 0, vmstate_info_buffer, 7)) \
    X(buffer_unsafe_test, some, room, \
      VMSTATE_BUFFER_UNSAFE_INFO_TEST(row, Arrays, in_version_2, 0, \
                                      vmstate_info_buffer, 7)) \
    X(buffer_pointer, some, room, \
      VMSTATE_BUFFER_POINTER_UNSAFE(bytes, Arrays, 0, 11)) \
    X(unused_buffer, some, room, \
      VMSTATE_UNUSED_BUFFER(in_version_2, 1, 6)) \
    X(validate, some, room, \
      VMSTATE_UINT8(tail, Arrays), VMSTATE_VALIDATE("tail", tail_is_right))

#define ALL_COUNTED(X, fill, blank) \
    X(varray_int32, fill, blank, N32, \
      VMSTATE_VARRAY_INT32(heap, Arrays, n32, 2, vmstate_info_uint32, \
                           uint32_t)) \
    X(varray_uint32, fill, blank, NU32, \
      VMSTATE_VARRAY_UINT32(heap, Arrays, nu32, 0, vmstate_info_uint32, \
                            uint32_t)) \
    X(varray_of_pointer_uint32, fill, blank, NU32, \
      VMSTATE_VARRAY_OF_POINTER_UINT32(list, Arrays, nu32, 0, \
                                       vmstate_info_uint32, uint32_t *)) \
    X(array_int32_unsafe, fill, blank, N32, \
      VMSTATE_ARRAY_INT32_UNSAFE(wide, Arrays, n32, vmstate_info_uint64, \
                                 uint64_t)) \
    X(varray_uint16_unsafe, fill, blank, N16, \
      VMSTATE_VALIDATE("few", few), \
      VMSTATE_VARRAY_UINT16_UNSAFE(flags, Arrays, n16, 0, vmstate_info_bool, \
                                   bool)) \
    X(unused_varray, fill, blank, NU32, \
      VMSTATE_UNUSED_VARRAY_UINT32(Arrays, NULL, 0, nu32, 3)) \
    X(vbuffer, fill, blank, LEN, \
      VMSTATE_VBUFFER(bytes, Arrays, 0, NULL, len)) \
    X(vbuffer_uint32, fill, blank, ULEN, \
      VMSTATE_VBUFFER_UINT32(bytes, Arrays, 0, in_version_2, ulen)) \
    X(partial_vbuffer, fill, blank, LEN, \
      VMSTATE_PARTIAL_VBUFFER(bytes, Arrays, len)) \
    X(partial_vbuffer_uint32, fill, blank, ULEN, \
      VMSTATE_PARTIAL_VBUFFER_UINT32(bytes, Arrays, ulen)) \
    X(vbuffer_multiply, fill, blank, ULEN, \
      VMSTATE_VBUFFER_MULTIPLY(bytes, Arrays, 0, NULL, ulen, 2)) \
    X(bitmap, fill, blank, BITS, VMSTATE_BITMAP(bitmap, Arrays, 0, bits))

#define ALL_FRESH(X, fill) \
    X(varray_uint32_alloc, fill, fresh, NU32, \
      VMSTATE_VARRAY_UINT32_ALLOC(heap, Arrays, nu32, 0, \
                                  vmstate_info_uint32, uint32_t)) \
    X(varray_uint16_alloc, fill, fresh, N16, \
      VMSTATE_VARRAY_UINT16_ALLOC(heap16, Arrays, n16, 2, \
                                  vmstate_info_uint16, uint16_t)) \
    X(vbuffer_alloc, fill, fresh, ULEN, \
      VMSTATE_VBUFFER_ALLOC_UINT32(bytes, Arrays, 0, NULL, ulen))

#define ALL_MULTIPLIED(X, fill, blank) \
    X(varray_multiply, fill, blank, NU32, \
      VMSTATE_VARRAY_MULTIPLY(row, Arrays, nu32, 2, vmstate_info_uint16, \
                              uint16_t))

/* The same memory as bytes, for the macro that wants an array of them. */
typedef struct Bytes {
    uint8_t before[offsetof(Arrays, row)];
    uint8_t pointers[16];
} Bytes;

#define DESCRIBE(title, fill, blank, ...)                                   \
    static const VMStateDescription vmstate_##title##_##fill##_##blank = {  \
        .name = #title,                                                     \
        .version_id = 3,                                                    \
        .minimum_version_id = 1,                                            \
        .fields = (const VMStateField[]) {                                  \
            __VA_ARGS__,                                                    \
            VMSTATE_UINT8(tail, Arrays),                                    \
            VMSTATE_END_OF_LIST()                                           \
        },                                                                  \
    };
#define TRY(title, fill, blank, ...)                                        \
    { #title ", " #fill " into " #blank,                                    \
      &vmstate_##title##_##fill##_##blank, sizeof(Arrays), fill_##fill,     \
      blank_##blank, show, drop, false },

#define ALL(X) \
    ALL_FIXED(X) \
    ALL_COUNTED(X, none, room) \
    ALL_COUNTED(X, one, room) \
    ALL_COUNTED(X, some, room) \
    ALL_COUNTED(X, all, room) \
    ALL_FRESH(X, none) \
    ALL_FRESH(X, one) \
    ALL_FRESH(X, some) \
    ALL_MULTIPLIED(X, none, room) \
    ALL_MULTIPLIED(X, one, room)

ALL(DESCRIBE)
static const TestCase cases[] = { ALL(TRY) };

/* A count that is not in the stream. */
static const VMStateDescription vmstate_known = {
    .name = "known",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_VARRAY_INT32(heap, Arrays, n32, 0, vmstate_info_uint32,
                             uint32_t),
        VMSTATE_VBUFFER(bytes, Arrays, 0, NULL, len),
        VMSTATE_BITMAP(bitmap, Arrays, 0, bits),
        VMSTATE_END_OF_LIST()
    },
};

static void bitmaps(void)
{
    static const int bits[] = { 0, 1, 63, 64, 65, 127, 128, 129, 192 };
    TestCase t = {
        "bitmap", &vmstate_bitmap_some_room, sizeof(Arrays), fill_some,
        blank_room, show, drop, false
    };

    for (size_t i = 0; i < COUNT(bits); i++) {
        char hex[200];
        int words = (bits[i] + 63) / 64;
        int n = snprintf(hex, sizeof(hex), "%08x", (unsigned)bits[i]);

        say("bitmap of %d bits", bits[i]);
        for (int w = 0; w < words; w++) {
            n += snprintf(hex + n, sizeof(hex) - (size_t)n,
                          "f%01xe%01xd%01xc%01xb%01xa%01x9%01x8%01x",
                          w, w, w, w, w, w, w, w);
        }
        snprintf(hex + n, sizeof(hex) - (size_t)n, "99");
        case_load_hex(&t, 3, hex);
    }
}

static void refused(void)
{
    static const TestCase wrong = {
        "validation fails", &vmstate_validate_some_room, sizeof(Arrays),
        fill_some, blank_room, show, drop, false
    };
    static const TestCase marks = {
        "markers", &vmstate_array_of_pointer_holes_holes_holes,
        sizeof(Arrays), fill_holes, blank_holes, show, drop, false
    };
    static const TestCase many = {
        "too many", &vmstate_varray_uint16_unsafe_some_room, sizeof(Arrays),
        fill_some, blank_room, show, drop, false
    };

    say("%s", wrong.name);
    case_load_hex(&wrong, 1, "76 01");
    case_load_hex(&wrong, 1, "77 01");
    say("%s", marks.name);
    case_load_hex(&marks, 3, "30 00000001 30 00000002 05");
    case_load_hex(&marks, 3, "31 00000001 30 00000002 05");
    case_load_hex(&marks, 3, "30 00000001 00 00000002 05");
    say("%s", many.name);
    case_load_hex(&many, 3, "0009 010101010101010101 05");
    case_load_hex(&many, 3, "0008 0101010101010101 05");
}

int group_arrays(int argc, char **argv)
{
    static const TestCase known = {
        "counts that do not travel", &vmstate_known, sizeof(Arrays),
        fill_some, blank_counted, show, drop, false
    };

    (void)argc;
    (void)argv;
    for (size_t i = 0; i < COUNT(cases); i++) {
        case_all(&cases[i]);
    }
    case_all(&known);
    bitmaps();
    refused();
    return 0;
}
