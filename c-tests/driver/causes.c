/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An error carries the first system error: its number, its text, what it was about, and where in the stream. */
#include "../lib/harness.h"
#include "savevm.h"
#include "savevm/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH (4 << 20)

static int log_result;

static int log_start(void *opaque)
{
    (void)opaque;
    return log_result;
}

static int log_sync(void *opaque, const SaveVMRamBlock *block, uint64_t *bitmap, size_t words)
{
    (void)opaque, (void)block, (void)bitmap, (void)words;
    return 0;
}

static void log_stop(void *opaque)
{
    (void)opaque;
}

static void quiet(void *host, SaveVMReportLevel level, const char *text)
{
    (void)host, (void)level, (void)text;
}

static SaveVM *vm;
static SaveVMRam *ram;
static uint8_t *memory;

/* A machine of some memory, no page of which is zero. */
static void begin(void)
{
    SaveVMHostOps host = SAVEVM_HOST_OPS_INIT;
    SaveVMRamOps ops = SAVEVM_RAM_OPS_INIT;
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;

    host.report = quiet;
    ops.log_start = log_start;
    ops.log_sync = log_sync;
    ops.log_stop = log_stop;
    block.name = "ram";
    block.length = LENGTH;
    log_result = 0;
    memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    memset(memory, 0x5a, LENGTH);
    block.host = memory;
    vm = savevm_new(&host, NULL);
    ram = savevm_ram_new(vm, NULL, &ops, NULL, NULL);
    REQUIRE(ram && savevm_ram_add_block(ram, &block, NULL) == 0);
}

static void end(void)
{
    savevm_ram_free(ram);
    savevm_free(vm);
    munmap(memory, LENGTH);
}

/* The error has this number, and its text all of the parts. */
static void check_cause(int ret, Error *err, int error, const char *part, const char *text)
{
    CHECK_EQ(ret, -error);
    REQUIRE(err != NULL);
    CHECK_EQ(savevm_error_info(err)->error, error);
    CHECK_HAS(error_get_pretty(err), part);
    CHECK_HAS(error_get_pretty(err), text);
    CHECK(strstr(error_get_pretty(err), "save_live_iterate returned") == NULL);
    error_free(err);
}

TEST(a_full_device)
{
    Error *err = NULL;
    int ret;

    begin();
    ret = savevm_snapshot_save(vm, "file:/dev/full", NULL, &err);
    CHECK(err && savevm_error_info(err)->offset >= 0);
    check_cause(ret, err, ENOSPC, "file:/dev/full", "No space left on device");
    end();
}

TEST(a_full_file_system)
{
    char place[] = "/tmp/savevm-causes-XXXXXX", uri[80];
    Error *err = NULL;
    int ret;

    harness_own_mounts();
    REQUIRE(mkdtemp(place) != NULL);
    harness_mount_memory(place, "size=1m");
    begin();
    snprintf(uri, sizeof(uri), "file:%s/snapshot", place);
    ret = savevm_snapshot_save(vm, uri, NULL, &err);
    CHECK(err && savevm_error_info(err)->offset > 0);
    check_cause(ret, err, ENOSPC, uri, "No space left on device");
    end();
    umount(place);
    rmdir(place);
}

static void migrate(const char *uri, int error, const char *part, const char *text)
{
    Error *err = NULL;
    SaveVMMigration *m = savevm_migrate(vm, uri, NULL, &err);
    int ret;

    REQUIRE(m != NULL);
    ret = savevm_migration_wait(m, &err);
    check_cause(ret, err, error, part, text);
    savevm_migration_free(m);
}

TEST(a_peer_that_is_dead)
{
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    char uri[32];
    Error *err = NULL;
    SaveVMMigration *m;
    int pair[2], ret;

    params.return_path = SAVEVM_RETURN_PATH_OFF;
    begin();
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    close(pair[1]);
    snprintf(uri, sizeof(uri), "fd:%d", pair[0]);
    m = savevm_migrate(vm, uri, &params, &err);
    REQUIRE(m != NULL);
    ret = savevm_migration_wait(m, &err);
    check_cause(ret, err, EPIPE, uri, "Broken pipe");
    savevm_migration_free(m);
    end();
}

TEST(a_command_that_fails)
{
    Error *err = NULL;
    int ret;

    begin();
    ret = savevm_snapshot_save(vm, "exec:exit 3", NULL, &err);
    check_cause(ret, err, EIO, "command 'exit 3' failed", "exit status: 3");
    migrate("exec:exit 3", EIO, "command 'exit 3' failed", "exit status: 3");
    end();
}

TEST(a_dirty_log_without_permission)
{
    begin();
    log_result = -EPERM;
    migrate("exec:cat >/dev/null", EPERM, "log_start", "Operation not permitted");
    end();
}
