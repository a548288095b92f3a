/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Objects of random layouts, and the hooks of random descriptions. */
#include <errno.h>

#include "files.h"
#include "generate.h"
#include "qemu/queue.h"

uint64_t mix(uint64_t value)
{
    value += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

static void bytes_fill(void *at, size_t bytes, uint64_t contents)
{
    uint8_t *p = at;

    for (size_t i = 0; i < bytes; i++) {
        p[i] = (uint8_t)mix(contents + i);
        /* What looks like a subsection is worth meeting often. */
        if (p[i] > 0xf0) {
            p[i] = 0x05;
        }
    }
}

/* Elements of lists: the links are pairs of pointers at layout->link. */

static void **link_of(const Layout *layout, void *element)
{
    return (void **)((uint8_t *)element + layout->link);
}

static void queue_init(QTailQLink *head)
{
    head->tql_next = NULL;
    head->tql_prev = head;
}

static void queue_append(const Layout *layout, QTailQLink *head, void *element)
{
    QTailQLink *link = (QTailQLink *)link_of(layout, element);

    link->tql_next = NULL;
    link->tql_prev = head->tql_prev;
    head->tql_prev->tql_next = element;
    head->tql_prev = link;
}

static void list_push(const Layout *layout, void **head, void *element)
{
    void **link = link_of(layout, element);

    link[0] = *head;
    link[1] = head;
    if (*head) {
        link_of(layout, *head)[1] = &link[0];
    }
    *head = element;
}

static size_t element_size(const FieldSample *s)
{
    return s->inner ? s->inner->size : s->size;
}

static void element_fill(const FieldSample *s, void *element, uint64_t contents)
{
    if (s->inner) {
        object_fill(s->inner, element, contents);
    } else {
        bytes_fill(element, s->size, contents);
    }
}

static void *elements_new(const FieldSample *s, uint32_t n, uint64_t contents)
{
    uint8_t *elements = calloc(n + 1, element_size(s));

    for (uint32_t i = 0; i < n; i++) {
        element_fill(s, elements + i * element_size(s), mix(contents + i));
    }
    return elements;
}

static void pointers_fill(const FieldSample *s, void **pointers, uint64_t contents)
{
    for (uint32_t i = 0; i < s->n; i++) {
        pointers[i] = s->holes >> i & 1 ? NULL :
                      elements_new(s, 1, mix(contents + 1000 + i));
    }
}

static void count_store(const FieldSample *s, uint8_t *at, uint32_t value)
{
    memcpy(at, &value, s->size); /* little-endian, as main() checked */
}

/* From the object that is saved to the one that is loaded into. */

static void object_disturb(const Layout *layout, uint8_t *bytes);

static void element_disturb(const FieldSample *s, uint8_t *element)
{
    if (s->inner) {
        object_disturb(s->inner, element);
        return;
    }
    for (size_t i = 0; i < s->size; i++) {
        element[i] ^= 0xff;
    }
}

static void pointers_disturb(const FieldSample *s, void **pointers)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (pointers[i]) {
            element_disturb(s, pointers[i]);
        }
    }
}

/* What can be seen. Regions are numbered as they come. */

static void element_show(const FieldSample *s, void *element, View *v,
                         const char *label)
{
    if (s->inner) {
        object_show(s->inner, element, v);
    } else {
        view(v, label, element, s->size);
    }
}

static void pointers_show(const FieldSample *s, void **pointers, View *v,
                          const char *label)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (pointers[i]) {
            element_show(s, pointers[i], v, label);
        }
    }
}

/* Freeing */

static void element_free(const FieldSample *s, void *element)
{
    if (element && s->inner) {
        object_drop(s->inner, element);
    }
    free(element);
}

static void pointers_free(const FieldSample *s, void **pointers)
{
    for (uint32_t i = 0; i < s->n; i++) {
        element_free(s, pointers[i]);
    }
}

/*
 * The kinds of samples. Each has four operations: `fill` makes the contents,
 * `disturb` turns the object that is saved into the one that is loaded into,
 * `show` prints what can be seen, `drop` frees what the sample points to.
 */

/* Bytes: SAMPLE_DATA, SAMPLE_SAME */

static void data_fill(const FieldSample *s, uint8_t *at, uint64_t contents)
{
    bytes_fill(at, s->size * s->n, contents);
}

static void data_disturb(const FieldSample *s, uint8_t *at)
{
    for (size_t i = 0; i < s->size * s->n; i++) {
        at[i] ^= 0xff;
    }
}

