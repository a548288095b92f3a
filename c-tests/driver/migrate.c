/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Precopy and snapshots through the C interface. */
#include "side.h"
#include "savevm/ram.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static Side source, destination;

static SaveVMParams params(void)
{
    return (SaveVMParams){ .size = sizeof(SaveVMParams), .switchover_timeout_ms = 60000, .handshake_timeout_ms = 60000 };
}

TEST(a_guest_moves)
{
    const char *uri = side_uri();
    SaveVMInfo info = SAVEVM_INFO_INIT;
    uint64_t sent;
    Error *err = NULL;

    sides_init(&source, &destination, false);
    SaveVMMigration *in = savevm_incoming(destination.vm, uri, NULL, &err);
    REQUIRE(in && !err);
    SaveVMMigration *out = savevm_migrate(source.vm, uri, NULL, &err);
    REQUIRE(out && !err);
    CHECK_EQ(savevm_migration_wait(out, &err), 0);
    CHECK_EQ(savevm_migration_wait(in, &err), 0);
    check_moved(&source, &destination);
    CHECK_EQ(savevm_migration_query(out, &info), 0);
    CHECK_EQ(info.status, SAVEVM_STATUS_COMPLETED);
    CHECK_EQ(info.owner, SAVEVM_OWNER_THERE);
    CHECK(info.transferred > 100 && info.return_path && info.peer_is_libsavevm);
    sent = info.transferred;
    SaveVMDeviceInfo device = SAVEVM_DEVICE_INFO_INIT;
    CHECK_EQ(savevm_migration_device(out, 0, &device), 0);
    CHECK_STR(device.name, "dev");
    CHECK(device.bytes > 0); /* the destination has reported the load time, which may be 0 us */
    CHECK_EQ(savevm_migration_device(in, 0, &device), 0);
    CHECK_STR(device.name, "dev");
    CHECK(device.bytes > 0 && device.save_time_us == 0);
    CHECK_EQ(savevm_migration_device(in, 1000, &device), -ENOENT);
    device.size = 0;
    CHECK_EQ(savevm_migration_device(in, 0, &device), -EINVAL);
    CHECK_EQ(savevm_migration_query(in, &info), 0);
    CHECK_EQ(info.owner, SAVEVM_OWNER_HERE);
    CHECK_EQ(info.transferred, sent);
    CHECK(source.resets == 0 && destination.resets == 0);
    CHECK_STR(source.statuses, "setup active completed");
    CHECK_STR(destination.statuses, "setup active completed");
    savevm_migration_free(out);
    savevm_migration_free(in);
    sides_free(&source, &destination);
}

/* A command that stores a stream does not answer, so the source does not wait for an answer. */
TEST(a_command_may_only_store_the_guest)
{
    SaveVMParams p = params();
    SaveVMInfo info = SAVEVM_INFO_INIT;
    char path[64], to[96], from[96];
    Error *err = NULL;

    snprintf(path, sizeof(path), "/tmp/savevm-stored-%d", (int)getpid());
    snprintf(to, sizeof(to), "exec:cat >%s", path);
    snprintf(from, sizeof(from), "file:%s", path);
    sides_init(&source, &destination, false);
    SaveVMMigration *out = savevm_migrate(source.vm, to, &p, &err);
    REQUIRE(out && !err);
    CHECK_EQ(savevm_migration_wait(out, &err), 0);
    CHECK_STR(err ? error_get_pretty(err) : "", "");
    CHECK_EQ(savevm_migration_query(out, &info), 0);
    CHECK(!info.return_path && !info.peer_is_libsavevm);
    SaveVMMigration *in = savevm_incoming(destination.vm, from, &p, &err);
    REQUIRE(in && !err);
    CHECK_EQ(savevm_migration_wait(in, &err), 0);
    check_moved(&source, &destination);
    savevm_migration_free(out);
    savevm_migration_free(in);
    unlink(path);
    sides_free(&source, &destination);
}

TEST(the_caller_does_the_work)
{
    SaveVMParams p = params();
    const char *uri = side_uri();
    unsigned steps = 0;
    int ret;

    sides_init(&source, &destination, false);
    p.no_thread = true;
    SaveVMMigration *in = savevm_incoming(destination.vm, uri, NULL, NULL);
    SaveVMMigration *out = savevm_migrate(source.vm, uri, &p, NULL);
    REQUIRE(in && out);
    while ((ret = savevm_migration_step(out)) == 1) {
        steps++;
    }
    CHECK_EQ(ret, 0);
    CHECK(steps > 3);
    CHECK_EQ(savevm_migration_wait(in, NULL), 0);
    check_moved(&source, &destination);
    savevm_migration_free(out);
    savevm_migration_free(in);
    sides_free(&source, &destination);
}

