/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Saves a chain of snapshots of a machine with one block of memory, for another program to merge and load:
 *     save-chain DIRECTORY MACHINE BLOCK FORMATS CONTENT...
 * DIRECTORY/0 has the memory of the first file, DIRECTORY/1 that of the second, and so on. FORMATS has a letter for each: s for
 * a stream, m for fixed places of pages.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "saver.h"

/* Copies what differs from the memory to it, so that only this is written. */
static int copy(uint8_t *memory, size_t length, const char *path)
{
    uint8_t page[4096];
    FILE *file = fopen(path, "r");

    if (!file) {
        return fail(path, NULL);
    }
    for (size_t at = 0; at < length; at += sizeof(page)) {
        if (fread(page, 1, sizeof(page), file) != sizeof(page)) {
            fclose(file);
            return fail(path, NULL);
        }
        if (memcmp(memory + at, page, sizeof(page)) != 0) {
            memcpy(memory + at, page, sizeof(page));
        }
    }
    fclose(file);
    return 0;
}

int main(int argc, char **argv)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    Error *err = NULL;
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    struct stat data;
    if (argc < 6 || strlen(argv[4]) + 5 != (size_t)argc || stat(argv[5], &data) < 0) {
        return fail("save-chain DIRECTORY MACHINE BLOCK FORMATS CONTENT...", NULL);
    }
    Saver saver = saver_new(argv[2], &err);
    block.name = argv[3];
    block.length = (uint64_t)data.st_size;
    block.host = mmap(NULL, block.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!saver.ram || block.host == MAP_FAILED || savevm_ram_add_block(saver.ram, &block, &err) != 0) {
        return fail("RAM", err);
    }
    for (int number = 0; number + 5 < argc; number++) {
        char uri[512], parent[512];
        snprintf(uri, sizeof(uri), "file:%s/%d", argv[1], number);
        snprintf(parent, sizeof(parent), "file:%s/%d", argv[1], number - 1);
        options.parent = number ? parent : "";
        options.format = argv[4][number] == 'm' ? SAVEVM_SNAPSHOT_MAPPED : SAVEVM_SNAPSHOT_STREAM;
        if (copy(block.host, block.length, argv[5 + number]) != 0) {
            return 1;
        }
        if (savevm_snapshot_save(saver.vm, uri, &options, &err) != 0) {
            return fail(uri, err);
        }
    }
    saver_free(saver);
    return 0;
}
