/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* RAM between two machines of one process, over a unix socket, while its guest works. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"
#include "harness.h"
#include "savevm.h"
#include "savevm/ram.h"

#define MB (1 << 20)
#define SIZE (48 * MB)

static char uri[64];

static const char *new_uri(void)
{
    static int number;
    snprintf(uri, sizeof(uri), "unix:/tmp/savevm-ram-%d-%d", (int)getpid(), number++);
    return uri;
}

typedef struct Pair {
    Guest *from, *to;
    SaveVMParams params;
    SaveVMMigration *in;
    SaveVMMigration *out;
} Pair;

static void begin(Pair *pair)
{
    Error *err = NULL;
    pair->params.size = sizeof(pair->params);
    pair->in = savevm_incoming(pair->to->vm, new_uri(), &pair->params, &err);
    REQUIRE(pair->in != NULL);
    pair->out = savevm_migrate(pair->from->vm, uri, &pair->params, &err);
    REQUIRE(pair->out != NULL);
}

/* Waits for a good end on both sides. */
static void finish(Pair *pair)
{
    Error *err = NULL;
    CHECK_EQ(savevm_migration_wait(pair->out, &err), 0);
    CHECK_STR(err ? error_get_pretty(err) : "", "");
    err = NULL;
    CHECK_EQ(savevm_migration_wait(pair->in, &err), 0);
    CHECK_STR(err ? error_get_pretty(err) : "", "");
    savevm_migration_free(pair->out);
    savevm_migration_free(pair->in);
    unlink(uri + strlen("unix:"));
}

/* The guest went over, and works there. */
static void check_moved(Pair *pair)
{
    uint64_t there = atomic_load(&pair->to->steps);
    uint64_t here = atomic_load(&pair->from->steps);
    WAIT_FOR(atomic_load(&pair->to->steps) > there + 100);
    CHECK_EQ(atomic_load(&pair->from->steps), here);
    guest_stop(pair->to);
    CHECK(guest_whole(pair->to));
    CHECK(!atomic_load(&pair->from->broken));
}

static void release(Pair *pair)
{
    guest_free(pair->from);
    guest_free(pair->to);
}

static Pair pair_new(Memory kind, const SaveVMRamOptions *options)
{
    Pair pair = { guest_new(kind, SIZE, options), guest_new(kind, SIZE, options), { 0 }, NULL, NULL };
    if (!pair.from || !pair.to) {
        harness_skip("there is no such memory");
    }
    Error *err = NULL;
    if (kind == MEMORY_HUGE && savevm_ram_check_postcopy(pair.to->ram, &err) != 0) {
        harness_skip(error_get_pretty(err));
    }
    guest_fill(pair.from);
    guest_start(pair.from);
    return pair;
}

static void precopy(Memory kind, SaveVMRamLog log, uint64_t xbzrle_cache)
{
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    options.log = log;
    options.xbzrle_cache = xbzrle_cache;
    Pair pair = pair_new(kind, &options);
    pair.from->pause_us = 20;
    pair.to->pause_us = 20;
    memset(pair.to->memory, 0xee, pair.to->length);
    begin(&pair);
    finish(&pair);
    check_moved(&pair);
    SaveVMRamInfo info = SAVEVM_RAM_INFO_INIT;
    CHECK_EQ(savevm_ram_query(pair.from->ram, &info), 0);
    CHECK(info.normal_pages >= SIZE / GUEST_PAGE / 2 && info.zero_pages > SIZE / GUEST_PAGE / 4);
    CHECK(info.syncs >= 2);
    release(&pair);
}

/* False where the kernel has no dirty log. */
static bool kernel_logs(void)
{
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    options.log = SAVEVM_RAM_LOG_KERNEL;
    Guest *guest = guest_new(MEMORY_PRIVATE, MB, &options);
    Error *err = NULL;
    int ret = savevm_snapshot_save(guest->vm, "file:/dev/null", NULL, &err);
    if (ret != 0) {
        fprintf(stderr, "%s\n", error_get_pretty(err));
    }
    guest_free(guest);
    return ret == 0;
}

TEST(precopy_with_the_kernels_log)
{
    if (!kernel_logs()) {
        harness_skip("the kernel does not log dirty pages");
    }
    precopy(MEMORY_PRIVATE, SAVEVM_RAM_LOG_KERNEL, 0);
}

TEST(precopy_of_shared_memory_with_the_kernels_log)
{
    if (!kernel_logs()) {
        harness_skip("the kernel does not log dirty pages");
    }
    precopy(MEMORY_SHARED, SAVEVM_RAM_LOG_KERNEL, 0);
}

