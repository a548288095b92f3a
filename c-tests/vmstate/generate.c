/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random descriptions. */
#include "generate.h"
#include "qemu/queue.h"

/* Draws */

static uint32_t *choices;
static size_t choice_count, choice_room, choice_next;
static bool replaying;
static uint64_t random_state;

void choices_seed(uint64_t seed)
{
    random_state = mix(seed);
    choice_count = 0;
    replaying = false;
}

void choices_give(const uint32_t *given, size_t count)
{
    choices = realloc(choices, (count + 1) * sizeof(*choices));
    memcpy(choices, given, count * sizeof(*choices));
    choice_count = choice_room = count;
    choice_next = 0;
    replaying = true;
}

size_t choices_made(const uint32_t **made)
{
    *made = choices;
    return choice_count;
}

uint32_t choose(uint32_t n)
{
    uint32_t choice;

    if (replaying) {
        return choice_next < choice_count ? choices[choice_next++] % n : 0;
    }
    random_state = mix(random_state);
    choice = (uint32_t)(random_state >> 32) % n;
    if (choice_count == choice_room) {
        choice_room = 2 * choice_room + 64;
        choices = realloc(choices, choice_room * sizeof(*choices));
    }
    choices[choice_count++] = choice;
    return choice;
}

/* Memory that lasts as long as the case */

static void **kept;
static size_t kept_count;
static unsigned fields_left; /* in the whole case */
static bool fixed;
static Made made;

static void *keep(size_t bytes)
{
    void *memory = calloc(1, bytes);

    kept = realloc(kept, (kept_count + 1) * sizeof(*kept));
    kept[kept_count++] = memory;
    return memory;
}

static char *keep_name(const char *base, const char *format, unsigned number)
{
    char *name = keep(strlen(base) + 40);

    strcpy(name, base);
    sprintf(name + strlen(base), format, number);
    return name;
}

/* Layouts */

#define LAYOUT_ROOM 3000

static Layout *layout_new(bool flat)
{
    Layout *layout = keep(sizeof(*layout));

    layout->size = FLAG_BYTES;
    layout->flat = flat;
    return layout;
}

static size_t take(Layout *layout, size_t bytes, size_t align)
{
    size_t offset = (layout->size + align - 1) & ~(align - 1);

    layout->size = offset + bytes;
    return offset;
}

static void round_up(Layout *layout)
{
    take(layout, 0, 8);
}

static FieldSample *sample(Layout *layout, SampleKind kind, size_t size, uint32_t n,
                  size_t bytes, size_t align)
{
    FieldSample *s = &layout->samples[layout->sample_count++];

    memset(s, 0, sizeof(*s));
    s->kind = kind;
    s->size = size;
    s->n = n;
    s->offset = take(layout, bytes, align);
    return s;
}

/* Infos of plain elements */

typedef struct Plain {
    const VMStateInfo *info;
    size_t size;
    SampleKind kind;
} Plain;

static const Plain plains[] = {
    { &vmstate_info_uint8, 1, SAMPLE_DATA },
    { &vmstate_info_uint16, 2, SAMPLE_DATA },
    { &vmstate_info_uint32, 4, SAMPLE_DATA },
    { &vmstate_info_uint64, 8, SAMPLE_DATA },
    { &vmstate_info_int8, 1, SAMPLE_DATA },
    { &vmstate_info_int16, 2, SAMPLE_DATA },
    { &vmstate_info_int32, 4, SAMPLE_DATA },
    { &vmstate_info_int64, 8, SAMPLE_DATA },
    { &vmstate_info_cpudouble, 8, SAMPLE_DATA },
    { &vmstate_info_bool, 1, SAMPLE_BOOLS },
    /* from here on only where both sides can agree beforehand */
    { &vmstate_info_uint8_equal, 1, SAMPLE_SAME },
    { &vmstate_info_uint16_equal, 2, SAMPLE_SAME },
    { &vmstate_info_uint32_equal, 4, SAMPLE_SAME },
    { &vmstate_info_uint64_equal, 8, SAMPLE_SAME },
    { &vmstate_info_int32_equal, 4, SAMPLE_SAME },
    { &vmstate_info_int32_le, 4, SAMPLE_AT_MOST },
    { &vmstate_info_uint32_equal, 4, SAMPLE_DATA }, /* that will fail */
};

