/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Saves a snapshot with fixed places of pages, for another program to load:
 *     save-ram URI MACHINE BLOCK=FILE...
 * The content of each block comes from its file. SAVE_DIRECT=1 in the environment: with O_DIRECT.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "migration/register.h"
#include "savevm.h"
#include "savevm/ram.h"

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

static int fail(const char *what, const Error *err)
{
    fprintf(stderr, "%s: %s\n", what, err ? error_get_pretty(err) : "failed");
    return 1;
}

static int add(SaveVMRam *ram, char *argument)
{
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    Error *err = NULL;
    struct stat data;
    char *equals = strchr(argument, '=');
    int fd = equals ? open(equals + 1, O_RDONLY) : -1;
    if (fd < 0 || fstat(fd, &data) < 0) {
        return fail(argument, NULL);
    }
    *equals = 0;
    block.name = argument;
    block.length = (uint64_t)data.st_size;
    block.host = mmap(NULL, block.length, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (block.host == MAP_FAILED) {
        return fail(argument, NULL);
    }
    return savevm_ram_add_block(ram, &block, &err) ? fail(argument, err) : 0;
}

int main(int argc, char **argv)
{
    SaveVMHostOps host = SAVEVM_HOST_OPS_INIT;
    SaveVMRamOptions ram_options = SAVEVM_RAM_OPTIONS_INIT;
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    Error *err = NULL;
    if (argc < 4) {
        return fail("save-ram URI MACHINE BLOCK=FILE...", NULL);
    }
    host.machine_name = machine_name;
    ram_options.log = SAVEVM_RAM_LOG_MARKS;
    SaveVM *vm = savevm_new(&host, argv[2]);
    /* QEMU takes further sections of id 0 for its own first device. So this device, which saves nothing, has id 0. */
    static SaveVMHandlers nothing = { .load_state = load_nothing };
    savevm_set_current(vm);
    register_savevm_live("nothing", 0, 1, &nothing, NULL);
    SaveVMRam *ram = savevm_ram_new(vm, &ram_options, NULL, NULL, &err);
    if (!ram) {
        return fail("RAM", err);
    }
    for (int i = 3; i < argc; i++) {
        if (add(ram, argv[i])) {
            return 1;
        }
    }
    options.format = SAVEVM_SNAPSHOT_MAPPED;
    options.threads = 2;
    options.direct = getenv("SAVE_DIRECT") != NULL;
    if (savevm_snapshot_save(vm, argv[1], &options, &err) != 0) {
        return fail(argv[1], err);
    }
    unregister_savevm(NULL, "nothing", NULL);
    savevm_set_current(NULL);
    savevm_ram_free(ram);
    savevm_free(vm);
    return 0;
}
