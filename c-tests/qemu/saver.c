/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "saver.h"

#include <stdio.h>

#include "migration/register.h"

int fail(const char *what, const Error *err)
{
    fprintf(stderr, "%s: %s\n", what, err ? error_get_pretty(err) : "failed");
    return 1;
}

static const char *machine_name(void *host)
{
    return host;
}

static int load_nothing(QEMUFile *f, void *opaque, int version_id)
{
    (void)f;
    (void)opaque;
    (void)version_id;
    return 0;
}

Saver saver_new(const char *machine, Error **errp)
{
    /* QEMU takes further sections of id 0 for its own first device. So this device, which saves nothing, has id 0. */
    static SaveVMHandlers nothing = { .load_state = load_nothing };
    SaveVMHostOps host = SAVEVM_HOST_OPS_INIT;
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    Saver saver;

    host.machine_name = machine_name;
    options.log = SAVEVM_RAM_LOG_MARKS;
    saver.vm = savevm_new(&host, (void *)machine);
    savevm_set_current(saver.vm);
    register_savevm_live("nothing", 0, 1, &nothing, NULL);
    saver.ram = savevm_ram_new(saver.vm, &options, NULL, NULL, errp);
    return saver;
}

void saver_free(Saver saver)
{
    unregister_savevm(NULL, "nothing", NULL);
    savevm_set_current(NULL);
    savevm_ram_free(saver.ram);
    savevm_free(saver.vm);
}