#define PLAINS_ANYWHERE 9 /* those whose elements are plain bytes */
#define PLAINS_FLAT 10

/* What a field function works on. */
typedef struct Making {
    Layout *layout;
    VMStateField *field;  /* the one to be made */
    VMStateField *fields; /* where the table begins */
    unsigned room;        /* fields that still fit the table */
    unsigned depth;
} Making;

static const VMStateDescription *describe(Layout *layout, const char *name,
                                          unsigned depth);

static Layout *inner(const VMStateDescription **vmsd, unsigned depth, bool flat)
{
    Layout *layout = layout_new(flat);
    const char *name = fixed ? "part"
                             : keep_name("part", "%u", (unsigned)kept_count);

    *vmsd = describe(layout, name, depth + 1);
    round_up(layout);
    return layout;
}

/* Elements of an array: plain, or structures in one of their versions. */
static void element(Making *m, FieldSample *s, bool flat)
{
    VMStateField *f = m->field;
    const VMStateDescription *vmsd;

    if (m->depth < 4 && choose(3) == 2) {
        s->inner = inner(&vmsd, m->depth, flat);
        s->size = s->inner->size;
        f->vmsd = vmsd;
        f->flags |= VMS_STRUCT;
        if (!flat && choose(4) == 3) {
            f->flags = (f->flags & ~VMS_STRUCT) | VMS_VSTRUCT;
            f->struct_version_id = (int)choose(5);
        }
    } else {
        const Plain *p = &plains[choose(PLAINS_ANYWHERE)];

        s->size = p->size;
        f->info = p->info;
    }
    f->size = s->size;
}

/* A count of elements: as it is on both sides, or through the stream. */
static uint32_t count(Making *m, bool any_type)
{
    static const struct {
        const VMStateInfo *info;
        enum VMStateFlags flag;
        size_t size;
    } types[] = {
        { &vmstate_info_int32, VMS_VARRAY_INT32, 4 },
        { &vmstate_info_uint32, VMS_VARRAY_UINT32, 4 },
        { &vmstate_info_uint16, VMS_VARRAY_UINT16, 2 },
        { &vmstate_info_uint8, VMS_VARRAY_UINT8, 1 },
    };
    uint32_t type = any_type ? choose(COUNT(types)) : 0;
    uint32_t n = choose(6);
    FieldSample *s = sample(m->layout, SAMPLE_COUNT, types[type].size, n,
                   types[type].size, types[type].size);

    s->travels = !fixed && m->room > 1 && choose(2);
    if (s->travels) {
        m->field->name = keep_name("n", "%u", (unsigned)s->offset);
        m->field->info = types[type].info;
        m->field->size = types[type].size;
        m->field->offset = s->offset;
        m->field->flags = VMS_SINGLE;
        m->field++;
        m->room--;
    }
    if (any_type) {
        m->field->flags = types[type].flag;
        m->field->num_offset = s->offset;
    } else {
        m->field->flags = VMS_VBUFFER;
        m->field->size_offset = s->offset;
    }
    return n;
}

static void make_plain(Making *m)
{
    const Plain *p = &plains[choose(m->layout->flat ? PLAINS_FLAT
                                                    : COUNT(plains))];
    FieldSample *s = sample(m->layout, p->kind, p->size, 1, p->size, p->size);

    m->field->info = p->info;
    m->field->size = p->size;
    m->field->offset = s->offset;
    m->field->flags = VMS_SINGLE;
}

static void make_plains(Making *m)
{
    const Plain *p = &plains[choose(PLAINS_FLAT)];
    uint32_t n = choose(9);
    FieldSample *s = sample(m->layout, p->kind, p->size, n, n * p->size, p->size);

    m->field->info = p->info;
    m->field->size = p->size;
    m->field->num = (int)n;
    m->field->offset = s->offset;
    m->field->flags = VMS_ARRAY;
}