TEST(the_destinations_reason_arrives)
{
    const char *uri = side_uri();
    SaveVMInfo info = SAVEVM_INFO_INIT;
    Error *err = NULL, *again = NULL;

    sides_init(&source, &destination, false);
    destination.fail_load = true;
    SaveVMMigration *in = savevm_incoming(destination.vm, uri, NULL, NULL);
    SaveVMMigration *out = savevm_migrate(source.vm, uri, NULL, NULL);
    REQUIRE(in && out);
    CHECK(savevm_migration_wait(out, &err) < 0);
    REQUIRE(err != NULL);
    CHECK_HAS(error_get_pretty(err), "'dev'");
    CHECK_HAS(error_get_pretty(err), "load_state returned -5");
    CHECK_EQ(savevm_error_info(err)->side, 2);
    CHECK(savevm_migration_wait(out, &again) < 0 && again);
    CHECK(source.runs && !destination.runs);
    CHECK_EQ(savevm_migration_query(out, &info), 0);
    CHECK_EQ(info.owner, SAVEVM_OWNER_HERE);
    CHECK_EQ(info.status, SAVEVM_STATUS_FAILED);
    error_free(err);
    error_free(again);
    CHECK(savevm_migration_wait(in, NULL) < 0);
    savevm_migration_free(out);
    savevm_migration_free(in);
    sides_free(&source, &destination);
}

TEST(blockers_have_reasons)
{
    Error *err = NULL;

    sides_init(&source, &destination, false);
    int64_t blocker = savevm_add_blocker(source.vm, "a device is passed through", &err);
    CHECK(blocker > 0);
    CHECK(!savevm_migrate(source.vm, side_uri(), NULL, &err));
    REQUIRE(err != NULL);
    CHECK_HAS(error_get_pretty(err), "a device is passed through");
    error_free(err);
    CHECK_EQ(savevm_del_blocker(source.vm, blocker), 0);
    CHECK_EQ(savevm_del_blocker(source.vm, blocker), -ENOENT);
    sides_free(&source, &destination);
}

TEST(pause_continue_cancel)
{
    for (int cancel = 0; cancel < 2; cancel++) {
        SaveVMParams p = params();
        const char *uri = side_uri();
        SaveVMInfo info = SAVEVM_INFO_INIT;

        sides_init(&source, &destination, false);
        p.pause_before_switchover = true;
        SaveVMMigration *in = savevm_incoming(destination.vm, uri, NULL, NULL);
        SaveVMMigration *out = savevm_migrate(source.vm, uri, &p, NULL);
        REQUIRE(in && out);
        WAIT_FOR(savevm_migration_query(out, &info) == 0 && info.status == SAVEVM_STATUS_PRE_SWITCHOVER);
        CHECK(!source.runs && !destination.runs);
        if (cancel) {
            /* With the lock held, as a monitor would. */
            harness_lock(&source.lock);
            CHECK_CANCELLED(out);
            harness_unlock(&source.lock);
            CHECK(source.runs && !destination.runs);
            CHECK_EQ(savevm_migration_wait(out, NULL), -ECANCELED);
            CHECK(savevm_migration_wait(in, NULL) < 0);
        } else {
            CHECK_EQ(savevm_migration_continue(out), 0);
            CHECK_EQ(savevm_migration_wait(out, NULL), 0);
            CHECK_EQ(savevm_migration_wait(in, NULL), 0);
            check_moved(&source, &destination);
            CHECK_EQ(savevm_migration_continue(out), -EINVAL);
        }
        savevm_migration_free(out);
        savevm_migration_free(in);
        sides_free(&source, &destination);
        guests = 0;
    }
}

TEST(freeing_ends_what_runs)
{
    const char *uri = side_uri();

    sides_init(&source, &destination, false);
    source.keep_dirty = true;
    SaveVMParams p = params();
    p.max_bandwidth = 1000;
    p.downtime_limit_ms = 1;
    SaveVMMigration *in = savevm_incoming(destination.vm, uri, NULL, NULL);
    SaveVMMigration *out = savevm_migrate(source.vm, uri, &p, NULL);
    REQUIRE(in && out);
    harness_sleep_ms(50);
    savevm_migration_free(out);
    CHECK(source.runs);
    savevm_migration_free(in);
    CHECK(!destination.runs);
    sides_free(&source, &destination);
}

