/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loads the RAM of a stream of another program:
 *     load-ram URI MACHINE DIRECTORY BLOCK=LENGTH...
 * and writes each block to a file of DIRECTORY, named by its place. The machine "none" loads completely. The devices of other
 * machines are not here: the load has to end at the first of them. LOAD_LAZY=1 in the environment: lazily.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "machine.h"

static int add(SaveVMRam *ram, char *argument, SaveVMRamBlock *block)
{
    Error *err = NULL;
    char *equals = strrchr(argument, '=');
    if (!equals) {
        return fail(argument, NULL);
    }
    *equals = 0;
    *block = (SaveVMRamBlock){ .size = sizeof(*block), .name = argument };
    block->length = strtoull(equals + 1, NULL, 0);
    block->host = mmap(NULL, block->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block->host == MAP_FAILED) {
        return fail(argument, NULL);
    }
    /* Whatever is not received shows. */
    memset(block->host, 0xa5, block->length);
    return savevm_ram_add_block(ram, block, &err) ? fail(argument, err) : 0;
}

static int dump(const char *directory, int number, const SaveVMRamBlock *block)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%d", directory, number);
    FILE *file = fopen(path, "w");
    bool written = file && fwrite(block->host, 1, block->length, file) == block->length;
    return file && fclose(file) == 0 && written ? 0 : fail(path, NULL);
}

/* Loads it. Returns whether everything that the machine has was loaded. */
static bool load(Machine machine, const char *uri, bool complete, Error **err)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;

    options.lazy = getenv("LOAD_LAZY") != NULL;
    int ret = savevm_snapshot_load(machine.vm, uri, &options, err);
    if (ret == 0) {
        ret = savevm_restore_wait(machine.vm, err);
    }
    printf("%d %s\n", ret, *err ? error_get_pretty(*err) : "");
    if (complete || ret == 0) {
        return complete && ret == 0;
    }
    const SaveVMErrorInfo *why = savevm_error_info(*err);
    return why && strstr(why->message, "Unknown savevm section or instance") != NULL;
}

int main(int argc, char **argv)
{
    SaveVMRamInfo info = SAVEVM_RAM_INFO_INIT;
    Error *err = NULL;
    if (argc < 5) {
        return fail("load-ram URI MACHINE DIRECTORY BLOCK=LENGTH...", NULL);
    }
    int count = argc - 4;
    SaveVMRamBlock *blocks = calloc(count, sizeof(*blocks));
    Machine machine = machine_new(argv[2], &err);
    if (!machine.ram) {
        return fail("RAM", err);
    }
    for (int i = 0; i < count; i++) {
        if (add(machine.ram, argv[4 + i], &blocks[i])) {
            return 1;
        }
    }
    if (!load(machine, argv[1], strcmp(argv[2], "none") == 0, &err)) {
        return fail("the load did not end where it should", err);
    }
    savevm_ram_query(machine.ram, &info);
    printf("normal %ju zero %ju xbzrle %ju\n", (uintmax_t)info.normal_pages, (uintmax_t)info.zero_pages,
           (uintmax_t)info.xbzrle_pages);
    for (int i = 0; i < count; i++) {
        if (dump(argv[3], i, &blocks[i])) {
            return 1;
        }
    }
    error_free(err);
    machine_free(machine);
    free(blocks);
    return 0;
}
