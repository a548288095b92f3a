/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Saves a snapshot with fixed places of pages, for another program to load:
 *     save-ram URI MACHINE BLOCK=FILE...
 * The content of each block comes from its file. SAVE_DIRECT=1 in the environment: with O_DIRECT. SAVE_BACKGROUND=1: in the
 * background.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "machine.h"

static int add(SaveVMRam *ram, char *argument)
{
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    Error *err = NULL;
    struct stat data;
    char *equals = strchr(argument, '=');
    FILE *file = equals ? fopen(equals + 1, "r") : NULL;
    if (!file || fstat(fileno(file), &data) < 0) {
        return fail(argument, NULL);
    }
    *equals = 0;
    block.name = argument;
    block.length = (uint64_t)data.st_size;
    block.host = mmap(NULL, block.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool read = block.host != MAP_FAILED && fread(block.host, 1, block.length, file) == block.length;
    fclose(file);
    return !read || savevm_ram_add_block(ram, &block, &err) ? fail(argument, err) : 0;
}

int main(int argc, char **argv)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    Error *err = NULL;
    if (argc < 4) {
        return fail("save-ram URI MACHINE BLOCK=FILE...", NULL);
    }
    Machine machine = machine_new(argv[2], &err);
    if (!machine.ram) {
        return fail("RAM", err);
    }
    for (int i = 3; i < argc; i++) {
        if (add(machine.ram, argv[i])) {
            return 1;
        }
    }
    options.format = SAVEVM_SNAPSHOT_MAPPED;
    options.threads = 2;
    options.direct = getenv("SAVE_DIRECT") != NULL;
    options.background = getenv("SAVE_BACKGROUND") != NULL;
    if (savevm_snapshot_save(machine.vm, argv[1], &options, &err) != 0) {
        return fail(argv[1], err);
    }
    machine_free(machine);
    return 0;
}
