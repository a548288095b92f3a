/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Streams that really send what they announce, or never end, to a program that
 * may not have so much memory: an error, and not the end of the program.
 */
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "qemu/queue.h"
#include "savevm.h"
#include "savevm/file.h"
#include "savevm/inspect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* What the program may have, and what a stream sends before it ends. */
#define ADDRESS_SPACE (256u << 20)
#define STREAM (400u << 20)

/* A channel that repeats what `next` makes, which counts the pieces. */
typedef struct Endless {
    size_t (*next)(uint8_t *piece, uint32_t number);
    uint8_t piece[4096];
    size_t len, at, sent;
    uint32_t number;
} Endless;

static ptrdiff_t endless_read(void *opaque, uint8_t *into, size_t len, Error **errp)
{
    Endless *endless = opaque;
    size_t done = 0;

    (void)errp;
    if (endless->sent >= STREAM) {
        return 0;
    }
    while (done < len) {
        size_t some = endless->len - endless->at;

        if (some == 0) {
            endless->len = endless->next(endless->piece, endless->number++);
            endless->at = 0;
            continue;
        }
        some = some < len - done ? some : len - done;
        memcpy(into + done, endless->piece + endless->at, some);
        endless->at += some;
        done += some;
    }
    endless->sent += done;
    return (ptrdiff_t)done;
}

static const SaveVMChannelOps endless_ops = { .size = sizeof(SaveVMChannelOps), .read = endless_read };

static void quiet(void *host, SaveVMReportLevel level, const char *text)
{
    (void)host, (void)level;
    CHECK(strlen(text) > 10);
}

static const SaveVMHostOps host_ops = { .size = sizeof(SaveVMHostOps), .report = quiet };

static SaveVM *vm;
static Endless endless;

static QEMUFile *stream_of(size_t (*next)(uint8_t *piece, uint32_t number))
{
    struct rlimit limit = { ADDRESS_SPACE, ADDRESS_SPACE };

    memset(&endless, 0, sizeof(endless));
    endless.next = next;
    vm = savevm_new(&host_ops, NULL);
    savevm_set_current(vm);
    /* Tools like valgrind need more than the program. */
    if (harness_slow() > 1) {
        harness_skip("it takes more memory and time than there is");
    }
    REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
    return savevm_file_from_channel(&endless_ops, &endless, false);
}

static void end(QEMUFile *f)
{
    qemu_fclose(f);
    CHECK(!savevm_is_broken(vm));
    savevm_set_current(NULL);
    savevm_free(vm);
}

static void loads_with_an_error(size_t (*next)(uint8_t *piece, uint32_t number))
{
    QEMUFile *f = stream_of(next);

    CHECK(qemu_loadvm_state_main(f, NULL) < 0);
    end(f);
}

static size_t put32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (24 - 8 * i));
    }
    return 4;
}

static size_t package(uint8_t *piece, uint32_t number)
{
    static const uint8_t head[] = { 8, 0, 7, 0, 4, 0x3f, 0xff, 0xff, 0xff };

    memset(piece, 0, 4096);
    if (number == 0) {
        memcpy(piece, head, sizeof(head));
        return sizeof(head);
    }
    return 4096;
}

TEST(a_package_that_is_as_long_as_it_says)
{
    loads_with_an_error(package);
}

static int nothing_to_load(QEMUFile *f, void *opaque, int version)
{
    (void)f, (void)opaque, (void)version;
    return 0;
}

static const SaveVMHandlers empty = { .load_state = nothing_to_load };

/* A START of the same device under one id after the other. */
static size_t start(uint8_t *piece, uint32_t id)
{
    size_t len = 0;

    piece[len++] = QEMU_VM_SECTION_START;
    len += put32(piece + len, id);
    piece[len++] = 1;
    piece[len++] = 'a';
    len += put32(piece + len, 0);
    len += put32(piece + len, 1);
    piece[len++] = QEMU_VM_SECTION_FOOTER;
    len += put32(piece + len, id);
    return len;
}

static size_t start_anywhere(uint8_t *piece, uint32_t number)
{
    return start(piece, number * 2654435761u);
}

