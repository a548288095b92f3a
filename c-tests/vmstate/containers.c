/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lists, queues, trees, and temporaries: what is allocated while loading. */
#include <errno.h>

#include "files.h"
#include "groups.h"
#include "qemu/queue.h"
#include "test-case.h"

/* Lists and queues */

typedef struct Part {
    uint8_t size;
    QLIST_ENTRY(Part) next;
} Part;

typedef struct Job {
    uint16_t id;
    QTAILQ_ENTRY(Job) next;
    uint8_t state;
    QLIST_HEAD(, Part) parts;
    QLIST_ENTRY(Job) also;
} Job;

typedef struct Dev {
    QTAILQ_HEAD(, Job) queue;
    QLIST_HEAD(, Job) list;
    uint8_t end;
} Dev;

static int jobs;      /* how many there are to be saved */
static int jobs_here; /* how many are there before loading */
static int refuse;    /* the id that is refused, -1 for none */
static int parts;     /* how many each job has */

/* What was in the lists before a load: QEMU cuts a QLIST off at its head. */
static Job *before[8];
static size_t before_count;

static Job *job_new(uint16_t id)
{
    Job *job = calloc(1, sizeof(*job));

    job->id = id;
    job->state = (uint8_t)(id * 3);
    QLIST_INIT(&job->parts);
    for (int i = 0; i < parts; i++) {
        Part *part = calloc(1, sizeof(*part));

        part->size = (uint8_t)(id + i);
        QLIST_INSERT_HEAD(&job->parts, part, next);
    }
    return job;
}

static void dev_init(Dev *d, int count, int first)
{
    QTAILQ_INIT(&d->queue);
    QLIST_INIT(&d->list);
    for (int i = 0; i < count; i++) {
        Job *queued = job_new((uint16_t)(first + i));
        Job *listed = job_new((uint16_t)(first + 100 + i));

        QTAILQ_INSERT_TAIL(&d->queue, queued, next);
        QLIST_INSERT_HEAD(&d->list, listed, also);
        before[before_count++] = listed;
    }
    d->end = 0x42;
}

static void fill(void *opaque)
{
    dev_init(opaque, jobs, 0x100);
}

static void blank(void *opaque)
{
    dev_init(opaque, jobs_here, 0x900);
}

static void job_text(char *text, size_t room, Job *job, bool with_parts)
{
    size_t n = strlen(text);
    Part *part;

    n += (size_t)snprintf(text + n, room - n, "%x:%x", job->id, job->state);
    if (with_parts) {
        QLIST_FOREACH(part, &job->parts, next) {
            n += (size_t)snprintf(text + n, room - n, "/%x", part->size);
        }
    }
    snprintf(text + n, room - n, ",");
}

static bool show_parts;

/* Forward and backward, so that both pointers of each link count. */
static void show(void *opaque, View *v)
{
    Dev *d = opaque;
    Job *job, **link;
    char text[400] = "";

    QTAILQ_FOREACH(job, &d->queue, next) {
        job_text(text, sizeof(text), job, show_parts);
    }
    view_text(v, "queue", text);
    text[0] = '\0';
    QTAILQ_FOREACH_REVERSE(job, &d->queue, next) {
        job_text(text, sizeof(text), job, false);
    }
    view_text(v, "back", text);
    text[0] = '\0';
    link = &d->list.lh_first;
    QLIST_FOREACH(job, &d->list, also) {
        job_text(text, sizeof(text), job, false);
        if (job->also.le_prev != link) {
            strcat(text, "broken,");
        }
        link = &job->also.le_next;
    }
    view_text(v, "list", text);
    view(v, "end", &d->end, 1);
}

static void job_free(Job *job)
{
    for (size_t i = 0; i < before_count; i++) {
        before[i] = before[i] == job ? NULL : before[i];
    }
    if (show_parts) {
        while (!QLIST_EMPTY(&job->parts)) {
            Part *part = QLIST_FIRST(&job->parts);

            QLIST_REMOVE(part, next);
            free(part);
        }
    }
    free(job);
}

static void drop(void *opaque)
{
    Dev *d = opaque;
    Job *job, *following;

    QTAILQ_FOREACH_SAFE(job, &d->queue, next, following) {
        job_free(job);
    }
    while (!QLIST_EMPTY(&d->list)) {
        job = QLIST_FIRST(&d->list);
        QLIST_REMOVE(job, also);
        job_free(job);
    }
    while (before_count) {
        free(before[--before_count]);
    }
}

