/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every macro of migration/vmstate-scalars.h, and the infos behind them. */
#include <linux/types.h>

#include "files.h"
#include "groups.h"
#include "qemu/cpu-float.h"
#include "test-case.h"

typedef struct Plain {
    bool flag;
    bool flags[5];
    int8_t i8;
    int16_t i16;
    int32_t i32;
    int64_t i64;
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    __u8 k8;
    __u16 k16;
    __u32 k32;
    __u64 k64;
    int16_t i16s[3];
    int32_t i32s[3];
    int64_t i64s[3];
    uint8_t u8s[6];
    uint16_t u16s[6];
    uint32_t u32s[6];
    uint64_t u64s[6];
    uint8_t u8t[2][3];
    uint16_t u16t[2][3];
    uint32_t u32t[2][3];
    uint64_t u64t[2][3];
    CPU_DoubleU doubles[2];
    uint8_t buffer[12];
    struct {
        uint32_t value;
    } inner[2];
} Plain;

static void fill(void *opaque)
{
    Plain *p = opaque;
    uint8_t *bytes = opaque;

    for (size_t i = 0; i < sizeof(*p); i++) {
        bytes[i] = (uint8_t)(i * 37 + 11);
    }
    p->flag = true;
    for (size_t i = 0; i < COUNT(p->flags); i++) {
        p->flags[i] = i % 2;
    }
}

/* Exists in version 2 and nowhere else. */
static bool in_version_2(void *opaque, int version_id)
{
    (void)opaque;
    note("exists(%d)", version_id);
    return version_id == 2;
}

