/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Callbacks that fail, that take devices away or bring some, and that call the
 * library back, in every place from which it calls: nothing hangs, there is one
 * guest, and afterwards the machine is free.
 */
#include "machine.h"
#include "savevm/ram.h"
#include "savevm/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The places of both sides, in the order in which they are met. */
static const char *const source_places[] = {
    "setup",   "is_active", "pending", "iterate",   "complete",   "save",   "pre_save", "cleanup",
    "vm_stop", "notify",    "event",   "log_start", "log_sync",   "log_stop", "disks_inactivate",
};
static const char *const destination_places[] = {
    "load_setup", "is_active", "load", "load_live", "post_load", "load_cleanup", "disks_activate", "vm_start", "event",
};

static void migrate_once(Machine *machine, const char *place, Action *action)
{
    static unsigned count;
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    params.handshake_timeout_ms = 20000;
    params.switchover_timeout_ms = 20000;
    SaveVMInfo info = SAVEVM_INFO_INIT;
    char uri[64];
    int sent, came;

    snprintf(uri, sizeof(uri), "unix:/tmp/savevm-reentry-%d-%u", (int)getpid(), count++);
    machines_begin(machine, place, action);
    source.is_last = destination.is_last = action == NULL;
    SaveVMMigration *in = savevm_incoming(destination.vm, uri, &params, NULL);
    SaveVMMigration *out = savevm_migrate(source.vm, uri, &params, NULL);
    REQUIRE(in && out);
    sent = savevm_migration_wait(out, NULL);
    savevm_migration_query(out, &info);
    if (sent < 0) {
        savevm_migration_cancel(in);
    }
    came = savevm_migration_wait(in, NULL);
    savevm_migration_free(in);
    savevm_migration_free(out);
    plan.machine = NULL;
    if (!CHECK(plan.done > 0) || !CHECK(info.owner != SAVEVM_OWNER_HERE || (source.runs && came < 0)) ||
        !CHECK(info.owner != SAVEVM_OWNER_THERE || (sent == 0 && came == 0 && destination.runs)) ||
        !CHECK(running_guests <= 1)) {
        fprintf(stderr, "%s of the %s: sent %d, came %d, owner %d, source %d, destination %d\n", place,
                machine->is_source ? "source" : "destination", sent, came, info.owner, source.runs, destination.runs);
    }
    machines_end();
}

static void everywhere(Action *action)
{
    for (unsigned i = 0; i < sizeof(source_places) / sizeof(source_places[0]); i++) {
        migrate_once(&source, source_places[i], action);
    }
    for (unsigned i = 0; i < sizeof(destination_places) / sizeof(destination_places[0]); i++) {
        migrate_once(&destination, destination_places[i], action);
    }
}

static int nothing(Machine *machine, QEMUFile *f)
{
    (void)machine, (void)f;
    return 0;
}

TEST(every_place_is_met)
{
    everywhere(nothing);
}

static int fail(Machine *machine, QEMUFile *f)
{
    (void)machine;
    if (f) {
        qemu_file_set_error(f, -ENOSPC);
    }
    return -EIO;
}

TEST(callbacks_that_fail)
{
    everywhere(fail);
}

/* In the middle of its own callback, too. */
static int take_away(Machine *machine, QEMUFile *f)
{
    (void)f;
    unregister_savevm(NULL, "live", machine);
    unregister_savevm(NULL, "plain", machine);
    vmstate_unregister(NULL, &vmstate_described, machine);
    return 0;
}

TEST(callbacks_that_take_devices_away)
{
    everywhere(take_away);
}

static int bring(Machine *machine, QEMUFile *f)
{
    (void)f;
    CHECK_EQ(register_savevm_live("plugged", -1, 1, &plain_device, machine), 0);
    return 0;
}

TEST(callbacks_that_bring_devices)
{
    everywhere(bring);
}

/* Every call that begins a migration or a snapshot finds the machine busy, and reports that. */
static int begin_another(Machine *machine, QEMUFile *f)
{
    QEMUFile *own = savevm_file_to_buffer();
    Error *err = NULL;

    (void)f;
    CHECK_EQ(savevm_snapshot_save(machine->vm, "file:/dev/null", NULL, &err), -EBUSY);
    CHECK_HAS(error_get_pretty(err), "in progress");
    error_free(err);
    CHECK_EQ(savevm_snapshot_load(machine->vm, "file:/dev/null", NULL, NULL), -EBUSY);
    CHECK_EQ(savevm_snapshot_save_file(machine->vm, own), -EBUSY);
    CHECK(savevm_ram_snapshot(machine->ram, "file:/dev/null", NULL) < 0);
    CHECK(!savevm_migrate(machine->vm, "file:/dev/null", NULL, NULL));
    CHECK(!savevm_incoming(machine->vm, "file:/dev/null", NULL, NULL));
    CHECK_EQ(savevm_add_blocker(machine->vm, "late", NULL), -EBUSY);
    qemu_fclose(own);
    return 0;
}