static void data_show(const FieldSample *s, uint8_t *at, View *v, const char *label)
{
    view(v, label, at, s->size * s->n);
}

static void no_disturb(const FieldSample *s, uint8_t *at)
{
    (void)s, (void)at;
}

static void no_drop(const FieldSample *s, uint8_t *at)
{
    (void)s, (void)at;
}

/* SAMPLE_BOOLS */

static void bools_fill(const FieldSample *s, uint8_t *at, uint64_t contents)
{
    for (uint32_t i = 0; i < s->n; i++) {
        at[i] = mix(contents + i) & 1;
    }
}

static void bools_disturb(const FieldSample *s, uint8_t *at)
{
    for (uint32_t i = 0; i < s->n; i++) {
        at[i] ^= 1;
    }
}

/* SAMPLE_AT_MOST */

static void at_most_fill(const FieldSample *s, uint8_t *at, uint64_t contents)
{
    int32_t most = (int32_t)(mix(contents) & 0x3fffffff);

    (void)s;
    memcpy(at, &most, sizeof(most));
}

static void at_most_disturb(const FieldSample *s, uint8_t *at)
{
    (void)s;
    at[3] |= 0x40; /* of the most significant byte */
}

/* SAMPLE_COUNT */

static void count_fill(const FieldSample *s, uint8_t *at, uint64_t contents)
{
    (void)contents;
    count_store(s, at, s->n);
}

static void count_disturb(const FieldSample *s, uint8_t *at)
{
    if (s->travels) {
        count_store(s, at, 0);
    }
}

static void count_show(const FieldSample *s, uint8_t *at, View *v, const char *label)
{
    view(v, label, at, s->size);
}

/* SAMPLE_PART */

static void part_fill(const FieldSample *s, uint8_t *at, uint64_t contents)
{
    for (uint32_t i = 0; i < s->n; i++) {
        object_fill(s->inner, at + i * s->inner->size, mix(contents + i));
    }
}

static void part_disturb(const FieldSample *s, uint8_t *at)
{
    for (uint32_t i = 0; i < s->n; i++) {
        object_disturb(s->inner, at + i * s->inner->size);
    }
}

static void part_show(const FieldSample *s, uint8_t *at, View *v, const char *label)
{
    (void)label;
    for (uint32_t i = 0; i < s->n; i++) {
        object_show(s->inner, at + i * s->inner->size, v);
    }
}

static void part_drop(const FieldSample *s, uint8_t *at)
{
    for (uint32_t i = 0; i < s->n; i++) {
        object_drop(s->inner, at + i * s->inner->size);
    }
}

/* SAMPLE_POINTER */

static void pointer_fill(const FieldSample *s, uint8_t *at, uint64_t contents)
{
    *(void **)at = elements_new(s, s->n, contents);
}

static void pointer_show(const FieldSample *s, uint8_t *at, View *v, const char *label)
{
    for (uint32_t i = 0; *(void **)at && i < s->n; i++) {
        element_show(s, *(uint8_t **)at + i * element_size(s), v, label);
    }
}

static void pointer_drop(const FieldSample *s, uint8_t *at)
{
    /* What a load allocated has no pointers in it. */
    for (uint32_t i = 0; s->inner && !s->fresh && i < s->n; i++) {
        object_drop(s->inner, *(uint8_t **)at + i * s->inner->size);
    }
    free(*(void **)at);
}

static void pointer_disturb(const FieldSample *s, uint8_t *at)
{
    if (s->fresh) {
        pointer_drop(s, at);
        *(void **)at = NULL;
        return;
    }
    for (uint32_t i = 0; i < s->n; i++) {
        element_disturb(s, *(uint8_t **)at + i * element_size(s));
    }
}

/* SAMPLE_POINTERS */

static void pointers_in_place_fill(const FieldSample *s, uint8_t *at, uint64_t contents)
{
    pointers_fill(s, (void **)at, contents);
}

static void pointers_in_place_disturb(const FieldSample *s, uint8_t *at)
{
    pointers_disturb(s, (void **)at);
}

static void pointers_in_place_show(const FieldSample *s, uint8_t *at, View *v, const char *label)
{
    pointers_show(s, (void **)at, v, label);
}

static void pointers_in_place_drop(const FieldSample *s, uint8_t *at)
{
    pointers_free(s, (void **)at);
}

/* SAMPLE_BEHIND */

