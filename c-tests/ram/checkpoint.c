/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checkpoints and rollbacks of a guest that checks its own memory, and what they refuse. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "migration/qemu-file-types.h"
#include "migration/register.h"
#include "savevm.h"
#include "snapshots.h"

#define LENGTH (8 << 20)
#define ROUNDS 300

/* A device whose state is one number. It rejects the states that the case chooses. */
typedef struct Counter {
    uint32_t value, rejected;
} Counter;

static void counter_save(QEMUFile *f, void *opaque)
{
    qemu_put_be32(f, ((Counter *)opaque)->value);
}

static int counter_load(QEMUFile *f, void *opaque, int version)
{
    Counter *counter = opaque;

    (void)version;
    counter->value = qemu_get_be32(f);
    return counter->rejected && counter->value == counter->rejected ? -EINVAL : 0;
}

static const SaveVMHandlers counter_handlers = { .save_state = counter_save, .load_state = counter_load };

static void add_counter(SaveVM *vm, const char *name, Counter *counter)
{
    SaveVM *before = savevm_set_current(vm);

    REQUIRE(register_savevm_live(name, 0, 1, &counter_handlers, counter) == 0);
    savevm_set_current(before);
}

static void remove_counter(SaveVM *vm, const char *name, Counter *counter)
{
    SaveVM *before = savevm_set_current(vm);

    unregister_savevm(NULL, name, counter);
    savevm_set_current(before);
}

static int failed(int ret, Error **err)
{
    if (*err) {
        fprintf(stderr, "%s\n", error_get_pretty(*err));
        error_free(*err);
        *err = NULL;
    }
    return ret;
}

/* A checkpoint; the case is skipped where memory can't be protected. */
static SaveVMCheckpoint *checkpoint(SaveVM *vm)
{
    Error *err = NULL;
    SaveVMCheckpoint *made = savevm_checkpoint(vm, &err);

    if (!made && strstr(error_get_pretty(err), "userfaultfd")) {
        harness_skip(error_get_pretty(err));
    }
    CHECK_STR(err ? error_get_pretty(err) : "", "");
    REQUIRE(made != NULL);
    return made;
}

static void rollback(SaveVMCheckpoint *to)
{
    Error *err = NULL;

    CHECK_EQ(failed(savevm_rollback(to, &err), &err), 0);
}

static Guest *working_guest(Memory kind)
{
    Guest *guest = logged_guest(kind, LENGTH);

    guest_fill(guest);
    guest_start(guest);
    return guest;
}

/* The guest runs, is put back, and runs again, which is the same each time as far as it can see. */
static void go_back_and_forth(Memory kind)
{
    Guest *guest = working_guest(kind);
    Counter counter = { .value = 1 };
    SaveVMCheckpoint *first, *second, *third;
    uint8_t *copy = malloc(LENGTH);

    add_counter(guest->vm, "counter", &counter);
    wait_for_steps(guest, 100);
    first = checkpoint(guest->vm);
    wait_for_steps(guest, 200);
    counter.value = 2;
    guest_stop(guest);
    second = checkpoint(guest->vm);
    memcpy(copy, guest->memory, LENGTH);
    guest_start(guest);
    for (int i = 0; i < ROUNDS; i++) {
        wait_for_steps(guest, 5);
        counter.value = 100;
        rollback(i % 3 ? second : first);
        CHECK_EQ(counter.value, i % 3 ? 2 : 1);
    }
    wait_for_steps(guest, 50);
    third = checkpoint(guest->vm);
    savevm_checkpoint_free(first);
    guest_stop(guest);
    rollback(second);
    CHECK(memcmp(copy, guest->memory, LENGTH) == 0);
    CHECK(guest_whole(guest));
    rollback(third);
    CHECK(guest_whole(guest));
    savevm_checkpoint_free(second);
    savevm_checkpoint_free(third);
    guest_start(guest);
    wait_for_steps(guest, 100);
    guest_stop(guest);
    CHECK(guest_whole(guest));
    free(copy);
    guest_free(guest);
}

TEST(guest_continues_from_every_checkpoint)
{
    go_back_and_forth(MEMORY_PRIVATE);
}

TEST(guest_in_shared_memory_continues_from_every_checkpoint)
{
    go_back_and_forth(MEMORY_SHARED);
}

TEST(guest_in_huge_pages_continues_from_every_checkpoint)
{
    go_back_and_forth(MEMORY_HUGE);
}

TEST(machine_without_ram_is_rolled_back)
{
    SaveVM *vm = savevm_new(NULL, NULL);
    Counter counters[2] = { { .value = 3 }, { .value = 4 } };
    SaveVMCheckpoint *made;

    add_counter(vm, "one", &counters[0]);
    add_counter(vm, "two", &counters[1]);
    made = checkpoint(vm);
    for (int i = 0; i < 3; i++) {
        counters[0].value = counters[1].value = 9;
        rollback(made);
        CHECK_EQ(counters[0].value, 3);
        CHECK_EQ(counters[1].value, 4);
    }
    savevm_checkpoint_free(made);
    savevm_checkpoint_free(NULL);
    savevm_free(vm);
}