TEST(precopy_with_the_hosts_log)
{
    precopy(MEMORY_PRIVATE, SAVEVM_RAM_LOG_HOST, 0);
}

TEST(precopy_with_marks)
{
    precopy(MEMORY_PRIVATE, SAVEVM_RAM_LOG_MARKS, 0);
}

TEST(precopy_with_differences)
{
    precopy(MEMORY_PRIVATE, SAVEVM_RAM_LOG_HOST, 64 * MB);
}

/* Until the guest runs at the destination, with most of its memory missing, which follows slowly. */
static void to_postcopy(Pair *pair)
{
    Error *err = NULL;
    if (savevm_ram_check_postcopy(pair->to->ram, &err) != 0) {
        harness_skip(error_get_pretty(err));
    }
    pair->params.postcopy = true;
    pair->params.max_bandwidth = 40 * MB;
    pair->params.max_postcopy_bandwidth = MB;
    pair->params.downtime_limit_ms = 1;
    begin(pair);
    CHECK_EQ(savevm_migration_start_postcopy(pair->out), 0);
    WAIT_FOR(atomic_load(&pair->to->steps) > 0);
}

static SaveVMStatus status_of(SaveVMMigration *migration)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;

    CHECK_EQ(savevm_migration_query(migration, &info), 0);
    return info.status;
}

/* The rest of the memory follows as fast as it can. */
static void speed_up(Pair *pair)
{
    pair->params.max_postcopy_bandwidth = 0;
    CHECK_EQ(savevm_migration_set_params(pair->out, &pair->params, NULL), 0);
}

static void postcopy(Memory kind)
{
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    options.log = SAVEVM_RAM_LOG_HOST;
    Pair pair = pair_new(kind, &options);
    pair.to->pause_us = 50;
    to_postcopy(&pair);
    SaveVMRamInfo info = SAVEVM_RAM_INFO_INIT;
    /* Of huge pages there are few. */
    WAIT_FOR(savevm_ram_query(pair.to->ram, &info) == 0 && info.page_requests > (kind == MEMORY_HUGE ? 0 : 10));
    speed_up(&pair);
    finish(&pair);
    check_moved(&pair);
    CHECK_EQ(savevm_ram_query(pair.to->ram, &info), 0);
    fprintf(stderr, "%ju requests, longest step %ju us\n", (uintmax_t)info.page_requests,
            (uintmax_t)atomic_load(&pair.to->longest_ns) / 1000);
    release(&pair);
}

TEST(postcopy)
{
    postcopy(MEMORY_PRIVATE);
}

TEST(postcopy_of_shared_memory)
{
    postcopy(MEMORY_SHARED);
}

TEST(postcopy_of_huge_pages)
{
    postcopy(MEMORY_HUGE);
}

static void recover(Memory kind)
{
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    options.log = SAVEVM_RAM_LOG_HOST;
    Pair pair = pair_new(kind, &options);
    Error *err = NULL;

    /* Huge pages are few, and each that is asked for comes at once: the guest takes its time, or all are there. */
    pair.to->pause_us = kind == MEMORY_HUGE ? 20000 : 0;
    to_postcopy(&pair);
    WAIT_FOR(atomic_load(&pair.to->steps) > (kind == MEMORY_HUGE ? 0 : 20));
    /* The guest may run before the source has moved on. */
    WAIT_FOR(status_of(pair.out) == SAVEVM_STATUS_POSTCOPY_ACTIVE);
    CHECK_EQ(savevm_migration_pause(pair.out), 0);
    WAIT_FOR(status_of(pair.out) == SAVEVM_STATUS_POSTCOPY_PAUSED);
    WAIT_FOR(status_of(pair.in) == SAVEVM_STATUS_POSTCOPY_PAUSED);
    speed_up(&pair);
    unlink(uri + strlen("unix:"));
    CHECK_EQ(savevm_migration_recover(pair.in, new_uri(), &err), 0);
    CHECK_EQ(savevm_migration_recover(pair.out, uri, &err), 0);
    CHECK_STR(err ? error_get_pretty(err) : "", "");
    finish(&pair);
    check_moved(&pair);
    release(&pair);
}

TEST(postcopy_that_breaks_goes_on)
{
    recover(MEMORY_PRIVATE);
}

TEST(postcopy_of_huge_pages_that_breaks_goes_on)
{
    recover(MEMORY_HUGE);
}

