/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lazy restores under a guest that checks its own memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "savevm.h"
#include "snapshots.h"

#define MB (1 << 20)
#define SIZE (48 * MB)

static char path[64], uri[80];

static SaveVMSnapshotOptions options_of(SaveVMSnapshotFormat format)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    options.format = format;
    options.threads = 2;
    return options;
}

static SaveVMSnapshotOptions lazy(void)
{
    SaveVMSnapshotOptions options = options_of(SAVEVM_SNAPSHOT_STREAM);
    options.lazy = true;
    return options;
}

static void save(Guest *guest, SaveVMSnapshotFormat format)
{
    SaveVMSnapshotOptions options = options_of(format);
    Error *err = NULL;
    snprintf(path, sizeof(path), "/tmp/savevm-lazy-%d", (int)getpid());
    snprintf(uri, sizeof(uri), "file:%s", path);
    int ret = savevm_snapshot_save(guest->vm, uri, &options, &err);
    good(ret, err);
}

static void load(Guest *guest, const char *index)
{
    SaveVMSnapshotOptions options = lazy();
    Error *err = NULL;
    options.index = index;
    int ret = savevm_snapshot_load(guest->vm, uri, &options, &err);
    good(ret, err);
}

static void wait_for(Guest *guest)
{
    Error *err = NULL;
    int ret = savevm_restore_wait(guest->vm, &err);
    good(ret, err);
}

/* A guest works on memory that arrives meanwhile, in a new machine and then in the same one again. The first restore may write an
 * index, which the others use. */
static void restore_with(Memory kind, SaveVMSnapshotFormat format, const char *index)
{
    Guest *from = lazy_guest(kind, SIZE), *to = lazy_guest(kind, SIZE);
    guest_fill(from);
    run_on(from, 5000);
    guest_stop(from);
    save(from, format);
    for (int time = 0; time < 3; time++) {
        load(to, index);
        run_on(to, 2000);
        SaveVMRestoreInfo info = SAVEVM_RESTORE_INFO_INIT;
        wait_for(to);
        CHECK_EQ(savevm_restore_query(to->vm, &info), 0);
        CHECK(!info.active && info.loaded_bytes == info.total_bytes && info.total_bytes >= SIZE / 2);
        run_on(to, 1000);
        guest_stop(to);
        CHECK(guest_whole(to));
        CHECK(!index || access(index, F_OK) == 0);
    }
    unlink(path);
    guest_free(from);
    guest_free(to);
}

static void restore(Memory kind, SaveVMSnapshotFormat format)
{
    restore_with(kind, format, NULL);
}

static void restore_with_index(Memory kind)
{
    char index[80];

    snprintf(index, sizeof(index), "/tmp/savevm-lazy-%d.index", (int)getpid());
    unlink(index);
    restore_with(kind, SAVEVM_SNAPSHOT_STREAM, index);
    unlink(index);
}

TEST(mapped_into_private_memory)
{
    restore(MEMORY_PRIVATE, SAVEVM_SNAPSHOT_MAPPED);
}

TEST(mapped_into_shared_memory)
{
    restore(MEMORY_SHARED, SAVEVM_SNAPSHOT_MAPPED);
}

TEST(mapped_into_huge_pages)
{
    restore(MEMORY_HUGE, SAVEVM_SNAPSHOT_MAPPED);
}

TEST(stream_into_private_memory)
{
    restore(MEMORY_PRIVATE, SAVEVM_SNAPSHOT_STREAM);
}

TEST(stream_into_shared_memory)
{
    restore(MEMORY_SHARED, SAVEVM_SNAPSHOT_STREAM);
}

TEST(stream_into_huge_pages)
{
    restore(MEMORY_HUGE, SAVEVM_SNAPSHOT_STREAM);
}

TEST(stream_with_index_into_private_memory)
{
    restore_with_index(MEMORY_PRIVATE);
}

TEST(stream_with_index_into_shared_memory)
{
    restore_with_index(MEMORY_SHARED);
}

TEST(stream_with_index_into_huge_pages)
{
    restore_with_index(MEMORY_HUGE);
}

