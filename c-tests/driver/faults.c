/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A channel that fails at its first call, its second and so on, in a save, a
 * load and a migration: an error each time, one guest, and all in order.
 */
#include "faulty.h"
#include "savevm/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const Failure failures[] = { ONCE, FOR_GOOD, NOTHING };

static Side source, destination;

/* A stopped guest, to be saved. */
static void stopped_source(void)
{
    side_init(&source, true, false);
    source.runs = false;
    source.snapshot = true;
    guests--;
}

/* Saves a stopped guest. Returns whether the channel reached its fault. */
static bool save_once(Failure failure, int fail_at)
{
    Faulty channel;
    bool failed;
    int ret, closed;

    faulty_init(&channel, -1, 7, failure, fail_at);
    stopped_source();
    QEMUFile *f = savevm_file_from_channel(&faulty_ops, &channel, true);
    REQUIRE(f != NULL);
    harness_lock(&source.lock);
    ret = savevm_snapshot_save_file(source.vm, f);
    CHECK_EQ(qemu_file_get_error(f), ret);
    closed = qemu_fclose(f);
    CHECK(harness_locked(&source.lock));
    harness_unlock(&source.lock);
    failed = channel.calls >= fail_at;
    if (!CHECK(failed ? closed < 0 : (ret == 0 && closed == 0)) || !CHECK_EQ(channel.frees, 1)) {
        fprintf(stderr, "failure %d at call %d: %d, %d\n", failure, fail_at, ret, closed);
    }
    CHECK_EQ(source.cleanups, source.setups);
    CHECK(!savevm_is_broken(source.vm));
    side_free(&source);
    return failed;
}

TEST(a_save_fails_at_every_call)
{
    for (unsigned i = 0; i < 3; i++) {
        int fail_at = 1;

        while (save_once(failures[i], fail_at)) {
            fail_at++;
        }
        CHECK(fail_at > 20);
    }
}

/* What a save of the source is. */
static uint8_t *stream(size_t *len)
{
    const uint8_t *bytes;
    uint8_t *copy;

    stopped_source();
    QEMUFile *f = savevm_file_to_buffer();
    harness_lock(&source.lock);
    CHECK_EQ(savevm_snapshot_save_file(source.vm, f), 0);
    harness_unlock(&source.lock);
    bytes = savevm_file_buffer(f, len);
    copy = malloc(*len);
    memcpy(copy, bytes, *len);
    qemu_fclose(f);
    side_free(&source);
    return copy;
}

static bool load_once(const uint8_t *bytes, size_t len, Failure failure, int fail_at)
{
    Faulty channel;
    bool failed;
    int ret;

    faulty_init(&channel, -1, 7, failure, fail_at);
    channel.bytes = bytes;
    channel.len = len;
    side_init(&destination, false, false);
    QEMUFile *f = savevm_file_from_channel(&faulty_ops, &channel, false);
    REQUIRE(f != NULL);
    savevm_set_current(destination.vm);
    harness_lock(&destination.lock);
    ret = qemu_loadvm_state(f);
    harness_unlock(&destination.lock);
    savevm_set_current(NULL);
    /* What follows the state is only read past. */
    failed = channel.calls >= fail_at;
    CHECK(ret < 0 || destination.state == 77);
    CHECK_EQ(ret < 0, failed && destination.state != 77);
    qemu_fclose(f);
    CHECK_EQ(channel.frees, 1);
    CHECK(!destination.runs && !savevm_is_broken(destination.vm));
    side_free(&destination);
    return failed;
}

TEST(a_load_fails_at_every_call)
{
    size_t len;
    uint8_t *bytes = stream(&len);

    for (unsigned i = 0; i < 3; i++) {
        int fail_at = 1;

        while (load_once(bytes, len, failures[i], fail_at)) {
            fail_at++;
        }
        CHECK(fail_at > 20);
    }
    free(bytes);
}

static const SaveVMParams params = {
    .size = sizeof(SaveVMParams),
    .return_path = SAVEVM_RETURN_PATH_ON,
    .switchover_timeout_ms = 10000,
    .handshake_timeout_ms = 10000,
};

/* A migration whose channel fails at one end; whether it got that far. */
static bool migrate_once(bool at_source, Failure failure, int fail_at)
{
    Faulty ends[2];
    Faulty *faulty = &ends[at_source ? 0 : 1];
    SaveVMInfo info = SAVEVM_INFO_INIT;
    Error *err = NULL;
    bool failed;
    int fds[2], sent, came;

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    sides_init(&source, &destination, false);
    for (int i = 0; i < 2; i++) {
        faulty_init(&ends[i], fds[i], SIZE_MAX, failure, &ends[i] == faulty ? fail_at : 0);
    }
    SaveVMMigration *in = savevm_incoming_from_channel(destination.vm, &faulty_ops, &ends[1], &params, NULL);
    SaveVMMigration *out = savevm_migrate_to_channel(source.vm, &faulty_ops, &ends[0], &params, &err);
    REQUIRE(in && out && !err);
    sent = savevm_migration_wait(out, &err);
    CHECK_EQ(sent < 0, err != NULL);
    error_free(err);
    savevm_migration_query(out, &info);
    savevm_migration_free(out);
    if (sent < 0) {
        /* If the connection could not be shut down, the destination gets no error. */
        savevm_migration_cancel(in);
    }
    came = savevm_migration_wait(in, NULL);
    savevm_migration_free(in);
    WAIT_FOR(ends[0].frees == 1 && ends[1].frees == 1);
    failed = faulty->calls >= fail_at;
    if (info.owner == SAVEVM_OWNER_HERE) {
        CHECK(sent < 0 && came < 0 && source.runs && !destination.runs);
    } else if (info.owner == SAVEVM_OWNER_THERE) {
        CHECK(sent == 0 && !source.runs && destination.runs);
    } else {
        CHECK(sent < 0 && !source.runs);
    }
    CHECK(failed || (sent == 0 && came == 0));
    CHECK_EQ(source.cleanups, source.setups);
    CHECK(!savevm_is_broken(source.vm) && !savevm_is_broken(destination.vm));
    /* Neither the machine nor the driver remembers anything. */
    CHECK_EQ(savevm_add_blocker(source.vm, "free", NULL) > 0, true);
    CHECK_EQ(savevm_add_blocker(destination.vm, "free", NULL) > 0, true);
    guests = 0;
    sides_free(&source, &destination);
    return failed;
}

static void migrate_at_every_call(bool at_source, Failure failure)
{
    int fail_at = 1;

    while (migrate_once(at_source, failure, fail_at)) {
        fail_at++;
    }
    CHECK(fail_at > 5);
}

TEST(a_source_fails_once_at_every_call)
{
    migrate_at_every_call(true, ONCE);
}

TEST(a_source_fails_for_good_at_every_call)
{
    migrate_at_every_call(true, FOR_GOOD);
}

TEST(a_source_gets_nothing_from_every_call_on)
{
    migrate_at_every_call(true, NOTHING);
}

TEST(a_destination_fails_once_at_every_call)
{
    migrate_at_every_call(false, ONCE);
}

TEST(a_destination_fails_for_good_at_every_call)
{
    migrate_at_every_call(false, FOR_GOOD);
}

TEST(a_destination_gets_nothing_from_every_call_on)
{
    migrate_at_every_call(false, NOTHING);
}
