/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Progress, the deadline and the costs of devices through the C interface. */
#include "side.h"

#include <errno.h>

static Side source, destination;

TEST(the_end_is_100_percent_with_predicted_and_actual_downtime)
{
    const char *uri = side_uri();
    SaveVMInfo info = SAVEVM_INFO_INIT;
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
    CHECK_EQ(info.percent, 100);
    CHECK_EQ(info.expected_total_time_us, info.total_time_us);
    CHECK_EQ(info.stall, SAVEVM_STALL_NONE);
    CHECK_EQ(info.downtime_limit_us, 300000);
    CHECK(info.downtime_us > 0);
    /* Such a short migration measures no bandwidth, so that the memory is no part of the prediction. */
    CHECK(info.predicted_downtime_us < 1000000);
    uint64_t parts = info.predicted_memory_us + info.predicted_save_us + info.predicted_load_us +
                     info.predicted_round_trips_us + info.predicted_rest_us;
    CHECK(info.predicted_downtime_us >= parts && info.predicted_downtime_us <= parts + 5); /* each part is rounded down */
    CHECK_EQ(savevm_migration_stall(out, &err), 0);
    CHECK(!err);
    CHECK_EQ(savevm_migration_query(in, &info), 0);
    CHECK_EQ(info.percent, 100);
    savevm_migration_free(out);
    savevm_migration_free(in);
    sides_free(&source, &destination);
}

TEST(devices_are_listed_in_every_order)
{
    const SaveVMDeviceOrder orders[] = {
        SAVEVM_DEVICES_IN_STREAM, SAVEVM_DEVICES_BY_SAVE_TIME, SAVEVM_DEVICES_BY_LOAD_TIME, SAVEVM_DEVICES_BY_BYTES,
    };
    const char *uri = side_uri();
    SaveVMDeviceInfo device = SAVEVM_DEVICE_INFO_INIT;
    Error *err = NULL;

    sides_init(&source, &destination, false);
    SaveVMMigration *in = savevm_incoming(destination.vm, uri, NULL, &err);
    REQUIRE(in);
    SaveVMMigration *out = savevm_migrate(source.vm, uri, NULL, &err);
    REQUIRE(out);
    CHECK_EQ(savevm_migration_wait(out, &err), 0);
    CHECK_EQ(savevm_migration_wait(in, &err), 0);
    for (size_t at = 0; at < sizeof(orders) / sizeof(orders[0]); at++) {
        CHECK_EQ(savevm_migration_device_by(out, orders[at], 0, &device), 0);
        CHECK(device.bytes > 0);
        CHECK_EQ(savevm_migration_device_by(out, orders[at], 1000, &device), -ENOENT);
    }
    CHECK_EQ(savevm_migration_device_by(out, (SaveVMDeviceOrder)77, 0, &device), -EINVAL);
    CHECK_EQ(savevm_migration_device_by(NULL, SAVEVM_DEVICES_BY_BYTES, 0, &device), -EINVAL);
    CHECK_EQ(savevm_migration_device_by(out, SAVEVM_DEVICES_BY_BYTES, 0, NULL), -EINVAL);
    savevm_migration_free(out);
    savevm_migration_free(in);
    sides_free(&source, &destination);
}

TEST(a_deadline_cancels_a_migration_that_does_not_end)
{
    const char *uri = side_uri();
    SaveVMParams p = SAVEVM_PARAMS_INIT;
    SaveVMInfo info = SAVEVM_INFO_INIT;
    Error *err = NULL;

    sides_init(&source, &destination, false);
    p.deadline_ms = 500;
    p.pause_before_switchover = true; /* and it is not continued */
    SaveVMMigration *in = savevm_incoming(destination.vm, uri, NULL, &err);
    REQUIRE(in);
    SaveVMMigration *out = savevm_migrate(source.vm, uri, &p, &err);
    REQUIRE(out);
    CHECK_EQ(savevm_migration_wait(out, &err), -ETIMEDOUT);
    REQUIRE(err);
    CHECK_HAS(error_get_pretty(err), "deadline of 500ms");
    error_free(err);
    CHECK(savevm_migration_wait(in, NULL) < 0);
    CHECK_EQ(savevm_migration_query(out, &info), 0);
    CHECK_EQ(info.status, SAVEVM_STATUS_CANCELLED);
    CHECK_EQ(info.owner, SAVEVM_OWNER_HERE);
    CHECK(source.runs && !destination.runs);
    savevm_migration_free(out);
    savevm_migration_free(in);
    sides_free(&source, &destination);
}

TEST(parameters_that_contradict_each_other_are_refused)
{
    SaveVMParams p = SAVEVM_PARAMS_INIT;
    Error *err = NULL;

    sides_init(&source, &destination, false);
    p.deadline_ms = 500;
    p.deadline_action = SAVEVM_DEADLINE_POSTCOPY;
    CHECK(!savevm_migrate(source.vm, "unix:/tmp/savevm-no-such-socket", &p, &err));
    REQUIRE(err);
    CHECK_HAS(error_get_pretty(err), "postcopy is not enabled");
    error_free(err);
    err = NULL;
    p.deadline_action = (SaveVMDeadlineAction)9;
    CHECK(!savevm_migrate(source.vm, "unix:/tmp/savevm-no-such-socket", &p, &err));
    REQUIRE(err);
    CHECK_HAS(error_get_pretty(err), "9 is no value of SaveVMDeadlineAction");
    error_free(err);
    CHECK_EQ(savevm_migration_stall(NULL, NULL), -EINVAL);
    sides_free(&source, &destination);
}
