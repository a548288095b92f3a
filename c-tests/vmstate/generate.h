/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random descriptions, and objects that fit them.
 *
 * All that is random about a description is drawn with choose(). The draws of a
 * case can be written down and given again, changed or cut short; 0 is always
 * the simplest answer, and what is missing is 0. That is all a shrinker needs.
 */
#ifndef VMSTATE_TEST_GENERATE_H
#define VMSTATE_TEST_GENERATE_H

#include "test-case.h"

/* Draws */

void choices_seed(uint64_t seed);
void choices_give(const uint32_t *choices, size_t count);
size_t choices_made(const uint32_t **choices);

/* At least 0, less than n. */
uint32_t choose(uint32_t n);

/* A hash in place of random contents, which are not a choice. */
uint64_t mix(uint64_t value);

/* What is where in an object, besides its first bytes. */
#define FLAG_BYTES 8

typedef struct Layout Layout;

typedef enum SampleKind {
    SAMPLE_DATA,     /* bytes that load changes */
    SAMPLE_BOOLS,
    SAMPLE_SAME,     /* bytes that both sides have alike */
    SAMPLE_AT_MOST,  /* an int32_t: the side that loads has the larger one */
    SAMPLE_COUNT,    /* a number of elements */
    SAMPLE_PART,     /* objects of layout `inner` */
    SAMPLE_POINTER,  /* a pointer to elements */
    SAMPLE_POINTERS, /* an array of pointers to elements */
    SAMPLE_BEHIND,   /* a pointer to an array of pointers to elements */
    SAMPLE_QUEUE,    /* a QTAILQ of elements */
    SAMPLE_LIST,     /* a QLIST of elements */
} SampleKind;

typedef struct FieldSample {
    SampleKind kind;
    size_t offset;
    size_t size;         /* of an element, or of the count */
    uint32_t n;          /* elements, or the count */
    uint32_t holes;      /* a bit for each pointer that is NULL */
    bool travels;        /* counts: in the stream */
    bool fresh;          /* pointers: allocated by the load */
    const Layout *inner; /* of the elements; NULL: they are data */
} FieldSample;

#define SAMPLES 256

struct Layout {
    size_t size;
    size_t link;     /* of elements of a list or queue */
    bool flat;       /* all of it is loaded, always; no pointers */
    FieldSample samples[SAMPLES];
    size_t sample_count;
};

/* What a case is made of. Memory stays until the next one is made. */
typedef struct Made {
    const VMStateDescription *vmsd;
    const Layout *layout;
    uint64_t contents;  /* seeds what is in the objects */
    uint32_t hook_fails; /* the number of the hook that fails; 0: none */
    bool fixed;         /* no number of elements is in the stream */
} Made;

const Made *generate(void);

/* Objects: `object` is layout->size bytes, whatever is in them before. */
void object_fill(const Layout *layout, void *object, uint64_t contents);
void object_blank(const Layout *layout, void *object, uint64_t contents);
void object_show(const Layout *layout, void *object, View *v);
void object_drop(const Layout *layout, void *object);

/* Hooks are counted from here on, and one of them may fail. */
void hooks_start(const Made *made, bool loading);

/* The hooks that descriptions draw from; the first of each is NULL. */
typedef bool ExistsFn(void *opaque, int version_id);
typedef bool NeededFn(void *opaque);
extern ExistsFn *const exists_hooks[5];
extern NeededFn *const needed_hooks[6];
bool valid_hook(void *opaque, int version_id);
int pre_save_hook(void *opaque);
int post_save_hook(void *opaque);
int pre_load_hook(void *opaque);
int post_load_hook(void *opaque, int version_id);
#if SAVEVM_QEMU_VERSION >= 1002
bool pre_save_errp_hook(void *opaque, Error **errp);
bool pre_load_errp_hook(void *opaque, Error **errp);
bool post_load_errp_hook(void *opaque, int version_id, Error **errp);
#endif

/* The temporaries of VMSTATE_WITH_TMP: of one size, filled by hooks. */
#define TMP_SIZE 40
int tmp_pre_save(void *opaque);
int tmp_pre_load(void *opaque);
int tmp_post_load(void *opaque, int version_id);

#endif