TEST(ports_that_the_system_chooses)
{
    char uri[128];
    Error *err = NULL;

    sides_init(&source, &destination, false);
    SaveVMMigration *in = savevm_incoming(destination.vm, "tcp:127.0.0.1:0", NULL, &err);
    REQUIRE(in != NULL);
    CHECK_EQ(savevm_migration_uri(in, uri, 4), -ERANGE);
    REQUIRE(savevm_migration_uri(in, uri, sizeof(uri)) == 0);
    CHECK_HAS(uri, "tcp:127.0.0.1:");
    SaveVMMigration *out = savevm_migrate(source.vm, uri, NULL, &err);
    REQUIRE(out != NULL);
    CHECK_EQ(savevm_migration_wait(out, NULL), 0);
    CHECK_EQ(savevm_migration_wait(in, NULL), 0);
    check_moved(&source, &destination);
    savevm_migration_free(out);
    savevm_migration_free(in);
    sides_free(&source, &destination);
}

/* RAM expects rounds without the lock, which is a migration's rule: a snapshot is taken of the device alone. */
TEST(a_snapshot_is_loaded_into_a_machine_that_was_reset)
{
    char uri[] = "file:/tmp/savevm-driver-XXXXXX";
    int file = mkstemp(uri + strlen("file:"));
    Error *err = NULL;

    sides_init(&source, &destination, false);
    REQUIRE(file >= 0);
    close(file);
    for (Side *side = &source; side; side = side == &source ? &destination : NULL) {
        savevm_set_current(side->vm);
        unregister_savevm(NULL, "ram", side);
    }
    savevm_set_current(NULL);
    CHECK_EQ(savevm_snapshot_save(source.vm, uri, NULL, &err), 0);
    CHECK(source.runs && source.resets == 0);
    CHECK_EQ(savevm_snapshot_load(destination.vm, uri, NULL, &err), 0);
    CHECK(destination.resets == 1 && !destination.runs);
    CHECK_EQ(destination.state, source.state);
    source.state = 5;
    CHECK_EQ(savevm_snapshot_load(source.vm, uri, NULL, &err), 0);
    CHECK(source.runs && source.resets == 1 && source.state == destination.state);
    CHECK(!err);
    unlink(uri + strlen("file:"));
    sides_free(&source, &destination);
}

TEST(nothing_crashes_on_null)
{
    Error *err = NULL;
    SaveVMInfo info = SAVEVM_INFO_INIT;

    sides_init(&source, &destination, false);
    CHECK(!savevm_migrate(source.vm, NULL, NULL, &err));
    CHECK_HAS(error_get_pretty(err), "NULL");
    error_free(err);
    err = NULL;
    CHECK(!savevm_migrate(source.vm, "nonsense", NULL, NULL));
    CHECK(!savevm_incoming(source.vm, NULL, NULL, NULL));
    CHECK(!savevm_migrate_to_channel(source.vm, NULL, NULL, NULL, NULL));
    CHECK(!savevm_incoming_from_channel(source.vm, NULL, NULL, NULL, NULL));
    CHECK_EQ(savevm_migration_wait(NULL, &err), -EINVAL);
    CHECK_STR(error_get_pretty(err), "there is no migration");
    error_free(err);
    err = NULL;
    CHECK_EQ(savevm_migration_cancel(NULL), -EINVAL);
    CHECK_EQ(savevm_migration_continue(NULL), -EINVAL);
    CHECK_EQ(savevm_migration_start_postcopy(NULL), -EINVAL);
    CHECK_EQ(savevm_migration_pause(NULL), -EINVAL);
    CHECK_EQ(savevm_migration_recover(NULL, NULL, NULL), -EINVAL);
    CHECK_EQ(savevm_request_bitmap(NULL, NULL), -EINVAL);
    CHECK_EQ(savevm_migration_set_params(NULL, NULL, NULL), -EINVAL);
    CHECK_EQ(savevm_migration_step(NULL), -EINVAL);
    CHECK_EQ(savevm_migration_query(NULL, &info), -EINVAL);
    savevm_migration_free(NULL);
    CHECK_EQ(savevm_migration_wait(NULL, NULL), -EINVAL);
    CHECK_EQ(savevm_migration_cancel(NULL), -EINVAL);
    CHECK_EQ(savevm_migration_pause(NULL), -EINVAL);
    CHECK_EQ(savevm_migration_recover(NULL, NULL, NULL), -EINVAL);
    CHECK_EQ(savevm_request_pages(NULL, NULL, 0, 0), -EINVAL);
    CHECK_EQ(savevm_migration_query(NULL, &info), -EINVAL);
    CHECK_EQ(savevm_migration_uri(NULL, NULL, 0), -EINVAL);
    savevm_migration_free(NULL);
    CHECK_EQ(savevm_snapshot_save(source.vm, NULL, NULL, NULL), -EINVAL);
    CHECK_EQ(savevm_snapshot_load(source.vm, NULL, NULL, NULL), -EINVAL);
    CHECK(savevm_add_blocker(source.vm, NULL, NULL) < 0);
    sides_free(&source, &destination);
}