static void make_buffer(Making *m)
{
    uint32_t n = choose(40);
    FieldSample *s = sample(m->layout, SAMPLE_DATA, n, 1, n, 1);

    m->field->info = &vmstate_info_buffer;
    m->field->size = n;
    m->field->offset = s->offset;
    m->field->flags = VMS_BUFFER;
}

static void make_unused(Making *m)
{
    m->field->info = &vmstate_info_unused_buffer;
    m->field->size = choose(12);
    m->field->flags = VMS_BUFFER;
}

static void make_part(Making *m)
{
    const VMStateDescription *vmsd;
    Layout *layout = inner(&vmsd, m->depth, m->layout->flat);
    uint32_t n = choose(5);
    FieldSample *s = sample(m->layout, SAMPLE_PART, layout->size, n ? n : 1,
                   layout->size * (n ? n : 1), 8);

    s->inner = layout;
    m->field->vmsd = vmsd;
    m->field->size = layout->size;
    m->field->num = (int)n;
    m->field->offset = s->offset;
    m->field->flags = (n ? VMS_ARRAY : 0) | VMS_STRUCT;
    if (!m->layout->flat && choose(4) == 3) {
        m->field->flags = (n ? VMS_ARRAY : 0) | VMS_VSTRUCT;
        m->field->struct_version_id = (int)choose(5);
    }
}

static void make_validation(Making *m)
{
    m->field->flags = VMS_ARRAY | VMS_MUST_EXIST;
    m->field->field_exists = valid_hook;
}

/* A variable array inside the object: of plain elements or structures. */
static void make_varray(Making *m)
{
    uint32_t n = count(m, true);
    FieldSample like = { 0 };
    FieldSample *s;

    element(m, &like, m->layout->flat);
    s = sample(m->layout, like.inner ? SAMPLE_PART : SAMPLE_DATA, like.size, n,
             like.size * (n + 1), 8);
    s->inner = like.inner;
    if (choose(4) == 3) {
        /* As many times one: what is multiplied stays in the array. */
        m->field->flags |= VMS_MULTIPLY_ELEMENTS;
        m->field->num = 1;
    }
    m->field->offset = s->offset;
}

/* Elements behind a pointer: one, a known number, or a variable one. */
static void make_pointer(Making *m)
{
    uint32_t shape = choose(3);
    uint32_t n = 1;
    bool fresh = choose(3) == 2;
    FieldSample *s;

    if (shape == 1) {
        n = choose(5);
        m->field->flags = VMS_ARRAY;
        m->field->num = (int)n;
    } else if (shape == 2) {
        n = count(m, true);
    }
    m->field->flags |= VMS_POINTER | (fresh ? VMS_ALLOC : 0);
    s = sample(m->layout, SAMPLE_POINTER, 0, n, sizeof(void *), 8);
    m->field->offset = s->offset;
    s->fresh = fresh;
    element(m, s, fresh);
}

/* An array of pointers to elements, in the object or behind a pointer. */
static void make_pointers(Making *m)
{
    uint32_t shape = choose(3);
    uint32_t n;
    FieldSample *s;

    if (shape == 1) {
        n = count(m, true);
    } else {
        n = choose(5);
        m->field->flags = VMS_ARRAY;
        m->field->num = (int)n;
    }
    m->field->flags |= VMS_ARRAY_OF_POINTER;
    if (shape == 2) {
        m->field->flags |= VMS_POINTER;
        s = sample(m->layout, SAMPLE_BEHIND, 0, n, sizeof(void *), 8);
    } else {
        s = sample(m->layout, SAMPLE_POINTERS, 0, n, (n + 1) * sizeof(void *), 8);
    }
    m->field->offset = s->offset;
    s->holes = choose(2) ? choose(32) : 0;
    element(m, s, false);
    m->field->size = sizeof(void *);
}

