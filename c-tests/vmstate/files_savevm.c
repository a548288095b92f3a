/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files.h on top of libsavevm. */
#include "files.h"

#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "qapi/error.h"
#include "savevm.h"
#include "savevm/abi.h"
#include "savevm/file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* The host's side of trees: a sorted list is enough. */
typedef struct Node {
    struct Node *next;
    void *key;
    void *value;
} Node;

typedef struct Tree {
    Node *first;
    int (*compare)(const void *a, const void *b);
} Tree;

static SaveVM *vm;

/* There is no clock, only the time that was set. */
static int64_t host_timer_expire(void *host, QEMUTimer *timer)
{
    (void)host;
    return timer->expire;
}

static void host_timer_set(void *host, QEMUTimer *timer, int64_t expire)
{
    (void)host;
    timer->expire = expire < 0 ? 0 : expire;
}

static void host_timer_clear(void *host, QEMUTimer *timer)
{
    (void)host;
    timer->expire = -1;
}

static uint32_t host_tree_count(void *host, void *tree)
{
    uint32_t count = 0;

    (void)host;
    for (Node *node = ((Tree *)tree)->first; node; node = node->next) {
        count++;
    }
    return count;
}

static void host_tree_foreach(void *host, void *tree,
                              int (*visit)(void *key, void *value, void *data),
                              void *data)
{
    (void)host;
    files_tree_walk(tree, visit, data);
}

static void host_tree_insert(void *host, void *tree, void *key, void *value)
{
    (void)host;
    files_tree_insert(tree, key, value);
}

void files_start(void)
{
    SaveVMHostOps ops;

    memset(&ops, 0, sizeof(ops));
    ops.size = sizeof(ops);
    ops.timer_expire_ns = host_timer_expire;
    ops.timer_set_ns = host_timer_set;
    ops.timer_clear = host_timer_clear;
    ops.tree_count = host_tree_count;
    ops.tree_foreach = host_tree_foreach;
    ops.tree_insert = host_tree_insert;
    vm = savevm_new(&ops, NULL);
    savevm_set_current(vm);
    savevm_set_abi(vm, SAVEVM_QEMU_ABI, NULL);
}

void files_stop(void)
{
    savevm_set_current(NULL);
    savevm_free(vm);
}

QEMUFile *files_writer(void)
{
    return savevm_file_to_buffer();
}

QEMUFile *files_reader(const uint8_t *bytes, size_t len)
{
    return savevm_file_from_buffer(bytes, len);
}

void files_socket_pair(QEMUFile **writer, QEMUFile **reader)
{
    int pair[2] = { -1, -1 };

    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    *writer = savevm_file_from_fd(pair[0], true);
    *reader = savevm_file_from_fd(pair[1], false);
}

uint8_t *files_written(QEMUFile *f, size_t *len)
{
    const uint8_t *bytes = savevm_file_buffer(f, len);
    uint8_t *copy = malloc(*len + 1);

    memcpy(copy, bytes, *len);
    return copy;
}

/* 5.2 has more spaces. */
#if SAVEVM_QEMU_VERSION < 600
static const char opening[] = "\"devices\" : [ ", closing[] = " ]";
#else
static const char opening[] = "\"devices\": [", closing[] = "]";
#endif

/* The one device between the brackets of "devices": [...] */
static char *only_device(const uint8_t *bytes, size_t len)
{
    size_t from, to;
    char *text;

    for (from = 0; from + sizeof(opening) <= len; from++) {
        if (memcmp(bytes + from, opening, sizeof(opening) - 1) == 0) {
            break;
        }
    }
    if (from + sizeof(opening) > len) {
        return NULL;
    }
    from += sizeof(opening) - 1;
    for (to = len; to > from && bytes[to - 1] != ']'; to--) {
    }
    text = calloc(1, to - from + 1);
    if (to > from) {
        memcpy(text, bytes + from, to - (sizeof(closing) - 1) - from);
    }
    return text;
}

char *files_describe(const VMStateDescription *vmsd, void *obj)
{
    QEMUFile *f = savevm_file_to_buffer();
    char *text = NULL;

    vmstate_register(NULL, 0, vmsd, obj);
    if (qemu_savevm_state_complete_precopy_non_iterable(f, false, false) == 0) {
        size_t len;
        const uint8_t *bytes = savevm_file_buffer(f, &len);

        text = only_device(bytes, len);
    }
    vmstate_unregister(NULL, vmsd, obj);
    qemu_fclose(f);
    return text;
}

void files_error(Error **errp, const char *text)
{
    error_setg(errp, "%s", text);
}

void files_timer_init(QEMUTimer *timer, int64_t expire)
{
    timer->expire = expire;
}

int64_t files_timer_expires(QEMUTimer *timer)
{
    return timer->expire;
}

void files_timer_drop(QEMUTimer *timer)
{
    timer->expire = -1;
}

static int compare_integers(const void *a, const void *b)
{
    return ((uintptr_t)a > (uintptr_t)b) - ((uintptr_t)a < (uintptr_t)b);
}

void *files_tree(int (*compare)(const void *a, const void *b))
{
    Tree *tree = calloc(1, sizeof(*tree));

    tree->compare = compare ? compare : compare_integers;
    return tree;
}

static void node_free(Tree *tree, Node *node)
{
    if (tree->compare != compare_integers) {
        free(node->key);
    }
    free(node->value);
    free(node);
}

/* A key that is there already is replaced, as in GLib. */
void files_tree_insert(void *opaque, void *key, void *value)
{
    Tree *tree = opaque;
    Node **slot = &tree->first;
    Node *node = calloc(1, sizeof(*node));

    while (*slot && tree->compare((*slot)->key, key) < 0) {
        slot = &(*slot)->next;
    }
    node->key = key;
    node->value = value;
    node->next = *slot;
    if (*slot && tree->compare((*slot)->key, key) == 0) {
        node->next = (*slot)->next;
        node_free(tree, *slot);
    }
    *slot = node;
}

void files_tree_walk(void *opaque, int (*visit)(void *key, void *value,
                                                void *data), void *data)
{
    for (Node *node = ((Tree *)opaque)->first; node; node = node->next) {
        if (visit(node->key, node->value, data)) {
            return;
        }
    }
}

void files_tree_free(void *opaque)
{
    Tree *tree = opaque;

    while (tree->first) {
        Node *node = tree->first;

        tree->first = node->next;
        node_free(tree, node);
    }
    free(tree);
}
