/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Saves, loads, cuts short and describes an object, and writes down all that
 * can be seen from outside: bytes, values, results, calls. The program judges
 * nothing: its output is compared with that of the same object files linked
 * with QEMU 7.2.
 */
#ifndef VMSTATE_TEST_TRIAL_H
#define VMSTATE_TEST_TRIAL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Memory that belongs to an object, collected by Trial.show. */
typedef struct View View;
void view(View *v, const char *label, const void *at, size_t bytes);
void view_text(View *v, const char *label, const char *text);

/*
 * What is tried. `obj` is always `size` bytes that start out as zeros (to be
 * saved) or as 0xa5 (to be loaded into), before fill or blank is called.
 */
typedef struct Trial {
    const char *name;
    const VMStateDescription *vmsd;
    size_t size;
    void (*fill)(void *obj);           /* NULL: bytes that count up */
    void (*blank)(void *obj);          /* NULL: stays as it is */
    void (*show)(void *obj, View *v);  /* NULL: the bytes of the object */
    void (*drop)(void *obj);           /* NULL: nothing to free */
    bool brief; /* fewer cuts, and no values after a load that failed */
} Trial;

/* A line in the trace, in its own right. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A call of a hook; printed with the result of what called it. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* All of it: the table, every version, every truncation, the description. */
void trial_all(const Trial *t);

/*
 * The parts. trial_save() returns what the save did; what was written until
 * then is freed by the caller.
 */
void trial_table(const VMStateDescription *vmsd);
int trial_save(const Trial *t, int version, uint8_t **bytes, size_t *len);
void trial_load(const Trial *t, int version, const uint8_t *bytes, size_t len);
void trial_cuts(const Trial *t, int version, const uint8_t *bytes, size_t len);
void trial_describe(const Trial *t);

/* Loads bytes that are written down in hexadecimal; blanks are ignored. */
void trial_load_hex(const Trial *t, int version, const char *hex);

/* Where the trace goes: to stdout, or only into a sum. */
extern uint64_t trace_sum;
extern bool trace_quiet;

#endif
