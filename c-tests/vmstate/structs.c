/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The macros of migration/vmstate-fields.h that descend into a structure, and
 * which version each level is read and written in.
 */
#include "groups.h"
#include "test-case.h"

typedef struct Leaf {
    uint16_t x;
    uint8_t y; /* since version 2 */
    uint32_t z; /* since version 3 */
} Leaf;

typedef struct Branch {
    uint8_t kind;
    Leaf left;
    Leaf right;
    Leaf *extra;
} Branch;

#define ROOM 5

typedef struct Tree {
    uint8_t n8;
    uint16_t n16;
    int32_t n32;
    uint32_t nu32;
    Leaf one;
    Leaf row[ROOM];
    Leaf table[2][3];
    Branch branch;
    uint8_t tail;
    bool fresh; /* loading allocates the heap */
    Leaf *pointer;
    Leaf *pointers[4];
    Leaf *heap;
} Tree;

static void leaf_fill(Leaf *leaf, unsigned seed)
{
    leaf->x = (uint16_t)(0x0101 * seed);
    leaf->y = (uint8_t)(0x40 + seed);
    leaf->z = 0x01020304 * seed;
}

static Leaf *leaf_new(unsigned seed)
{
    Leaf *leaf = calloc(1, sizeof(*leaf));

    leaf_fill(leaf, seed);
    return leaf;
}

static void fill_members(Tree *t, unsigned n, unsigned seed)
{
    t->n8 = (uint8_t)n;
    t->n16 = (uint16_t)n;
    t->n32 = (int32_t)n;
    t->nu32 = n;
    leaf_fill(&t->one, 1 + seed);
    t->heap = calloc(ROOM, sizeof(Leaf));
    for (unsigned i = 0; i < ROOM; i++) {
        leaf_fill(&t->row[i], 2 + i + seed);
        leaf_fill(&t->heap[i], 7 + i + seed);
    }
    for (unsigned i = 0; i < 6; i++) {
        leaf_fill(&t->table[i / 3][i % 3], 12 + i + seed);
    }
    t->branch.kind = 0x33;
    leaf_fill(&t->branch.left, 18 + seed);
    leaf_fill(&t->branch.right, 19 + seed);
    t->branch.extra = leaf_new(20 + seed);
    t->tail = 0x77;
    t->pointer = leaf_new(21 + seed);
    for (unsigned i = 0; i < 4; i++) {
        t->pointers[i] = leaf_new(22 + i + seed);
    }
}

static void fill_some(void *opaque)
{
    fill_members(opaque, 3, 0);
}

static void fill_none(void *opaque)
{
    fill_members(opaque, 0, 0);
}

static void blank_room(void *opaque)
{
    memset(opaque, 0, sizeof(Tree));
    fill_members(opaque, 3, 100);
}

static void cut_holes(Tree *t)
{
    free(t->pointers[1]);
    free(t->pointers[3]);
    t->pointers[1] = t->pointers[3] = NULL;
}

static void fill_holes(void *opaque)
{
    fill_some(opaque);
    cut_holes(opaque);
}

static void blank_holes(void *opaque)
{
    blank_room(opaque);
    cut_holes(opaque);
}

static void blank_fresh(void *opaque)
{
    Tree *t = opaque;

    blank_room(t);
    free(t->heap);
    t->heap = NULL;
    t->fresh = true;
}

static void drop(void *opaque)
{
    Tree *t = opaque;

    free(t->branch.extra);
    free(t->pointer);
    free(t->heap);
    for (int i = 0; i < 4; i++) {
        free(t->pointers[i]);
    }
}

/* Member by member: an allocated Leaf has bytes that were never written. */
static void leaf_show(View *v, const char *label, const Leaf *leaf)
{
    uint8_t members[7];

    memcpy(members, &leaf->x, 2);
    members[2] = leaf->y;
    memcpy(members + 3, &leaf->z, 4);
    view(v, label, members, sizeof(members));
}

static void show(void *opaque, View *v)
{
    static const char *const labels[] = { "p0", "p1", "p2", "p3" };
    Tree *t = opaque;

    view(v, "", t, offsetof(Tree, branch.extra));
    view(v, "tail", &t->tail, 1);
    leaf_show(v, "extra", t->branch.extra);
    leaf_show(v, "pointer", t->pointer);
    for (int i = 0; i < 4; i++) {
        if (t->pointers[i]) {
            leaf_show(v, labels[i], t->pointers[i]);
        }
    }
    for (int i = 0; t->heap && i < (t->fresh ? t->n32 : ROOM); i++) {
        static const char *const heap[] = { "h0", "h1", "h2", "h3", "h4" };

        leaf_show(v, heap[i], &t->heap[i]);
    }
}

