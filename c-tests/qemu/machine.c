/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "machine.h"

#include <stdio.h>

#include "migration/vmstate.h"

/* QEMU's clock of the guest (softmmu/cpu-timers.c), which every machine has. */
typedef struct Timer {
    int64_t ticks_offset;
    int64_t clock_offset;
} Timer;

static Timer timer = { 1, 2 };

static const VMStateDescription vmstate_timer = {
    .name = "timer",
    .version_id = 2,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_INT64(ticks_offset, Timer),
        VMSTATE_UNUSED(8),
        VMSTATE_INT64_V(clock_offset, Timer, 2),
        VMSTATE_END_OF_LIST()
    }
};

int fail(const char *what, const Error *err)
{
    fprintf(stderr, "%s: %s\n", what, err ? error_get_pretty(err) : "failed");
    return 1;
}

static const char *machine_name(void *host)
{
    return host;
}

static void quiet(void *host, SaveVMReportLevel level, const char *text)
{
    (void)host;
    (void)level;
    (void)text;
}

Machine machine_new(const char *name, Error **errp)
{
    SaveVMHostOps host = SAVEVM_HOST_OPS_INIT;
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    Machine machine;

    host.machine_name = machine_name;
    host.report = quiet;
    options.log = SAVEVM_RAM_LOG_MARKS;
    machine.vm = savevm_new(&host, (void *)name);
    savevm_set_current(machine.vm);
    /* The first device has the section id 0, as in QEMU. QEMU would take a live device with id 0 for its own first device. */
    vmstate_register(NULL, 0, &vmstate_timer, &timer);
    machine.ram = savevm_ram_new(machine.vm, &options, NULL, NULL, errp);
    return machine;
}

void machine_free(Machine machine)
{
    vmstate_unregister(NULL, &vmstate_timer, &timer);
    savevm_set_current(NULL);
    savevm_ram_free(machine.ram);
    savevm_free(machine.vm);
}
