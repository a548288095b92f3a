/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A snapshot file is replaced only by a whole one: killed at any moment and on a full disk, the last good one loads, and so does
 * each snapshot of a chain. */
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
#include <sys/stat.h>
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

/* Loads a snapshot into memory that was cleared; whether that worked. */
static bool loads(const char *uri, const SaveVMSnapshotOptions *options)
{
    Error *err = NULL;

    memset(memory, 0, LENGTH);
    if (!CHECK_EQ(savevm_snapshot_load(vm, uri, options, &err), 0)) {
        fprintf(stderr, "%s: %s\n", uri, error_get_pretty(err));
        error_free(err);
        return false;
    }
    return true;
}

/* Loads it; the number, or 0 if the memory is not that of one snapshot. */
static uint32_t load_with(const char *uri, const SaveVMSnapshotOptions *options)
{
    uint32_t number;

    if (!loads(uri, options)) {
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

/* Kills a process after a random time of less than `most_ns`. */
static void kill_soon(pid_t child, long most_ns)
{
    struct timespec nap = { .tv_nsec = rand() % most_ns };

    nanosleep(&nap, NULL);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static ino_t inode_of(const char *path)
{
    struct stat data;

    REQUIRE(stat(path, &data) == 0);
    return data.st_ino;
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
    ino_t first = inode_of(uri + strlen("file:"));
    srand(getpid());
    for (int kill_number = 0; kill_number < kills; kill_number++) {
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
        /* The first kill comes after a snapshot, however slow the machine is. The deadline is that of one kill. */
        alarm(HARNESS_DEADLINE * harness_slow());
        WAIT_FOR(kill_number > 0 || inode_of(uri + strlen("file:")) != first);
        kill_soon(child, 40000000);
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
    harness_own_mounts();
    REQUIRE(mkdtemp(place) != NULL);
    harness_mount_memory(place, "size=3m");
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

/* Chains: snapshot 1 is whole, each further one has what changed since the one before. Snapshot K writes K to page K. */

#define PAGE 4096
#define LINKS 40
#define BASE 7

static int save_link(const char *place, uint32_t number, SaveVMSnapshotFormat format, Error **err)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    char uri[80], parent[80] = "";

    snprintf(uri, sizeof(uri), "file:%s/%u", place, number);
    if (number > 1) {
        snprintf(parent, sizeof(parent), "file:%s/%u", place, number - 1);
    }
    options.format = format;
    options.parent = parent;
    *(uint32_t *)(memory + number * PAGE) = number;
    return savevm_snapshot_save(vm, uri, &options, err);
}

static void check_link(const char *place, uint32_t number, bool lazily)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    char uri[80];

    snprintf(uri, sizeof(uri), "file:%s/%u", place, number);
    options.lazy = lazily;
    if (!loads(uri, &options)) {
        return;
    }
    for (uint32_t at = 0; at < LENGTH / sizeof(uint32_t); at++) {
        uint32_t page = at * sizeof(uint32_t) / PAGE;
        bool is_number = at * sizeof(uint32_t) % PAGE == 0 && page >= 1 && page <= number;

        if (!CHECK_EQ(((uint32_t *)memory)[at], is_number ? page : BASE)) {
            break;
        }
    }
    CHECK_EQ(savevm_restore_wait(vm, NULL), 0);
}

static bool link_exists(const char *place, uint32_t number)
{
    char path[80];

    snprintf(path, sizeof(path), "%s/%u", place, number);
    return access(path, F_OK) == 0;
}

/* The last snapshot of a chain, or 0; with `remove`, the files of all are removed. */
static uint32_t last_link(const char *place, bool remove)
{
    uint32_t last = 0;
    char path[80];

    for (uint32_t number = 1; number <= LINKS; number++) {
        if (!link_exists(place, number)) {
            continue;
        }
        CHECK_EQ(last, number - 1);
        last = number;
        if (remove) {
            snprintf(path, sizeof(path), "%s/%u", place, number);
            unlink(path);
        }
    }
    return last;
}

/* Skips the case where a chain cannot be saved. */
static void need_chains(const char *place)
{
    Error *err = NULL;

    begin();
    if (save_link(place, 1, SAVEVM_SNAPSHOT_STREAM, &err) < 0) {
        rmdir(place);
        harness_skip(error_get_pretty(err));
    }
    last_link(place, true);
    end();
}

static void chain_killed_at_any_moment(SaveVMSnapshotFormat format)
{
    char place[] = "/tmp/savevm-durable-XXXXXX";
    int kills = 30 / harness_slow() + 3, left_over = 0;
    uint32_t longest = 0;

    REQUIRE(mkdtemp(place) != NULL);
    need_chains(place);
    srand(getpid());
    for (int kill_number = 0; kill_number < kills; kill_number++) {
        pid_t child = fork();

        REQUIRE(child >= 0);
        if (child == 0) {
            begin();
            fill(BASE);
            for (uint32_t number = 1; number <= LINKS; number++) {
                if (save_link(place, number, format, NULL) < 0) {
                    _exit(1);
                }
            }
            pause();
        }
        /* At least one kill comes after some snapshots, however slow the machine is. The deadline is that of one kill. */
        alarm(HARNESS_DEADLINE * harness_slow());
        WAIT_FOR(kill_number > 0 || link_exists(place, 3));
        kill_soon(child, 80000000);

        uint32_t last = last_link(place, false);
        longest = last > longest ? last : longest;
        begin();
        bool lazily = savevm_ram_check_postcopy(ram, NULL) == 0;
        for (uint32_t number = last; number >= 1 && number + 2 > last; number--) {
            check_link(place, number, false);
            check_link(place, number, lazily);
        }
        end();
        last_link(place, true);
        left_over += files(place, "");
    }
    CHECK(left_over <= kills);
    CHECK(longest > 2);
    rmdir(place);
}

TEST(chain_of_streams_killed_at_any_moment)
{
    chain_killed_at_any_moment(SAVEVM_SNAPSHOT_STREAM);
}

TEST(chain_of_mapped_files_killed_at_any_moment)
{
    chain_killed_at_any_moment(SAVEVM_SNAPSHOT_MAPPED);
}

/* A mounted file can't be replaced: it is written in place. A snapshot of a chain is not, because a failure would destroy the
 * file. */
TEST(mounted_file_is_written_in_place_but_not_by_a_chain)
{
    char place[] = "/tmp/savevm-durable-XXXXXX", path[80], uri[90], content[8] = "";
    Error *err = NULL;

    harness_own_mounts();
    REQUIRE(mkdtemp(place) != NULL);
    need_chains(place);
    snprintf(path, sizeof(path), "%s/1", place);
    FILE *file = fopen(path, "w");
    REQUIRE(file && fputs("old", file) >= 0 && fclose(file) == 0);
    if (mount(path, path, "none", MS_BIND, NULL) < 0) {
        files(place, "");
        rmdir(place);
        harness_skip("no file can be mounted here");
    }
    begin();
    fill(BASE);
    CHECK_EQ(save_link(place, 1, SAVEVM_SNAPSHOT_STREAM, &err), -ENOTSUP);
    CHECK_HAS(err ? error_get_pretty(err) : "", "is not written in place: it is a mount point");
    error_free(err);
    err = NULL;
    end();
    file = fopen(path, "r");
    CHECK(file && fgets(content, sizeof(content), file) && strcmp(content, "old") == 0);
    fclose(file);
    snprintf(uri, sizeof(uri), "file:%s", path);
    begin();
    fill(7);
    CHECK_EQ(savevm_snapshot_save(vm, uri, NULL, &err), 0);
    CHECK_EQ(load(uri), 7);
    end();
    umount(path);
    files(place, "");
    rmdir(place);
}

/* Fills the file system, so that nothing else fits. */
static void fill_disk(const char *path)
{
    FILE *file = fopen(path, "w");
    static const uint8_t bytes[512];

    REQUIRE(file != NULL);
    setvbuf(file, NULL, _IONBF, 0);
    while (fwrite(bytes, sizeof(bytes), 1, file) == 1) {
    }
    fclose(file);
}

static void chain_on_a_full_disk(SaveVMSnapshotFormat format)
{
    char place[] = "/tmp/savevm-durable-XXXXXX", filler[80];
    Error *err = NULL;

    harness_own_mounts();
    REQUIRE(mkdtemp(place) != NULL);
    need_chains(place);
    harness_mount_memory(place, "size=6m");
    snprintf(filler, sizeof(filler), "%s/filler", place);
    begin();
    fill(BASE);
    CHECK_EQ(save_link(place, 1, format, NULL), 0);
    CHECK_EQ(save_link(place, 2, format, NULL), 0);
    fill_disk(filler);
    CHECK_EQ(save_link(place, 3, format, &err), -ENOSPC);
    CHECK_HAS(err ? error_get_pretty(err) : "", "No space left on device");
    error_free(err);
    CHECK_EQ(last_link(place, false), 2);
    unlink(filler);

    /* What the failed snapshot would have had is in the next one. */
    CHECK_EQ(save_link(place, 3, format, NULL), 0);
    for (uint32_t number = 1; number <= 3; number++) {
        check_link(place, number, false);
    }
    last_link(place, true);
    CHECK_EQ(files(place, ""), 0);
    end();
    umount(place);
    rmdir(place);
}

TEST(a_full_disk_keeps_a_chain_of_streams)
{
    chain_on_a_full_disk(SAVEVM_SNAPSHOT_STREAM);
}

TEST(a_full_disk_keeps_a_chain_of_mapped_files)
{
    chain_on_a_full_disk(SAVEVM_SNAPSHOT_MAPPED);
}