/* Saves, loads (lazily or not) and runs in random order. A load may replace a restore in progress. */
TEST(random_sequences)
{
    Guest *guest = lazy_guest(MEMORY_PRIVATE, 12 * MB);
    Error *err = NULL;
    int rounds = 300 / (int)harness_slow();

    srand((unsigned)getpid());
    guest_fill(guest);
    run_on(guest, 100);
    save(guest, SAVEVM_SNAPSHOT_MAPPED);
    for (int round = 0; round < rounds; round++) {
        SaveVMSnapshotOptions options = lazy();
        switch (rand() % 5) {
        case 0:
            wait_for(guest);
            save(guest, rand() % 2 ? SAVEVM_SNAPSHOT_MAPPED : SAVEVM_SNAPSHOT_STREAM);
            break;
        case 1:
            run_on(guest, (uint64_t)(rand() % 500));
            break;
        case 2:
            guest_stop(guest);
            CHECK(guest_whole(guest));
            guest_start(guest);
            break;
        default:
            options.lazy = rand() % 4 != 0;
            int ret = savevm_snapshot_load(guest->vm, uri, &options, &err);
            good(ret, err);
        }
        if (atomic_load(&guest->broken)) {
            fprintf(stderr, "broken after %d rounds\n", round);
            break;
        }
    }
    wait_for(guest);
    guest_stop(guest);
    CHECK(guest_whole(guest));
    unlink(path);
    guest_free(guest);
}

/* The file is cut, or a byte before the first page or place is changed. Either is refused, or changes nothing. The format has
 * no checksums: a changed byte in a page or a bitmap can't be found. */
TEST(damaged_files_never_give_wrong_memory)
{
    enum { LENGTH = 4 * MB, STREAM_HEAD = 70, MAPPED_HEAD = 0x70 };
    Guest *from = lazy_guest(MEMORY_PRIVATE, LENGTH), *to = lazy_guest(MEMORY_PRIVATE, LENGTH);
    SaveVMSnapshotOptions options = lazy();
    int rounds = 200 / (int)harness_slow(), refused = 0;
    struct stat data;

    guest_fill(from);
    run_on(from, 3000);
    guest_stop(from);
    srand((unsigned)getpid());
    for (int round = 0; round < rounds; round++) {
        Error *err = NULL;
        bool mapped = round % 2;
        save(from, mapped ? SAVEVM_SNAPSHOT_MAPPED : SAVEVM_SNAPSHOT_STREAM);
        REQUIRE(stat(path, &data) == 0);
        off_t at = rand() % (round % 4 < 2 ? data.st_size : mapped ? MAPPED_HEAD : STREAM_HEAD);
        FILE *file = fopen(path, "r+");
        REQUIRE(file != NULL);
        if (round % 4 < 2) {
            REQUIRE(ftruncate(fileno(file), at) == 0);
        } else {
            fseek(file, at, SEEK_SET);
            int byte = fgetc(file);
            fseek(file, at, SEEK_SET);
            fputc(byte ^ 1 << rand() % 8, file);
        }
        fclose(file);
        memset(to->memory, 0x5a, LENGTH);
        int ret = savevm_snapshot_load(to->vm, uri, &options, &err);
        if (ret == 0) {
            ret = savevm_restore_wait(to->vm, &err);
        }
        refused += ret != 0;
        if (ret == 0 && !CHECK(memcmp(from->memory, to->memory, LENGTH) == 0)) {
            fprintf(stderr, "%s at %jd\n", round % 4 < 2 ? "cut" : "changed", (intmax_t)at);
        }
        error_free(err);
    }
    CHECK(refused > rounds / 2);
    unlink(path);
    guest_free(from);
    guest_free(to);
}

TEST(freed_while_pages_are_read)
{
    Guest *from = lazy_guest(MEMORY_PRIVATE, SIZE);
    guest_fill(from);
    save(from, SAVEVM_SNAPSHOT_MAPPED);
    guest_free(from);
    for (int round = 0; round < 20; round++) {
        Guest *to = lazy_guest(MEMORY_PRIVATE, SIZE);
        SaveVMSnapshotOptions options = lazy();
        char set[80];
        Error *err = NULL;

        /* While the working set is recorded, the restore lasts for a second at least. */
        snprintf(set, sizeof(set), "%s.set", path);
        options.working_set = round % 2 ? set : NULL;
        int ret = savevm_snapshot_load(to->vm, uri, &options, &err);
        good(ret, err);
        run_on(to, 50);
        guest_stop(to);
        CHECK(!atomic_load(&to->broken));
        guest_free(to);
        CHECK(access(set, F_OK) != 0);
    }
    unlink(path);
}

