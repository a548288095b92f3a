/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A snapshot file is replaced only by a whole one: killed at any moment and on a full disk, the last good one loads. */
#include "harness.h"
#include "savevm.h"
#include "savevm/ram.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LENGTH (2 << 20)

static SaveVM *vm;
static SaveVMRam *ram;
static uint8_t *memory;

static void quiet(void *host, SaveVMReportLevel level, const char *text)
{
    (void)host, (void)level, (void)text;
}

static void begin(void)
{
    SaveVMHostOps host = SAVEVM_HOST_OPS_INIT;
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;

    memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    host.report = quiet;
    options.log = SAVEVM_RAM_LOG_MARKS;
    block.name = "ram";
    block.host = memory;
    block.length = LENGTH;
    vm = savevm_new(&host, NULL);
    ram = savevm_ram_new(vm, &options, NULL, NULL, NULL);
    REQUIRE(ram && savevm_ram_add_block(ram, &block, NULL) == 0);
}

static void end(void)
{
    savevm_ram_free(ram);
    savevm_free(vm);
    munmap(memory, LENGTH);
}

/* Every word of the memory is the number of the snapshot. */
static void fill(uint32_t number)
{
    for (size_t at = 0; at < LENGTH / sizeof(uint32_t); at++) {
        ((uint32_t *)memory)[at] = number;
    }
}

/* Loads it; the number, or 0 if the memory is not that of one snapshot. */
static uint32_t load_with(const char *uri, const SaveVMSnapshotOptions *options)
{
    Error *err = NULL;
    uint32_t number;

    memset(memory, 0, LENGTH);
    if (!CHECK_EQ(savevm_snapshot_load(vm, uri, options, &err), 0)) {
        fprintf(stderr, "%s\n", error_get_pretty(err));
        error_free(err);
        return 0;
    }
    number = *(uint32_t *)memory;
    for (size_t at = 0; at < LENGTH / sizeof(uint32_t); at++) {
        if (!CHECK_EQ(((uint32_t *)memory)[at], number)) {
            return 0;
        }
    }
    return number;
}

static uint32_t load(const char *uri)
{
    SaveVMSnapshotOptions lazy = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    uint32_t number = load_with(uri, NULL);

    lazy.lazy = savevm_ram_check_postcopy(ram, NULL) == 0;
    CHECK_EQ(load_with(uri, &lazy), number);
    CHECK_EQ(savevm_restore_wait(vm, NULL), 0);
    return number;
}

/* How many files there are in a directory; all but `keep` are removed. */
static int files(const char *place, const char *keep)
{
    DIR *directory = opendir(place);
    char path[512];
    int count = 0;

    REQUIRE(directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        count++;
        if (strcmp(entry->d_name, keep) != 0) {
            snprintf(path, sizeof(path), "%s/%s", place, entry->d_name);
            unlink(path);
        }
    }
    closedir(directory);
    return count;
}

static void killed_at_any_moment(SaveVMSnapshotFormat format)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    char place[] = "/tmp/savevm-durable-XXXXXX", uri[80];
    uint32_t number = 1, before = 1;
    int left_over = 0, kills = 60 / harness_slow() + 5;

    options.format = format;
    REQUIRE(mkdtemp(place) != NULL);
    snprintf(uri, sizeof(uri), "file:%s/snapshot", place);
    begin();
    fill(number);
    REQUIRE(savevm_snapshot_save(vm, uri, &options, NULL) == 0);
    srand(getpid());
    for (int kill_number = 0; kill_number < kills; kill_number++) {
        struct timespec nap = { .tv_nsec = rand() % 40000000 };
        pid_t child = fork();

        REQUIRE(child >= 0);
        if (child == 0) {
            for (;;) {
                fill(++number);
                if (savevm_snapshot_save(vm, uri, &options, NULL) < 0) {
                    _exit(1);
                }
            }
        }
        nanosleep(&nap, NULL);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        number = load(uri);
        CHECK(number >= before);
        before = number;
        left_over += files(place, "snapshot") - 1;
    }
    /* A file has a name of its own only for the moment before it is renamed. */
    CHECK(left_over <= kills / 4);
    CHECK(number > 1);
    end();
    files(place, "");
    rmdir(place);
}

TEST(stream_killed_at_any_moment)
{
    killed_at_any_moment(SAVEVM_SNAPSHOT_STREAM);
}

TEST(mapped_killed_at_any_moment)
{
    killed_at_any_moment(SAVEVM_SNAPSHOT_MAPPED);
}

static void full_disk(SaveVMSnapshotFormat format)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    char place[] = "/tmp/savevm-durable-XXXXXX", uri[80];
    Error *err = NULL;

    options.format = format;
    REQUIRE(mkdtemp(place) != NULL);
    if (mount("tmpfs", place, "tmpfs", 0, "size=3m") < 0) {
        rmdir(place);
        harness_skip("no file system can be mounted here");
    }
    snprintf(uri, sizeof(uri), "file:%s/snapshot", place);
    begin();
    fill(7);
    CHECK_EQ(savevm_snapshot_save(vm, uri, &options, NULL), 0);
    fill(8);
    CHECK_EQ(savevm_snapshot_save(vm, uri, &options, &err), -ENOSPC);
    CHECK_HAS(error_get_pretty(err), uri);
    CHECK_HAS(error_get_pretty(err), "No space left on device");
    CHECK_HAS(error_get_pretty(err), "KiB were written");
    error_free(err);
    CHECK_EQ(files(place, "snapshot"), 1);
    CHECK_EQ(load(uri), 7);
    err = NULL;
    fill(9);
    if (savevm_ram_snapshot(ram, uri, &err) < 0 && savevm_error_info(err)->error == ENOSPC) {
        CHECK_HAS(error_get_pretty(err), "KiB were written");
    }
    error_free(err);
    CHECK_EQ(files(place, "snapshot"), 1);
    CHECK_EQ(load(uri), 7);
    end();
    umount(place);
    rmdir(place);
}

TEST(a_full_disk_keeps_the_last_good_stream)
{
    full_disk(SAVEVM_SNAPSHOT_STREAM);
}

TEST(a_full_disk_keeps_the_last_good_mapped_file)
{
    full_disk(SAVEVM_SNAPSHOT_MAPPED);
}