/* X(name, field) for every macro */
#define ALL_FIELDS(X) \
    X(int8, VMSTATE_INT8(i8, Plain)) \
    X(int16, VMSTATE_INT16(i16, Plain)) \
    X(int32, VMSTATE_INT32(i32, Plain)) \
    X(int64, VMSTATE_INT64(i64, Plain)) \
    X(uint8, VMSTATE_UINT8(u8, Plain)) \
    X(uint16, VMSTATE_UINT16(u16, Plain)) \
    X(uint32, VMSTATE_UINT32(u32, Plain)) \
    X(uint64, VMSTATE_UINT64(u64, Plain)) \
    X(int8_v, VMSTATE_INT8_V(i8, Plain, 2)) \
    X(int16_v, VMSTATE_INT16_V(i16, Plain, 2)) \
    X(int32_v, VMSTATE_INT32_V(i32, Plain, 2)) \
    X(int64_v, VMSTATE_INT64_V(i64, Plain, 2)) \
    X(uint8_v, VMSTATE_UINT8_V(u8, Plain, 2)) \
    X(uint16_v, VMSTATE_UINT16_V(u16, Plain, 2)) \
    X(uint32_v, VMSTATE_UINT32_V(u32, Plain, 2)) \
    X(uint64_v, VMSTATE_UINT64_V(u64, Plain, 3)) \
    X(int8_test, VMSTATE_INT8_TEST(i8, Plain, in_version_2)) \
    X(int16_test, VMSTATE_INT16_TEST(i16, Plain, in_version_2)) \
    X(int32_test, VMSTATE_INT32_TEST(i32, Plain, in_version_2)) \
    X(int64_test, VMSTATE_INT64_TEST(i64, Plain, in_version_2)) \
    X(uint8_test, VMSTATE_UINT8_TEST(u8, Plain, in_version_2)) \
    X(uint16_test, VMSTATE_UINT16_TEST(u16, Plain, in_version_2)) \
    X(uint32_test, VMSTATE_UINT32_TEST(u32, Plain, in_version_2)) \
    X(uint64_test, VMSTATE_UINT64_TEST(u64, Plain, in_version_2)) \
    X(bool, VMSTATE_BOOL(flag, Plain)) \
    X(bool_v, VMSTATE_BOOL_V(flag, Plain, 2)) \
    X(bool_test, VMSTATE_BOOL_TEST(flag, Plain, in_version_2)) \
    X(k8, VMSTATE_U8(k8, Plain)) \
    X(k16, VMSTATE_U16(k16, Plain)) \
    X(k32, VMSTATE_U32(k32, Plain)) \
    X(k64, VMSTATE_U64(k64, Plain)) \
    X(k8_v, VMSTATE_U8_V(k8, Plain, 3)) \
    X(k16_v, VMSTATE_U16_V(k16, Plain, 3)) \
    X(k32_v, VMSTATE_U32_V(k32, Plain, 3)) \
    X(k64_v, VMSTATE_U64_V(k64, Plain, 3)) \
    X(int16_array, VMSTATE_INT16_ARRAY(i16s, Plain, 3)) \
    X(int32_array, VMSTATE_INT32_ARRAY(i32s, Plain, 3)) \
    X(int64_array, VMSTATE_INT64_ARRAY(i64s, Plain, 3)) \
    X(uint8_array, VMSTATE_UINT8_ARRAY(u8s, Plain, 6)) \
    X(uint16_array, VMSTATE_UINT16_ARRAY(u16s, Plain, 6)) \
    X(uint32_array, VMSTATE_UINT32_ARRAY(u32s, Plain, 6)) \
    X(uint64_array, VMSTATE_UINT64_ARRAY(u64s, Plain, 6)) \
    X(int16_array_v, VMSTATE_INT16_ARRAY_V(i16s, Plain, 3, 2)) \
    X(int32_array_v, VMSTATE_INT32_ARRAY_V(i32s, Plain, 3, 2)) \
    X(int64_array_v, VMSTATE_INT64_ARRAY_V(i64s, Plain, 3, 2)) \
    X(uint8_array_v, VMSTATE_UINT8_ARRAY_V(u8s, Plain, 6, 2)) \
    X(uint16_array_v, VMSTATE_UINT16_ARRAY_V(u16s, Plain, 6, 2)) \
    X(uint32_array_v, VMSTATE_UINT32_ARRAY_V(u32s, Plain, 6, 2)) \
    X(uint64_array_v, VMSTATE_UINT64_ARRAY_V(u64s, Plain, 6, 2)) \
    X(uint8_sub_array, VMSTATE_UINT8_SUB_ARRAY(u8s, Plain, 2, 3)) \
    X(uint16_sub_array, VMSTATE_UINT16_SUB_ARRAY(u16s, Plain, 2, 3)) \
    X(uint32_sub_array, VMSTATE_UINT32_SUB_ARRAY(u32s, Plain, 2, 3)) \
    X(uint64_sub_array, VMSTATE_UINT64_SUB_ARRAY(u64s, Plain, 2, 3)) \
    X(uint8_2darray, VMSTATE_UINT8_2DARRAY(u8t, Plain, 2, 3)) \
    X(uint16_2darray, VMSTATE_UINT16_2DARRAY(u16t, Plain, 2, 3)) \
    X(uint32_2darray, VMSTATE_UINT32_2DARRAY(u32t, Plain, 2, 3)) \
    X(uint64_2darray, VMSTATE_UINT64_2DARRAY(u64t, Plain, 2, 3)) \
    X(uint8_2darray_v, VMSTATE_UINT8_2DARRAY_V(u8t, Plain, 2, 3, 3)) \
    X(uint16_2darray_v, VMSTATE_UINT16_2DARRAY_V(u16t, Plain, 2, 3, 3)) \
    X(uint32_2darray_v, VMSTATE_UINT32_2DARRAY_V(u32t, Plain, 2, 3, 3)) \
    X(uint64_2darray_v, VMSTATE_UINT64_2DARRAY_V(u64t, Plain, 2, 3, 3)) \
    X(bool_array, VMSTATE_BOOL_ARRAY(flags, Plain, 5)) \
    X(bool_array_v, VMSTATE_BOOL_ARRAY_V(flags, Plain, 5, 3)) \
    X(bool_sub_array, VMSTATE_BOOL_SUB_ARRAY(flags, Plain, 1, 3)) \
    X(cpudouble_array, VMSTATE_CPUDOUBLE_ARRAY(doubles, Plain, 2)) \
    X(cpudouble_array_v, VMSTATE_CPUDOUBLE_ARRAY_V(doubles, Plain, 2, 3)) \
    X(buffer, VMSTATE_BUFFER(buffer, Plain)) \
    X(buffer_v, VMSTATE_BUFFER_V(buffer, Plain, 2)) \
    X(buffer_test, VMSTATE_BUFFER_TEST(buffer, Plain, in_version_2)) \
    X(partial_buffer, VMSTATE_PARTIAL_BUFFER(buffer, Plain, 5)) \
    X(buffer_middle, VMSTATE_BUFFER_START_MIDDLE(buffer, Plain, 5)) \
    X(buffer_middle_v, VMSTATE_BUFFER_START_MIDDLE_V(buffer, Plain, 5, 2)) \
    X(buffer_unsafe, VMSTATE_BUFFER_UNSAFE(inner, Plain, 2, 7)) \
    X(unused, VMSTATE_UNUSED(3)) \
    X(unused_large, VMSTATE_UNUSED(2050)) \
    X(unused_v, VMSTATE_UNUSED_V(2, 4)) \
    X(unused_test, VMSTATE_UNUSED_TEST(in_version_2, 5)) \
    X(member_of_member, VMSTATE_UINT32(inner[1].value, Plain)) \
    X(same_name, VMSTATE_UINT8(u8s[0], Plain), VMSTATE_UINT8(u8s[1], Plain), \
      VMSTATE_UINT8(u8s[0], Plain))

