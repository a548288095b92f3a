/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loads the RAM of a stream of another program:
 *     load-ram URI MACHINE DIRECTORY BLOCK=LENGTH[:PAGESIZE]...
 * and writes each block to a file of DIRECTORY, named by its place. The devices
 * of that machine are not here: the load has to end at the first of them.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "migration/savevm.h"
#include "savevm.h"
#include "savevm/ram.h"

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

static int fail(const char *what, const Error *err)
{
    fprintf(stderr, "%s: %s\n", what, err ? error_get_pretty(err) : "failed");
    return 1;
}

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

int main(int argc, char **argv)
{
    SaveVMHostOps host = SAVEVM_HOST_OPS_INIT;
    host.machine_name = machine_name;
    host.report = quiet;
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    options.log = SAVEVM_RAM_LOG_MARKS;
    SaveVMRamInfo info = SAVEVM_RAM_INFO_INIT;
    Error *err = NULL;
    if (argc < 5) {
        return fail("load-ram URI MACHINE DIRECTORY BLOCK=LENGTH...", NULL);
    }
    int count = argc - 4;
    SaveVMRamBlock *blocks = calloc(count, sizeof(*blocks));
    SaveVM *vm = savevm_new(&host, argv[2]);
    SaveVMRam *ram = savevm_ram_new(vm, &options, NULL, NULL, &err);
    if (!ram) {
        return fail("RAM", err);
    }
    for (int i = 0; i < count; i++) {
        if (add(ram, argv[4 + i], &blocks[i])) {
            return 1;
        }
    }
    int ret = savevm_snapshot_load(vm, argv[1], NULL, &err);
    const SaveVMErrorInfo *why = savevm_error_info(err);
    savevm_ram_query(ram, &info);
    printf("%d %s\n", ret, err ? error_get_pretty(err) : "");
    printf("normal %ju zero %ju xbzrle %ju\n", (uintmax_t)info.normal_pages, (uintmax_t)info.zero_pages,
           (uintmax_t)info.xbzrle_pages);
    if (ret == 0 || !why || !strstr(why->message, "Unknown savevm section or instance")) {
        return fail("the load did not end at a device", err);
    }
    for (int i = 0; i < count; i++) {
        if (dump(argv[3], i, &blocks[i])) {
            return 1;
        }
    }
    error_free(err);
    savevm_ram_free(ram);
    savevm_free(vm);
    return 0;
}