/* userfaultfd does not handle a private mapping of a file. The error says what to use instead, and the machine is as before. */
TEST(memory_of_a_kind_that_is_not_handled_is_refused)
{
    enum { LENGTH = 4 * MB };
    Guest *guest = lazy_guest(MEMORY_PRIVATE, LENGTH);
    SaveVMSnapshotOptions options = lazy();
    SaveVMRamOptions ram_options = SAVEVM_RAM_OPTIONS_INIT;
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    FILE *file = tmpfile();
    Error *err = NULL;

    save(guest, SAVEVM_SNAPSHOT_MAPPED);
    REQUIRE(file && ftruncate(fileno(file), LENGTH) == 0);
    SaveVM *vm = savevm_new(NULL, NULL);
    ram_options.log = SAVEVM_RAM_LOG_MARKS;
    SaveVMRam *ram = savevm_ram_new(vm, &ram_options, NULL, NULL, &err);
    block.name = "ram";
    block.length = LENGTH;
    block.host = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE, fileno(file), 0);
    REQUIRE(ram && block.host != MAP_FAILED && savevm_ram_add_block(ram, &block, &err) == 0);
    memset(block.host, 0x33, LENGTH);
    for (int round = 0; round < 3; round++) {
        SaveVMSnapshotOptions save_options = options_of(SAVEVM_SNAPSHOT_STREAM);
        save_options.background = round == 1;
        save_options.parent = round == 2 ? "" : NULL;
        int ret = round == 0 ? savevm_snapshot_load(vm, uri, &options, &err) : savevm_snapshot_save(vm, uri, &save_options, &err);
        CHECK_EQ(ret, -EINVAL);
        CHECK_HAS(err ? error_get_pretty(err) : "", "the memory of block 'ram' is of a kind that userfaultfd does not handle");
        CHECK_HAS(err ? error_get_pretty(err) : "", "use anonymous memory");
        error_free(err);
        err = NULL;
        CHECK(*(uint8_t *)block.host == 0x33 && savevm_owner(vm) == SAVEVM_OWNER_HERE);
    }
    savevm_ram_free(ram);
    savevm_free(vm);
    munmap(block.host, LENGTH);
    fclose(file);
    unlink(path);
    guest_free(guest);
}

/* Without the right to use userfaultfd: the reason, and the machine is as before. The eager load works. */
TEST(not_permitted)
{
    Guest *guest = lazy_guest(MEMORY_PRIVATE, 4 * MB);
    guest_fill(guest);
    run_on(guest, 100);
    guest_stop(guest);
    save(guest, SAVEVM_SNAPSHOT_MAPPED);
    guest_free(guest);
    chmod(path, 0644);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        SaveVMRamOptions ram_options = SAVEVM_RAM_OPTIONS_INIT;
        SaveVMSnapshotOptions options = lazy();
        Error *err = NULL;
        if (setgid(65534) != 0 || setuid(65534) != 0) {
            _exit(77);
        }
        ram_options.log = SAVEVM_RAM_LOG_MARKS;
        Guest *other = guest_new(MEMORY_PRIVATE, 4 * MB, &ram_options);
        if (savevm_ram_check_postcopy(other->ram, NULL) == 0) {
            _exit(77);
        }
        memset(other->memory, 0x33, 4 * MB);
        int ret = savevm_snapshot_load(other->vm, uri, &options, &err);
        bool told = ret == -EPERM && strstr(error_get_pretty(err), "this program may not use userfaultfd");
        bool kept = other->memory[0] == 0x33 && savevm_owner(other->vm) == SAVEVM_OWNER_HERE;
        error_free(err);
        options.lazy = false;
        bool loaded = savevm_snapshot_load(other->vm, uri, &options, NULL) == 0 && guest_whole(other);
        _exit(told && kept && loaded ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    unlink(path);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        harness_skip("every user may use userfaultfd here, or this one can't become another");
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