TEST(callbacks_that_begin_another)
{
    everywhere(begin_another);
}

/* After the last event, which reports the end, the machine is free. */
TEST(the_last_event)
{
    migrate_once(&source, "", NULL);
    CHECK_EQ(plan.done, 2);
}

static int look(Machine *machine, QEMUFile *f)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;
    SaveVMRamInfo ram = SAVEVM_RAM_INFO_INIT;

    (void)f;
    savevm_ram_set_dirty(machine->ram, machine->memory, 4096);
    CHECK_EQ(savevm_ram_query(machine->ram, &ram), 0);
    if (machine->is_source) {
        CHECK_EQ(savevm_migration_query(machine->migration, &info), 0);
        CHECK_EQ(savevm_migration_step(machine->migration), -EBUSY);
    } else {
        CHECK_EQ(savevm_migration_query(machine->migration, &info), 0);
    }
    return 0;
}

TEST(callbacks_that_look)
{
    everywhere(look);
}

/* It would wait for itself. */
static int wait_for_the_end(Machine *machine, QEMUFile *f)
{
    Error *err = NULL;
    int ret = machine->is_source ? savevm_migration_wait(machine->migration, &err)
                                 : savevm_migration_wait(machine->migration, &err);

    (void)f;
    CHECK_EQ(ret, -EDEADLK);
    CHECK_HAS(error_get_pretty(err), "callback");
    error_free(err);
    return 0;
}

TEST(callbacks_that_wait_for_the_end)
{
    everywhere(wait_for_the_end);
}

static int cancel(Machine *machine, QEMUFile *f)
{
    int ret = machine->is_source ? savevm_migration_cancel(machine->migration)
                                 : savevm_migration_cancel(machine->migration);

    (void)f;
    CHECK(ret == -EINPROGRESS || ret == -EBUSY);
    return 0;
}

TEST(callbacks_that_cancel)
{
    everywhere(cancel);
}

/* A device that saves and loads all devices in the middle of it. */
static int run_phases(Machine *machine, QEMUFile *f)
{
    static _Thread_local bool inside;
    QEMUFile *own;
    size_t len;
    const uint8_t *bytes;

    (void)machine, (void)f;
    if (inside) {
        return 0;
    }
    inside = true;
    own = savevm_file_to_buffer();
    CHECK_EQ(qemu_save_device_state(own), 0);
    bytes = savevm_file_buffer(own, &len);
    QEMUFile *back = savevm_file_from_buffer(bytes + 8, len - 8);
    if (machine->is_source) {
        CHECK_EQ(qemu_load_device_state(back), 0);
    }
    qemu_fclose(back);
    qemu_fclose(own);
    inside = false;
    return 0;
}

TEST(callbacks_that_run_phases)
{
    everywhere(run_phases);
}

/* A snapshot of the source that the destination loads; both have the lock the whole time. */
static void snapshot_once(Machine *machine, const char *place, Action *action)
{
    char path[64], uri[80];
    int saved, loaded;

    snprintf(path, sizeof(path), "/tmp/savevm-reentry-%d", (int)getpid());
    snprintf(uri, sizeof(uri), "file:%s", path);
    machines_begin(machine, place, action);
    saved = savevm_snapshot_save(source.vm, uri, NULL, NULL);
    loaded = savevm_snapshot_load(destination.vm, uri, NULL, NULL);
    plan.machine = NULL;
    unlink(path);
    if (!CHECK(plan.done > 0) || !CHECK(loaded < 0 || saved == 0 || strcmp(place, "vm_start") == 0) ||
        !CHECK(source.runs || strcmp(place, "vm_start") == 0) || !CHECK(!destination.runs)) {
        fprintf(stderr, "%s of the %s: saved %d, loaded %d\n", place, machine->is_source ? "source" : "destination",
                saved, loaded);
    }
    machines_end();
}

static void every_place_of_a_snapshot(Action *action)
{
    static const char *const saving[] = {
        "setup",   "is_active", "iterate", "complete",  "save",     "pre_save",
        "vm_stop", "vm_start",  "notify",  "cleanup",
    };
    static const char *const loading[] = { "load_setup", "load", "load_live", "post_load", "load_cleanup" };

    for (unsigned i = 0; i < sizeof(saving) / sizeof(saving[0]); i++) {
        snapshot_once(&source, saving[i], action);
    }
    for (unsigned i = 0; i < sizeof(loading) / sizeof(loading[0]); i++) {
        snapshot_once(&destination, loading[i], action);
    }
}

TEST(callbacks_in_a_snapshot)
{
    static Action *const actions[] = { nothing, fail, take_away, bring, begin_another, run_phases };

    for (unsigned i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        every_place_of_a_snapshot(actions[i]);
    }
}