static bool in_version_2(void *opaque, int version_id)
{
    (void)opaque;
    note("exists(%d)", version_id);
    return version_id == 2;
}

static int leaf_post_load(void *opaque, int version_id)
{
    (void)opaque;
    note("leaf(%d)", version_id);
    return 0;
}

static const VMStateDescription vmstate_leaf = {
    .name = "leaf",
    .version_id = 3,
    .minimum_version_id = 1,
    .post_load = leaf_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(x, Leaf),
        VMSTATE_UINT8_V(y, Leaf, 2),
        VMSTATE_UINT32_V(z, Leaf, 3),
        VMSTATE_END_OF_LIST()
    },
};

/* It depends on a test, so arrays of it are described one by one. */
static const VMStateDescription vmstate_shy_leaf = {
    .name = "shy leaf",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(x, Leaf),
        VMSTATE_UINT8_TEST(y, Leaf, in_version_2),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_branch = {
    .name = "branch",
    .version_id = 2,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(kind, Branch),
        VMSTATE_STRUCT(left, Branch, 1, vmstate_leaf, Leaf),
        VMSTATE_VSTRUCT(right, Branch, vmstate_leaf, Leaf, 2),
        VMSTATE_STRUCT_POINTER(extra, Branch, vmstate_leaf, Leaf),
        VMSTATE_END_OF_LIST()
    },
};

/* No fields at all: a structure that is nothing in the stream. */
static const VMStateDescription vmstate_nothing = {
    .name = "nothing",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_END_OF_LIST()
    },
};

#define ALL_FIXED(X) \
    X(plain, some, room, VMSTATE_STRUCT(one, Tree, 0, vmstate_leaf, Leaf)) \
    X(since_2, some, room, VMSTATE_STRUCT(one, Tree, 2, vmstate_leaf, Leaf)) \
    X(test, some, room, \
      VMSTATE_STRUCT_TEST(one, Tree, in_version_2, 0, vmstate_leaf, Leaf)) \
    X(vstruct, some, room, VMSTATE_VSTRUCT(one, Tree, vmstate_leaf, Leaf, 2)) \
    X(vstruct_v, some, room, \
      VMSTATE_VSTRUCT_V(one, Tree, 2, vmstate_leaf, Leaf, 1)) \
    X(vstruct_test, some, room, \
      VMSTATE_VSTRUCT_TEST(one, Tree, in_version_2, 0, vmstate_leaf, Leaf, \
                           3)) \
    X(pointer, some, room, \
      VMSTATE_STRUCT_POINTER(pointer, Tree, vmstate_leaf, Leaf)) \
    X(pointer_v, some, room, \
      VMSTATE_STRUCT_POINTER_V(pointer, Tree, 2, vmstate_leaf, Leaf)) \
    X(pointer_test, some, room, \
      VMSTATE_STRUCT_POINTER_TEST(pointer, Tree, in_version_2, vmstate_leaf, \
                                  Leaf)) \
    X(pointer_test_v, some, room, \
      VMSTATE_STRUCT_POINTER_TEST_V(pointer, Tree, in_version_2, 3, \
                                    vmstate_leaf, Leaf)) \
    X(array, some, room, \
      VMSTATE_STRUCT_ARRAY(row, Tree, ROOM, 0, vmstate_leaf, Leaf)) \
    X(array_of_shy, some, room, \
      VMSTATE_STRUCT_ARRAY(row, Tree, ROOM, 0, vmstate_shy_leaf, Leaf)) \
    X(array_of_nothing, some, room, \
      VMSTATE_STRUCT_ARRAY(row, Tree, ROOM, 0, vmstate_nothing, Leaf)) \
    X(array_test, some, room, \
      VMSTATE_STRUCT_ARRAY_TEST(row, Tree, ROOM, in_version_2, 0, \
                                vmstate_leaf, Leaf)) \
    X(two_dimensions, some, room, \
      VMSTATE_STRUCT_2DARRAY(table, Tree, 2, 3, 2, vmstate_leaf, Leaf)) \
    X(two_dimensions_test, some, room, \
      VMSTATE_STRUCT_2DARRAY_TEST(table, Tree, 2, 3, in_version_2, 0, \
                                  vmstate_leaf, Leaf)) \
    X(sub_array, some, room, \
      VMSTATE_STRUCT_SUB_ARRAY(row, Tree, 1, 3, 0, vmstate_leaf, Leaf)) \
    X(pointers, some, room, \
      VMSTATE_ARRAY_OF_POINTER_TO_STRUCT(pointers, Tree, 4, 0, vmstate_leaf, \
                                         Leaf)) \
    X(pointers, holes, holes, \
      VMSTATE_ARRAY_OF_POINTER_TO_STRUCT(pointers, Tree, 4, 2, vmstate_leaf, \
                                         Leaf)) \
    X(pointers, holes, room, \
      VMSTATE_ARRAY_OF_POINTER_TO_STRUCT(pointers, Tree, 4, 0, \
                                         vmstate_shy_leaf, Leaf)) \
    X(pointers, some, holes, \
      VMSTATE_ARRAY_OF_POINTER_TO_STRUCT(pointers, Tree, 4, 0, vmstate_leaf, \
                                         Leaf)) \
    X(pointer_known, some, room, \
      VMSTATE_STRUCT_VARRAY_POINTER_KNOWN(heap, Tree, ROOM, 0, vmstate_leaf, \
                                          Leaf)) \
    X(nested, some, room, \
      VMSTATE_STRUCT(branch, Tree, 0, vmstate_branch, Branch))