static void behind_fill(const FieldSample *s, uint8_t *at, uint64_t contents)
{
    *(void **)at = calloc(s->n + 1, sizeof(void *));
    pointers_fill(s, *(void **)at, contents);
}

static void behind_disturb(const FieldSample *s, uint8_t *at)
{
    pointers_disturb(s, *(void ***)at);
}

static void behind_show(const FieldSample *s, uint8_t *at, View *v, const char *label)
{
    pointers_show(s, *(void ***)at, v, label);
}

static void behind_drop(const FieldSample *s, uint8_t *at)
{
    pointers_free(s, *(void ***)at);
    free(*(void **)at);
}

/* SAMPLE_QUEUE, SAMPLE_LIST */

static void linked_show(const FieldSample *s, uint8_t *at, View *v, const char *label)
{
    for (void *e = *(void **)at; e; e = *link_of(s->inner, e)) {
        element_show(s, e, v, label);
    }
    view_text(v, label, "end");
}

static void linked_drop(const FieldSample *s, uint8_t *at)
{
    for (void *element = *(void **)at; element;) {
        void *next = *link_of(s->inner, element);

        free(element);
        element = next;
    }
}

static void queue_fill(const FieldSample *s, uint8_t *at, uint64_t contents)
{
    queue_init((QTailQLink *)at);
    for (uint32_t i = 0; i < s->n; i++) {
        queue_append(s->inner, (QTailQLink *)at, elements_new(s, 1, mix(contents + i)));
    }
}

static void queue_disturb(const FieldSample *s, uint8_t *at)
{
    linked_drop(s, at);
    queue_init((QTailQLink *)at);
}

static void list_fill(const FieldSample *s, uint8_t *at, uint64_t contents)
{
    *(void **)at = NULL;
    for (uint32_t i = 0; i < s->n; i++) {
        list_push(s->inner, (void **)at, elements_new(s, 1, mix(contents + i)));
    }
}

static void list_disturb(const FieldSample *s, uint8_t *at)
{
    linked_drop(s, at);
    *(void **)at = NULL;
}

static const struct {
    void (*fill)(const FieldSample *s, uint8_t *at, uint64_t contents);
    void (*disturb)(const FieldSample *s, uint8_t *at);
    void (*show)(const FieldSample *s, uint8_t *at, View *v, const char *label);
    void (*drop)(const FieldSample *s, uint8_t *at);
} kinds[] = {
    [SAMPLE_DATA] = { data_fill, data_disturb, data_show, no_drop },
    [SAMPLE_BOOLS] = { bools_fill, bools_disturb, data_show, no_drop },
    [SAMPLE_SAME] = { data_fill, no_disturb, data_show, no_drop },
    [SAMPLE_AT_MOST] = { at_most_fill, at_most_disturb, data_show, no_drop },
    [SAMPLE_COUNT] = { count_fill, count_disturb, count_show, no_drop },
    [SAMPLE_PART] = { part_fill, part_disturb, part_show, part_drop },
    [SAMPLE_POINTER] = { pointer_fill, pointer_disturb, pointer_show, pointer_drop },
    [SAMPLE_POINTERS] = {
        pointers_in_place_fill, pointers_in_place_disturb, pointers_in_place_show, pointers_in_place_drop
    },
    [SAMPLE_BEHIND] = { behind_fill, behind_disturb, behind_show, behind_drop },
    [SAMPLE_QUEUE] = { queue_fill, queue_disturb, linked_show, linked_drop },
    [SAMPLE_LIST] = { list_fill, list_disturb, linked_show, linked_drop },
};

/* Objects */

void object_fill(const Layout *layout, void *object, uint64_t contents)
{
    uint8_t *bytes = object;

    memset(bytes, 0, layout->size);
    bytes_fill(bytes, FLAG_BYTES, mix(contents));
    for (size_t i = 0; i < layout->sample_count; i++) {
        const FieldSample *s = &layout->samples[i];

        kinds[s->kind].fill(s, bytes + s->offset, mix(contents + s->offset));
    }
}

static void object_disturb(const Layout *layout, uint8_t *bytes)
{
    for (size_t i = 0; i < layout->sample_count; i++) {
        const FieldSample *s = &layout->samples[i];

        kinds[s->kind].disturb(s, bytes + s->offset);
    }
}

void object_blank(const Layout *layout, void *object, uint64_t contents)
{
    object_fill(layout, object, contents);
    object_disturb(layout, object);
}