/* Both sides report the cause, and the guest stays. */
static void check_refused(Pair *pair, const char *part)
{
    Error *err = NULL;
    begin(pair);
    CHECK(savevm_migration_wait(pair->in, &err) < 0);
    CHECK_HAS(error_get_pretty(err), part);
    error_free(err);
    err = NULL;
    CHECK(savevm_migration_wait(pair->out, &err) < 0);
    CHECK_HAS(error_get_pretty(err), part);
    error_free(err);
    savevm_migration_free(pair->out);
    savevm_migration_free(pair->in);
    uint64_t steps = atomic_load(&pair->from->steps);
    WAIT_FOR(atomic_load(&pair->from->steps) > steps);
    unlink(uri + strlen("unix:"));
}

/* The guest works on; the file has it as it was at one moment, and it lives on from there. */
static void snapshot(Memory kind)
{
    Pair pair = pair_new(kind, NULL);
    Error *err = NULL;
    char path[64], file[80];
    snprintf(path, sizeof(path), "/tmp/savevm-ram-%d.snapshot", (int)getpid());
    snprintf(file, sizeof(file), "file:%s", path);

    WAIT_FOR(atomic_load(&pair.from->steps) > 1000);
    uint64_t before = atomic_load(&pair.from->steps);
    atomic_store(&pair.from->longest_ns, 0);
    int ret = savevm_ram_snapshot(pair.from->ram, file, &err);
    if (ret == -ENOTSUP || ret == -EINVAL || ret == -EPERM) {
        harness_skip(error_get_pretty(err));
    }
    CHECK_EQ(ret, 0);
    CHECK_STR(err ? error_get_pretty(err) : "", "");
    uint64_t meanwhile = atomic_load(&pair.from->steps) - before;
    CHECK(meanwhile > 100);
    WAIT_FOR(atomic_load(&pair.from->steps) > before + meanwhile + 100);
    fprintf(stderr, "%ju steps meanwhile, the longest of %ju us\n", (uintmax_t)meanwhile,
            (uintmax_t)atomic_load(&pair.from->longest_ns) / 1000);
    CHECK_EQ(savevm_snapshot_load(pair.to->vm, file, NULL, &err), 0);
    CHECK_STR(err ? error_get_pretty(err) : "", "");
    guest_stop(pair.from);
    CHECK(guest_whole(pair.from));
    CHECK(guest_whole(pair.to));
    guest_start(pair.to);
    WAIT_FOR(atomic_load(&pair.to->steps) > 100);
    guest_stop(pair.to);
    CHECK(guest_whole(pair.to));
    unlink(path);
    release(&pair);
}

TEST(a_snapshot_of_a_running_guest)
{
    snapshot(MEMORY_PRIVATE);
}

TEST(a_snapshot_of_a_running_guest_in_shared_memory)
{
    snapshot(MEMORY_SHARED);
}

TEST(a_snapshot_of_a_running_guest_in_huge_pages)
{
    snapshot(MEMORY_HUGE);
}

TEST(a_snapshot_that_fails_lets_the_guest_run)
{
    Pair pair = pair_new(MEMORY_PRIVATE, NULL);
    Error *err = NULL;
    CHECK(savevm_ram_snapshot(pair.from->ram, "file:/dev/full", &err) < 0);
    CHECK(err != NULL);
    error_free(err);
    CHECK(savevm_ram_snapshot(pair.from->ram, "nonsense", NULL) < 0);
    CHECK(savevm_ram_snapshot(NULL, "file:/dev/null", NULL) < 0);
    uint64_t steps = atomic_load(&pair.from->steps);
    WAIT_FOR(atomic_load(&pair.from->steps) > steps + 100);
    guest_stop(pair.from);
    CHECK(guest_whole(pair.from));
    release(&pair);
}

TEST(a_snapshot_of_another_machine_is_refused_while_the_guest_runs)
{
    Pair pair = pair_new(MEMORY_PRIVATE, NULL);
    Guest *other = guest_new(MEMORY_PRIVATE, SIZE / 2, NULL);
    Error *err = NULL;
    char path[64], file[80];
    snprintf(path, sizeof(path), "/tmp/savevm-ram-%d.other", (int)getpid());
    snprintf(file, sizeof(file), "file:%s", path);

    CHECK_EQ(savevm_snapshot_save(other->vm, file, NULL, &err), 0);
    CHECK(savevm_snapshot_load(pair.from->vm, file, NULL, &err) < 0);
    CHECK_HAS(error_get_pretty(err), "there is no RAM block 'pc.ram' that can have 24 MiB (0x1800000 bytes)");
    error_free(err);
    err = NULL;
    uint64_t steps = atomic_load(&pair.from->steps);
    WAIT_FOR(atomic_load(&pair.from->steps) > steps);
    CHECK_EQ(truncate(path, 1000), 0);
    CHECK(savevm_snapshot_load(other->vm, file, NULL, &err) < 0);
    CHECK_HAS(error_get_pretty(err), "cut off at offset 0x3e8 (1000), in the part section 0 of 'ram'");
    error_free(err);
    guest_free(other);
    guest_stop(pair.from);
    release(&pair);
    unlink(path);
}

