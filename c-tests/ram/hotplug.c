/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory is plugged and unplugged on one thread while another one saves the machine: each call succeeds or returns -EBUSY,
 * and neither thread blocks the other for ever. The deadline of the case ends a deadlock.
 */
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "harness.h"
#include "savevm.h"
#include "savevm/ram.h"

#define LENGTH (1 << 20)
/* Saves, with thousands of hotplugs beside each. */
#define SAVES 20

static SaveVM *vm;
static SaveVMRam *ram;
static uint8_t *memory;
static atomic_bool over;
static atomic_ulong plugged, refused;

static int add(const char *name, size_t offset)
{
    SaveVMRamBlock block = { .size = sizeof(block), .name = name, .host = memory + offset, .length = LENGTH };

    return savevm_ram_add_block(ram, &block, NULL);
}

static void *hotplug(void *unused)
{
    (void)unused;
    while (!over) {
        int ret = add("dimm", LENGTH);

        if (ret == 0) {
            plugged++;
            while ((ret = savevm_ram_remove_block(ram, "dimm", NULL)) == -EBUSY) {
                refused++;
            }
            CHECK_EQ(ret, 0);
        } else if (CHECK_EQ(ret, -EBUSY)) {
            refused++;
        }
    }
    return NULL;
}

static void snapshot(void)
{
    CHECK_EQ(savevm_snapshot_save(vm, "file:/dev/null", NULL, NULL), 0);
}

static SaveVMStatus status_of(SaveVMMigration *m)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;

    CHECK_EQ(savevm_migration_query(m, &info), 0);
    return info.status;
}

/* Cancelled before the hand-over: a guest that left could not be migrated again. */
static void migration(void)
{
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    SaveVMMigration *m;

    params.pause_before_switchover = true;
    m = savevm_migrate(vm, "exec:cat >/dev/null", &params, NULL);
    REQUIRE(m != NULL);
    WAIT_FOR(status_of(m) == SAVEVM_STATUS_PRE_SWITCHOVER);
    CHECK_CANCELLED(m);
    savevm_migration_free(m);
}

static void save_beside_hotplug(void (*save)(void))
{
    SaveVMRamOptions options = { .size = sizeof(options), .log = SAVEVM_RAM_LOG_MARKS };
    unsigned long before = 0;
    pthread_t thread;

    memory = mmap(NULL, 2 * LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    vm = savevm_new(NULL, NULL);
    ram = savevm_ram_new(vm, &options, NULL, NULL, NULL);
    REQUIRE(ram != NULL);
    REQUIRE(add("memory", 0) == 0);
    REQUIRE(pthread_create(&thread, NULL, hotplug, NULL) == 0);
    for (int i = 0; i < SAVES; i++) {
        WAIT_FOR(plugged > before);
        before = plugged;
        save();
    }
    over = true;
    pthread_join(thread, NULL);
    CHECK(!savevm_is_broken(vm));
    savevm_ram_free(ram);
    savevm_free(vm);
    munmap(memory, 2 * LENGTH);
}

TEST(snapshots_beside_hotplug)
{
    save_beside_hotplug(snapshot);
}

TEST(migrations_beside_hotplug)
{
    save_beside_hotplug(migration);
}