void object_show(const Layout *layout, void *object, View *v)
{
    uint8_t *bytes = object;

    for (size_t i = 0; i < layout->sample_count; i++) {
        const FieldSample *s = &layout->samples[i];
        char label[32];

        snprintf(label, sizeof(label), "%zu", s->offset);
        kinds[s->kind].show(s, bytes + s->offset, v, label);
    }
}

void object_drop(const Layout *layout, void *object)
{
    uint8_t *bytes = object;

    for (size_t i = 0; i < layout->sample_count; i++) {
        const FieldSample *s = &layout->samples[i];

        kinds[s->kind].drop(s, bytes + s->offset);
    }
}

/* Hooks */

static uint32_t hook_calls, hook_to_fail;
static bool is_loading;

void hooks_start(const Made *made, bool loading)
{
    hook_calls = 0;
    hook_to_fail = made->hook_fails;
    is_loading = loading;
}

static int hook_result(void)
{
    return ++hook_calls == hook_to_fail ? -EPERM : 0;
}

static bool exists_by_flag(void *opaque, int version_id)
{
    note("e%d", version_id);
    return ((uint8_t *)opaque)[1] & 1;
}

static bool exists_since_2(void *opaque, int version_id)
{
    (void)opaque;
    note("s%d", version_id);
    return version_id >= 2;
}

static bool exists_if_odd(void *opaque, int version_id)
{
    (void)opaque;
    return version_id & 1;
}

static bool exists_never(void *opaque, int version_id)
{
    (void)opaque;
    (void)version_id;
    return false;
}

ExistsFn *const exists_hooks[5] = {
    NULL, exists_by_flag, exists_since_2, exists_if_odd, exists_never
};

static bool needed_always(void *opaque)
{
    (void)opaque;
    return true;
}

static bool needed_never(void *opaque)
{
    (void)opaque;
    note("n");
    return false;
}

static bool needed_flag_2(void *opaque)
{
    note("n2");
    return ((uint8_t *)opaque)[2] & 1;
}

static bool needed_flag_3(void *opaque)
{
    return ((uint8_t *)opaque)[3] & 1;
}

static bool needed_flag_4(void *opaque)
{
    return ((uint8_t *)opaque)[4] & 1;
}

NeededFn *const needed_hooks[6] = {
    NULL, needed_always, needed_never, needed_flag_2, needed_flag_3,
    needed_flag_4
};

/* Only a load may fail a validation: QEMU does not survive the other. */
bool valid_hook(void *opaque, int version_id)
{
    note("v%d", version_id);
    return !is_loading || (((uint8_t *)opaque)[5] & 7);
}

int pre_save_hook(void *opaque)
{
    (void)opaque;
    note("<s");
    return hook_result();
}

int post_save_hook(void *opaque)
{
    (void)opaque;
    note("s>");
    return hook_result();
}

int pre_load_hook(void *opaque)
{
    (void)opaque;
    note("<l");
    return hook_result();
}

int post_load_hook(void *opaque, int version_id)
{
    (void)opaque;
    note("l%d>", version_id);
    return hook_result();
}

#if SAVEVM_QEMU_VERSION >= 1002
static bool hook_passes(Error **errp)
{
    if (hook_result() == 0) {
        return true;
    }
    files_error(errp, "refused");
    return false;
}

bool pre_save_errp_hook(void *opaque, Error **errp)
{
    (void)opaque;
    note("<S");
    return hook_passes(errp);
}

bool pre_load_errp_hook(void *opaque, Error **errp)
{
    (void)opaque;
    note("<L");
    return hook_passes(errp);
}

bool post_load_errp_hook(void *opaque, int version_id, Error **errp)
{
    (void)opaque;
    note("L%d>", version_id);
    return hook_passes(errp);
}
#endif

int tmp_pre_save(void *opaque)
{
    uint8_t *tmp = opaque;

    bytes_fill(tmp + sizeof(void *), TMP_SIZE - sizeof(void *),
               **(uint8_t **)opaque);
    return hook_result();
}

int tmp_pre_load(void *opaque)
{
    memset((uint8_t *)opaque + sizeof(void *), 0, TMP_SIZE - sizeof(void *));
    return hook_result();
}

int tmp_post_load(void *opaque, int version_id)
{
    uint8_t *tmp = opaque;
    uint64_t sum = 0;

    for (size_t i = sizeof(void *); i < TMP_SIZE; i++) {
        sum = mix(sum + tmp[i]);
    }
    note("t%d:%016llx", version_id, (unsigned long long)sum);
    return hook_result();
}