static int job_pre_save(void *opaque)
{
    Job *job = opaque;

    note("save(%x)", job->id);
    return job->id == refuse ? -EBUSY : 0;
}

static int job_post_load(void *opaque, int version_id)
{
    Job *job = opaque;

    note("loaded(%x,%d)", job->id, version_id);
    return job->id == refuse ? -EBUSY : 0;
}

static const VMStateDescription vmstate_job = {
    .name = "job",
    .version_id = 2,
    .minimum_version_id = 1,
    .pre_save = job_pre_save,
    .post_load = job_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(id, Job),
        VMSTATE_UINT8(state, Job),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_part = {
    .name = "part",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(size, Part),
        VMSTATE_END_OF_LIST()
    },
};

static int list_init(void *opaque)
{
    Job *job = opaque;

    QLIST_INIT(&job->parts);
    return 0;
}

static const VMStateDescription vmstate_big_job = {
    .name = "big job",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_load = list_init,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(id, Job),
        VMSTATE_QLIST_V(parts, Job, 1, vmstate_part, Part, next),
        VMSTATE_UINT8(state, Job),
        VMSTATE_END_OF_LIST()
    },
};

#define DESCRIBE(title, ...)                                                \
    static const VMStateDescription vmstate_##title = {                     \
        .name = #title,                                                     \
        .version_id = 3,                                                    \
        .minimum_version_id = 3,                                            \
        .fields = (const VMStateField[]) {                                  \
            __VA_ARGS__,                                                    \
            VMSTATE_UINT8(end, Dev),                                        \
            VMSTATE_END_OF_LIST()                                           \
        },                                                                  \
    };

DESCRIBE(queue, VMSTATE_QTAILQ_V(queue, Dev, 1, vmstate_job, Job, next))
DESCRIBE(list, VMSTATE_QLIST_V(list, Dev, 1, vmstate_job, Job, also))
DESCRIBE(both, VMSTATE_QTAILQ_V(queue, Dev, 2, vmstate_job, Job, next),
         VMSTATE_QLIST_V(list, Dev, 2, vmstate_job, Job, also))
DESCRIBE(queue_too_new, VMSTATE_QTAILQ_V(queue, Dev, 3, vmstate_job, Job, next))
DESCRIBE(queue_too_old, VMSTATE_QTAILQ_V(queue, Dev, 0, vmstate_job, Job, next))
DESCRIBE(list_too_new, VMSTATE_QLIST_V(list, Dev, 3, vmstate_job, Job, also))
DESCRIBE(list_too_old, VMSTATE_QLIST_V(list, Dev, 0, vmstate_job, Job, also))
DESCRIBE(list_in_queue,
         VMSTATE_QTAILQ_V(queue, Dev, 1, vmstate_big_job, Job, next))

#define ALL_LISTS(X) \
    X(queue) X(list) X(both) X(queue_too_new) X(queue_too_old) \
    X(list_too_new) X(list_too_old)