/* A buffer or bitmap whose size is a member. */
static void make_sized(Making *m)
{
    bool bits = choose(3) == 2;
    bool fresh = !bits && choose(3) == 2;
    uint32_t n = count(m, false);
    uint32_t factor = bits ? 40 : 1;
    FieldSample *s;

    if (!bits && choose(3) == 2) {
        factor = 3;
        m->field->flags |= VMS_MULTIPLY;
        m->field->size = factor;
    }
    m->field->info = bits ? &vmstate_info_bitmap : &vmstate_info_buffer;
    m->field->flags |= VMS_POINTER | (fresh ? VMS_ALLOC : 0);
    if (bits) {
        /* The member counts bits: make it so that words are filled. */
        FieldSample *number = &m->layout->samples[m->layout->sample_count - 1];

        number->n *= factor;
        s = sample(m->layout, SAMPLE_POINTER, 8, (number->n + 63) / 64,
                 sizeof(void *), 8);
    } else {
        s = sample(m->layout, SAMPLE_POINTER, factor, n, sizeof(void *), 8);
    }
    s->fresh = fresh;
    m->field->offset = s->offset;
}

static void make_container(Making *m)
{
    bool queue = choose(2);
    Layout *layout = layout_new(true);
    const VMStateDescription *vmsd;
    FieldSample *s;

    layout->link = take(layout, 2 * sizeof(void *), 8);
    vmsd = describe(layout, "item", m->depth + 1);
    round_up(layout);
    s = sample(m->layout, queue ? SAMPLE_QUEUE : SAMPLE_LIST, layout->size,
             choose(4), queue ? sizeof(QTailQLink) : sizeof(void *), 8);
    s->inner = layout;
    m->field->info = queue ? &vmstate_info_qtailq : &vmstate_info_qlist;
    m->field->vmsd = vmsd;
    m->field->size = layout->size;
    m->field->start = layout->link;
    m->field->offset = s->offset;
    m->field->version_id = vmsd->version_id;
}

/* The entry that ends a table. */
static void end_fields(VMStateField *field)
{
#if SAVEVM_QEMU_VERSION >= 800
    field->flags = VMS_END;
#else
    (void)field;
#endif
}

static void make_temporary(Making *m)
{
    VMStateDescription *vmsd = keep(sizeof(*vmsd));
    VMStateField *fields = keep(4 * sizeof(*fields));

    for (uint32_t i = 0; i < 3; i++) {
        const Plain *p = &plains[choose(PLAINS_ANYWHERE)];

        fields[i].name = keep_name("tmp", "%u", i);
        fields[i].offset = sizeof(void *) + 8 * i;
        fields[i].size = p->size;
        fields[i].info = p->info;
        fields[i].flags = VMS_SINGLE;
    }
    end_fields(&fields[3]);
    vmsd->name = "temporary";
    vmsd->version_id = 1;
    vmsd->fields = fields;
    vmsd->pre_save = tmp_pre_save;
    vmsd->pre_load = tmp_pre_load;
    vmsd->post_load = tmp_post_load;
    m->field->info = &vmstate_info_tmp;
    m->field->vmsd = vmsd;
    m->field->size = TMP_SIZE;
}

typedef void MakeFn(Making *m);

static MakeFn *const flat_makers[] = {
    make_plain, make_plains, make_buffer, make_unused, make_part,
};

/* The more frequent ones are listed more often. */
static MakeFn *const makers[] = {
    make_plain, make_plains, make_buffer, make_unused, make_part,
    make_validation, make_varray, make_pointer, make_pointers, make_sized,
    make_container, make_temporary, make_part, make_varray, make_pointer,
};

/* When a field is there. Containers keep their version: it is the elements'. */
static void make_conditional(Making *m)
{
    uint32_t test;

    if (m->layout->flat || choose(3) != 2) {
        return;
    }
    if (!m->field->version_id) {
        m->field->version_id = (int)choose(5);
    }
    test = choose(COUNT(exists_hooks));
    if (m->field->flags & VMS_MUST_EXIST) {
        return;
    }
    m->field->field_exists = exists_hooks[test];
}

static void make_field(Making *m, unsigned number)
{
    MakeFn *make = m->layout->flat ? flat_makers[choose(COUNT(flat_makers))]
                                   : makers[choose(COUNT(makers))];

    if (make == make_part && m->depth >= 4) {
        make = make_plain;
    }
    make(m);
    make_conditional(m);
    m->field->name = keep_name("f", "%u", number);
    m->field++;
    m->room--;
}

#define TABLE 12