static void starts(size_t (*next)(uint8_t *piece, uint32_t number))
{
    QEMUFile *f = stream_of(next);

    CHECK_EQ(register_savevm_live("a", 0, 1, &empty, NULL), 0);
    endless.sent = STREAM - (120u << 20);
    CHECK(qemu_loadvm_state_main(f, NULL) < 0);
    CHECK(endless.sent >= STREAM);
    end(f);
}

TEST(a_device_that_starts_again_and_again)
{
    starts(start);
}

TEST(a_device_that_starts_again_anywhere)
{
    starts(start_anywhere);
}

/* Descriptions whose memory the stream chooses. */

typedef struct Node {
    uint8_t bytes[200];
    QTAILQ_ENTRY(Node) next;
} Node;

typedef struct Thing {
    uint32_t count;
    uint64_t *numbers;
    QTAILQ_HEAD(Nodes, Node) nodes;
} Thing;

static const VMStateDescription node = {
    .name = "node",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (VMStateField[]){ VMSTATE_BUFFER(bytes, Node), VMSTATE_END_OF_LIST() },
};

static const VMStateDescription list = {
    .name = "list",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (VMStateField[]){ VMSTATE_QTAILQ_V(nodes, Thing, 1, node, Node, next), VMSTATE_END_OF_LIST() },
};

static const VMStateDescription array = {
    .name = "array",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (VMStateField[]){ VMSTATE_UINT32(count, Thing),
                                VMSTATE_VARRAY_UINT32_ALLOC(numbers, Thing, count, 1, vmstate_info_uint64, uint64_t),
                                VMSTATE_END_OF_LIST() },
};

static size_t ones(uint8_t *piece, uint32_t number)
{
    (void)number;
    memset(piece, 1, 4096);
    return 4096;
}

static size_t many(uint8_t *piece, uint32_t number)
{
    if (number == 0) {
        return put32(piece, 100u << 20);
    }
    return ones(piece, number);
}

static void loads_no(const VMStateDescription *vmsd, size_t (*next)(uint8_t *piece, uint32_t number))
{
    QEMUFile *f = stream_of(next);
    Thing thing = { .count = 0 };
    Node *first;

    QTAILQ_INIT(&thing.nodes);
    CHECK(vmstate_load_state(f, vmsd, &thing, 1) < 0);
    while ((first = QTAILQ_FIRST(&thing.nodes)) != NULL) {
        QTAILQ_REMOVE(&thing.nodes, first, next);
        free(first);
    }
    free(thing.numbers);
    end(f);
}

TEST(a_list_without_end)
{
    loads_no(&list, ones);
}

TEST(an_array_that_is_too_large)
{
    loads_no(&array, many);
}

/* Read, but not loaded. */

static void inspects(size_t (*next)(uint8_t *piece, uint32_t number))
{
    QEMUFile *f = stream_of(next);
    SaveVMInspect *read = savevm_inspect_file(f, 32u << 20, NULL);

    savevm_inspect_free(read);
    end(f);
}

static size_t headed(uint8_t *piece, uint32_t number, size_t (*next)(uint8_t *piece, uint32_t number))
{
    static const uint8_t head[] = { 'Q', 'E', 'V', 'M', 0, 0, 0, 3 };

    if (number == 0) {
        memcpy(piece, head, sizeof(head));
        return sizeof(head);
    }
    return next(piece, number - 1);
}

static size_t starts_to_read(uint8_t *piece, uint32_t number)
{
    return headed(piece, number, start);
}

static size_t package_to_read(uint8_t *piece, uint32_t number)
{
    return headed(piece, number, package);
}

static size_t description(uint8_t *piece, uint32_t number)
{
    static const uint8_t end_and_head[] = { QEMU_VM_EOF, QEMU_VM_VMDESCRIPTION, 0x3f, 0xff, 0xff, 0xff };

    if (number == 0) {
        memcpy(piece, end_and_head, sizeof(end_and_head));
        return sizeof(end_and_head);
    }
    memset(piece, '[', 4096);
    return 4096;
}

static size_t description_to_read(uint8_t *piece, uint32_t number)
{
    return headed(piece, number, description);
}

TEST(sections_that_are_read)
{
    inspects(starts_to_read);
}

TEST(a_package_that_is_read)
{
    inspects(package_to_read);
}

TEST(a_description_that_is_read)
{
    inspects(description_to_read);
}
