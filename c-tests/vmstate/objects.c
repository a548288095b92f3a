/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Objects of random layouts, and the hooks of random descriptions. */
#include <errno.h>

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

static size_t element_size(const Spot *s)
{
    return s->inner ? s->inner->size : s->size;
}

static void element_fill(const Spot *s, void *element, uint64_t contents)
{
    if (s->inner) {
        object_fill(s->inner, element, contents);
    } else {
        bytes_fill(element, s->size, contents);
    }
}

static void *elements_new(const Spot *s, uint32_t n, uint64_t contents)
{
    uint8_t *elements = calloc(n + 1, element_size(s));

    for (uint32_t i = 0; i < n; i++) {
        element_fill(s, elements + i * element_size(s), mix(contents + i));
    }
    return elements;
}

static void pointers_fill(const Spot *s, void **pointers, uint64_t contents)
{
    for (uint32_t i = 0; i < s->n; i++) {
        pointers[i] = s->holes >> i & 1 ? NULL :
                      elements_new(s, 1, mix(contents + 1000 + i));
    }
}

static void count_store(const Spot *s, uint8_t *at, uint32_t value)
{
    memcpy(at, &value, s->size); /* little-endian, as main() checked */
}

static void spot_fill(const Spot *s, uint8_t *at, uint64_t contents)
{
    int32_t most;

    switch (s->kind) {
    case SPOT_DATA:
    case SPOT_SAME:
        bytes_fill(at, s->size * s->n, contents);
        break;
    case SPOT_BOOLS:
        for (uint32_t i = 0; i < s->n; i++) {
            at[i] = mix(contents + i) & 1;
        }
        break;
    case SPOT_AT_MOST:
        most = (int32_t)(mix(contents) & 0x3fffffff);
        memcpy(at, &most, sizeof(most));
        break;
    case SPOT_COUNT:
        count_store(s, at, s->n);
        break;
    case SPOT_PART:
        for (uint32_t i = 0; i < s->n; i++) {
            object_fill(s->inner, at + i * s->inner->size, mix(contents + i));
        }
        break;
    case SPOT_POINTER:
        *(void **)at = elements_new(s, s->n, contents);
        break;
    case SPOT_POINTERS:
        pointers_fill(s, (void **)at, contents);
        break;
    case SPOT_BEHIND:
        *(void **)at = calloc(s->n + 1, sizeof(void *));
        pointers_fill(s, *(void **)at, contents);
        break;
    case SPOT_QUEUE:
        queue_init((QTailQLink *)at);
        for (uint32_t i = 0; i < s->n; i++) {
            queue_append(s->inner, (QTailQLink *)at,
                         elements_new(s, 1, mix(contents + i)));
        }
        break;
    case SPOT_LIST:
        *(void **)at = NULL;
        for (uint32_t i = 0; i < s->n; i++) {
            list_push(s->inner, (void **)at,
                      elements_new(s, 1, mix(contents + i)));
        }
        break;
    }
}

void object_fill(const Layout *layout, void *object, uint64_t contents)
{
    uint8_t *bytes = object;

    memset(bytes, 0, layout->size);
    bytes_fill(bytes, FLAG_BYTES, mix(contents));
    for (size_t i = 0; i < layout->spot_count; i++) {
        const Spot *s = &layout->spots[i];

        spot_fill(s, bytes + s->offset, mix(contents + s->offset));
    }
}

/* From the object that is saved to the one that is loaded into. */

static void object_disturb(const Layout *layout, uint8_t *bytes);

static void element_disturb(const Spot *s, uint8_t *element)
{
    if (s->inner) {
        object_disturb(s->inner, element);
        return;
    }
    for (size_t i = 0; i < s->size; i++) {
        element[i] ^= 0xff;
    }
}

static void pointers_disturb(const Spot *s, void **pointers)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (pointers[i]) {
            element_disturb(s, pointers[i]);
        }
    }
}

static void spot_drop(const Spot *s, uint8_t *at);

static void spot_disturb(const Spot *s, uint8_t *at)
{
    switch (s->kind) {
    case SPOT_DATA:
        for (size_t i = 0; i < s->size * s->n; i++) {
            at[i] ^= 0xff;
        }
        break;
    case SPOT_BOOLS:
        for (uint32_t i = 0; i < s->n; i++) {
            at[i] ^= 1;
        }
        break;
    case SPOT_SAME:
        break;
    case SPOT_AT_MOST:
        at[3] |= 0x40; /* of the most significant byte */
        break;
    case SPOT_COUNT:
        if (s->travels) {
            count_store(s, at, 0);
        }
        break;
    case SPOT_PART:
        for (uint32_t i = 0; i < s->n; i++) {
            object_disturb(s->inner, at + i * s->inner->size);
        }
        break;
    case SPOT_POINTER:
        if (s->fresh) {
            spot_drop(s, at);
            *(void **)at = NULL;
            break;
        }
        for (uint32_t i = 0; i < s->n; i++) {
            element_disturb(s, *(uint8_t **)at + i * element_size(s));
        }
        break;
    case SPOT_POINTERS:
        pointers_disturb(s, (void **)at);
        break;
    case SPOT_BEHIND:
        pointers_disturb(s, *(void ***)at);
        break;
    case SPOT_QUEUE:
        spot_drop(s, at);
        queue_init((QTailQLink *)at);
        break;
    case SPOT_LIST:
        spot_drop(s, at);
        *(void **)at = NULL;
        break;
    }
}

