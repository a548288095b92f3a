/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Saves a chain of snapshots of a machine with one block of memory, for another program to merge and load:
 *     save-chain DIRECTORY MACHINE BLOCK FORMATS CONTENT...
 * DIRECTORY/0 has the memory of the first file, DIRECTORY/1 that of the second, and so on. FORMATS has a letter for each: s for
 * a stream, m for fixed places of pages, q for a file that another program has saved. That one is loaded.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "machine.h"
#include "savevm/abi.h"

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

/* Loads a snapshot of another program, for the next one to be relative to. Its memory must be that of the file `content`. */
static int load(SaveVM *vm, const char *uri, const SaveVMRamBlock *block, const char *content)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    Error *err = NULL;

    options.parent = "";
    memset(block->host, 0xa5, block->length);
    /* The program may be a QEMU of any version up to this one. */
    savevm_set_abi(vm, savevm_abi_of_qemu(1002), NULL);
    if (savevm_snapshot_load(vm, uri, &options, &err) != 0) {
        return fail(uri, err);
    }
    savevm_set_abi(vm, NULL, NULL);
    uint8_t *expected = malloc(block->length);
    FILE *file = fopen(content, "r");
    bool same = file && expected && fread(expected, 1, block->length, file) == block->length
        && memcmp(block->host, expected, block->length) == 0;
    if (file) {
        fclose(file);
    }
    free(expected);
    return same ? 0 : fail("the memory of the loaded snapshot", NULL);
}

static int save(SaveVM *vm, const char *uri, const char *parent, char format)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    Error *err = NULL;

    options.parent = parent;
    options.format = format == 'm' ? SAVEVM_SNAPSHOT_MAPPED : SAVEVM_SNAPSHOT_STREAM;
    return savevm_snapshot_save(vm, uri, &options, &err) ? fail(uri, err) : 0;
}

int main(int argc, char **argv)
{
    Error *err = NULL;
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    struct stat data;
    if (argc < 6 || strlen(argv[4]) + 5 != (size_t)argc || stat(argv[5], &data) < 0) {
        return fail("save-chain DIRECTORY MACHINE BLOCK FORMATS CONTENT...", NULL);
    }
    Machine machine = machine_new(argv[2], &err);
    block.name = argv[3];
    block.length = (uint64_t)data.st_size;
    block.host = mmap(NULL, block.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!machine.ram || block.host == MAP_FAILED || savevm_ram_add_block(machine.ram, &block, &err) != 0) {
        return fail("RAM", err);
    }
    for (int number = 0; number + 5 < argc; number++) {
        char uri[512], parent[512];
        snprintf(uri, sizeof(uri), "file:%s/%d", argv[1], number);
        snprintf(parent, sizeof(parent), "file:%s/%d", argv[1], number - 1);
        bool is_foreign = argv[4][number] == 'q';
        if (is_foreign ? load(machine.vm, uri, &block, argv[5 + number])
                       : copy(block.host, block.length, argv[5 + number])
                         || save(machine.vm, uri, number ? parent : "", argv[4][number])) {
            return 1;
        }
    }
    machine_free(machine);
    return 0;
}
