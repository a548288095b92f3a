/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Postcopy and its recovery through the C interface. */
#include "side.h"
#include "savevm/ram.h"

#include <stdio.h>
#include <string.h>

static Side source, destination;
static SaveVMMigration *in;
static SaveVMMigration *out;

static SaveVMParams params(bool plain)
{
    return (SaveVMParams){
        .size = sizeof(SaveVMParams),
        .postcopy = true,
        .no_extensions = plain,
        .downtime_limit_ms = 1,
        .max_bandwidth = 20000,
        .max_postcopy_bandwidth = 400,
        .switchover_timeout_ms = 60000,
        .handshake_timeout_ms = 60000,
        .recover_timeout_ms = 60000,
    };
}

/* Waits for a page as a guest would; asks for it while it is not there. */
static void touch(int page)
{
    bool here = false;

    WAIT_FOR((pthread_mutex_lock(&destination.mutex), here = destination.received[page],
              pthread_mutex_unlock(&destination.mutex), here) ||
             (savevm_request_pages(destination.source, "pc.ram", page, 1), false));
}

static bool is(SaveVMStatus status)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;

    return savevm_migration_query(out, &info) == 0 && info.status == status;
}

static bool incoming_is(SaveVMStatus status)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;

    return savevm_migration_query(in, &info) == 0 && info.status == status;
}

/* With `hold`, the source sends no page in the postcopy until source.hold is cleared. */
static void begin(bool plain, bool hold)
{
    SaveVMParams p = params(plain);
    const char *uri = side_uri();

    sides_init(&source, &destination, true);
    source.keep_dirty = true;
    source.hold = hold;
    in = savevm_incoming(destination.vm, uri, &p, NULL);
    out = savevm_migrate(source.vm, uri, &p, NULL);
    REQUIRE(in && out);
    CHECK_EQ(savevm_migration_start_postcopy(out), 0);
}

static void finish(void)
{
    CHECK_EQ(savevm_migration_wait(out, NULL), 0);
    CHECK_EQ(savevm_migration_wait(in, NULL), 0);
    check_moved(&source, &destination);
    CHECK_EQ(destination.ended, 1);
    savevm_migration_free(out);
    savevm_migration_free(in);
    sides_free(&source, &destination);
}

TEST(pages_come_when_they_are_asked_for)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;

    begin(false, false);
    WAIT_FOR(destination.runs);
    touch(PAGES - 1);
    CHECK_EQ(destination.pages[PAGES - 1], source.pages[PAGES - 1]);
    for (int page = 0; page < PAGES; page++) {
        touch(page);
    }
    savevm_migration_query(out, &info);
    CHECK_EQ(info.owner, SAVEVM_OWNER_THERE);
    finish();
    CHECK_STR(source.statuses, "setup active device postcopy-active completed");
    CHECK_STR(destination.statuses, "setup active device postcopy-active completed");
}

TEST(as_qemu_does_it)
{
    begin(true, false);
    WAIT_FOR(destination.runs);
    finish();
    CHECK_STR(source.statuses, "setup active postcopy-active completed");
}

TEST(a_broken_connection_is_recovered)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;
    Error *err = NULL;

    begin(false, true);
    CHECK(savevm_migration_recover(out, side_uri(), NULL) < 0);
    /* The source may move on before the destination has started the guest. */
    WAIT_FOR(is(SAVEVM_STATUS_POSTCOPY_ACTIVE) && incoming_is(SAVEVM_STATUS_POSTCOPY_ACTIVE));
    CHECK(savevm_migration_cancel(out) < 0);
    CHECK_EQ(savevm_migration_pause(out), 0);
    WAIT_FOR(is(SAVEVM_STATUS_POSTCOPY_PAUSED) && incoming_is(SAVEVM_STATUS_POSTCOPY_PAUSED));
    CHECK(destination.runs && !source.runs);
    source.hold = false;
    const char *uri = side_uri();
    CHECK_EQ(savevm_migration_recover(in, uri, &err), 0);
    CHECK_EQ(savevm_migration_recover(out, uri, &err), 0);
    for (int page = PAGES - 1; page >= 0; page--) {
        touch(page);
    }
    CHECK_EQ(savevm_migration_wait(out, NULL), 0);
    savevm_migration_query(out, &info);
    CHECK_EQ(info.recoveries, 1);
    CHECK(info.paused_time_us > 0 && info.postcopy_time_us > 0);
    finish();
}

TEST(devices_that_do_not_load_give_the_guest_back)
{
    Error *err = NULL;

    sides_init(&source, &destination, true);
    SaveVMParams p = params(false);
    const char *uri = side_uri();
    source.keep_dirty = true;
    destination.fail_load = true;
    in = savevm_incoming(destination.vm, uri, &p, NULL);
    out = savevm_migrate(source.vm, uri, &p, NULL);
    REQUIRE(in && out);
    savevm_migration_start_postcopy(out);
    CHECK(savevm_migration_wait(out, &err) < 0);
    REQUIRE(err != NULL);
    CHECK_HAS(error_get_pretty(err), "'dev'");
    error_free(err);
    CHECK(source.runs && !destination.runs);
    CHECK(savevm_migration_wait(in, NULL) < 0);
    CHECK_EQ(destination.ended, -1);
    CHECK_EQ(source.cleanups, source.setups);
    savevm_migration_free(out);
    savevm_migration_free(in);
    sides_free(&source, &destination);
}