static void object_disturb(const Layout *layout, uint8_t *bytes)
{
    for (size_t i = 0; i < layout->spot_count; i++) {
        spot_disturb(&layout->spots[i], bytes + layout->spots[i].offset);
    }
}

void object_blank(const Layout *layout, void *object, uint64_t contents)
{
    object_fill(layout, object, contents);
    object_disturb(layout, object);
}

/* What can be seen. Regions are numbered as they come. */

static void element_show(const Spot *s, void *element, View *v,
                         const char *label)
{
    if (s->inner) {
        object_show(s->inner, element, v);
    } else {
        view(v, label, element, s->size);
    }
}

static void pointers_show(const Spot *s, void **pointers, View *v,
                          const char *label)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (pointers[i]) {
            element_show(s, pointers[i], v, label);
        }
    }
}

static void spot_show(const Spot *s, uint8_t *at, View *v, const char *label)
{
    switch (s->kind) {
    case SPOT_DATA:
    case SPOT_BOOLS:
    case SPOT_SAME:
    case SPOT_AT_MOST:
    case SPOT_COUNT:
        view(v, label, at, s->kind == SPOT_COUNT ? s->size : s->size * s->n);
        break;
    case SPOT_PART:
        for (uint32_t i = 0; i < s->n; i++) {
            object_show(s->inner, at + i * s->inner->size, v);
        }
        break;
    case SPOT_POINTER:
        for (uint32_t i = 0; *(void **)at && i < s->n; i++) {
            element_show(s, *(uint8_t **)at + i * element_size(s), v, label);
        }
        break;
    case SPOT_POINTERS:
        pointers_show(s, (void **)at, v, label);
        break;
    case SPOT_BEHIND:
        pointers_show(s, *(void ***)at, v, label);
        break;
    case SPOT_QUEUE:
    case SPOT_LIST:
        for (void *e = *(void **)at; e; e = *link_of(s->inner, e)) {
            element_show(s, e, v, label);
        }
        view_text(v, label, "end");
        break;
    }
}

void object_show(const Layout *layout, void *object, View *v)
{
    uint8_t *bytes = object;

    for (size_t i = 0; i < layout->spot_count; i++) {
        char label[32];

        snprintf(label, sizeof(label), "%zu", layout->spots[i].offset);
        spot_show(&layout->spots[i], bytes + layout->spots[i].offset, v,
                  label);
    }
}

/* The end */

static void element_free(const Spot *s, void *element)
{
    if (element && s->inner) {
        object_drop(s->inner, element);
    }
    free(element);
}

static void pointers_free(const Spot *s, void **pointers)
{
    for (uint32_t i = 0; i < s->n; i++) {
        element_free(s, pointers[i]);
    }
}

static void spot_drop(const Spot *s, uint8_t *at)
{
    void *element;

    switch (s->kind) {
    case SPOT_PART:
        for (uint32_t i = 0; i < s->n; i++) {
            object_drop(s->inner, at + i * s->inner->size);
        }
        break;
    case SPOT_POINTER:
        /* What a load allocated has no pointers in it. */
        for (uint32_t i = 0; s->inner && !s->fresh && i < s->n; i++) {
            object_drop(s->inner, *(uint8_t **)at + i * s->inner->size);
        }
        free(*(void **)at);
        break;
    case SPOT_POINTERS:
        pointers_free(s, (void **)at);
        break;
    case SPOT_BEHIND:
        pointers_free(s, *(void ***)at);
        free(*(void **)at);
        break;
    case SPOT_QUEUE:
    case SPOT_LIST:
        for (element = *(void **)at; element;) {
            void *next = *link_of(s->inner, element);

            free(element);
            element = next;
        }
        break;
    default:
        break;
    }
}

void object_drop(const Layout *layout, void *object)
{
    uint8_t *bytes = object;

    for (size_t i = 0; i < layout->spot_count; i++) {
        spot_drop(&layout->spots[i], bytes + layout->spots[i].offset);
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