/*
 * A structure reads what follows it as its subsections if that has the right
 * name: those of the structure around it, or of the next element of an array.
 * That is worth trying, but not where it makes a count out of something else:
 * there names differ, and each structure begins with a byte that identifies it.
 */
static void make_first_byte(Making *m)
{
    FieldSample *s = sample(m->layout, SAMPLE_COUNT, 1, 7, 1, 1);

    m->field->name = "first";
    m->field->info = &vmstate_info_uint8;
    m->field->size = 1;
    m->field->offset = s->offset;
    m->field->flags = VMS_SINGLE;
    m->field++;
    m->room--;
}

static const VMStateField *make_fields(Layout *layout, unsigned depth)
{
    VMStateField *fields = keep((TABLE + 1) * sizeof(*fields));
    Making m = { layout, fields, fields, TABLE, depth };
    unsigned number = 0;

    if (!fixed && !layout->flat) {
        make_first_byte(&m);
    }
    while (m.room > 1 && fields_left && layout->size < LAYOUT_ROOM &&
           layout->sample_count < SAMPLES / 2 && choose(8)) {
        fields_left--;
        make_field(&m, number++);
    }
    end_fields(m.field);
    return fields;
}

static const VMStateDescription **make_subsections(Layout *layout,
                                                   const char *name,
                                                   unsigned depth)
{
    uint32_t n = choose(depth < 2 ? 4 : 2);
    const VMStateDescription **subs;

    if (layout->flat || depth >= 4 || n == 0) {
        return NULL;
    }
    subs = keep((n + 1) * sizeof(*subs));
    for (uint32_t i = 0; i < n; i++) {
        subs[i] = describe(layout, keep_name(name, "/s%u", i), depth + 1);
    }
    return subs;
}

/* From 10.2 on, the hooks of about half of the descriptions return an error. */
static void make_hooks_with_errors(VMStateDescription *vmsd)
{
#if SAVEVM_QEMU_VERSION >= 1002
    /* Nothing is chosen here, so that the cases are those of other versions. */
    if (kept_count % 2 == 0) {
        return;
    }
    vmsd->pre_save_errp = vmsd->pre_save ? pre_save_errp_hook : NULL;
    vmsd->pre_load_errp = vmsd->pre_load ? pre_load_errp_hook : NULL;
    vmsd->post_load_errp = vmsd->post_load ? post_load_errp_hook : NULL;
#else
    (void)vmsd;
#endif
}

static const VMStateDescription *describe(Layout *layout, const char *name,
                                          unsigned depth)
{
    VMStateDescription *vmsd = keep(sizeof(*vmsd));
    uint32_t hooks;

    vmsd->name = name;
    vmsd->version_id = layout->flat ? 1 : 1 + (int)choose(4);
    vmsd->minimum_version_id = vmsd->version_id;
    if (!layout->flat) {
        vmsd->minimum_version_id -= (int)choose((uint32_t)vmsd->version_id);
        vmsd->needed = needed_hooks[choose(COUNT(needed_hooks))];
    }
    hooks = choose(3) == 2 ? choose(16) : 0;
    vmsd->pre_save = hooks & 1 ? pre_save_hook : NULL;
    vmsd->post_save = hooks & 2 ? post_save_hook : NULL;
    vmsd->pre_load = hooks & 4 ? pre_load_hook : NULL;
    vmsd->post_load = hooks & 8 ? post_load_hook : NULL;
    make_hooks_with_errors(vmsd);
    vmsd->fields = make_fields(layout, depth);
    vmsd->subsections = make_subsections(layout, name, depth);
    return vmsd;
}

const Made *generate(void)
{
    Layout *layout;

    while (kept_count) {
        free(kept[--kept_count]);
    }
    fields_left = 45;
    layout = layout_new(false);
    fixed = !choose(2);
    made.fixed = fixed;
    made.contents = choose(1000);
    made.hook_fails = choose(4) == 3 ? 1 + choose(6) : 0;
    made.vmsd = describe(layout, "root", 0);
    /* The device itself is always saved. */
    ((VMStateDescription *)made.vmsd)->needed = NULL;
    round_up(layout);
    made.layout = layout;
    return &made;
}