TEST(rollback_is_refused_if_devices_changed)
{
    SaveVM *vm = savevm_new(NULL, NULL);
    Counter counter = { .value = 1 }, other = { .value = 2 };
    Error *err = NULL;
    SaveVMCheckpoint *made;

    add_counter(vm, "counter", &counter);
    made = checkpoint(vm);
    counter.value = 5;
    add_counter(vm, "other", &other);
    CHECK_EQ(savevm_rollback(made, &err), -EINVAL);
    CHECK_HAS(error_get_pretty(err), "device 'other' 0 was added since the checkpoint");
    failed(0, &err);
    remove_counter(vm, "other", &other);
    remove_counter(vm, "counter", &counter);
    CHECK_EQ(savevm_rollback(made, &err), -EINVAL);
    CHECK_HAS(error_get_pretty(err), "device 'counter' 0 was removed since the checkpoint");
    failed(0, &err);
    CHECK_EQ(counter.value, 5);
    CHECK_EQ(savevm_owner(vm), SAVEVM_OWNER_HERE);
    CHECK_EQ(savevm_rollback(NULL, &err), -EINVAL);
    failed(0, &err);
    add_counter(vm, "counter", &counter);
    rollback(made);
    CHECK_EQ(counter.value, 1);
    savevm_checkpoint_free(made);
    savevm_free(vm);
}

TEST(rollback_that_fails_leaves_a_torn_machine_until_another_succeeds)
{
    SaveVM *vm = savevm_new(NULL, NULL);
    Counter counter = { .value = 1 };
    Error *err = NULL;
    SaveVMCheckpoint *good, *bad;

    add_counter(vm, "counter", &counter);
    good = checkpoint(vm);
    counter.value = 7;
    bad = checkpoint(vm);
    counter.rejected = 7;
    CHECK_EQ(savevm_rollback(bad, &err), -EINVAL);
    CHECK_HAS(error_get_pretty(err), "counter");
    failed(0, &err);
    CHECK_EQ(savevm_owner(vm), SAVEVM_OWNER_TORN);
    CHECK(!savevm_may_run(vm));
    CHECK(savevm_checkpoint(vm, &err) == NULL);
    CHECK_HAS(error_get_pretty(err), "a rollback failed");
    failed(0, &err);
    rollback(good);
    CHECK_EQ(savevm_owner(vm), SAVEVM_OWNER_HERE);
    CHECK(savevm_may_run(vm));
    savevm_checkpoint_free(good);
    savevm_checkpoint_free(bad);
    savevm_free(vm);
}

TEST(rollback_of_a_guest_that_left_is_refused)
{
    SaveVM *vm = savevm_new(NULL, NULL);
    Counter counter = { .value = 1 };
    Error *err = NULL;
    SaveVMCheckpoint *made;

    add_counter(vm, "counter", &counter);
    made = checkpoint(vm);
    CHECK_EQ(savevm_override_owner(vm, SAVEVM_OWNER_THERE, &err), 0);
    CHECK_EQ(savevm_rollback(made, &err), -EPERM);
    failed(0, &err);
    CHECK_EQ(savevm_override_owner(vm, SAVEVM_OWNER_UNKNOWN, &err), 0);
    CHECK_EQ(savevm_rollback(made, &err), -EPERM);
    failed(0, &err);
    savevm_checkpoint_free(made);
    savevm_free(vm);
}

static int live_setup(QEMUFile *f, void *opaque)
{
    (void)f;
    (void)opaque;
    return 0;
}

TEST(foreign_live_device_is_refused)
{
    static const SaveVMHandlers live = { .save_setup = live_setup };
    SaveVM *vm = savevm_new(NULL, NULL);
    Error *err = NULL;

    savevm_set_current(vm);
    REQUIRE(register_savevm_live("stream", 0, 1, &live, NULL) == 0);
    savevm_set_current(NULL);
    CHECK(savevm_checkpoint(vm, &err) == NULL);
    CHECK_HAS(error_get_pretty(err), "the live device 'stream'");
    CHECK_EQ(savevm_error_info(err)->error, ENOTSUP);
    failed(0, &err);
    savevm_free(vm);
}

TEST(snapshots_are_saved_and_loads_are_refused_while_a_checkpoint_exists)
{
    char uri[64];
    SaveVMRamOptions kernel = SAVEVM_RAM_OPTIONS_INIT;
    kernel.log = SAVEVM_RAM_LOG_KERNEL;
    Guest *guest = guest_new(MEMORY_PRIVATE, LENGTH, &kernel);
    Error *err = NULL;
    SaveVMCheckpoint *made;
    SaveVMMigration *m;

    guest_fill(guest);
    guest_start(guest);
    made = checkpoint(guest->vm);
    wait_for_steps(guest, 100);
    snprintf(uri, sizeof(uri), "file:/tmp/savevm-checkpoint-%d", (int)getpid());
    CHECK_EQ(failed(savevm_snapshot_save(guest->vm, uri, NULL, &err), &err), 0);
    CHECK_EQ(savevm_snapshot_load(guest->vm, uri, NULL, &err), -EBUSY);
    CHECK_HAS(error_get_pretty(err), "1 checkpoints of the machine exist");
    failed(0, &err);
    CHECK(savevm_incoming(guest->vm, "unix:/tmp/savevm-checkpoint-in", NULL, &err) == NULL);
    CHECK_HAS(error_get_pretty(err), "checkpoints of the machine exist");
    failed(0, &err);
    CHECK_EQ(savevm_owner(guest->vm), SAVEVM_OWNER_HERE);
    /* The migration fails, and the guest and its checkpoint are unharmed. */
    m = savevm_migrate(guest->vm, "exec:cat >/dev/null", NULL, &err);
    REQUIRE(m != NULL);
    CHECK(savevm_migration_wait(m, &err) < 0);
    CHECK_HAS(error_get_pretty(err), "checkpoints of the machine exist");
    failed(0, &err);
    savevm_migration_free(m);
    savevm_ram_free(guest->ram); /* is refused and reported */
    wait_for_steps(guest, 100);
    rollback(made);
    guest_stop(guest);
    CHECK(guest_whole(guest));
    savevm_checkpoint_free(made);
    CHECK_EQ(failed(savevm_snapshot_load(guest->vm, uri, NULL, &err), &err), 0);
    CHECK(guest_whole(guest));
    unlink(uri + strlen("file:"));
    guest_free(guest);
}
