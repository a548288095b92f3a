/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Does everything with a stream that a program may do with one it does not
 * trust: inspects it, prints all documents and fields, checks it, and loads it
 * into a machine. The stream may be anything; hostile.py limits memory and time.
 *
 * usage: read-any make FILE     writes a snapshot of the machine
 *        read-any read FILE
 */
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/vmstate.h"
#include "savevm.h"
#include "savevm/file.h"
#include "savevm/inspect.h"
#include "savevm/ram.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MEMORY (1 << 20)

typedef struct Part {
    uint32_t key;
    uint16_t words[4];
} Part;

/* Counts and sizes that come from the stream, allocated when loading. */
typedef struct Device {
    uint64_t value;
    uint8_t bytes[32];
    uint32_t count, size;
    uint32_t *numbers;
    uint8_t *data;
    uint8_t used;
    Part parts[8];
} Device;

static const VMStateDescription vmstate_part = {
    .name = "part",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(key, Part),
        VMSTATE_UINT16_ARRAY(words, Part, 4),
        VMSTATE_END_OF_LIST()
    }
};

static bool extra_needed(void *opaque)
{
    return ((Device *)opaque)->value != 0;
}

static const VMStateDescription vmstate_extra = {
    .name = "device/extra",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = extra_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_BUFFER(bytes, Device),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription *subsections[] = { &vmstate_extra, NULL };

static const VMStateDescription vmstate_device = {
    .name = "device",
    .version_id = 2,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(value, Device),
        VMSTATE_UINT32(count, Device),
        VMSTATE_VARRAY_UINT32_ALLOC(numbers, Device, count, 0, vmstate_info_uint32, uint32_t),
        VMSTATE_UINT32(size, Device),
        VMSTATE_VBUFFER_ALLOC_UINT32(data, Device, 0, NULL, size),
        VMSTATE_UINT8(used, Device),
        VMSTATE_STRUCT_VARRAY_UINT8(parts, Device, used, 0, vmstate_part, Part),
        VMSTATE_END_OF_LIST()
    },
    .subsections = subsections,
};

static Device device = { .value = 1, .bytes = "bytes", .count = 4, .size = 16, .used = 3 };

static SaveVM *machine(void)
{
    static SaveVMHostOps ops = { .size = sizeof(ops) };
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    SaveVM *vm = savevm_new(&ops, NULL);
    SaveVMRam *ram;

    options.log = SAVEVM_RAM_LOG_MARKS;
    block.name = "memory";
    block.host = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    block.length = MEMORY;
    for (unsigned i = 0; i < MEMORY; i += 3 * 4096) {
        memset((uint8_t *)block.host + i, (int)(i / 4096), 4096);
    }
    ram = savevm_ram_new(vm, &options, NULL, NULL, NULL);
    if (!ram || savevm_ram_add_block(ram, &block, NULL) < 0 ||
        savevm_register_vmstate(vm, NULL, 0, &vmstate_device, &device, -1, 0, NULL) < 0) {
        exit(3);
    }
    return vm;
}

static int count_field(void *opaque, const SaveVMInspectField *field)
{
    (void)field;
    ++*(uint64_t *)opaque;
    return 0;
}

static uint64_t inspect(const char *uri)
{
    SaveVMInspectItem item = SAVEVM_INSPECT_ITEM_INIT;
    SaveVMInspectBlock block = SAVEVM_INSPECT_BLOCK_INIT;
    SaveVMInspectSummary summary = SAVEVM_INSPECT_SUMMARY_INIT;
    QEMUFile *f = savevm_file_open(uri, false, NULL), *out;
    /* 64 MiB may be kept. */
    SaveVMInspect *s = f ? savevm_inspect_file(f, 64 << 20, NULL) : NULL;
    uint64_t fields = 0;

    if (s) {
        savevm_inspect_summary(s, &summary);
        for (size_t i = 0; savevm_inspect_item(s, i, &item) == 0; i++) {
            savevm_inspect_fields(s, i, count_field, &fields);
        }
        for (size_t i = 0; savevm_inspect_block(s, i, &block) == 0; i++) {
        }
        for (int format = SAVEVM_INSPECT_JSON; format <= SAVEVM_INSPECT_ANALYZE; format++) {
            out = savevm_file_open("file:/dev/null", true, NULL);
            savevm_inspect_document(s, (SaveVMInspectFormat)format, out);
            qemu_fclose(out);
        }
        savevm_inspect_free(s);
    }
    if (f) {
        qemu_fclose(f);
    }
    return fields;
}

int main(int argc, char **argv)
{
    static uint32_t numbers[4] = { 1, 2, 3, 4 };
    static uint8_t data[16];
    char uri[4200];
    Error *err = NULL;
    SaveVM *vm;
    int ret;

    if (argc != 3) {
        fprintf(stderr, "usage: read-any make|read FILE\n");
        return 2;
    }
    snprintf(uri, sizeof(uri), "file:%s", argv[2]);
    vm = machine();
    if (strcmp(argv[1], "make") == 0) {
        device.numbers = numbers;
        device.data = data;
        ret = savevm_snapshot_save(vm, uri, NULL, &err);
    } else {
        device.count = device.size = 0;
        printf("%llu fields\n", (unsigned long long)inspect(uri));
        ret = savevm_snapshot_load(vm, uri, NULL, &err);
    }
    printf("%s\n", ret < 0 ? error_get_pretty(err) : "done");
    error_free(err);
    return ret < 0;
}