TEST(machines_that_differ_are_refused)
{
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    options.log = SAVEVM_RAM_LOG_HOST;
    Pair pair = pair_new(MEMORY_PRIVATE, &options);
    uint8_t *more = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    block.name = "vga";
    block.host = more;
    block.length = 8192;

    CHECK_EQ(savevm_ram_add_block(pair.to->ram, &block, NULL), 0);
    check_refused(&pair, "RAM block vga: the stream does not have it");
    block.length = 4096;
    /* Only the host's log of this test minds a second block. */
    pair.from->log = false;
    Guest *other = guest_new(MEMORY_PRIVATE, SIZE / 2, &options);
    CHECK_EQ(savevm_ram_remove_block(pair.to->ram, "vga", NULL), 0);
    Guest *large = pair.to;
    pair.to = other;
    check_refused(&pair, "RAM block pc.ram: 48 MiB (0x3000000 bytes), the machine's has 24 MiB (0x1800000 bytes)");
    guest_free(large);
    guest_stop(pair.from);
    release(&pair);
    munmap(more, 8192);
}

TEST(blocks_are_checked_and_stay_during_a_migration)
{
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    options.log = SAVEVM_RAM_LOG_HOST;
    Pair pair = pair_new(MEMORY_PRIVATE, &options);
    Error *err = NULL;
    uint8_t *more = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    block.name = "more";
    block.host = more;
    block.length = 8192;

    CHECK_EQ(savevm_ram_add_block(NULL, &block, NULL), -EINVAL);
    CHECK_EQ(savevm_ram_add_block(pair.from->ram, NULL, NULL), -EINVAL);
    block.host = NULL;
    CHECK_EQ(savevm_ram_add_block(pair.from->ram, &block, &err), -EINVAL);
    CHECK_HAS(error_get_pretty(err), "NULL");
    error_free(err);
    block.host = more + 1;
    CHECK_EQ(savevm_ram_add_block(pair.from->ram, &block, NULL), -EINVAL);
    block.host = more;
    block.length = UINT64_MAX;
    CHECK_EQ(savevm_ram_add_block(pair.from->ram, &block, NULL), -EINVAL);
    block.length = 8192;
    block.name = NULL;
    CHECK_EQ(savevm_ram_add_block(pair.from->ram, &block, NULL), -EINVAL);
    block.name = "pc.ram";
    CHECK_EQ(savevm_ram_add_block(pair.from->ram, &block, NULL), -EEXIST);
    CHECK_EQ(savevm_ram_remove_block(pair.from->ram, "more", NULL), -ENOENT);
    CHECK_EQ(savevm_ram_remove_block(pair.from->ram, NULL, NULL), -ENOENT);
    CHECK(savevm_ram_new(pair.from->vm, NULL, NULL, NULL, NULL) == NULL);
    CHECK_EQ(savevm_ram_query(NULL, NULL), -EINVAL);
    savevm_ram_set_dirty(NULL, more, 1);
    savevm_ram_free(NULL);

    block.name = "more";
    pair.params.max_bandwidth = MB;
    begin(&pair);
    WAIT_FOR(atomic_load(&pair.from->logs) == 1);
    CHECK_EQ(savevm_ram_add_block(pair.from->ram, &block, NULL), -EBUSY);
    CHECK_EQ(savevm_ram_remove_block(pair.from->ram, "pc.ram", NULL), -EBUSY);
    /* Nothing is freed: the RAM works on. */
    savevm_ram_free(pair.from->ram);
    CHECK_EQ(savevm_ram_add_block(pair.from->ram, &block, NULL), -EBUSY);
    CHECK_CANCELLED(pair.out);
    savevm_migration_free(pair.out);
    savevm_migration_free(pair.in);
    CHECK_EQ(savevm_ram_add_block(pair.from->ram, &block, NULL), 0);
    CHECK_EQ(savevm_ram_remove_block(pair.from->ram, "more", NULL), 0);
    release(&pair);
    munmap(more, 8192);
}