#define DESCRIBE(title, ...)                                                \
    static const VMStateDescription vmstate_##title = {                     \
        .name = #title,                                                     \
        .version_id = 3,                                                    \
        .minimum_version_id = 1,                                            \
        .fields = (const VMStateField[]) {                                  \
            __VA_ARGS__,                                                    \
            VMSTATE_END_OF_LIST()                                           \
        },                                                                  \
    };
ALL_FIELDS(DESCRIBE)

#define TRY(title, ...) \
    { .name = #title, .vmsd = &vmstate_##title, .size = sizeof(Plain), \
      .fill = fill },
static const TestCase cases[] = { ALL_FIELDS(TRY) };

/* Checks against the value that is there already */

#define ALL_CHECKS(X) \
    X(uint8_equal, VMSTATE_UINT8_EQUAL(u8, Plain, "eight")) \
    X(uint16_equal, VMSTATE_UINT16_EQUAL(u16, Plain, NULL)) \
    X(uint16_equal_v, VMSTATE_UINT16_EQUAL_V(u16, Plain, 2, "sixteen")) \
    X(int32_equal, VMSTATE_INT32_EQUAL(i32, Plain, "signed")) \
    X(uint32_equal, VMSTATE_UINT32_EQUAL(u32, Plain, NULL)) \
    X(uint32_equal_v, VMSTATE_UINT32_EQUAL_V(u32, Plain, 2, "32")) \
    X(uint64_equal, VMSTATE_UINT64_EQUAL(u64, Plain, NULL)) \
    X(uint64_equal_v, VMSTATE_UINT64_EQUAL_V(u64, Plain, 2, "64")) \
    X(int32_le, VMSTATE_INT32_POSITIVE_LE(i32, Plain))

#define CHECK(title, field)                                                 \
    DESCRIBE(title, VMSTATE_UINT8(u8s[0], Plain), field,                    \
             VMSTATE_UINT8(u8s[1], Plain))
ALL_CHECKS(CHECK)

#define TRY_SAME(title, field) \
    { .name = #title " as it is", .vmsd = &vmstate_##title, \
      .size = sizeof(Plain), .fill = fill, .blank = fill },
#define TRY_OTHER(title, field) \
    { .name = #title " as it is not", .vmsd = &vmstate_##title, \
      .size = sizeof(Plain), .fill = fill },
static const TestCase checks[] = { ALL_CHECKS(TRY_SAME) ALL_CHECKS(TRY_OTHER) };

static void hundred(void *opaque)
{
    ((Plain *)opaque)->i32 = 100;
}

static void bounds(void)
{
    static const TestCase t = {
        "int32_le at its bounds", &vmstate_int32_le, sizeof(Plain), hundred,
        hundred, NULL, NULL, false
    };

    say("%s", t.name);
    case_load_hex(&t, 3, "01 00000000 02");
    case_load_hex(&t, 3, "01 00000063 02");
    case_load_hex(&t, 3, "01 00000064 02");
    case_load_hex(&t, 3, "01 00000065 02");
    case_load_hex(&t, 3, "01 7fffffff 02");
    case_load_hex(&t, 3, "01 80000000 02");
    case_load_hex(&t, 3, "01 ffffffff 02");
}