#define ALL_COUNTED(X, fill) \
    X(varray_uint8, fill, room, VMSTATE_UINT8(n8, Tree), \
      VMSTATE_STRUCT_VARRAY_UINT8(row, Tree, n8, 0, vmstate_leaf, Leaf)) \
    X(varray_int32, fill, room, VMSTATE_INT32(n32, Tree), \
      VMSTATE_STRUCT_VARRAY_INT32(row, Tree, n32, 2, vmstate_leaf, Leaf)) \
    X(varray_uint32, fill, room, VMSTATE_UINT32(nu32, Tree), \
      VMSTATE_STRUCT_VARRAY_UINT32(row, Tree, nu32, 0, vmstate_shy_leaf, \
                                   Leaf)) \
    X(pointer_int32, fill, room, VMSTATE_INT32(n32, Tree), \
      VMSTATE_STRUCT_VARRAY_POINTER_INT32(heap, Tree, n32, vmstate_leaf, \
                                          Leaf)) \
    X(pointer_uint32, fill, room, VMSTATE_UINT32(nu32, Tree), \
      VMSTATE_STRUCT_VARRAY_POINTER_UINT32(heap, Tree, nu32, vmstate_leaf, \
                                           Leaf)) \
    X(pointer_uint16, fill, room, VMSTATE_UINT16(n16, Tree), \
      VMSTATE_STRUCT_VARRAY_POINTER_UINT16(heap, Tree, n16, vmstate_leaf, \
                                           Leaf)) \
    X(alloc, fill, fresh, VMSTATE_INT32(n32, Tree), \
      VMSTATE_STRUCT_VARRAY_ALLOC(heap, Tree, n32, 0, vmstate_leaf, Leaf))

#define DESCRIBE(title, fill, blank, ...)                                   \
    static const VMStateDescription vmstate_##title##_##fill##_##blank = {  \
        .name = #title,                                                     \
        .version_id = 3,                                                    \
        .minimum_version_id = 1,                                            \
        .fields = (const VMStateField[]) {                                  \
            __VA_ARGS__,                                                    \
            VMSTATE_UINT8(tail, Tree),                                      \
            VMSTATE_END_OF_LIST()                                           \
        },                                                                  \
    };
#define TRY(title, fill, blank, ...)                                        \
    { "struct " #title ", " #fill " into " #blank,                          \
      &vmstate_##title##_##fill##_##blank, sizeof(Tree), fill_##fill,       \
      blank_##blank, show, drop, false },

#define ALL(X) ALL_FIXED(X) ALL_COUNTED(X, none) ALL_COUNTED(X, some)

ALL(DESCRIBE)
static const TestCase cases[] = { ALL(TRY) };

/* A nested structure that demands a younger version than it gets. */
static const VMStateDescription vmstate_strict_leaf = {
    .name = "strict leaf",
    .version_id = 3,
    .minimum_version_id = 2,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(x, Leaf),
        VMSTATE_END_OF_LIST()
    },
};

DESCRIBE(too_old, some, room,
         VMSTATE_VSTRUCT(one, Tree, vmstate_strict_leaf, Leaf, 1))
DESCRIBE(too_new, some, room,
         VMSTATE_VSTRUCT(one, Tree, vmstate_strict_leaf, Leaf, 4))

int group_structs(int argc, char **argv)
{
    static const TestCase wrong[] = { TRY(too_old, some, room, )
                                   TRY(too_new, some, room, ) };

    (void)argc;
    (void)argv;
    for (size_t i = 0; i < COUNT(cases); i++) {
        case_all(&cases[i]);
    }
    for (size_t i = 0; i < COUNT(wrong); i++) {
        case_all(&wrong[i]);
    }
    return 0;
}