#define TRY(title) \
    { #title, &vmstate_##title, sizeof(Dev), fill, blank, show, drop, false },

static void lists(void)
{
    static const TestCase cases[] = { ALL_LISTS(TRY) };
    static const int counts[] = { 0, 1, 3 };

    for (size_t i = 0; i < COUNT(cases); i++) {
        for (size_t c = 0; c < COUNT(counts); c++) {
            jobs = counts[c];
            say("with %d", jobs);
            case_all(&cases[i]);
        }
    }
    say("into lists that have something already");
    jobs_here = 2;
    case_all(&cases[2]);
    say("markers that are not 1");
    case_load_hex(&cases[0], 3, "02 1111 22 ff 3333 44 00 55");
    case_load_hex(&cases[1], 3, "80 1111 22 7e 3333 44 00 55");
    jobs_here = 0;
    say("an element that is refused");
    refuse = 0x101;
    case_all(&cases[0]);
    case_load_hex(&cases[0], 3, "01 0100 00 01 0101 03 01 0102 06 00 42");
    refuse = 0x165;
    case_all(&cases[1]);
    case_load_hex(&cases[1], 3, "01 0164 00 01 0165 03 01 0166 06 00 42");
    refuse = -1;
}

static void nested_lists(void)
{
    static const TestCase t = {
        "a list in a queue", &vmstate_list_in_queue, sizeof(Dev), fill, blank,
        show, drop, false
    };

    show_parts = true;
    for (parts = 0; parts < 3; parts++) {
        jobs = 2;
        say("with %d parts each", parts);
        case_all(&t);
    }
    parts = 0;
    show_parts = false;
}

/* Temporaries */

typedef struct Clock {
    uint64_t ticks;
    uint8_t end;
} Clock;

typedef struct ClockTmp {
    Clock *parent;
    uint32_t seconds;
    uint16_t rest;
} ClockTmp;

static int tmp_result;

static int clock_pre_save(void *opaque)
{
    ClockTmp *tmp = opaque;

    note("split");
    tmp->seconds = (uint32_t)(tmp->parent->ticks / 1000);
    tmp->rest = (uint16_t)(tmp->parent->ticks % 1000);
    return tmp_result;
}

static int clock_post_load(void *opaque, int version_id)
{
    ClockTmp *tmp = opaque;

    note("join(%d)", version_id);
    tmp->parent->ticks = UINT64_C(1000) * tmp->seconds + tmp->rest;
    return tmp_result;
}

static const VMStateDescription vmstate_clock_tmp = {
    .name = "clock tmp",
    .version_id = 0,
    .minimum_version_id = 0,
    .pre_save = clock_pre_save,
    .post_load = clock_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(seconds, ClockTmp),
        VMSTATE_UINT16(rest, ClockTmp),
        VMSTATE_END_OF_LIST()
    },
};

/* A temporary is loaded in version 0: this one is always too old. */
static const VMStateDescription vmstate_clock_tmp_2 = {
    .name = "clock tmp",
    .version_id = 2,
    .minimum_version_id = 1,
    .pre_save = clock_pre_save,
    .post_load = clock_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(seconds, ClockTmp),
        VMSTATE_UINT16(rest, ClockTmp),
        VMSTATE_END_OF_LIST()
    },
};

#define CLOCK(ident, tmp)                                                   \
    static const VMStateDescription vmstate_##ident = {                     \
        .name = "clock",                                                    \
        .version_id = 2,                                                    \
        .minimum_version_id = 2,                                            \
        .fields = (const VMStateField[]) {                                  \
            VMSTATE_WITH_TMP(Clock, ClockTmp, tmp),                         \
            VMSTATE_UINT8(end, Clock),                                      \
            VMSTATE_END_OF_LIST()                                           \
        },                                                                  \
    };
CLOCK(clock, vmstate_clock_tmp)
CLOCK(clock_2, vmstate_clock_tmp_2)

static void clock_fill(void *opaque)
{
    Clock *c = opaque;

    c->ticks = 987654321;
    c->end = 0x21;
}

static void temporaries(void)
{
    static const TestCase good = { "tmp", &vmstate_clock, sizeof(Clock),
                                clock_fill, NULL, NULL, NULL, false };
    static const TestCase old = { "tmp, too old", &vmstate_clock_2, sizeof(Clock),
                               clock_fill, NULL, NULL, NULL, false };

    case_all(&good);
    case_all(&old);
    say("a hook that refuses");
    tmp_result = -EPERM;
    case_load_hex(&good, 2, "00000001 0002 03");
    case_all(&good);
    tmp_result = 0;
}

/* Trees */

typedef struct Key {
    uint32_t low;
    uint32_t high;
} Key;

typedef struct Value {
    uint16_t flags;
    uint8_t level;
} Value;

typedef struct Space {
    void *mapped; /* Key to Value */
    void *direct; /* integers to Value */
    uint8_t end;
} Space;

static int nodes;

static int key_compare(const void *a, const void *b)
{
    const Key *x = a, *y = b;

    return (x->low > y->low) - (x->low < y->low);
}

static Value *value_new(int i)
{
    Value *value = calloc(1, sizeof(*value));

    value->flags = (uint16_t)(0x1000 + i);
    value->level = (uint8_t)i;
    return value;
}

static void space_init(Space *s, int count, uint32_t first)
{
    s->mapped = files_tree(key_compare);
    s->direct = files_tree(NULL);
    /* Backwards: the tree sorts. */
    for (int i = count - 1; i >= 0; i--) {
        Key *key = calloc(1, sizeof(*key));

        key->low = first + (uint32_t)i * 0x1000;
        key->high = key->low + 0xfff;
        files_tree_insert(s->mapped, key, value_new(i));
        files_tree_insert(s->direct, (void *)(uintptr_t)(first + 7u * i),
                          value_new(i + 50));
    }
    s->end = 0x33;
}

