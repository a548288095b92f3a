/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A hypervisor as far from this tree as can be: one device, saved and loaded. */
#include <migration/qemu-file.h>
#include <migration/register.h>
#include <migration/savevm.h>
#include <migration/vmstate.h>
#include <savevm.h>
#include <savevm/file.h>

#include <stdio.h>
#include <string.h>

typedef struct Counter {
    uint32_t value;
    uint8_t name[8];
} Counter;

static const VMStateDescription vmstate_counter = {
    .name = "counter",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (VMStateField[]) {
        VMSTATE_UINT32(value, Counter),
        VMSTATE_UINT8_ARRAY(name, Counter, 8),
        VMSTATE_END_OF_LIST()
    },
};

static void old_save(QEMUFile *f, void *opaque)
{
    qemu_put_sbe32(f, *(int *)opaque);
}

static int old_load(QEMUFile *f, void *opaque, int version_id)
{
    *(int *)opaque = qemu_get_sbe32(f);
    return version_id == 3 ? 0 : -1;
}

static SaveVMHandlers handlers = { .save_state = old_save, .load_state = old_load };

int main(void)
{
    Counter counter = { 7, "counts" };
    int number = -42;
    QEMUFile *f, *in;
    const uint8_t *bytes;
    size_t len = 0;

    /* Fields are distinguished by the addresses of these, so there must be one of each. */
    if (vmstate_counter.fields[0].info != &vmstate_info_uint32) {
        return 2;
    }
    if (register_savevm_live("number", 0, 3, &handlers, &number) != 0 ||
        vmstate_register(NULL, 0, &vmstate_counter, &counter) != 0) {
        return 3;
    }
    f = savevm_file_to_buffer();
    qemu_savevm_state_header(f);
    qemu_savevm_state_setup(f);
    if (qemu_savevm_state_iterate(f, false) != 1 || qemu_savevm_state_complete_precopy(f, false, false) != 0) {
        return 4;
    }
    qemu_savevm_state_cleanup();
    bytes = savevm_file_buffer(f, &len);
    counter.value = 0;
    memset(counter.name, 0, sizeof(counter.name));
    number = 0;
    in = savevm_file_from_buffer(bytes, len);
    if (qemu_loadvm_state(in) != 0 || counter.value != 7 || strcmp((char *)counter.name, "counts") || number != -42) {
        return 5;
    }
    qemu_fclose(in);
    qemu_fclose(f);
    vmstate_unregister(NULL, &vmstate_counter, &counter);
    unregister_savevm(NULL, "number", &number);
    printf("libsavevm %s: %zu bytes there and back\n", savevm_version(), len);
    return 0;
}
