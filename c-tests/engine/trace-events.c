/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The trace events of descriptions and commands: names, texts and order are those of QEMU 7.2. Without a listener they
 * cost nothing. */
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "qemu/queue.h"
#include "savevm.h"
#include "savevm/host-driver.h"
#include "savevm/file.h"
#include "backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Node {
    uint8_t value;
    QTAILQ_ENTRY(Node) queue_link;
    QLIST_ENTRY(Node) list_link;
} Node;

typedef struct Device {
    uint32_t word;
    uint32_t later;
    uint8_t bytes[3];
    QTAILQ_HEAD(, Node) queue;
    QLIST_HEAD(, Node) list;
} Device;

static int accept(void *opaque)
{
    (void)opaque;
    return 0;
}

static const VMStateDescription node_vmsd = {
    .name = "node",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(value, Node),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription more_vmsd = {
    .name = "device/more",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(later, Device),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription device_vmsd = {
    .name = "device",
    .version_id = 2,
    .minimum_version_id = 2,
    .pre_save = accept,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(word, Device),
        VMSTATE_UINT32_V(later, Device, 3),
        VMSTATE_UINT8_ARRAY(bytes, Device, 3),
        VMSTATE_QTAILQ_V(queue, Device, 1, node_vmsd, Node, queue_link),
        VMSTATE_QLIST_V(list, Device, 1, node_vmsd, Node, list_link),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription *[]) {
        &more_vmsd,
        NULL
    },
};

static char events[4096];
static bool listening;
static unsigned asked_of_any;

static bool wanted(void *host, const char *name)
{
    (void)host;
    asked_of_any += name == NULL;
    return listening;
}

static void event(void *host, const char *name, const char *text)
{
    (void)host;
    size_t len = strlen(events);

    snprintf(events + len, sizeof(events) - len, "%s %s\n", name, text);
}

static int pong(void *host, uint32_t value)
{
    (void)host;
    (void)value;
    return 0;
}

/* Always past the first discard. */
static int postcopy_state(void *host, int state)
{
    (void)host;
    (void)state;
    return 2;
}

static int discard(void *host, const char *block, uint64_t begin, uint64_t length)
{
    (void)host;
    (void)block;
    (void)begin;
    (void)length;
    return 0;
}

static const SaveVMIncomingOps incoming = {
    .size = sizeof(incoming),
    .pong = pong,
    .postcopy_state = postcopy_state,
    .postcopy_discard = discard,
};

static SaveVM *start(void)
{
    SaveVMHostOps ops = SAVEVM_HOST_OPS_INIT;
    ops.trace_wanted = wanted;
    ops.trace = event;
    ops.incoming = &incoming;
    SaveVM *vm = savevm_new(&ops, NULL);

    savevm_set_current(vm);
    return vm;
}

static void end(SaveVM *vm)
{
    savevm_set_current(NULL);
    savevm_free(vm);
}

static void make(Device *device, Node *queued, Node *listed)
{
    QTAILQ_INIT(&device->queue);
    QLIST_INIT(&device->list);
    if (queued) {
        QTAILQ_INSERT_TAIL(&device->queue, queued, queue_link);
        QLIST_INSERT_HEAD(&device->list, listed, list_link);
    }
}

/* The stream of a device with an element in its queue and one in its list. */
static QEMUFile *save(void)
{
    Device device = { .word = 1 };
    Node queued = { .value = 2 }, listed = { .value = 3 };
    QEMUFile *f = savevm_file_to_buffer();

    make(&device, &queued, &listed);
    CHECK_EQ(vmstate_save_state(f, &device_vmsd, &device, NULL), 0);
    return f;
}

static const char saved[] =
    "vmstate_save_state_top device\n"
    "vmstate_save_state_pre_save_res device/0\n"
    "vmstate_n_elems word: 1\n"
    "vmstate_save_state_loop device/word[1]\n"
    "vmstate_n_elems bytes: 3\n"
    "vmstate_save_state_loop device/bytes[3]\n"
    "vmstate_n_elems queue: 1\n"
    "vmstate_save_state_loop device/queue[1]\n"
    "put_qtailq node v1\n"
    "vmstate_save_state_top node\n"
    "vmstate_n_elems value: 1\n"
    "vmstate_save_state_loop node/value[1]\n"
    "vmstate_subsection_save_top node\n"
    "put_qtailq_end node end\n"
    "vmstate_n_elems list: 1\n"
    "vmstate_save_state_loop device/list[1]\n"
    "put_qlist list(node v1)\n"
    "vmstate_save_state_top node\n"
    "vmstate_n_elems value: 1\n"
    "vmstate_save_state_loop node/value[1]\n"
    "vmstate_subsection_save_top node\n"
    "put_qlist_end list(node)\n"
    "vmstate_subsection_save_top device\n"
    "vmstate_subsection_save_loop device/device/more\n"
    "vmstate_save_state_top device/more\n"
    "vmstate_n_elems later: 1\n"
    "vmstate_save_state_loop device/more/later[1]\n"
    "vmstate_subsection_save_top device/more\n";

static const char loaded[] =
    "vmstate_load_state device v2\n"
    "vmstate_load_state_field device:word\n"
    "vmstate_n_elems word: 1\n"
    "vmstate_load_state_field device:later\n"
    "vmstate_load_state_field device:bytes\n"
    "vmstate_n_elems bytes: 3\n"
    "vmstate_load_state_field device:queue\n"
    "vmstate_n_elems queue: 1\n"
    "get_qtailq node v1\n"
    "vmstate_load_state node v1\n"
    "vmstate_load_state_field node:value\n"
    "vmstate_n_elems value: 1\n"
    "vmstate_subsection_load node\n"
    "vmstate_subsection_load_good node\n"
    "vmstate_load_state_end node end/0\n"
    "get_qtailq_end node end/0\n"
    "vmstate_load_state_field device:list\n"
    "vmstate_n_elems list: 1\n"
    "get_qlist list(node v1)\n"
    "vmstate_load_state node v1\n"
    "vmstate_load_state_field node:value\n"
    "vmstate_n_elems value: 1\n"
    "vmstate_subsection_load node\n"
    "vmstate_subsection_load_good node\n"
    "vmstate_load_state_end node end/0\n"
    "get_qlist_end list(node)\n"
    "vmstate_subsection_load device\n"
    "vmstate_load_state device/more v1\n"
    "vmstate_load_state_field device/more:later\n"
    "vmstate_n_elems later: 1\n"
    "vmstate_subsection_load device/more\n"
    "vmstate_subsection_load_good device/more\n"
    "vmstate_load_state_end device/more end/0\n"
    "vmstate_subsection_load_good device\n"
    "vmstate_load_state_end device end/0\n"
    "qemu_file_fclose \n";

static int load(const uint8_t *bytes, size_t len, int version)
{
    Device device = { 0 };
    QEMUFile *f = savevm_file_from_buffer(bytes, len);
    Node *node;
    int ret;

    make(&device, NULL, NULL);
    events[0] = '\0';
    ret = vmstate_load_state(f, &device_vmsd, &device, version);
    while ((node = QTAILQ_FIRST(&device.queue)) != NULL) {
        QTAILQ_REMOVE(&device.queue, node, queue_link);
        free(node);
    }
    while ((node = QLIST_FIRST(&device.list)) != NULL) {
        QLIST_REMOVE(node, list_link);
        free(node);
    }
    qemu_fclose(f);
    return ret;
}

TEST(a_device_and_back)
{
    SaveVM *vm = start();
    const uint8_t *bytes;
    QEMUFile *f;
    size_t len;

    listening = true;
    f = save();
    CHECK_STR(events, saved);
    bytes = savevm_file_buffer(f, &len);
    CHECK_EQ(load(bytes, len, 2), 0);
    CHECK_STR(events, loaded);
    qemu_fclose(f);
    end(vm);
}

TEST(what_fails)
{
    static const uint8_t strange[] = "\0\0\0\1" "abc" "\0" "\0" "\5\xbnoone/knows";
    static const uint8_t wrong[] = "\0\0\0\1" "abc" "\0" "\0" "\5\xe" "device/unknown";
    SaveVM *vm = start();

    listening = true;
    CHECK_EQ(load(strange, sizeof(strange), 3), -EINVAL);
    CHECK_STR(events, "vmstate_load_state device v3\nvmstate_load_state_end device too new/-22\nqemu_file_fclose \n");
    CHECK_EQ(load(strange, sizeof(strange), 1), -EINVAL);
    CHECK_STR(events, "vmstate_load_state device v1\nvmstate_load_state_end device too old/-22\nqemu_file_fclose \n");
    CHECK_EQ(load(strange, 2, 2), -EIO);
    CHECK_HAS(events, "vmstate_load_field_error field \"word\" load failed, ret = -5\n");
    CHECK_EQ(load(strange, sizeof(strange), 2), 0);
    CHECK_HAS(events, "vmstate_subsection_load_bad device: noone/knows/(prefix)\n");
    CHECK_EQ(load(wrong, sizeof(wrong), 2), -ENOENT);
    CHECK_HAS(events, "vmstate_subsection_load_bad device: device/unknown/(lookup)\n");
    end(vm);
}

TEST(commands)
{
    uint64_t begins[] = { 0, 0x8000 }, lengths[] = { 0x1000, 0x2000 };
    SaveVM *vm = start();
    const uint8_t *bytes;
    QEMUFile *out = savevm_file_to_buffer(), *in;
    size_t len;

    listening = true;
    events[0] = '\0';
    qemu_savevm_send_ping(out, 42);
    qemu_savevm_send_postcopy_ram_discard(out, "ram", 2, begins, lengths);
    CHECK_STR(events,
              "savevm_send_ping 0x2a\n"
              "savevm_command_send com=0x2 len=4\n"
              "qemu_savevm_send_postcopy_ram_discard ram: 2d\n"
              "savevm_command_send com=0x6 len=38\n");
    qemu_put_byte(out, QEMU_VM_EOF);
    bytes = savevm_file_buffer(out, &len);
    in = savevm_file_from_buffer(bytes, len);
    events[0] = '\0';
    CHECK_EQ(qemu_loadvm_state_main(in, NULL), 0);
    CHECK_STR(events,
              "qemu_loadvm_state_section 8\n"
              "loadvm_process_command com=PING len=4\n"
              "loadvm_process_command_ping 0x2a\n"
              "qemu_loadvm_state_section_command 0\n"
              "qemu_loadvm_state_section 8\n"
              "loadvm_process_command com=POSTCOPY_RAM_DISCARD len=38\n"
              "loadvm_postcopy_ram_handle_discard \n"
              "loadvm_postcopy_ram_handle_discard_header ram: 32d\n"
              "loadvm_postcopy_ram_handle_discard_end \n"
              "qemu_loadvm_state_section_command 0\n"
              "qemu_loadvm_state_section 0\n");
    qemu_fclose(in);
    qemu_fclose(out);
    end(vm);
}

/* One question for a device, not one for a field. */
TEST(no_event_is_formatted_without_a_listener)
{
    SaveVM *vm = start();
    QEMUFile *f = save();

    CHECK_STR(events, "");
    CHECK_EQ(asked_of_any, 1);
    qemu_fclose(f);
    end(vm);
}