static void space_fill(void *opaque)
{
    space_init(opaque, nodes, 0x10000);
}

static void space_blank(void *opaque)
{
    space_init(opaque, 1, 0x2000);
}

static int mapped_text(void *key, void *value, void *text)
{
    const Key *k = key;
    const Value *v = value;
    char *end = (char *)text + strlen(text);

    sprintf(end, "%x-%x:%x/%x,", k->low, k->high, v->flags, v->level);
    return 0;
}

static int direct_text(void *key, void *value, void *text)
{
    const Value *v = value;
    char *end = (char *)text + strlen(text);

    sprintf(end, "%lx:%x/%x,", (unsigned long)(uintptr_t)key, v->flags,
            v->level);
    return 0;
}

static void space_show(void *opaque, View *v)
{
    Space *s = opaque;
    char text[1000] = "";

    files_tree_walk(s->mapped, mapped_text, text);
    view_text(v, "mapped", text);
    text[0] = '\0';
    files_tree_walk(s->direct, direct_text, text);
    view_text(v, "direct", text);
    view(v, "end", &s->end, 1);
}

static void space_drop(void *opaque)
{
    Space *s = opaque;

    files_tree_free(s->mapped);
    files_tree_free(s->direct);
}

/* Values first, keys second. */
static const VMStateDescription vmstate_mapping[] = {
    {
        .name = "value",
        .version_id = 2,
        .minimum_version_id = 1,
        .fields = (const VMStateField[]) {
            VMSTATE_UINT16(flags, Value),
            VMSTATE_UINT8(level, Value),
            VMSTATE_END_OF_LIST()
        },
    }, {
        .name = "key",
        .version_id = 1,
        .minimum_version_id = 1,
        .fields = (const VMStateField[]) {
            VMSTATE_UINT32(low, Key),
            VMSTATE_UINT32(high, Key),
            VMSTATE_END_OF_LIST()
        },
    },
};

#define SPACE(title, field)                                                 \
    static const VMStateDescription vmstate_##title = {                     \
        .name = #title,                                                     \
        .version_id = 2,                                                    \
        .minimum_version_id = 2,                                            \
        .fields = (const VMStateField[]) {                                  \
            field,                                                          \
            VMSTATE_UINT8(end, Space),                                      \
            VMSTATE_END_OF_LIST()                                           \
        },                                                                  \
    };
SPACE(mapped, VMSTATE_GTREE_V(mapped, Space, 1, vmstate_mapping, Key, Value))
SPACE(mapped_new,
      VMSTATE_GTREE_V(mapped, Space, 2, vmstate_mapping, Key, Value))
SPACE(mapped_old,
      VMSTATE_GTREE_V(mapped, Space, 0, vmstate_mapping, Key, Value))
SPACE(direct, VMSTATE_GTREE_DIRECT_KEY_V(direct, Space, 2, vmstate_mapping,
                                         Value))

#define TRY_SPACE(title) \
    { #title, &vmstate_##title, sizeof(Space), space_fill, space_blank, \
      space_show, space_drop, false },

static void trees(void)
{
    static const TestCase cases[] = {
        TRY_SPACE(mapped) TRY_SPACE(mapped_new) TRY_SPACE(mapped_old)
        TRY_SPACE(direct)
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        for (nodes = 0; nodes < 4; nodes += nodes ? 2 : 1) {
            say("with %d nodes", nodes);
            case_all(&cases[i]);
        }
    }
    say("more and fewer nodes than announced");
    case_load_hex(&cases[3], 2, "00000001 01 0000000000000005 1111 22"
                   "01 0000000000000006 3333 44 00 09");
    case_load_hex(&cases[3], 2, "00000002 01 0000000000000005 1111 22"
                   "00 09");
    case_load_hex(&cases[0], 2, "00000000 01 00000005 00000006 1111 22"
                   "00 09");
    say("the same key twice");
    case_load_hex(&cases[3], 2, "00000002 01 0000000000000005 1111 22"
                   "01 0000000000000005 3333 44 00 09");
}

int group_containers(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    refuse = -1;
    lists();
    nested_lists();
    temporaries();
    trees();
    return 0;
}
