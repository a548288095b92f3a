/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Saves, loads, cuts short and describes an object, and writes down all that
 * can be seen from outside: bytes, values, results, calls. The program judges
 * nothing: its output is compared with that of the same object files linked
 * with QEMU 7.2.
 */
#ifndef VMSTATE_TEST_CASE_H
#define VMSTATE_TEST_CASE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"

/* The functions of each version. */
#if SAVEVM_QEMU_VERSION < 600
#define JSONWriter QJSON
#endif
#if SAVEVM_QEMU_VERSION >= 1002
#define SAVE(f, vmsd, obj, vmdesc) vmstate_save_state(f, vmsd, obj, vmdesc, NULL)
#define LOAD(f, vmsd, obj, version) vmstate_load_state(f, vmsd, obj, version, NULL)
#else
#define SAVE(f, vmsd, obj, vmdesc) vmstate_save_state(f, vmsd, obj, vmdesc)
#define LOAD(f, vmsd, obj, version) vmstate_load_state(f, vmsd, obj, version)
#endif
#if SAVEVM_QEMU_VERSION >= 802
#define SAVE_VERSION(f, vmsd, obj, vmdesc, version) vmstate_save_state_v(f, vmsd, obj, vmdesc, version, NULL)
#else
#define SAVE_VERSION(f, vmsd, obj, vmdesc, version) vmstate_save_state_v(f, vmsd, obj, vmdesc, version)
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Memory that belongs to an object, collected by TestCase.show. */
typedef struct View View;
void view(View *v, const char *label, const void *at, size_t bytes);
void view_text(View *v, const char *label, const char *text);

/*
 * What is tried. `obj` is always `size` bytes that start out as zeros (to be
 * saved) or as 0xa5 (to be loaded into), before fill or blank is called.
 */
typedef struct TestCase {
    const char *name;
    const VMStateDescription *vmsd;
    size_t size;
    void (*fill)(void *obj);           /* NULL: bytes that count up */
    void (*blank)(void *obj);          /* NULL: stays as it is */
    void (*show)(void *obj, View *v);  /* NULL: the bytes of the object */
    void (*drop)(void *obj);           /* NULL: nothing to free */
    bool brief; /* fewer cuts, and no values after a load that failed */
} TestCase;

/* A line in the trace, in its own right. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A call of a hook; printed with the result of what called it. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* All of it: the table, every version, every truncation, the description. */
void case_all(const TestCase *t);

/* The same without the description. */
void case_undescribed(const TestCase *t);

/*
 * The parts. case_save() returns what the save did; what was written until
 * then is freed by the caller.
 */
void case_table(const VMStateDescription *vmsd);
int case_save(const TestCase *t, int version, uint8_t **bytes, size_t *len);
void case_load(const TestCase *t, int version, const uint8_t *bytes, size_t len);
void case_cuts(const TestCase *t, int version, const uint8_t *bytes, size_t len);
void case_describe(const TestCase *t);

/* Loads bytes that are written down in hexadecimal; blanks are ignored. */
void case_load_hex(const TestCase *t, int version, const char *hex);

/* Where the trace goes: to stdout, or only into a sum. */
extern uint64_t trace_sum;
extern bool trace_quiet;

#endif