static void odd_values(void)
{
    static const TestCase flags = {
        "bytes that are no bool", &vmstate_bool_array, sizeof(Plain), fill,
        NULL, NULL, NULL, false
    };
    static const TestCase bytes = {
        "versions that are not known", &vmstate_uint8, sizeof(Plain), fill,
        NULL, NULL, NULL, false
    };

    say("%s", flags.name);
    case_load_hex(&flags, 3, "00 01 02 80 ff");
    say("%s", bytes.name);
    case_load_hex(&bytes, 0, "11");
    case_load_hex(&bytes, 4, "11");
    case_load_hex(&bytes, -1, "11");
    case_load_hex(&bytes, 0x7fffffff, "11");
}

/* Timers */

typedef struct Timers {
    QEMUTimer one;
    QEMUTimer row[2];
    uint8_t end;
    QEMUTimer *pointer;
    QEMUTimer *pointers[3];
} Timers;

static QEMUTimer *timer_number(Timers *t, size_t i)
{
    return i == 0 ? &t->one : i < 3 ? &t->row[i - 1] :
           i == 3 ? t->pointer : t->pointers[i - 4];
}

#define TIMERS 7

static void timers_make(Timers *t, const int64_t *expiries)
{
    t->pointer = malloc(sizeof(QEMUTimer));
    for (size_t i = 0; i < COUNT(t->pointers); i++) {
        t->pointers[i] = malloc(sizeof(QEMUTimer));
    }
    for (size_t i = 0; i < TIMERS; i++) {
        files_timer_init(timer_number(t, i), expiries[i]);
    }
}

static void timers_fill(void *opaque)
{
    static const int64_t expiries[TIMERS] = {
        1234567890123, -1, 5, 77, 0, -1, INT64_MAX
    };

    timers_make(opaque, expiries);
    ((Timers *)opaque)->end = 9;
}

static void timers_blank(void *opaque)
{
    static const int64_t expiries[TIMERS] = { -1, 3, 4, 5, 6, 7, 8 };

    timers_make(opaque, expiries);
}

static void timers_show(void *opaque, View *v)
{
    Timers *t = opaque;

    for (size_t i = 0; i < TIMERS; i++) {
        char text[32];

        snprintf(text, sizeof(text), "%lld",
                 (long long)files_timer_expires(timer_number(t, i)));
        view_text(v, "timer", text);
    }
    view(v, "end", &t->end, 1);
}

static void timers_drop(void *opaque)
{
    Timers *t = opaque;

    for (size_t i = 0; i < TIMERS; i++) {
        files_timer_drop(timer_number(t, i));
    }
    free(t->pointer);
    for (size_t i = 0; i < COUNT(t->pointers); i++) {
        free(t->pointers[i]);
    }
}

DESCRIBE(timer, VMSTATE_TIMER(one, Timers), VMSTATE_TIMER_ARRAY(row, Timers, 2),
         VMSTATE_UINT8(end, Timers))
DESCRIBE(timer_v, VMSTATE_TIMER_V(one, Timers, 2),
         VMSTATE_TIMER_TEST(row[1], Timers, in_version_2),
         VMSTATE_UINT8(end, Timers))
DESCRIBE(timer_ptr, VMSTATE_TIMER_PTR(pointer, Timers),
         VMSTATE_TIMER_PTR_ARRAY(pointers, Timers, 3),
         VMSTATE_UINT8(end, Timers))
DESCRIBE(timer_ptr_v, VMSTATE_TIMER_PTR_V(pointer, Timers, 2),
         VMSTATE_TIMER_PTR_TEST(pointers[0], Timers, in_version_2),
         VMSTATE_UINT8(end, Timers))

#define ALL_TIMERS(X) X(timer) X(timer_v) X(timer_ptr) X(timer_ptr_v)
#define TRY_TIMERS(title) \
    { #title, &vmstate_##title, sizeof(Timers), timers_fill, timers_blank, \
      timers_show, timers_drop, false },

static void timers(void)
{
    static const TestCase cases[] = { ALL_TIMERS(TRY_TIMERS) };

    for (size_t i = 0; i < COUNT(cases); i++) {
        case_all(&cases[i]);
    }
    case_load_hex(&cases[2], 3, "8000000000000000 fffffffffffffffe"
                   "7fffffffffffffff 0000000000000001 01");
}

int group_scalars(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    for (size_t i = 0; i < COUNT(cases); i++) {
        case_all(&cases[i]);
    }
    for (size_t i = 0; i < COUNT(checks); i++) {
        case_all(&checks[i]);
    }
    bounds();
    odd_values();
    timers();
    return 0;
}
